//! Build options of the data set.

use serde::{Deserialize, Serialize};

use super::cutout::CUTOUT_SIDE;
use crate::DataError;

/// Build options. Every field has a default, so that a TOML file only needs those that differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuildOptions {
    /// Seed of all randomness.
    pub seed: u64,
    /// Side of the pictures in pixels.
    pub size: u32,
    /// Larger side in pixels of the drawings in pictures.
    pub cutout: u32,
    /// Whether to train a tokenizer on the training text, with every name as one token. Without it, names may have
    /// several words.
    pub tokenizer: bool,
    /// Samples per shard.
    pub shard: usize,
    /// Training scenes.
    pub train_scenes: usize,
    /// Training requests with pictures (`draw`).
    pub train_draw: usize,
    /// Training documents with few-shot patterns.
    pub train_fewshot: usize,
    /// Training blends.
    pub train_blend: usize,
    /// Training stories.
    pub train_story: usize,
    /// Single drawings for training the judge.
    pub train_drawings: usize,
    /// Scenes of val.
    pub val_scenes: usize,
    /// Single drawings of val.
    pub val_drawings: usize,
    /// Single drawings of T1.
    pub t1_drawings: usize,
    /// Scenes of T1.
    pub t1_scenes: usize,
    /// Scenes of T2.
    pub t2_scenes: usize,
    /// Scenes of T3.
    pub t3_scenes: usize,
    /// Few-shot documents of the test.
    pub test_fewshot: usize,
    /// Requests of the test.
    pub test_draw: usize,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            size: 64,
            cutout: CUTOUT_SIDE,
            tokenizer: true,
            shard: 2000,
            train_scenes: 60_000,
            train_draw: 16_000,
            train_fewshot: 6_000,
            train_blend: 3_000,
            train_story: 2_000,
            train_drawings: 16_000,
            val_scenes: 1_000,
            val_drawings: 1_000,
            t1_drawings: 0,
            t1_scenes: 1_000,
            t2_scenes: 1_000,
            t3_scenes: 1_000,
            test_fewshot: 500,
            test_draw: 500,
        }
    }
}

impl BuildOptions {
    /// Checks sizes and counts.
    ///
    /// # Errors
    /// If an option is invalid; the message names it.
    pub fn validate(&self) -> Result<(), DataError> {
        let refuse = |message: String| Err(DataError::Options(message));
        if !(16..=1024).contains(&self.size) {
            return refuse(format!("size is {}, not 16 to 1024", self.size));
        }
        if !(16..=1024).contains(&self.cutout) {
            return refuse(format!("cutout is {}, not 16 to 1024", self.cutout));
        }
        if self.shard == 0 {
            return refuse("shard is 0".into());
        }
        if self.train_scenes == 0 && self.tokenizer {
            return refuse("train_scenes is 0, so there is no text for the tokenizer".into());
        }
        Ok(())
    }
}
