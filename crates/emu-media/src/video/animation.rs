//! Frame sampling of GIF and WebP animations.

use super::VideoError;
use super::frames::{Picker, VideoFrames, sample_pictures};
use crate::image::{Format, GifFrames, Limits, WebPFrames, orientation, upright};

/// Samples a GIF: counts the frames without decoding, then composes them up to the last sampled one.
pub(super) fn sample_gif(
    bytes: &[u8],
    wanted: usize,
    limits: &Limits,
) -> Result<VideoFrames, VideoError> {
    let mut picker = Picker::new(GifFrames::count(bytes)?, wanted)?;
    let mut frames = GifFrames::open(bytes, limits)?;
    let mut index = 0;
    while picker.next().is_some() {
        let Some(canvas) = frames.next_frame()? else {
            break;
        };
        picker.take(index, || Ok(canvas.clone()))?;
        index += 1;
    }
    picker.finish()
}

/// Samples a WebP animation. A still file counts as a video of one frame.
pub(super) fn sample_webp(
    bytes: &[u8],
    wanted: usize,
    limits: &Limits,
) -> Result<VideoFrames, VideoError> {
    let Some(mut animation) = WebPFrames::read(bytes, limits)? else {
        return sample_pictures(&[bytes], wanted, limits);
    };
    let turn = orientation(Format::WebP, bytes);
    let mut picker = Picker::new(animation.frames(), wanted)?;
    let mut index = 0;
    while picker.next().is_some() && animation.step()? {
        picker.take(index, || Ok(upright(animation.picture(), turn)))?;
        index += 1;
    }
    picker.finish()
}
