//! What the server needs of a model: the trait [`Engine`], and the requests and events that pass through it.
//!
//! Pictures are files in memory, as clients sent them. The server has checked only their length and signature; the
//! engine decodes them, and limits their pixels.

use std::borrow::Cow;
use std::ops::ControlFlow;

use bytes::Bytes;

/// `Break` asks the engine to end the call as soon as it can.
pub type Flow = ControlFlow<()>;

/// Takes the events of a call. After it has returned `Break`, further events are ignored.
pub type Tell<'a> = dyn FnMut(Event) -> Flow + 'a;

/// A model that answers one request at a time, on the thread that called [`crate::Server::run`].
///
/// Every method calls `tell` at least once per token or denoising step, with [`Event::Step`] if there is nothing to
/// deliver. When `tell` returns `Break`, the client has left, or a stop string was found: the method then returns what it
/// has counted so far, or [`EngineError::Stopped`].
pub trait Engine {
    /// Name and abilities. Called once, before the first request.
    fn model(&self) -> Model;

    /// Answers the last turn of a conversation.
    ///
    /// # Errors
    /// Where the request does not suit the model, or the model fails.
    fn chat(&mut self, chat: &Chat, tell: &mut Tell<'_>) -> Result<Answer, EngineError>;

    /// Continues a text, without a chat template.
    ///
    /// # Errors
    /// As [`Engine::chat`].
    fn complete(
        &mut self,
        prompt: &str,
        options: &TextOptions,
        tell: &mut Tell<'_>,
    ) -> Result<Answer, EngineError>;

    /// Draws a picture.
    ///
    /// # Errors
    /// As [`Engine::chat`]; [`EngineError::Stopped`] if `tell` returned `Break` before the picture was finished.
    fn draw(&mut self, drawing: &Drawing, tell: &mut Tell<'_>) -> Result<Drawn, EngineError>;

    /// Embeds pictures, in their order.
    ///
    /// # Errors
    /// As [`Engine::draw`].
    fn embed(
        &mut self,
        pictures: &[Bytes],
        tell: &mut Tell<'_>,
    ) -> Result<Vec<Embedding>, EngineError>;
}

/// Name and abilities of a model. A request for what it cannot do is refused before it is queued.
#[derive(Clone, Debug)]
pub struct Model {
    /// Name, as clients give it in `model`.
    pub id: String,
    /// Time of creation, in seconds since 1970.
    pub created: u64,
    /// `owned_by` in `/v1/models`.
    pub owner: String,
    /// Reads pictures.
    pub sees: bool,
    /// Draws pictures.
    pub draws: bool,
    /// Embeds pictures.
    pub embeds: bool,
    /// Gives the log-probabilities of tokens.
    pub logprobs: bool,
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text. It is never parsed for marks or special tokens.
    Text(String),
    /// A picture file.
    Picture(Bytes),
}

/// A conversation. The answer of the last turn is to be generated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// System message; `None` for the model's default.
    pub system: Option<String>,
    /// Turns, at least one.
    pub turns: Vec<Turn>,
}

/// What a user said, and the answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turn {
    /// Text and pictures, in order.
    pub user: Vec<Part>,
    /// Text of the answer; empty in the last turn. Pictures that an earlier answer contained are left out.
    pub answer: String,
}

/// A request for an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Chat {
    /// The conversation.
    pub conversation: Conversation,
    /// Options of the text.
    pub text: TextOptions,
    /// Options of pictures in the answer; `None` if the answer must not contain pictures.
    pub draw: Option<DrawOptions>,
}

/// Options of text generation. `None` stands for the engine's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextOptions {
    /// Maximum number of new tokens.
    pub max_new_tokens: Option<usize>,
    /// Sampling temperature; 0 takes the most likely token.
    pub temperature: Option<f32>,
    /// Nucleus sampling.
    pub top_p: Option<f32>,
    /// Only this many of the most likely tokens.
    pub top_k: Option<usize>,
    /// Penalty on tokens that already occurred, above 1.
    pub repetition_penalty: Option<f32>,
    /// Only tokens that are at least this likely in relation to the most likely one.
    pub min_p: Option<f32>,
    /// Subtracted once from the logit of each token of the answer so far.
    pub presence_penalty: f32,
    /// Subtracted from the logit of each token of the answer so far, as many times as it occurs.
    pub frequency_penalty: f32,
    /// Tokens, and what is added to their logits.
    pub logit_bias: Vec<(u32, f32)>,
    /// Forbid repeated n-grams of this many tokens.
    pub no_repeat_ngram: Option<usize>,
    /// Number of beams; 1 decodes without beam search.
    pub beams: Option<usize>,
    /// Exponent of the length in a beam's score.
    pub length_penalty: Option<f32>,
    /// Seed of the sampling.
    pub seed: u64,
    /// Give the log-probability of every token, and those of this many of the most likely alternatives.
    pub logprobs: Option<usize>,
}

/// Options of drawing. `None` stands for the engine's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DrawOptions {
    /// Width and height in pixels.
    pub size: Option<(u32, u32)>,
    /// Number of denoising steps.
    pub steps: Option<usize>,
    /// Classifier-free guidance scale.
    pub guidance: Option<f64>,
    /// What the picture should not show.
    pub negative: Option<String>,
    /// Seed of the initial latents. In an answer with several pictures, the next ones have the next seeds.
    pub seed: u64,
}

/// A request for a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawing {
    /// Text and pictures, in order.
    pub prompt: Vec<Part>,
    /// Options.
    pub options: DrawOptions,
}

/// What happens during a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Work was done that has nothing to deliver: a prefill, a denoising step, a batch of pictures.
    Step,
    /// Text of the answer: one token, or more at once.
    Text(Piece),
    /// A picture in the answer.
    Picture(Drawn),
}

/// A piece of generated text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// The text; empty while a character is incomplete.
    pub text: String,
    /// The token's log-probability, if it was asked for.
    pub logprob: Option<TokenLogprob>,
}

impl Piece {
    /// Text without log-probability.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            logprob: None,
        }
    }
}

/// Log-probabilities at the position of one token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token that was generated.
    pub chosen: Likelihood,
    /// The most likely tokens, best first.
    pub top: Vec<Likelihood>,
}

/// A token and its log-probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Likelihood {
    /// The token's text. It may be a part of a character.
    pub bytes: Vec<u8>,
    /// Natural logarithm of the probability.
    pub logprob: f32,
}

impl Likelihood {
    /// The text; U+FFFD in place of a part of a character.
    pub fn token(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }
}

/// A finished picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// The picture as a PNG file; black if it was flagged.
    pub png: Bytes,
    /// Seed that it was drawn with.
    pub seed: u64,
    /// Result of the safety checker, if the model has one.
    pub flagged: Option<bool>,
}

/// Embeddings of one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// Width of one embedding, D.
    pub width: usize,
    /// N embeddings, `[N, D]`.
    pub values: Vec<f32>,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// An end token, or `tell` returned `Break`.
    End,
    /// The maximum number of tokens, or the context length.
    Length,
}

/// Result of a text generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt, those of pictures included.
    pub prompt_tokens: usize,
    /// Those of the prompt whose keys and values were kept from an earlier call.
    pub cached_tokens: usize,
    /// Tokens generated.
    pub tokens: usize,
}

/// Why an engine gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The request does not suit the model: status 400.
    #[error("{message}")]
    Request {
        /// Stable code, such as `context_length_exceeded`.
        code: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// The model or the device failed: status 500.
    #[error("{message}")]
    Failed {
        /// Stable code.
        code: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// `tell` returned `Break`.
    #[error("The call was stopped.")]
    Stopped,
}
