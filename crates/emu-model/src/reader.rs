//! A reader of requests: learned queries that attend to the attention values of a frozen language model at the tokens of a
//! conversation, and give the embeddings of the picture that is asked for ([`crate::spelling`]).
//!
//! Beside it, what tells a request from other talk: a linear classifier of the last hidden state.
//!
//! B batch, T tokens read, F values of a token, D width of the language model, W width of the reader, Q queries.

use burn::module::{Module, Param};
use burn::tensor::{Bool, Device, Tensor, TensorData};
use emu_kernels::cache::KvCache;
use emu_kernels::init::{Init, param};
use emu_kernels::ops::{self, AttentionOptions};
use emu_kernels::{LayerNorm, QLinear};
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, LmConfig};
use crate::diffusion::decoder::Normalisation;
use crate::lm::Lm;
use crate::spelling::SpellingConfig;

/// Sizes of a reader, and what its inputs and outputs are measured in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReaderConfig {
    /// Layers of the language model whose values are read, counted from 0.
    pub layers: Vec<usize>,
    /// Tokens that are read, the last ones of the prompt; what goes before the conversation is never among them.
    pub window: usize,
    /// W
    pub width: usize,
    /// Heads of its attention.
    pub heads: usize,
    /// Its own layers.
    pub depth: usize,
    /// How pictures are spelled: Q is its number of slots.
    pub spelling: SpellingConfig,
    /// What values are shifted and scaled by before they are read: F numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Normalisation>,
    /// What the table of token embeddings was shifted and scaled by: D numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Normalisation>,
}

/// Most of any size.
const MOST: usize = 4096;

