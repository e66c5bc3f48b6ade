//! What all builders share: reading, filtering, resizing, sharding, resumption, the report.
//!
//! A builder reads its source in one thread, in a fixed order, and yields *candidates*: texts, and where their pictures
//! lie. Candidates are collected into shards; those of one shard are decoded, resized and encoded in parallel. Shard `n`
//! thus depends on the source and the options only: the same input gives the same bytes, with any number of threads.
//!
//! ```text
//! DIR/train/pairs-00000.tar …    the shards, DIR/val/… those of the held-out share
//! DIR/index.json                 options, shards with their SHA-256; written last
//! DIR/report.json, contact.png   what was kept, what was skipped and why; some of the pictures
//! DIR/.build/                    the state of an unfinished build
//! ```
//!
//! A shard is written under a temporary name and renamed. A build that was killed continues after its last finished shard;
//! the candidates of finished shards are read again and compared with those of the first run, and a difference is refused.

mod contact;
mod engine;
mod filter;
mod picture;
mod report;
mod state;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use filter::{Captions, Choice, Filters};
pub use report::{Count, Report, Tally};
pub use state::Index;

pub(crate) use contact::thumbnail;
pub(crate) use engine::{Build, Feed, Halt, Made, random, run};
pub(crate) use filter::tidy;
pub(crate) use picture::{decode, encode, prepare};
pub(crate) use report::Skip;

use crate::DataError;

/// Progress of a build, told after every shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The shard just finished ("train/pairs-00003.tar").
    pub shard: String,
    /// Whether the shard was there already, from a run before.
    pub resumed: bool,
    /// Candidates seen so far.
    pub seen: usize,
    /// Samples kept so far.
    pub kept: usize,
    /// Candidates skipped so far.
    pub skipped: usize,
}

/// How pictures are resized, once, with the model's own bicubic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// Not at all.
    Keep,
    /// Shrinks until the shorter side has this many pixels. A smaller picture stays as it is.
    Shorter(u32),
    /// To a square of this side, ignoring the aspect ratio, as the model's preprocessing does.
    Square(u32),
}

/// Format of the written pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PictureFormat {
    /// JPEG.
    Jpeg,
    /// PNG, without loss.
    Png,
}

/// Where and how the samples are written, for every builder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The folder to write. Not an option of the data: it may be moved.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Replace what a build has written in that folder. Default: no.
    #[serde(skip)]
    pub overwrite: bool,
    /// Maximum number of candidates per shard. Default: 1000 for pairs and conversations, 250 for documents and
    /// storyboards, 100 for videos.
    pub shard_samples: usize,
    /// Share of samples in the split `val`, chosen by the seed and the sample's name. Default: 0.
    pub held_out: f64,
    /// Seed of every random choice. Default: 0.
    pub seed: u64,
    /// Stop after this many candidates. Default: none.
    pub limit: Option<usize>,
    /// Default: shorter side 512.
    pub resize: Resize,
    /// A picture that needs no resizing and has this format already is copied unchanged. Default: JPEG.
    pub format: PictureFormat,
    /// JPEG quality, 1 to 100. Default: 90.
    pub quality: u8,
    /// Smallest shorter side of a source picture. Default: 1.
    pub min_side: u32,
    /// Largest ratio of the longer to the shorter side of a source picture. Default: none.
    pub max_aspect: Option<f64>,
}

impl Output {
    /// The defaults, in this folder, with this many candidates per shard.
    pub(crate) fn new(folder: impl Into<PathBuf>, shard_samples: usize) -> Self {
        Self {
            folder: folder.into(),
            overwrite: false,
            shard_samples,
            held_out: 0.0,
            seed: 0,
            limit: None,
            resize: Resize::Shorter(512),
            format: PictureFormat::Jpeg,
            quality: 90,
            min_side: 1,
            max_aspect: None,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), DataError> {
        let wrong = |what: &str| Err(DataError::Options(what.into()));
        if self.shard_samples == 0 {
            return wrong("a shard has to hold at least one sample");
        }
        if !(0.0..1.0).contains(&self.held_out) {
            return wrong("the held-out share has to be at least 0 and below 1");
        }
        if let Resize::Shorter(0) | Resize::Square(0) = self.resize {
            return wrong("pictures cannot be resized to 0 pixels");
        }
        if let Resize::Shorter(side) | Resize::Square(side) = self.resize
            && side > MAX_SIDE
        {
            return wrong("pictures are resized to at most 8192 pixels");
        }
        if !(1..=100).contains(&self.quality) {
            return wrong("the JPEG quality has to be 1 to 100");
        }
        if self
            .max_aspect
            .is_some_and(|aspect| aspect.is_nan() || aspect < 1.0)
        {
            return wrong("the largest aspect ratio has to be at least 1");
        }
        Ok(())
    }
}

/// Largest side to resize to.
const MAX_SIDE: u32 = 8192;

#[cfg(test)]
mod tests;
