//! The operations that Emu's networks are made of, as functions of tensors.
//!
//! B batch, H heads, G key/value heads (H is a multiple of G), T queries, S keys, E head size, D width.
//!
//! Each function says what it computes and in which shapes, and asks the trait of its topic in [`crate::backend`] for the
//! implementation of the tensor's device; where Burn's own operations serve best, it composes them.

pub mod activation;
pub mod attention;
pub mod conv;
pub mod matmul;
pub mod norm;
pub mod sampling;

use burn::tensor::Tensor;

pub use activation::{dropout, geglu, gelu, quick_gelu, silu_gate, silu_pair};
pub use attention::{AttentionOptions, attention, decode_attention, rope_append};
pub use conv::{ConvExtras, beside, conv2d, conv2d_with, upsample_nearest2};
pub use matmul::{embedding, linear};
pub use norm::{group_norm, group_norm_silu, layer_norm, rms_norm};

/// Runs a rank-3 operation over a tensor of any rank by folding the leading axes.
fn folded<const D: usize>(x: Tensor<D>, f: impl FnOnce(Tensor<3>) -> Tensor<3>) -> Tensor<D> {
    let mut dims = x.dims();
    let width = dims[D - 1];
    let rows = dims[..D - 1].iter().product();
    let y = if D == 3 {
        f(x.reshape([dims[0] as i64, -1, width as i64]))
    } else {
        f(x.reshape([1, rows, width]))
    };
    dims[D - 1] = y.dims()[2];
    y.reshape(dims)
}

/// Runs an operation of rows over a tensor of any rank by folding the leading axes.
fn of_rows<const D: usize>(x: Tensor<D>, f: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Tensor<D> {
    let mut dims = x.dims();
    let rows = dims[..D - 1].iter().product::<usize>();
    let y = f(x.reshape([rows, dims[D - 1]]));
    dims[D - 1] = y.dims()[1];
    y.reshape(dims)
}

#[cfg(test)]
mod tests;
