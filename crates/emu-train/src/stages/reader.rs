//! The language side of drawing on a frozen language model: a network that reads from its attention values which
//! picture a conversation requests ([`emu_model::reader`]), and a logistic regression that decides whether it requests
//! one.
//!
//! There is no backward pass through the language model: its states are computed once ([`super::states`]).

use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor, TensorData};
use emu_data::emoji::ConceptList;
use emu_kernels::random::{Philox, Stream};
use emu_model::TextModel;
use emu_model::diffusion::decoder::Normalisation;
use emu_model::reader::{Reader, ReaderConfig, TriggerConfig};
use emu_model::spelling::{SpellingConfig, distances};
use serde::Deserialize;

use super::decoder::{floats, moments};
use super::readings::{Read, Reading, open_soft_prompt};
use super::speller::{Speller, open_lm};
use super::states::{Frozen, sequence, system_turn};
use super::trigger::{Classes, TriggerOptions, write};
use crate::data::record::Layout;
use crate::data::requests::{
    Changes, Conversations, Lists, Ordinary, Persona, Set, Synonyms, Wordings,
};
use crate::{RunOptions, Stage, StepContext, StepLoss, TrainConfig, TrainError, TrainEvent};

/// The stage's own settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// GGUF file of the language model.
    lm: PathBuf,
    /// A soft prompt (`persona.safetensors` of its run) before conversations: half of the conversations are read after
    /// it, half after the model's own system message. If absent, all are read after the system message.
    #[serde(default)]
    soft_prompt: Option<PathBuf>,
    /// List of concepts that can be drawn.
    concepts: PathBuf,
    /// Seed of the pictures' data set, so that the same combinations are held out.
    pictures_seed: u64,
    /// Wordings of requests, and other prompts.
    wordings: PathBuf,
    /// Synonyms of the concepts' names.
    synonyms: PathBuf,
    /// Wordings of changes to a picture.
    changes: PathBuf,
    /// Questions about the model.
    persona: PathBuf,
    /// Settings for the choice between answering with and without the soft prompt. If absent, the soft prompt is always
    /// used.
    #[serde(default)]
    ordinary: Option<OrdinaryOptions>,
    /// Number of training requests.
    requests: usize,
    /// Number of other training conversations.
    others: usize,
    /// Number of requests with held-out wordings for evaluation.
    evaluate: usize,
    /// Layers of the language model whose attention values are read.
    layers: Vec<usize>,
    /// Maximum number of tokens read per conversation.
    window: usize,
    /// Width of the reader.
    width: usize,
    /// Number of the reader's attention heads.
    heads: usize,
    /// Number of the reader's layers.
    depth: usize,
    /// Dropout probability of the values in training.
    #[serde(default)]
    dropout: f64,
    /// Settings of the trigger, which decides whether a picture is requested.
    trigger: TriggerOptions,
    /// Format of spelled pictures.
    spelling: SpellingConfig,
}

/// Settings of the second regression: whether the language model answers without the soft prompt.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrdinaryOptions {
    /// Prompts to answer without the soft prompt, and prompts addressed to the model.
    prompts: PathBuf,
    /// Number of training conversations of each kind.
    count: usize,
    /// Fit settings, as for the trigger. A false alarm is a prompt addressed to the model that is answered without the
    /// soft prompt.
    rule: TriggerOptions,
}

/// The stage.
pub struct ReaderStage {
    config: ReaderConfig,
    sizes: emu_model::config::LmConfig,
    speller: Speller,
    /// The slots of every drawable name, preceded by those of no object.
    names: Vec<Vec<Option<u32>>>,
    train: Read,
    /// Indices of the training conversations, sorted by length.
    by_length: Vec<usize>,
    held_out: Vec<Read>,
    trigger: TriggerConfig,
    alone: Option<TriggerConfig>,
    batch: usize,
    dropout: f64,
}

/// Reads the lists of the configuration.
fn lists(options: &Options) -> Result<(Lists, ConceptList), TrainError> {
    let concepts = ConceptList::read(&options.concepts)?;
    let drawn = concepts.read.iter().filter(|c| c.drawn);
    let drawn: Vec<&str> = drawn.map(|c| c.name.as_str()).collect();
    let lists = Lists {
        wordings: Wordings::read(&options.wordings)?,
        synonyms: Synonyms::read(&options.synonyms, &drawn)?,
        changes: Changes::read(&options.changes)?,
        persona: Persona::read(&options.persona)?,
        ordinary: { options.ordinary.as_ref() }
            .map(|ordinary| Ordinary::read(&ordinary.prompts))
            .transpose()?,
    };
    Ok((lists, concepts))
}