impl ReaderConfig {
    /// F, for a language model of these sizes.
    pub fn inputs(&self, lm: &LmConfig) -> usize {
        self.layers.len() * lm.kv_heads * lm.head_size
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// Names the one that does not fit the language model or the others.
    pub fn validate(&self, lm: &LmConfig) -> Result<(), ConfigError> {
        self.spelling.validate()?;
        let wrong = |what: String| Err(ConfigError(format!("reader.{what}")));
        let sizes = [
            ("layers", self.layers.len()),
            ("window", self.window),
            ("width", self.width),
            ("heads", self.heads),
            ("depth", self.depth),
        ];
        if let Some((name, n)) = sizes.iter().find(|(_, n)| *n == 0 || *n > MOST) {
            return wrong(format!("{name} is {n}, not 1 to {MOST}"));
        }
        if let Some(layer) = self.layers.iter().find(|&&layer| layer >= lm.layers) {
            return wrong(format!("layers has {layer}, of a model of {}", lm.layers));
        }
        if !self.width.is_multiple_of(self.heads) {
            let (width, heads) = (self.width, self.heads);
            return wrong(format!("width is {width}, no multiple of {heads} heads"));
        }
        let normalisations = [
            ("inputs", &self.inputs, self.inputs(lm)),
            ("outputs", &self.outputs, lm.width),
        ];
        for (name, found, n) in normalisations {
            let Some(Normalisation { mean, std }) = found else {
                continue;
            };
            let sound = std.iter().all(|s| s.is_finite() && *s > 0.0);
            if mean.len() != n || std.len() != n || !sound {
                return wrong(format!("{name} wants {n} numbers each, `std` above zero"));
            }
        }
        Ok(())
    }

    /// A new reader for a language model of these sizes.
    pub fn init(&self, lm: &LmConfig, device: &Device) -> Reader {
        let w = self.width;
        let layer = |_| ReaderLayer {
            query_norm: LayerNorm::new(w, 1e-5, device),
            query: QLinear::new(w, w, false, device),
            key: QLinear::new(w, w, false, device),
            value: QLinear::new(w, w, false, device),
            output: QLinear::new(w, w, false, device),
            mlp_norm: LayerNorm::new(w, 1e-5, device),
            up: QLinear::new(w, 2 * w, true, device),
            down: QLinear::new(2 * w, w, true, device),
            heads: self.heads,
        };
        let random = |std| Init::Normal(std);
        Reader {
            queries: param([1, self.spelling.slots(), w], random(0.5), device),
            places: param([1, self.window, w], random(0.1), device),
            input: QLinear::new(self.inputs(lm), w, true, device),
            input_norm: LayerNorm::new(w, 1e-5, device),
            layers: (0..self.depth).map(layer).collect(),
            output_norm: LayerNorm::new(w, 1e-5, device),
            output: QLinear::new(w, lm.width, true, device),
        }
    }

    /// Values as the network wants them, `[B, T, F]` in and out.
    pub fn normalise(&self, values: Tensor<3>) -> Tensor<3> {
        match &self.inputs {
            Some(normalisation) => normalisation.apply(values),
            None => values,
        }
    }

    /// From what the network gives to embeddings in the language model's own units, `[B, Q, D]` in and out: what a decoder
    /// that was trained on spelled words takes as its condition.
    pub fn embeddings(&self, read: Tensor<3>) -> Tensor<3> {
        let Some(Normalisation { mean, std }) = &self.outputs else {
            return read;
        };
        let device = read.device();
        let row = |values: &[f32]| {
            let data = TensorData::new(values.to_vec(), [1, 1, values.len()]);
            Tensor::<3>::from_data(data, &device)
        };
        read * row(std) + row(mean)
    }
}

impl Lm {
    /// What attention of some layers holds of positions in a cache: their values beside each other, whatever wrote them. They
    /// are copies, which later steps leave alone.
    ///
    /// # Shapes
    /// - returns `[B, T, layers·G·E]` for T positions
    ///
    /// # Panics
    /// Where there is no such layer, no layer at all, or positions were not written.
    pub fn values(
        &self,
        cache: &KvCache,
        layers: &[usize],
        positions: core::ops::Range<usize>,
    ) -> Tensor<3> {
        let of = |&layer: &usize| {
            let (_, values) = cache.layers[layer].visible();
            let values = values.narrow(2, positions.start, positions.len());
            let [b, g, t, e] = values.dims();
            // Steps write caches in place, whoever holds a view of them.
            values
                .swap_dims(1, 2)
                .reshape([b, t, g * e])
                .mul_scalar(1.0)
        };
        Tensor::cat(layers.iter().map(of).collect(), 2)
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct Reader {
    /// `[1, Q, W]`
    pub queries: Param<Tensor<3>>,
    /// `[1, window, W]`, added to tokens by their distance from the end, the last token first.
    pub places: Param<Tensor<3>>,
    /// `[W, F]`
    pub input: QLinear,
    /// After it.
    pub input_norm: LayerNorm,
    /// Cross-attention.
    pub layers: Vec<ReaderLayer>,
    /// After the last layer.
    pub output_norm: LayerNorm,
    /// `[D, W]`
    pub output: QLinear,
}

/// Cross-attention and feed-forward, each normed before and added to the queries.
#[derive(Module, Debug)]
pub struct ReaderLayer {
    /// Before attention.
    pub query_norm: LayerNorm,
    /// `[W, W]`
    pub query: QLinear,
    /// `[W, W]`
    pub key: QLinear,
    /// `[W, W]`
    pub value: QLinear,
    /// `[W, W]`
    pub output: QLinear,
    /// Before the feed-forward layer.
    pub mlp_norm: LayerNorm,
    /// `[2 W, W]`
    pub up: QLinear,
    /// `[W, 2 W]`
    pub down: QLinear,
    /// Heads.
    pub heads: usize,
}

impl Reader {
    /// The embeddings of what is asked for, in units of the table's own spread ([`ReaderConfig::embeddings`]).
    ///
    /// # Shapes
    /// - `values`: `[B, T, F]`, [normalised](ReaderConfig::normalise), T at most the window; shorter sequences are padded in
    ///   front, so that the last token is always the last
    /// - `padding`: `[B, 1, 1, T]`, true where nothing is
    /// - returns `[B, Q, D]`
    pub fn forward(&self, values: Tensor<3>, padding: Option<Tensor<4, Bool>>) -> Tensor<3> {
        let [b, t, _] = values.dims();
        let places = self.places.val().narrow(1, 0, t).flip([1]);
        let seen = self.input_norm.forward(self.input.forward(values) + places); // [B, T, W]
        let [_, q, w] = self.queries.dims();
        let mut x = self.queries.val().expand([b, q, w]);
        for layer in &self.layers {
            x = layer.forward(x, seen.clone(), padding.clone());
        }
        self.output.forward(self.output_norm.forward(x))
    }
}

impl ReaderLayer {
    fn forward(
        &self,
        x: Tensor<3>,
        seen: Tensor<3>,
        padding: Option<Tensor<4, Bool>>,
    ) -> Tensor<3> {
        let heads = |y: Tensor<3>| {
            let [b, n, w] = y.dims();
            y.reshape([b, n, self.heads, w / self.heads])
                .swap_dims(1, 2) // [B, H, n, E]
        };
        let options = AttentionOptions {
            mask: padding,
            ..Default::default()
        };
        let y = ops::attention(
            heads(self.query.forward(self.query_norm.forward(x.clone()))),
            heads(self.key.forward(seen.clone())),
            heads(self.value.forward(seen)),
            options,
        );
        let [b, h, n, e] = y.dims();
        let x = x + self
            .output
            .forward(y.swap_dims(1, 2).reshape([b, n, h * e]));
        let y = ops::gelu(self.up.forward(self.mlp_norm.forward(x.clone())));
        x + self.down.forward(y)
    }
}

/// What a trigger looks at beside the final hidden state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriggerConfig {
    /// Tokens whose values it sees, counted from the last one.
    pub tokens: Vec<usize>,
}

/// Whether a conversation asks for a picture, from the position that asks for the answer: its final hidden state, and
/// attention values of some tokens up to it.
#[derive(Module, Debug)]
pub struct Trigger {
    /// `[1, D + tokens·F]`
    pub weight: Param<Tensor<2>>,
    /// `[1]`
    pub bias: Param<Tensor<1>>,
}

impl TriggerConfig {
    /// One that never fires, beside this reader of a language model.
    pub fn init(&self, reader: &ReaderConfig, lm: &LmConfig, device: &Device) -> Trigger {
        let width = lm.width + self.tokens.len() * reader.inputs(lm);
        Trigger {
            weight: param([1, width], Init::Zeros, device),
            bias: param([1], Init::Zeros, device),
        }
    }

