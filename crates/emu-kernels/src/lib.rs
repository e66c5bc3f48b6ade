//! The operations that Emu's networks are made of.
//!
//! The networks never call Burn's hot operations themselves: they call [`ops`], whose [`ops::Operations`] trait
//! composes each operation of Burn's own by default, and the weight-carrying layers built on it. A faster kernel is
//! a new implementation of that trait and changes no model code.
//!
//! - [`ops`]: attention, decoding attention, linear, gates, norms, convolutions, rotary embedding.
//! - [`QLinear`], [`QEmbedding`], [`LayerNorm`], [`RmsNorm`], [`GroupNorm`], [`Conv2d`]: layers that own weights.
//! - [`packed`]: weights that stay packed.
//! - [`cache`]: the KV cache of fixed capacity. [`rope`]: rotary position tables.
//! - `variants`: which variants of the GPU kernels are used.
//! - [`random`]: Philox, the same bits on every device. [`sample`]: what happens to logits.

#[cfg(not(any(
    all(feature = "wgpu", feature = "flex", not(target_family = "wasm")),
    all(feature = "wgpu", not(feature = "flex"), target_family = "wasm"),
    all(feature = "flex", not(feature = "wgpu"), target_family = "wasm"),
)))]
compile_error!(
    "natively both features `wgpu` and `flex` are needed; a WASM module has one of them"
);

#[cfg(not(target_family = "wasm"))]
pub mod adapters;
pub mod backend;
pub mod beams;
pub mod cache;
pub mod conv;
pub mod count;
#[cfg(feature = "flex")]
mod cpu;
pub mod decode;
pub mod device;
pub mod embedding;
pub mod fused;
#[cfg(feature = "wgpu")]
mod gpu;
pub mod init;
pub mod late;
pub mod linear;
pub mod norm;
pub mod ops;
pub mod pace;
pub mod packed;
pub mod random;
pub mod rope;
pub mod sample;
pub mod selftest;
#[cfg(not(target_family = "wasm"))]
pub mod slices;
#[cfg(feature = "wgpu")]
pub mod variants;

pub use burn;
pub use conv::{Conv2d, Conv2dConfig, DepthwiseConv2d};
pub use embedding::QEmbedding;
pub use linear::{LoraConfig, QLinear};
pub use norm::{GroupNorm, LayerNorm, RmsNorm};
