//! Readers of published checkpoints and the writer of packs. Native only.

mod blocks;
mod cast;
mod described;
mod disk;
mod elsewhere;
mod existing;
mod folder;
mod forecast;
mod gguf;
mod legacy;
mod loss;
mod options;
mod pickle;
mod policy;
mod product;
mod pytorch;
mod repack;
mod resume;
mod shard;
mod writer;

#[cfg(test)]
mod failure_tests;

pub use described::Described;
pub use elsewhere::{ELSEWHERE_FILE, Elsewhere, Moved};
pub use folder::{ModelFolder, Weights, open_weights};
pub use forecast::{Forecast, forecast};
pub use gguf::GgufFile;
pub use legacy::LegacyPyTorchFile;
pub use loss::{Loss, Outcome};
pub use options::{DEFAULT_SHARD_BYTES, PackMeta, WriteOptions};
pub use pickle::{PickledTensor, StateDict, read_pickle};
pub use policy::{Encoding, Policy, Precision};
pub use pytorch::PyTorchFile;
pub use repack::repack;
pub use writer::PackWriter;

pub use crate::quant::quantize;