    /// What a trigger sees of a conversation; zeros for tokens that it has not.
    ///
    /// # Shapes
    /// - `hidden`: `[B, D]`, after the final norm
    /// - `values`: `[B, T, F]`, the last tokens, not normalised
    /// - returns `[B, D + tokens·F]`
    pub fn features(&self, hidden: Tensor<2>, values: &Tensor<3>) -> Tensor<2> {
        let [_, t, _] = values.dims();
        let of = |&token: &usize| match t.checked_sub(token + 1) {
            Some(at) => values.clone().narrow(1, at, 1).squeeze_dim::<2>(1),
            None => values
                .clone()
                .narrow(1, 0, 1)
                .squeeze_dim::<2>(1)
                .zeros_like(),
        };
        let parts = [hidden].into_iter().chain(self.tokens.iter().map(of));
        Tensor::cat(parts.collect(), 1)
    }
}

impl Trigger {
    /// A picture is asked for where this is above 0: `[B, 1]` of [features](TriggerConfig::features).
    pub fn score(&self, features: Tensor<2>) -> Tensor<2> {
        ops::linear(features, self.weight.val(), Some(self.bias.val()))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Int;
    use emu_kernels::init;
    use emu_kernels::random::Philox;

    use super::*;
    use crate::EmuConfig;
    use crate::lm::Visibility;
    use crate::probe::Probe;

    fn config() -> ReaderConfig {
        ReaderConfig {
            layers: vec![1, 0],
            window: 5,
            width: 16,
            heads: 4,
            depth: 2,
            spelling: SpellingConfig {
                objects: 1,
                tokens: 2,
            },
            inputs: None,
            outputs: None,
        }
    }

    fn lm() -> LmConfig {
        EmuConfig::tiny().lm
    }

    fn values(t: usize) -> Tensor<3> {
        let f = config().inputs(&lm());
        let values = Philox::with_stream(3, 40, 0).normals(t * f);
        Tensor::from_data(TensorData::new(values, [1, t, f]), &Device::flex())
    }

    fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().iter::<f32>().collect()
    }

