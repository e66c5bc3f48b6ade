//! Generation as step machines: each `step` does a bounded amount of work and returns an event, so a caller can show
//! progress, stop between steps, and drive a model from a terminal, a test or a browser worker.

pub mod beam;
mod error;
pub mod image;
pub mod options;
mod prefix;
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
pub use prefix::{PrefixCache, VisualKey};
pub use rank::rank_losses;
pub use text::{Finish, TextEvent, TextMachine, TextOptions};

use prefix::{Position, Sequence};

use crate::Emu;
use crate::config::EmuConfig;
use crate::lm::Lm;
use crate::requests::{Heard, Requests, RequestsConfig, Route, Wanted};
use crate::splice::{SpliceError, splice};

/// Number of forward passes of the language model, as the cost of a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Prefills: passes over several tokens.
    pub prefills: usize,
    /// Tokens in the prefills, without those whose keys and values were cached.
    pub prefill_tokens: usize,
    /// Tokens of the prompt whose keys and values a [`PrefixCache`] had.
    pub cached_tokens: usize,
    /// Decode steps: passes over a single token (per beam).
    pub steps: usize,
}

/// A prompt: token ids, and the visual embeddings that replace its `<image>` tokens.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Token ids, starting with `<s>`.
    pub ids: Vec<u32>,
    /// `[images, Q, D]`, or all embeddings in a single row if a soft prompt is among them.
    pub visual: Option<Tensor<3>>,
    /// Identities of the visual embeddings, one for each, by which a [`PrefixCache`] finds them again. Empty if unknown.
    pub visual_keys: Vec<VisualKey>,
    /// Number of tokens before the first turn of a conversation.
    pub opening: usize,
    /// The same conversation without the soft prompt, if the language model may answer without it.
    pub alone: Option<Vec<u32>>,
    /// The last turn of the conversation by itself, if it has others before it and a request reader reads it.
    pub last: Option<Box<LastTurn>>,
    /// First tokens of an answer that says that an image was drawn, if no earlier answer did.
    pub claim: Option<Vec<u32>>,
}

/// The last turn of a conversation by itself.
#[derive(Clone, Debug)]
pub struct LastTurn {
    /// Its prompt, with the soft prompt.
    pub prompt: Prompt,
    /// Whether the turns before it are only talk, without images and drawings.
    pub after_talk: bool,
}

impl Prompt {
    /// A text-only prompt.
    pub fn text(ids: Vec<u32>) -> Self {
        Self {
            ids,
            visual: None,
            visual_keys: vec![],
            opening: 0,
            alone: None,
            last: None,
            claim: None,
        }
    }
}

/// Limits and special tokens of a language model, as generation needs them.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Context length.
    pub context: usize,
    /// Vocabulary size.
    pub vocab: usize,
    /// First token of the generated sequence.
    pub bos: u32,
    /// End tokens, the usual one first.
    pub ends: Vec<u32>,
    /// Image tokens of a multimodal model.
    pub pictures: Option<PictureRules>,
}

/// Image tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PictureRules {
    /// `<image>`: placeholder of one embedding.
    pub image: u32,
    /// `[IMG]`: before an image.
    pub img: u32,
    /// `[/IMG]`: after an image.
    pub end_img: u32,
    /// Embeddings of a generated image.
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
    /// Clamps unbounded options: an n-gram cannot be longer than the longest sequence.
    pub fn limit(&self, processors: &mut Processors) {
        let ngram = &mut processors.no_repeat_ngram;
        *ngram = (*ngram).min(self.context + 1);
    }

    /// The end token that the minimum length bans; if there is none, an id outside any vocabulary.
    pub fn end(&self) -> u32 {
        self.ends.first().copied().unwrap_or(u32::MAX)
    }
}

/// Request reader of a prompt: whether it asks for an image, and for which one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'a> {
    requests: &'a Requests,
    config: &'a RequestsConfig,
    opening: usize,
}

impl<'a> Asking<'a> {
    /// `None` if the LM regresses embeddings itself, or the model generates no images.
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

/// Minimum number of positions that are computed together for a prompt, if the model quantizes activations ([`Lm::rounds`]):
/// more than those of a gemv, whose sums are in another order. With the same kernels for every prompt, and without keys and
/// values of generated tokens, a prompt that continues another one is answered as by itself.
pub(crate) const TOGETHER: usize = 9;

/// State of a model over one sequence.
pub(crate) struct Session<'a> {
    pub lm: &'a Lm,
    pub cache: KvCache,
    pub cost: Cost,
    prefill: Prefill,
    /// Positions of the prompt.
    positions: Vec<Position>,
}

/// A prefill whose time the throttle learns: what was launched, until a later result has been read back.
struct Prefill(Option<Work>);

impl Prefill {
    /// Ends the throttle's timing. Call after the read-back of the first result that was launched after the prefill.
    fn came_back(&mut self, lm: &Lm) {
        if let Some(work) = self.0.take() {
            lm.throttle.completed(work);
        }
    }
}

