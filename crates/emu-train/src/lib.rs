//! Data sets, objectives, stages and the trainer of Emu.
//!
//! A [`Stage`] gives the loss of a model on a batch; [`run`] turns that into training: accumulation, clipping, AdamW with
//! a rate for each part, schedule, average of the weights, checkpoints that survive being killed, an exact resume,
//! metrics, curves and samples. [`TrainConfig`] is a run as a TOML file.
//!
//! Randomness has one source, the run's seed: see [`StepContext`].

mod bad;
pub mod checkpoint;
pub mod config;
pub mod data;
mod divergence;
mod error;
pub mod eval;
mod events;
pub mod export;
pub mod eyes;
pub mod judge;
pub mod lda;
mod lock;
pub mod logistic;
pub mod metrics;
pub mod objectives;
pub mod optim;
pub mod parity;
pub mod parts;
pub mod plot;
mod prefetch;
mod readback;
pub mod schedule;
mod skipped;
pub mod stage;
pub mod stages;
mod stop;
pub mod trained;
mod trainer;

pub use bad::{Found, TooManyBad};
pub use config::TrainConfig;
pub use error::TrainError;
pub use events::{Outcome, RunOptions, TrainEvent};
pub use prefetch::Prefetch;
pub use skipped::LIST as BAD_SAMPLES;
pub use stage::{Stage, StepContext, StepLoss, Term};
pub use stop::StopFlag;
pub use trainer::run;
