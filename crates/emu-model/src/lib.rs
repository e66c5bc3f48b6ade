//! Emu: the networks, prompts, and generation as step machines.
//!
//! No module here touches files, the network, clocks, threads or JavaScript: bytes go in, tensors and events come out.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_macros,
        clippy::disallowed_methods,
        clippy::disallowed_types
    )
)]

pub mod causal;
pub mod clip;
pub mod config;
pub mod diffusion;
pub mod efficientnet;
pub mod emu;
pub mod generate;
pub mod keys;
pub mod lm;
pub mod namer;
pub mod pack;
#[cfg(not(target_family = "wasm"))]
pub mod parity;
pub mod persona;
pub mod photos;
pub mod pictures;
pub mod probe;
pub mod prompt;
pub mod reader;
#[cfg(not(target_family = "wasm"))]
pub mod reference;
pub mod requests;
pub mod safety;
pub mod spelling;
mod splice;
pub mod streamed;
pub mod text;
pub mod vision;
pub mod weights;

pub use config::EmuConfig;
pub use emu::Emu;
pub use text::TextModel;
