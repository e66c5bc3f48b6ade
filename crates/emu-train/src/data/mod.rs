//! Data: requests for pictures in words, for training emu-smol, and the shards of `emu-data`, re-exported.

pub mod requests;

pub(crate) use emu_data::rng;
pub use emu_data::{
    BadSample, DataError, EpochOrder, Limits, Member, Mixture, Pick, Picture, Sample, SampleFiles,
    ShardDataset, ShardInfo, Turn, record, write_shard,
};
