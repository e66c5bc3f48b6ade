//! CLIP's vision tower as published by transformers: ViT-B/32, B/16, L/14 and others of the same layout.
//!
//! B batch, N tokens (class token first), D width, H heads, S side of the image.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use emu_kernels::init::{Init, param};
use emu_kernels::ops::{self, AttentionOptions};
use emu_kernels::{Conv2d, LayerNorm, QEmbedding, QLinear};
use emu_pack::{KeyMap, PackError, Rule};
use serde_json::Value;

use crate::config::ConfigError;
use crate::probe::Probe;

/// Sizes of a CLIP vision tower.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipConfig {
    /// Side of the square input image in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Width of a token.
    pub width: usize,
    /// Width of the MLP.
    pub mlp_width: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of heads.
    pub heads: usize,
    /// Eps of its norms.
    pub norm_eps: f64,
}

/// Largest accepted size.
pub(crate) const MOST: usize = 1 << 20;

/// Reads a size from a `config.json`; `default` if it is absent, since transformers omits defaults.
fn usual(from: &Value, key: &str, default: usize) -> Result<usize, ConfigError> {
    match from.get(key) {
        None => Ok(default),
        Some(_) => size(from, key),
    }
}

/// Reads a size from a `config.json`.
pub(crate) fn size(from: &Value, key: &str) -> Result<usize, ConfigError> {
    let number = { from.get(key).and_then(Value::as_u64) }.and_then(|n| usize::try_from(n).ok());
    number.ok_or_else(|| ConfigError(format!("`{key}` is missing or no whole number")))
}

impl ClipConfig {
    /// Reads the `vision_config` of transformers' CLIP. Absent fields have the values of ViT-B/32.
    ///
    /// # Errors
    /// Names the first field that is missing, has an unexpected type or is not supported.
    pub fn from_transformers(vision: &Value) -> Result<Self, ConfigError> {
        let wrong = |what: String| Err(ConfigError(what));
        let activation = vision.get("hidden_act").and_then(Value::as_str);
        if let Some(other) = activation.filter(|name| *name != "quick_gelu") {
            return wrong(format!(
                "`hidden_act` is {other:?}, where only quick_gelu is supported"
            ));
        }
        let channels = vision.get("num_channels");
        if channels.is_some_and(|n| n.as_u64() != Some(3)) {
            return wrong("`num_channels` is not 3".into());
        }
        let config = Self {
            image_size: usual(vision, "image_size", 224)?,
            patch_size: usual(vision, "patch_size", 32)?,
            width: usual(vision, "hidden_size", 768)?,
            mlp_width: usual(vision, "intermediate_size", 3072)?,
            layers: usual(vision, "num_hidden_layers", 12)?,
            heads: usual(vision, "num_attention_heads", 12)?,
            norm_eps: { vision.get("layer_norm_eps").and_then(Value::as_f64) }.unwrap_or(1e-5),
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks the invariants of the network.
    ///
    /// # Errors
    /// Names the first inconsistent value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |what: String| Err(ConfigError(what));
        let sizes = [
            self.image_size,
            self.patch_size,
            self.width,
            self.mlp_width,
            self.layers,
            self.heads,
        ];
        if sizes.iter().any(|n| *n == 0 || *n > MOST) {
            return wrong("a size is 0, or larger than any model has".into());
        }
        if !self.image_size.is_multiple_of(self.patch_size) {
            return wrong(format!(
                "image_size {} is no multiple of the patch {}",
                self.image_size, self.patch_size
            ));
        }
        if !self.width.is_multiple_of(self.heads) {
            return wrong(format!(
                "width {} is no multiple of {} heads",
                self.width, self.heads
            ));
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            return wrong(format!("norm_eps {} is not between 0 and 1", self.norm_eps));
        }
        Ok(())
    }

    /// Creates the tower; weights are allocated lazily.
    pub fn init(&self, device: &Device) -> ClipVision {
        let (d, eps, patch) = (self.width, self.norm_eps, self.patch_size);
        let tokens = (self.image_size / patch).pow(2) + 1;
        let linear = |inputs, outputs| QLinear::new(inputs, outputs, true, device);
        let layer = |_| ClipLayer {
            layer_norm1: LayerNorm::new(d, eps, device),
            self_attn: ClipAttention {
                q_proj: linear(d, d),
                k_proj: linear(d, d),
                v_proj: linear(d, d),
                out_proj: linear(d, d),
                heads: self.heads,
            },
            layer_norm2: LayerNorm::new(d, eps, device),
            mlp: ClipMlp {
                fc1: linear(d, self.mlp_width),
                fc2: linear(self.mlp_width, d),
            },
        };
        ClipVision {
            class_embedding: param([d], Init::Normal(0.02), device),
            patch_embedding: Conv2d {
                weight: param([d, 3, patch, patch], Init::Normal(0.02), device),
                bias: None,
                stride: patch,
                padding: (0, 0),
            },
            position_embedding: QEmbedding::new(tokens, d, 0.02, device),
            pre_layrnorm: LayerNorm::new(d, eps, device),
            layers: (0..self.layers).map(layer).collect(),
            post_layernorm: LayerNorm::new(d, eps, device),
        }
    }
}

/// Key map of a tower in a transformers CLIP checkpoint: the whole model or the vision tower alone.
///
/// # Errors
/// If a rule below is malformed; otherwise never.
pub fn clip_vision() -> Result<KeyMap, PackError> {
    KeyMap::new(
        [
            Rule::new("vision_model.encoder.layers.{rest..}", "layers.{rest..}"),
            Rule::new("vision_model.embeddings.class_embedding", "class_embedding"),
            Rule::new(
                "vision_model.embeddings.{what}_embedding.weight",
                "{what}_embedding.weight",
            ),
            Rule::new("vision_model.{rest..}", "{rest..}"),
        ],
        [
            // Buffer with the position ids 0, 1, 2, .. that older versions of transformers save.
            "vision_model.embeddings.position_ids",
            "text_model.{rest..}",
            "visual_projection.weight",
            "text_projection.weight",
            "logit_scale",
        ],
    )
}

/// CLIP's vision tower.
#[derive(Module, Debug)]
pub struct ClipVision {
    /// `[D]`
    pub class_embedding: Param<Tensor<1>>,
    /// Patch embedding without bias: a convolution whose stride equals its kernel size.
    pub patch_embedding: Conv2d,
    /// `[N, D]`
    pub position_embedding: QEmbedding,
    /// Norm before the layers (spelled as in the checkpoints).
    pub pre_layrnorm: LayerNorm,
    /// Transformer layers.
    pub layers: Vec<ClipLayer>,
    /// Norm of the last layer's output.
    pub post_layernorm: LayerNorm,
}

/// A pre-norm transformer layer.
#[derive(Module, Debug)]
pub struct ClipLayer {
    /// Before attention.
    pub layer_norm1: LayerNorm,
    /// Self-attention.
    pub self_attn: ClipAttention,
    /// Before the MLP.
    pub layer_norm2: LayerNorm,
    /// Feed-forward.
    pub mlp: ClipMlp,
}

/// Self-attention with biases.
#[derive(Module, Debug)]
pub struct ClipAttention {
    /// Queries.
    pub q_proj: QLinear,
    /// Keys.
    pub k_proj: QLinear,
    /// Values.
    pub v_proj: QLinear,
    /// Output.
    pub out_proj: QLinear,
    /// H
    pub heads: usize,
}

/// MLP with CLIP's GELU (quick GELU).
#[derive(Module, Debug)]
pub struct ClipMlp {
    /// Up.
    pub fc1: QLinear,
    /// Down.
    pub fc2: QLinear,
}

impl ClipVision {
    /// Normed class token of the last layer: `[B, 3, S, S]` to `[B, D]`.
    pub fn pooled(&self, images: Tensor<4>, probe: &mut Probe) -> Tensor<2> {
        let hidden = self.hidden(images, probe);
        let [b, _, d] = hidden.dims();
        self.post_layernorm
            .forward(hidden.narrow(1, 0, 1).reshape([b, d]))
    }

