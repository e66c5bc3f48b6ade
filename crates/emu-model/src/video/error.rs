//! What can be wrong with a video.

use crate::image::ImageError;

/// A video that cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VideoError {
    /// Nothing to show.
    #[error("This video has no frames. Check that the file has a picture track and is complete.")]
    NoFrames,
    /// The data end too early.
    #[error("This video is cut short. Download or copy it again.")]
    Truncated,
    /// The data contradict themselves.
    #[error("This video is damaged ({reason}). Download or convert it again.")]
    Damaged {
        /// What the reader stumbled over.
        reason: String,
    },
    /// Not a kind of file that is read.
    #[error(
        "This kind of video file ({container}) is not supported. Convert it to MP4 with H.264, GIF or WebP, for example with `ffmpeg -i INPUT -c:v libx264 -pix_fmt yuv420p OUTPUT.mp4`."
    )]
    UnsupportedContainer {
        /// What it seems to be.
        container: &'static str,
    },
    /// The file is read, its pictures are not.
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
    /// A longer file than allowed.
    #[error(
        "This video file has {bytes} bytes, which is over the limit of {max_bytes} bytes. Cut or compress it first."
    )]
    TooManyBytes {
        /// Length of the file.
        bytes: usize,
        /// The limit in force.
        max_bytes: usize,
    },
    /// More pictures than are read.
    #[error("This video has more than {max_frames} frames. Cut it to the part that is meant.")]
    TooManyFrames {
        /// The limit in force.
        max_frames: usize,
    },
    /// A frame cannot be used.
    #[error(transparent)]
    Frame(#[from] ImageError),
}

impl VideoError {
    /// A short name of the kind of error that stays the same between versions.
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
