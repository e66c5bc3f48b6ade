//! Losses of the diffusion decoder: of its autoencoder (VAE), and denoising.

use burn::tensor::Tensor;
use emu_model::diffusion::schedule::NoiseSchedule;
use emu_model::diffusion::unet::Unet;
use emu_model::diffusion::vae::Vae;

/// Terms of the autoencoder's loss.
#[derive(Clone, Debug)]
pub struct AutoencoderLoss {
    /// Mean absolute error of the pixels.
    pub pixels: Tensor<1>,
    /// Mean absolute error of differences between neighbouring pixels, which preserves edges.
    pub edges: Tensor<1>,
    /// KL divergence of the posterior from a standard normal.
    pub kl: Tensor<1>,
    /// `[B, 3, S, S]`, the reconstructed pictures.
    pub reconstruction: Tensor<4>,
}

/// Vertical and horizontal differences between neighbouring pixels.
fn differences(x: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
    let [_, _, h, w] = x.dims();
    let down = x.clone().narrow(2, 1, h - 1) - x.clone().narrow(2, 0, h - 1);
    let across = x.clone().narrow(3, 1, w - 1) - x.narrow(3, 0, w - 1);
    (down, across)
}

/// The autoencoder's loss on a batch of pictures.
///
/// # Shapes
/// - `pictures`: `[B, 3, S, S]` in -1..1; `noise`: standard normal, of the latents' shape
pub fn autoencoder(vae: &Vae, pictures: Tensor<4>, noise: Tensor<4>) -> AutoencoderLoss {
    let posterior = vae.encode(pictures.clone());
    let reconstruction = vae.decode(posterior.sample(noise));
    let (down, across) = differences(reconstruction.clone());
    let (true_down, true_across) = differences(pictures.clone());
    AutoencoderLoss {
        pixels: (reconstruction.clone() - pictures).abs().mean(),
        edges: (down - true_down).abs().mean() + (across - true_across).abs().mean(),
        kl: posterior.kl(),
        reconstruction,
    }
}

/// Mean squared error of the UNet's prediction at the given timesteps.
///
/// # Shapes
/// - `latents`, `noise`: `[B, L, H, W]`; `timesteps`: B; `context`: `[B, N, D]`
pub fn denoising(
    unet: &Unet,
    schedule: &NoiseSchedule,
    latents: Tensor<4>,
    noise: Tensor<4>,
    timesteps: &[usize],
    context: Tensor<3>,
) -> Tensor<1> {
    let noisy = schedule.add_noise(latents.clone(), noise.clone(), timesteps);
    let levels: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
    let predicted = unet.forward(noisy, &levels, context);
    (predicted - schedule.target(latents, noise, timesteps))
        .square()
        .mean()
}
