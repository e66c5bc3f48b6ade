//! What a run needs, computed from its configuration: nothing is allocated, and no data is opened.
//!
//! Weights, gradients, moments and averages are exact. The activations that a backward pass keeps are an estimate, by
//! formulas in A (positions times width) and M (positions times the width of the feed-forward layer) that were compared
//! with measured peaks of the LM's layer: a layer that learns keeps 11 A + 5 M on a GPU, one that only passes gradients on
//! 8 A + 4 M; the CPU keeps 2 M less, and the attention probabilities besides.

use burn::tensor::Device;
use emu_kernels::device::DeviceChoice;
use emu_model::config::{CausalConfig, LmConfig, VisionConfig};
use emu_model::diffusion::DecoderConfig;
use emu_model::diffusion::unet::{BlockKind, UnetConfig};
use emu_model::{EmuConfig, weights};

use crate::TrainError;
use crate::config::{DataConfig, TrainConfig};
use crate::parts::{Rates, belongs};
use crate::stages::{DecoderStage, Pretrain};

/// Bytes of an f32.
const F32: u64 = 4;

/// Tokens of a caption whose data set has no limit of its own.
const CAPTION: usize = 64;

/// What a run needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Needs {
    /// Parts of the trained model, in the order of its parameters.
    pub parts: Vec<PartNeeds>,
    /// Bytes of weights beside the trained model: the encoder and LM that a decoder is trained on.
    pub beside: u64,
    /// A micro-batch of each data set; all of the run's data sets as one if they have no batches of their own.
    pub batches: Vec<BatchNeeds>,
    /// Whether the activations are those of the CPU.
    pub on_host: bool,
}

/// Memory of a part of the model between the steps, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartNeeds {
    /// Its name: `visual`, `lm.layers`, `lora`, ...
    pub name: String,
    /// Number of its parameters.
    pub parameters: u64,
    /// Number of those that learn.
    pub trainable: u64,
    /// Weights, in f32.
    pub weights: u64,
    /// Gradients.
    pub gradients: u64,
    /// The two moments of AdamW.
    pub moments: u64,
    /// EMA of the weights.
    pub average: u64,
}

/// A micro-batch of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchNeeds {
    /// Path of the data set, and its kind.
    pub name: String,
    /// Samples of a micro-batch.
    pub samples: usize,
    /// Pictures of a sample: assumed where only the data knows it.
    pub pictures: usize,
    /// Tokens of a sample, pictures included: assumed likewise.
    pub tokens: usize,
    /// Estimate of the bytes that one sample keeps for the backward pass.
    pub sample_bytes: u64,
}

impl BatchNeeds {
    /// Estimate of the bytes that the micro-batch keeps for the backward pass.
    pub fn activations(&self) -> u64 {
        self.samples as u64 * self.sample_bytes
    }

    /// The largest number of samples whose activations fit this many bytes.
    pub fn fitting(&self, free: u64) -> u64 {
        free / self.sample_bytes.max(1)
    }
}

impl PartNeeds {
    /// All bytes of the part.
    pub fn bytes(&self) -> u64 {
        self.weights + self.gradients + self.moments + self.average
    }

    fn add(&mut self, parameters: u64, learns: bool, averaged: bool) {
        let bytes = F32 * parameters;
        self.parameters += parameters;
        self.weights += bytes;
        if learns {
            self.trainable += parameters;
            self.gradients += bytes;
            self.moments += 2 * bytes;
            self.average += if averaged { bytes } else { 0 };
        }
    }
}

impl Needs {
    /// Sum over the parts.
    pub fn sum(&self) -> PartNeeds {
        let mut sum = PartNeeds {
            name: "sum".into(),
            ..PartNeeds::default()
        };
        for part in &self.parts {
            sum.parameters += part.parameters;
            sum.trainable += part.trainable;
            sum.weights += part.weights;
            sum.gradients += part.gradients;
            sum.moments += part.moments;
            sum.average += part.average;
        }
        sum
    }

