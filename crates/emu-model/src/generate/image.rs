//! Embeddings of a requested image: a prefill and one single-token step per embedding, or one pass of a request reader.

use burn::tensor::Tensor;

use super::{Asking, Cost, GenerateError, Prompt, Rules, Session};
use crate::Emu;
use crate::config::EmuConfig;

/// Regresses the visual embeddings that follow a prompt, one per step.
pub struct ImageEmbedder<'a> {
    session: Session<'a>,
    config: &'a EmuConfig,
    requests: Option<Asking<'a>>,
    seed: u64,
    embeddings: Vec<Tensor<3>>,
}

impl<'a> ImageEmbedder<'a> {
    /// Prefills the prompt, which does not contain the final [IMG].
    ///
    /// # Arguments
    /// - `seed`: chooses what the prompt leaves open, in models with a request reader
    ///
    /// # Errors
    /// If the model generates no images, or the prompt exceeds the context or does not match its images.
    pub fn new(
        emu: &'a Emu,
        config: &'a EmuConfig,
        prompt: &Prompt,
        seed: u64,
    ) -> Result<Self, GenerateError> {
        let requests = Asking::of(emu, config, prompt);
        let room = match (&requests, &emu.lm.stu_regress_head) {
            (Some(_), _) => 0,
            (None, Some(_)) => config.drawn(),
            (None, None) => return Err(GenerateError::DrawsNothing),
        };
        let (session, _) = Session::start(&emu.lm, prompt, &Rules::from(config), room, room)?;
        Ok(Self {
            session,
            config,
            requests,
            seed,
            embeddings: Vec::with_capacity(room),
        })
    }

    /// Number of embeddings so far.
    pub fn done(&self) -> usize {
        self.embeddings.len()
    }

    /// Number of embeddings of an image.
    pub fn total(&self) -> usize {
        self.config.drawn()
    }

    /// Cost so far.
    pub fn cost(&self) -> Cost {
        self.session.cost
    }

    /// Computes the next embedding, or all of them. Returns all, `[1, Q, D]`, with the last one.
    ///
    /// # Errors
    /// If the cache is full, or the device fails.
    pub async fn step(&mut self) -> Result<Option<Tensor<3>>, GenerateError> {
        if let Some(asking) = &self.requests {
            let Session { lm, cache, .. } = &self.session;
            let wanted = asking.wanted(lm, cache, self.seed).await?;
            self.session.came_back();
            return Ok(Some(wanted.condition));
        }
        if self.done() < self.total() {
            // [IMG] yields the first embedding, each embedding the next one.
            let hidden = match self.embeddings.last() {
                None => self.session.advance_tokens(&[self.config.special.img])?,
                Some(last) => self.session.advance(last.clone())?,
            };
            self.embeddings.push(self.session.lm.regress(hidden)?);
        }
        let all = self.done() == self.total();
        Ok(all.then(|| Tensor::cat(self.embeddings.clone(), 1)))
    }

    /// Runs all remaining steps.
    ///
    /// # Errors
    /// As [`ImageEmbedder::step`].
    pub async fn run(mut self) -> Result<(Tensor<3>, Cost), GenerateError> {
        loop {
            if let Some(embeddings) = self.step().await? {
                return Ok((embeddings, self.cost()));
            }
        }
    }
}
