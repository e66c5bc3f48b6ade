//! From the bytes of a picture file to RGB, with limits that are checked before any pixel is decoded.

use std::fmt;
use std::io::Cursor;

use ::image::codecs::{png::PngDecoder, webp::WebPDecoder};
use ::image::{DynamicImage, ImageDecoder, ImageError as Inner};

use super::{ImageError, RgbImage};

/// The picture formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Portable Network Graphics.
    Png,
    /// JPEG, baseline and progressive.
    Jpeg,
    /// GIF; of an animation, the first frame.
    Gif,
    /// WebP, lossy and lossless; of an animation, the first frame.
    WebP,
}

impl Format {
    /// The format that the first bytes announce.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            Some(Self::Jpeg)
        } else if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
            Some(Self::Gif)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Some(Self::WebP)
        } else {
            None
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::Gif => "GIF",
            Self::WebP => "WebP",
        })
    }
}

/// What a picture may cost. A small file can announce an enormous picture, so both are bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Greatest width times height.
    pub max_pixels: u64,
    /// Greatest length of the file in bytes.
    pub max_bytes: usize,
}

impl Default for Limits {
    /// 64 megapixels and 256 MiB.
    fn default() -> Self {
        Self {
            max_pixels: 64_000_000,
            max_bytes: 256 << 20,
        }
    }
}

impl Limits {
    /// Refuses sizes that are zero or too large.
    pub(crate) fn check_pixels(&self, width: u32, height: u32) -> Result<(), ImageError> {
        if width == 0 || height == 0 {
            return Err(ImageError::ZeroSized { width, height });
        }
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(ImageError::TooManyPixels {
                width,
                height,
                max_pixels: self.max_pixels,
            });
        }
        Ok(())
    }

    /// Refuses files that are too long; returns the format of the others.
    pub(crate) fn check_file(&self, bytes: &[u8]) -> Result<Format, ImageError> {
        if bytes.len() > self.max_bytes {
            return Err(ImageError::TooManyBytes {
                bytes: bytes.len(),
                max_bytes: self.max_bytes,
            });
        }
        Format::of(bytes).ok_or(ImageError::UnsupportedFormat)
    }

    /// The memory that a decoder may take: the picture at 16 bits in four channels, twice.
    fn decoder_limits(&self) -> ::image::Limits {
        let mut limits = ::image::Limits::no_limits();
        limits.max_alloc = Some(self.max_pixels.saturating_mul(16).saturating_add(64 << 20));
        limits
    }
}

/// Decodes a PNG, JPEG, GIF or WebP to RGB with the rules of Pillow's `convert("RGB")`: palettes are looked up, grey
/// is repeated, transparency is dropped (not blended), of 16-bit samples the high byte is kept. EXIF orientation is
/// not applied, as in the released code. Of an animation, the first frame.
///
/// One deliberate difference: 16-bit *grey* pictures keep their high byte too, where Pillow clips them at 255, which
/// turns nearly all of them white.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    let format = limits.check_file(bytes)?;
    match format {
        Format::Png => {
            let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits.decoder_limits());
            with_decoder(decoder, format, limits)
        }
        Format::WebP => with_decoder(WebPDecoder::new(Cursor::new(bytes)), format, limits),
        Format::Jpeg => super::jpeg::decode(bytes, limits),
        Format::Gif => super::gif::decode_first(bytes, limits),
    }
}

/// Width and height as the header announces them, without decoding.
pub fn dimensions(bytes: &[u8], limits: &Limits) -> Result<(u32, u32), ImageError> {
    let format = limits.check_file(bytes)?;
    let inner = |e| from_inner(format, e);
    match format {
        Format::Png => Ok(PngDecoder::new(Cursor::new(bytes))
            .map_err(inner)?
            .dimensions()),
        Format::WebP => Ok(WebPDecoder::new(Cursor::new(bytes))
            .map_err(inner)?
            .dimensions()),
        Format::Jpeg => super::jpeg::dimensions(bytes),
        Format::Gif => super::gif::dimensions(bytes),
    }
}

/// Checks the announced size, then decodes.
fn with_decoder<D: ImageDecoder>(
    decoder: Result<D, Inner>,
    format: Format,
    limits: &Limits,
) -> Result<RgbImage, ImageError> {
    let mut decoder = decoder.map_err(|e| from_inner(format, e))?;
    let (width, height) = decoder.dimensions();
    limits.check_pixels(width, height)?;
    decoder
        .set_limits(limits.decoder_limits())
        .map_err(|e| from_inner(format, e))?;
    let picture = DynamicImage::from_decoder(decoder).map_err(|e| from_inner(format, e))?;
    Ok(to_rgb(picture))
}

/// Drops alpha and the low bytes of 16-bit samples, repeats grey.
fn to_rgb(picture: DynamicImage) -> RgbImage {
    let high = |sample: u16| (sample >> 8) as u8;
    match picture {
        DynamicImage::ImageRgb8(rgb) => rgb,
        DynamicImage::ImageLuma16(p) => {
            pixels(p.width(), p.height(), p.pixels().map(|p| [high(p.0[0]); 3]))
        }
        DynamicImage::ImageLumaA16(p) => {
            pixels(p.width(), p.height(), p.pixels().map(|p| [high(p.0[0]); 3]))
        }
        DynamicImage::ImageRgb16(p) => {
            pixels(p.width(), p.height(), p.pixels().map(|p| p.0.map(high)))
        }
        DynamicImage::ImageRgba16(p) => pixels(
            p.width(),
            p.height(),
            p.pixels()
                .map(|p| [high(p.0[0]), high(p.0[1]), high(p.0[2])]),
        ),
        // 8-bit kinds: the conversion repeats grey and drops alpha without blending
        other => other.to_rgb8(),
    }
}

/// Collects pixels in reading order.
fn pixels(width: u32, height: u32, pixels: impl Iterator<Item = [u8; 3]>) -> RgbImage {
    let bytes: Vec<u8> = pixels.flatten().collect();
    RgbImage::from_raw(width, height, bytes).unwrap_or_else(|| RgbImage::new(width, height))
}

/// Sorts a decoder's error into cut short, damaged, or not supported.
pub(crate) fn from_inner(format: Format, error: Inner) -> ImageError {
    match error {
        Inner::Unsupported(e) => ImageError::UnsupportedFeature {
            format,
            feature: e.to_string(),
        },
        Inner::Limits(e) => ImageError::UnsupportedFeature {
            format,
            feature: format!("too much memory: {e}"),
        },
        other => {
            let reason = other.to_string();
            if ends_early(&other) {
                ImageError::Truncated { format }
            } else {
                ImageError::Unreadable { format, reason }
            }
        }
    }
}

/// Whether the end of the data was the cause. Decoders wrap that in errors of their own, so the words count too.
fn ends_early(error: &Inner) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = cause {
        if e.downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::UnexpectedEof)
        {
            return true;
        }
        let words = e.to_string().to_lowercase();
        if [
            "unexpected end",
            "unexpected eof",
            "end of file",
            "failed to fill whole buffer",
        ]
        .iter()
        .any(|w| words.contains(w))
        {
            return true;
        }
        cause = e.source();
    }
    false
}
