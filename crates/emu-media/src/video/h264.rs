//! H.264 decoding with OpenH264 (a C++ library).

use openh264::decoder::{DecodeOptions, DecodedYUV, Decoder, Flush};
use openh264::formats::YUVSource;

use super::VideoError;
use super::frames::{Picker, VideoFrames};
use super::mp4::Track;
use crate::image::{Limits, RgbImage, upright};

fn damaged(error: openh264::Error) -> VideoError {
    VideoError::Damaged {
        reason: error.to_string(),
    }
}

/// Decodes the sampled frames. Frames come out in presentation order. No frame before a key frame depends on one after it,
/// so decoding starts at the last key frame before each sampled frame.
pub(super) fn sample(
    track: &Track<'_>,
    wanted: usize,
    limits: &Limits,
) -> Result<VideoFrames, VideoError> {
    let mut picker = Picker::new(track.samples.len(), wanted)?;
    let show = |frame: &DecodedYUV<'_>| Ok(upright(to_rgb(frame, limits)?, track.orientation));
    let options = DecodeOptions::new().flush_after_decode(Flush::NoFlush);
    while let Some(next) = picker.next() {
        let start = track.keyframe(next);
        // index in the video of the next frame that the decoder outputs
        let mut shown = start;
        let mut decoder = Decoder::new().map_err(damaged)?;
        decoder
            .decode_with_options(&track.parameter_sets(), options.clone())
            .map_err(damaged)?;
        let mut fed = start;
        // up to the end of this group of pictures; the next sampled frame may be far away
        while picker
            .next()
            .is_some_and(|next| track.keyframe(next) == start)
        {
            if fed < track.samples.len() && (fed == start || track.keyframe(fed) == start) {
                let frame = decoder
                    .decode_with_options(&track.annex_b(fed)?, options.clone())
                    .map_err(damaged)?;
                fed += 1;
                if let Some(frame) = frame {
                    picker.take(shown, || show(&frame))?;
                    shown += 1;
                }
                continue;
            }
            for frame in decoder.flush_remaining().map_err(damaged)? {
                picker.take(shown, || show(&frame))?;
                shown += 1;
            }
            if picker
                .next()
                .is_some_and(|next| track.keyframe(next) == start)
            {
                return Err(VideoError::Damaged {
                    reason: format!("only {shown} of {fed} frames could be decoded"),
                });
            }
        }
    }
    picker.finish()
}

/// Converts YUV 4:2:0 to RGB: BT.601, limited range, each chroma sample replicated to its four pixels.
fn to_rgb(frame: &DecodedYUV<'_>, limits: &Limits) -> Result<RgbImage, VideoError> {
    let (width, height) = frame.dimensions();
    limits.check_pixels(width as u32, height as u32)?;
    let (y_stride, u_stride, v_stride) = frame.strides();
    let mut pixels = Vec::with_capacity(width * height * 3);
    let rows =
        |plane: &[u8], stride: usize, at: usize| plane.get(at * stride..).map(<[u8]>::to_vec);
    for row in 0..height {
        let (Some(y), Some(u), Some(v)) = (
            rows(frame.y(), y_stride, row),
            rows(frame.u(), u_stride, row / 2),
            rows(frame.v(), v_stride, row / 2),
        ) else {
            return Err(VideoError::Damaged {
                reason: "a frame lacks rows".to_owned(),
            });
        };
        let colors = u.iter().zip(&v).flat_map(|uv| [uv; 2]);
        pixels.extend(
            y.iter()
                .zip(colors)
                .take(width)
                .flat_map(|(y, (u, v))| yuv_to_rgb(*y, *u, *v)),
        );
    }
    let actual = pixels.len();
    RgbImage::from_raw(width as u32, height as u32, pixels).ok_or_else(|| VideoError::Damaged {
        reason: format!("a frame of {width} x {height} pixels has {actual} values"),
    })
}

/// The common integer formula with 8 fraction bits.
fn yuv_to_rgb(y: u8, u: u8, v: u8) -> [u8; 3] {
    let (y, u, v) = (
        298 * (i32::from(y) - 16) + 128,
        i32::from(u) - 128,
        i32::from(v) - 128,
    );
    [y + 409 * v, y - 100 * u - 208 * v, y + 516 * u].map(|value| (value >> 8).clamp(0, 255) as u8)
}
