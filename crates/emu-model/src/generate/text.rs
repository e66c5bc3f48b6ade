//! Greedy decoding and sampling, with pictures where the model asks for them.

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

/// How text is generated.
#[derive(Clone, Debug)]
pub struct TextOptions {
    /// Tokens at most.
    pub max_new_tokens: usize,
    /// What changes the logits.
    pub processors: Processors,
    /// How a token is chosen.
    pub sampling: Sampling,
    /// For sampling.
    pub seed: u64,
    /// When the model emits [IMG]: regress a picture's embeddings and go on. Where a reader finds requests for pictures: answer
    /// one with the picture. A model that draws nothing emits none then.
    pub images: bool,
    /// Never emit [IMG] where nobody draws (`images` is off).
    pub ban_images: bool,
    /// Go on after tokens that end an answer, as for measuring.
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
    /// Positions of the cache behind a prompt.
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
    /// The model said `</s>`, or another token that ends an answer.
    End,
    /// As many tokens as were asked for, or as the context holds.
    Length,
}

/// What a step brought.
// One is moved per step: its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum TextEvent {
    /// A token of text, or the end token.
    Token(u32),
    /// One of a picture's visual embeddings was regressed: how many of how many.
    Embedding(usize, usize),
    /// All of them: `[1, Q, D]`.
    Image(Tensor<3>),
    /// Words about a picture that was read from a request. They are the answer, and no tokens.
    Words(String),
    /// Nothing follows.
    Done(Finish),
}

// One of each lives in a machine: their sizes do not matter.
#[allow(clippy::large_enum_variant)]
enum State<'a> {
    /// Nothing yet, and it is open who answers.
    Open(Open<'a>),
    /// Text.
    Text,
    /// A picture is being made; this hidden state gives its next embedding.
    Draw(Tensor<3>, PictureRules, Vec<Tensor<3>>),
    /// A picture is drawn from a request; these words follow.
    Say(String),
    Done(Finish),
}

/// A conversation that was read, and for which it is open who answers.
struct Open<'a> {
    asking: Asking<'a>,
    /// The prompt's last hidden state.
    hidden: Tensor<3>,
    /// Whether a picture may be the answer.
    draws: bool,
    /// See [`Prompt::alone`].
    alone: Option<Vec<u32>>,
}

/// Where the next token comes from.
#[allow(clippy::large_enum_variant)]
enum Next {
    /// The logits of this hidden state.
    Sample(Tensor<3>),
    /// A turn of the model, which reads the last token where it is.
    Turn,
    /// Nothing follows.
    Nothing,
}

/// A token that was asked for.
struct Asked {
    token: Readback,
    /// Whether it took a turn of the model.
    turned: bool,
}

/// A turn of the model that was recorded.
struct Turn {
    recorded: Recorded,
    /// What it writes: the hidden state after the token that it reads.
    hidden: Tensor<3>,
    /// The token that it may not choose.
    banned: Option<u32>,
}

/// Tokens on their way at once, where the device computes beside us: while one comes back, it computes the next.
const DEPTH: usize = 2;
// All replays of a turn write the same hidden state. What is kept of it for going back (`TextMachine::read`) is that of the
// newest token; a second one on its way behind it would have written over what the first left.
const _: () = assert!(DEPTH <= 2, "replays share one hidden state");
/// Turns before one is recorded: kernels are compiled by then, and memory is where it stays.
const LIVE_TURNS: usize = 2;