impl ReaderStage {
    /// Reads the lists, runs the language model on the conversations, and fits the logistic regression, which is
    /// written into the run's folder and evaluated at once.
    ///
    /// # Errors
    /// If the configuration, the lists or the language model cannot be used, or a file cannot be written.
    pub fn new(
        train: &TrainConfig,
        device: &Device,
        run: &mut RunOptions,
    ) -> Result<Self, TrainError> {
        let options: Options = train.options()?;
        let model = open_lm(&options.lm, device)?;
        Self::over(&options, &model, train, run)
    }

    fn over(
        options: &Options,
        model: &TextModel,
        train: &TrainConfig,
        run: &mut RunOptions,
    ) -> Result<Self, TrainError> {
        let mut config = ReaderConfig {
            layers: options.layers.clone(),
            window: options.window,
            width: options.width,
            heads: options.heads,
            depth: options.depth,
            spelling: options.spelling,
            inputs: None,
            outputs: None,
        };
        let check = |config: &ReaderConfig| {
            let checked = config.validate(&model.config.lm);
            checked.map_err(|e| TrainError::config("options", e.to_string()))
        };
        check(&config)?;
        let counts = [("requests", options.requests), ("others", options.others)];
        let ordinary = options.ordinary.iter();
        let ordinary = ordinary.map(|options| ("ordinary.count", options.count));
        if let Some((name, _)) = counts.into_iter().chain(ordinary).find(|(_, n)| *n == 0) {
            let key = format!("options.{name}");
            return Err(TrainError::config(key, "it must be at least 1"));
        }
        let (lists, concepts) = lists(options)?;

        // 1. the token embeddings of the language model, the same as in the stage `brush`
        let names = concepts.all().map(|c| c.name.clone());
        let colours = concepts.colours.iter().map(|c| c.name.clone());
        let words = Layout::WORDS.map(String::from).into_iter();
        let words = words.chain(names).chain(colours);
        let table = &model.lm.embed_tokens;
        let speller = Speller::new(options.spelling, table, &model.tokenizer, words)?;

        // 2. the states of the conversations
        let start = |start| Frozen {
            model,
            start,
            layers: &options.layers,
            window: options.window,
        };
        let own = model.lm.embed(sequence(model, &system_turn(model)?));
        let mut starts = vec![start(own)];
        if let Some(path) = &options.soft_prompt {
            starts.push(start(open_soft_prompt(path, model)?.begin(1)));
        }
        let reading = Reading {
            made: Conversations::new(lists, &concepts, options.pictures_seed, train.seed)?,
            speller,
            folder: train.out.join("states"),
        };
        let of = |set, name, count| reading.read(set, name, count, &starts);
        // Evaluation uses the same start as inference.
        let last = &starts[starts.len() - 1..];
        let measure = |set, name, count| reading.read(set, name, count, last);
        let requests = of(Set::Train, "requests", options.requests)?;
        let others = of(Set::Others, "others", options.others)?;
        let once = |set| reading.made.once(set);
        let held_out = vec![
            measure(Set::HeldOut, "held_out", options.evaluate)?,
            measure(Set::Synonyms, "synonyms", once(Set::Synonyms))?,
            measure(Set::Changes, "changes", 5 * once(Set::Changes))?,
        ];
        let quiet = measure(
            Set::OthersHeldOut,
            "others_held_out",
            once(Set::OthersHeldOut),
        )?;

        // 3. the trigger: whether a picture is requested
        let mut fitted = vec![Classes {
            name: "trigger",
            rule: &options.trigger,
            yes: vec![(&requests, 1)],
            no: vec![(&others, 1)],
            found: held_out.iter().collect(),
            quiet: vec![&quiet],
        }];

        // 4. whether the language model answers without the soft prompt
        let alone = { options.ordinary.as_ref() }
            .map(|options| {
                let count = options.count;
                Ok::<_, TrainError>((
                    options,
                    of(Set::Ordinary, "ordinary", count)?,
                    of(Set::Own, "own", count)?,
                    measure(
                        Set::OrdinaryHeldOut,
                        "ordinary_held_out",
                        once(Set::OrdinaryHeldOut),
                    )?,
                    measure(Set::OwnHeldOut, "own_held_out", once(Set::OwnHeldOut))?,
                ))
            })
            .transpose()?;
        if let Some((options, ordinary, own, ordinary_held_out, own_held_out)) = &alone {
            // About as many requests as prompts addressed to the model.
            let every = requests.asked.len().div_ceil(own.asked.len().max(1));
            fitted.push(Classes {
                name: "alone",
                rule: &options.rule,
                yes: vec![(ordinary, 1)],
                no: vec![(own, 1), (&requests, every)],
                found: vec![ordinary_held_out],
                quiet: [own_held_out].into_iter().chain(&held_out).collect(),
            });
        }
        let figures = write(&fitted, &train.out)?;
        if let Some(on_event) = &mut run.on_event {
            on_event(TrainEvent::Evaluated {
                step: 0,
                figures: &figures,
            });
        }

        // 5. the reader: normalisation of its inputs and outputs
        let inputs: Vec<f32> = requests.states.values.iter().map(|v| v.to_f32()).collect();
        let (mean, std) = moments(&inputs, requests.states.inputs);
        config.inputs = Some(Normalisation { mean, std });
        let Reading { made, speller, .. } = reading;
        config.outputs = Some(speller.normalisation.clone());
        check(&config)?;
        let nothing: Vec<Option<u32>> = vec![None; options.spelling.tokens];
        let drawn = made.names().map(|name| {
            let slots = speller.slots([name], None, None);
            slots[..options.spelling.tokens].to_vec()
        });
        Ok(Self {
            names: [nothing].into_iter().chain(drawn).collect(),
            config,
            sizes: model.config.lm.clone(),
            speller,
            by_length: {
                let mut all: Vec<usize> = (0..requests.asked.len()).collect();
                all.sort_by_key(|&i| requests.states.lengths[i]);
                all
            },
            train: requests,
            held_out,
            batch: train.batch,
            dropout: options.dropout,
            trigger: options.trigger.model_config(),
            alone: { options.ordinary.as_ref() }.map(|o| o.rule.model_config()),
        })
    }

