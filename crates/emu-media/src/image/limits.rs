//! Resource limits of picture decoding.

use super::error::ImageError;
use super::format::Format;
use super::kind;

/// Resource limits of picture decoding. A small file can claim an enormous picture, so both are bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum width times height. PNG and JPEG, which are decoded row by row, may have four times as many pixels: they are
    /// downscaled by two in both directions while they are read.
    pub max_pixels: u64,
    /// Maximum file length in bytes.
    pub max_bytes: usize,
}

impl Default for Limits {
    /// 64 megapixels (PNG and JPEG up to 256, downscaled) and 256 MiB.
    fn default() -> Self {
        Self {
            max_pixels: 64_000_000,
            max_bytes: 256 << 20,
        }
    }
}

impl Limits {
    /// Rejects sizes that are zero or too large.
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

    /// Rejects files that are too long or of an unsupported format; returns the format.
    pub(crate) fn check_file(&self, bytes: &[u8]) -> Result<Format, ImageError> {
        if bytes.len() > self.max_bytes {
            return Err(ImageError::TooManyBytes {
                bytes: bytes.len(),
                max_bytes: self.max_bytes,
            });
        }
        Format::of(bytes).ok_or_else(|| kind::refusal(bytes))
    }

    /// Allocation limit for a decoder: the picture at 16 bits in four channels, twice.
    pub(super) fn decoder_limits(&self) -> ::image::Limits {
        let mut limits = ::image::Limits::no_limits();
        limits.max_alloc = Some(self.max_pixels.saturating_mul(16).saturating_add(64 << 20));
        limits
    }
}
