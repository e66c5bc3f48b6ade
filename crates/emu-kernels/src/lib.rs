//! The operations that Emu's networks are made of.
//!
//! Networks call the functions of [`ops`] and the layers built on them; they never name a backend. Where to look:
//!
//! - [`ops`]: the functions, a file for each topic, with shapes and formulas, and the trait of what a backend does itself.
//! - `cpu` and `gpu`: the implementations beside their kernels; `autodiff`: the nodes of Burn's graph. [`spec`]: what kernels
//!   are made for; it imports nothing.
//! - [`QLinear`], [`QEmbedding`], [`LayerNorm`], [`RmsNorm`], [`GroupNorm`], [`Conv2d`]: layers that own weights.
//! - [`packed`]: weights that stay packed.
//! - [`cache`]: the KV cache of fixed capacity. [`rope`]: rotary position tables.
//! - [`decode_session`]: decode steps that are recorded and replayed, tokens in flight. [`throttle`]: how much is submitted at once.
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
#[cfg(not(target_family = "wasm"))]
mod autodiff;
pub mod beams;
pub mod cache;
pub mod conv;
pub mod count;
// Only `autodiff` asks for backward passes, and no WASM module has it.
#[cfg_attr(target_family = "wasm", allow(dead_code))]
#[cfg(feature = "flex")]
mod cpu;
mod decode;
pub mod decode_session;
pub mod device;
mod device_error;
pub mod embedding;
// Only `autodiff` asks for backward passes, and no WASM module has it.
#[cfg_attr(target_family = "wasm", allow(dead_code))]
#[cfg(feature = "wgpu")]
mod gpu;
pub mod init;
pub mod linear;
pub mod norm;
pub mod ops;
pub mod packed;
pub mod random;
pub mod readback;
pub mod rope;
pub mod sample;
pub mod selftest;
pub mod spec;
pub mod throttle;
#[cfg(feature = "wgpu")]
pub mod variants;

pub use burn;
pub use conv::{Conv2d, Conv2dConfig, DepthwiseConv2d};
pub use embedding::QEmbedding;
pub use linear::{LoraConfig, QLinear};
pub use norm::{GroupNorm, LayerNorm, RmsNorm};