    #[test]
    fn padding_in_front_changes_nothing() {
        init::seed(1);
        let device = Device::flex();
        let reader = config().init(&lm(), &device);
        let x = values(3);
        let alone = reader.forward(x.clone(), None);
        assert_eq!(alone.dims(), [1, 4, 64]);
        let [_, _, f] = x.dims();
        let padded = Tensor::cat(vec![Tensor::ones([1, 2, f], &device) * 7.0, x.clone()], 1);
        let hidden = Tensor::<4, Bool>::from_data(
            TensorData::new(vec![true, true, false, false, false], [1, 1, 1, 5]),
            &device,
        );
        let masked = numbers(reader.forward(padded.clone(), Some(hidden)));
        let alone = numbers(alone);
        let off = |other: &[f32]| {
            let pairs = alone.iter().zip(other);
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        assert!(off(&masked) < 1e-5, "{}", off(&masked));
        assert!(off(&numbers(reader.forward(padded, None))) > 1e-3);
        // Tokens have an order.
        let turned = numbers(reader.forward(x.flip([1]), None));
        assert!(off(&turned) > 1e-3);
    }

    #[test]
    fn values_of_a_cache_are_those_of_a_whole_pass() {
        init::seed(2);
        let (device, sizes) = (Device::flex(), lm());
        let lm = sizes.init(None, &device).alone();
        let ids = |ids: &[i32]| -> Tensor<2, Int> {
            Tensor::from_data(TensorData::new(ids.to_vec(), [1, ids.len()]), &device)
        };
        let mut cache = lm.cache(1, 8);
        lm.step_tokens(ids(&[5, 6, 7]), &mut cache).expect("room");
        lm.step_tokens(ids(&[8]), &mut cache).expect("room");
        let found = lm.values(&cache, &[1, 0], 1..4);
        assert_eq!(found.dims(), [1, 3, 128]);
        // A later step writes where the cache was set back to, and what was read stays.
        cache.truncate(1);
        lm.step_tokens(ids(&[9, 9, 9]), &mut cache).expect("room");

        let mut probe = Probe::on("");
        let x = lm.embed(ids(&[5, 6, 7, 8]));
        let positions = [vec![0, 1, 2, 3]];
        lm.forward_probed(x.clone(), &positions, &Visibility::All, &mut probe);
        let seen = probe.into_seen();
        let second: Tensor<3> = Tensor::from_data(seen["layer0.out"].clone(), &device);
        let of = |layer: &crate::lm::Layer, x| {
            let x = layer.input_layernorm.forward(x);
            layer.self_attn.v_proj.forward(x).narrow(1, 1, 3)
        };
        let whole = Tensor::cat(vec![of(&lm.layers[1], second), of(&lm.layers[0], x)], 2);
        let pairs = numbers(found).into_iter().zip(numbers(whole));
        let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-4, "{off}");
    }

    #[test]
    fn embeddings_undo_the_tables_normalisation() {
        let outputs = Normalisation {
            mean: vec![1.0, 2.0],
            std: vec![0.5, 4.0],
        };
        let x: Tensor<3> = Tensor::from_data([[[3.0f32, -2.0]]], &Device::flex());
        let config = ReaderConfig {
            outputs: Some(outputs.clone()),
            ..config()
        };
        let y = config.embeddings(outputs.apply(x));
        assert_eq!(numbers(y), [3.0, -2.0]);
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        assert!(config().validate(&lm()).is_ok());
        let error = |config: ReaderConfig| {
            let refused = config.validate(&lm());
            refused.expect_err("refused").to_string()
        };
        let with = |layers: Vec<usize>| ReaderConfig { layers, ..config() };
        assert!(error(with(vec![2])).contains("layers has 2, of a model of 2"));
        assert!(error(with(vec![])).contains("layers is 0"));
        let odd = ReaderConfig {
            heads: 3,
            ..config()
        };
        assert!(error(odd).contains("no multiple of 3 heads"));
        let short = ReaderConfig {
            inputs: Some(Normalisation {
                mean: vec![0.0],
                std: vec![1.0],
            }),
            ..config()
        };
        assert!(error(short).contains("inputs wants 128 numbers"));
    }

    #[test]
    fn triggers_see_the_tokens_that_they_name() {
        let device = Device::flex();
        let trigger = TriggerConfig {
            tokens: vec![0, 2, 5],
        };
        let hidden: Tensor<2> = Tensor::from_data([[3.0f32, 1.0]], &device);
        let values: Tensor<3> = Tensor::from_data([[[7.0f32], [8.0], [9.0]]], &device);
        let features = trigger.features(hidden, &values);
        assert_eq!(numbers(features.clone()), [3.0, 1.0, 9.0, 7.0, 0.0]);
        let weight = TensorData::new(vec![1.0f32, 0.0, -1.0, 1.0, 5.0], [1, 5]);
        let linear = Trigger {
            weight: Param::from_data(weight, &device),
            bias: Param::from_data(TensorData::new(vec![0.5f32], [1]), &device),
        };
        assert_eq!(numbers(linear.score(features)), [1.5]);
        let new = trigger.init(&config(), &lm(), &device);
        assert_eq!(new.weight.dims(), [1, 64 + 3 * 128]);
    }
}
