use burn::backend::flex::FlexTensor;
use burn::backend::ops::{ActivationOps, FloatTensorOps};
use burn::tensor::TensorData;

use super::*;
use crate::random::Philox;

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

/// The CPU's attention beside Burn's operations: odd sizes, several blocks, masks that hide whole rows, biases that
/// repeat, tensors that are not contiguous.
#[test]
fn attention_of_the_cpu_is_that_of_burn() {
    for (b, h, t, s, e, causal) in [
        (2, 3, 5, 5, 4, true),
        (1, 2, 70, 70, 8, true),
        (2, 1, 3, 40, 7, false),
        (2, 2, 4, 9, 3, true),
    ] {
        for masked in 0..4 {
            let (has_hidden, has_bias) = (masked & 1 != 0, masked & 2 != 0);
            let spec = AttentionSpec {
                causal,
                scale: 0.3,
                seen: s,
                hidden: has_hidden,
                bias: has_bias,
                score_gradient: true,
            };
            let [q, grad] = [1, 2].map(|i| random(i, [b, h, t, e]));
            let [k, v] = [3, 4].map(|i| random(i, [b, h, s, e]));
            // The same numbers behind other strides.
            let k = k.transpose(1, 2).to_contiguous().transpose(1, 2);
            let flags: Vec<bool> = (0..b * t * s)
                .map(|i| i / s % 3 == 1 || i % 4 == 0)
                .collect();
            let hidden = FlexTensor::from_data(TensorData::new(flags, [b, 1, t, s]));
            let bias = random(5, [1, h, t, s]);
            let p = composed::probabilities::<Flex>(
                q.clone(),
                k.clone(),
                hidden.clone(),
                bias.clone(),
                spec,
            );
            let y = Flex::float_matmul(p.clone(), v.clone());
            let (found, kept) = Flex::emu_attention_keeping(
                q.clone(),
                k.clone(),
                v.clone(),
                hidden.clone(),
                bias.clone(),
                spec,
            );
            let plain = Flex::emu_attention(
                q.clone(),
                k.clone(),
                v.clone(),
                hidden.clone(),
                bias.clone(),
                spec,
            );
            near(found, y.clone(), "attention");
            near(plain, y.clone(), "attention, nothing kept");
            near(kept, p.clone(), "probabilities");
            let a = composed::attention_backward::<Flex>(
                q.clone(),
                k.clone(),
                v.clone(),
                p.clone(),
                grad.clone(),
                spec,
            );
            let b = Flex::emu_attention_backward(q, k, v, hidden, bias, y, p, grad, spec);
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
