//! Causal former: the decoder of a T5 whose learned queries read the encoder's tokens one after the other.
//!
//! B batch, Q queries, N encoder tokens, D width, V encoder width, H heads, E head size.

use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use emu_kernels::init::{Init, param};
use emu_kernels::ops::{self, AttentionOptions};
use emu_kernels::{QEmbedding, QLinear, RmsNorm};

use crate::config::CausalConfig;
use crate::probe::Probe;

/// The causal former and its projection to the LM's width.
#[derive(Module, Debug)]
pub struct CausalFormer {
    /// Learned queries, `[1, Q, D]`.
    pub causal_tokens: Param<Tensor<3>>,
    /// Projection of the encoder tokens that are added to the queries at their raster positions, in small models.
    pub raster: Option<QLinear>,
    /// `[buckets, H]`: one table, shared by all blocks.
    pub relative_bias: QEmbedding,
    /// The decoder's blocks.
    pub blocks: Vec<CausalBlock>,
    /// After the last block.
    pub final_norm: RmsNorm,
    /// To the LM's width.
    pub projection: QLinear,
    /// Buckets of the bias.
    pub buckets: usize,
    /// Distance from which all positions share the last bucket.
    pub max_distance: usize,
}

/// Self-attention, cross-attention and feed-forward, pre-norm, with residual connections.
#[derive(Module, Debug)]
pub struct CausalBlock {
    /// Before self-attention.
    pub self_norm: RmsNorm,
    /// Causal self-attention of the queries.
    pub self_attn: T5Attention,
    /// Before cross-attention.
    pub cross_norm: RmsNorm,
    /// Cross-attention to the encoder's tokens.
    pub cross_attn: T5Attention,
    /// Before the feed-forward layer.
    pub ff_norm: RmsNorm,
    /// Up.
    pub wi: QLinear,
    /// Down.
    pub wo: QLinear,
}

/// T5's attention: no biases and no scaling by the head size.
#[derive(Module, Debug)]
pub struct T5Attention {
    /// `[H·E, D]`
    pub q: QLinear,
    /// `[H·E, D or V]`
    pub k: QLinear,
    /// `[H·E, D or V]`
    pub v: QLinear,
    /// `[D, H·E]`
    pub o: QLinear,
    /// H
    pub heads: usize,
}

impl CausalConfig {
    /// Creates a causal former between an encoder and an LM of these widths.
    ///
    /// With `raster` it starts near the identity, so that what a short warm-up taught the encoder reaches the LM. An
    /// embedding starts as the encoder's token at its raster position, and the layers add nothing yet. The embeddings
    /// of different positions differ by a third of their size, so that the LM can tell positions from the first step.
    pub fn init(&self, encoder_width: usize, lm_width: usize, device: &Device) -> CausalFormer {
        let block = |_| CausalBlock {
            self_norm: RmsNorm::new(self.d_model, self.norm_eps, device),
            self_attn: self.init_attention(self.d_model, device),
            cross_norm: RmsNorm::new(self.d_model, self.norm_eps, device),
            cross_attn: self.init_attention(encoder_width, device),
            ff_norm: RmsNorm::new(self.d_model, self.norm_eps, device),
            wi: QLinear::new(self.d_model, self.d_ff, false, device),
            wo: QLinear::with_init(self.d_ff, self.d_model, false, self.last(), device),
        };
        let scaled = |inputs: usize| Init::Normal(1.0 / (inputs as f32).sqrt());
        let near = |from: usize, to: usize| {
            if self.raster && from == to {
                Init::Identity
            } else {
                scaled(from)
            }
        };
        let places = Init::Normal(if self.raster { 0.3 } else { 0.02 });
        let through = near(encoder_width, self.d_model);
        let project = near(self.d_model, lm_width);
        CausalFormer {
            causal_tokens: param([1, self.queries, self.d_model], places, device),
            raster: self
                .raster
                .then(|| QLinear::with_init(encoder_width, self.d_model, false, through, device)),
            relative_bias: QEmbedding::new(self.buckets, self.heads, 0.02, device),
            blocks: (0..self.layers).map(block).collect(),
            final_norm: RmsNorm::new(self.d_model, self.norm_eps, device),
            projection: QLinear::with_init(self.d_model, lm_width, true, project, device),
            buckets: self.buckets,
            max_distance: self.max_distance,
        }
    }

    /// Initialisation of the last linear layer of a residual branch.
    fn last(&self) -> Init {
        if self.raster {
            Init::Zeros
        } else {
            Init::Normal(0.02)
        }
    }

