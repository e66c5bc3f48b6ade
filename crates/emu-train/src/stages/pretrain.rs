//! Joint training of encoder, causal former and LM with the unified objective, and its answer-only variant for
//! instruction tuning.

use std::path::PathBuf;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use emu_kernels::random::{Philox, Stream};
use emu_model::config::AdapterConfig;
use emu_model::{Emu, EmuConfig};
use serde::Deserialize;

use super::corpus::{Corpus, Visited, Words, image_tensor, open_held_out, pixels};
use super::emu_config;
use super::sequence::{Composer, Sequence, pad};
use super::vision::{Shown, Vocabulary, contents};
use crate::data::record::{Pair, Record};
use crate::data::{Sample, ShardDataset};
use crate::eval::text::Subject;
use crate::objectives::collapse::{CollapseMonitor, relative_variance};
use crate::objectives::unified::{UnifiedOptions, unified};
use crate::{Prefetch, Stage, StepContext, StepLoss, TrainConfig, TrainError};

/// The stage's own settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// `tokenizer.json` of the data.
    tokenizer: PathBuf,
    /// `concepts.json` of the data, for the additional contrastive losses.
    #[serde(default)]
    concepts: Option<PathBuf>,
    /// Number of questions per scene.
    #[serde(default = "questions")]
    questions: usize,
    /// Number of additional relation questions per pair of objects.
    #[serde(default)]
    relations: usize,
    /// Weight of the regression loss.
    #[serde(default = "one")]
    visual_weight: f64,
    /// Weight of the contrastive losses of whole pictures.
    #[serde(default)]
    contrast_weight: f64,
    /// Weight of the contrastive loss of positions.
    #[serde(default)]
    place_weight: f64,
    /// Maximum standard deviation of noise on the embeddings that the LM reads during regression, in units of their
    /// root mean square. It makes the LM draw from the text, not only from the embeddings before.
    #[serde(default)]
    input_noise: f64,
    /// Train on answers only (instruction tuning).
    #[serde(default)]
    answers_only: bool,
    /// LoRA adapters on the LM's attention. The learning rates select what else is trained: `*.lora` names the
    /// adapters.
    #[serde(default)]
    adapter: Option<Adapter>,
    /// Folders of held-out scenes for evaluation.
    #[serde(default)]
    evaluate: Vec<PathBuf>,
    /// Number of scenes to evaluate in each folder.
    #[serde(default = "some")]
    evaluate_samples: usize,
    /// The run ends with an error if the relative variance of the embeddings across pictures stays below this value.
    #[serde(default = "floor")]
    collapse_floor: f32,
}

/// Sizes and dropout of the LoRA adapters.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Adapter {
    rank: usize,
    alpha: f64,
    /// Dropout probability of the adapters' inputs.
    #[serde(default)]
    dropout: f64,
}

fn questions() -> usize {
    4
}
fn one() -> f64 {
    1.0
}
fn some() -> usize {
    96
}
fn floor() -> f32 {
    0.02
}

struct Batch {
    sequences: Vec<Sequence>,
    pixels: Vec<f32>,
    shown: Shown,
    /// For each picture: whether it is regressed.
    drawn: Vec<bool>,
    visited: Visited,
}

/// A sample prepared for a batch.
struct Prepared {
    record: Record,
    sequence: Sequence,
    /// Pixels of each picture.
    pixels: Vec<Vec<f32>>,
}

/// The stages `pretrain` and `instruct`.
pub struct Pretrain {
    name: String,
    config: EmuConfig,
    options: Options,
    words: Arc<Words>,
    vocabulary: Option<Arc<Vocabulary>>,
    batches: Prefetch<Batch>,
    held_out: Vec<(String, ShardDataset)>,
    monitor: CollapseMonitor,
}

