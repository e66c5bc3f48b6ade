//! What a backend does itself: one trait for each topic, next to that the gradients of what training differentiates through.
//!
//! The functions of [`crate::ops`] are what networks call; they end here. Implementations stand beside their kernels: those of
//! Flex in `cpu`, those of Cube in `gpu`, those of Burn's autodiff in `autodiff`. Burn's macro makes `Dispatch`, the backend of
//! every tensor, find the implementation of a tensor's device. Gradients are no part of that: only `autodiff` asks for them,
//! and there is none in a WASM module.

mod activation;
mod attention;
mod conv;
mod decode;
mod matmul;
mod norm;
mod sampling;

pub use activation::ActivationBackend;
pub use attention::AttentionBackend;
pub use conv::ConvBackend;
pub use decode::DecodeBackend;
pub use matmul::MatmulBackend;
pub use norm::NormBackend;
pub use sampling::SamplingBackend;

#[cfg(not(target_family = "wasm"))]
pub use {
    activation::ActivationGradient, attention::AttentionGradient, conv::ConvGradient,
    norm::NormGradient,
};
