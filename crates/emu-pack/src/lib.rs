//! The weight format of Emu: a manifest, shards that any safetensors tool can open, quantization; and, with the
//! feature `convert` (native only), readers of published checkpoints and the writer of packs.
//!
//! This crate knows no model: names go through a [`KeyMap`] that lies beside the network it is for, and
//! [`check`] holds a source against the names and shapes that a model expects. Everything that gives tensors is
//! a [`TensorSource`], which hands them over one at a time.

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