impl<'a> Session<'a> {
    /// Prefills the prompt. Returns its last hidden state, `[1, 1, D]`.
    ///
    /// # Arguments
    /// - `room`: minimum number of positions after the prompt
    pub fn start(
        lm: &'a Lm,
        prompt: &Prompt,
        rules: &Rules,
        room: usize,
        reserve: usize,
    ) -> Result<(Self, Tensor<3>), GenerateError> {
        Self::resume(lm, prompt, rules, room, reserve, &mut None)
    }

    /// As [`Session::start`], from the longest common prefix with a kept sequence, which is taken unless there is an error.
    pub fn resume(
        lm: &'a Lm,
        prompt: &Prompt,
        rules: &Rules,
        room: usize,
        reserve: usize,
        kept: &mut Option<Sequence>,
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
        // A text-only model has no image token.
        let image = rules.pictures.map_or(u32::MAX, |pictures| pictures.image);
        let positions = prefix::positions(&prompt.ids, &prompt.visual_keys, image);
        // The last position is computed in any case: the first token is sampled from its hidden state.
        let rounds = lm.rounds();
        let least = if rounds { TOGETHER } else { 1 };
        let cached = kept.as_ref().map_or(0, |kept| {
            kept.common(&positions).min(length.saturating_sub(least))
        });
        let embeds = embeds_from(lm, prompt, image, cached)?;
        let capacity = (length + reserve).min(context);
        // Without a common prefix, the old cache is freed before the new one is allocated.
        let mut cache = match kept.take().filter(|_| cached > 0) {
            Some(kept) => {
                let mut cache = kept.into_cache();
                cache.reuse(cached, capacity, lm.rope.clone());
                cache
            }
            None => lm.cache(1, capacity),
        };
        let scope = lm.throttle.scope();
        let hidden = lm.step(embeds, &mut cache)?;
        let prefill = Prefill(Some(scope.end()));
        let computed = length - cached;
        // Of a short prompt nothing is kept.
        let positions = match rounds && computed < TOGETHER {
            true => vec![],
            false => positions,
        };
        let cost = Cost {
            prefills: 1,
            prefill_tokens: computed,
            cached_tokens: cached,
            steps: 0,
        };
        let session = Self {
            lm,
            cache,
            cost,
            prefill,
            positions,
        };
        Ok((session, hidden.narrow(1, computed - 1, 1)))
    }

    /// The prompt with its keys and values.
    pub fn into_sequence(self) -> Sequence {
        Sequence::new(self.positions, self.cache)
    }

    /// See [`Prefill::came_back`].
    pub fn came_back(&mut self) {
        self.prefill.came_back(self.lm);
    }

    /// Appends one position to every beam: `[B, 1, D]` in and out.
    ///
    /// # Errors
    /// If the cache is full.
    pub fn advance(&mut self, embeds: Tensor<3>) -> Result<Tensor<3>, CacheFull> {
        self.cost.steps += 1;
        self.lm.step(embeds, &mut self.cache)
    }

    /// Appends one token to every beam.
    ///
    /// # Errors
    /// If the cache is full.
    pub fn advance_tokens(&mut self, tokens: &[u32]) -> Result<Tensor<3>, CacheFull> {
        self.cost.steps += 1;
        step_tokens(self.lm, &mut self.cache, tokens)
    }
}

/// Embeddings of a prompt's positions from `first` on, `[1, T - first, D]`.
fn embeds_from(
    lm: &Lm,
    prompt: &Prompt,
    image: u32,
    first: usize,
) -> Result<Tensor<3>, SpliceError> {
    let (before, rest) = prompt.ids.split_at(first);
    let marks = |ids: &[u32]| ids.iter().filter(|id| **id == image).count();
    let (passed, left) = (marks(before), marks(rest));
    let dims = prompt.visual.as_ref().map(Tensor::dims);
    let embeddings = dims.map_or(0, |[pictures, q, _]| pictures * q);
    if passed + left != embeddings {
        return Err(SpliceError::Count {
            marks: passed + left,
            embeddings,
        });
    }
    let visual = prompt.visual.clone().filter(|_| left > 0);
    let visual = visual.map(|visual| match passed {
        0 => visual,
        _ => {
            let [_, _, d] = visual.dims();
            visual.reshape([1, embeddings, d]).narrow(1, passed, left)
        }
    });
    splice(&lm.embed_tokens, &[rest.to_vec()], visual, image)
}

/// Uploads one token of every beam and appends it.
fn step_tokens(lm: &Lm, cache: &mut KvCache, tokens: &[u32]) -> Result<Tensor<3>, CacheFull> {
    let device = lm.embed_tokens.weight.lazy_device();
    count::flushed();
    let ids = tokens.iter().map(|&t| t as i32).collect();
    let ids = TensorData::new(ids, [tokens.len(), 1]);
    lm.step_tokens(Tensor::<2, Int>::from_data(ids, &device), cache)
}
