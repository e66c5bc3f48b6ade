//! Token sampling on a GPU.

use burn::backend::Cube;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn_wgpu::CubeTensor;

use super::{Shader, beams, into_contiguous, reductions};
use crate::ops::sampling::SamplingBackend;
use crate::spec::SampleSpec;
use crate::variants;

fn sample_shader(width: usize, spec: &SampleSpec) -> Shader {
    let banned = spec.banned.filter(|token| *token < width);
    let mut constants = vec![
        ("width", width),
        ("forbids", usize::from(banned.is_some())),
        ("banned", banned.unwrap_or(0)),
        ("end", spec.end.min(width - 1)),
        // Without an end token in the vocabulary there is nothing to ban.
        (
            "min_length",
            if spec.end < width { spec.min_length } else { 0 },
        ),
        ("ngram", spec.ngram),
        ("penalty", usize::from(spec.penalty)),
        ("sample", usize::from(spec.sample)),
        ("top_k", spec.top_k),
        ("top_p", usize::from(spec.top_p)),
        ("numbered", usize::from(spec.sample || spec.penalty)),
        ("invocations", 256),
    ];
    constants.extend(reductions(variants::wide_subgroups()));
    Shader {
        name: "sample",
        text: concat!(
            include_str!("../../../../shaders/shared/reduce.wgsl"),
            include_str!("../../../../shaders/shared/order.wgsl"),
            include_str!("../../../../shaders/sample/sample.wgsl")
        ),
        constants,
        invocations: 256,
    }
}

/// Processes logits, samples a token, and appends it to the history.
fn sample(
    logits: CubeTensor,
    numbers: CubeTensor,
    token: CubeTensor,
    history: CubeTensor,
    spec: SampleSpec,
) -> (CubeTensor, CubeTensor) {
    let logits = into_contiguous(logits);
    let mut tensors = vec![&logits, &token, &history];
    if spec.sample || spec.penalty {
        tensors.push(&numbers);
    }
    sample_shader(logits.meta.shape()[1], &spec).launch([1, 1, 1], &tensors);
    (token, history)
}

impl SamplingBackend for Cube {
    fn emu_sample(
        logits: FloatTensor<Self>,
        numbers: FloatTensor<Self>,
        token: IntTensor<Self>,
        history: IntTensor<Self>,
        spec: SampleSpec,
    ) -> (IntTensor<Self>, IntTensor<Self>) {
        sample(logits, numbers, token, history, spec)
    }

    fn emu_best_beams(
        logits: FloatTensor<Self>,
        asked: IntTensor<Self>,
        best: usize,
        changes: bool,
    ) -> IntTensor<Self> {
        beams::best(logits, asked, best, changes)
    }
}
