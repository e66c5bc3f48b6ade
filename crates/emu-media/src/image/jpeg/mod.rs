//! A JPEG decoder that is bit-exact with libjpeg-turbo at its default settings, which is what Pillow uses.
//!
//! The goldens hold pixels decoded by Pillow, and resized pictures are compared exactly. The available pure-Rust decoders
//! round differently (by up to 5 of 255 before the resize, 2 after it). Three parts have to match: the "slow" integer
//! inverse DCT, the triangle filter for chroma upsampling, and the fixed-point colour conversion.
//!
//! Supported: baseline, extended and progressive Huffman files with 8-bit samples; grey, YCbCr, RGB, CMYK and YCCK.
//! Damaged data are an error here, where libjpeg warns and continues with grey blocks; only a short tail may be missing.
//! Sequential files are decoded row by row, so that a large one takes little more memory than its pixels.

mod color;
mod frame;
mod header;
mod huffman;
mod idct;
mod plane;
mod scan;
mod scan_header;
mod upsample;

use header::Reader;
use plane::damaged;
use scan::Scan;

use super::canvas::{Canvas, Rows, factor};
use super::{ImageError, Limits, RgbImage};
pub(super) use color::cmyk_to_rgb;

/// Maximum scans of a progressive file: the `-maxscans` value that libjpeg-turbo's fuzzers use.
const MAX_SCANS: usize = 500;
/// Maximum passes of a progressive file over all of its blocks. Encoders need about ten.
const MAX_PASSES: u64 = 64;
/// Blocks that are always allowed, so that this limit does not apply to small pictures.
const FREE_BLOCKS: u64 = 1 << 20;

/// Width and height from the frame header.
pub(super) fn dimensions(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let mut reader = Reader::new(bytes)?;
    let frame = reader.read_frame()?;
    Ok((frame.width as u32, frame.height as u32))
}

/// The first EXIF segment before the pixels.
pub(super) fn exif(bytes: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(bytes).ok()?;
    let mut frame = reader.read_frame().ok()?;
    // Errors in the rest are reported by decoding.
    let _ = reader.next_scan(&mut frame);
    reader.exif
}

/// Checks the scan limits of a progressive file from its scan headers alone: a scan of a few bytes can cover every block.
fn check_scans(bytes: &[u8]) -> Result<(), ImageError> {
    let mut reader = Reader::new(bytes)?;
    let mut frame = reader.read_frame()?;
    if !frame.progressive {
        return Ok(());
    }
    let most = frame.blocks().saturating_mul(MAX_PASSES).max(FREE_BLOCKS);
    let (mut scans, mut blocks) = (0, 0u64);
    // Decoding meets the same error and reports it.
    while let Ok(Some(header)) = reader.next_scan(&mut frame) {
        scans += 1;
        blocks = blocks.saturating_add(frame.blocks_of(&header));
        if scans > MAX_SCANS || blocks > most {
            return Err(ImageError::TooManyScans {
                scans,
                max_scans: scans - 1,
            });
        }
    }
    Ok(())
}

/// Decodes to RGB.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    let mut reader = Reader::new(bytes)?;
    let mut frame = reader.read_frame()?;
    let (width, height) = (frame.width as u32, frame.height as u32);
    factor(width, height, limits)?;
    check_scans(bytes)?;

    // 1. entropy decoding: all scans, up to the end marker, or to the end of the file if every coefficient was sent
    loop {
        let header = match reader.next_scan(&mut frame) {
            Ok(Some(header)) => header,
            Ok(None) => break,
            Err(ImageError::Truncated { .. }) if frame.is_complete() => break,
            Err(error) => return Err(error),
        };
        frame.allocate(&header, limits)?;
        let used = Scan::new(&header, &reader.tables, &frame, reader.rest())?.decode(&mut frame)?;
        reader.skip(used);
        frame.note(&header);
        if frame.streamed {
            break;
        }
    }
    if frame.components.iter().any(|c| !c.seen) {
        return Err(damaged("a colour plane has no data"));
    }

    // 2. planes: dequantisation, inverse DCT
    let (space, adobe) = (reader.color_space(&frame), reader.adobe.is_some());
    let planes = frame.take_planes()?;

    // 3. row by row: upsampling, colour conversion
    let mut canvas = Canvas::new(width, height, Rows::InOrder, limits)?;
    let mut rows = vec![Vec::new(); planes.len()];
    let mut pixels = Vec::new();
    for y in 0..frame.height {
        for ((plane, factors), row) in planes.iter().zip(&mut rows) {
            upsample::row(plane, *factors, y, frame.width, row);
        }
        color::to_rgb(&rows, space, adobe, &mut pixels);
        canvas.put(y, 0, 1, pixels.iter().copied());
    }
    Ok(canvas.finish())
}
