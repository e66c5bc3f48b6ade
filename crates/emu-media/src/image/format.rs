//! The supported picture formats.

use std::fmt;

/// A supported picture format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Portable Network Graphics.
    Png,
    /// JPEG, baseline and progressive.
    Jpeg,
    /// GIF; the first frame of an animation.
    Gif,
    /// WebP, lossy and lossless; the first frame of an animation.
    WebP,
    /// Windows bitmap.
    Bmp,
    /// TIFF, uncompressed or with PackBits, LZW or Deflate; the first of several pictures.
    Tiff,
}

impl Format {
    /// The format, detected by its magic bytes.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            Some(Self::Jpeg)
        } else if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
            Some(Self::Gif)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Some(Self::WebP)
        } else if is_bmp(bytes) {
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

/// Whether these are the headers of a Windows bitmap. The magic `BM` alone would match text that begins so.
fn is_bmp(bytes: &[u8]) -> bool {
    const HEADER_SIZES: [u32; 7] = [12, 40, 52, 56, 64, 108, 124];
    let size = bytes.get(14..18).and_then(|b| b.first_chunk::<4>());
    bytes.starts_with(b"BM") && size.is_some_and(|s| HEADER_SIZES.contains(&u32::from_le_bytes(*s)))
}
