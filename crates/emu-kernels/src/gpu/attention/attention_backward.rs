//! Backward pass of attention: two launches, three if the bias is trainable.

use burn::backend::Cube;
use burn::backend::ops::{BoolTensorOps, FloatTensorOps};
use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use super::attention::{INVOCATIONS, TILE, Views, buffer, offsets, rows, strides, vectors};
use crate::gpu::kernel::{Field, Kernel, kernel};
use crate::gpu::template::Constants;
use crate::gpu::{apart, output};
use crate::spec::AttentionSpec;

/// Score of masked keys; the shader has the same constant.
const LOWEST: f32 = -3.0e38;

/// Inputs of the kernel, and what was saved by the forward pass.
pub struct Known {
    /// `[B, H, T, E]`, `[B, G, S, E]`, `[B, G, S, E]`.
    pub qkv: [CubeTensor; 3],
    /// As for [`super::attention::attention`]; a mask of words.
    pub mask: CubeTensor,
    /// As for [`super::attention::attention`].
    pub bias: CubeTensor,
    /// If there are both mask and bias: the bias, with `LOWEST` at masked keys.
    pub masked_bias: Option<CubeTensor>,
    /// The output, `[B, H, T, E]`.
    pub y: CubeTensor,
    /// Saved by the forward pass, `[B, H, T, 2]`.
    pub logsumexp: CubeTensor,
    /// The output gradient.
    pub grad: CubeTensor,
}

/// Merges a mask (`[B or 1, H or 1, T or 1, S]`) into a bias (`[B or 1, H or 1, T, S]`): masked keys get `LOWEST`, which the
/// kernel treats as masked.
pub fn masked(bias: CubeTensor, mask: CubeTensor) -> CubeTensor {
    let [a, b] = [&bias, &mask].map(|x| x.meta.shape().dims::<4>());
    let shape = Shape::new([0, 1, 2, 3].map(|axis| a[axis].max(b[axis])));
    let bias = Cube::float_expand(bias, shape.clone());
    Cube::float_mask_fill(bias, Cube::bool_expand(mask, shape), LOWEST.into())
}

/// The gradient that a launch computes. In the template, the buffers of the results tell which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gradient {
    Queries,
    /// Of keys and values.
    Keys,
    Bias,
}

impl Field for Gradient {
    fn define(&self, _: &'static str, _: &mut Constants) {}
}

kernel! {
    /// Gradients of attention.
    AttentionBackwardKernel, "attention_backward" ["attention/attention_backward.wgsl"]
    {
        /// E
        head_size: usize,
        /// What is computed.
        gradient: Gradient,
        /// Causal mask.
        causal: bool,
        /// Whether a bias is added to the scores.
        bias: bool,
        /// Whether keys are masked.
        mask: bool,
        /// The buffers of keys and values.
        views: Views,
    }
    |key| { invocations: INVOCATIONS, vectors: key.head_size / 4, }
    /// As in the forward pass, with the gradient of the output; the results.
    AttentionBackwardBuffers {
        queries, grads, logsumexp, keys if key.views.own_keys(), values if key.views.own_values(),
        bias if key.bias, mask if key.mask,
        at_q if key.gradient == Gradient::Queries, y if key.gradient == Gradient::Queries,
        at_k if key.gradient == Gradient::Keys, at_v if key.gradient == Gradient::Keys,
        at_bias if key.gradient == Gradient::Bias,
    }
    uniform info
}

/// Gradients of q, k and v, in their shapes, as views of `[B, positions, heads, E]`; and of the bias, `[B or 1, H or 1, T, S]`,
/// if `spec.score_gradient`.
pub fn attention_backward(
    known: Known,
    spec: AttentionSpec,
) -> ([CubeTensor; 3], Option<CubeTensor>) {
    let Known {
        qkv: [q, k, v],
        mask,
        bias,
        masked_bias,
        y,
        logsumexp,
        grad,
    } = known;
    let [q, k, v, y, grad] = [q, k, v, y, grad].map(vectors);
    let grad = [&q, &k, &v, &y].into_iter().fold(grad, apart);
    let y = [&q, &k, &v].into_iter().fold(y, apart);
    let [mask, bias] = [mask, bias].map(rows);
    let [b, h, t, e] = q.meta.shape().dims::<4>();
    let [_, g, s, _] = k.meta.shape().dims::<4>();
    let [biases, bias_heads, ..] = bias.meta.shape().dims::<4>();
    let at_q = output(&q, Shape::new([b, t, h, e]));
    let [at_k, at_v] = [(); 2].map(|()| output(&q, Shape::new([b, s, g, e])));
    let at_bias =
        { spec.score_gradient }.then(|| output(&q, Shape::new([biases, bias_heads, t, s])));

    let views = Views::of(&q, &k, &v);
    let mut sizes = vec![t as u32, s as u32, (h / g) as u32];
    sizes.push((spec.scale as f32).to_bits());
    for x in [&q, &k, &v, &grad, &y] {
        sizes.extend(offsets(x));
    }
    let [q, k, v, y, grad] = [q, k, v, y, grad].map(buffer);
    let launch = |gradient: Gradient, workgroups: [usize; 3]| {
        // These have one output more, so the mask is merged into the bias: eight buffers is the limit of all adapters.
        let (bias, mask) = match (&masked_bias, gradient) {
            (Some(masked), Gradient::Queries | Gradient::Keys) => (Some(masked), None),
            _ => (spec.bias.then_some(&bias), spec.mask.then_some(&mask)),
        };
        let mut info = sizes.clone();
        for tensor in [bias, mask] {
            info.extend(tensor.map_or([0; 4], |tensor| strides(tensor, 1)));
        }
        info.extend([b, h, biases, bias_heads].map(|n| n as u32));
        let key = AttentionBackwardKernel {
            head_size: e,
            gradient,
            causal: spec.causal,
            bias: bias.is_some(),
            mask: mask.is_some(),
            views,
        };
        let buffers = AttentionBackwardBuffers {
            queries: &q,
            grads: &grad,
            logsumexp: &logsumexp,
            keys: Some(&k),
            values: Some(&v),
            bias,
            mask,
            at_q: Some(&at_q),
            y: Some(&y),
            at_k: Some(&at_k),
            at_v: Some(&at_v),
            at_bias: at_bias.as_ref(),
        };
        key.launch(workgroups, buffers, &info);
    };
    // The first launch saves Σ g y, which the others read.
    let (row_tiles, key_tiles) = (t.div_ceil(TILE), s.div_ceil(TILE));
    launch(Gradient::Queries, [row_tiles, h, b]);
    launch(Gradient::Keys, [key_tiles, g, b]);
    if at_bias.is_some() {
        let workgroups = [row_tiles * key_tiles, bias_heads, biases];
        launch(Gradient::Bias, workgroups);
    }
    let grads = [at_q, at_k, at_v].map(|mut x| {
        x.meta.swap(1, 2);
        x
    });
    (grads, at_bias)
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    use crate::gpu::tests::VIEWS;
    for views in VIEWS {
        for flags in 0..8 {
            let [causal, bias, mask] = [0, 1, 2].map(|bit| flags >> bit & 1 == 1);
            for gradient in [Gradient::Queries, Gradient::Keys, Gradient::Bias] {
                // The launches with two results have the mask in the bias.
                if bias && mask && gradient != Gradient::Bias {
                    continue;
                }
                checked.check(AttentionBackwardKernel {
                    head_size: 40,
                    gradient,
                    causal,
                    bias,
                    mask,
                    views,
                });
            }
        }
    }
}
