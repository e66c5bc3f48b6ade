//! Compares CPU kernels of transformers with compositions of Burn's operations.

use burn::backend::flex::FlexTensor;
use burn::backend::ops::{ActivationOps, FloatTensorOps};
use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, Flex, TensorMetadata};
use burn::tensor::{Shape, TensorData};

use crate::ops::activation::{ActivationBackend, ActivationGradient};
use crate::ops::attention::{AttentionBackend, AttentionGradient};
use crate::random::Philox;
use crate::spec::AttentionSpec;

fn random(seed: u32, shape: [usize; 4]) -> FlexTensor {
    let values = Philox::with_stream(3, 40 + seed, 0).normals(shape.iter().product());
    FlexTensor::from_data(TensorData::new(values, shape))
}

fn floats(x: FlexTensor) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

fn near(a: FlexTensor, b: FlexTensor, what: &str) {
    let (a, b) = (floats(a), floats(b));
    assert_eq!(a.len(), b.len(), "{what}");
    let error = a
        .iter()
        .zip(&b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    let size = b.iter().fold(1.0f32, |m, x| m.max(x.abs()));
    assert!(
        error < 3e-6 * size && a.iter().all(|a| a.is_finite()),
        "{what}: {error}"
    );
}

/// CPU attention against Burn's operations: odd sizes, several blocks, fully masked rows, broadcast biases, non-contiguous
/// tensors.
#[test]
fn attention_of_the_cpu_is_that_of_burn() {
    for (b, h, t, s, e, causal) in [
        (2, 3, 5, 5, 4, true),
        (1, 2, 70, 70, 8, true),
        (2, 1, 3, 40, 7, false),
        (2, 2, 4, 9, 3, true),
    ] {
        for masked in 0..4 {
            let (has_mask, has_bias) = (masked & 1 != 0, masked & 2 != 0);
            let spec = AttentionSpec {
                causal,
                scale: 0.3,
                kv_len: s,
                mask: has_mask,
                bias: has_bias,
                score_gradient: true,
            };
            let [q, grad] = [1, 2].map(|i| random(i, [b, h, t, e]));
            let [k, v] = [3, 4].map(|i| random(i, [b, h, s, e]));
            // Same values with other strides.
            let k = k.transpose(1, 2).to_contiguous().transpose(1, 2);
            let flags: Vec<bool> = (0..b * t * s)
                .map(|i| i / s % 3 == 1 || i % 4 == 0)
                .collect();
            let mask = FlexTensor::from_data(TensorData::new(flags, [b, 1, t, s]));
            let bias = random(5, [1, h, t, s]);
            let p = composed::probabilities::<Flex>(
                q.clone(),
                k.clone(),
                mask.clone(),
                bias.clone(),
                spec,
            );
            let y = Flex::float_matmul(p.clone(), v.clone());
            let (found, saved) = Flex::emu_attention_saving(
                q.clone(),
                k.clone(),
                v.clone(),
                mask.clone(),
                bias.clone(),
                spec,
            );
            let plain = Flex::emu_attention(
                q.clone(),
                k.clone(),
                v.clone(),
                mask.clone(),
                bias.clone(),
                spec,
            );
            near(found, y.clone(), "attention");
            near(plain, y.clone(), "attention, nothing saved");
            near(saved, p.clone(), "probabilities");
            let a = composed::attention_backward::<Flex>(
                q.clone(),
                k.clone(),
                v.clone(),
                p.clone(),
                grad.clone(),
                spec,
            );
            let b = Flex::emu_attention_backward(q, k, v, mask, bias, y, p, grad, spec);
            near(a.0, b.0, "q");
            near(a.1, b.1, "k");
            near(a.2, b.2, "v");
            near(a.3, b.3, "scores");
        }
    }
}

#[test]
fn gates_of_the_cpu_are_those_of_burn() {
    let shape = [1, 3, 7, 11];
    let [gate, up, grad] = [1, 2, 3].map(|i| Flex::float_mul_scalar(random(i, shape), 4.0.into()));
    let s = Flex::sigmoid(gate.clone());
    let y = Flex::float_mul(Flex::float_mul(gate.clone(), s), up.clone());
    near(Flex::emu_silu_gate(gate.clone(), up.clone()), y, "gate");
    let a = composed::silu_gate_backward::<Flex>(gate.clone(), up.clone(), grad.clone());
    let b = Flex::emu_silu_gate_backward(gate.clone(), up, grad.clone());
    near(a.0, b.0, "at the gate");
    near(a.1, b.1, "at the other");
    near(
        Flex::emu_gelu(gate.clone()),
        Flex::gelu(gate.clone()),
        "gelu",
    );
    near(
        Flex::emu_gelu_backward(gate.clone(), grad.clone()),
        Flex::gelu_backward(gate, grad),
        "gelu backward",
    );
}

/// Reference implementations composed of Burn's operations.
mod composed {
    use super::*;

    /// Softmax of the scores; 0 where every key is masked.
    pub fn probabilities<B: Backend>(
        q: FloatTensor<B>,
        k: FloatTensor<B>,
        mask: BoolTensor<B>,
        bias: FloatTensor<B>,
        spec: AttentionSpec,
    ) -> FloatTensor<B> {
        let ([b, h, t, _], [_, _, s, _]) = (q.shape().dims::<4>(), k.shape().dims::<4>());
        let full = Shape::new([b, h, t, s]);
        let mut scores = B::float_matmul(
            B::float_mul_scalar(q, spec.scale.into()),
            B::float_transpose(k),
        );
        if spec.bias {
            scores = B::float_add(scores, bias);
        }
        if spec.mask {
            scores = B::float_mask_fill(scores, B::bool_expand(mask, full.clone()), LOWEST.into());
        }
        if spec.causal {
            let device = scores.device();
            let later = |(row, column): (usize, usize)| column + t > row + s;
            let flags: Vec<bool> = (0..t)
                .flat_map(|row| (0..s).map(move |c| later((row, c))))
                .collect();
            let data = burn::tensor::TensorData::new(flags, [1, 1, t, s]);
            let mask = B::bool_expand(B::bool_from_data(data, &device), full);
            scores = B::float_mask_fill(scores, mask, LOWEST.into());
        }
        let greatest = B::float_max_dim(scores.clone(), 3);
        let shown = B::float_greater_elem(
            scores.clone(),
            (LOWEST * 0.5).into(),
            burn::tensor::BoolDType::Native,
        );
        let exps = B::float_exp(B::float_sub(scores, greatest));
        let exps = B::float_mul(
            exps,
            B::bool_into_float(shown, burn::tensor::FloatDType::F32),
        );
        let sum = B::float_clamp_min(B::float_sum_dim(exps.clone(), 3), f32::MIN_POSITIVE.into());
        B::float_div(exps, sum)
    }

    /// Masked scores are set to this; finite, so that a fully masked row gives no NaN.
    const LOWEST: f32 = -1e30;

    pub fn attention_backward<B: Backend>(
        q: FloatTensor<B>,
        k: FloatTensor<B>,
        v: FloatTensor<B>,
        p: FloatTensor<B>,
        grad: FloatTensor<B>,
        spec: AttentionSpec,
    ) -> (
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
    ) {
        let at_v = B::float_matmul(B::float_transpose(p.clone()), grad.clone());
        let at_p = B::float_matmul(grad, B::float_transpose(v));
        let mean = B::float_sum_dim(B::float_mul(at_p.clone(), p.clone()), 3);
        let at_scores = B::float_mul(p, B::float_sub(at_p, mean));
        let scaled = B::float_mul_scalar(at_scores.clone(), spec.scale.into());
        let at_q = B::float_matmul(scaled.clone(), k);
        let at_k = B::float_matmul(B::float_transpose(scaled), q);
        (at_q, at_k, at_v, at_scores)
    }

    pub fn silu_gate_backward<B: Backend>(
        gate: FloatTensor<B>,
        up: FloatTensor<B>,
        grad: FloatTensor<B>,
    ) -> (FloatTensor<B>, FloatTensor<B>) {
        let s = B::sigmoid(gate.clone());
        let at_up = B::float_mul(grad.clone(), B::float_mul(gate.clone(), s.clone()));
        let rest = B::float_add_scalar(B::float_neg(s.clone()), 1.0.into());
        let slope = B::float_mul(s, B::float_add_scalar(B::float_mul(gate, rest), 1.0.into()));
        (B::float_mul(B::float_mul(grad, up), slope), at_up)
    }
}
