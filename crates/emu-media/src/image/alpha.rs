//! Alpha blending. Transparent pixels are always composited over white.

use ::image::{DynamicImage, RgbImage};

/// Composites a pixel over white: `colour * alpha + 255 * (1 - alpha)`, rounded to nearest, as Pillow's paste with a mask.
pub(super) fn pixel_over_white([r, g, b, alpha]: [u8; 4]) -> [u8; 3] {
    let alpha = u32::from(alpha);
    [r, g, b].map(|c| {
        let sum = u32::from(c) * alpha + 255 * (255 - alpha) + 128;
        // Division by 255, exact for a product of two bytes.
        ((sum + (sum >> 8)) >> 8) as u8
    })
}

/// Composites RGBA bytes (straight alpha) over white; `None` unless there are `width * height * 4` of them.
pub fn over_white(rgba: &[u8], width: u32, height: u32) -> Option<RgbImage> {
    let wanted = u64::from(width) * u64::from(height) * 4;
    if rgba.len() as u64 != wanted {
        return None;
    }
    let (pixels, _) = rgba.as_chunks::<4>();
    let rgb = pixels.iter().flat_map(|p| pixel_over_white(*p)).collect();
    RgbImage::from_raw(width, height, rgb)
}

/// Converts 8-bit output of the BMP and WebP decoders to RGB; transparency is composited over white.
pub(super) fn to_rgb(picture: DynamicImage) -> RgbImage {
    let (width, height) = (picture.width(), picture.height());
    match picture {
        DynamicImage::ImageRgba8(p) => {
            over_white(p.as_raw(), width, height).unwrap_or_else(|| RgbImage::new(width, height))
        }
        // Grey is replicated to three channels.
        other => other.into_rgb8(),
    }
}
