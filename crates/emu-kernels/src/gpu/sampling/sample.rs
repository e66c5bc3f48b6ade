//! Token sampling.

use burn_wgpu::CubeTensor;

use crate::gpu::into_contiguous;
use crate::gpu::kernel::{Kernel, Reduction, kernel};
use crate::spec::{SAMPLE_HEADER, SampleSpec};
use crate::variants;

kernel! {
    /// Processes a row of logits and samples a token.
    SampleKernel, "sample" ["shared/reduce.wgsl", "shared/order.wgsl", "sampling/sample.wgsl"]
    {
        /// Vocabulary size.
        width: usize,
        /// A banned token.
        banned: Option<usize>,
        /// The end token, banned in shorter histories than `min_length`.
        end: Option<usize>,
        /// Minimum length of the history, if there is an end token.
        min_length: Option<usize>,
        /// Size of n-grams that may not repeat.
        ngram: Option<usize>,
        /// Whether tokens are biased.
        bias: bool,
        /// Whether there is a repetition penalty.
        penalty: bool,
        /// Whether there is a presence or frequency penalty.
        counts: bool,
        /// Whether a token is drawn; else the greatest is taken.
        draw: bool,
        /// Number of candidates.
        top_k: Option<usize>,
        /// Whether there is a top-p.
        top_p: bool,
        /// Whether there is a min-p.
        min_p: bool,
        /// How the workgroup reduces.
        reduction: Reduction,
    }
    |key| { invocations: 256, header: SAMPLE_HEADER, }
    /// `[1, width]`, `[1]`, the history; the sampler's numbers.
    SampleBuffers {
        logits, token, history,
        numbers if key.draw || key.bias || key.penalty || key.counts,
    }
}

impl SampleKernel {
    pub fn new(width: usize, spec: &SampleSpec) -> Self {
        let some = |number: usize| (number > 0).then_some(number);
        // Without an end token in the vocabulary there is nothing to ban.
        let min_length = some(spec.min_length).filter(|_| spec.end < width);
        Self {
            width,
            banned: spec.banned.filter(|token| *token < width),
            end: min_length.map(|_| spec.end),
            min_length,
            ngram: some(spec.ngram),
            bias: spec.bias,
            penalty: spec.penalty,
            counts: spec.counts,
            draw: spec.sample,
            top_k: some(spec.top_k),
            top_p: spec.top_p,
            min_p: spec.min_p && spec.sample,
            reduction: Reduction::by(variants::wide_subgroups()),
        }
    }
}

/// Processes logits, samples a token, and appends it to the history.
pub fn sample(
    logits: CubeTensor,
    numbers: CubeTensor,
    token: CubeTensor,
    history: CubeTensor,
    spec: SampleSpec,
) -> (CubeTensor, CubeTensor) {
    let logits = into_contiguous(logits);
    let key = SampleKernel::new(logits.meta.shape()[1], &spec);
    let buffers = SampleBuffers {
        logits: &logits,
        token: &token,
        history: &history,
        numbers: Some(&numbers),
    };
    key.launch([1, 1, 1], buffers, &[]);
    (token, history)
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    use crate::gpu::tests::REDUCTIONS;
    for reduction in REDUCTIONS {
        for flags in 0..128 {
            let on = |bit: usize| flags >> bit & 1 == 1;
            let number = |bit: usize| if on(bit) { 3 } else { 0 };
            let spec = SampleSpec {
                banned: on(0).then_some(5),
                end: 2,
                min_length: number(1),
                ngram: number(2),
                penalty: on(3),
                counts: on(1),
                bias: on(6),
                sample: on(4),
                top_k: number(5),
                top_p: on(2),
                min_p: on(0),
            };
            let key = SampleKernel::new(1009, &spec);
            checked.check(SampleKernel { reduction, ..key });
        }
    }
}
