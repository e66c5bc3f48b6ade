//! Data sets, objectives, stages and the trainer of Emu.
//!
//! A [`Stage`] gives the loss of a model on a batch. [`run`] turns that into training: gradient accumulation, clipping,
//! AdamW with a learning rate per part, a schedule, an EMA of the weights, crash-safe checkpoints, exact resume,
//! metrics, curves and samples. [`TrainConfig`] is the configuration of a run, a TOML file.
//!
//! The run's seed is the only source of randomness: see [`StepContext`].

pub mod adapter;
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
pub mod needs;
pub mod objectives;
pub mod optim;
pub mod parity;
pub mod parts;
pub mod plot;
mod prefetch;
mod published;
mod readback;
pub mod schedule;
pub mod settings;
mod skipped;
pub mod stage;
pub mod stages;
mod stop;
mod tensorboard;
pub mod trained;
mod trainer;
mod watch;

pub use bad::{Found, TooManyBad};
pub use config::TrainConfig;
pub use error::TrainError;
pub use events::{Outcome, RunOptions, TrainEvent};
pub use prefetch::Prefetch;
pub use settings::Setting;
pub use skipped::LIST as BAD_SAMPLES;
pub use stage::{Stage, StepContext, StepLoss, Term};
pub use stop::StopFlag;
pub use trainer::run;
