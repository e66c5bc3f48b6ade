//! TIFF: grey, palette, RGB and CMYK of up to 16 bits, with or without alpha; the first of several pictures.

use std::io::Cursor;

use ::tiff::decoder::{Decoder, DecodingResult, Limits as TiffLimits};
use ::tiff::tags::Tag;
use ::tiff::{ColorType, TiffError};

use super::alpha::pixel_over_white;
use super::canvas::{Canvas, Rows};
use super::codec::ends_early;
use super::format::Format;
use super::jpeg::cmyk_to_rgb;
use super::{ImageError, Limits, RgbImage};

/// `ExtraSamples` value for premultiplied alpha.
const PREMULTIPLIED: u16 = 1;
/// `PhotometricInterpretation` values: grey with 0 as black, and palette indices.
const GRAY: u8 = 1;
const PALETTE: u16 = 3;

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

/// How samples map to a colour.
enum Color {
    Gray,
    /// Colour per index.
    Palette(Vec<[u8; 3]>),
    Rgb,
    Cmyk,
}

/// Pixel format.
struct Kind {
    color: Color,
    samples: usize,
    bits: usize,
    premultiplied: bool,
}

/// Decodes the first picture to RGB.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    let mut decoder = open(bytes, limits)?;
    let photometric = decoder
        .find_tag_unsigned::<u16>(Tag::PhotometricInterpretation)
        .map_err(from_tiff)?;
    if photometric != Some(PALETTE) {
        let kind = kind(&mut decoder)?;
        return read(&mut decoder, &kind, limits);
    }
    // The `tiff` crate does not decode palettes, so the file is patched to grey to read the indices.
    let palette = palette(&mut decoder)?;
    let gray = called_gray(bytes).ok_or_else(|| unsupported("a palette".to_owned()))?;
    let mut decoder = open(&gray, limits)?;
    let mut kind = kind(&mut decoder)?;
    kind.color = Color::Palette(palette);
    read(&mut decoder, &kind, limits)
}

fn open<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Decoder<Cursor<&'a [u8]>>, ImageError> {
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(from_tiff)?;
    let (width, height) = decoder.dimensions().map_err(from_tiff)?;
    limits.check_pixels(width, height)?;
    let mut own = TiffLimits::default();
    let most = usize::try_from(limits.max_pixels.saturating_mul(8)).unwrap_or(usize::MAX);
    own.decoding_buffer_size = most;
    own.intermediate_buffer_size = most;
    Ok(decoder.with_limits(own))
}

/// The pixel format from the header: colours, samples, bits, alpha.
fn kind(decoder: &mut Decoder<Cursor<&[u8]>>) -> Result<Kind, ImageError> {
    let (color, samples, bits) = match decoder.colortype().map_err(from_tiff)? {
        ColorType::Gray(bits) => (Color::Gray, 1, bits),
        ColorType::Multiband {
            bit_depth,
            num_samples: 2,
        } => (Color::Gray, 2, bit_depth),
        ColorType::RGB(bits) => (Color::Rgb, 3, bits),
        ColorType::RGBA(bits) => (Color::Rgb, 4, bits),
        ColorType::CMYK(bits) => (Color::Cmyk, 4, bits),
        other => return Err(unsupported(format!("{other:?}"))),
    };
    if !matches!(bits, 1 | 2 | 4 | 8 | 16) {
        return Err(unsupported(format!("samples of {bits} bits")));
    }
    let extra = decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples);
    let premultiplied = extra
        .map_err(from_tiff)?
        .is_some_and(|e| e.first() == Some(&PREMULTIPLIED));
    Ok(Kind {
        color,
        samples,
        bits: usize::from(bits),
        premultiplied,
    })
}

/// The samples of a picture, 8 bits or fewer each, and their memory layout.
struct Samples {
    data: Vec<u8>,
    bits: usize,
    /// Row stride in bytes.
    row: usize,
    /// Pixel stride in samples.
    step: usize,
    /// Channel stride within a plane, in samples.
    within: usize,
    /// Plane stride in bytes.
    between: usize,
}

impl Samples {
    fn read(
        decoder: &mut Decoder<Cursor<&[u8]>>,
        kind: &Kind,
        width: usize,
    ) -> Result<Self, ImageError> {
        let mut result = DecodingResult::U8(Vec::new());
        let layout = decoder
            .read_image_to_buffer(&mut result)
            .map_err(from_tiff)?;
        if result.as_buffer(0).as_bytes().len() < layout.complete_len {
            return Err(unsupported("too much memory".to_owned()));
        }
        let (data, depth) = match result {
            DecodingResult::U8(bytes) if kind.bits <= 8 => (bytes, 1),
            DecodingResult::U16(values) if kind.bits == 16 => {
                (values.into_iter().map(|v| (v >> 8) as u8).collect(), 2)
            }
            _ => return Err(unsupported("samples that are no plain numbers".to_owned())),
        };
        let row = layout.row_stride.map_or(0, |stride| stride.get() / depth);
        let plane = layout.plane_stride.map_or(0, |stride| stride.get() / depth);
        let (step, within, between) = if layout.planes > 1 {
            (1, 0, plane)
        } else if kind.bits < 8 {
            (kind.samples, 1, 0)
        } else {
            // A pixel may have extra samples.
            (row / width.max(1), 1, 0)
        };
        Ok(Self {
            data,
            bits: kind.bits.min(8),
            row,
            step,
            within,
            between,
        })
    }

