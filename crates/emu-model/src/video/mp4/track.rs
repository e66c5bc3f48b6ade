//! The coded pictures of a track.

use crate::image::Orientation;
use crate::video::VideoError;

/// Pictures of a track: hours, and a bound on the memory that a table of a few bytes can ask for.
const MAX_SAMPLES: usize = 1 << 20;

/// Refuses more pictures than are read.
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
    /// The pictures in decoding order; each a list of length-prefixed units.
    pub samples: Vec<&'a [u8]>,
    /// Samples from which decoding can start, in order; empty if all can.
    pub keyframes: Vec<usize>,
    /// Bytes of the length prefixes.
    pub prefix: usize,
    /// Sequence and picture parameter sets.
    pub parameters: Vec<&'a [u8]>,
    /// How the pictures are turned to be shown.
    pub orientation: Orientation,
}
