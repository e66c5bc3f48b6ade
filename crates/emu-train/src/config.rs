//! The configuration of a training run, a TOML file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use emu_kernels::device::DeviceChoice;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::TrainError;
use crate::schedule::ScheduleConfig;
use crate::settings::{self, Setting};

/// All settings of a run. `configs/train/` holds one file per stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Name of the stage, one of those of [`crate::stages`]: `vae`, `vision`, `pretrain`, `decoder`, `brush`, `heads`,
    /// `reader`, `persona`, `instruct` or `judge`.
    pub stage: String,
    /// Folder of the run: checkpoints, metrics, samples.
    pub out: PathBuf,
    /// Seed of all randomness of the run.
    #[serde(default)]
    pub seed: u64,
    /// Optimiser steps.
    pub steps: u64,
    /// Samples per micro-batch.
    pub batch: usize,
    /// Micro-batches per step.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Device: `auto`, `gpu`, `cpu`, or an adapter by its number (`gpu:1`) or by a part of its name.
    #[serde(default, with = "device")]
    pub device: DeviceChoice,
    /// Threads of the CPU backend; all cores if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Recompute the activations of cheap operations in the backward pass instead of storing them.
    #[serde(default)]
    pub activation_checkpointing: bool,
    /// Sizes and initial weights of the model.
    #[serde(default)]
    pub init: InitConfig,
    /// Training data.
    #[serde(default)]
    pub data: Vec<DataConfig>,
    /// Held-out data. Its loss is computed at every evaluation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub validation: Vec<ValidationConfig>,
    /// Largest share of a data set's samples that may be unusable. They are left out and listed in the run's folder.
    /// Above this share, the run ends with an error.
    #[serde(default = "hundredth")]
    pub max_bad_share: f64,
    /// AdamW settings.
    pub optimiser: OptimiserConfig,
    /// Parts of the model with their own learning rate. The longest part that matches a parameter's name applies.
    #[serde(default)]
    pub rates: Vec<RateConfig>,
    /// Learning rate schedule.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// EMA of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<EmaConfig>,
    /// When to write checkpoints.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// When to end before the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStopConfig>,
    /// When to log, plot, sample and evaluate.
    #[serde(default)]
    pub log: LogConfig,
    /// The stage's own settings; see [`TrainConfig::options`].
    #[serde(default)]
    pub options: toml::Table,
}

/// Serialises a device in the syntax of the command line.
mod device {
    use emu_kernels::device::DeviceChoice;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(choice: &DeviceChoice, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(choice)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DeviceChoice, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

fn one() -> usize {
    1
}

fn hundredth() -> f64 {
    0.01
}

/// Sizes and initial weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InitConfig {
    /// Sizes: a preset (`emu-mini`, `tiny`, `emu-14b`, `emu-14b-instruct`), a TOML or JSON file, a pack, or the folder of
    /// a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Equal query and key weights in the first layer of an Emu's LM, with this standard deviation times the square root of
    /// the width. Without it the two start independently.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equal_query_key: Option<f32>,
    /// Sources of initial weights: part -> pack, checkpoint, run folder, or diffusers' folder of a UNet or autoencoder. The
    /// part `""` covers the rest. Parts not named keep their random initialisation.
    pub parts: BTreeMap<String, PathBuf>,
}

/// A data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Folder of shards, one shard, or a pattern of either.
    pub path: PathBuf,
    /// Its sampling weight among the data sets: its share of the samples, or of the micro-batches if data sets have
    /// batches of their own.
    #[serde(default = "weight_one")]
    pub weight: f64,
    /// Kind of its samples: only the shards of the folder whose names start with it (`pairs`, `documents`, `videos`,
    /// `storyboards`, `instruct`, `scenes`, ...).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Samples of a micro-batch of this data set. If any data set has its own batch, every micro-batch is of one data
    /// set, and data sets without one use the run's. With equal weights and as many micro-batches per step as data
    /// sets, every step has one micro-batch of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// Most tokens of a sample, pictures included. A longer document is cut, a longer conversation loses its last turns,
    /// another sample is left out. Default: the model's context, at which documents are left out too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
}

