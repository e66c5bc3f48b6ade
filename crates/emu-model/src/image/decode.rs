//! From the bytes of a picture file to RGB, with limits that are checked before any pixel is decoded.

use std::error::Error;
use std::fmt;
use std::io::Cursor;

use ::image::codecs::{bmp::BmpDecoder, webp::WebPDecoder};
use ::image::{DynamicImage, ImageDecoder, ImageError as Inner};

use super::alpha::to_rgb;
use super::{ImageError, RgbImage, canvas, exif, gif, jpeg, kind, png, tiff, webp};

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
    /// Windows bitmap.
    Bmp,
    /// TIFF without compression, or with PackBits, LZW or Deflate; of several pictures, the first.
    Tiff,
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
        } else if kind::is_bmp(bytes) {
            Some(Self::Bmp)
        } else if bytes.starts_with(b"II*\0") || bytes.starts_with(b"MM\0*") {
            Some(Self::Tiff)
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
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        })
    }
}

/// What a picture may cost. A small file can announce an enormous picture, so both are bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Greatest width times height. PNG and JPEG, which are read row by row, may have four times as many: they are
    /// halved in both directions while they are read.
    pub max_pixels: u64,
    /// Greatest length of the file in bytes.
    pub max_bytes: usize,
}

impl Default for Limits {
    /// 64 megapixels (PNG and JPEG up to 256, halved) and 256 MiB.
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
        Format::of(bytes).ok_or_else(|| kind::refusal(bytes))
    }

    /// The memory that a decoder may take: the picture at 16 bits in four channels, twice.
    pub(super) fn decoder_limits(&self) -> ::image::Limits {
        let mut limits = ::image::Limits::no_limits();
        limits.max_alloc = Some(self.max_pixels.saturating_mul(16).saturating_add(64 << 20));
        limits
    }
}

/// Decodes a picture to RGB: palettes are looked up, grey is repeated, of 16-bit samples the high byte is kept. Pixels
/// are those of Pillow's `convert("RGB")`, but for three rules: EXIF orientation is applied, transparency is blended
/// over white, and 16-bit *grey* pictures keep their high byte, where Pillow clips them at 255. Of an animation, the
/// first frame.
///
/// A PNG or JPEG over [`Limits::max_pixels`] comes out at half its size.
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

/// Width and height that [`decode`] will give, from the header alone.
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

/// Checks the announced size, then decodes.
pub(super) fn with_decoder<D: ImageDecoder>(
    decoder: Result<D, Inner>,
    format: Format,
    limits: &Limits,
) -> Result<DynamicImage, ImageError> {
    let inner = |e| from_inner(format, e);
    let mut decoder = decoder.map_err(inner)?;
    let (width, height) = decoder.dimensions();
    limits.check_pixels(width, height)?;
    decoder.set_limits(limits.decoder_limits()).map_err(inner)?;
    DynamicImage::from_decoder(decoder).map_err(inner)
}

/// Sorts a decoder's error into cut short, damaged, or not supported.
pub(super) fn from_inner(format: Format, error: Inner) -> ImageError {
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
pub(super) fn ends_early(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
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
