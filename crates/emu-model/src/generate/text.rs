//! Greedy decoding and sampling, with images when the model emits them.

use std::collections::VecDeque;

use burn::tensor::Tensor;
use emu_kernels::decode_session::DecodeSession;
use emu_kernels::random::{Philox, Stream};
use emu_kernels::sample::{Logprobs, Processors, Sampler, Sampling};

use super::prefix::{Kind, Position, PrefixCache, Sequence};
use super::{
    Asking, Cost, GenerateError, LastTurn, PictureRules, Prefill, Prompt, Rules, Session, read,
    step_tokens,
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
    /// Log-probabilities of every token and of this many of the most likely ones, for [`TextMachine::next_logprobs`]. The logits
    /// of each token are then read back, and sampling is on the host.
    pub logprobs: Option<usize>,
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
            logprobs: None,
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
    /// These tokens are generated and not emitted yet; the state after them follows.
    Held(VecDeque<u32>, Box<Self>),
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
    /// See [`Prompt::last`].
    last: Option<Box<LastTurn>>,
    /// See [`Prompt::claim`].
    claim: Option<Vec<u32>>,
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
    /// Log-probabilities of tokens that may not be emitted yet, oldest first.
    logprobs: VecDeque<Logprobs>,
    /// Which prompt is continued.
    kind: Kind,
    /// Positions of the prompt.
    positions: Vec<Position>,
    /// Number of tokens in `history` that the cache holds one after the other: up to the first [IMG], if there is one.
    in_order: Option<usize>,
    /// Kept sequences of the other prompts; `None` if none is kept.
    prefix: Option<PrefixCache>,
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
        Self::of_model(emu, config, prompt, options, None)
    }

    /// As [`TextMachine::new`], from the longest prefix that the prompt shares with sequences of earlier calls. The machine
    /// takes them; [`TextMachine::into_prefix`] gives them back, with this call's own.
    ///
    /// # Errors
    /// As [`TextMachine::new`]. The sequences then stay.
    pub fn with_prefix(
        emu: &'a Emu,
        config: &'a EmuConfig,
        prompt: &Prompt,
        options: TextOptions,
        prefix: &mut PrefixCache,
    ) -> Result<Self, GenerateError> {
        Self::of_model(emu, config, prompt, options, Some(prefix))
    }

    fn of_model(
        emu: &'a Emu,
        config: &'a EmuConfig,
        prompt: &Prompt,
        mut options: TextOptions,
        prefix: Option<&mut PrefixCache>,
    ) -> Result<Self, GenerateError> {
        if emu.persona.is_some() {
            // A soft prompt can make the end token the likeliest answer. `<s>` counts.
            let least = &mut options.processors.min_length;
            *least = (*least).max(2);
        }
        let draws = options.images;
        let (alone, last, claim) = (
            prompt.alone.clone(),
            prompt.last.clone(),
            prompt.claim.clone(),
        );
        let asking = Asking::of(emu, config, prompt).filter(|_| draws || alone.is_some());
        let mut machine = Self::over(&emu.lm, config.into(), prompt, options, prefix)?;
        if let (Some(asking), Some(hidden)) = (asking, machine.decode.hidden()) {
            machine.state = State::Open(Open {
                asking,
                hidden: hidden.clone(),
                draws,
                alone,
                last,
                claim,
            });
        }
        Ok(machine)
    }

    /// As [`TextMachine::new`] or [`TextMachine::with_prefix`], over a language model and its [`Rules`].
    pub(crate) fn over(
        lm: &'a Lm,
        rules: Rules,
        prompt: &Prompt,
        mut options: TextOptions,
        mut prefix: Option<&mut PrefixCache>,
    ) -> Result<Self, GenerateError> {
        options.validate()?;
        options.check_vocabulary(rules.vocab)?;
        rules.limit(&mut options.processors);
        if options.images && lm.stu_regress_head.is_none() {
            (options.images, options.ban_images) = (false, true);
        }
        let (mut none, kind) = (None, Kind::Conversation);
        let kept = match &mut prefix {
            Some(prefix) => prefix.slot(kind),
            None => &mut none,
        };
        let reserve = reserve(&rules, &options);
        let (session, hidden) = Session::resume(lm, prompt, &rules, 1, reserve, kept)?;
        let prefix = prefix.map(std::mem::take);
        let prefilled = (session, hidden, kind);
        Ok(Self::prefilled(lm, rules, options, prefilled, prefix))
    }

    /// As [`TextMachine::over`], with a prefilled prompt and validated options.
    fn prefilled(
        lm: &'a Lm,
        rules: Rules,
        options: TextOptions,
        (session, hidden, kind): (Session<'a>, Tensor<3>, Kind),
        prefix: Option<PrefixCache>,
    ) -> Self {
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
        Self {
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
            logprobs: VecDeque::new(),
            kind,
            positions: session.positions,
            in_order: None,
            prefix,
        }
    }

    /// Ends the generation. Returns the sequences for later calls, that of this call up to what was generated; none after an
    /// error.
    pub fn into_prefix(mut self) -> PrefixCache {
        let Some(mut prefix) = self.prefix.take() else {
            return PrefixCache::default();
        };
        let kind = self.kind;
        *prefix.slot(kind) = Some(self.into_sequence());
        prefix
    }

    /// The prompt and, unless activations are quantized ([`Lm::rounds`]), the tokens that were generated and read, with their
    /// keys and values.
    fn into_sequence(self) -> Sequence {
        let mut positions = self.positions;
        if !self.lm.rounds() {
            let in_order = self.in_order.unwrap_or(self.history.len());
            let generated = self.history.iter().take(in_order).skip(1);
            positions.extend(generated.map(|token| Position::Token(*token)));
        }
        Sequence::new(positions, self.decode.into_cache())
    }

    /// Keeps a prompt that is not answered.
    fn keep(&mut self, kind: Kind, session: Session<'a>) {
        if let Some(prefix) = &mut self.prefix {
            *prefix.slot(kind) = Some(session.into_sequence());
        }
    }

    /// `<s>` and all tokens generated so far.
    pub fn sequence(&self) -> &[u32] {
        &self.history
    }

    /// Processed logits of the last token, if `keep_logits` is set.
    pub fn processed(&self) -> Option<&[f32]> {
        self.processed.as_deref()
    }

    /// Log-probabilities of the next token that [`TextMachine::step`] emitted, if `logprobs` is set: call it once after each
    /// [`TextEvent::Token`]. `None` for an end token, and for one that begins an image.
    pub fn next_logprobs(&mut self) -> Option<Logprobs> {
        self.logprobs.pop_front()
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
        let event = self.advance().await;
        if event.is_err() {
            // What was computed may be wrong.
            self.prefix = None;
        }
        event
    }

    async fn advance(&mut self) -> Result<TextEvent, GenerateError> {
        match std::mem::replace(&mut self.state, State::Done(Finish::Length)) {
            State::Done(finish) => {
                self.state = State::Done(finish);
                Ok(TextEvent::Done(finish))
            }
            State::Open(open) => {
                let (lm, cache) = (self.lm, self.decode.cache());
                let mut route = open.asking.route(lm, cache, open.hidden).await?;
                self.prefill.came_back(self.lm);
                let mut by_itself = None;
                if let (Route::Persona { .. }, Some(last)) = (route, &open.last) {
                    let kind = Kind::LastTurn;
                    let (mut session, hidden) =
                        self.prefill(&last.prompt, last.after_talk, kind)?;
                    let asking = open.asking;
                    route = asking.route(lm, &session.cache, hidden.clone()).await?;
                    session.came_back();
                    match (route, last.after_talk) {
                        (Route::Persona { .. }, true) => by_itself = Some((session, hidden)),
                        _ => self.keep(kind, session),
                    }
                }
                match (route, open.alone, by_itself) {
                    (Route::Picture, ..) if open.draws => {
                        let (cache, seed) = (self.decode.cache(), self.options.seed);
                        let wanted = open.asking.wanted(lm, cache, seed).await?;
                        self.decode.stop();
                        self.state = State::Say(wanted.said);
                        return Ok(TextEvent::Image(wanted.condition));
                    }
                    (Route::Alone, Some(ids), _) => {
                        let kind = Kind::Alone;
                        let (session, hidden) = self.prefill(&Prompt::text(ids), true, kind)?;
                        self.restart(session, hidden, kind);
                    }
                    (Route::Persona { .. }, _, Some((session, hidden))) => {
                        self.restart(session, hidden, Kind::LastTurn);
                    }
                    _ => {}
                }
                match (route, open.claim) {
                    (Route::Persona { close: true }, Some(claim)) if open.draws => {
                        self.unless_claimed(open.asking, &claim).await
                    }
                    _ => self.say().await,
                }
            }
            State::Held(mut tokens, next) => match tokens.pop_front() {
                Some(token) => {
                    self.hold(tokens, *next);
                    Ok(TextEvent::Token(token))
                }
                // Never empty.
                None => self.say().await,
            },
            State::Say(words) => {
                self.state = State::Done(Finish::End);
                Ok(TextEvent::Words(words))
            }
            State::Text => self.say().await,
            State::Draw(hidden, pictures, made) => self.draw(hidden, pictures, made),
        }
    }

    /// Starts the answer, unless it claims a drawing: then the requested image is the answer. The soft prompt was
    /// trained to say what was drawn, so the claim means a request that the trigger missed.
    async fn unless_claimed(
        &mut self,
        asking: Asking<'a>,
        claim: &[u32],
    ) -> Result<TextEvent, GenerateError> {
        // Read before the answer extends the cache.
        let (cache, seed) = (self.decode.cache(), self.options.seed);
        let wanted = asking.wanted(self.lm, cache, seed).await?;
        let mut said = VecDeque::new();
        let mut ended = None;
        for expected in claim {
            match self.say().await? {
                TextEvent::Token(token) => {
                    said.push_back(token);
                    if token != *expected {
                        break;
                    }
                }
                other => {
                    ended = Some(other);
                    break;
                }
            }
        }
        if said.iter().eq(claim) {
            self.decode.stop();
            self.logprobs.clear();
            self.state = State::Say(wanted.said);
            return Ok(TextEvent::Image(wanted.condition));
        }
        match (said.pop_front(), ended) {
            (None, Some(ended)) => Ok(ended),
            (first, _) => {
                let next = std::mem::replace(&mut self.state, State::Text);
                self.hold(said, next);
                Ok(first.map_or(TextEvent::Done(Finish::Length), TextEvent::Token))
            }
        }
    }

    /// Emits these tokens before the state continues.
    fn hold(&mut self, tokens: VecDeque<u32>, next: State<'a>) {
        self.state = match tokens.is_empty() {
            true => next,
            false => State::Held(tokens, Box::new(next)),
        };
    }

    /// Prefills another prompt, with room for an answer if it may be continued.
    fn prefill(
        &mut self,
        prompt: &Prompt,
        continued: bool,
        kind: Kind,
    ) -> Result<(Session<'a>, Tensor<3>), GenerateError> {
        let reserve = match continued {
            true => reserve(&self.rules, &self.options),
            false => 0,
        };
        let mut none = None;
        let kept = match &mut self.prefix {
            Some(prefix) => prefix.slot(kind),
            None => &mut none,
        };
        let (session, hidden) = Session::resume(self.lm, prompt, &self.rules, 1, reserve, kept)?;
        // Cached tokens are told of the conversation alone.
        self.cost.prefills += session.cost.prefills;
        self.cost.prefill_tokens += session.cost.prefill_tokens;
        Ok((session, hidden))
    }

    /// Replaces the prompt by one of [`TextMachine::prefill`], before anything was generated.
    fn restart(&mut self, session: Session<'a>, hidden: Tensor<3>, kind: Kind) {
        let (cost, rules, options) = (self.cost, self.rules.clone(), self.options.clone());
        let (prefix, prefilled) = (self.prefix.take(), (session, hidden, kind));
        let restarted = Self::prefilled(self.lm, rules, options, prefilled, prefix);
        let before = std::mem::replace(self, restarted);
        self.cost = cost;
        if let Some(prefix) = &mut self.prefix {
            let kind = before.kind;
            *prefix.slot(kind) = Some(before.into_sequence());
        }
    }

    async fn say(&mut self) -> Result<TextEvent, GenerateError> {
        let on_host = self.options.keep_logits || self.options.logprobs.is_some();
        let (token, after) = match on_host {
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
            self.logprobs.pop_back();
            State::Done(Finish::End)
        } else if let Some(pictures) =
            pictures.filter(|_| self.room() > 0 && self.decode.cache().left() > 0)
        {
            self.cost.steps += 1;
            self.logprobs.pop_back();
            self.in_order.get_or_insert(self.history.len());
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

    /// Samples a token on the host, and keeps what the options want of its logits.
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
        let raw = self.options.logprobs.map(|most| (logits.clone(), most));
        let processors = &self.options.processors;
        processors.apply(&self.history, self.rules.end(), &mut logits);
        let banned = banned(&self.rules, &self.options, self.decode.cache().left());
        if let Some(score) = banned.and_then(|token| logits.get_mut(token as usize)) {
            *score = f32::NEG_INFINITY;
        }
        let sampling = &self.options.sampling;
        let token = sampling.sample(&logits, self.random.uniform());
        if let Some((raw, most)) = raw {
            self.logprobs.push_back(Logprobs::of(&raw, token, most));
        }
        self.processed = self.options.keep_logits.then_some(logits);
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

/// Positions of the KV cache to reserve for an answer.
fn reserve(rules: &Rules, options: &TextOptions) -> usize {
    match options.images {
        true => rules.context,
        false => options.max_new_tokens.min(rules.context),
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