/// A validation set: held-out data on which the loss of the stage is computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    /// As in [`DataConfig`].
    pub path: PathBuf,
    /// As in [`DataConfig`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// As in [`DataConfig`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Name of its figures; the last component of the path if absent. The loss is the figure `NAME.loss`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Maximum number of micro-batches. The same samples are used every time.
    #[serde(default = "sixteen")]
    pub batches: usize,
}

fn sixteen() -> usize {
    16
}

impl ValidationConfig {
    /// Name of its figures.
    pub fn name(&self) -> String {
        match (&self.name, self.path.file_stem()) {
            (Some(name), _) => name.clone(),
            (None, Some(stem)) => stem.to_string_lossy().into_owned(),
            (None, None) => "validation".into(),
        }
    }
}

fn weight_one() -> f64 {
    1.0
}

/// AdamW with clipping by global norm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimiserConfig {
    /// Learning rate of every part that `rates` does not name.
    pub lr: f64,
    /// Decay rates of the two moments.
    #[serde(default = "betas")]
    pub betas: (f64, f64),
    /// Added to the square root of the second moment.
    #[serde(default = "eps")]
    pub eps: f64,
    /// Decoupled weight decay.
    #[serde(default)]
    pub weight_decay: f64,
    /// Apply weight decay to norms and biases (one-dimensional parameters) too.
    #[serde(default)]
    pub decay_vectors: bool,
    /// Maximum global gradient norm; 0 disables clipping.
    #[serde(default = "clip")]
    pub clip: f64,
}

fn betas() -> (f64, f64) {
    (0.9, 0.98)
}

fn eps() -> f64 {
    1e-8
}

fn clip() -> f64 {
    1.0
}

/// A part of the model with its own learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateConfig {
    /// Prefix of parameter names, ending at a dot: `lm`, `visual.blocks.0` ([`crate::parts::belongs`]).
    pub part: String,
    /// Its learning rate; `optimiser.lr` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Freezes the part, which removes it from the backward pass.
    #[serde(default)]
    pub freeze: bool,
}

/// EMA of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmaConfig {
    /// Decay per step; `(1 + t) / (10 + t)` at the start, as long as that is smaller.
    pub decay: f64,
}

/// A figure of the evaluations to watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FigureConfig {
    /// Its name, for example `val.loss`.
    pub figure: String,
    /// Whether larger values are better. By default smaller ones are, as for a loss.
    #[serde(default)]
    pub larger: bool,
}

/// Ends a run when a figure has not improved for a number of evaluations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopConfig {
    /// Name of the figure.
    pub figure: String,
    /// Whether larger values are better.
    #[serde(default)]
    pub larger: bool,
    /// Number of evaluations without improvement.
    pub patience: usize,
    /// Smallest change that counts as an improvement.
    #[serde(default)]
    pub min_delta: f64,
}

/// When to write checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Every this many steps; 0 for never.
    pub steps: u64,
    /// Every this many minutes; 0 for never.
    pub minutes: f64,
    /// How many checkpoints to keep.
    pub keep: usize,
    /// Also keep the checkpoint with the best value of this figure. The file `best` in the run's folder names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<FigureConfig>,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self {
            steps: 1000,
            minutes: 10.0,
            keep: 2,
            best: None,
        }
    }
}

/// Intervals of logging, plots, samples and evaluation. 0 for never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Steps between progress lines (`metrics.jsonl` has every step).
    pub every: u64,
    /// Steps between redrawn loss curves.
    pub curve_every: u64,
    /// Steps between sample pictures.
    pub sample_every: u64,
    /// Steps between evaluations.
    pub eval_every: u64,
    /// Write TensorBoard event files beside `metrics.jsonl`.
    pub tensorboard: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            every: 50,
            curve_every: 250,
            sample_every: 0,
            eval_every: 0,
            tensorboard: true,
        }
    }
}