    /// Sizes of the reader, and the normalisation of its inputs and outputs.
    pub fn model_config(&self) -> &ReaderConfig {
        &self.config
    }

    /// Inputs of the trigger.
    pub fn trigger_config(&self) -> &TriggerConfig {
        &self.trigger
    }

    /// Inputs of the regression for answers without the soft prompt.
    pub fn alone_config(&self) -> Option<&TriggerConfig> {
        self.alone.as_ref()
    }

    /// A new reader with random weights.
    pub fn init(&self, device: &Device) -> Reader {
        self.config.init(&self.sizes, device)
    }

    /// Values of some conversations, padded in front, and the padding mask.
    fn values(
        &self,
        read: &Read,
        chosen: &[usize],
        device: &Device,
    ) -> (Tensor<3>, Tensor<4, Bool>) {
        let (b, f) = (chosen.len(), read.states.inputs);
        let lengths = chosen.iter().map(|&i| read.states.lengths[i]);
        let t = lengths.clone().max().unwrap_or(1).max(1);
        let mut values = vec![0.0f32; b * t * f];
        let mut padding = vec![false; b * t];
        for (row, (&i, length)) in chosen.iter().zip(lengths).enumerate() {
            let before = t - length;
            padding[row * t..][..before].fill(true);
            let from = &read.states.values[read.places[i]..][..length * f];
            let to = values[(row * t + before) * f..].iter_mut();
            to.zip(from).for_each(|(to, from)| *to = from.to_f32());
        }
        let values = Tensor::from_data(TensorData::new(values, [b, t, f]), device);
        let padding = Tensor::from_data(TensorData::new(padding, [b, 1, 1, t]), device);
        (self.config.normalise(values), padding)
    }

