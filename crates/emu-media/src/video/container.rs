//! Video container detection by magic bytes.

use crate::image::{ImageError, refusal};

/// A video container format. This crate reads only MP4; the others are detected so that errors can name them, or so that
/// an external program can read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Container {
    /// MP4 or QuickTime.
    Mp4,
    /// Matroska, and its subset WebM.
    Matroska,
    /// Audio Video Interleave.
    Avi,
    /// Flash video.
    Flv,
    /// Ogg.
    Ogg,
    /// Windows Media (ASF).
    Asf,
    /// MPEG-1 or MPEG-2 program stream, as on a DVD.
    ProgramStream,
    /// MPEG-2 transport stream, as in broadcasting.
    TransportStream,
}

impl Container {
    /// Detects the container from the first bytes; a few hundred are enough.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        /// Packet length of a transport stream in bytes.
        const PACKET: usize = 188;
        Some(match bytes {
            [0x1a, 0x45, 0xdf, 0xa3, ..] => Self::Matroska,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'A', b'V', b'I', ..] => Self::Avi,
            [b'F', b'L', b'V', 1, ..] => Self::Flv,
            [b'O', b'g', b'g', b'S', ..] => Self::Ogg,
            [0x30, 0x26, 0xb2, 0x75, ..] => Self::Asf,
            [0, 0, 1, 0xb3 | 0xba, ..] => Self::ProgramStream,
            [0x47, ..] if bytes.get(PACKET) == Some(&0x47) => Self::TransportStream,
            [_, _, _, _, name @ ..] if is_mp4(name) && !is_still(bytes) => Self::Mp4,
            _ => return None,
        })
    }

    /// Display name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mp4 => "MP4",
            Self::Matroska => "Matroska or WebM",
            Self::Avi => "AVI",
            Self::Flv => "FLV",
            Self::Ogg => "Ogg",
            Self::Asf => "Windows Media",
            Self::ProgramStream => "MPEG program stream",
            Self::TransportStream => "MPEG transport stream",
        }
    }
}

/// Whether `name` is the type of a box that can begin an MP4.
fn is_mp4(name: &[u8]) -> bool {
    const FIRST: [&[u8]; 9] = [
        b"ftyp", b"styp", b"moov", b"moof", b"sidx", b"mdat", b"wide", b"free", b"skip",
    ];
    FIRST.iter().any(|first| name.starts_with(first))
}

/// Whether an ISO base media file is a still picture: AVIF, HEIC.
fn is_still(bytes: &[u8]) -> bool {
    matches!(refusal(bytes), ImageError::OtherFormat { what, .. } if what.ends_with("picture"))
}