/// A generation of one sequence.
///
/// On a GPU it does not wait for a token to go on: the model reads it where it was chosen, and it comes back meanwhile. What
/// was computed beyond the end, or beyond the begin of a picture, is forgotten by setting back the length of the cache.
pub struct TextMachine<'a> {
    /// Dropped before what it was recorded with.
    recorded: Option<Turn>,
    /// Turns so far that were not recorded; absent where recording failed.
    live: Option<usize>,
    session: Session<'a>,
    rules: Rules,
    options: TextOptions,
    random: Philox,
    sampler: Sampler,
    /// Asked for and not yet taken, oldest first.
    asked: VecDeque<Asked>,
    /// Of tokens that the model has read before they were taken here: the hidden state after each, and the positions in the
    /// cache with it.
    read: VecDeque<(Tensor<3>, usize)>,
    next: Next,
    /// How many tokens may be asked for at once.
    depth: usize,
    /// `<s>` and what was made since.
    history: Vec<u32>,
    state: State<'a>,
    processed: Option<Vec<f32>>,
}

impl<'a> TextMachine<'a> {
    /// Runs the prompt.
    ///
    /// # Errors
    /// Where an option is out of range, or the prompt does not fit the context or its pictures.
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

    /// As [`TextMachine::new`], over a language model by its rules.
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

    /// `<s>` and everything made so far.
    pub fn sequence(&self) -> &[u32] {
        &self.history
    }

    /// The processed logits of the last chosen token, where they are kept.
    pub fn processed(&self) -> Option<&[f32]> {
        self.processed.as_deref()
    }

    /// What it cost so far.
    pub fn cost(&self) -> Cost {
        self.session.cost
    }

    /// Does the next piece of work.
    ///
    /// # Errors
    /// Where the device fails.
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

    /// Reads another prompt in the place of the first, before anything was said.
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
            // Nothing goes on from here.
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

    /// The next token that was asked for; so many are asked for that the device has work meanwhile. None where nothing follows.
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
                    // Those that were taken are not set back to.
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

    /// The model reads the last token that was chosen, where it is, and chooses the next. Returns the hidden state in between.
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
                    // It will run below, as every time after.
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
        // Safety: weights are borrowed, cache and sampler are fields; where one of their tensors is replaced, in `go_back`, the
        // recording is dropped.
        unsafe { turn.recorded.replay() }.map_err(|e| GenerateError::Device(format!("{e:?}")))?;
        self.session.cache.replayed();
        Ok(turn.hidden.clone())
    }

    /// Goes on after the tokens that were taken, whatever was computed since.
    fn go_back(&mut self) {
        self.asked.clear();
        self.read.clear();
        self.recorded = None;
        self.live = self.live.map(|_| 0);
        self.next = Next::Nothing;
        self.sampler.rewind(&self.history);
    }

    /// Whether another token may follow so many, `<s>` counted.
    fn has_room(&self, tokens: usize) -> bool {
        tokens <= self.options.max_new_tokens
    }

    /// Whether the model may read the last of so many tokens to find another.
    fn goes_on(&self, tokens: usize) -> bool {
        self.has_room(tokens) && self.session.cache.len() < self.session.cache.capacity()
    }

    /// The token that may not come once the cache is so many positions longer: nobody would draw it, or there would be no
    /// room for it.
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

    /// Chooses a token here, from logits that are brought here and kept.
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

    /// Runs to the end. Returns the sequence, `<s>` first.
    ///
    /// # Errors
    /// Where the device fails.
    pub async fn run(mut self) -> Result<Vec<u32>, GenerateError> {
        loop {
            if let TextEvent::Done(_) = self.step().await? {
                return Ok(self.history);
            }
        }
    }
}

/// The model reads the last token that was chosen and chooses the next.
fn turn(
    session: &mut Session<'_>,
    sampler: &mut Sampler,
    banned: Option<u32>,
) -> Result<Tensor<3>, CacheFull> {
    let hidden = session.run_ahead(sampler.token())?;
    sample(session, sampler, hidden.clone(), banned);
    Ok(hidden)
}

/// Chooses a token by the logits of a hidden state.
fn sample(session: &Session<'_>, sampler: &mut Sampler, hidden: Tensor<3>, banned: Option<u32>) {
    let logits = session.lm.logits(hidden);
    sampler.sample(logits, banned.map(|token| token as usize));
}

#[cfg(test)]
mod tests;
