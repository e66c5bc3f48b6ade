//! Generation as step machines: each `step` does a bounded piece of work and returns an event, so that a caller can show
//! progress, stop between steps, and drive a model in a terminal, a test or a browser's worker alike.

pub mod beam;
mod error;
pub mod image;
pub mod options;
pub mod rank;
pub mod text;

use burn::tensor::{Int, Tensor, TensorData};
use emu_kernels::cache::{CacheFull, KvCache};
use emu_kernels::count;
use emu_kernels::sample::Processors;
use emu_kernels::throttle::Work;

pub use beam::{BeamOptions, BeamSearch, Hypothesis};
pub use error::{GenerateError, read};
pub use image::ImageEmbedder;
pub use rank::rank_losses;
pub use text::{Finish, TextEvent, TextMachine, TextOptions};

use crate::Emu;
use crate::config::EmuConfig;
use crate::lm::Lm;
use crate::requests::{Heard, Requests, RequestsConfig, Route, Wanted};
use crate::splice::splice;

/// How often the language model ran: what a generation costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Runs over several tokens.
    pub prefills: usize,
    /// Tokens in them.
    pub prefill_tokens: usize,
    /// Runs over a single token (of each beam).
    pub steps: usize,
}

/// A prompt: token ids, and the visual embeddings that take the places of its `<image>` tokens.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Token ids, `<s>` first.
    pub ids: Vec<u32>,
    /// `[pictures, Q, D]`, or all of them in one row where a soft prompt is among them.
    pub visual: Option<Tensor<3>>,
    /// Tokens in front of a conversation's first turn.
    pub opening: usize,
    /// The same conversation for the language model alone, without the soft prompt in front; where it may answer it so.
    pub alone: Option<Vec<u32>>,
}

impl Prompt {
    /// A prompt without pictures.
    pub fn text(ids: Vec<u32>) -> Self {
        Self {
            ids,
            visual: None,
            opening: 0,
            alone: None,
        }
    }
}

/// What generation needs to know of a language model beside its weights.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Positions it has.
    pub context: usize,
    /// Tokens it knows.
    pub vocab: usize,
    /// What a generated sequence is said to begin with.
    pub bos: u32,
    /// Tokens that end an answer, the usual one first.
    pub ends: Vec<u32>,
    /// Of a model that sees and draws.
    pub pictures: Option<PictureRules>,
}

/// The tokens around pictures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PictureRules {
    /// In the place of an embedding.
    pub image: u32,
    /// Before a picture.
    pub img: u32,
    /// After a picture.
    pub end_img: u32,
    /// Embeddings of a picture that the model draws.
    pub queries: usize,
}

impl From<&EmuConfig> for Rules {
    fn from(config: &EmuConfig) -> Self {
        let special = &config.special;
        Self {
            context: config.lm.context,
            vocab: config.lm.vocab,
            bos: special.bos,
            ends: { std::iter::once(special.eos) }
                .chain(config.ends.iter().copied())
                .collect(),
            pictures: Some(PictureRules {
                image: special.image,
                img: special.img,
                end_img: special.end_img,
                queries: config.drawn(),
            }),
        }
    }
}

impl Rules {
    /// Bounds what may be asked for without limit: repeats longer than anything that is generated are as long as it.
    pub fn limit(&self, processors: &mut Processors) {
        let ngram = &mut processors.no_repeat_ngram;
        *ngram = (*ngram).min(self.context + 1);
    }

    /// The end token that a minimum length bans; none is beyond every vocabulary.
    pub fn end(&self) -> u32 {
        self.ends.first().copied().unwrap_or(u32::MAX)
    }
}

/// What reads from a prompt which picture it asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'a> {
    requests: &'a Requests,
    config: &'a RequestsConfig,
    opening: usize,
}

impl<'a> Asking<'a> {
    /// None in a model whose LM regresses embeddings, or that draws nothing.
    pub fn of(emu: &'a Emu, config: &'a EmuConfig, prompt: &Prompt) -> Option<Self> {
        Some(Self {
            requests: emu.requests.as_ref()?,
            config: config.requests.as_ref()?,
            opening: prompt.opening,
        })
    }

