//! Which frames of a video are shown, and collecting them.

use super::VideoError;
use crate::image::{Limits, RgbImage, decode};

/// Frames that the released code shows of a video.
pub const FRAMES_PER_VIDEO: usize = 8;

/// The frames of a video that the model sees.
#[derive(Clone)]
pub struct VideoFrames {
    /// The pictures, in order.
    pub frames: Vec<RgbImage>,
    /// Where they stand in the video, counted from 0.
    pub offsets: Vec<usize>,
    /// How many frames the video has.
    pub total: usize,
}

impl std::fmt::Debug for VideoFrames {
    /// Without the pixels.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sizes: Vec<_> = self.frames.iter().map(RgbImage::dimensions).collect();
        f.debug_struct("VideoFrames")
            .field("frames", &sizes)
            .field("offsets", &self.offsets)
            .field("total", &self.total)
            .finish()
    }
}

/// Which of `total` frames are shown when `wanted` are to be: `get_index` of the released code.
///
/// With `step = (total - 1) / wanted`, frame i is `floor(step / 2) + round(i * step)`, halves rounded to even. A video
/// with fewer frames than wanted shows some twice; one without frames shows none.
pub fn sample_offsets(total: usize, wanted: usize) -> Vec<usize> {
    let Some(last) = total.checked_sub(1) else {
        return Vec::new();
    };
    let step = last as f64 / wanted as f64;
    let start = (step / 2.0) as usize;
    (0..wanted)
        .map(|i| start + (step * i as f64).round_ties_even() as usize)
        .collect()
}

/// Reads `wanted` frames of a video whose frames are picture files, in order; only those are decoded.
pub fn sample_pictures<T: AsRef<[u8]>>(
    files: &[T],
    wanted: usize,
    limits: &Limits,
) -> Result<VideoFrames, VideoError> {
    let mut picker = Picker::new(files.len(), wanted)?;
    while let Some(next) = picker.next() {
        let file = files.get(next).ok_or(VideoError::Truncated)?;
        picker.take(next, || Ok(decode(file.as_ref(), limits)?))?;
    }
    picker.finish()
}

/// Collects the wanted frames of a stream.
pub(super) struct Picker {
    offsets: Vec<usize>,
    frames: Vec<RgbImage>,
    total: usize,
}

impl Picker {
    pub fn new(total: usize, wanted: usize) -> Result<Self, VideoError> {
        if total == 0 {
            return Err(VideoError::NoFrames);
        }
        Ok(Self {
            offsets: sample_offsets(total, wanted),
            frames: Vec::new(),
            total,
        })
    }

    /// The next frame that is wanted.
    pub fn next(&self) -> Option<usize> {
        self.offsets.get(self.frames.len()).copied()
    }

    /// Takes frame `index` as often as it is wanted.
    pub fn take(
        &mut self,
        index: usize,
        frame: impl FnOnce() -> Result<RgbImage, VideoError>,
    ) -> Result<(), VideoError> {
        if self.next() != Some(index) {
            return Ok(());
        }
        let frame = frame()?;
        while self.next() == Some(index) {
            self.frames.push(frame.clone());
        }
        Ok(())
    }

    /// All frames; an error if the stream ended before the last one.
    pub fn finish(self) -> Result<VideoFrames, VideoError> {
        if self.next().is_some() {
            return Err(VideoError::Truncated);
        }
        Ok(VideoFrames {
            frames: self.frames,
            offsets: self.offsets,
            total: self.total,
        })
    }
}
