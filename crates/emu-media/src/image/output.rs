//! Converts decoded VAE output to a picture, and to PNG.

use ::image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

use super::{ImageError, RgbImage};

/// Converts decoded values to 8 bits: `round(clamp(x / 2 + 0.5, 0, 1) * 255)` in f32, ties to even, as diffusers'
/// `numpy_to_pil` does.
///
/// # Shapes
/// - `values`: `[3, H, W]`, nominally from -1 to 1
pub fn picture_from_decoded(
    values: &[f32],
    width: u32,
    height: u32,
) -> Result<RgbImage, ImageError> {
    if width == 0 || height == 0 {
        return Err(ImageError::ZeroSized { width, height });
    }
    let pixels = width as usize * height as usize;
    if values.len() != pixels * 3 {
        return Err(ImageError::WrongLength {
            width,
            height,
            expected: pixels * 3,
            actual: values.len(),
        });
    }
    if let Some(index) = values.iter().position(|v| !v.is_finite()) {
        return Err(ImageError::NotFinite { index });
    }
    let byte = |x: f32| ((x / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    let (red, rest) = values.split_at(pixels);
    let (green, blue) = rest.split_at(pixels);
    let bytes: Vec<u8> = red
        .iter()
        .zip(green)
        .zip(blue)
        .flat_map(|((r, g), b)| [byte(*r), byte(*g), byte(*b)])
        .collect();
    let actual = bytes.len();
    RgbImage::from_raw(width, height, bytes).ok_or(ImageError::WrongLength {
        width,
        height,
        expected: pixels * 3,
        actual,
    })
}

/// Encodes the picture as PNG, 8-bit RGB.
pub fn encode_png(image: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let (width, height) = image.dimensions();
    if width == 0 || height == 0 {
        return Err(ImageError::ZeroSized { width, height });
    }
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(image.as_raw(), width, height, ExtendedColorType::Rgb8)
        .map_err(|e| ImageError::Encode {
            reason: e.to_string(),
        })?;
    Ok(bytes)
}