    /// Bytes that are held from the first step to the last.
    pub fn resident(&self) -> u64 {
        self.sum().bytes() + self.beside
    }

    /// Bytes held, and the activations of the largest micro-batch.
    pub fn peak(&self) -> u64 {
        let largest = self.batches.iter().map(BatchNeeds::activations).max();
        self.resident() + largest.unwrap_or(0)
    }

    /// Bytes of a checkpoint, which is also built in main memory before it is written.
    pub fn checkpoint(&self) -> u64 {
        let sum = self.sum();
        sum.weights + sum.moments + sum.average
    }
}

/// What a run of the stages `pretrain`, `instruct` and `decoder` needs.
///
/// # Errors
/// If the configuration is wrong, or of another stage.
pub fn needs(config: &TrainConfig) -> Result<Needs, TrainError> {
    config.validate()?;
    let on_host = config.device == DeviceChoice::Cpu;
    // Parameters are created when they are first read, and nothing here reads them.
    let device = Device::flex();
    let wrong = |e| TrainError::other("config", e);
    match config.stage.as_str() {
        "pretrain" | "instruct" => {
            let (emu, frames) = Pretrain::plan(config)?;
            let model = emu.init(&device).map_err(wrong)?;
            let (parts, learns) = parts(config, &weights::parameters(&model))?;
            let sample = |pictures, tokens| emu_sample(&emu, &learns, pictures, tokens, on_host);
            Ok(Needs {
                parts,
                beside: 0,
                batches: batches(config, &emu, frames, sample),
                on_host,
            })
        }
        "decoder" => {
            let (emu, decoder) = DecoderStage::plan(config)?;
            let frozen = weights::parameters(&emu.init(&device).map_err(wrong)?);
            let beside: u64 = frozen.iter().map(|(_, shape)| elements(shape)).sum();
            let model = decoder.init(&device).map_err(wrong)?;
            let (parts, _) = parts(config, &weights::parameters(&model))?;
            let sample = |_, _| decoder_sample(&decoder, on_host);
            let mut batches = batches(config, &emu, 1, sample);
            for batch in &mut batches {
                (batch.pictures, batch.tokens) = (1, decoder.tokens);
            }
            Ok(Needs {
                parts,
                beside: F32 * beside,
                batches,
                on_host,
            })
        }
        other => Err(TrainError::config(
            "stage",
            format!(
                "a dry run knows pretrain, instruct and decoder, not {other:?}; --check makes steps of any stage"
            ),
        )),
    }
}

/// Parts that learn.
struct Learns(Vec<String>);

impl Learns {
    fn any(&self, part: &str) -> bool {
        self.0.iter().any(|name| belongs(name, part))
    }
}

fn elements(shape: &[usize]) -> u64 {
    shape.iter().map(|&n| n as u64).product()
}

/// The parts of a model with these parameters, and the names of those that learn.
fn parts(
    config: &TrainConfig,
    parameters: &[(String, Vec<usize>)],
) -> Result<(Vec<PartNeeds>, Learns), TrainError> {
    let names: Vec<String> = parameters.iter().map(|(name, _)| name.clone()).collect();
    let frozen = Rates::new(config, &names)?.frozen();
    let mut parts: Vec<PartNeeds> = vec![];
    let mut learning = vec![];
    for ((name, shape), frozen) in parameters.iter().zip(frozen) {
        let of = part_of(name);
        let at = parts.iter().position(|part| part.name == of);
        let at = at.unwrap_or_else(|| {
            parts.push(PartNeeds {
                name: of,
                ..PartNeeds::default()
            });
            parts.len() - 1
        });
        parts[at].add(elements(shape), !frozen, config.ema.is_some());
        if !frozen {
            learning.push(name.clone());
        }
    }
    Ok((parts, Learns(learning)))
}