    fn heard<'s>(&self, lm: &'s Lm, cache: &'s KvCache) -> Heard<'s> {
        Heard {
            lm,
            cache,
            opening: self.opening,
        }
    }

    /// See [`Requests::route`].
    pub async fn route(
        &self,
        lm: &Lm,
        cache: &KvCache,
        hidden: Tensor<3>,
    ) -> Result<Route, GenerateError> {
        let heard = self.heard(lm, cache);
        self.requests.route(self.config, heard, hidden).await
    }

    /// See [`Requests::wanted`].
    pub async fn wanted(
        &self,
        lm: &Lm,
        cache: &KvCache,
        seed: u64,
    ) -> Result<Wanted, GenerateError> {
        let heard = self.heard(lm, cache);
        self.requests.wanted(self.config, heard, seed).await
    }
}

/// A model running over one sequence.
pub(crate) struct Session<'a> {
    pub lm: &'a Lm,
    pub cache: KvCache,
    pub cost: Cost,
    /// The prompt, until something behind it came back.
    prompt: Option<Work>,
}

impl<'a> Session<'a> {
    /// Runs the prompt. Returns its last hidden state, `[1, 1, D]`.
    ///
    /// # Arguments
    /// - `room`: positions that will follow the prompt at least (`reserve` at most)
    pub fn start(
        lm: &'a Lm,
        prompt: &Prompt,
        rules: &Rules,
        room: usize,
        reserve: usize,
    ) -> Result<(Self, Tensor<3>), GenerateError> {
        let (length, context) = (prompt.ids.len(), rules.context);
        if length == 0 {
            return Err(GenerateError::Empty);
        }
        if length + room > context {
            return Err(GenerateError::TooLong {
                prompt: length,
                wanted: room,
                context,
            });
        }
        // Without pictures, no token marks one.
        let image = rules.pictures.map_or(u32::MAX, |pictures| pictures.image);
        let ids = std::slice::from_ref(&prompt.ids);
        let embeds = splice(&lm.embed_tokens, ids, prompt.visual.clone(), image)?;
        let mut cache = lm.cache(1, (length + reserve).min(context));
        let scope = lm.throttle.scope();
        let hidden = lm.step(embeds, &mut cache)?;
        let prompt = Some(scope.end());
        let cost = Cost {
            prefills: 1,
            prefill_tokens: length,
            steps: 0,
        };
        let session = Self {
            lm,
            cache,
            cost,
            prompt,
        };
        Ok((session, hidden.narrow(1, length - 1, 1)))
    }

    /// Something that was launched behind the prompt, and nothing else before it, has come back.
    pub fn came_back(&mut self) {
        if let Some(work) = self.prompt.take() {
            self.lm.throttle.completed(work);
        }
    }

    /// Appends one position to every beam: `[B, 1, D]` in and out.
    ///
    /// # Errors
    /// Where the cache has no room for it.
    pub fn advance(&mut self, embeds: Tensor<3>) -> Result<Tensor<3>, CacheFull> {
        self.cost.steps += 1;
        self.lm.step(embeds, &mut self.cache)
    }

    /// Appends one token to every beam.
    ///
    /// # Errors
    /// Where the cache has no room for it.
    pub fn advance_tokens(&mut self, tokens: &[u32]) -> Result<Tensor<3>, CacheFull> {
        self.cost.steps += 1;
        step_tokens(self.lm, &mut self.cache, tokens)
    }
}

/// Uploads one token of every beam and appends it.
fn step_tokens(lm: &Lm, cache: &mut KvCache, tokens: &[u32]) -> Result<Tensor<3>, CacheFull> {
    let device = lm.embed_tokens.weight.lazy_device();
    count::flushed();
    let ids = tokens.iter().map(|&t| t as i32).collect();
    let ids = TensorData::new(ids, [tokens.len(), 1]);
    lm.step_tokens(Tensor::<2, Int>::from_data(ids, &device), cache)
}
