//! Joint training of encoder, causal former and LM with the unified objective, and its answer-only variant for
//! instruction tuning.
//!
//! Both read every kind of record but drawings: pairs, interleaved documents, videos, storyboards (which are documents),
//! conversations, scenes.

use std::path::PathBuf;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use emu_kernels::random::{Philox, Stream};
use emu_model::config::AdapterConfig;
use emu_model::{Emu, EmuConfig};
use emu_tokenizer::names;
use serde::Deserialize;

use super::batches::Batches;
use super::corpus::{Place, Visited, Words, image_tensor, open_held_out, pixels};
use super::sequence::{Composer, Sequence, frames, pad};
use super::sizes::{emu_config, preset};
use super::vision::{Shown, Vocabulary, contents};
use crate::data::record::{Conversation, Pair, Record, Role, Video};
use crate::data::{Sample, ShardDataset};
use crate::eval::text::Subject;
use crate::objectives::collapse::{CollapseMonitor, relative_variance};
use crate::objectives::unified::{UnifiedOptions, unified};
use crate::stage::Source;
use crate::{Stage, StepContext, StepLoss, TrainConfig, TrainError};

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
    /// Share of the pairs and videos whose pictures come before the caption.
    #[serde(default = "half")]
    picture_first: f64,
    /// Frames of a video, drawn at random from those that are stored.
    #[serde(default = "eight")]
    frames: usize,
    /// Regress the pictures before a caption too, as in the paper.
    #[serde(default)]
    every_picture: bool,
    /// Learn [IMG] as a token, so that the model starts pictures by itself. The paper's masks exclude it.
    #[serde(default = "yes")]
    predict_boi: bool,
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
    /// Train on answers only (instruction tuning). Of conversations, only the answers are ever targets.
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

