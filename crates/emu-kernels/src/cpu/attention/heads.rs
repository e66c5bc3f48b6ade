//! The sizes and matrices of attention: what its forward and backward pass share.
//!
//! B batch, H heads, T queries, S keys, E head size.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::cpu::matrix::Matrix;
use crate::spec::AttentionSpec;

/// Queries per matrix product; under a causal mask each block skips the keys after it.
pub const BLOCK: usize = 32;

/// Sizes of a call.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub b: usize,
    pub h: usize,
    pub t: usize,
    pub s: usize,
    pub e: usize,
    causal: bool,
}

impl Sizes {
    pub fn new(q: &FlexTensor, k: &FlexTensor, spec: AttentionSpec) -> Self {
        let ([b, h, t, e], [_, _, s, _]) = (q.shape().dims::<4>(), k.shape().dims::<4>());
        Self {
            b,
            h,
            t,
            s,
            e,
            causal: spec.causal,
        }
    }

    /// Number of keys that query `row` sees.
    pub fn limit(&self, row: usize) -> usize {
        if self.causal {
            (row + 1 + self.s).saturating_sub(self.t).min(self.s)
        } else {
            self.s
        }
    }

    /// First row, number of rows and number of keys of each block of queries.
    pub fn blocks(self) -> impl Iterator<Item = (usize, usize, usize)> {
        (0..self.t).step_by(BLOCK).map(move |first| {
            let rows = BLOCK.min(self.t - first);
            (first, rows, self.limit(first + rows - 1))
        })
    }
}

/// The matrices `[rows, E]` of a tensor `[B, H, rows, E]` with any strides.
pub struct Heads<'a> {
    values: &'a [f32],
    strides: [usize; 4],
}

/// The tensor itself if its strides are positive, else a contiguous copy.
pub fn usable(x: FlexTensor) -> FlexTensor {
    if x.layout().has_positive_strides() {
        x
    } else {
        x.to_contiguous()
    }
}

impl<'a> Heads<'a> {
    pub fn new(x: &'a FlexTensor) -> Self {
        let all = x.storage::<f32>();
        let mut strides = [0; 4];
        for (to, from) in strides.iter_mut().zip(x.layout().strides()) {
            *to = from.unsigned_abs();
        }
        Self {
            values: all.get(x.layout().start_offset()..).unwrap_or_default(),
            strides,
        }
    }

    pub fn matrix(&self, b: usize, h: usize) -> Matrix<'a> {
        let [batch, head, row, column] = self.strides;
        Matrix {
            values: self.values.get(b * batch + h * head..).unwrap_or_default(),
            row,
            column,
        }
    }
}
