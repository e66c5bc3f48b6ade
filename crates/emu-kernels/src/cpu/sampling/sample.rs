//! Token sampling.

use burn::backend::flex::FlexTensor;
use burn::tensor::TensorData;

use crate::cpu::{contiguous, values};
use crate::sample::{Processors, Sampling};
use crate::spec::{SAMPLE_HEADER, SampleSpec};

/// Processes a row of logits, samples a token, and appends it to the history.
pub fn sample(
    logits: FlexTensor,
    numbers: FlexTensor,
    history: FlexTensor,
    spec: SampleSpec,
) -> (FlexTensor, FlexTensor) {
    let (logits, numbers) = (contiguous(logits), contiguous(numbers));
    let mut history = contiguous(history);
    let mut logits = values(&logits).to_vec();
    let numbers = values(&numbers);
    let past = history.storage_mut::<i32>();
    let made = (past[0].max(0) as usize).min(past.len() - 1);
    let tokens: Vec<u32> = past[1..1 + made]
        .iter()
        .map(|&token| token as u32)
        .collect();
    let strange = logits.iter().any(|logit| logit.is_nan());
    let biased = numbers[SAMPLE_HEADER - 1] as usize;
    let (biases, uniforms) = numbers[SAMPLE_HEADER..].split_at(2 * biased);
    let biases = biases.chunks_exact(2);
    let processors = Processors {
        repetition_penalty: if spec.penalty { numbers[2] } else { 1.0 },
        presence_penalty: if spec.counts { numbers[4] } else { 0.0 },
        frequency_penalty: if spec.counts { numbers[5] } else { 0.0 },
        logit_bias: biases.map(|pair| (pair[0] as u32, pair[1])).collect(),
        no_repeat_ngram: spec.ngram,
        min_length: spec.min_length,
    };
    processors.apply(&tokens, spec.end as u32, &mut logits);
    if let Some(logit) = spec.banned.and_then(|token| logits.get_mut(token)) {
        *logit = f32::NEG_INFINITY;
    }
    let sampling = Sampling {
        temperature: if spec.sample { numbers[0] } else { 0.0 },
        top_k: spec.top_k,
        top_p: if spec.top_p { numbers[1] } else { 1.0 },
        min_p: if spec.min_p { numbers[3].exp() } else { 0.0 },
    };
    // `<s>` is in the history, and was not drawn.
    let uniform = uniforms.get(made.saturating_sub(1)).copied().unwrap_or(0.0);
    let token = sampling.sample(&logits, uniform) as i32;
    if 1 + made < past.len() {
        past[1 + made] = token;
        past[0] = made as i32 + 1;
    }
    let token = if strange { -1 } else { token };
    (
        FlexTensor::from_data(TensorData::new(vec![token], [1])),
        history,
    )
}
