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

/// Any decoded picture as RGB: grey is repeated, of 16-bit samples the high byte is kept, transparency is over white.
pub(super) fn to_rgb(picture: DynamicImage) -> RgbImage {
    let high = |sample: u16| (sample >> 8) as u8;
    let (width, height) = (picture.width(), picture.height());
    let of = |rgb: Vec<u8>| RgbImage::from_raw(width, height, rgb);
    let made = match picture {
        DynamicImage::ImageRgb8(rgb) => return rgb,
        DynamicImage::ImageLumaA8(p) => of(p
            .pixels()
            .flat_map(|p| pixel_over_white([p.0[0], p.0[0], p.0[0], p.0[1]]))
            .collect()),
        DynamicImage::ImageRgba8(p) => of(p.pixels().flat_map(|p| pixel_over_white(p.0)).collect()),
        DynamicImage::ImageLuma16(p) => of(p.pixels().flat_map(|p| [high(p.0[0]); 3]).collect()),
        DynamicImage::ImageLumaA16(p) => of(p
            .pixels()
            .map(|p| p.0.map(high))
            .flat_map(|[l, a]| pixel_over_white([l, l, l, a]))
            .collect()),
        DynamicImage::ImageRgb16(p) => of(p.pixels().flat_map(|p| p.0.map(high)).collect()),
        DynamicImage::ImageRgba16(p) => of(p
            .pixels()
            .flat_map(|p| pixel_over_white(p.0.map(high)))
            .collect()),
        // Grey of 8 bits, which is repeated; no decoder here gives floats.
        other => Some(other.to_rgb8()),
    };
    made.unwrap_or_else(|| RgbImage::new(width, height))
}
