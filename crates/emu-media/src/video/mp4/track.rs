//! The coded pictures of a track.

use crate::image::Orientation;
use crate::video::VideoError;

/// Maximum samples of a track: hours of video, and a memory bound for tables of a few bytes that claim a huge count.
const MAX_SAMPLES: usize = 1 << 20;

/// Rejects sample counts over the limit.
pub fn check_count(samples: usize) -> Result<(), VideoError> {
    if samples > MAX_SAMPLES {
        return Err(VideoError::TooManyFrames {
            max_frames: MAX_SAMPLES,
        });
    }
    Ok(())
}

/// The coded pictures of the first video track.
pub struct Track<'a> {
    /// Coded pictures in decoding order; each is a list of length-prefixed NAL units.
    pub samples: Vec<&'a [u8]>,
    /// Indices of key frames, in order. Empty: decoding starts at the first sample.
    pub keyframes: Vec<usize>,
    /// Size of the length prefixes in bytes.
    pub prefix: usize,
    /// Sequence and picture parameter sets.
    pub parameters: Vec<&'a [u8]>,
    /// Rotation and flip for display.
    pub orientation: Orientation,
}
