//! A JPEG decoder whose bytes equal those of libjpeg-turbo with its default settings, which is what Pillow uses.
//!
//! The goldens hold the pixels of Pillow's decoder, and resized pictures are compared exactly; the pure-Rust decoders
//! at hand round elsewhere (by up to 5 of 255 before the resize, 2 after it). What has to agree: the "slow" integer
//! inverse DCT, the triangle filter that enlarges colour planes, and the fixed-point colour conversion.
//!
//! Baseline, extended and progressive Huffman files with 8-bit samples are read; grey, YCbCr, RGB, CMYK and YCCK.
//! Damaged data are an error here, where libjpeg warns and goes on with grey blocks.

mod color;
mod header;
mod huffman;
mod idct;
mod scan;
mod upsample;

use header::{Frame, Reader};
use scan::Scan;

use super::decode::Format;
use super::{ImageError, Limits, RgbImage};

/// An error of this format.
fn damaged(reason: impl Into<String>) -> ImageError {
    ImageError::Unreadable {
        format: Format::Jpeg,
        reason: reason.into(),
    }
}

/// A file that is sound but of a kind that is not read here.
fn unsupported(feature: impl Into<String>) -> ImageError {
    ImageError::UnsupportedFeature {
        format: Format::Jpeg,
        feature: feature.into(),
    }
}

/// The data end where more is needed.
fn truncated() -> ImageError {
    ImageError::Truncated {
        format: Format::Jpeg,
    }
}

/// One colour plane.
struct Plane {
    /// Samples in reading order; rows are `stride` long.
    samples: Vec<u8>,
    stride: usize,
    /// The part that belongs to the picture; the rest fills up the last blocks.
    width: usize,
    height: usize,
}

/// Width and height from the frame header.
pub(super) fn dimensions(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let mut reader = Reader::new(bytes)?;
    let frame = reader.read_frame()?;
    Ok((frame.width as u32, frame.height as u32))
}

/// Decodes to RGB.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    let mut reader = Reader::new(bytes)?;
    let mut frame = reader.read_frame()?;
    let (width, height) = (frame.width as u32, frame.height as u32);
    limits.check_pixels(width, height)?;
    frame.allocate();

    // 1. entropy decoding: all scans, up to the end marker
    while let Some(header) = reader.next_scan(&mut frame)? {
        let used = Scan::new(&header, &reader.tables, &frame, reader.rest())?.decode(&mut frame)?;
        reader.skip(used);
    }
    if frame.components.iter().any(|c| !c.seen) {
        return Err(damaged("a colour plane has no data"));
    }

    // 2. planes: dequantisation, inverse DCT, enlargement
    let (full_width, full_height, h_max, v_max) =
        (frame.width, frame.height, frame.h_max, frame.v_max);
    let mut planes = Vec::with_capacity(frame.components.len());
    for component in &mut frame.components {
        let plane = component.take_plane();
        planes.push(upsample::to_full_size(
            plane,
            (h_max / component.h, v_max / component.v),
            full_width,
            full_height,
        ));
    }

    // 3. colours
    let pixels = color::to_rgb(&planes, reader.color_space(&frame), reader.adobe.is_some());
    let (expected, actual) = (full_width * full_height * 3, pixels.len());
    RgbImage::from_raw(width, height, pixels).ok_or(ImageError::WrongLength {
        width,
        height,
        expected,
        actual,
    })
}

impl Frame {
    /// Sizes of the coefficient stores; called only after the limits were checked.
    fn allocate(&mut self) {
        for component in &mut self.components {
            component.coefficients = vec![[0; 64]; component.padded_across * component.padded_down];
        }
    }
}
