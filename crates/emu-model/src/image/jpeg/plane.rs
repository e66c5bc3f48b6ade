//! A plane of samples, and the errors of this format.

use crate::image::{Format, ImageError};

/// One colour plane.
pub struct Plane {
    /// Samples in reading order; rows are `stride` long.
    pub samples: Vec<u8>,
    pub stride: usize,
    /// The part that belongs to the picture; the rest fills up the last blocks.
    pub width: usize,
    pub height: usize,
}

/// An error of this format.
pub fn damaged(reason: impl Into<String>) -> ImageError {
    ImageError::Unreadable {
        format: Format::Jpeg,
        reason: reason.into(),
    }
}

/// A file that is sound but of a kind that is not read here.
pub fn unsupported(feature: impl Into<String>) -> ImageError {
    ImageError::UnsupportedFeature {
        format: Format::Jpeg,
        feature: feature.into(),
    }
}

/// The data end where more is needed.
pub fn truncated() -> ImageError {
    ImageError::Truncated {
        format: Format::Jpeg,
    }
}
