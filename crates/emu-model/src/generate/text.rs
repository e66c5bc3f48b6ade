//! Greedy decoding and sampling, with images when the model emits them.

use burn::tensor::Tensor;
use emu_kernels::decode_session::DecodeSession;
use emu_kernels::random::{Philox, Stream};
use emu_kernels::sample::{Processors, Sampler, Sampling};

use super::{
    Asking, Cost, GenerateError, PictureRules, Prefill, Prompt, Rules, Session, read, step_tokens,
};
use crate::Emu;
use crate::config::EmuConfig;
use crate::lm::Lm;
use crate::requests::Route;

/// Options of text generation.
#[derive(Clone, Debug)]
pub struct TextOptions {
    /// Maximum number of new tokens.
    pub max_new_tokens: usize,
    /// Logits processors.
    pub processors: Processors,
    /// Sampling.
    pub sampling: Sampling,
    /// Seed of the sampling.
    pub seed: u64,
    /// Generate images. When the model emits [IMG], the visual embeddings of an image are regressed and text continues.
    /// A model with a request reader answers a request with an image. With this option, a model without a regression
    /// head never emits [IMG].
    pub images: bool,
    /// Never emit [IMG] if `images` is off.
    pub ban_images: bool,
    /// Continue after end tokens, for benchmarks.
    pub ignore_ends: bool,
    /// Keep the processed logits of every token for [`TextMachine::processed`].
    pub keep_logits: bool,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 128,
            processors: Processors::default(),
            sampling: Sampling::default(),
            seed: 0,
            images: false,
            ban_images: true,
            ignore_ends: false,
            keep_logits: false,
        }
    }
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model emitted `</s>` or another end token.
    End,
    /// `max_new_tokens` or the context length was reached.
    Length,
}

/// Result of a step.
// Moved once per step: the size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum TextEvent {
    /// A text token, or the end token.
    Token(u32),
    /// One visual embedding of an image was regressed: its number and the total.
    Embedding(usize, usize),
    /// All embeddings of an image: `[1, Q, D]`.
    Image(Tensor<3>),
    /// Description of an image that was generated for a request. It is the whole answer; no tokens are emitted.
    Words(String),
    /// End of the generation.
    Done(Finish),
}

// One value per machine: the size does not matter.
#[allow(clippy::large_enum_variant)]
enum State<'a> {
    /// Nothing generated yet; the route of the answer is undecided.
    Open(Open<'a>),
    /// Generating text.
    Text,
    /// Regressing an image; this hidden state yields its next embedding.
    Draw(Tensor<3>, PictureRules, Vec<Tensor<3>>),
    /// An image was generated for a request; this description follows.
    Say(String),
    Done(Finish),
}

/// A prefilled conversation whose route is undecided.
struct Open<'a> {
    asking: Asking<'a>,
    /// Last hidden state of the prompt.
    hidden: Tensor<3>,
    /// Whether the answer may be an image.
    draws: bool,
    /// See [`Prompt::alone`].
    alone: Option<Vec<u32>>,
}

/// Text generation of one sequence.
///
/// On a GPU, the model reads each sampled token on the device while its read-back is in flight ([`DecodeSession`]).
/// Work beyond the end, or beyond the start of an image, is discarded by truncating the KV cache.
pub struct TextMachine<'a> {
    lm: &'a Lm,
    decode: DecodeSession<'a, Lm>,
    cost: Cost,
    prefill: Prefill,
    rules: Rules,
    options: TextOptions,
    /// Random generator of sampling on the host.
    random: Philox,
    /// `<s>` and all generated tokens.
    history: Vec<u32>,
    state: State<'a>,
    processed: Option<Vec<f32>>,
}

impl<'a> TextMachine<'a> {
    /// Prefills the prompt.
    ///
    /// # Errors
    /// If an option is out of range, or the prompt exceeds the context or does not match its images.
    pub fn new(
        emu: &'a Emu,
        config: &'a EmuConfig,
        prompt: &Prompt,
        options: TextOptions,
    ) -> Result<Self, GenerateError> {
        let (draws, alone) = (options.images, prompt.alone.clone());
        let asking = Asking::of(emu, config, prompt).filter(|_| draws || alone.is_some());
        let mut machine = Self::over(&emu.lm, config.into(), prompt, options)?;
        if let (Some(asking), Some(hidden)) = (asking, machine.decode.hidden()) {
            machine.state = State::Open(Open {
                asking,
                hidden: hidden.clone(),
                draws,
                alone,
            });
        }
        Ok(machine)
    }

