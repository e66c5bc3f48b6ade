//! Frame sampling: which frames of a video are used, and collecting them.

use super::VideoError;
use crate::image::{Limits, RgbImage, decode};

/// Number of frames that the released code samples from a video.
pub const FRAMES_PER_VIDEO: usize = 8;

/// The sampled frames of a video, as the model sees them.
#[derive(Clone)]
pub struct VideoFrames {
    /// The pictures, in order.
    pub frames: Vec<RgbImage>,
    /// Frame indices in the video, counted from 0.
    pub offsets: Vec<usize>,
    /// Number of frames in the video.
    pub total: usize,
}

impl std::fmt::Debug for VideoFrames {
    /// Omits the pixels.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sizes: Vec<_> = self.frames.iter().map(RgbImage::dimensions).collect();
        f.debug_struct("VideoFrames")
            .field("frames", &sizes)
            .field("offsets", &self.offsets)
            .field("total", &self.total)
            .finish()
    }
}

/// Indices of the `wanted` sampled frames of a video with `total` frames: `get_index` of the released code.
///
/// With `step = (total - 1) / wanted`, frame i is `floor(step / 2) + round(i * step)`, ties to even. A video with fewer
/// frames than wanted repeats some; one without frames gives none.
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

/// Samples `wanted` frames of a video given as picture files in order; only the sampled files are decoded.
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

/// Collects the sampled frames of a stream.
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

    /// Index of the next sampled frame; `None` if all are collected.
    pub fn next(&self) -> Option<usize> {
        self.offsets.get(self.frames.len()).copied()
    }

    /// Collects frame `index` as often as it is sampled; does nothing if it is not the next sampled frame.
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

    /// Returns the sampled frames; [`VideoError::Truncated`] if the stream ended before the last one.
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
