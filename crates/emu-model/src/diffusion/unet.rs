//! The UNet that predicts noise (or velocity) from noisy latents, a timestep and the condition.
//!
//! Follows diffusers 0.15.1, `UNet2DConditionModel`, as Stable Diffusion 1.5 configures it.
//!
//! B batch, L latent channels, H, W height and width of the latents, N condition tokens, D their width.

mod config;
mod network;

pub use config::{BlockKind, UnetConfig};
pub use network::{Context, DownBlock, MidBlock, TimeEmbedding, Unet, UpBlock};
