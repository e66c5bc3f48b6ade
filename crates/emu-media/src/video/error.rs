//! Errors of video reading.

use crate::image::ImageError;

/// A video that cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VideoError {
    /// The video has no frames.
    #[error("This video has no frames. Check that the file has a picture track and is complete.")]
    NoFrames,
    /// The data end too early.
    #[error("This video is cut short. Download or copy it again.")]
    Truncated,
    /// The data contradict themselves.
    #[error("This video is damaged ({reason}). Download or convert it again.")]
    Damaged {
        /// What the reader reported.
        reason: String,
    },
    /// The container format is not supported.
    #[error(
        "This kind of video file ({container}) is not supported. Convert it to MP4 with H.264, GIF or WebP, for example with `ffmpeg -i INPUT -c:v libx264 -pix_fmt yuv420p OUTPUT.mp4`."
    )]
    UnsupportedContainer {
        /// The detected format.
        container: &'static str,
    },
    /// The container is supported, its codec is not.
    #[error(
        "This video is coded as {codec}, which is not supported. Convert it to H.264 (profile high or below, 8-bit 4:2:0, not interlaced), for example with `ffmpeg -i INPUT -c:v libx264 -profile:v high -pix_fmt yuv420p OUTPUT.mp4`."
    )]
    UnsupportedCodec {
        /// The codec's name or four-letter code.
        codec: String,
    },
    /// Built without the H.264 decoder.
    #[error(
        "This build cannot decode H.264 video. Pass the frames as pictures, or as a GIF or WebP animation."
    )]
    NoDecoder,
    /// The file is longer than allowed.
    #[error(
        "This video file has {bytes} bytes, which is over the limit of {max_bytes} bytes. Cut or compress it first."
    )]
    TooManyBytes {
        /// Length of the file.
        bytes: usize,
        /// The limit in force.
        max_bytes: usize,
    },
    /// More frames than allowed.
    #[error("This video has more than {max_frames} frames. Cut it to the part that is meant.")]
    TooManyFrames {
        /// The limit in force.
        max_frames: usize,
    },
    /// A frame cannot be decoded.
    #[error(transparent)]
    Frame(#[from] ImageError),
}

impl VideoError {
    /// A short error code that is stable between versions.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoFrames => "video-empty",
            Self::Truncated => "video-truncated",
            Self::Damaged { .. } => "video-damaged",
            Self::UnsupportedContainer { .. } => "video-format",
            Self::UnsupportedCodec { .. } => "video-codec",
            Self::NoDecoder => "video-no-decoder",
            Self::TooManyBytes { .. } | Self::TooManyFrames { .. } => "video-too-large",
            Self::Frame(error) => error.code(),
        }
    }
}
