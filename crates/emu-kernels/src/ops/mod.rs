//! The operations that Emu's networks are made of, as functions of tensors.
//!
//! B batch, H heads, G key/value heads (H is a multiple of G), T queries, S keys, E head size, D width.
//!
//! Each function says what it computes and in which shapes, and asks the trait of its topic for the implementation
//! of the tensor's device; where Burn's own operations serve best, it composes them.
//!
//! The trait stands below the functions of its topic. Implementations stand beside their kernels: those of Flex in `cpu`, those
//! of Cube in `gpu`, those of Burn's graph in `autodiff`, which methods with a default need not have. Burn's macro makes
//! `Dispatch`, the backend of every tensor, find the implementation of a tensor's device. Gradients are no part of that: only
//! `autodiff` asks for them, and there is none in a WASM module.

pub mod activation;
pub mod attention;
pub mod conv;
pub mod decode;
pub mod matmul;
pub mod norm;
pub mod sampling;

use burn::tensor::Tensor;

pub use crate::decode::{decode_attention, rope_append};
pub use activation::{dropout, geglu, gelu, quick_gelu, silu_gate, silu_pair};
pub use attention::{AttentionOptions, attention};
pub use conv::{ConvExtras, conv2d, conv2d_with, split_skip, upsample_nearest2};
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
