//! The groups of group norm and their moments: what its forward and backward pass share.
//!
//! B images, C channels, G groups, R = C/G · H · W values per group.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::cpu::math::sums;
use crate::spec::GroupNormSpec;

/// Sizes of a call.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub b: usize,
    pub c: usize,
    pub area: usize,
    pub channels: usize,
    pub dims: [usize; 4],
}

impl Sizes {
    pub fn new(x: &FlexTensor, spec: GroupNormSpec) -> Self {
        let dims @ [b, c, h, w] = x.shape().dims::<4>();
        Self {
            b,
            c,
            area: h * w,
            channels: c / spec.groups,
            dims,
        }
    }

    pub fn row(&self) -> usize {
        self.channels * self.area
    }
}

/// Mean and `1 / sqrt(var + eps)`: f32 partial sums per channel, added in f64.
#[inline(always)]
pub fn moments(row: &[f32], area: usize, eps: f64) -> (f32, f32) {
    let lines = || row.chunks_exact(area.max(1));
    let n = row.len() as f64;
    let mean = lines()
        .map(|line| f64::from(sums(line, line, |v, _| [v])[0]))
        .sum::<f64>()
        / n;
    let mean = mean as f32;
    let variance = lines()
        .map(|line| f64::from(sums(line, line, |v, _| [(v - mean) * (v - mean)])[0]))
        .sum::<f64>()
        / n;
    (mean, (1.0 / (variance + eps).sqrt()) as f32)
}
