//! The vision encoder, EVA-01-CLIP: a pre-norm ViT that keeps its class token. An EfficientNet or CLIP's tower can
//! replace it.
//!
//! B batch, N tokens (class token first), D width, H heads, E head size, P patches along a side.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use emu_kernels::init::{Init, param};
use emu_kernels::ops::{self, AttentionOptions, ConvExtras};
use emu_kernels::{Conv2d, Conv2dConfig, GroupNorm, LayerNorm, QLinear};

use crate::clip::ClipVision;
use crate::config::{StemConfig, VisionConfig};
use crate::efficientnet::EfficientNet;
use crate::probe::Probe;

/// The vision encoder.
#[derive(Module, Debug)]
pub struct Vision {
    /// Class token, `[1, 1, D]`.
    pub cls_token: Option<Param<Tensor<3>>>,
    /// Position embeddings, `[1, N, D]`.
    pub pos_embed: Option<Param<Tensor<3>>>,
    /// Patch embedding, in models without a stem.
    pub patch_embed: Option<PatchEmbed>,
    /// Convolutional stem, in small models.
    pub stem: Option<Stem>,
    /// Transformer blocks.
    pub blocks: Vec<Block>,
    /// EfficientNet, instead of all of these.
    pub efficientnet: Option<EfficientNet>,
    /// CLIP's tower, instead of all of these.
    pub clip: Option<ClipVision>,
}

/// Patch embedding: a convolution whose stride equals its kernel size.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    /// `[D, 3, patch, patch]`
    pub proj: Conv2d,
}

/// Convolutional stem: stages of stride 2 with residual blocks.
#[derive(Module, Debug)]
pub struct Stem {
    /// One stage per halving.
    pub stages: Vec<StemStage>,
}

/// Downsampling convolution, norm, SiLU, then residual blocks.
#[derive(Module, Debug)]
pub struct StemStage {
    /// Stride 2.
    pub down: Conv2d,
    /// Norm after the downsampling.
    pub norm: GroupNorm,
    /// Residual blocks at the stage's resolution.
    pub blocks: Vec<StemBlock>,
}

/// Residual block: (norm, SiLU, convolution) twice, plus the input.
#[derive(Module, Debug)]
pub struct StemBlock {
    /// Before the first convolution.
    pub norm1: GroupNorm,
    /// 3x3.
    pub conv1: Conv2d,
    /// Before the second convolution.
    pub norm2: GroupNorm,
    /// 3x3.
    pub conv2: Conv2d,
}

/// A transformer block.
#[derive(Module, Debug)]
pub struct Block {
    /// Before attention.
    pub norm1: LayerNorm,
    /// Self-attention.
    pub attn: Attention,
    /// Before the MLP.
    pub norm2: LayerNorm,
    /// Feed-forward.
    pub mlp: Mlp,
}

/// Self-attention with biases on queries and values, none on keys.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[3D, D]`: rows are q, k, v, each head-major.
    pub qkv: QLinear,
    /// `[D]`
    pub q_bias: Param<Tensor<1>>,
    /// `[D]`
    pub v_bias: Param<Tensor<1>>,
    /// `[D, D]`
    pub proj: QLinear,
    /// H
    pub heads: usize,
}

/// MLP with the exact GELU.
#[derive(Module, Debug)]
pub struct Mlp {
    /// Up.
    pub fc1: QLinear,
    /// Down.
    pub fc2: QLinear,
}

/// Eps of EVA's norms.
const NORM_EPS: f64 = 1e-6;

impl VisionConfig {
    /// Creates the encoder.
    pub fn init(&self, device: &Device) -> Vision {
        let d = self.width;
        let patch_embed = Conv2dConfig {
            inputs: 3,
            outputs: d,
            kernel: self.patch_size,
            stride: self.patch_size,
            padding: (0, 0),
        };
        let clip = { self.clip_config() }.map(|clip| clip.init(device));
        let efficientnet =
            { self.efficientnet.as_ref() }.map(|net| net.init(self.image_size, device));
        if clip.is_some() || efficientnet.is_some() {
            return Vision {
                cls_token: None,
                pos_embed: None,
                patch_embed: None,
                stem: None,
                blocks: vec![],
                efficientnet,
                clip,
            };
        }
        Vision {
            cls_token: Some(param([1, 1, d], Init::Normal(0.02), device)),
            pos_embed: Some(param([1, self.tokens(), d], Init::Normal(0.02), device)),
            patch_embed: self.stem.is_none().then(|| PatchEmbed {
                proj: patch_embed.init(device),
            }),
            stem: self.stem.as_ref().map(|stem| stem.init(device)),
            blocks: (0..self.layers).map(|_| self.init_block(device)).collect(),
            efficientnet: None,
            clip: None,
        }
    }

