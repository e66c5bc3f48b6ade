//! UNet, VAE and null prompt as one module, with the configuration that is stored in a pack.

use burn::module::{Module, Param};
use burn::tensor::Device;
use burn::tensor::{Tensor, TensorData};
use emu_kernels::init::{Init, param};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schedule::SchedulerConfig;
use super::unet::{Unet, UnetConfig};
use super::vae::{Vae, VaeConfig};
use crate::config::ConfigError;

/// Configuration of the diffusion decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderConfig {
    /// Sizes of the UNet.
    pub unet: UnetConfig,
    /// Sizes of the VAE.
    pub vae: VaeConfig,
    /// Noise levels and the default sampler.
    pub scheduler: SchedulerConfig,
    /// Number of embeddings per image, N.
    pub tokens: usize,
    /// Default image side in pixels.
    pub image_size: usize,
    /// Default number of steps.
    #[serde(default = "steps")]
    pub steps: usize,
    /// Default guidance scale.
    #[serde(default = "guidance")]
    pub guidance: f64,
    /// Shift and scale of the embeddings before the UNet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalisation: Option<Normalisation>,
    /// For rough previews: RGB weights of each latent channel, for images from -1 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latent_rgb: Option<Vec<[f32; 3]>>,
}

fn steps() -> usize {
    50
}

fn guidance() -> f64 {
    7.5
}

/// `(x - mean) / std`, with one value for all or one per embedding dimension.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalisation {
    /// 1 or D values.
    pub mean: Vec<f32>,
    /// 1 or D positive values.
    pub std: Vec<f32>,
}

impl Normalisation {
    /// # Shapes
    /// - `embeddings`: `[B, N, D]`, returned in the same shape
    pub fn apply(&self, embeddings: Tensor<3>) -> Tensor<3> {
        let device = embeddings.device();
        let row = |values: &[f32]| {
            Tensor::<3>::from_data(
                TensorData::new(values.to_vec(), [1, 1, values.len()]),
                &device,
            )
        };
        (embeddings - row(&self.mean)) / row(&self.std)
    }
}

impl DecoderConfig {
    /// The decoder of Emu-14B.
    pub fn emu_14b() -> Self {
        Self {
            unet: UnetConfig::emu_14b(),
            vae: VaeConfig::emu_14b(),
            scheduler: SchedulerConfig::default(),
            tokens: 32,
            image_size: 512,
            steps: steps(),
            guidance: guidance(),
            normalisation: None,
            latent_rgb: None,
        }
    }

    /// Decoder of emu-mini, for `tokens` embeddings of this width.
    pub fn emu_mini(tokens: usize, width: usize) -> Self {
        Self {
            unet: UnetConfig::emu_mini(width),
            vae: VaeConfig::emu_mini(),
            scheduler: SchedulerConfig::emu_mini(),
            tokens,
            image_size: 64,
            steps: 24,
            guidance: 3.0,
            normalisation: None,
            latent_rgb: None,
        }
    }

    /// Reads the configurations of a diffusers folder; `tokens` is the number of embeddings per image.
    ///
    /// # Errors
    /// If a configuration is invalid, or they are inconsistent with each other.
    pub fn from_diffusers(
        unet: &Value,
        vae: &Value,
        scheduler: &Value,
        tokens: usize,
    ) -> Result<Self, ConfigError> {
        let vae_config = VaeConfig::from_diffusers(vae)?;
        let latent_size = unet
            .get("sample_size")
            .and_then(Value::as_u64)
            .and_then(|n| usize::try_from(n).ok());
        let config = Self {
            image_size: latent_size
                .unwrap_or(64)
                .saturating_mul(vae_config.factor()),
            unet: UnetConfig::from_diffusers(unet)?,
            vae: vae_config,
            scheduler: SchedulerConfig::from_diffusers(scheduler)?,
            tokens,
            steps: steps(),
            guidance: guidance(),
            normalisation: None,
            latent_rgb: None,
        };
        config.validate()?;
        Ok(config)
    }

