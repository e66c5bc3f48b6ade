//! Too many samples that cannot be used.

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
    /// The data set, as the configuration names it.
    pub data: PathBuf,
    /// Unusable samples found so far.
    pub bad: usize,
    /// All of its samples.
    pub samples: usize,
    /// Largest share that may be left out.
    pub limit: f64,
    /// The file that names them.
    pub list: PathBuf,
    /// The first of them.
    pub first: BadSample,
    /// Those that the last micro-batch met, which are not in the list yet.
    pub found: Vec<Found>,
}

/// A share in percent, without superfluous digits.
fn percent(share: f64) -> f64 {
    (share * 1e6).round() / 1e4
}

/// A sample that is left out: a line of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Number of the data set in the configuration, from 0.
    pub set: usize,
    /// Index of the sample in the data set; absent of samples that were found when the shards were opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// Micro-batch that met it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u64>,
    /// The sample.
    #[serde(flatten)]
    pub sample: BadSample,
}

/// What a micro-batch was made of.
#[derive(Clone, Debug, Default)]
pub struct Visited {
    /// Keys of its samples.
    pub keys: Vec<String>,
    /// Samples left out for the first time in the run; in its first micro-batch, also those that were found when the
    /// shards were opened.
    pub bad: Vec<Found>,
    /// Samples of the data left out so far.
    pub total_bad: u64,
}