impl Options {
    /// The model with the adapters of the options, if there are any.
    fn adapted(&self, mut config: EmuConfig) -> Result<EmuConfig, TrainError> {
        if let Some(adapter) = &self.adapter {
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
        Ok(config)
    }
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
fn half() -> f64 {
    0.5
}
fn eight() -> usize {
    8
}
fn yes() -> bool {
    true
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
    /// The first picture of each sample that has one.
    firsts: Vec<usize>,
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
    batches: Batches<Batch>,
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
        let mut config = options.adapted(emu_config(train, &words)?)?;
        if !(0.0..=1.0).contains(&options.picture_first) {
            let message = format!("{} is not in 0..=1", options.picture_first);
            return Err(TrainError::config("options.picture_first", message));
        }
        if options.frames == 0 {
            return Err(TrainError::config(
                "options.frames",
                "it must be at least 1",
            ));
        }
        let vocabulary = match &options.concepts {
            Some(concepts) => Some(Arc::new(Vocabulary::new(concepts, &words, &config)?)),
            None => None,
        };
        let maker = Maker {
            words: words.clone(),
            vocabulary: vocabulary.clone(),
            config: config.clone(),
            options: options.clone(),
            seed: train.seed,
        };
        let size = train.batch;
        let batches = Batches::open(train, move |corpus, index| {
            let prepare = |sample: &Sample, place: Place| maker.prepare(sample, place);
            let (prepared, visited) = corpus.batch_placed(index, size, prepare)?;
            Ok(maker.batch(prepared, visited))
        })?;
        let talks = |record: &Record| matches!(record, Record::Conversation(_));
        if config.prompts.answered.is_empty() && batches.corpus().has(talks) {
            // What training puts between the turns.
            config.prompts.answered = names::EOS.into();
        }
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

    /// Sizes of the model that a configuration trains, and frames of a video. Opens no data, and the tokenizer only if
    /// the sizes depend on it.
    ///
    /// # Errors
    /// If the configuration cannot be used.
    pub fn plan(train: &TrainConfig) -> Result<(EmuConfig, usize), TrainError> {
        let options: Options = train.options()?;
        let sizes = match preset(train)? {
            Some(sizes) => sizes,
            None => emu_config(train, &Words::open(&options.tokenizer)?)?,
        };
        Ok((options.adapted(sizes)?, options.frames))
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
    options: Options,
    seed: u64,
}

impl Maker {
    fn composer(&self) -> Composer<'_> {
        Composer::new(&self.words, self.config.queries(), self.config.lm.context)
            .with_relations(self.options.relations)
            .with_every_picture(self.options.every_picture)
    }

    /// The sequence of a sample, and the pictures that it refers to.
    fn prepare(&self, sample: &Sample, place: Place) -> Result<Prepared, TrainError> {
        let (composer, options) = (self.composer(), &self.options);
        let mut random = Philox::new(self.seed, Stream::Data, place.index);
        let context = self.config.lm.context;
        let most = place.tokens.map_or(context, |tokens| tokens.min(context));
        let record = sample.record()?;
        let pictures = sample.pictures(&record)?;
        // Which pictures stay, by their index in the record.
        let mut shown: Vec<usize> = (0..pictures.len()).collect();
        let mut sequence = match &record {
            Record::Scene(scene) => composer.scene(scene, options.questions, &mut random)?,
            Record::Document(document) => {
                let mut sequence = composer.document(document)?;
                if place.tokens.is_some() {
                    shown.truncate(composer.cut(&mut sequence, most));
                }
                sequence
            }
            Record::Pair(Pair { caption }) | Record::Video(Video { caption, .. })
                if caption.trim().is_empty() =>
            {
                return Err(sample.refuse("its caption is empty").into());
            }
            Record::Pair(Pair { caption }) => {
                let first = f64::from(random.uniform()) < options.picture_first;
                composer.captioned(caption, 1, first)?
            }
            Record::Video(Video { offsets, .. }) if offsets.len() != pictures.len() => {
                let (found, named) = (pictures.len(), offsets.len());
                let reason = format!("it has {found} frames, and its record names {named}");
                return Err(sample.refuse(reason).into());
            }
            Record::Video(Video { caption, .. }) => {
                let first = f64::from(random.uniform()) < options.picture_first;
                shown = frames(pictures.len(), options.frames, &mut random);
                composer.captioned(caption, shown.len(), first)?
            }
            Record::Conversation(conversation) => {
                let prompts = &self.config.prompts;
                self.check_prompts()?;
                if !alternates(conversation) {
                    let reason = "its turns are not those of a user and an assistant by turns";
                    return Err(sample.refuse(reason).into());
                }
                let (sequence, left) = composer.conversation(conversation, prompts, most)?;
                shown.truncate(left);
                sequence
            }
            Record::Drawing(_) => {
                return Err(sample
                    .refuse("it is a drawing, which has no text; leave drawings out of this stage")
                    .into());
            }
        };
        let tokens = sequence.ids.len();
        if tokens > most {
            let reason =
                format!("it has {tokens} tokens with its pictures, and at most {most} are read");
            return Err(sample.refuse(reason).into());
        }
        if options.answers_only && !matches!(record, Record::Conversation(_)) {
            composer.only_answers(&mut sequence);
        }
        if !sequence.wanted.contains(&true) {
            let reason = match options.answers_only {
                true => "it has no answer, and this run learns from answers only",
                false => "nothing in it is to be predicted",
            };
            return Err(sample.refuse(reason).into());
        }
        let (size, image) = (self.config.vision.image_size, &self.config.image);
        let pixels = { shown.into_iter().filter_map(|i| pictures.get(i)) }
            .map(|picture| pixels(picture, size, image).map_err(|e| sample.refuse(e)))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Prepared {
            record,
            sequence,
            pixels,
        })
    }

    /// Checks that the model's prompts mark the turns of a conversation.
    fn check_prompts(&self) -> Result<(), TrainError> {
        let prompts = &self.config.prompts;
        if prompts.assistant.trim().is_empty() {
            return Err(TrainError::config(
                "init.preset",
                "the prompts of this model mark no turns, which conversations need; take emu-mini, emu-14b-instruct or a pack",
            ));
        }
        let marked =
            prompts.user.contains(names::USER) || prompts.assistant.contains(names::ASSISTANT);
        let special = &self.words.special;
        if marked && (special.user.is_none() || special.assistant.is_none()) {
            return Err(TrainError::config(
                "options.tokenizer",
                "it has no tokens [USER] and [ASSISTANT], which the prompts of this model need",
            ));
        }
        Ok(())
    }

    fn batch(&self, prepared: Vec<Prepared>, visited: Visited) -> Batch {
        let composer = self.composer();
        let mut batch = Batch {
            sequences: vec![],
            pixels: vec![],
            shown: Shown::default(),
            drawn: vec![],
            firsts: vec![],
            visited,
        };
        for Prepared {
            record,
            sequence,
            pixels,
        } in prepared
        {
            let first = batch.drawn.len();
            if !pixels.is_empty() {
                batch.firsts.push(first);
            }
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

/// Whether the turns are a user's and an assistant's by turns, and end with an answer.
fn alternates(conversation: &Conversation) -> bool {
    let turns = &conversation.turns;
    let roles = [Role::User, Role::Assistant].into_iter().cycle();
    !turns.is_empty()
        && turns.len().is_multiple_of(2)
        && turns
            .iter()
            .zip(roles)
            .all(|(turn, role)| turn.role == role)
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

    fn samples(&self, source: Source) -> Option<usize> {
        self.batches.samples(source)
    }

    fn loss(&mut self, model: &Emu, context: &StepContext) -> Result<StepLoss, TrainError> {
        let batch = self.batches.get(context)?;
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
            predict_boi: self.options.predict_boi,
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
        // The frames of one video are alike, so one picture of each sample is compared.
        if let (Some(visual), 2..) = (visual, batch.firsts.len()) {
            let firsts: Vec<i32> = batch.firsts.iter().map(|&i| i as i32).collect();
            let count = firsts.len();
            let firsts: Tensor<1, Int> =
                Tensor::from_data(TensorData::new(firsts, [count]), device);
            terms.push((
                "variance",
                relative_variance(visual.detach().select(0, firsts)),
            ));
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
