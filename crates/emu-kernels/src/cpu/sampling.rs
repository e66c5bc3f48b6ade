//! Token sampling on the CPU.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::TensorData;

use super::beams;
use super::{contiguous, values};
use crate::ops::sampling::SamplingBackend;
use crate::sample::{Processors, Sampling};
use crate::spec::SampleSpec;

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
    let processors = Processors {
        repetition_penalty: if spec.penalty { numbers[2] } else { 1.0 },
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
    };
    let uniform = numbers.get(2 + made).copied().unwrap_or(0.0);
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

impl SamplingBackend for Flex {
    fn emu_sample(
        logits: FloatTensor<Self>,
        numbers: FloatTensor<Self>,
        token: IntTensor<Self>,
        history: IntTensor<Self>,
        spec: SampleSpec,
    ) -> (IntTensor<Self>, IntTensor<Self>) {
        let _ = token;
        sample(logits, numbers, history, spec)
    }

    fn emu_best_beams(
        logits: FloatTensor<Self>,
        asked: IntTensor<Self>,
        best: usize,
        changes: bool,
    ) -> IntTensor<Self> {
        let _ = changes;
        beams::best(logits, asked, best)
    }
}
