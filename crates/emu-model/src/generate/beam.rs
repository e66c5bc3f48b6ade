//! Beam search as in transformers 4.31: processors act on log-probabilities without renormalisation, the best
//! `2 · beams` continuations are considered (more with several end tokens), and a finished hypothesis scores
//! `sum / length^penalty`, where the length includes `<s>` but not `</s>`.

use burn::tensor::Tensor;
use emu_kernels::beams::{Continuation, Ranking, continuations};
use emu_kernels::readback;
use emu_kernels::sample::Processors;

use super::{Cost, GenerateError, Prompt, Rules, Session};
use crate::Emu;
use crate::config::EmuConfig;
use crate::lm::Lm;

/// Options of beam search.
#[derive(Clone, Debug)]
pub struct BeamOptions {
    /// Number of beams.
    pub beams: usize,
    /// Maximum number of new tokens.
    pub max_new_tokens: usize,
    /// Exponent of the length in a score; above 0 favours long sequences, below 0 short ones.
    pub length_penalty: f32,
    /// Logits processors.
    pub processors: Processors,
    /// Never emit [IMG]: beam search does not generate images.
    pub ban_images: bool,
}

impl Default for BeamOptions {
    /// The evaluation settings of the paper.
    fn default() -> Self {
        Self {
            beams: 5,
            max_new_tokens: 32,
            length_penalty: -1.0,
            processors: Processors::default(),
            ban_images: false,
        }
    }
}

/// A finished sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// Starts with `<s>`; ends with `</s>` if it was reached.
    pub tokens: Vec<u32>,
    /// Sum of log-probabilities over `length^penalty`.
    pub score: f32,
}

struct Beam {
    tokens: Vec<u32>,
    sum: f32,
}

/// Beam search over continuations of one prompt.
pub struct BeamSearch<'a> {
    session: Session<'a>,
    rules: Rules,
    options: BeamOptions,
    beams: Vec<Beam>,
    finished: Vec<Hypothesis>,
    hidden: Option<Tensor<3>>,
    made: usize,
}

impl<'a> BeamSearch<'a> {
    /// Prefills the prompt once for all beams.
    ///
    /// # Errors
    /// If an option is out of range, or the prompt exceeds the context or does not match its images.
    pub fn new(
        emu: &'a Emu,
        config: &'a EmuConfig,
        prompt: &Prompt,
        options: BeamOptions,
    ) -> Result<Self, GenerateError> {
        Self::over(&emu.lm, config.into(), prompt, options)
    }

    /// As [`BeamSearch::new`], over a language model and its [`Rules`].
    pub(crate) fn over(
        lm: &'a Lm,
        rules: Rules,
        prompt: &Prompt,
        mut options: BeamOptions,
    ) -> Result<Self, GenerateError> {
        options.validate()?;
        options.check_search()?;
        let n = options.beams;
        if considered(&rules, n) > rules.vocab {
            return Err(GenerateError::Option {
                option: "beams",
                value: n.to_string(),
                advice: "Give at most half as many as the vocabulary has tokens.",
            });
        }
        rules.limit(&mut options.processors);
        let reserve = options.max_new_tokens.min(rules.context);
        let (mut session, hidden) = Session::start(lm, prompt, &rules, 1, reserve)?;
        session.cache = session.cache.into_beams(n);
        let hidden = hidden.repeat_dim(0, n);
        // All beams start identical. Only the first one may continue, or they would stay identical.
        let beams = (0..n)
            .map(|i| Beam {
                tokens: vec![rules.bos],
                sum: if i == 0 { 0.0 } else { -1e9 },
            })
            .collect();
        Ok(Self {
            session,
            rules,
            options,
            beams,
            finished: vec![],
            hidden: Some(hidden),
            made: 0,
        })
    }

    /// The most likely unfinished sequence.
    pub fn best(&self) -> &[u32] {
        &self.beams[0].tokens
    }

    /// Cost so far.
    pub fn cost(&self) -> Cost {
        self.session.cost
    }

