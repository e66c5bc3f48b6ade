//! The frames of a video, of a file or a folder of pictures.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use emu_media::image::Limits;
use emu_media::video::{VideoFrames, sample_frames, sample_offsets};
use serde::Serialize;

use crate::DataError;
use crate::build::{Output, Skip, decode};
use crate::input::{Blob, is_picture, is_video, kind_of, walk};

/// Most frames of a sample: what a reader of shards takes at most.
pub(crate) const MAX_FRAMES: usize = 256;

/// A video: a file, or its frames as pictures in order.
#[derive(Clone, Serialize)]
pub(crate) enum Clip {
    File(Blob),
    Frames(Vec<Blob>),
}

impl Clip {
    /// The clip at a path: a video, an animation, or a folder of frames sorted by name.
    pub fn at(path: &Path) -> Result<Self, Skip> {
        if !path.is_dir() {
            return Blob::file(path)
                .map(Self::File)
                .ok_or_else(|| Skip::new("video file not found", path.display()));
        }
        let files = walk(path).map_err(|error| Skip::new("folder cannot be read", error))?;
        let frames: Vec<Blob> = files
            .iter()
            .filter(|file| is_picture(&kind_of(file)))
            .filter_map(|file| Blob::file(file))
            .collect();
        match frames.is_empty() {
            true => Err(Skip::new("folder of frames is empty", path.display())),
            false => Ok(Self::Frames(frames)),
        }
    }

    /// The paths of all clips below a folder. A picture stands for the folder that it lies in.
    pub fn below(root: &Path) -> Result<BTreeSet<PathBuf>, DataError> {
        let mut clips = BTreeSet::new();
        for path in walk(root)? {
            let kind = kind_of(&path);
            if kind != "gif" && is_picture(&kind) {
                clips.extend(path.parent().map(Path::to_path_buf));
            } else if Self::is_file(&kind) {
                clips.insert(path);
            }
        }
        Ok(clips)
    }

    /// Whether a file can be a clip: a video or an animation.
    pub fn is_file(extension: &str) -> bool {
        is_video(extension) || matches!(extension, "gif" | "webp")
    }

    /// Up to `wanted` frames, evenly. A shorter video repeats frames, unless it has no more than are wanted.
    pub fn frames(&self, wanted: usize, out: &Output) -> Result<VideoFrames, Skip> {
        let limits = Limits::default();
        let frames = match self {
            Self::File(blob) => {
                let bytes = blob.read()?;
                sample_frames(&bytes, wanted, &limits).map_err(|error| {
                    Skip::new(format!("unusable video ({})", error.code()), error)
                })?
            }
            Self::Frames(blobs) => {
                let total = blobs.len();
                let offsets = match total <= wanted {
                    true => (0..total).collect(),
                    false => sample_offsets(total, wanted),
                };
                let frames = offsets
                    .iter()
                    .filter_map(|offset| blobs.get(*offset))
                    .map(|blob| decode(&blob.read()?, out))
                    .collect::<Result<Vec<_>, _>>()?;
                VideoFrames {
                    frames,
                    offsets,
                    total,
                }
            }
        };
        let small = frames
            .frames
            .iter()
            .map(|frame| frame.width().min(frame.height()))
            .find(|side| *side < out.min_side);
        match small {
            Some(side) => Err(Skip::new("picture is too small", format!("{side} pixels"))),
            None => Ok(frames),
        }
    }

    pub fn held(&self) -> usize {
        match self {
            Self::File(blob) => blob.held(),
            Self::Frames(blobs) => blobs.iter().map(Blob::held).sum(),
        }
    }
}
