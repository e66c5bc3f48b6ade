//! Diffusion decoder: a latent diffusion model conditioned on the image embeddings that the LM regresses.
//!
//! - [`unet`]: noise prediction. [`vae`]: autoencoder between images and latents. [`scheduler`]: noise levels and the
//!   update rules of the samplers ([`Scheduler`]).
//! - [`decoder`]: UNet, VAE and null prompt as one module with one configuration. [`pipeline`]: image generation as a
//!   step machine.
//! - [`keys`]: key maps from checkpoint tensors.

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
