//! The configuration of a training run, a TOML file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use emu_kernels::device::DeviceChoice;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::TrainError;
use crate::schedule::ScheduleConfig;

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
    /// Sizes: a preset (`emu-mini`, `tiny`, `emu-14b`) or a TOML or JSON file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Sources of initial weights: part -> pack, checkpoint or run folder. The part `""` covers the rest. Parts not
    /// named keep their random initialisation.
    pub parts: BTreeMap<String, PathBuf>,
}

/// A data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Folder of shards, or one shard.
    pub path: PathBuf,
    /// Its sampling weight among the data sets.
    #[serde(default = "weight_one")]
    pub weight: f64,
    /// Kind of its samples, for stages that accept several (pairs, documents, questions, ...).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
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

/// When to write checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Every this many steps; 0 for never.
    pub steps: u64,
    /// Every this many minutes; 0 for never.
    pub minutes: f64,
    /// How many checkpoints to keep.
    pub keep: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self {
            steps: 1000,
            minutes: 10.0,
            keep: 2,
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
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            every: 50,
            curve_every: 250,
            sample_every: 0,
            eval_every: 0,
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
        let text = std::fs::read_to_string(path).map_err(TrainError::io("read", path))?;
        Self::parse(&text, path)
    }

    /// Parses and validates `text`; `path` is for error messages.
    ///
    /// # Errors
    /// [`TrainError::ConfigSyntax`], [`TrainError::Config`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, TrainError> {
        let config: Self = toml::from_str(text).map_err(|e| TrainError::ConfigSyntax {
            path: path.into(),
            message: e.to_string().trim().to_string(),
        })?;
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
        const FREE: [&str; 7] = [
            "steps",
            "out",
            "log.",
            "checkpoint.",
            "threads",
            "device",
            "max_bad_share",
        ];
        found.retain(|key, _| {
            !FREE.iter().any(|free| {
                if free.ends_with('.') {
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
pub(crate) fn differences(
    then: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> Option<String> {
    let keys: std::collections::BTreeSet<_> = then.keys().chain(now.keys()).collect();
    let show = |value: Option<&String>| value.map_or("nothing".to_string(), Clone::clone);
    let found: Vec<String> = keys
        .into_iter()
        .filter(|key| then.get(*key) != now.get(*key))
        .map(|key| {
            format!(
                "`{key}` was {}, is {}",
                show(then.get(key)),
                show(now.get(key))
            )
        })
        .collect();
    (!found.is_empty()).then(|| found.join("; "))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