    fn init_block(&self, device: &Device) -> Block {
        let d = self.width;
        // After a stem that was warmed up alone, a block starts as the identity.
        let last = if self.stem.is_some() {
            Init::Zeros
        } else {
            Init::Normal(0.02)
        };
        Block {
            norm1: LayerNorm::new(d, NORM_EPS, device),
            attn: Attention {
                qkv: QLinear::new(d, 3 * d, false, device),
                q_bias: param([d], Init::Zeros, device),
                v_bias: param([d], Init::Zeros, device),
                proj: QLinear::with_init(d, d, true, last, device),
                heads: d / self.head_width,
            },
            norm2: LayerNorm::new(d, NORM_EPS, device),
            mlp: Mlp {
                fc1: QLinear::new(d, self.mlp_width(), true, device),
                fc2: QLinear::with_init(self.mlp_width(), d, true, last, device),
            },
        }
    }
}

impl StemConfig {
    /// Creates a stem for RGB images.
    pub fn init(&self, device: &Device) -> Stem {
        let mut inputs = 3;
        let stages = self.channels.iter().zip(&self.blocks).map(|(&c, &blocks)| {
            let down = Conv2dConfig::same(inputs, c, 3).with_stride(2).init(device);
            inputs = c;
            let block = |_| StemBlock {
                norm1: GroupNorm::new(self.groups, c, 1e-5, device),
                conv1: Conv2dConfig::same(c, c, 3).init(device),
                norm2: GroupNorm::new(self.groups, c, 1e-5, device),
                conv2: Conv2dConfig::same(c, c, 3).init_with(Init::Normal(0.02), device),
            };
            StemStage {
                down,
                norm: GroupNorm::new(self.groups, c, 1e-5, device),
                blocks: (0..blocks).map(block).collect(),
            }
        });
        Stem {
            stages: stages.collect(),
        }
    }
}

impl Vision {
    /// Raw output of the last block, including the class token.
    ///
    /// # Shapes
    /// - `images`: `[B, 3, S, S]`, normalised
    /// - returns `[B, N, D]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<3> {
        self.forward_probed(images, &mut Probe::off())
    }

    /// As [`Vision::forward`], reporting intermediate tensors to the probe.
    pub fn forward_probed(&self, images: Tensor<4>, probe: &mut Probe) -> Tensor<3> {
        if let Some(clip) = &self.clip {
            return clip.forward(images);
        }
        let [b, ..] = images.dims();

        // 1. pixels to tokens, row by row
        let grid = match (&self.patch_embed, &self.stem, &self.efficientnet) {
            (Some(patch), ..) => patch.proj.forward(images),
            (None, Some(stem), _) => stem.forward(images),
            (None, None, Some(net)) => net.features(images),
            (None, None, None) => images,
        };
        let [_, d, _, _] = grid.dims();
        let patches = grid.reshape([b as i64, d as i64, -1]).swap_dims(1, 2); // [B, P², D]
        probe.see(format_args!("eva.patch_embed"), &patches);

        // 2. class token (or the mean of the tokens) and positions
        let first = match &self.cls_token {
            Some(token) => token.val().expand([b, 1, d]),
            None => patches.clone().mean_dim(1),
        };
        let mut x = Tensor::cat(vec![first, patches], 1); // [B, N, D]
        if let Some(positions) = &self.pos_embed {
            x = x + positions.val();
        }
        probe.see(format_args!("eva.embed"), &x);

        // 3. blocks
        for (i, block) in self.blocks.iter().enumerate() {
            let h = block.norm1.forward(x.clone());
            probe.see(format_args!("eva.block{i}.norm1"), &h);
            let h = block.attn.forward(h);
            probe.see(format_args!("eva.block{i}.attn"), &h);
            x = x + h;
            let h = block.mlp.forward(block.norm2.forward(x.clone()));
            probe.see(format_args!("eva.block{i}.mlp"), &h);
            x = x + h;
            probe.see(format_args!("eva.block{i}.out"), &x);
        }
        x
    }
}

impl Stem {
    /// `[B, 3, S, S]` to `[B, D, P, P]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        self.stages.iter().fold(images, |x, stage| {
            let x = stage.norm.forward_silu(stage.down.forward(x));
            stage.blocks.iter().fold(x, |x, block| {
                let h = block.conv1.forward(block.norm1.forward_silu(x.clone()));
                let extras = ConvExtras {
                    residual: Some(x),
                    ..Default::default()
                };
                block
                    .conv2
                    .forward_with(block.norm2.forward_silu(h), extras)
            })
        })
    }
}

impl Attention {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [b, n, d] = x.dims();
        let (h, e) = (self.heads, d / self.heads);
        let no_bias = self.q_bias.val().zeros_like();
        let bias = Tensor::cat(vec![self.q_bias.val(), no_bias, self.v_bias.val()], 0); // [3D]
        let qkv = self.qkv.forward(x) + bias.unsqueeze();
        let heads = |i: usize| {
            qkv.clone()
                .narrow(2, i * d, d)
                .reshape([b, n, h, e])
                .swap_dims(1, 2)
        }; // [B, H, N, E]
        let y = ops::attention(heads(0), heads(1), heads(2), AttentionOptions::default());
        self.proj.forward(y.swap_dims(1, 2).reshape([b, n, d]))
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.fc2.forward(ops::gelu(self.fc1.forward(x)))
    }
}