    /// As [`TextMachine::new`], over a language model and its [`Rules`].
    pub(crate) fn over(
        lm: &'a Lm,
        rules: Rules,
        prompt: &Prompt,
        mut options: TextOptions,
    ) -> Result<Self, GenerateError> {
        options.validate()?;
        rules.limit(&mut options.processors);
        if options.images && lm.stu_regress_head.is_none() {
            (options.images, options.ban_images) = (false, true);
        }
        let reserve = match options.images {
            true => rules.context,
            false => options.max_new_tokens.min(rules.context),
        };
        let (session, hidden) = Session::start(lm, prompt, &rules, 1, reserve)?;
        let random = Philox::new(options.seed, Stream::Tokens, 0);
        let history = vec![rules.bos];
        let sampler = Sampler::new(
            options.processors.clone(),
            options.sampling.clone(),
            rules.end(),
            &history,
            options.max_new_tokens.min(rules.context),
            &mut random.clone(),
            &hidden.device(),
        );
        Ok(Self {
            lm,
            decode: DecodeSession::new(lm, session.cache, sampler, hidden),
            cost: session.cost,
            prefill: session.prefill,
            rules,
            options,
            random,
            history,
            state: State::Text,
            processed: None,
        })
    }

    /// `<s>` and all tokens generated so far.
    pub fn sequence(&self) -> &[u32] {
        &self.history
    }

    /// Processed logits of the last token, if `keep_logits` is set.
    pub fn processed(&self) -> Option<&[f32]> {
        self.processed.as_deref()
    }

    /// Cost so far.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// Does the next unit of work.
    ///
    /// # Errors
    /// If the device fails.
    pub async fn step(&mut self) -> Result<TextEvent, GenerateError> {
        match std::mem::replace(&mut self.state, State::Done(Finish::Length)) {
            State::Done(finish) => {
                self.state = State::Done(finish);
                Ok(TextEvent::Done(finish))
            }
            State::Open(open) => {
                let (lm, cache) = (self.lm, self.decode.cache());
                let route = open.asking.route(lm, cache, open.hidden).await?;
                self.prefill.came_back(self.lm);
                match (route, open.alone) {
                    (Route::Picture, _) if open.draws => {
                        let (cache, seed) = (self.decode.cache(), self.options.seed);
                        let wanted = open.asking.wanted(lm, cache, seed).await?;
                        self.decode.stop();
                        self.state = State::Say(wanted.said);
                        return Ok(TextEvent::Image(wanted.condition));
                    }
                    (Route::Alone, Some(ids)) => self.restart(ids)?,
                    _ => {}
                }
                self.say().await
            }
            State::Say(words) => {
                self.state = State::Done(Finish::End);
                Ok(TextEvent::Words(words))
            }
            State::Text => self.say().await,
            State::Draw(hidden, pictures, made) => self.draw(hidden, pictures, made),
        }
    }

    /// Replaces the prompt by another one, before anything was generated.
    fn restart(&mut self, ids: Vec<u32>) -> Result<(), GenerateError> {
        let (before, rules, options) = (self.cost, self.rules.clone(), self.options.clone());
        *self = Self::over(self.lm, rules, &Prompt::text(ids), options)?;
        self.cost.prefills += before.prefills;
        self.cost.prefill_tokens += before.prefill_tokens;
        Ok(())
    }