/// The part of a parameter: adapters by themselves, then the first element of the name, of the LM the first two.
fn part_of(name: &str) -> String {
    if belongs(name, "*.lora") {
        return "lora".into();
    }
    let mut elements = name.split('.');
    match (elements.next(), elements.next()) {
        (Some("lm"), Some(second)) => format!("lm.{second}"),
        (first, _) => first.unwrap_or(name).into(),
    }
}

/// A micro-batch of each data set. `sample` gives the bytes of a sample with so many pictures and tokens.
fn batches(
    config: &TrainConfig,
    emu: &EmuConfig,
    frames: usize,
    sample: impl Fn(usize, usize) -> u64,
) -> Vec<BatchNeeds> {
    let sizes = config.batches();
    let of = |(i, data): (usize, &DataConfig)| {
        let (pictures, tokens) = assumed(data, emu, frames);
        let kind = data
            .kind
            .as_ref()
            .map_or(String::new(), |kind| format!(" ({kind})"));
        BatchNeeds {
            name: format!("{}{kind}", data.path.display()),
            samples: sizes.as_ref().map_or(config.batch, |sizes| sizes[i]),
            pictures,
            tokens,
            sample_bytes: sample(pictures, tokens),
        }
    };
    config.data.iter().enumerate().map(of).collect()
}

/// Pictures and tokens of a sample: what the builders of `emu data` write by default, within the limit of the data set.
fn assumed(data: &DataConfig, emu: &EmuConfig, frames: usize) -> (usize, usize) {
    let context = emu.lm.context;
    let block = emu.queries() + 2;
    let most = data.tokens.map_or(context, |tokens| tokens.min(context));
    let pictures = match data.kind.as_deref() {
        Some("videos") => frames,
        Some("documents") => 5,
        Some("storyboards") => 8,
        _ => 1,
    };
    let pictures = pictures.min((most / block).max(1));
    let tokens = match (data.kind.as_deref(), data.tokens) {
        (Some("pairs" | "videos"), None) => (pictures * block + CAPTION + 2).min(context),
        _ => most,
    };
    (pictures, tokens)
}

/// Bytes that a sample keeps in encoder, causal former and LM.
fn emu_sample(
    emu: &EmuConfig,
    learns: &Learns,
    pictures: usize,
    tokens: usize,
    on_host: bool,
) -> u64 {
    let mut kept = 0;
    let sees = ["visual", "ln_visual"].iter().any(|part| learns.any(part));
    if learns.any("visual") {
        kept += vision(&emu.vision, pictures, on_host);
    }
    if let Some(causal) = &emu.causal
        && (sees || learns.any("cformer"))
    {
        kept += causal_former(causal, emu.vision.tokens(), pictures, on_host);
    }
    // Gradients pass through a frozen LM to what is below it.
    let below = sees
        || ["cformer", "lm.embed_tokens"]
            .iter()
            .any(|part| learns.any(part));
    let adapted = learns.any("*.lora");
    let layers = learns
        .0
        .iter()
        .any(|name| belongs(name, "lm.layers") && !belongs(name, "*.lora"));
    if layers || adapted || below {
        let layer = lm_layer(&emu.lm, tokens, layers, on_host);
        kept += emu.lm.layers as u64 * layer;
    }
    // Logits, their logarithms and their gradient, of the tokens that are text.
    let text = tokens.saturating_sub(pictures * (emu.queries() + 2));
    kept += 3 * product([text, emu.lm.vocab]);
    F32 * kept
}

fn product<const N: usize>(factors: [usize; N]) -> u64 {
    factors.iter().map(|&n| n as u64).product()
}

/// Elements that a layer of the LM keeps for a sequence.
fn lm_layer(lm: &LmConfig, tokens: usize, learns: bool, on_host: bool) -> u64 {
    let a = product([tokens, lm.width]);
    let m = product([tokens, lm.ffn]);
    let probabilities = product([lm.heads, tokens, tokens]);
    match (learns, on_host) {
        (true, false) => 11 * a + 5 * m,
        (false, false) => 8 * a + 4 * m,
        (true, true) => 11 * a + 3 * m + probabilities,
        (false, true) => 8 * a + 2 * m + probabilities,
    }
}

