//! TIFF: grey, palette, RGB and CMYK of up to 16 bits, with or without alpha; of several pictures, the first.

use std::io::Cursor;

use ::tiff::decoder::{Decoder, DecodingResult, Limits as TiffLimits};
use ::tiff::tags::Tag;
use ::tiff::{ColorType, TiffError};

use super::alpha::pixel_over_white;
use super::canvas::{Canvas, Rows};
use super::decode::{Format, ends_early};
use super::jpeg::cmyk_to_rgb;
use super::{ImageError, Limits, RgbImage};

/// The value of `ExtraSamples` for colours that are multiplied with their alpha.
const PREMULTIPLIED: u16 = 1;

fn from_tiff(error: TiffError) -> ImageError {
    let format = Format::Tiff;
    match &error {
        TiffError::UnsupportedError(e) => unsupported(e.to_string()),
        TiffError::LimitsExceeded => unsupported("too much memory".to_owned()),
        e if ends_early(e) => ImageError::Truncated { format },
        e => ImageError::Unreadable {
            format,
            reason: e.to_string(),
        },
    }
}

fn unsupported(feature: String) -> ImageError {
    ImageError::UnsupportedFeature {
        format: Format::Tiff,
        feature,
    }
}

/// Width and height of the first picture.
pub(super) fn dimensions(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(from_tiff)?;
    decoder.dimensions().map_err(from_tiff)
}

/// How samples become a pixel.
enum Color {
    Gray,
    /// The colour of each index.
    Palette(Vec<[u8; 3]>),
    Rgb,
    Cmyk,
}

/// Decodes the first picture to RGB.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(from_tiff)?;
    let (out_width, out_height) = decoder.dimensions().map_err(from_tiff)?;
    limits.check_pixels(out_width, out_height)?;
    let width = out_width as usize;
    let mut own = TiffLimits::default();
    let most = usize::try_from(limits.max_pixels.saturating_mul(8)).unwrap_or(usize::MAX);
    own.decoding_buffer_size = most;
    own.intermediate_buffer_size = most;
    let mut decoder = decoder.with_limits(own);

    // 1. what a pixel is made of: colours, samples, bits, alpha
    let color_type = decoder.colortype().map_err(from_tiff)?;
    let (color, samples, bits) = match color_type {
        ColorType::Gray(bits) => (Color::Gray, 1, bits),
        ColorType::Multiband {
            bit_depth,
            num_samples: 2,
        } => (Color::Gray, 2, bit_depth),
        ColorType::Palette(bits) => (Color::Palette(palette(&mut decoder)?), 1, bits),
        ColorType::RGB(bits) => (Color::Rgb, 3, bits),
        ColorType::RGBA(bits) => (Color::Rgb, 4, bits),
        ColorType::CMYK(bits) => (Color::Cmyk, 4, bits),
        other => return Err(unsupported(format!("{other:?}"))),
    };
    let extra = decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples);
    let premultiplied = extra
        .map_err(from_tiff)?
        .is_some_and(|e| e.first() == Some(&PREMULTIPLIED));

    // 2. all samples, as they lie
    let mut result = DecodingResult::U8(Vec::new());
    let layout = decoder
        .read_image_to_buffer(&mut result)
        .map_err(from_tiff)?;
    let depth = if matches!(result, DecodingResult::U16(_)) {
        2
    } else {
        1
    };
    if result.as_buffer(0).as_bytes().len() < layout.complete_len {
        return Err(unsupported("too much memory".to_owned()));
    }
    let data = match result {
        DecodingResult::U8(bytes) if bits <= 8 => bytes,
        DecodingResult::U16(values) if bits == 16 => {
            values.into_iter().map(|v| (v >> 8) as u8).collect()
        }
        _ => return Err(unsupported(format!("samples of {bits} bits"))),
    };
    let row_len = layout.row_stride.map_or(0, |stride| stride.get() / depth);
    let planes = match layout.plane_stride {
        Some(stride) if layout.planes > 1 => Planes {
            step: 1,
            within: 0,
            between: stride.get() / depth,
        },
        _ => Planes {
            // There may be more samples than the colour needs.
            step: if bits < 8 { samples } else { row_len / width },
            within: 1,
            between: 0,
        },
    };

    // 3. pixels
    let mut canvas = Canvas::new(out_width, out_height, Rows::InOrder, limits)?;
    let scale = 255 / ((1u16 << bits.min(8)) - 1).max(1);
    for y in 0..out_height as usize {
        let sample = |x: usize, channel: usize| {
            let at = (x * planes.step + channel * planes.within) * usize::from(bits.min(8));
            let byte = y * row_len + channel * planes.between + at / 8;
            let byte = data.get(byte).copied().unwrap_or_default();
            if bits >= 8 {
                return byte;
            }
            // Packed from the most significant bit on.
            let shift = (8 - usize::from(bits)).saturating_sub(at % 8);
            (byte >> shift) & ((1 << bits) - 1)
        };
        let wide = |value: u8| (u16::from(value) * scale).min(255) as u8;
        let pixel = |x: usize| match &color {
            Color::Palette(colors) => colors
                .get(usize::from(sample(x, 0)))
                .copied()
                .unwrap_or_default(),
            Color::Gray => {
                let gray = wide(sample(x, 0));
                let alpha = if samples == 2 {
                    wide(sample(x, 1))
                } else {
                    255
                };
                blend([gray; 3], alpha, premultiplied)
            }
            Color::Rgb => {
                let rgb = [0, 1, 2].map(|channel| wide(sample(x, channel)));
                let alpha = if samples == 4 {
                    wide(sample(x, 3))
                } else {
                    255
                };
                blend(rgb, alpha, premultiplied)
            }
            Color::Cmyk => {
                let inks = [0, 1, 2].map(|channel| wide(sample(x, channel)));
                cmyk_to_rgb(inks, wide(sample(x, 3)))
            }
        };
        canvas.put(y, 0, 1, (0..width).map(pixel));
    }
    Ok(canvas.finish())
}

/// A colour over white.
fn blend(rgb: [u8; 3], alpha: u8, premultiplied: bool) -> [u8; 3] {
    if premultiplied {
        return rgb.map(|c| c.saturating_add(255 - alpha));
    }
    let [r, g, b] = rgb;
    pixel_over_white([r, g, b, alpha])
}

/// Where the samples of a pixel lie, in samples.
struct Planes {
    /// From one pixel to the next.
    step: usize,
    /// From one channel to the next, in one plane.
    within: usize,
    /// From one plane to the next.
    between: usize,
}

/// The colours of a palette: all reds, all greens, all blues, of 16 bits.
fn palette(decoder: &mut Decoder<Cursor<&[u8]>>) -> Result<Vec<[u8; 3]>, ImageError> {
    let map = decoder.get_tag_u16_vec(Tag::ColorMap).map_err(from_tiff)?;
    let count = map.len() / 3;
    let high = |at: usize| map.get(at).map_or(0, |v| (v >> 8) as u8);
    Ok((0..count)
        .map(|i| [high(i), high(count + i), high(2 * count + i)])
        .collect())
}
