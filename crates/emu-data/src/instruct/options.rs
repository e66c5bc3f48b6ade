//! Options of the builder of conversations.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::build::Output;

/// Where pictures stand in a user's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Where the data have them.
    AsWritten,
    /// Before the text of their turn, as LLaVA's own code and Emu's prompts have them.
    First,
}

/// Options of the builder of conversations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// A file (JSON, JSON lines, parquet, CSV) or a folder of such files.
    #[serde(skip)]
    pub source: PathBuf,
    /// Where and how to write.
    pub out: Output,
    /// Folder of the pictures that the records name. Default: the folder of the list and those around it.
    #[serde(skip)]
    pub images: Option<PathBuf>,
    /// Folder of the videos. Default: as for pictures.
    #[serde(skip)]
    pub videos: Option<PathBuf>,
    /// Default: as written.
    pub place: Place,
    /// Frames of a video. Default: 8.
    pub frames: usize,
    /// Most pictures of a conversation. Default: 16.
    pub max_pictures: usize,
    /// Most words. Turns beyond are cut, between an answer and the next question. Default: 600.
    pub max_words: usize,
    /// Fewest words of all answers together. Default: 1.
    pub min_answer_words: usize,
}

impl Options {
    /// The defaults.
    pub fn new(source: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            out: Output::new(folder, 1000),
            images: None,
            videos: None,
            place: Place::AsWritten,
            frames: 8,
            max_pictures: 16,
            max_words: 600,
            min_answer_words: 1,
        }
    }
}
