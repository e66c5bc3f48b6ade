//! The first frame of a GIF, and all frames of an animation.

use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions, Decoder, DecodingError, MemoryLimit};

use super::decode::Format;
use super::{ImageError, Limits, RgbImage};

type GifDecoder<'a> = Decoder<Cursor<&'a [u8]>>;

/// Opens a GIF so that frames come as palette indices.
fn open<'a>(bytes: &'a [u8], limits: Option<&Limits>) -> Result<GifDecoder<'a>, ImageError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    if let Some(limit) = limits.and_then(|l| std::num::NonZeroU64::new(l.max_pixels)) {
        options.set_memory_limit(MemoryLimit::Bytes(limit));
    }
    options.read_info(Cursor::new(bytes)).map_err(from_gif)
}

/// Sorts the decoder's error.
fn from_gif(error: DecodingError) -> ImageError {
    let reason = error.to_string();
    let early = match &error {
        DecodingError::UnexpectedEof => true,
        DecodingError::Io(e) => e.kind() == std::io::ErrorKind::UnexpectedEof,
        _ => false,
    };
    if early {
        ImageError::Truncated {
            format: Format::Gif,
        }
    } else {
        ImageError::Unreadable {
            format: Format::Gif,
            reason,
        }
    }
}

/// Width and height of the canvas.
pub(crate) fn dimensions(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let decoder = open(bytes, None)?;
    Ok((u32::from(decoder.width()), u32::from(decoder.height())))
}

/// The first frame. As in Pillow, the canvas outside a smaller frame, and transparent pixels, show the palette's
/// colour of the transparent index.
pub(crate) fn decode_first(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    let mut decoder = open(bytes, Some(limits))?;
    let (width, height) = (u32::from(decoder.width()), u32::from(decoder.height()));
    limits.check_pixels(width, height)?;
    let global = decoder.global_palette().map(<[u8]>::to_vec);
    let Some(frame) = decoder.read_next_frame().map_err(from_gif)? else {
        return Err(ImageError::Truncated {
            format: Format::Gif,
        });
    };
    let palette = frame.palette.as_deref().or(global.as_deref());
    let color = |index: u8| match palette {
        // an index past the end of the palette is black
        Some(p) => p
            .get(usize::from(index) * 3..)
            .and_then(|p| p.first_chunk::<3>())
            .copied()
            .unwrap_or([0; 3]),
        None => [index; 3],
    };
    let mut picture = RgbImage::from_pixel(
        width,
        height,
        ::image::Rgb(color(frame.transparent.unwrap_or(0))),
    );
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    for (row, y) in frame
        .buffer
        .chunks_exact(usize::from(frame.width).max(1))
        .zip(top..height)
    {
        for (index, x) in row.iter().zip(left..width) {
            picture.put_pixel(x, y, ::image::Rgb(color(*index)));
        }
    }
    Ok(picture)
}