    async fn say(&mut self) -> Result<TextEvent, GenerateError> {
        let (token, after) = match self.options.keep_logits {
            true => (self.sample_here().await?, None),
            false => {
                let (room, rules, options) = (self.room(), &self.rules, &self.options);
                let decoded = self.decode.take(room, |left| banned(rules, options, left));
                let decoded = decoded.await?;
                self.prefill.came_back(self.lm);
                match decoded {
                    Some(decoded) => {
                        self.cost.steps += usize::from(decoded.stepped);
                        (Some(decoded.token), decoded.after)
                    }
                    None => (None, None),
                }
            }
        };
        let Some(token) = token else {
            return Ok(TextEvent::Done(Finish::Length));
        };
        self.history.push(token);
        let pictures = self.rules.pictures;
        let pictures = pictures.filter(|p| self.options.images && token == p.img);
        self.state = if !self.options.ignore_ends && self.rules.ends.contains(&token) {
            self.decode.stop();
            State::Done(Finish::End)
        } else if let Some(pictures) =
            pictures.filter(|_| self.room() > 0 && self.decode.cache().left() > 0)
        {
            self.cost.steps += 1;
            let hidden = match after {
                Some(after) => {
                    self.decode.rewind(&self.history, Some(after.kv_len));
                    after.hidden
                }
                None => {
                    self.decode.rewind(&self.history, None);
                    step_tokens(self.lm, self.decode.cache_mut(), &[token])?
                }
            };
            State::Draw(hidden, pictures, Vec::with_capacity(pictures.queries))
        } else {
            State::Text
        };
        Ok(TextEvent::Token(token))
    }

    /// Number of tokens that may still be generated.
    fn room(&self) -> usize {
        (self.options.max_new_tokens + 1).saturating_sub(self.history.len())
    }

    /// Samples a token on the host and keeps its processed logits.
    async fn sample_here(&mut self) -> Result<Option<u32>, GenerateError> {
        if self.room() == 0 {
            return Ok(None);
        }
        let (history, cost) = (&self.history, &mut self.cost);
        let hidden = self.decode.next_hidden(|lm, cache| {
            cost.steps += 1;
            step_tokens(lm, cache, &history[history.len() - 1..])
        })?;
        let Some(hidden) = hidden else {
            return Ok(None);
        };
        let mut logits = read(self.lm.logits(hidden)).await?;
        self.prefill.came_back(self.lm);
        if logits.iter().any(|v| v.is_nan()) {
            return Err(GenerateError::NotFinite);
        }
        let processors = &self.options.processors;
        processors.apply(&self.history, self.rules.end(), &mut logits);
        let banned = banned(&self.rules, &self.options, self.decode.cache().left());
        if let Some(score) = banned.and_then(|token| logits.get_mut(token as usize)) {
            *score = f32::NEG_INFINITY;
        }
        let sampling = &self.options.sampling;
        let token = sampling.sample(&logits, self.random.uniform());
        self.processed = Some(logits);
        Ok(Some(token))
    }

    fn draw(
        &mut self,
        hidden: Tensor<3>,
        pictures: PictureRules,
        mut embeddings: Vec<Tensor<3>>,
    ) -> Result<TextEvent, GenerateError> {
        let queries = pictures.queries;
        let embedding = self.lm.regress(hidden)?; // [1, 1, D]
        embeddings.push(embedding.clone());
        self.cost.steps += 1;
        let hidden = self.lm.step(embedding, self.decode.cache_mut())?;
        if embeddings.len() < queries {
            let done = embeddings.len();
            self.state = State::Draw(hidden, pictures, embeddings);
            return Ok(TextEvent::Embedding(done, queries));
        }
        self.cost.steps += 1;
        let hidden = step_tokens(self.lm, self.decode.cache_mut(), &[pictures.end_img])?;
        self.decode.resume(hidden);
        self.state = State::Text;
        Ok(TextEvent::Image(Tensor::cat(embeddings, 1)))
    }

    /// Runs all remaining steps. Returns the sequence, starting with `<s>`.
    ///
    /// # Errors
    /// If the device fails.
    pub async fn run(mut self) -> Result<Vec<u32>, GenerateError> {
        loop {
            if let TextEvent::Done(_) = self.step().await? {
                return Ok(self.history);
            }
        }
    }
}

/// The token to ban with `left` free positions in the KV cache: [IMG], if images are off or one would not fit.
fn banned(rules: &Rules, options: &TextOptions, left: usize) -> Option<u32> {
    let pictures = rules.pictures?;
    let banned = match options.images {
        true => left < pictures.queries + 2,
        false => options.ban_images,
    };
    banned.then_some(pictures.img)
}

#[cfg(test)]
mod tests;