    fn init_attention(&self, kv_width: usize, device: &Device) -> T5Attention {
        let inner = self.heads * self.d_kv;
        // T5's initialisation: the missing scale of the attention scores is in the query weights.
        let q = Init::Normal(1.0 / ((self.d_model * self.d_kv) as f32).sqrt());
        T5Attention {
            q: QLinear::with_init(self.d_model, inner, false, q, device),
            k: QLinear::new(kv_width, inner, false, device),
            v: QLinear::new(kv_width, inner, false, device),
            o: QLinear::with_init(inner, self.d_model, false, self.last(), device),
            heads: self.heads,
        }
    }
}

/// T5's unidirectional bucket of a distance `query - key`: exact up to half of the buckets, then logarithmic. Computed
/// in f32 as in the original, which decides ties at bucket edges.
pub fn bucket(distance: usize, buckets: usize, max_distance: usize) -> usize {
    let exact = buckets / 2;
    if distance < exact {
        return distance;
    }
    let ratio = libm::logf(distance as f32 / exact as f32)
        / libm::log(max_distance as f64 / exact as f64) as f32;
    let large = exact + (ratio * (buckets - exact) as f32) as usize;
    large.min(buckets - 1)
}

impl CausalFormer {
    /// Visual embeddings of an image for the LM.
    ///
    /// # Shapes
    /// - `tokens`: `[B, N, V]`, the encoder's normed output
    /// - returns `[B, Q, lm width]`
    pub fn forward(&self, tokens: Tensor<3>) -> Tensor<3> {
        self.forward_probed(tokens, self.causal_tokens.val(), &mut Probe::off())
    }

    /// As [`CausalFormer::forward`] with these queries `[1, Q, D]`, reporting intermediate tensors to the probe.
    pub fn forward_probed(
        &self,
        tokens: Tensor<3>,
        queries: Tensor<3>,
        probe: &mut Probe,
    ) -> Tensor<3> {
        let [b, n, _] = tokens.dims();
        let [_, q, d] = queries.dims();

        // 1. queries, plus the encoder token of the same raster position in small models
        let mut x = queries.expand([b, q, d]);
        if let Some(raster) = &self.raster {
            x = x + raster.forward(tokens.clone().narrow(1, n - q, q));
        }

        // 2. blocks
        let bias = self.position_bias(q); // [1, H, Q, Q]
        for (i, block) in self.blocks.iter().enumerate() {
            let h = block.self_norm.forward(x.clone());
            x = x + block.self_attn.forward(h.clone(), h, Some(bias.clone()));
            probe.see(format_args!("cformer.block{i}.self"), &x);
            let h = block.cross_norm.forward(x.clone());
            x = x + block.cross_attn.forward(h, tokens.clone(), None);
            probe.see(format_args!("cformer.block{i}.cross"), &x);
            x = x.clone()
                + block
                    .wo
                    .forward(relu(block.wi.forward(block.ff_norm.forward(x))));
            probe.see(format_args!("cformer.block{i}.ff"), &x);
        }

        // 3. norm and projection, without T5's d_model^-0.5 between them
        let x = self.final_norm.forward(x);
        probe.see(format_args!("cformer.final"), &x);
        let x = self.projection.forward(x);
        probe.see(format_args!("cformer.projection"), &x);
        x
    }

    /// Relative position bias of `n` queries, without the causal mask: `[1, H, n, n]`.
    pub fn position_bias(&self, n: usize) -> Tensor<4> {
        let index: Vec<i32> = (0..n * n)
            .map(|i| {
                bucket(
                    (i / n).saturating_sub(i % n),
                    self.buckets,
                    self.max_distance,
                ) as i32
            })
            .collect();
        let index: Tensor<2, Int> = Tensor::from_data(
            TensorData::new(index, [n, n]),
            &self.causal_tokens.val().device(),
        );
        self.relative_bias
            .forward(index)
            .permute([2, 0, 1])
            .unsqueeze() // [1, H, n, n]
    }
}

impl T5Attention {
    /// `x`: `[B, Q, D]`, `source`: input of keys and values. With a bias it is causal self-attention.
    fn forward(&self, x: Tensor<3>, source: Tensor<3>, bias: Option<Tensor<4>>) -> Tensor<3> {
        let [b, n, _] = x.dims();
        let [inner, _] = self.q.weight.lazy_shape().dims();
        let (h, e) = (self.heads, inner / self.heads);
        let heads = |y: Tensor<3>| {
            let [_, s, _] = y.dims();
            y.reshape([b, s, h, e]).swap_dims(1, 2)
        };
        let options = AttentionOptions {
            causal: bias.is_some(),
            scale: Some(1.0),
            bias,
            mask: None,
        };
        let y = ops::attention(
            heads(self.q.forward(x)),
            heads(self.k.forward(source.clone())),
            heads(self.v.forward(source)),
            options,
        );
        self.o.forward(y.swap_dims(1, 2).reshape([b, n, inner]))
    }
}
