//! What a picture may cost.

use super::error::ImageError;
use super::format::Format;
use super::kind;

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