    /// All tokens of the last layer, with the class token's norm: `[B, 3, S, S]` to `[B, N, D]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<3> {
        self.post_layernorm
            .forward(self.hidden(images, &mut Probe::off()))
    }

    /// Output of the last layer, before the norm.
    fn hidden(&self, images: Tensor<4>, probe: &mut Probe) -> Tensor<3> {
        // 1. pixels to tokens
        let grid = self.patch_embedding.forward(images);
        let [b, d, h, w] = grid.dims();
        let patches = grid.reshape([b, d, h * w]).swap_dims(1, 2); // [B, N - 1, D]
        let class = self
            .class_embedding
            .val()
            .reshape([1, 1, d])
            .expand([b, 1, d]);
        let positions = self.position_embedding.weight.val().unsqueeze::<3>(); // [1, N, D]
        let mut x = self
            .pre_layrnorm
            .forward(Tensor::cat(vec![class, patches], 1) + positions); // [B, N, D]
        probe.see(format_args!("safety.embeddings_ln"), &x);

        // 2. layers
        for layer in &self.layers {
            let h = layer
                .self_attn
                .forward(layer.layer_norm1.forward(x.clone()));
            x = x + h;
            let h = layer.mlp.fc1.forward(layer.layer_norm2.forward(x.clone()));
            x = x + layer.mlp.fc2.forward(ops::quick_gelu(h));
        }
        probe.see(format_args!("safety.last_hidden"), &x);
        x
    }
}

impl ClipAttention {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [b, n, d] = x.dims();
        let (h, e) = (self.heads, d / self.heads);
        let split = |y: Tensor<3>| y.reshape([b, n, h, e]).swap_dims(1, 2); // [B, H, N, E]
        let q = split(self.q_proj.forward(x.clone()));
        let k = split(self.k_proj.forward(x.clone()));
        let y = ops::attention(
            q,
            k,
            split(self.v_proj.forward(x)),
            AttentionOptions::default(),
        );
        self.out_proj.forward(y.swap_dims(1, 2).reshape([b, n, d]))
    }
}
