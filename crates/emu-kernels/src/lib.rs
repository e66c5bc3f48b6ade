//! Operations, layers and GPU/CPU kernels of Emu's networks.
//!
//! Networks call the functions of [`ops`] and the layers built on them; they never name a backend. Modules:
//!
//! - [`ops`]: the functions, one file per topic, with shapes and formulas, and the traits that backends implement.
//! - `cpu` and `gpu`: the backend implementations with their kernels; `autodiff`: the nodes of Burn's autodiff graph. [`spec`]:
//!   the parameters that kernels are specialized for; it imports nothing.
//! - [`QLinear`], [`QEmbedding`], [`LayerNorm`], [`RmsNorm`], [`GroupNorm`], [`Conv2d`]: layers that own weights.
//! - [`packed`]: quantized and f16 weights that stay packed on the device.
//! - [`cache`]: the KV cache of fixed capacity. [`rope`]: rotary position tables.
//! - [`decode_session`]: decode steps that are recorded and replayed, tokens in flight. [`throttle`]: limits GPU submissions.
//! - `variants`: selection of GPU kernel variants.
//! - [`random`]: Philox, the same bits on every device. [`sample`]: logit processors and sampling.

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
// Only `autodiff` calls backward passes, and WASM modules are built without it.
#[cfg_attr(target_family = "wasm", allow(dead_code))]
#[cfg(feature = "flex")]
mod cpu;
mod decode;
pub mod decode_session;
pub mod device;
mod device_error;
pub mod embedding;
// Only `autodiff` calls backward passes, and WASM modules are built without it.
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
