//! Greedy decoding and sampling, with pictures where the model asks for them.

use burn::tensor::{Device, Tensor};
use emu_kernels::decode_session::DecodeSession;
use emu_kernels::random::{Philox, Stream};
use emu_kernels::sample::{Processors, Sampler, Sampling};
use emu_kernels::throttle::Work;

use super::{Asking, Cost, GenerateError, PictureRules, Prompt, Rules, Session, read, step_tokens};
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

/// A generation of one sequence.
///
/// On a GPU the model reads each token where it was sampled, while it is on its way back ([`DecodeSession`]). What was
/// computed beyond the end, or beyond the beginning of a picture, is dropped by truncating the cache.
pub struct TextMachine<'a> {
    lm: &'a Lm,
    decode: DecodeSession<'a, Lm>,
    cost: Cost,
    /// The prefill, until a result behind it came back.
    prefill: Option<Work>,
    rules: Rules,
    options: TextOptions,
    /// For sampling on the host.
    random: Philox,
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
        let sampler = sampler(&options, &rules, &history, &random, &hidden.device());
        Ok(Self {
            lm,
            decode: DecodeSession::new(lm, session.cache, sampler, hidden),
            cost: session.cost,
            prefill: session.prompt,
            rules,
            options,
            random,
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
        self.cost
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
                let (lm, cache) = (self.lm, self.decode.cache());
                let route = open.asking.route(lm, cache, open.hidden).await?;
                self.came_back();
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

    /// Reads another prompt in the place of the first, before anything was said.
    fn restart(&mut self, ids: Vec<u32>) -> Result<(), GenerateError> {
        let (rules, reserve) = (&self.rules, self.options.reserve(&self.rules));
        let prompt = Prompt::text(ids);
        let (session, hidden) = Session::start(self.lm, &prompt, rules, 1, reserve)?;
        let device = hidden.device();
        let sampler = sampler(&self.options, rules, &self.history, &self.random, &device);
        self.decode = DecodeSession::new(self.lm, session.cache, sampler, hidden);
        self.prefill = session.prompt;
        self.cost.prefills += session.cost.prefills;
        self.cost.prefill_tokens += session.cost.prefill_tokens;
        Ok(())
    }

    /// A result behind the prefill, and nothing else before it, has come back.
    fn came_back(&mut self) {
        if let Some(work) = self.prefill.take() {
            self.lm.throttle.completed(work);
        }
    }

    async fn say(&mut self) -> Result<TextEvent, GenerateError> {
        let (token, after) = match self.options.keep_logits {
            true => (self.sample_here().await?, None),
            false => {
                let (room, rules, options) = (self.room(), &self.rules, &self.options);
                let decoded = self.decode.take(room, |left| banned(rules, options, left));
                let decoded = decoded.await?;
                self.came_back();
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
        } else if let Some(pictures) = pictures.filter(|_| self.room() > 0 && !self.is_full()) {
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

    /// Tokens that may still be made.
    fn room(&self) -> usize {
        (self.options.max_new_tokens + 1).saturating_sub(self.history.len())
    }

    /// Whether the cache has no room for another position.
    fn is_full(&self) -> bool {
        self.decode.cache().len() >= self.decode.cache().capacity()
    }

    /// Samples a token on the host, and keeps the processed logits.
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
        self.came_back();
        if logits.iter().any(|v| v.is_nan()) {
            return Err(GenerateError::NotFinite);
        }
        let processors = &self.options.processors;
        processors.apply(&self.history, self.rules.end(), &mut logits);
        let cache = self.decode.cache();
        let left = cache.capacity().saturating_sub(cache.len());
        let banned = banned(&self.rules, &self.options, left);
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
        let embedding = self.lm.regress(hidden); // [1, 1, D]
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

/// A sampler for what follows `history`. It draws its random numbers from a copy of the generator.
fn sampler(
    options: &TextOptions,
    rules: &Rules,
    history: &[u32],
    random: &Philox,
    device: &Device,
) -> Sampler {
    Sampler::new(
        options.processors.clone(),
        options.sampling.clone(),
        rules.end(),
        history,
        options.max_new_tokens.min(rules.context),
        &mut random.clone(),
        device,
    )
}

/// The token that may not be sampled where so many positions of the cache are left: nobody would draw the picture that it
/// begins, or there would be no room for it.
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
