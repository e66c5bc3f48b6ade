//! Pack metadata and writer options.

use super::policy::{Policy, Precision};

/// Default maximum shard size in bytes.
pub const DEFAULT_SHARD_BYTES: u64 = 32 << 20;

/// Metadata of a pack.
#[derive(Debug, Clone, Default)]
pub struct PackMeta {
    /// Model name.
    pub name: String,
    /// License of the weights.
    pub license: String,
    /// Attribution.
    pub attribution: String,
    /// Model configuration.
    pub config: serde_json::Value,
    /// Required WebGPU features.
    pub features: Vec<String>,
}

/// Options of the pack writer.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// How tensors are encoded.
    pub policy: Policy,
    /// Maximum shard size in bytes, header included.
    pub max_shard_bytes: u64,
    /// Resume key: identifies the conversion by its sources and everything that determines its result. A killed writer with a
    /// key leaves its finished shards to the next writer with the same key; without a key, each writer starts over.
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
