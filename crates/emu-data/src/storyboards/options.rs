//! Options of the builder of storyboards, and what its readers share.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::build::Output;
use crate::input::Blob;
use crate::videos::Clip;

/// How the source is arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the table of the module describes them")]
pub enum Layout {
    Sheets,
    Tars,
    Videos,
}

/// Options of the builder of storyboards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// A folder, or a tar.
    #[serde(skip)]
    pub source: PathBuf,
    /// Where and how to write.
    pub out: Output,
    /// Default: found out.
    pub layout: Option<Layout>,
    /// Folder of the subtitles, `ID.json`, `ID.srt`, `ID.vtt` or `ID.LANGUAGE.vtt`. Default: `subtitle` or `subtitles` in
    /// the source or beside it, and the folder of each video.
    #[serde(skip)]
    pub subtitles: Option<PathBuf>,
    /// Folder of the metadata of sheets, `ID.json` with the field `duration` in seconds. Default: `label` or `labels` in the
    /// source or beside it.
    #[serde(skip)]
    pub labels: Option<PathBuf>,
    /// Language of subtitles to prefer where a video has several files (`ID.en.vtt`). Default: the first by name.
    pub language: Option<String>,
    /// Frames of a document at most. Default: 8.
    pub frames: usize,
    /// Use every n-th frame of sheets and folders. Default: 1.
    pub every: usize,
    /// Seconds between the frames of a video; and of a folder without `frames.json`. Default: 10, and none.
    pub interval: Option<f64>,
    /// Fewest words of a document. Default: 1.
    pub min_words: usize,
}

impl Options {
    /// The defaults.
    pub fn new(source: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            out: Output::new(folder, 250),
            layout: None,
            subtitles: None,
            labels: None,
            language: None,
            frames: 8,
            every: 1,
            interval: None,
            min_words: 1,
        }
    }
}

/// The builder.
pub(super) struct Storyboards<'a> {
    pub(super) options: &'a Options,
    pub(super) layout: Layout,
}

/// A candidate: one video.
#[derive(Serialize)]
pub(super) enum Item {
    /// Thumbnail sheets with their JSON.
    Sheets {
        meta: Blob,
        sheets: Vec<Blob>,
        subtitles: Subtitles,
        label: Option<Blob>,
    },
    /// A video or a folder of frames, with the times of these if they are known.
    Clip {
        clip: Clip,
        times: Option<Vec<f64>>,
        subtitles: Subtitles,
    },
    /// Frames, each with the text before it, and the text after the last.
    Ready {
        frames: Vec<(String, Blob)>,
        rest: String,
    },
}

/// A file of subtitles.
#[derive(Serialize)]
pub(super) struct Subtitles {
    pub(super) kind: String,
    pub(super) blob: Blob,
}
