//! Video input: sampling of the few frames that the model sees.
//!
//! The released code samples eight frames of a video and treats each as a picture ([`sample_offsets`] has the formula).
//! Supported: MP4 with H.264 (feature `video`, native only; fragmented or not, with rotation applied), GIF and WebP
//! animations, and frames given as pictures. Other frames are decoded only if sampled ones depend on them.

mod animation;
mod container;
mod error;
mod frames;
#[cfg(all(feature = "video", not(target_family = "wasm")))]
mod h264;
#[cfg_attr(
    not(all(feature = "video", not(target_family = "wasm"))),
    allow(dead_code)
)]
mod mp4;

#[cfg(test)]
mod tests;

pub use container::Container;
pub use error::VideoError;
pub use frames::{FRAMES_PER_VIDEO, VideoFrames, sample_offsets, sample_pictures};

use crate::image::{Format, ImageError, Limits, refusal};

/// Samples `wanted` frames of an MP4, GIF or WebP file. A file with a single picture counts as a video of one frame.
///
/// `limits` apply to every frame; `max_bytes` applies to the file.
pub fn sample_frames(
    bytes: &[u8],
    wanted: usize,
    limits: &Limits,
) -> Result<VideoFrames, VideoError> {
    if bytes.len() > limits.max_bytes {
        return Err(VideoError::TooManyBytes {
            bytes: bytes.len(),
            max_bytes: limits.max_bytes,
        });
    }
    if Container::of(bytes) == Some(Container::Mp4) {
        return sample_mp4(bytes, wanted, limits);
    }
    match Format::of(bytes) {
        Some(Format::Gif) => animation::sample_gif(bytes, wanted, limits),
        Some(Format::WebP) => animation::sample_webp(bytes, wanted, limits),
        Some(_) => sample_pictures(&[bytes], wanted, limits),
        None => Err(unsupported(bytes)),
    }
}

/// The time of each frame of an MP4 file in seconds, in presentation order. `None` for a fragmented MP4 and for other
/// formats.
pub fn frame_times(bytes: &[u8]) -> Result<Option<Vec<f64>>, VideoError> {
    match Container::of(bytes) {
        Some(Container::Mp4) => mp4::frame_times(bytes),
        _ => Ok(None),
    }
}

#[cfg(all(feature = "video", not(target_family = "wasm")))]
fn sample_mp4(bytes: &[u8], wanted: usize, limits: &Limits) -> Result<VideoFrames, VideoError> {
    h264::sample(&mp4::Track::read(bytes)?, wanted, limits)
}

#[cfg(not(all(feature = "video", not(target_family = "wasm"))))]
fn sample_mp4(bytes: &[u8], _wanted: usize, _limits: &Limits) -> Result<VideoFrames, VideoError> {
    mp4::Track::read(bytes)?;
    Err(VideoError::NoDecoder)
}

/// The error for an unsupported file: names the format, or reports what the file is instead (empty, a web page, ..).
fn unsupported(bytes: &[u8]) -> VideoError {
    let container = match (Container::of(bytes), refusal(bytes)) {
        (Some(container), _) => container.name(),
        (None, ImageError::OtherFormat { what, .. }) => what,
        (None, ImageError::UnsupportedFormat) => "unknown",
        (None, other) => return other.into(),
    };
    VideoError::UnsupportedContainer { container }
}