    /// Validates each part and their consistency.
    ///
    /// # Errors
    /// Names the first inconsistent value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.unet.validate()?;
        self.vae.validate()?;
        self.scheduler.validate()?;
        let wrong = |what: String| Err(ConfigError(format!("decoder: {what}")));
        let latent = self.vae.latent_channels;
        if self.unet.in_channels != latent || self.unet.out_channels != latent {
            return wrong(format!(
                "the UNet's channels are not the {latent} of the latents"
            ));
        }
        if self.tokens == 0 || self.tokens > 1 << 16 {
            return wrong(format!("tokens is {}", self.tokens));
        }
        if self.image_size == 0 || !self.image_size.is_multiple_of(self.vae.factor()) {
            return wrong(format!(
                "image_size {} is no multiple of {}",
                self.image_size,
                self.vae.factor()
            ));
        }
        if self.steps == 0 || !self.guidance.is_finite() {
            return wrong("steps is 0 or guidance is not a number".into());
        }
        if let Some(n) = &self.normalisation {
            let fits = |values: &[f32]| [1, self.unet.context_width].contains(&values.len());
            if !fits(&n.mean) || !fits(&n.std) {
                return wrong(format!(
                    "normalisation needs 1 or {} numbers",
                    self.unet.context_width
                ));
            }
            if n.mean.iter().any(|m| !m.is_finite())
                || n.std.iter().any(|s| !s.is_finite() || *s <= 0.0)
            {
                return wrong(
                    "normalisation.std must be positive, normalisation.mean finite".into(),
                );
            }
        }
        if self
            .latent_rgb
            .as_ref()
            .is_some_and(|rows| rows.len() != latent)
        {
            return wrong(format!("latent_rgb needs {latent} rows"));
        }
        Ok(())
    }

    /// Creates the decoder; weights are allocated lazily.
    ///
    /// # Errors
    /// As [`DecoderConfig::validate`].
    pub fn init(&self, device: &Device) -> Result<Decoder, ConfigError> {
        self.validate()?;
        Ok(Decoder {
            unet: self.unet.init(device)?,
            vae: self.vae.init(device)?,
            null_prompt: param(
                [1, self.tokens, self.unet.context_width],
                Init::Zeros,
                device,
            ),
        })
    }

    /// Normalises embeddings for the UNet.
    pub fn normalise(&self, embeddings: Tensor<3>) -> Tensor<3> {
        match &self.normalisation {
            Some(normalisation) => normalisation.apply(embeddings),
            None => embeddings,
        }
    }
}

/// UNet, VAE and null prompt.
#[derive(Module, Debug)]
pub struct Decoder {
    /// Noise prediction.
    pub unet: Unet,
    /// Autoencoder between images and latents.
    pub vae: Vae,
    /// Embeddings that the LM regresses for an empty prompt, `[1, N, D]`, before normalisation.
    pub null_prompt: Param<Tensor<3>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_fit_and_survive_json() {
        for config in [DecoderConfig::emu_14b(), DecoderConfig::emu_mini(16, 192)] {
            config.validate().unwrap();
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(
                serde_json::from_str::<DecoderConfig>(&text).unwrap(),
                config
            );
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_named() {
        let good = DecoderConfig::emu_mini(16, 192);
        let normalisation = |mean: Vec<f32>, std: Vec<f32>| Some(Normalisation { mean, std });
        for (bad, needle) in [
            (
                DecoderConfig {
                    tokens: 0,
                    ..good.clone()
                },
                "tokens",
            ),
            (
                DecoderConfig {
                    image_size: 66,
                    ..good.clone()
                },
                "image_size",
            ),
            (
                DecoderConfig {
                    guidance: f64::NAN,
                    ..good.clone()
                },
                "guidance",
            ),
            (
                DecoderConfig {
                    normalisation: normalisation(vec![0.0; 2], vec![1.0]),
                    ..good.clone()
                },
                "192 numbers",
            ),
            (
                DecoderConfig {
                    normalisation: normalisation(vec![0.0], vec![0.0]),
                    ..good.clone()
                },
                "positive",
            ),
            (
                DecoderConfig {
                    latent_rgb: Some(vec![[0.0; 3]]),
                    ..good.clone()
                },
                "latent_rgb",
            ),
            (
                DecoderConfig {
                    vae: VaeConfig {
                        latent_channels: 8,
                        ..good.vae.clone()
                    },
                    ..good.clone()
                },
                "latents",
            ),
        ] {
            let error = bad.validate().unwrap_err().to_string();
            assert!(error.contains(needle), "{error}");
        }
    }

    #[test]
    fn normalises_per_dimension() {
        let x: Tensor<3> = Tensor::from_data([[[1.0f32, 4.0]]], &Device::flex());
        let y = Normalisation {
            mean: vec![1.0, 2.0],
            std: vec![0.5],
        }
        .apply(x);
        assert_eq!(y.into_data().iter::<f32>().collect::<Vec<_>>(), [0.0, 4.0]);
    }
}
