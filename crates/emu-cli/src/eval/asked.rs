//! A pack as the model of `emu_eval`'s tasks.

use std::sync::Arc;

use emu_eval::tasks::{Form, Media, MediaKind, Model, ModelError, Outcome, Part, Request};
use emu_kernels::burn::tensor::{Tensor, read_sync};
use emu_kernels::sample::Processors;
use emu_media::image::RgbImage;
use emu_model::generate::{self, BeamOptions, BeamSearch, GenerateError, Prompt, rank_losses};
use emu_model::prompt::{Conversation, Marked, PromptError, Prompter, Turn};
use emu_tokenizer::PromptText;

use crate::media;
use crate::runtime::Runtime;

/// A model under evaluation.
pub struct Asked<'a> {
    runtime: &'a Runtime,
    name: String,
}

/// Why a request has no answer: this request, or the model as a whole.
enum Failure {
    Request(String),
    Model(ModelError),
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Model(error.to_string().into())
}

impl From<PromptError> for Failure {
    fn from(error: PromptError) -> Self {
        Self::Request(error.to_string())
    }
}

impl From<GenerateError> for Failure {
    fn from(error: GenerateError) -> Self {
        match error {
            GenerateError::TooLong { .. } => Self::Request(error.to_string()),
            error => failed(error),
        }
    }
}

/// The outcome of a request, or the end of the run.
fn outcome<T>(result: Result<T, Failure>) -> Result<Outcome<T>, ModelError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Failure::Request(reason)) => Ok(Err(reason)),
        Err(Failure::Model(error)) => Err(error),
    }
}

/// The pictures of a medium: one, or the frames of a video.
fn pictures(medium: &Media) -> Result<Vec<RgbImage>, Failure> {
    let read = match medium.kind {
        MediaKind::Picture => media::picture(&medium.path).map(|picture| vec![picture]),
        MediaKind::Video => media::video(&medium.path).map(|video| video.frames),
    };
    read.map_err(|error| Failure::Request(format!("{error:#}")))
}

impl<'a> Asked<'a> {
    /// The pack of `runtime`, named by its manifest and that one's hash.
    pub fn new(runtime: &'a Runtime, name: String) -> Self {
        Self { runtime, name }
    }

    fn prompter(&self) -> Result<Prompter<'_>, Failure> {
        self.runtime.prompter().map_err(failed)
    }

    fn prompt(&self, request: &Request) -> Result<Prompt, Failure> {
        let prompter = self.prompter()?;
        if request.form == Form::Turn {
            let mut user = Marked::default();
            for part in &request.parts {
                match part {
                    Part::Template(text) | Part::Text(text) => user.say(text),
                    Part::Media(medium) => {
                        pictures(medium)?.into_iter().for_each(|p| user.show(p));
                    }
                }
            }
            let turn = Turn {
                user,
                answer: String::new(),
            };
            let conversation = Conversation {
                system: None,
                turns: vec![turn],
            };
            return Ok(prompter.conversation(&conversation)?);
        }
        let (mut text, mut shown) = (PromptText::default(), vec![]);
        for part in &request.parts {
            match part {
                Part::Template(words) => text.template(words),
                Part::Text(words) => text.plain(words),
                Part::Media(medium) => {
                    let pictures = pictures(medium)?;
                    text.pictures(pictures.len());
                    shown.extend(pictures);
                }
            }
        }
        Ok(prompter.ask(&text, &shown)?)
    }

    fn answer(&self, request: &Request) -> Result<String, Failure> {
        let prompt = self.prompt(request)?;
        let decoding = &request.decoding;
        if !decoding.allowed.is_empty() {
            return self.choose(&prompt, &decoding.allowed);
        }
        let runtime = self.runtime;
        let options = BeamOptions {
            beams: decoding.beams,
            max_new_tokens: decoding.max_new_tokens,
            length_penalty: decoding.length_penalty,
            processors: Processors {
                repetition_penalty: decoding.repetition_penalty,
                min_length: decoding.min_length,
                ..Default::default()
            },
            ban_images: true,
        };
        let emu = runtime.emu().map_err(failed)?;
        let search = BeamSearch::new(emu, runtime.emu_config(), &prompt, options)?;
        let found = read_sync(search.run())?;
        let best = found.first().map_or(&[][..], |best| &best.tokens);
        runtime.tokenizer.decode(best, true).map_err(failed)
    }

    /// The likeliest of the texts that are allowed, each with the end token. A beam search over their trie with as many beams
    /// as texts, and without length penalty, finds the same.
    fn choose(&self, prompt: &Prompt, allowed: &[String]) -> Result<String, Failure> {
        let end = self.runtime.emu_config().special.eos;
        let tokens = |text: &String| {
            let mut ids = self.runtime.tokenizer.encode_plain(text).map_err(failed)?;
            ids.push(end);
            Ok(ids)
        };
        let candidates = allowed
            .iter()
            .map(tokens)
            .collect::<Result<Vec<_>, Failure>>()?;
        let losses = self.losses(prompt, &candidates)?;
        let best = losses.iter().zip(allowed).min_by(|a, b| a.0.total_cmp(b.0));
        Ok(best.map_or(String::new(), |(_, text)| text.clone()))
    }

    fn losses(&self, prompt: &Prompt, candidates: &[Vec<u32>]) -> Result<Vec<f32>, Failure> {
        let runtime = self.runtime;
        let emu = runtime.emu().map_err(failed)?;
        let losses = rank_losses(emu, runtime.emu_config(), prompt, candidates);
        Ok(read_sync(losses)?)
    }

    fn scores(&self, request: &Request, candidates: &[Arc<str>]) -> Result<Vec<f64>, Failure> {
        let prompt = self.prompt(request)?;
        let score = |candidate: &Arc<str>| {
            let ids = self
                .runtime
                .tokenizer
                .encode_plain(candidate)
                .map_err(failed)?;
            // One at a time: the divisor is that of the candidate alone.
            let losses = self.losses(&prompt, &[ids])?;
            Ok(losses
                .first()
                .map_or(f64::NEG_INFINITY, |loss| -f64::from(*loss)))
        };
        candidates.iter().map(score).collect()
    }

    /// The mean of the visual embeddings, over those of a picture and over the frames of a video.
    fn feature(&self, medium: &Media) -> Result<Vec<f32>, Failure> {
        let pictures = pictures(medium)?;
        let embedded: Option<Tensor<3>> = self.prompter()?.embed(&pictures)?;
        let Some(embedded) = embedded else {
            return Err(Failure::Request("it has no picture".into()));
        };
        let [n, q, d] = embedded.dims();
        let mean = embedded.reshape([n * q, d]).mean_dim(0).reshape([1, 1, d]);
        Ok(read_sync(generate::read(mean))?)
    }
}

impl Model for Asked<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn generate(&mut self, requests: &[Request]) -> Result<Vec<Outcome<String>>, ModelError> {
        requests
            .iter()
            .map(|request| outcome(self.answer(request)))
            .collect()
    }

    fn rank(
        &mut self,
        request: &Request,
        candidates: &[Arc<str>],
    ) -> Result<Outcome<Vec<f64>>, ModelError> {
        outcome(self.scores(request, candidates))
    }

    fn features(&mut self, media: &[Media]) -> Result<Vec<Outcome<Vec<f32>>>, ModelError> {
        media
            .iter()
            .map(|medium| outcome(self.feature(medium)))
            .collect()
    }
}
