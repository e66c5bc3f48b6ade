//! Unusable samples: the record of one, and the error when there are too many.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::data::BadSample;

/// Too many samples of a data set are unusable.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{bad} of the {samples} samples of {} cannot be used, and at most {}% may be left out. The first: {first}. Mend or \
     remove those listed in {} and start again, or raise `max_bad_share` and go on with --resume.",
    .data.display(),
    percent(*.limit),
    .list.display()
)]
pub struct TooManyBad {
    /// Path of the data set, as in the configuration.
    pub data: PathBuf,
    /// Unusable samples found so far.
    pub bad: usize,
    /// Number of samples in the data set.
    pub samples: usize,
    /// Largest share that may be left out (`max_bad_share`).
    pub limit: f64,
    /// The file that lists them.
    pub list: PathBuf,
    /// The first of them.
    pub first: BadSample,
    /// Those found by the last micro-batch, which are not in the list yet.
    pub found: Vec<Found>,
}

/// A share in percent, rounded to four decimal places.
fn percent(share: f64) -> f64 {
    (share * 1e6).round() / 1e4
}

/// A sample that is left out: one line of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Index of the data set in the configuration, from 0.
    pub set: usize,
    /// Index of the sample in the data set. `None` if the sample was found when the shards were opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// Micro-batch that found it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u64>,
    /// The sample.
    #[serde(flatten)]
    pub sample: BadSample,
}

/// The samples of a micro-batch.
#[derive(Clone, Debug, Default)]
pub struct Visited {
    /// Keys of the samples used.
    pub keys: Vec<String>,
    /// Samples left out for the first time in the run. The first micro-batch also reports those found when the shards
    /// were opened.
    pub bad: Vec<Found>,
    /// Total number of samples left out so far.
    pub total_bad: u64,
}
