//! Result of a conversion.

use anyhow::Result;
use emu_pack::Manifest;
use emu_pack::convert::{Outcome, PackWriter};

/// Result of a conversion.
pub(super) struct Converted {
    pub(super) manifest: Manifest,
    pub(super) outcomes: Vec<Outcome>,
    /// Number of shards kept from an interrupted run.
    pub(super) kept_shards: usize,
}

impl Converted {
    pub(super) fn finish(writer: PackWriter) -> Result<Self> {
        let kept_shards = writer.kept_shards();
        let (manifest, outcomes) = writer.finish_with_outcomes()?;
        Ok(Self {
            manifest,
            outcomes,
            kept_shards,
        })
    }
}
