//! Data: the reader of WebDataset shards, and the builder of the emoji data set for training emu-mini.
//!
//! A data set is a folder of tar shards. Consecutive members with the same key form one sample ([`ShardDataset`]).
//! Unusable samples are reported as [`BadSample`]; training skips, counts and lists them. [`EpochOrder`] and
//! [`Mixture`] compute the sample of a step from the step alone. [`emoji`] composes scenes with exact captions and
//! questions from drawings in npm packages. [`record`] describes the format that it writes.

mod error;
mod index;
mod order;
mod picture;
mod reader;
mod rng;
mod writer;

pub mod emoji;
pub mod record;
pub mod requests;

pub use error::{BadSample, DataError};
pub use index::Limits;
pub use order::{EpochOrder, Mixture, Pick};
pub use picture::Picture;
pub use reader::{Sample, ShardDataset};
pub use writer::{Member, SampleFiles, ShardInfo, write_shard};
