//! Greedy decoding and sampling, with images when the model emits them.

use std::collections::VecDeque;

use burn::tensor::Tensor;
use emu_kernels::cache::CacheFull;
use emu_kernels::device::runs_behind;
use emu_kernels::random::{Philox, Stream};
use emu_kernels::readback::{self, Readback, RecordError, Recorded};
use emu_kernels::sample::{Processors, Sampler, Sampling};

use super::{Asking, Cost, GenerateError, PictureRules, Prompt, Rules, Session};
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

impl TextOptions {
    /// Cache positions to reserve after the prompt.
    fn reserve(&self, rules: &Rules) -> usize {
        match self.images {
            true => rules.context,
            false => self.max_new_tokens.min(rules.context),
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

/// Source of the next token.
#[allow(clippy::large_enum_variant)]
enum Next {
    /// Sample from the logits of this hidden state.
    Sample(Tensor<3>),
    /// A decode step that reads the last token on the device.
    Turn,
    /// End of the generation.
    Nothing,
}

/// A token whose read-back is in flight.
struct Asked {
    token: Readback,
    /// Whether a decode step produced it.
    turned: bool,
}

/// A recorded decode step.
struct Turn {
    recorded: Recorded,
    /// Its output: the hidden state after the token that it reads.
    hidden: Tensor<3>,
    /// The token that is banned in it.
    banned: Option<u32>,
}

/// Tokens in flight on an asynchronous device: while one is read back, the next is computed.
const DEPTH: usize = 2;
// All replays of a decode step write the same hidden-state buffer. `TextMachine::read` keeps that of the newest token
// for a rollback; another token in flight behind it would overwrite the buffer.
const _: () = assert!(DEPTH <= 2, "replays share one hidden state");
/// Warm-up: decode steps before one is recorded. After them kernels are compiled and buffers no longer move.
const LIVE_TURNS: usize = 2;

/// Text generation of one sequence.
///
/// On a GPU, decoding does not wait for the read-back of a token: the model reads the sampled token on the device while
/// its read-back is in flight. Work beyond the end, or beyond the start of an image, is discarded by truncating the KV
/// cache.
pub struct TextMachine<'a> {
    /// First field: dropped before the buffers it was recorded with.
    recorded: Option<Turn>,
    /// Decode steps so far that were not recorded; `None` if recording failed.
    live: Option<usize>,
    session: Session<'a>,
    rules: Rules,
    options: TextOptions,
    random: Philox,
    sampler: Sampler,
    /// Tokens in flight, oldest first.
    asked: VecDeque<Asked>,
    /// Hidden state and cache length after each token that the model has read but that was not yet taken.
    read: VecDeque<(Tensor<3>, usize)>,
    next: Next,
    /// Maximum number of tokens in flight.
    depth: usize,
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
        if let (Some(asking), Next::Sample(hidden)) = (asking, &machine.next) {
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
        let (session, hidden) = Session::start(lm, prompt, &rules, 1, options.reserve(&rules))?;
        let random = Philox::new(options.seed, Stream::Tokens, 0);
        let history = vec![rules.bos];
        let device = hidden.device();
        let sampler = Sampler::new(
            options.processors.clone(),
            options.sampling.clone(),
            rules.end(),
            &history,
            options.max_new_tokens.min(rules.context),
            &mut random.clone(),
            &device,
        );
        let behind = runs_behind(&device);
        Ok(Self {
            recorded: None,
            live: behind.then_some(0),
            session,
            rules,
            options,
            random,
            sampler,
            asked: VecDeque::new(),
            read: VecDeque::new(),
            next: Next::Sample(hidden),
            depth: if behind { DEPTH } else { 1 },
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
        self.session.cost
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
                let route = open.asking.route(&self.session, open.hidden).await?;
                self.session.came_back();
                match (route, open.alone) {
                    (Route::Picture, _) if open.draws => {
                        let seed = self.options.seed;
                        let wanted = open.asking.wanted(&self.session, seed).await?;
                        self.next = Next::Nothing;
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
        let (rules, reserve) = (&self.rules, self.options.reserve(&self.rules));
        let prompt = Prompt::text(ids);
        let (session, hidden) = Session::start(self.session.lm, &prompt, rules, 1, reserve)?;
        let before = std::mem::replace(&mut self.session, session).cost;
        self.session.cost.prefills += before.prefills;
        self.session.cost.prefill_tokens += before.prefill_tokens;
        self.next = Next::Sample(hidden);
        Ok(())
    }

    async fn say(&mut self) -> Result<TextEvent, GenerateError> {
        let token = match self.options.keep_logits {
            true => self.sample_here().await?,
            false => self.take().await?,
        };
        let Some(token) = token else {
            return Ok(TextEvent::Done(Finish::Length));
        };
        self.history.push(token);
        let read = self.read.pop_front();
        let pictures = self.rules.pictures;
        let pictures = pictures.filter(|p| self.options.images && token == p.img);
        self.state = if !self.options.ignore_ends && self.rules.ends.contains(&token) {
            // Generation ends here.
            (self.asked, self.next) = (VecDeque::new(), Next::Nothing);
            State::Done(Finish::End)
        } else if let Some(pictures) = pictures.filter(|_| self.goes_on(self.history.len())) {
            let hidden = match read {
                Some((hidden, length)) => {
                    self.session.cache.truncate(length);
                    self.session.cost.steps += 1;
                    hidden
                }
                None => self.session.advance_tokens(&[token])?,
            };
            self.go_back();
            State::Draw(hidden, pictures, Vec::with_capacity(pictures.queries))
        } else {
            State::Text
        };
        Ok(TextEvent::Token(token))
    }

    /// Returns the next token and keeps `depth` tokens in flight, so that the device stays busy. `None` at the end.
    async fn take(&mut self) -> Result<Option<u32>, GenerateError> {
        while self.asked.len() < self.depth && self.has_room(self.history.len() + self.asked.len())
        {
            let turned = match std::mem::replace(&mut self.next, Next::Nothing) {
                Next::Sample(hidden) => {
                    let banned = self.banned(0);
                    sample(&self.session, &mut self.sampler, hidden, banned);
                    false
                }
                Next::Turn if self.goes_on(self.history.len() + self.asked.len()) => {
                    let hidden = self.turn()?;
                    // A rollback never goes to a token that was already taken.
                    if !self.asked.is_empty() {
                        self.read.push_back((hidden, self.session.cache.len()));
                    }
                    true
                }
                _ => break,
            };
            let token = readback::start(self.sampler.token());
            self.asked.push_back(Asked { token, turned });
            self.next = Next::Turn;
        }
        let Some(Asked { token, turned }) = self.asked.pop_front() else {
            return Ok(None);
        };
        let answer = token.await.map_err(GenerateError::Device)?;
        self.session.came_back();
        self.session.cost.steps += usize::from(turned);
        let token = answer.first().and_then(|&token| u32::try_from(token).ok());
        token.map(Some).ok_or(GenerateError::NotFinite)
    }

    /// Runs one decode step: reads the last sampled token on the device and samples the next one. Returns the hidden
    /// state in between.
    fn turn(&mut self) -> Result<Tensor<3>, GenerateError> {
        let banned = self.banned(1);
        self.recorded.take_if(|turn| turn.banned != banned);
        if self.recorded.is_none() {
            let (session, sampler) = (&mut self.session, &mut self.sampler);
            if self.live != Some(LIVE_TURNS) {
                self.live = self.live.map(|turns| turns + 1);
                return Ok(turn(session, sampler, banned)?);
            }
            let device = sampler.token().device();
            match Recorded::record(&device, || turn(session, sampler, banned)) {
                Ok((recorded, hidden)) => {
                    let hidden = hidden?;
                    // Recording does not execute: undo its cache position. The replay below adds it again.
                    session.cache.unrecorded();
                    self.recorded = Some(Turn {
                        recorded,
                        hidden,
                        banned,
                    });
                }
                Err(failed) => {
                    if let RecordError::Discarded(_) = failed {
                        session.cache.unrecorded();
                    }
                    self.live = None;
                    return Ok(turn(session, sampler, banned)?);
                }
            }
        }
        let Some(turn) = &mut self.recorded else {
            return Err(GenerateError::Empty);
        };
        // Safety: weights are borrowed, cache and sampler are fields; when `go_back` replaces one of their tensors, it
        // drops the recording.
        unsafe { turn.recorded.replay() }.map_err(|e| GenerateError::Device(format!("{e:?}")))?;
        self.session.cache.replayed();
        Ok(turn.hidden.clone())
    }

    /// Rolls back to the tokens that were taken and discards everything computed after them.
    fn go_back(&mut self) {
        self.asked.clear();
        self.read.clear();
        self.recorded = None;
        self.live = self.live.map(|_| 0);
        self.next = Next::Nothing;
        self.sampler.rewind(&self.history);
    }

    /// Whether another token may follow this many, including `<s>`.
    fn has_room(&self, tokens: usize) -> bool {
        tokens <= self.options.max_new_tokens
    }

    /// Whether the model may read the last of this many tokens to generate another.
    fn goes_on(&self, tokens: usize) -> bool {
        self.has_room(tokens) && self.session.cache.len() < self.session.cache.capacity()
    }

    /// The token to ban once the cache has `more` further positions: [IMG], if images are off or one would not fit in
    /// the cache.
    fn banned(&self, more: usize) -> Option<u32> {
        let length = self.session.cache.len() + more;
        let left = self.session.cache.capacity().saturating_sub(length);
        self.rules.pictures.and_then(|pictures| {
            let banned = match self.options.images {
                true => left < pictures.queries + 2,
                false => self.options.ban_images,
            };
            banned.then_some(pictures.img)
        })
    }

    /// Samples on the host, from logits that are read back and kept.
    async fn sample_here(&mut self) -> Result<Option<u32>, GenerateError> {
        let tokens = self.history.len();
        let hidden = match std::mem::replace(&mut self.next, Next::Turn) {
            Next::Sample(hidden) if self.has_room(tokens) => hidden,
            Next::Turn if self.goes_on(tokens) => {
                self.session.advance_tokens(&self.history[tokens - 1..])?
            }
            _ => return Ok(None),
        };
        let banned = self.banned(0);
        let mut logits = self.session.logits(hidden).await?;
        let processors = &self.options.processors;
        processors.apply(&self.history, self.rules.end(), &mut logits);
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
        let embedding = self.session.lm.regress(hidden); // [1, 1, D]
        embeddings.push(embedding.clone());
        let hidden = self.session.advance(embedding)?;
        if embeddings.len() < queries {
            let done = embeddings.len();
            self.state = State::Draw(hidden, pictures, embeddings);
            return Ok(TextEvent::Embedding(done, queries));
        }
        self.next = Next::Sample(self.session.advance_tokens(&[pictures.end_img])?);
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

/// Decode step: reads the last sampled token on the device and samples the next one.
fn turn(
    session: &mut Session<'_>,
    sampler: &mut Sampler,
    banned: Option<u32>,
) -> Result<Tensor<3>, CacheFull> {
    let hidden = session.run_ahead(sampler.token())?;
    sample(session, sampler, hidden.clone(), banned);
    Ok(hidden)
}

/// Samples a token from the logits of a hidden state.
fn sample(session: &Session<'_>, sampler: &mut Sampler, hidden: Tensor<3>, banned: Option<u32>) {
    let logits = session.lm.logits(hidden);
    sampler.sample(logits, banned.map(|token| token as usize));
}

#[cfg(test)]
mod tests;
