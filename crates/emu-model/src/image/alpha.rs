//! The one rule for transparency: over white.

use ::image::{DynamicImage, RgbImage};

/// A pixel over white: `colour * alpha + 255 * (1 - alpha)`, rounded to nearest, as Pillow pastes with a mask.
pub(super) fn pixel_over_white([r, g, b, alpha]: [u8; 4]) -> [u8; 3] {
    let alpha = u32::from(alpha);
    [r, g, b].map(|c| {
        let sum = u32::from(c) * alpha + 255 * (255 - alpha) + 128;
        // The quotient by 255, exact for two bytes.
        ((sum + (sum >> 8)) >> 8) as u8
    })
}

/// RGBA bytes (not premultiplied) over white; `None` where they are not `width * height * 4`.
pub fn over_white(rgba: &[u8], width: u32, height: u32) -> Option<RgbImage> {
    let wanted = u64::from(width) * u64::from(height) * 4;
    if rgba.len() as u64 != wanted {
        return None;
    }
    let (pixels, _) = rgba.as_chunks::<4>();
    let rgb = pixels.iter().flat_map(|p| pixel_over_white(*p)).collect();
    RgbImage::from_raw(width, height, rgb)
}

/// A picture of 8 bits a sample as RGB, as the decoders of BMP and WebP give it: transparency is over white.
pub(super) fn to_rgb(picture: DynamicImage) -> RgbImage {
    let (width, height) = (picture.width(), picture.height());
    match picture {
        DynamicImage::ImageRgba8(p) => {
            over_white(p.as_raw(), width, height).unwrap_or_else(|| RgbImage::new(width, height))
        }
        // Grey is repeated.
        other => other.into_rgb8(),
    }
}
