//! Data: WebDataset shards in, and the builder of the emoji data set that emu-mini is trained on.
//!
//! A data set is a folder of tar shards; consecutive members that share a key are one sample ([`ShardDataset`]). Samples
//! that cannot be used are named ([`BadSample`]): training skips, counts and lists them.
//! [`EpochOrder`] and [`Mixture`] say which sample a step visits, from the step alone. [`emoji`] composes scenes with
//! exact captions and questions from drawings that npm packages carry, and [`record`] describes what it writes.

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
