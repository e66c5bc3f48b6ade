//! A plane of samples, and the JPEG error constructors.

use crate::image::{Format, ImageError};

/// One colour plane.
pub struct Plane {
    /// Samples, row-major; rows are `stride` long.
    pub samples: Vec<u8>,
    pub stride: usize,
    /// Size without the padding of the last blocks.
    pub width: usize,
    pub height: usize,
}

/// The error for damaged data.
pub fn damaged(reason: impl Into<String>) -> ImageError {
    ImageError::Unreadable {
        format: Format::Jpeg,
        reason: reason.into(),
    }
}

/// The error for a valid file with an unsupported feature.
pub fn unsupported(feature: impl Into<String>) -> ImageError {
    ImageError::UnsupportedFeature {
        format: Format::Jpeg,
        feature: feature.into(),
    }
}

/// The error for data that end too early.
pub fn truncated() -> ImageError {
    ImageError::Truncated {
        format: Format::Jpeg,
    }
}
