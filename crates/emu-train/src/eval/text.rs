//! Evaluates a model's text about held-out pictures.

use burn::tensor::{Device, Tensor};
use emu_kernels::random::{Philox, Stream};
use emu_model::generate::{Prompt, TextMachine, TextOptions};
use emu_model::{Emu, EmuConfig};

use super::{Item, Scores};
use crate::TrainError;
use crate::data::ShardDataset;
use crate::data::record::{Document, Part, Record, Scene};
use crate::stages::corpus::{Words, image_tensor, pixels};
use crate::stages::sequence::Composer;

/// A model under evaluation.
pub struct Subject<'a> {
    /// Encoder and LM, without autodiff.
    pub emu: &'a Emu,
    /// Its sizes.
    pub config: &'a EmuConfig,
    /// Its tokenizer.
    pub words: &'a Words,
    /// The device of the model.
    pub device: &'a Device,
}

/// Maximum number of tokens of an answer. No caption of the data is longer.
const ANSWER: usize = 32;
/// Stands for the answer to a request to draw.
const PICTURE: &str = "(a picture)";

impl Subject<'_> {
    pub(super) fn composer(&self) -> Composer<'_> {
        Composer::new(self.words, self.config.queries(), self.config.lm.context)
    }

    /// Pictures as the encoder's input, `[B, 3, H, W]`.
    ///
    /// # Errors
    /// If one cannot be resized.
    pub(super) fn pixels(
        &self,
        pictures: &[crate::data::Picture],
    ) -> Result<Tensor<4>, TrainError> {
        let size = self.config.vision.image_size;
        let values = pictures
            .iter()
            .map(|p| pixels(p, size, &self.config.image))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(image_tensor(values.concat(), size, self.device))
    }

    /// Embeddings of pictures, `[B, Q, D]`.
    fn see(&self, pictures: &[crate::data::Picture]) -> Result<Tensor<3>, TrainError> {
        Ok(self.emu.embed_images(self.pixels(pictures)?))
    }

    /// The greedy continuation of a prompt, up to the end, a picture or [`ANSWER`] tokens.
    fn answer(&self, ids: Vec<u32>, visual: Option<Tensor<3>>) -> Result<Vec<u32>, TrainError> {
        let options = TextOptions {
            max_new_tokens: ANSWER,
            images: true,
            ..Default::default()
        };
        let prompt = Prompt {
            visual,
            ..Prompt::text(ids)
        };
        let mut machine = TextMachine::new(self.emu, self.config, &prompt, options)
            .map_err(|e| TrainError::other(e.code(), e))?;
        loop {
            use emu_model::generate::TextEvent::{Done, Token};
            let event = burn::tensor::read_sync(machine.step())
                .map_err(|e| TrainError::other(e.code(), e))?;
            match event {
                Token(token) if token == self.config.special.img => break,
                Done(_) => break,
                _ => {}
            }
        }
        Ok(machine.sequence().get(1..).unwrap_or_default().to_vec())
    }

    /// Captions and answers about scenes. Kinds: `caption` (the whole text), `caption.objects` (both of two objects, in
    /// order), `name.alone`, `name.together`, `colour`, `count`, `relation`, `yesno`.
    ///
    /// # Errors
    /// If the data cannot be read or the model fails.
    pub fn scenes(
        &self,
        set: &ShardDataset,
        limit: usize,
        questions: usize,
    ) -> Result<Scores, TrainError> {
        let composer = self.composer();
        let mut scores = Scores::default();
        for found in set.samples(limit) {
            let (i, sample) = found?;
            let (Ok(Record::Scene(scene)), [picture, ..]) =
                (sample.record(), sample.images.as_slice())
            else {
                continue;
            };
            let visual = self.see(std::slice::from_ref(picture))?;
            let caption = self
                .words
                .decode(&self.answer(composer.prompt(None)?, Some(visual.clone()))?);
            let mut kinds = vec![("caption".to_owned(), (caption == scene.caption).into())];
            if let Some(right) = names_in_order(&caption, &scene) {
                kinds.push(("caption.objects".to_owned(), right.into()));
            }
            scores.add(Item {
                sample: i,
                picture: Some(0),
                question: String::new(),
                wanted: scene.caption.clone(),
                given: caption,
                scores: kinds,
            });
            let together = if scene.objects.len() == 1 {
                "alone"
            } else {
                "together"
            };
            let mut random = Philox::new(0, Stream::Data, i as u64);
            for qa in composer.questions(&scene.qa, questions, &mut random) {
                let said =
                    self.answer(composer.prompt(Some(&qa.question))?, Some(visual.clone()))?;
                let kind = if qa.kind == "name" {
                    format!("name.{together}")
                } else {
                    qa.kind.clone()
                };
                let given = self.words.decode(&said);
                let right = given == qa.answer;
                scores.add(Item {
                    sample: i,
                    picture: Some(0),
                    question: qa.question.clone(),
                    wanted: qa.answer.clone(),
                    given,
                    scores: vec![(kind, right.into())],
                });
            }
        }
        Ok(scores)
    }

    /// Completion of documents whose pattern is shown only by examples: `few` with all examples, `zero` with the last
    /// picture alone, and each by pattern.
    ///
    /// # Errors
    /// If the data cannot be read or the model fails.
    pub fn fewshot(&self, set: &ShardDataset, limit: usize) -> Result<Scores, TrainError> {
        let composer = self.composer();
        let mut scores = Scores::default();
        for found in set.samples(limit) {
            let (i, sample) = found?;
            let Ok(Record::Document(document)) = sample.record() else {
                continue;
            };
            let (Some(at), Some(last)) = (document.answer, sample.images.len().checked_sub(1))
            else {
                continue;
            };
            let Some(Part::Text(wanted)) = document.parts.get(at) else {
                continue;
            };
            let pattern = document.pattern.clone().unwrap_or_default();
            let prompts = [
                (
                    "few",
                    composer.before(&document, at)?,
                    self.see(&sample.images)?,
                ),
                (
                    "zero",
                    composer.prompt(None)?,
                    self.see(&sample.images[last..])?,
                ),
            ];
            for (name, ids, visual) in prompts {
                let given = self.words.decode(&self.answer(ids, Some(visual))?);
                let right = given == *wanted;
                scores.add(Item {
                    sample: i,
                    picture: Some(last),
                    question: format!("{name}-shot: {pattern}"),
                    wanted: wanted.clone(),
                    given,
                    scores: vec![
                        (name.to_owned(), right.into()),
                        (format!("{name}.{pattern}"), right.into()),
                    ],
                });
            }
        }
        Ok(scores)
    }

    /// Whether [IMG] follows requests to draw, without being forced: `follows`.
    ///
    /// # Errors
    /// If the data cannot be read or the model fails.
    pub fn follows(&self, set: &ShardDataset, limit: usize) -> Result<Scores, TrainError> {
        let composer = self.composer();
        let mut scores = Scores::default();
        for i in 0..set.len().min(limit) {
            let Ok(Record::Document(document)) = set.record(i) else {
                continue;
            };
            let Some(text) = request_of(&document) else {
                continue;
            };
            let said = self.answer(composer.request(text)?, None)?;
            let right = said.first() == Some(&self.config.special.img);
            scores.add(Item {
                sample: i,
                picture: None,
                question: text.to_owned(),
                wanted: PICTURE.to_owned(),
                given: match right {
                    true => PICTURE.to_owned(),
                    false => self.words.decode(&said),
                },
                scores: vec![("follows".to_owned(), right.into())],
            });
        }
        Ok(scores)
    }
}

/// The text of a request to draw.
pub fn request_of(document: &Document) -> Option<&str> {
    match document.parts.as_slice() {
        [Part::Text(text), Part::Image(_)] if document.task == "draw" => Some(text),
        _ => None,
    }
}

/// Whether a caption names both of two different objects in their order; `None` for any other scene.
fn names_in_order(caption: &str, scene: &Scene) -> Option<bool> {
    let [first, second] = scene.objects.as_slice() else {
        return None;
    };
    if first.name == second.name {
        return None;
    }
    let words: Vec<&str> = caption.split(|c: char| !c.is_alphanumeric()).collect();
    let place = |name: &str| words.iter().position(|w| *w == name);
    Some(matches!((place(&first.name), place(&second.name)), (Some(a), Some(b)) if a < b))
}
