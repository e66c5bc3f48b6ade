//! Decodes a picture file to RGB. Limits are checked before any pixel is decoded.

use std::io::Cursor;

use ::image::ImageDecoder;
use ::image::codecs::{bmp::BmpDecoder, webp::WebPDecoder};

use super::alpha::to_rgb;
use super::codec::{from_inner, with_decoder};
use super::{Format, ImageError, Limits, RgbImage, canvas, exif, gif, jpeg, png, tiff, webp};

/// Decodes a picture to RGB: palettes are looked up, grey is replicated, 16-bit samples keep their high byte. The pixels
/// equal Pillow's `convert("RGB")` with three exceptions: EXIF orientation is applied, transparency is composited over
/// white, and 16-bit *grey* pictures keep their high byte, where Pillow clips them at 255. An animation gives its first
/// frame.
///
/// A PNG or JPEG over [`Limits::max_pixels`] is downscaled to half its size.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    let format = limits.check_file(bytes)?;
    let picture = match format {
        Format::Png => png::decode(bytes, limits),
        Format::Jpeg => jpeg::decode(bytes, limits),
        Format::Gif => gif::decode_first(bytes, limits),
        Format::WebP => webp::decode_first(bytes, limits),
        Format::Tiff => tiff::decode(bytes, limits),
        Format::Bmp => {
            with_decoder(BmpDecoder::new(Cursor::new(bytes)), format, limits).map(to_rgb)
        }
    }?;
    Ok(exif::upright(picture, exif::orientation(format, bytes)))
}

/// Width and height of the result of [`decode`], from the header alone.
pub fn dimensions(bytes: &[u8], limits: &Limits) -> Result<(u32, u32), ImageError> {
    let format = limits.check_file(bytes)?;
    let inner = |e| from_inner(format, e);
    let (width, height) = match format {
        Format::Png => png::dimensions(bytes)?,
        Format::Jpeg => jpeg::dimensions(bytes)?,
        Format::Gif => gif::dimensions(bytes)?,
        Format::Tiff => tiff::dimensions(bytes)?,
        Format::WebP => WebPDecoder::new(Cursor::new(bytes))
            .map_err(inner)?
            .dimensions(),
        Format::Bmp => BmpDecoder::new(Cursor::new(bytes))
            .map_err(inner)?
            .dimensions(),
    };
    let (width, height) = match format {
        Format::Png | Format::Jpeg => {
            canvas::reduced(width, height, canvas::factor(width, height, limits)?)
        }
        _ => {
            limits.check_pixels(width, height)?;
            (width, height)
        }
    };
    let transposed = exif::is_transposed(exif::orientation(format, bytes));
    Ok(if transposed {
        (height, width)
    } else {
        (width, height)
    })
}