impl Pretrain {
    /// Opens the data.
    ///
    /// # Errors
    /// If the configuration or the data cannot be used.
    pub fn new(train: &TrainConfig) -> Result<Self, TrainError> {
        let options: Options = train.options()?;
        let words = Arc::new(Words::open(&options.tokenizer)?);
        let mut config = emu_config(train, &words)?;
        if let Some(adapter) = &options.adapter {
            if adapter.rank == 0 || !(0.0..1.0).contains(&adapter.dropout) {
                return Err(TrainError::config(
                    "options.adapter",
                    "rank must be at least 1, dropout in 0..1",
                ));
            }
            config.adapter = Some(AdapterConfig {
                rank: adapter.rank,
                alpha: adapter.alpha,
            });
        }
        let vocabulary = match &options.concepts {
            Some(concepts) => Some(Arc::new(Vocabulary::new(concepts, &words, &config)?)),
            None => None,
        };
        let corpus = Corpus::open(train)?;
        let maker = Maker {
            words: words.clone(),
            vocabulary: vocabulary.clone(),
            config: config.clone(),
            questions: options.questions,
            relations: options.relations,
            answers_only: options.answers_only,
        };
        let (size, seed) = (train.batch, train.seed);
        let batches = Prefetch::new(4, move |index| {
            let mut random = Philox::new(seed, Stream::Data, index);
            let prepare = |sample: &Sample| maker.prepare(sample, &mut random);
            let (prepared, visited) = corpus.batch(index, size, prepare)?;
            Ok(maker.batch(prepared, visited))
        });
        let held_out = open_held_out(&options.evaluate)?;
        let monitor = CollapseMonitor::new(options.collapse_floor, 200);
        Ok(Self {
            name: train.stage.clone(),
            config,
            options,
            words,
            vocabulary,
            batches,
            held_out,
            monitor,
        })
    }

    /// Dropout probability of the adapters' inputs.
    pub fn lora_dropout(&self) -> f64 {
        self.options.adapter.as_ref().map_or(0.0, |a| a.dropout)
    }

    /// Sizes of the trained model.
    pub fn model_config(&self) -> &EmuConfig {
        &self.config
    }
}

/// Prepares samples for batches, on any thread.
struct Maker {
    words: Arc<Words>,
    vocabulary: Option<Arc<Vocabulary>>,
    config: EmuConfig,
    questions: usize,
    relations: usize,
    answers_only: bool,
}

impl Maker {
    fn composer(&self) -> Composer<'_> {
        Composer::new(&self.words, self.config.queries(), self.config.lm.context)
            .with_relations(self.relations)
    }

    /// The sequence of a sample, and the pictures that it refers to.
    fn prepare(&self, sample: &Sample, random: &mut Philox) -> Result<Prepared, TrainError> {
        let composer = self.composer();
        let record = sample.record()?;
        let mut sequence = match &record {
            Record::Scene(scene) => composer.scene(scene, self.questions, random)?,
            Record::Document(document) => composer.document(document)?,
            Record::Pair(Pair { caption }) if caption.trim().is_empty() => {
                return Err(sample.refuse("its caption is empty").into());
            }
            Record::Pair(Pair { caption }) => composer.pair(caption, random.below(2) == 0)?,
            Record::Drawing(_) => {
                return Err(sample
                    .refuse("it is a drawing, which has no text; leave drawings out of this stage")
                    .into());
            }
        };
        let (tokens, context) = (sequence.ids.len(), self.config.lm.context);
        if tokens > context {
            let reason =
                format!("it has {tokens} tokens with its pictures, and the model reads {context}");
            return Err(sample.refuse(reason).into());
        }
        if self.answers_only {
            composer.only_answers(&mut sequence);
        }
        let (size, image) = (self.config.vision.image_size, &self.config.image);
        let pixels = sample
            .pictures(&record)?
            .into_iter()
            .map(|picture| pixels(picture, size, image).map_err(|e| sample.refuse(e)))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Prepared {
            record,
            sequence,
            pixels,
        })
    }

    fn batch(&self, prepared: Vec<Prepared>, visited: Visited) -> Batch {
        let composer = self.composer();
        let mut batch = Batch {
            sequences: vec![],
            pixels: vec![],
            shown: Shown::default(),
            drawn: vec![],
            visited,
        };
        for Prepared {
            record,
            sequence,
            pixels,
        } in prepared
        {
            let first = batch.drawn.len();
            for (i, pixels) in pixels.into_iter().enumerate() {
                batch.pixels.extend(pixels);
                batch.drawn.push(composer.is_drawn(&sequence, i));
            }
            if let (Some(vocabulary), Some((objects, background))) =
                (&self.vocabulary, contents(&record))
            {
                vocabulary.note(&mut batch.shown, first, objects, Some(background));
            }
            batch.sequences.push(sequence);
        }
        batch
    }
}

