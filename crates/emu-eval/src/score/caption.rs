//! Input and output of the scorers of captions.

use crate::score::error::ScoreError;

/// A caption and its references.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caption {
    /// The model's caption.
    pub hypothesis: String,
    /// What people wrote, one or more.
    pub references: Vec<String>,
}

/// One score for each caption, and one for all.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored<T> {
    /// Of the whole set.
    pub corpus: T,
    /// Of each caption, in the order of the input.
    pub items: Vec<T>,
}

/// Fails if the captions have no score.
pub(super) fn check(captions: &[Caption]) -> Result<(), ScoreError> {
    if captions.is_empty() {
        return Err(ScoreError::Empty);
    }
    match captions
        .iter()
        .position(|caption| caption.references.is_empty())
    {
        Some(item) => Err(ScoreError::NoReference { item }),
        None => Ok(()),
    }
}

/// The mean. The caller ensures that there is a value.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
