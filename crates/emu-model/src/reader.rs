//! Request reader: learned queries that cross-attend to the attention values of a frozen language model at the tokens
//! of a conversation, and output the embeddings of the requested image ([`crate::spelling`]).
//!
//! A trigger detects requests: a linear classifier of the last hidden state and some attention values.
//!
//! B batch, T tokens read, F attention values per token, D width of the language model, W width of the reader, Q
//! queries.

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

/// Sizes of a reader, and the normalisation of its inputs and outputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReaderConfig {
    /// Layers of the language model whose values are read, from 0.
    pub layers: Vec<usize>,
    /// Number of tokens read, at the end of the prompt; those before the conversation are never read.
    pub window: usize,
    /// W
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Number of layers.
    pub depth: usize,
    /// Spelling of images; Q is its number of slots.
    pub spelling: SpellingConfig,
    /// Normalisation of the input values: F numbers each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Normalisation>,
    /// Normalisation of the embedding table that the outputs are in: D numbers each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Normalisation>,
}

/// Largest accepted size.
const MOST: usize = 4096;

impl ReaderConfig {
    /// F, for a language model of these sizes.
    pub fn inputs(&self, lm: &LmConfig) -> usize {
        self.layers.len() * lm.kv_heads * lm.head_size
    }

    /// Validates the sizes.
    ///
    /// # Errors
    /// Names the first value that does not fit the language model or the others.
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

    /// Creates a reader for a language model of these sizes.
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

    /// Normalises input values, `[B, T, F]` in and out.
    pub fn normalise(&self, values: Tensor<3>) -> Tensor<3> {
        match &self.inputs {
            Some(normalisation) => normalisation.apply(values),
            None => values,
        }
    }

    /// Converts the network's output to embeddings in the language model's own units, `[B, Q, D]` in and out: the
    /// condition of a decoder that was trained on spellings.
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
    /// Attention values of some layers at some positions of a KV cache, concatenated over layers, for any kind of
    /// input. They are copies, unaffected by later steps.
    ///
    /// # Shapes
    /// - returns `[B, T, layers·G·E]` for T positions
    ///
    /// # Panics
    /// If a layer does not exist, `layers` is empty, or a position was not written.
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
            // Copies the values: steps write the cache in place, even under a view.
            values
                .swap_dims(1, 2)
                .reshape([b, t, g * e])
                .mul_scalar(1.0)
        };
        Tensor::cat(layers.iter().map(of).collect(), 2)
    }
}

/// The reader network.
#[derive(Module, Debug)]
pub struct Reader {
    /// `[1, Q, W]`
    pub queries: Param<Tensor<3>>,
    /// `[1, window, W]`: position embeddings by distance from the end, the last token first.
    pub places: Param<Tensor<3>>,
    /// `[W, F]`
    pub input: QLinear,
    /// After the input projection.
    pub input_norm: LayerNorm,
    /// Cross-attention layers.
    pub layers: Vec<ReaderLayer>,
    /// After the last layer.
    pub output_norm: LayerNorm,
    /// `[D, W]`
    pub output: QLinear,
}

/// Cross-attention and feed-forward, pre-norm, with residual connections on the queries.
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
    /// The embeddings of the requested image, normalised like the embedding table ([`ReaderConfig::embeddings`]).
    ///
    /// # Shapes
    /// - `values`: `[B, T, F]`, [normalised](ReaderConfig::normalise), T at most the window; shorter sequences are
    ///   left-padded, so that the last token is always the last
    /// - `padding`: `[B, 1, 1, T]`, true at padding
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

/// Inputs of a trigger beside the final hidden state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriggerConfig {
    /// Tokens whose attention values it sees, counted from the last one.
    pub tokens: Vec<usize>,
}

/// Linear classifier of whether a conversation requests an image. Its input is the final hidden state at the position
/// before the answer, and attention values of some tokens up to it.
#[derive(Module, Debug)]
pub struct Trigger {
    /// `[1, D + tokens·F]`
    pub weight: Param<Tensor<2>>,
    /// `[1]`
    pub bias: Param<Tensor<1>>,
}

impl TriggerConfig {
    /// Creates a trigger that never fires, for this reader and language model.
    pub fn init(&self, reader: &ReaderConfig, lm: &LmConfig, device: &Device) -> Trigger {
        let width = lm.width + self.tokens.len() * reader.inputs(lm);
        Trigger {
            weight: param([1, width], Init::Zeros, device),
            bias: param([1], Init::Zeros, device),
        }
    }

    /// Input features of a trigger; zeros for tokens before the start.
    ///
    /// # Shapes
    /// - `hidden`: `[B, D]`, after the final norm
    /// - `values`: `[B, T, F]`, of the last tokens, not normalised
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
    /// Score of [features](TriggerConfig::features), `[B, 1]`: an image is requested if it is above 0.
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
        let _sequence = init::seed(1);
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
        // Token order matters.
        let turned = numbers(reader.forward(x.flip([1]), None));
        assert!(off(&turned) > 1e-3);
    }

    #[test]
    fn values_of_a_cache_are_those_of_a_whole_pass() {
        let _sequence = init::seed(2);
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
        // A later step overwrites the truncated positions; the values already read are unchanged.
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
