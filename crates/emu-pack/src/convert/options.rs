//! What a pack says of itself, and how it is written.

use super::policy::{Policy, Precision};

/// Bytes of a shard at most, unless told otherwise.
pub const DEFAULT_SHARD_BYTES: u64 = 32 << 20;

/// What a pack says of itself.
#[derive(Debug, Clone, Default)]
pub struct PackMeta {
    /// Name of the model.
    pub name: String,
    /// Licence of the weights.
    pub license: String,
    /// Whom to credit.
    pub attribution: String,
    /// The model's configuration.
    pub config: serde_json::Value,
    /// WebGPU features without which it does not run.
    pub features: Vec<String>,
}

/// How a pack is written.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// How tensors are stored.
    pub policy: Policy,
    /// Bytes of a shard at most, header included.
    pub max_shard_bytes: u64,
    /// Tells this conversion from any other: its sources and everything that decides its result. With it, a writer
    /// that was killed leaves its finished shards to the next one of the same key; without, each begins anew.
    pub resume: Option<String>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            policy: Policy::uniform(Precision::Keep),
            max_shard_bytes: DEFAULT_SHARD_BYTES,
            resume: None,
        }
    }
}