    /// Accuracy of the reader on a set of conversations.
    fn measure(&self, model: &Reader, read: &Read) -> Result<Vec<(String, f32)>, TrainError> {
        let device = model
            .devices()
            .into_iter()
            .next()
            .unwrap_or_else(Device::flex);
        let spelling = self.config.spelling;
        let (slots, table) = self.speller.table(&device);
        let place = |slot: &Option<u32>| slots.iter().position(|s| s == slot).unwrap_or(0);
        let names: Vec<Vec<usize>> = { self.names.iter() }
            .map(|name| name.iter().map(place).collect())
            .collect();
        // Number of correct predictions: all name slots, all names as wholes, colours, and layouts among pictures of
        // two objects.
        let mut right = [0usize; 4];
        let mut two = 0;
        let all: Vec<usize> = (0..read.asked.len()).collect();
        for chosen in all.chunks(64) {
            let (values, padding) = self.values(read, chosen, &device);
            let found = model.forward(values, Some(padding));
            let [b, q, d] = found.dims();
            let found = floats(distances(found.reshape([b * q, d]), table.clone()))?;
            for (found, &i) in found.chunks_exact(q * slots.len()).zip(chosen) {
                let rows: Vec<&[f32]> = found.chunks_exact(slots.len()).collect();
                let wanted: Vec<usize> = read.slots[i].iter().map(place).collect();
                let is = |slot: usize| least(rows[slot].iter().copied()) == wanted[slot];
                let parts = spelling.objects * spelling.tokens;
                right[0] += usize::from((0..parts).all(is));
                let named = (0..spelling.objects).all(|object| {
                    let rows = &rows[object * spelling.tokens..][..spelling.tokens];
                    let wanted = &wanted[object * spelling.tokens..][..spelling.tokens];
                    let sum = |name: &Vec<usize>| -> f32 {
                        rows.iter().zip(name).map(|(row, &token)| row[token]).sum()
                    };
                    names[least(names.iter().map(sum))] == wanted
                });
                right[1] += usize::from(named);
                right[2] += usize::from(is(parts + 1));
                if read.asked[i]
                    .shown
                    .as_ref()
                    .is_some_and(|s| s.names.len() > 1)
                {
                    two += 1;
                    right[3] += usize::from(is(parts));
                }
            }
        }
        let n = read.asked.len();
        let figures = ["spelled", "concept", "colour", "layout"]
            .into_iter()
            .zip(right);
        let figures = figures.map(|(what, right)| {
            let of = if what == "layout" { two } else { n };
            let share = right as f32 / of.max(1) as f32;
            (format!("{}.{what}", read.name), share)
        });
        Ok(figures
            .filter(|(what, _)| two > 0 || !what.ends_with("layout"))
            .collect())
    }
}

/// A random batch from a range of conversations sorted by length, so that it needs little padding. All conversations
/// are equally likely, except that those near both ends may be half as likely.
fn of_like_length(sorted: &[usize], batch: usize, random: &mut Philox) -> Vec<usize> {
    let stretch = (sorted.len() / STRETCHES).max(1);
    let middle = random.below(sorted.len());
    let start = middle
        .saturating_sub(stretch / 2)
        .min(sorted.len() - stretch);
    let stretch = &sorted[start..start + stretch];
    (0..batch)
        .map(|_| stretch[random.below(stretch.len())])
        .collect()
}

/// Number of ranges of similar length.
const STRETCHES: usize = 8;

/// Dropout: zeroes values with this probability and rescales the rest to keep the mean. It uses the step's own random
/// numbers, because the device's generator is shared.
fn dropout(values: Tensor<3>, probability: f64, random: &mut Philox) -> Tensor<3> {
    let scale = (1.0 / (1.0 - probability)) as f32;
    let draw = |_| match f64::from(random.uniform()) < probability {
        true => 0.0,
        false => scale,
    };
    let keep: Vec<f32> = (0..values.shape().num_elements()).map(draw).collect();
    let keep = TensorData::new(keep, values.shape());
    let device = values.device();
    values * Tensor::from_data(keep, &device)
}

/// Index of the smallest value.
fn least(values: impl Iterator<Item = f32>) -> usize {
    let least = values.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
    least.map_or(0, |(i, _)| i)
}

impl Stage for ReaderStage {
    type Model = Reader;

    fn name(&self) -> &str {
        "reader"
    }

    fn loss(&mut self, model: &Reader, context: &StepContext) -> Result<StepLoss, TrainError> {
        let mut random = context.random(Stream::Data);
        let chosen = of_like_length(&self.by_length, self.batch, &mut random);
        let device = &context.device;
        let (values, padding) = self.values(&self.train, &chosen, device);
        let values = match context.train && self.dropout > 0.0 {
            true => dropout(values, self.dropout, &mut context.random(Stream::Training)),
            false => values,
        };
        let found = model.forward(values, Some(padding));
        let wanted = chosen
            .iter()
            .flat_map(|&i| self.speller.embeddings(&self.train.slots[i]));
        let wanted = TensorData::new(wanted.collect::<Vec<f32>>(), found.dims());
        let wanted: Tensor<3> = Tensor::from_data(wanted, device);
        let error = (found.clone() - wanted.clone()).square().mean();
        let long = |x: Tensor<3>| (x.square().sum_dim(2) + 1e-6).sqrt();
        let cosine = (found.clone() * wanted.clone()).sum_dim(2) / (long(found) * long(wanted));
        let apart = cosine.mean().neg() + 1.0;
        Ok(StepLoss::new(error.clone() + apart.clone(), self.batch)
            .with_term("error", error)
            .with_term("apart", apart))
    }

    fn evaluate(&mut self, model: &Reader, _step: u64) -> Result<Vec<(String, f32)>, TrainError> {
        let all = self.held_out.iter().map(|read| self.measure(model, read));
        Ok(all.collect::<Result<Vec<_>, _>>()?.concat())
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