    /// The raw sample value.
    fn at(&self, x: usize, y: usize, channel: usize) -> u8 {
        let bit = (x * self.step + channel * self.within) * self.bits;
        let byte = y * self.row + channel * self.between + bit / 8;
        let byte = self.data.get(byte).copied().unwrap_or_default();
        if self.bits == 8 {
            return byte;
        }
        // Packed, most significant bits first.
        byte >> (8 - self.bits - bit % 8) & ((1 << self.bits) - 1)
    }

    /// The sample scaled to 0..=255.
    fn wide(&self, x: usize, y: usize, channel: usize) -> u8 {
        let most = (1u16 << self.bits) - 1;
        (u16::from(self.at(x, y, channel)) * (255 / most)) as u8
    }
}

/// Reads the samples and converts them to pixels.
fn read(
    decoder: &mut Decoder<Cursor<&[u8]>>,
    kind: &Kind,
    limits: &Limits,
) -> Result<RgbImage, ImageError> {
    let (width, height) = decoder.dimensions().map_err(from_tiff)?;
    let samples = Samples::read(decoder, kind, width as usize)?;
    let mut canvas = Canvas::new(width, height, Rows::InOrder, limits)?;
    for y in 0..height as usize {
        let wide = |x: usize, channel: usize| samples.wide(x, y, channel);
        let alpha = |x: usize, channel: usize| {
            if kind.samples > channel {
                wide(x, channel)
            } else {
                255
            }
        };
        let pixel = |x: usize| match &kind.color {
            Color::Palette(colors) => {
                let index = usize::from(samples.at(x, y, 0));
                colors.get(index).copied().unwrap_or_default()
            }
            Color::Gray => blend([wide(x, 0); 3], alpha(x, 1), kind.premultiplied),
            Color::Rgb => {
                let rgb = [0, 1, 2].map(|channel| wide(x, channel));
                blend(rgb, alpha(x, 3), kind.premultiplied)
            }
            Color::Cmyk => cmyk_to_rgb([0, 1, 2].map(|channel| wide(x, channel)), wide(x, 3)),
        };
        canvas.put(y, 0, 1, (0..width as usize).map(pixel));
    }
    Ok(canvas.finish())
}

/// Composites a colour over white.
fn blend(rgb: [u8; 3], alpha: u8, premultiplied: bool) -> [u8; 3] {
    if premultiplied {
        return rgb.map(|c| c.saturating_add(255 - alpha));
    }
    let [r, g, b] = rgb;
    pixel_over_white([r, g, b, alpha])
}

/// The palette. `ColorMap` holds all reds, then greens, then blues, 16 bits each; the high bytes are kept.
fn palette(decoder: &mut Decoder<Cursor<&[u8]>>) -> Result<Vec<[u8; 3]>, ImageError> {
    let map = decoder.get_tag_u16_vec(Tag::ColorMap).map_err(from_tiff)?;
    let count = map.len() / 3;
    let high = |at: usize| map.get(at).map_or(0, |v| (v >> 8) as u8);
    Ok((0..count)
        .map(|i| [high(i), high(count + i), high(2 * count + i)])
        .collect())
}

/// A copy of the file with `PhotometricInterpretation` changed from palette to grey.
fn called_gray(bytes: &[u8]) -> Option<Vec<u8>> {
    const ENTRY: usize = 12;
    let big_endian = bytes.starts_with(b"MM");
    let u16_at = |at: usize| {
        let bytes = *bytes.get(at..)?.first_chunk::<2>()?;
        Some(if big_endian {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        })
    };
    let first = *bytes.get(4..)?.first_chunk::<4>()?;
    let first = if big_endian {
        u32::from_be_bytes(first)
    } else {
        u32::from_le_bytes(first)
    };
    let first = usize::try_from(first).ok()?;
    let mut entries = (0..usize::from(u16_at(first)?)).map(|i| first + 2 + i * ENTRY);
    let tag = Tag::PhotometricInterpretation.to_u16();
    let entry = entries.find(|at| u16_at(*at) == Some(tag))?;
    let mut changed = bytes.to_vec();
    let value = if big_endian { [0, GRAY] } else { [GRAY, 0] };
    changed
        .get_mut(entry + 8..entry + 10)?
        .copy_from_slice(&value);
    Some(changed)
}