/// Noise for the embeddings of regressed pictures, `[P, Q, D]`. Each picture has its own random strength.
fn noise(
    drawn: &[bool],
    q: usize,
    d: usize,
    strength: f64,
    random: &mut Philox,
    device: &Device,
) -> Tensor<3> {
    let mut values = vec![0.0; drawn.len() * q * d];
    for (picture, _) in drawn.iter().enumerate().filter(|(_, drawn)| **drawn) {
        let std = random.uniform() * strength as f32;
        let normals = random.normals(q * d);
        for (value, normal) in values[picture * q * d..].iter_mut().zip(normals) {
            *value = normal * std;
        }
    }
    Tensor::from_data(TensorData::new(values, [drawn.len(), q, d]), device)
}

impl Stage for Pretrain {
    type Model = Emu;

    fn name(&self) -> &str {
        &self.name
    }

    fn loss(&mut self, model: &Emu, context: &StepContext) -> Result<StepLoss, TrainError> {
        let batch = self.batches.get(context.batch_index())?;
        let device = &context.device;
        let count = batch.visited.keys.len();

        // 1. embed the pictures
        let visual = (!batch.drawn.is_empty()).then(|| {
            model.embed_images(image_tensor(
                batch.pixels,
                self.config.vision.image_size,
                device,
            ))
        });
        let seen = visual
            .clone()
            .filter(|_| self.options.input_noise > 0.0 && batch.drawn.contains(&true))
            .map(|v| {
                let [_, q, d] = v.dims();
                let mut random = context.random(Stream::TrainingNoise);
                let rms = v.clone().detach().square().mean().sqrt();
                v + noise(
                    &batch.drawn,
                    q,
                    d,
                    self.options.input_noise,
                    &mut random,
                    device,
                ) * rms.unsqueeze()
            });

        // 2. the unified objective
        let sequences = pad(batch.sequences, self.config.special.pad, device);
        let options = UnifiedOptions {
            predict_boi: true,
            ..Default::default()
        };
        let losses = unified(
            model,
            &self.config.special,
            &sequences,
            visual.clone(),
            seen,
            &options,
        )
        .map_err(|e| TrainError::other(e.code(), e))?;
        let mut total = losses.total(self.options.visual_weight).ok_or_else(|| {
            TrainError::Stage("A batch has nothing to predict. Check the data.".into())
        })?;
        let mut terms = vec![];
        terms.extend(losses.text.clone().map(|t| ("text", t)));
        terms.extend(losses.visual.clone().map(|t| ("visual", t)));

        // 3. contrastive losses and collapse detection
        if let (Some(vocabulary), Some(visual)) = (&self.vocabulary, &visual) {
            let weights = [
                self.options.contrast_weight,
                self.options.place_weight,
                self.options.contrast_weight,
            ];
            let contrast = vocabulary.losses(model, visual.clone(), &batch.shown);
            for ((name, loss), weight) in ["names", "places", "colours"]
                .into_iter()
                .zip(contrast)
                .zip(weights)
            {
                if let (Some(loss), true) = (loss, weight > 0.0) {
                    terms.push((name, loss.clone()));
                    total = total + loss.mul_scalar(weight);
                }
            }
        }
        if let Some(visual) = visual.filter(|v| v.dims()[0] > 1) {
            terms.push(("variance", relative_variance(visual.detach())));
        }
        let mut loss = StepLoss::new(total, count).with_visited(batch.visited);
        for (name, term) in terms {
            loss = loss.with_term(name, term);
        }
        Ok(loss)
    }

    fn monitor(&mut self, step: u64, terms: &[(String, f32)]) -> Result<(), TrainError> {
        match terms.iter().find(|(name, _)| name == "variance") {
            Some((_, variance)) if self.monitor.collapsed(*variance) => {
                Err(TrainError::Collapsed {
                    step,
                    reason: format!(
                        "the embeddings of different pictures have become alike (relative variance {variance:.4})"
                    ),
                })
            }
            _ => Ok(()),
        }
    }

    fn evaluate(&mut self, model: &Emu, _step: u64) -> Result<Vec<(String, f32)>, TrainError> {
        let device = model
            .devices()
            .first()
            .cloned()
            .unwrap_or_else(Device::flex);
        let mut figures = vec![];
        for (name, set) in &self.held_out {
            let subject = Subject {
                emu: model,
                config: &self.config,
                words: &self.words,
                device: &device,
            };
            let scores = subject.scenes(set, self.options.evaluate_samples, 5)?;
            figures.extend(
                scores
                    .shares()
                    .map(|(kind, share)| (format!("{name}.{kind}"), share)),
            );
        }
        Ok(figures)
    }
}
