//! Code shared by the decoders of the `image` crate.

use std::error::Error;

use ::image::{DynamicImage, ImageDecoder, ImageError as Inner};

use super::error::ImageError;
use super::format::Format;
use super::limits::Limits;

/// Checks the size in the header, then decodes.
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

/// Classifies a decoder error: truncated, damaged, or not supported.
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

/// Whether the error is an unexpected end of data. Decoders wrap that in errors of their own, so the message counts too.
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
