//! Spatial transformers of the UNet: self-attention over pixels, cross-attention to the condition, GEGLU feed-forward.
//!
//! B batch, C channels, L pixels, N condition tokens, D width of the condition, H heads, E head size.

use core::fmt::Arguments;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use emu_kernels::ops::{self, AttentionOptions, ConvExtras};
use emu_kernels::{Conv2d, Conv2dConfig, GroupNorm, LayerNorm, QLinear};

use crate::probe::Probe;

/// Norm, 1x1 convolution, transformer blocks over the pixels, 1x1 convolution, plus the input.
#[derive(Module, Debug)]
pub struct SpatialTransformer {
    /// Eps 1e-6.
    pub norm: GroupNorm,
    /// 1x1.
    pub proj_in: Conv2d,
    /// One in every published model.
    pub transformer_blocks: Vec<TransformerBlock>,
    /// 1x1.
    pub proj_out: Conv2d,
}

/// Self-attention, cross-attention, feed-forward.
#[derive(Module, Debug)]
pub struct TransformerBlock {
    /// Before self-attention.
    pub norm1: LayerNorm,
    /// Self-attention.
    pub attn1: Attention,
    /// Before cross-attention.
    pub norm2: LayerNorm,
    /// Cross-attention.
    pub attn2: Attention,
    /// Before the feed-forward.
    pub norm3: LayerNorm,
    /// Feed-forward.
    pub ff: FeedForward,
}

/// Attention without biases on queries, keys and values.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[C, C]`
    pub to_q: QLinear,
    /// `[C, D]`
    pub to_k: QLinear,
    /// `[C, D]`
    pub to_v: QLinear,
    /// `[C, C]`, with bias
    pub to_out: QLinear,
    /// H
    pub heads: usize,
}

/// GEGLU feed-forward network.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// `[8C, C]`: values and gates.
    pub gated: QLinear,
    /// `[C, 4C]`
    pub out: QLinear,
}

/// Keys and values of the condition for one transformer block.
#[derive(Clone, Debug)]
pub struct CrossKv {
    /// `[B, H, N, E]`
    pub k: Tensor<4>,
    /// `[B, H, N, E]`
    pub v: Tensor<4>,
}

/// Sizes of a [`SpatialTransformer`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct TransformerConfig {
    pub channels: usize,
    pub context: usize,
    pub heads: usize,
    pub groups: usize,
}

/// PyTorch's default.
const LAYER_NORM_EPS: f64 = 1e-5;
/// Eps of the transformers' group norm; the UNet's is configurable.
const GROUP_NORM_EPS: f64 = 1e-6;

impl TransformerConfig {
    pub fn init(&self, device: &Device) -> SpatialTransformer {
        let c = self.channels;
        let attention = |context: usize| Attention {
            to_q: QLinear::new(c, c, false, device),
            to_k: QLinear::new(context, c, false, device),
            to_v: QLinear::new(context, c, false, device),
            to_out: QLinear::new(c, c, true, device),
            heads: self.heads,
        };
        let norm = || LayerNorm::new(c, LAYER_NORM_EPS, device);
        let block = TransformerBlock {
            norm1: norm(),
            attn1: attention(c),
            norm2: norm(),
            attn2: attention(self.context),
            norm3: norm(),
            ff: FeedForward {
                gated: QLinear::new(c, 8 * c, true, device),
                out: QLinear::new(4 * c, c, true, device),
            },
        };
        SpatialTransformer {
            norm: GroupNorm::new(self.groups, c, GROUP_NORM_EPS, device),
            proj_in: Conv2dConfig::same(c, c, 1).init(device),
            transformer_blocks: vec![block],
            proj_out: Conv2dConfig::same(c, c, 1).init(device),
        }
    }
}

impl SpatialTransformer {
    /// Keys and values of the condition, one entry per block.
    ///
    /// # Shapes
    /// - `context`: `[B, N, D]`
    pub fn prepare(&self, context: &Tensor<3>) -> Vec<CrossKv> {
        self.transformer_blocks
            .iter()
            .map(|block| block.attn2.keys_values(context.clone()))
            .collect()
    }

    /// # Shapes
    /// - `x`: `[B, C, H, W]`, returned in the same shape
    pub fn forward(
        &self,
        x: Tensor<4>,
        context: &[CrossKv],
        name: Arguments<'_>,
        probe: &mut Probe,
    ) -> Tensor<4> {
        let [b, c, h, w] = x.dims();
        let extras = ConvExtras {
            channels_last: true,
            ..Default::default()
        };
        let y = self
            .proj_in
            .forward_with(self.norm.forward(x.clone()), extras);
        let mut y = y.permute([0, 2, 3, 1]).reshape([b, h * w, c]); // [B, L, C]
        for (block, condition) in self.transformer_blocks.iter().zip(context) {
            y = block.forward(y, condition, name, probe);
        }
        let y = y.reshape([b, h, w, c]).permute([0, 3, 1, 2]);
        let extras = ConvExtras {
            residual: Some(x),
            ..Default::default()
        };
        self.proj_out.forward_with(y, extras)
    }
}

impl TransformerBlock {
    /// `[B, L, C]`, returned in the same shape.
    fn forward(
        &self,
        x: Tensor<3>,
        condition: &CrossKv,
        name: Arguments<'_>,
        probe: &mut Probe,
    ) -> Tensor<3> {
        let mut see = |part: &str, before: &Tensor<3>, after: &Tensor<3>| {
            if probe.is_on() {
                let added = after.clone() - before.clone();
                probe.see(format_args!("{name}.block.{part}"), &added);
            }
        };
        // 1. self-attention
        let y = self.norm1.forward(x.clone());
        let own = self.attn1.keys_values(y.clone());
        let after = self.attn1.forward_add(y, own, x.clone());
        see("attn1", &x, &after);
        // 2. cross-attention
        let x = after;
        let y = self.norm2.forward(x.clone());
        let after = self.attn2.forward_add(y, condition.clone(), x.clone());
        see("attn2", &x, &after);
        // 3. feed-forward
        let x = after;
        let y = ops::geglu(self.ff.gated.forward(self.norm3.forward(x.clone())));
        let after = self.ff.out.forward_add(y, x.clone());
        see("ff", &x, &after);
        probe.see(format_args!("{name}.block.out"), &after);
        after
    }
}

impl Attention {
    /// `[B, T, C]` to `[B, H, T, E]`.
    fn split(&self, x: Tensor<3>) -> Tensor<4> {
        let [b, t, c] = x.dims();
        x.reshape([b, t, self.heads, c / self.heads])
            .swap_dims(1, 2)
    }

    fn keys_values(&self, source: Tensor<3>) -> CrossKv {
        CrossKv {
            k: self.split(self.to_k.forward(source.clone())),
            v: self.split(self.to_v.forward(source)),
        }
    }

    /// Attention output plus `residual`.
    fn forward_add(&self, x: Tensor<3>, kv: CrossKv, residual: Tensor<3>) -> Tensor<3> {
        let CrossKv { k, v } = kv;
        let [b, l, c] = x.dims();
        let q = self.split(self.to_q.forward(x));
        let y = ops::attention(q, k, v, AttentionOptions::default()); // [B, H, L, E]
        self.to_out
            .forward_add(y.swap_dims(1, 2).reshape([b, l, c]), residual)
    }
}