    /// Extends every beam by a token. Returns false when the search is over.
    ///
    /// # Errors
    /// If the device fails.
    pub async fn step(&mut self) -> Result<bool, GenerateError> {
        let Some(hidden) = self.hidden.take() else {
            return Ok(false);
        };
        if self.made >= self.options.max_new_tokens {
            self.close();
            return Ok(false);
        }
        self.made += 1;

        // 1. Rank continuations on the device; only the best are read back.
        let n = self.options.beams;
        let best = self.best_continuations(hidden).await?;

        // 2. Finished ones become hypotheses, the others continue.
        let length = self.beams[0].tokens.len();
        let mut next: Vec<(usize, u32, f32)> = Vec::with_capacity(n);
        for (rank, &Continuation { beam, token, sum }) in best.iter().enumerate() {
            if self.rules.ends.contains(&token) {
                // An ended continuation outside the top `beams` is dropped, not kept for later.
                if rank < n {
                    let mut tokens = self.beams[beam].tokens.clone();
                    tokens.push(token);
                    self.finish(tokens, sum, length);
                }
            } else {
                next.push((beam, token, sum));
            }
            if next.len() == n {
                break;
            }
        }

        // 3. Stop when no continuation can beat the worst hypothesis.
        let reachable = best[0].sum / ((length + 1) as f32).powf(self.options.length_penalty);
        if self.finished.len() == n && self.finished.iter().all(|h| h.score >= reachable) {
            return Ok(false);
        }
        let parents: Vec<usize> = next.iter().map(|&(beam, ..)| beam).collect();
        self.beams = next
            .iter()
            .map(|&(beam, token, sum)| {
                let mut tokens = self.beams[beam].tokens.clone();
                tokens.push(token);
                Beam { tokens, sum }
            })
            .collect();
        if self.made >= self.options.max_new_tokens || self.session.cache.left() == 0 {
            self.close();
            return Ok(false);
        }
        self.session.cache.reorder(&parents);
        let tokens: Vec<u32> = next.iter().map(|&(_, token, _)| token).collect();
        self.hidden = Some(self.session.advance_tokens(&tokens)?);
        Ok(true)
    }

    /// Ranks the continuations of all beams, given their last hidden states.
    async fn best_continuations(
        &self,
        hidden: Tensor<3>,
    ) -> Result<Vec<Continuation>, GenerateError> {
        let ranking = Ranking {
            processors: self.options.processors.clone(),
            end: self.rules.end(),
            banned: { self.rules.pictures.filter(|_| self.options.ban_images) }.map(|p| p.img),
            best: considered(&self.rules, self.options.beams),
        };
        let beams: Vec<(&[u32], f32)> = { self.beams.iter() }
            .map(|beam| (&beam.tokens[..], beam.sum))
            .collect();
        let logits = self.session.lm.logits(hidden);
        let [b, _, vocab] = logits.dims();
        let numbers = readback::start(ranking.rank(logits, &beams)).await;
        let numbers = numbers.map_err(GenerateError::Device)?;
        continuations(&numbers, [b, vocab]).ok_or(GenerateError::NotFinite)
    }

    fn finish(&mut self, tokens: Vec<u32>, sum: f32, length: usize) {
        let score = sum / (length as f32).powf(self.options.length_penalty);
        let n = self.options.beams;
        let worst = self
            .finished
            .iter()
            .map(|h| h.score)
            .fold(f32::INFINITY, f32::min);
        if self.finished.len() < n || score > worst {
            self.finished.push(Hypothesis { tokens, score });
            // Stable sort: of equal scores, the older one stays in front.
            self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
            self.finished.truncate(n);
        }
    }

    /// Turns the unfinished beams into hypotheses.
    fn close(&mut self) {
        for beam in std::mem::take(&mut self.beams) {
            let length = beam.tokens.len();
            self.finish(beam.tokens, beam.sum, length);
        }
    }

    /// Runs all remaining steps. Returns the hypotheses, best first.
    ///
    /// # Errors
    /// If the device fails.
    pub async fn run(mut self) -> Result<Vec<Hypothesis>, GenerateError> {
        while self.step().await? {}
        Ok(self.finished)
    }

    /// The hypotheses found so far, best first.
    pub fn into_found(self) -> Vec<Hypothesis> {
        self.finished
    }
}

/// Number of continuations to consider: enough for `beams` unfinished ones even if every beam also ends with every end
/// token.
fn considered(rules: &Rules, beams: usize) -> usize {
    beams.saturating_mul(1 + rules.ends.len().max(1))
}
