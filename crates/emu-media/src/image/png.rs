//! PNG, decoded row by row, so that a large file is never in memory as a whole. An animation gives its default picture.

use std::io::Cursor;

use ::png::{BitDepth, ColorType, Decoder, DecodingError, Reader, Transformations};

use super::alpha::pixel_over_white;
use super::canvas::{Canvas, Rows};
use super::codec::ends_early;
use super::format::Format;
use super::{ImageError, Limits, RgbImage};

/// Memory limit for rows and chunks, in addition to the pixels.
const MAX_CHUNK_BYTES: usize = 64 << 20;

/// The seven Adam7 passes of an interlaced picture: first column, first row, column step, row step.
const PASSES: [[usize; 4]; 7] = [
    [0, 0, 8, 8],
    [4, 0, 8, 8],
    [0, 4, 4, 8],
    [2, 0, 4, 4],
    [0, 2, 2, 4],
    [1, 0, 2, 2],
    [0, 1, 1, 2],
];

fn from_png(error: DecodingError) -> ImageError {
    let format = Format::Png;
    match &error {
        DecodingError::LimitsExceeded => ImageError::UnsupportedFeature {
            format,
            feature: "a chunk that takes too much memory".to_owned(),
        },
        e if ends_early(e) => ImageError::Truncated { format },
        e => ImageError::Unreadable {
            format,
            reason: e.to_string(),
        },
    }
}

/// Width and height from the header.
pub(super) fn dimensions(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let mut decoder = Decoder::new(Cursor::new(bytes));
    let info = decoder.read_header_info().map_err(from_png)?;
    Ok((info.width, info.height))
}

/// Decodes to RGB: palettes are looked up, grey is replicated, 16-bit samples keep their high byte.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    let mut decoder = Decoder::new_with_limits(
        Cursor::new(bytes),
        ::png::Limits {
            bytes: MAX_CHUNK_BYTES,
        },
    );
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let info = decoder.read_header_info().map_err(from_png)?;
    let rows = if info.interlaced {
        Rows::Interlaced
    } else {
        Rows::InOrder
    };
    let mut canvas = Canvas::new(info.width, info.height, rows, limits)?;
    let mut reader = decoder.read_info().map_err(from_png)?;
    match reader.output_color_type() {
        (ColorType::Grayscale, BitDepth::Eight) => read(&mut reader, &mut canvas, |[l]| [l; 3])?,
        (ColorType::GrayscaleAlpha, BitDepth::Eight) => {
            read(&mut reader, &mut canvas, |[l, a]| {
                pixel_over_white([l, l, l, a])
            })?;
        }
        (ColorType::Rgb, BitDepth::Eight) => read(&mut reader, &mut canvas, |rgb| rgb)?,
        (ColorType::Rgba, BitDepth::Eight) => read(&mut reader, &mut canvas, pixel_over_white)?,
        (color, depth) => {
            return Err(ImageError::UnsupportedFeature {
                format: Format::Png,
                feature: format!("{color:?} of {depth:?} bits"),
            });
        }
    }
    Ok(canvas.finish())
}

/// Writes every row to the canvas; a pixel has `N` samples.
fn read<const N: usize>(
    reader: &mut Reader<Cursor<&[u8]>>,
    canvas: &mut Canvas,
    pixel: impl Fn([u8; N]) -> [u8; 3],
) -> Result<(), ImageError> {
    let info = reader.info();
    let (width, height) = (info.width as usize, info.height as usize);
    let passes: &[[usize; 4]] = if info.interlaced {
        &PASSES
    } else {
        &[[0, 0, 1, 1]]
    };
    // A pass without columns has no rows in the file.
    for [left, top, across, down] in passes.iter().filter(|pass| pass[0] < width) {
        for y in (*top..height).step_by(*down) {
            let row = reader.next_interlaced_row().map_err(from_png)?;
            let row = row.ok_or(ImageError::Truncated {
                format: Format::Png,
            })?;
            let (pixels, _) = row.data().as_chunks::<N>();
            canvas.put(y, *left, *across, pixels.iter().map(|p| pixel(*p)));
        }
    }
    Ok(())
}