/// Elements that an encoder that learns keeps for these pictures.
fn vision(vision: &VisionConfig, pictures: usize, on_host: bool) -> u64 {
    let tokens = vision.tokens();
    let a = product([tokens, vision.width]);
    let m = product([tokens, vision.mlp_width()]);
    let heads = vision.width / vision.head_width.max(1);
    let probabilities = if on_host {
        product([heads, tokens, tokens])
    } else {
        0
    };
    // As the LM's layer, without a gate.
    let blocks = vision.layers as u64 * (11 * a + 2 * m + probabilities);
    // A stage keeps the input and output of its convolution, norm and activation, and two such of each residual block.
    let stem = vision.stem.as_ref().map_or(0, |stem| {
        let stages = stem.channels.iter().zip(&stem.blocks).enumerate();
        let stage = |(level, (&channels, &blocks)): (usize, (&usize, &usize))| {
            let side = vision.image_size >> (level + 1);
            (3 + 6 * blocks as u64) * product([side, side, channels])
        };
        stages.map(stage).sum::<u64>()
    });
    pictures as u64 * (blocks + stem + a)
}

/// Elements that a causal former keeps for pictures of this many encoder tokens.
fn causal_former(causal: &CausalConfig, seen: usize, pictures: usize, on_host: bool) -> u64 {
    let q = causal.queries;
    let inner = causal.heads * causal.d_kv;
    let a = product([q, causal.d_model.max(inner)]);
    let m = product([q, causal.d_ff]);
    let probabilities = if on_host {
        product([causal.heads, q, q + seen])
    } else {
        0
    };
    // Self-attention, cross-attention with keys and values of the encoder's tokens, and two activations of the MLP.
    let layer = 17 * a + 2 * m + 2 * product([seen, inner]) + probabilities;
    pictures as u64 * causal.layers as u64 * layer
}

/// Bytes that a picture keeps in a UNet that learns. The autoencoder is frozen and keeps nothing.
fn decoder_sample(decoder: &DecoderConfig, on_host: bool) -> u64 {
    let UnetConfig {
        channels,
        down,
        up,
        layers_per_block,
        heads,
        ..
    } = &decoder.unet;
    let latent = decoder.image_size / decoder.vae.factor().max(1);
    let side = |level: usize| (latent >> level).max(1);
    let area = |level: usize| product([side(level), side(level)]);
    let width = |level: usize| channels.get(level).copied().unwrap_or(0) as u64;
    // Two norms, activations and convolutions; the first ones read `more` channels of a skip connection besides.
    let residual = |level: usize, more: u64| area(level) * (6 * width(level) + 3 * more);
    // Self-attention, cross-attention and a gated MLP of four times the width.
    let transformer = |level: usize| {
        let positions = area(level);
        let heads = heads.get(level).copied().unwrap_or(1) as u64;
        let probabilities = heads * positions * (positions + decoder.tokens as u64);
        30 * positions * width(level) + if on_host { probabilities } else { 0 }
    };
    let last = channels.len().saturating_sub(1);
    let mut kept = 2 * residual(last, 0) + transformer(last);
    for level in 0..channels.len() {
        let attends = |kind: Option<&BlockKind>| match kind {
            Some(BlockKind::CrossAttention) => transformer(level),
            _ => 0,
        };
        let layers = *layers_per_block as u64;
        kept += layers * (residual(level, 0) + attends(down.get(level)));
        // The up path begins at the lowest resolution.
        let mirrored = up.get(last - level);
        kept += (layers + 1) * (residual(level, width(level)) + attends(mirrored));
    }
    F32 * kept
}

#[cfg(test)]
#[path = "needs_tests.rs"]
mod tests;
