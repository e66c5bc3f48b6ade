//! Videos as the few frames that the model sees.
//!
//! The released code shows eight frames of a video, each as a picture of its own ([`sample_offsets`] has its rule).
//! Read are MP4 files with H.264 (feature `video`, native only; fragmented or not, turned as they say), GIF and WebP
//! animations, and frames that are already pictures. Frames that nobody will see are decoded only where later ones depend on them.

mod animation;
mod container;
mod error;
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

use crate::image::{Format, ImageError, Limits, RgbImage, decode, refusal};

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

/// Reads `wanted` frames of an MP4, a GIF or a WebP. A file with a single picture counts as a video of one frame.
///
/// `limits` hold for every frame; the file's length is checked against `max_bytes`.
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

#[cfg(all(feature = "video", not(target_family = "wasm")))]
fn sample_mp4(bytes: &[u8], wanted: usize, limits: &Limits) -> Result<VideoFrames, VideoError> {
    h264::sample(&mp4::Track::read(bytes)?, wanted, limits)
}

#[cfg(not(all(feature = "video", not(target_family = "wasm"))))]
fn sample_mp4(bytes: &[u8], _wanted: usize, _limits: &Limits) -> Result<VideoFrames, VideoError> {
    mp4::Track::read(bytes)?;
    Err(VideoError::NoDecoder)
}

/// Why a file that is not read is refused: what it might be, or that it is not the file that was meant.
fn unsupported(bytes: &[u8]) -> VideoError {
    let container = match (Container::of(bytes), refusal(bytes)) {
        (Some(container), _) => container.name(),
        (None, ImageError::OtherFormat { what, .. }) => what,
        (None, ImageError::UnsupportedFormat) => "unknown",
        (None, other) => return other.into(),
    };
    VideoError::UnsupportedContainer { container }
}

/// Collects the wanted frames of a stream.
struct Picker {
    offsets: Vec<usize>,
    frames: Vec<RgbImage>,
    total: usize,
}

impl Picker {
    fn new(total: usize, wanted: usize) -> Result<Self, VideoError> {
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
    fn next(&self) -> Option<usize> {
        self.offsets.get(self.frames.len()).copied()
    }

    /// Takes frame `index` as often as it is wanted.
    fn take(
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
    fn finish(self) -> Result<VideoFrames, VideoError> {
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
