//! What a task needs of a model. The crate has no model: the program that has one implements [`Model`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use super::error::ModelError;
pub use super::question::{Media, MediaKind};

/// A piece of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text of a template: special tokens that it spells are special tokens.
    Template(String),
    /// Text of a data set: always plain, whatever it spells.
    Text(String),
    /// A picture block, or the picture blocks of a video's frames.
    Media(Media),
}

/// How the parts become a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// The parts are the whole prompt.
    #[default]
    Raw,
    /// The parts are the user's turn; the model puts its own conversation template around it.
    Turn,
}

/// Options of beam search, with the meaning that they have in transformers. There is no sampling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decoding {
    /// Number of beams; 1 is greedy decoding.
    pub beams: usize,
    /// Maximum number of new tokens.
    pub max_new_tokens: usize,
    /// Minimum length, `<s>` included.
    pub min_length: usize,
    /// Exponent of the length in a score; below 0 short answers win.
    pub length_penalty: f32,
    /// Above 1, tokens that were generated already are less likely.
    #[serde(default = "one")]
    pub repetition_penalty: f32,
    /// If not empty: the only continuations, each followed by the end of the text (a trie over their tokens).
    #[serde(default, skip_deserializing)]
    pub allowed: Vec<String>,
}

const fn one() -> f32 {
    1.0
}

/// A request to continue a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Id of the question, for messages.
    pub id: String,
    /// How the parts become a prompt.
    pub form: Form,
    /// The prompt.
    pub parts: Vec<Part>,
    /// How to decode; not used for ranking.
    pub decoding: Decoding,
}

/// The result for one request. `Err` says why this request cannot be answered by any model, for example because its
/// picture cannot be decoded; the question is then named in the result and not scored.
pub type Outcome<T> = Result<T, String>;

/// A model under evaluation. The same calls must give the same results.
pub trait Model {
    /// Name and version, such as a pack's name and the hash of its manifest. Answers of one name are never
    /// continued with another.
    fn name(&self) -> String;

    /// Continues each prompt; returns as many texts as requests, in their order. The text is that of the new tokens, without
    /// end tokens.
    ///
    /// # Errors
    /// If the model fails as a whole; the run ends, and can be resumed.
    fn generate(&mut self, requests: &[Request]) -> Result<Vec<Outcome<String>>, ModelError>;

    /// Scores candidates as continuations of a prompt; the higher, the likelier. In the paper's evaluation a score is the sum of
    /// the candidate tokens' log-probabilities divided by (prompt tokens + candidate tokens - 1), without end token and
    /// without `<s>`.
    ///
    /// # Errors
    /// As [`Model::generate`].
    fn rank(
        &mut self,
        request: &Request,
        candidates: &[Arc<str>],
    ) -> Result<Outcome<Vec<f64>>, ModelError>;

    /// A vector for each picture or video, for retrieval of similar ones; all of the same length. They need not be normalized.
    ///
    /// # Errors
    /// As [`Model::generate`].
    fn features(&mut self, media: &[Media]) -> Result<Vec<Outcome<Vec<f32>>>, ModelError>;
}
