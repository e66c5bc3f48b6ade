//! The decoder of pictures: a latent diffusion model whose condition is the LM's regressed embeddings.
//!
//! - [`unet`]: predicts the noise. [`vae`]: between pictures and latents. [`scheduler`]: noise levels, and the rules that
//!   walk down them ([`sampler`]).
//! - [`decoder`]: all of it as one module and one configuration. [`pipeline`]: drawing as a step machine.
//! - [`keys`]: names of checkpoint tensors.

mod blocks;
pub mod decoder;
mod foreign;
pub mod keys;
pub mod pipeline;
pub mod schedule;
pub mod scheduler;
pub mod transformer;
pub mod unet;
pub mod vae;

pub use blocks::{Downsample, Resnet, Upsample};
pub use decoder::{Decoder, DecoderConfig, Normalisation};
pub use pipeline::{Denoise, DrawError, DrawOptions, Preview, Progress};
pub use schedule::{NoiseSchedule, Prediction, SchedulerConfig, SchedulerKind};
pub use scheduler::Scheduler;
pub use unet::{Unet, UnetConfig};
pub use vae::{Vae, VaeConfig};
