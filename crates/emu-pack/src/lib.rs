//! The weight format of Emu: a manifest, shards that any safetensors tool can open, and quantization. The feature `convert`
//! (native only) adds readers of published checkpoints and the pack writer.
//!
//! This crate is independent of any model. Names are translated by a [`KeyMap`] that is defined beside its network, and
//! [`check`] compares a source with the names and shapes that a model expects. Everything that provides tensors is
//! a [`TensorSource`], which reads them one at a time.

mod error;
mod header;
mod keymap;
mod kind;
mod manifest;
mod plan;
pub mod quant;
mod reader;
mod rows;
mod safetensors;
mod sniff;
mod source;
mod tensor;
mod unwrapped;
mod verify;

#[cfg(feature = "convert")]
pub mod convert;
#[doc(hidden)]
#[cfg(feature = "convert")]
pub mod fuzzing;

pub use error::{KeyReport, PackError};
pub use keymap::{KeyMap, Mapped, Rule};
pub use kind::{FileKind, SNIFFED, WrongKind};
pub use manifest::{
    Component, FORMAT, FileEntry, MANIFEST_FILE, Manifest, Part, PartView, Requires, TensorEntry,
};
pub use plan::{Plan, check};
pub use quant::{Quantized, Scheme, Stored};
pub use reader::{Fetch, PackReader};
pub use safetensors::{SafetensorsFile, SafetensorsFolder, Sharded, write_safetensors};
pub use sniff::check_weights;
pub use source::{InMemory, TensorSource};
pub use tensor::{Dtype, TensorData, TensorInfo};
pub use unwrapped::Unwrapped;
pub use verify::hex;
