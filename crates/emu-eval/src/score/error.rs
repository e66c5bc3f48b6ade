//! What can be wrong with the input of a scorer.

/// An input that has no score.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScoreError {
    /// A mean over nothing.
    #[error(
        "There is nothing to score: the set is empty. Check that the answers and the data set have ids in common."
    )]
    Empty,
    /// An item without reference captions or answers.
    #[error(
        "Item {item} has no reference. Remove it, or take it from a split with public annotations."
    )]
    NoReference {
        /// Index of the item.
        item: usize,
    },
    /// Two lists that belong together differ in length.
    #[error(
        "{what} has {found} entries where {expected} are needed. Both must come from the same item."
    )]
    Length {
        /// The list.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length it should have.
        expected: usize,
    },
    /// NaN or infinity.
    #[error("{what} contains a number that is not finite. Check the run that wrote it.")]
    NotFinite {
        /// The list.
        what: &'static str,
    },
    /// An index beyond the end.
    #[error("{what} {index} is out of range: there are {len}. The index belongs to another item.")]
    Index {
        /// Meaning of the index.
        what: &'static str,
        /// The index.
        index: usize,
        /// Number of entries.
        len: usize,
    },
    /// A covariance from fewer than two samples.
    #[error("A covariance needs two samples, and there are {found}. Give more pictures.")]
    TooFewSamples {
        /// Number of samples.
        found: usize,
    },
    /// A parameter outside its range.
    #[error("{name} is {value}, and must be {range}.")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
    /// The eigenvalue iteration does not end.
    #[error(
        "The eigenvalues of the covariances were not found. Check the features for extreme values."
    )]
    NoConvergence,
}