impl TrainConfig {
    /// Reads and validates a file. Relative paths in it are relative to the working directory.
    ///
    /// # Errors
    /// [`TrainError::Io`], [`TrainError::ConfigSyntax`], [`TrainError::Config`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TrainError> {
        let path = path.as_ref();
        Self::read_with(path, &[])
    }

    /// Reads a file, changes it by `settings`, and validates the result. `${NAME}` in a string is an environment
    /// variable.
    ///
    /// # Errors
    /// As for [`TrainConfig::read`], and if a setting does not fit or a variable is not set.
    pub fn read_with(path: impl AsRef<Path>, settings: &[Setting]) -> Result<Self, TrainError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(TrainError::io("read", path))?;
        Self::parse_with(&text, path, settings, &|name| std::env::var(name).ok())
    }

    /// Parses and validates `text`; `path` is for error messages.
    ///
    /// # Errors
    /// [`TrainError::ConfigSyntax`], [`TrainError::Config`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, TrainError> {
        Self::parse_with(text, path, &[], &|_| None)
    }

    fn parse_with(
        text: &str,
        path: &Path,
        settings: &[Setting],
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, TrainError> {
        let wrong = |message: String| TrainError::ConfigSyntax {
            path: path.into(),
            message: message.trim().to_string(),
        };
        // Parsed in place if nothing changes it, so that an error names its line.
        let config: Self = if settings.is_empty() && !text.contains("${") {
            toml::from_str(text).map_err(|e| wrong(e.to_string()))?
        } else {
            let mut table: toml::Table = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
            settings::apply(&mut table, settings)?;
            settings::expand(&mut table, variable)?;
            table.try_into().map_err(|e: toml::de::Error| {
                let message = e.to_string();
                let keys: Vec<&str> = settings.iter().map(Setting::key).collect();
                match keys.is_empty() {
                    true => wrong(message),
                    false => wrong(format!(
                        "{}, with --set {}",
                        message.trim(),
                        keys.join(", ")
                    )),
                }
            })?
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks every value that does not depend on the model or on files.
    ///
    /// # Errors
    /// [`TrainError::Config`] naming the key.
    pub fn validate(&self) -> Result<(), TrainError> {
        let positive = |key: &str, n: u64| match n {
            0 => Err(TrainError::config(key, "it must be at least 1")),
            _ => Ok(()),
        };
        let number = |key: &str, x: f64, range: core::ops::Range<f64>| match range.contains(&x) {
            true => Ok(()),
            false => Err(TrainError::config(
                key,
                format!("{x} is not in {}..{}", range.start, range.end),
            )),
        };
        if self.stage.trim().is_empty() {
            return Err(TrainError::config("stage", "it is empty"));
        }
        let trains_lm = matches!(self.stage.as_str(), "vision" | "pretrain" | "instruct");
        if self.init.equal_query_key.is_some() && !trains_lm {
            return Err(TrainError::config(
                "init.equal_query_key",
                format!(
                    "the stage `{}` initialises no language model; remove the setting",
                    self.stage
                ),
            ));
        }
        if self.out.as_os_str().is_empty() {
            return Err(TrainError::config("out", "it is empty"));
        }
        positive("steps", self.steps)?;
        positive("batch", self.batch as u64)?;
        positive("accumulate", self.accumulate as u64)?;
        if let Some(threads) = self.threads {
            positive("threads", threads as u64)?;
        }
        for (i, data) in self.data.iter().enumerate() {
            let weight = data.weight;
            if !(weight > 0.0 && weight.is_finite()) {
                return Err(TrainError::config(
                    format!("data[{i}].weight"),
                    format!(
                        "{weight} is not a positive number (leave out a data set that is not to be used)"
                    ),
                ));
            }
            if let Some(batch) = data.batch {
                positive(&format!("data[{i}].batch"), batch as u64)?;
            }
            if let Some(tokens) = data.tokens {
                positive(&format!("data[{i}].tokens"), tokens as u64)?;
            }
        }
        for (i, set) in self.validation.iter().enumerate() {
            positive(&format!("validation[{i}].batches"), set.batches as u64)?;
            if let Some(tokens) = set.tokens {
                positive(&format!("validation[{i}].tokens"), tokens as u64)?;
            }
            let name = set.name();
            let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
            if name.is_empty() || !name.chars().all(is_plain) {
                return Err(TrainError::config(
                    format!("validation[{i}].name"),
                    format!("{name:?} is not made of letters, digits, `-` and `_`"),
                ));
            }
            if self
                .validation
                .iter()
                .take(i)
                .any(|other| other.name() == name)
            {
                return Err(TrainError::config(
                    format!("validation[{i}].name"),
                    format!("`{name}` is used twice"),
                ));
            }
        }
        if let Some(stop) = &self.early_stop {
            positive("early_stop.patience", stop.patience as u64)?;
            number("early_stop.min_delta", stop.min_delta, 0.0..f64::INFINITY)?;
        }
        if self.log.eval_every == 0 {
            let waiting = [
                ("validation", !self.validation.is_empty()),
                ("early_stop", self.early_stop.is_some()),
                ("checkpoint.best", self.checkpoint.best.is_some()),
            ];
            if let Some((key, _)) = waiting.iter().find(|(_, set)| *set) {
                let message = "nothing is evaluated, because `log.eval_every` is 0";
                return Err(TrainError::config(*key, message));
            }
        }
        // Losses are measured on held-out data alone. Other figures are the stage's own.
        let watched = [
            (
                "early_stop.figure",
                self.early_stop.as_ref().map(|stop| &stop.figure),
            ),
            (
                "checkpoint.best.figure",
                self.checkpoint.best.as_ref().map(|best| &best.figure),
            ),
        ];
        for (key, figure) in watched {
            let Some(set) = figure.and_then(|figure| figure.strip_suffix(".loss")) else {
                continue;
            };
            if !self
                .validation
                .iter()
                .any(|held_out| held_out.name() == set)
            {
                let message = format!(
                    "`{set}.loss` is never measured, because no [[validation]] is named `{set}`"
                );
                return Err(TrainError::config(key, message));
            }
        }
        if !(0.0..=1.0).contains(&self.max_bad_share) {
            return Err(TrainError::config(
                "max_bad_share",
                format!("{} is not in 0..=1", self.max_bad_share),
            ));
        }
        let optimiser = &self.optimiser;
        number("optimiser.lr", optimiser.lr, 0.0..10.0)?;
        number("optimiser.betas", optimiser.betas.0, 0.0..1.0)?;
        number("optimiser.betas", optimiser.betas.1, 0.0..1.0)?;
        number("optimiser.eps", optimiser.eps, f64::MIN_POSITIVE..1.0)?;
        number("optimiser.weight_decay", optimiser.weight_decay, 0.0..10.0)?;
        number("optimiser.clip", optimiser.clip, 0.0..f64::INFINITY)?;
        for (i, rate) in self.rates.iter().enumerate() {
            if let Some(lr) = rate.lr {
                number(&format!("rates[{i}].lr"), lr, 0.0..10.0)?;
                if rate.freeze {
                    return Err(TrainError::config(
                        format!("rates[{i}].lr"),
                        "a frozen part has no rate",
                    ));
                }
            }
            if self
                .rates
                .iter()
                .take(i)
                .any(|other| other.part == rate.part)
            {
                return Err(TrainError::config(
                    format!("rates[{i}].part"),
                    format!("`{}` is named twice", rate.part),
                ));
            }
        }
        self.schedule.build(self.steps)?;
        if let Some(ema) = &self.ema {
            number("ema.decay", ema.decay, 0.0..1.0)?;
        }
        number("checkpoint.minutes", self.checkpoint.minutes, 0.0..1e6)?;
        positive("checkpoint.keep", self.checkpoint.keep as u64)
    }

    /// Samples of a micro-batch of each data set, if any has a batch of its own.
    pub fn batches(&self) -> Option<Vec<usize>> {
        let own = self.data.iter().any(|data| data.batch.is_some());
        let batch = |data: &DataConfig| data.batch.unwrap_or(self.batch);
        own.then(|| self.data.iter().map(batch).collect())
    }

    /// Samples of a step; the mean over many steps where micro-batches differ in size.
    pub fn samples_per_step(&self) -> f64 {
        let mean = match self.batches() {
            None => self.batch as f64,
            Some(sizes) => {
                let weighted = self.data.iter().zip(&sizes);
                let samples: f64 = weighted
                    .map(|(data, size)| data.weight * *size as f64)
                    .sum();
                samples / self.data.iter().map(|data| data.weight).sum::<f64>()
            }
        };
        mean * self.accumulate as f64
    }

    /// The stage's own settings.
    ///
    /// # Errors
    /// [`TrainError::Config`] with the parse error of the stage's type.
    pub fn options<T: DeserializeOwned>(&self) -> Result<T, TrainError> {
        self.options
            .clone()
            .try_into()
            .map_err(|e: toml::de::Error| TrainError::config("options", e.message().to_string()))
    }

    /// The settings that must be equal in a resumed run, as `key -> value`.
    pub(crate) fn fingerprint(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        if let Ok(value) = toml::Value::try_from(self) {
            flatten("", &value, &mut found);
        }
        const FREE: [&str; 9] = [
            "steps",
            "out",
            "log.",
            "checkpoint.",
            "threads",
            "device",
            "max_bad_share",
            "early_stop.",
            "validation[",
        ];
        found.retain(|key, _| {
            !FREE.iter().any(|free| {
                if free.ends_with(['.', '[']) {
                    key.starts_with(free)
                } else {
                    key == free
                }
            })
        });
        found
    }
}

fn flatten(prefix: &str, value: &toml::Value, found: &mut BTreeMap<String, String>) {
    let dotted = |key: &str| {
        if prefix.is_empty() {
            key.to_string()
        } else {
            format!("{prefix}.{key}")
        }
    };
    match value {
        toml::Value::Table(table) => table
            .iter()
            .for_each(|(key, value)| flatten(&dotted(key), value, found)),
        toml::Value::Array(list) if list.iter().any(toml::Value::is_table) => {
            list.iter()
                .enumerate()
                .for_each(|(i, value)| flatten(&format!("{prefix}[{i}]"), value, found));
        }
        _ => {
            found.insert(prefix.to_string(), value.to_string());
        }
    }
}

/// The differences between two fingerprints, as text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    /// Settings that a resumed run must not change.
    pub forbidden: Vec<String>,
    /// Settings that a resumed run may change, although it then no longer repeats an uninterrupted one: places of data
    /// and initial weights, and the size of a batch.
    pub allowed: Vec<String>,
}

impl Differences {
    pub fn new(then: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Self {
        let keys: std::collections::BTreeSet<_> = then.keys().chain(now.keys()).collect();
        let show = |value: Option<&String>| value.map_or("nothing".to_string(), Clone::clone);
        let mut found = Self::default();
        for key in keys {
            let (then, now) = (then.get(key), now.get(key));
            if then == now {
                continue;
            }
            let of_data = |field: &str| key.starts_with("data[") && key.ends_with(field);
            let is_path = key.starts_with("init.parts") || of_data("].path");
            let is_batch = matches!(key.as_str(), "batch" | "accumulate") || of_data("].batch");
            let list = match then.is_some() && now.is_some() && is_path || is_batch {
                true => &mut found.allowed,
                false => &mut found.forbidden,
            };
            list.push(format!("`{key}` was {}, is {}", show(then), show(now)));
        }
        found
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
