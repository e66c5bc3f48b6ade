//! GPU backward pass of attention: two launches, three if the bias is trainable.

use burn::backend::Cube;
use burn::backend::ops::{BoolTensorOps, FloatTensorOps};
use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use super::attention::{
    TILE, attention as forward, buffer, offsets, rows, same, strides, vectors, words,
};
use super::{Shader, apart, output};
use crate::ops::attention::AttentionGradient;
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

/// The gradient that a launch computes.
#[derive(Clone, Copy, PartialEq)]
enum Section {
    Queries,
    Keys,
    Bias,
}

/// Gradients of q, k and v, in their shapes, as views of `[B, positions, heads, E]`; and of the bias, `[B or 1, H or 1, T, S]`,
/// if `spec.score_gradient`.
pub fn backward(known: Known, spec: AttentionSpec) -> ([CubeTensor; 3], Option<CubeTensor>) {
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

    let keys_of_queries = same(&k, &q);
    let values_of_queries = same(&v, &q);
    let values_of_keys = !values_of_queries && !keys_of_queries && same(&v, &k);
    let (own_keys, own_values) = (!keys_of_queries, !values_of_queries && !values_of_keys);
    let mut sizes = vec![t as u32, s as u32, (h / g) as u32];
    sizes.push((spec.scale as f32).to_bits());
    for x in [&q, &k, &v, &grad, &y] {
        sizes.extend(offsets(x));
    }
    let mut inputs = vec![buffer(q), buffer(grad), logsumexp];
    let mut bind = |used: bool, tensor: CubeTensor| {
        let at = inputs.len();
        inputs.extend(used.then(|| buffer(tensor)));
        at
    };
    let (keys_at, values_at) = (bind(own_keys, k), bind(own_values, v));
    let y = buffer(y);
    let launch = |section: Section, outputs: &[&CubeTensor], workgroups: [usize; 3]| {
        // These have one output more, so the mask is merged into the bias: eight buffers is the limit of all adapters.
        let (bias, mask) = match (&masked_bias, section) {
            (Some(masked), Section::Queries | Section::Keys) => (Some(masked), None),
            _ => (spec.bias.then_some(&bias), spec.mask.then_some(&mask)),
        };
        let mut tensors: Vec<&CubeTensor> = inputs.iter().collect();
        let bias_at = tensors.len();
        tensors.extend(bias);
        let mask_at = tensors.len();
        tensors.extend(mask);
        let out_at = tensors.len();
        tensors.extend(outputs);
        let info_at = tensors.len();

        let mut info = sizes.clone();
        for tensor in [bias, mask] {
            info.extend(tensor.map_or([0; 4], |tensor| strides(tensor, 1)));
        }
        info.extend([b, h, biases, bias_heads].map(|n| n as u32));
        let flag = usize::from;
        let shader = Shader {
            name: "attention_backward",
            text: include_str!("../../../../shaders/attention/attention_backward.wgsl"),
            constants: vec![
                ("vectors", e / 4),
                ("causal", flag(spec.causal)),
                ("full", flag(!spec.causal)),
                ("bias", flag(bias.is_some())),
                ("mask", flag(mask.is_some())),
                ("own_keys", flag(own_keys)),
                ("own_values", flag(own_values)),
                ("keys_of_queries", flag(keys_of_queries)),
                ("values_of_queries", flag(values_of_queries)),
                ("values_of_keys", flag(values_of_keys)),
                ("at_queries", flag(section == Section::Queries)),
                ("at_keys", flag(section == Section::Keys)),
                ("at_bias", flag(section == Section::Bias)),
                ("keys_at", keys_at),
                ("values_at", values_at),
                ("bias_at", bias_at),
                ("mask_at", mask_at),
                ("out_at", out_at),
                ("out_too_at", out_at + 1),
                ("info_at", info_at),
            ],
            invocations: 64,
        };
        shader.launch_with(workgroups, &tensors, &info);
    };
    // The first launch saves Σ g y, which the others read.
    let (row_tiles, key_tiles) = (t.div_ceil(TILE), s.div_ceil(TILE));
    launch(Section::Queries, &[&at_q, &y], [row_tiles, h, b]);
    launch(Section::Keys, &[&at_k, &at_v], [key_tiles, g, b]);
    if let Some(at_bias) = &at_bias {
        let workgroups = [row_tiles * key_tiles, bias_heads, biases];
        launch(Section::Bias, &[at_bias], workgroups);
    }
    let grads = [at_q, at_k, at_v].map(|mut x| {
        x.meta.swap(1, 2);
        x
    });
    (grads, at_bias)
}

impl AttentionGradient for Cube {
    fn emu_attention_saving(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let mask = words(mask, spec);
        let (y, logsumexp) = forward([q, k, v], mask, bias, spec, true);
        let logsumexp = logsumexp.unwrap_or_else(|| y.clone());
        (y, logsumexp)
    }

    fn emu_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: BoolTensor<Self>,
        bias: FloatTensor<Self>,
        y: FloatTensor<Self>,
        logsumexp: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        let masked_bias = { spec.bias && spec.mask }.then(|| masked(bias.clone(), mask.clone()));
        let known = Known {
            mask: words(mask, spec),
            bias,
            masked_bias,
            y,
            logsumexp: logsumexp.clone(),
            grad,
            qkv: [q, k, v],
        };
        let ([q, k, v], at_bias) = backward(known, spec);
        (q, k, v, at_bias.unwrap_or(logsumexp))
    }
}
