//! Greedy decoding and sampling, with pictures where the model asks for them.

use burn::tensor::Tensor;
use emu_kernels::random::{Philox, Stream};
use emu_kernels::sample::{Processors, Sampling};

use super::{Cost, GenerateError, PictureRules, Prompt, Rules, Session};
use crate::Emu;
use crate::config::EmuConfig;
use crate::lm::Lm;

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
    /// When the model emits [IMG]: regress a picture's embeddings and go on.
    pub images: bool,
    /// Never emit [IMG] where nobody draws (`images` is off).
    pub ban_images: bool,
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
            keep_logits: false,
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
    /// Nothing follows.
    Done(Finish),
}

enum State {
    /// The logits of this hidden state choose the next token.
    Choose(Tensor<3>),
    /// A picture is being made; this hidden state gives its next embedding.
    Draw(Tensor<3>, PictureRules, Vec<Tensor<3>>),
    Done(Finish),
}

/// A generation of one sequence.
pub struct TextMachine<'a> {
    session: Session<'a>,
    rules: Rules,
    options: TextOptions,
    random: Philox,
    /// `<s>` and what was made since.
    history: Vec<u32>,
    state: State,
    processed: Option<Vec<f32>>,
}

impl<'a> TextMachine<'a> {
    /// Runs the prompt.
    ///
    /// # Errors
    /// Where the prompt does not fit the context or its pictures.
    pub fn new(
        emu: &'a Emu,
        config: &'a EmuConfig,
        prompt: &Prompt,
        options: TextOptions,
    ) -> Result<Self, GenerateError> {
        Self::over(&emu.lm, config.into(), prompt, options)
    }

    /// As [`TextMachine::new`], over a language model by its rules.
    pub(crate) fn over(
        lm: &'a Lm,
        rules: Rules,
        prompt: &Prompt,
        options: TextOptions,
    ) -> Result<Self, GenerateError> {
        if options.sampling.temperature < 0.0 || !options.sampling.temperature.is_finite() {
            return Err(GenerateError::Option {
                option: "temperature",
                value: options.sampling.temperature.to_string(),
                advice: "Give 0 for the most likely token, or a positive number.",
            });
        }
        if !(options.sampling.top_p > 0.0 && options.sampling.top_p <= 1.0) {
            return Err(GenerateError::Option {
                option: "top-p",
                value: options.sampling.top_p.to_string(),
                advice: "Give a number above 0 and at most 1.",
            });
        }
        let reserve = match options.images {
            true => rules.context,
            false => options.max_new_tokens.min(rules.context),
        };
        let (session, hidden) = Session::start(lm, prompt, &rules, 1, reserve)?;
        let random = Philox::new(options.seed, Stream::Tokens, 0);
        let history = vec![rules.bos];
        Ok(Self {
            session,
            rules,
            options,
            random,
            history,
            state: State::Choose(hidden),
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
            State::Choose(hidden) => self.choose(hidden).await,
            State::Draw(hidden, pictures, made) => self.draw(hidden, pictures, made),
        }
    }

    async fn choose(&mut self, hidden: Tensor<3>) -> Result<TextEvent, GenerateError> {
        if self.history.len() > self.options.max_new_tokens {
            return Ok(TextEvent::Done(Finish::Length));
        }
        let left = self.session.cache.capacity() - self.session.cache.len();
        // Nobody would draw it, or there is no room for it.
        let banned = self.rules.pictures.and_then(|pictures| {
            let banned = match self.options.images {
                true => left < pictures.queries + 2,
                false => self.options.ban_images,
            };
            banned.then_some(pictures.img)
        });
        let TextOptions {
            processors,
            sampling,
            keep_logits,
            ..
        } = &self.options;
        let greedy = sampling.temperature <= 0.0 && processors.are_idle(self.history.len());
        let token = if greedy && !keep_logits {
            self.session.most_likely(hidden, banned).await?
        } else {
            let mut logits = self.session.logits(hidden).await?.remove(0);
            processors.apply(&self.history, self.rules.end(), &mut logits);
            if let Some(score) = banned.and_then(|token| logits.get_mut(token as usize)) {
                *score = f32::NEG_INFINITY;
            }
            let token = sampling.choose(&logits, &mut self.random);
            self.processed = keep_logits.then_some(logits);
            token
        };
        self.history.push(token);
        if self.rules.ends.contains(&token) {
            self.state = State::Done(Finish::End);
        } else if left > 0 && self.history.len() <= self.options.max_new_tokens {
            let hidden = self.session.advance_tokens(&[token]);
            self.state = match self.rules.pictures {
                Some(pictures) if self.options.images && token == pictures.img => {
                    State::Draw(hidden, pictures, Vec::with_capacity(pictures.queries))
                }
                _ => State::Choose(hidden),
            };
        }
        Ok(TextEvent::Token(token))
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
        let hidden = self.session.advance(embedding);
        if embeddings.len() < queries {
            let done = embeddings.len();
            self.state = State::Draw(hidden, pictures, embeddings);
            return Ok(TextEvent::Embedding(done, queries));
        }
        let hidden = self.session.advance_tokens(&[pictures.end_img]);
        self.state = State::Choose(hidden);
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
