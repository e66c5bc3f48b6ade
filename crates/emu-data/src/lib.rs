//! Training data of Emu: the format of its shards, their reader, and builders from what people have on their disks.
//!
//! A data set is a folder of tar shards. Consecutive members with the same key form one sample ([`ShardDataset`]), whose
//! JSON member is a [`record::Record`]. Unusable samples are reported as [`BadSample`]; training skips, counts and lists
//! them. [`EpochOrder`] and [`Mixture`] compute the sample of a step from the step alone.
//!
//! | builder | reads | writes |
//! | --- | --- | --- |
//! | [`pairs`] | img2dataset, COCO, tables, folders, parquet | pictures with a caption |
//! | [`documents`] | MMC4, OBELICS | interleaved text and pictures |
//! | [`videos`] | WebVid, video2dataset, tables, folders | frames with a caption |
//! | [`storyboards`] | thumbnail sheets, frames or MP4, with subtitles | interleaved subtitles and frames |
//! | [`instruct`] | LLaVA, ShareGPT, Alpaca, Video-ChatGPT, messages | conversations |
//! | [`emoji`] | drawings in npm packages | scenes with exact captions and questions, and documents |
//!
//! Every builder but [`emoji`] has `Options` with a `build` function, which returns a [`Report`]. [`build`] describes what they share:
//! filters, resizing, resumption, the report. [`show`] gives samples of a shard in printable form.

#![forbid(unsafe_code)]

pub mod build;
pub mod documents;
pub mod emoji;
mod error;
mod index;
mod input;
pub mod instruct;
mod order;
pub mod pairs;
mod patterns;
mod picture;
mod reader;
pub mod record;
pub mod rng;
pub mod show;
pub mod storyboards;
#[cfg(test)]
mod testing;
pub mod videos;
pub mod writer;

pub use build::{Output, Progress, Report, Resize};
pub use error::{BadSample, DataError};
pub use index::Limits;
pub use order::{EpochOrder, Mixture, Pick, Turn};
pub use picture::Picture;
pub use reader::{Sample, ShardDataset};
pub use writer::{Member, SampleFiles, ShardInfo, write_shard};
