//! Tensor operations of Emu's networks.
//!
//! B batch, H heads, G key/value heads (H is a multiple of G), T queries, S keys, E head size, D width.
//!
//! Each function documents formula and shapes, and dispatches to its topic's backend trait, or composes Burn's own operations
//! where those perform best.
//!
//! The trait is below the functions of its topic. Implementations are next to their kernels: Flex in `cpu`, Cube in `gpu`,
//! Burn's autodiff graph in `autodiff`, which may omit methods that have a default. Burn's macro makes `Dispatch`, the backend
//! of every tensor, select the implementation for a tensor's device. Gradients are separate traits: only `autodiff` uses
//! them, and WASM modules are built without it.
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

/// Applies a rank-3 operation to a tensor of any rank by folding the leading axes.
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

/// Applies a row-wise operation to a tensor of any rank by folding the leading axes.
fn of_rows<const D: usize>(x: Tensor<D>, f: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Tensor<D> {
    let mut dims = x.dims();
    let rows = dims[..D - 1].iter().product::<usize>();
    let y = f(x.reshape([rows, dims[D - 1]]));
    dims[D - 1] = y.dims()[1];
    y.reshape(dims)
}

#[cfg(test)]
mod tests;
