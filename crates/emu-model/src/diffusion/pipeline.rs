//! Image generation as a step machine: one UNet evaluation per step, optional previews between steps, decoding at the
//! end.
//!
//! B images, N embeddings per image, D their width, L latent channels, H, W height and width of the latents.

use std::fmt;
use std::ops::RangeInclusive;

use burn::tensor::{Device, Tensor, TensorData};
use emu_kernels::random::{Philox, Stream};
use emu_kernels::readback::{self, Done};
use emu_kernels::throttle::Work;
use emu_media::image::{ImageError, RgbImage, picture_from_decoded};

use super::decoder::{Decoder, DecoderConfig};
use super::schedule::SchedulerKind;
use super::scheduler::Scheduler;
use super::unet::Context;
use crate::config::ConfigError;

/// Errors of image generation.
#[derive(Debug, thiserror::Error)]
pub enum DrawError {
    /// An image size that the VAE cannot produce.
    #[error(
        "A picture of {width}x{height} cannot be drawn by this model. Use sides that are multiples of {factor}, from {factor} to {largest} pixels."
    )]
    Size {
        /// Requested width.
        width: usize,
        /// Requested height.
        height: usize,
        /// Pixels per latent along a side.
        factor: usize,
        /// Largest supported side.
        largest: usize,
    },
    /// Guidance that is not finite or out of range.
    #[error("The guidance is {0}. Give a number from 0 to 100: 1 for none, 3 to 10 usually.")]
    Guidance(f64),
    /// Zero steps, or more than there are noise levels.
    #[error("The steps are {steps}. Give a whole number from 1 to {most}; 20 to 50 are usual.")]
    Steps {
        /// Requested steps.
        steps: usize,
        /// Number of noise levels.
        most: usize,
    },
    /// An invalid configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A tensor whose shape does not match the model.
    #[error(
        "The {what} has the shape {actual:?}, where this model needs {expected}. Take it from the same model."
    )]
    Shape {
        /// Which tensor.
        what: &'static str,
        /// Actual shape.
        actual: Vec<usize>,
        /// Expected shape.
        expected: String,
    },
    /// The device failed during a read-back.
    #[error("The device failed while computing: {0}. Try again, or use --device cpu.")]
    Device(String),
    /// The model computed a non-finite value.
    #[error(
        "The model computed values that are not finite. Its weights are broken, or the device miscalculates: try --device cpu."
    )]
    NotFinite,
}

impl DrawError {
    /// Stable error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Size { .. } => "picture-size",
            Self::Guidance(_) | Self::Steps { .. } => "bad-option",
            Self::Config(_) => "config",
            Self::Shape { .. } => "condition-shape",
            Self::Device(_) => "device",
            Self::NotFinite => "not-finite",
        }
    }
}

/// Options of image generation.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawOptions {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Number of sampler steps.
    pub steps: usize,
    /// Sampler.
    pub sampler: SchedulerKind,
    /// Guidance scale: 1 uses the condition alone and halves the cost.
    pub guidance: f64,
    /// Seed of the initial latents.
    pub seed: u64,
}

impl DrawOptions {
    /// The model's defaults.
    pub fn new(config: &DecoderConfig, seed: u64) -> Self {
        Self {
            width: config.image_size,
            height: config.image_size,
            steps: config.steps,
            sampler: config.scheduler.sampler,
            guidance: config.guidance,
            seed,
        }
    }

    /// Validates the options against the model.
    ///
    /// # Errors
    /// Names the first option that is out of range.
    pub fn validate(&self, config: &DecoderConfig) -> Result<(), DrawError> {
        let (width, height) = (self.width, self.height);
        let factor = config.vae.factor();
        let fits = |side: usize| side > 0 && side <= LARGEST && side.is_multiple_of(factor);
        if !fits(width) || !fits(height) {
            return Err(DrawError::Size {
                width,
                height,
                factor,
                largest: LARGEST,
            });
        }
        self.validate_walk(config)
    }

    /// As [`DrawOptions::validate`], without the size.
    fn validate_walk(&self, config: &DecoderConfig) -> Result<(), DrawError> {
        if !GUIDANCE.contains(&self.guidance) {
            return Err(DrawError::Guidance(self.guidance));
        }
        let (steps, most) = (self.steps, config.scheduler.train_timesteps);
        match (1..=most).contains(&steps) {
            true => Ok(()),
            false => Err(DrawError::Steps { steps, most }),
        }
    }
}

/// Kind of preview that a step returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preview {
    /// No preview, no read-back.
    #[default]
    None,
    /// One pixel per latent if the configuration has `latent_rgb`; otherwise decoded.
    Rough,
    /// The currently predicted clean latents, decoded by the VAE.
    Decoded,
}

/// Result of a step.
#[derive(Clone, Debug)]
pub struct Progress {
    /// UNet evaluations so far.
    pub step: usize,
    /// Total UNet evaluations.
    pub total: usize,
    /// One per image if a preview was requested.
    pub previews: Vec<RgbImage>,
}

/// Largest side of an image in pixels.
const LARGEST: usize = 4096;
/// Accepted guidance scales.
const GUIDANCE: RangeInclusive<f64> = 0.0..=100.0;

/// Generation of a batch of images. Dropping it cancels.
#[derive(Debug)]
pub struct Denoise<'a> {
    decoder: &'a Decoder,
    config: &'a DecoderConfig,
    sampler: Scheduler,
    /// Context of the conditions; with guidance, followed by that of the negative conditions.
    context: Context,
    /// `None` without classifier-free guidance.
    guidance: Option<f64>,
    latents: Tensor<4>,
    /// The last submitted step.
    sent: Option<Sent>,
}

/// A submitted step and its completion.
struct Sent(Work, Done);

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sent({:?})", self.0)
    }
}

impl<'a> Denoise<'a> {
    /// Computes everything that is constant over the steps.
    ///
    /// # Shapes
    /// - `condition`: `[B, N, D]`; `negative`: `[B or 1, N, D]`, the model's null prompt if `None`
    ///
    /// # Errors
    /// If options or shapes do not fit the model.
    pub fn new(
        decoder: &'a Decoder,
        config: &'a DecoderConfig,
        condition: Tensor<3>,
        negative: Option<Tensor<3>>,
        options: &DrawOptions,
    ) -> Result<Self, DrawError> {
        options.validate(config)?;
        let factor = config.vae.factor();
        let DrawOptions { width, height, .. } = *options;
        let [b, ..] = condition.dims();
        let shape = [
            b,
            config.vae.latent_channels,
            height / factor,
            width / factor,
        ];
        let latents = seeded_latents(options.seed, shape, &condition.device());
        Self::from_latents(decoder, config, condition, negative, options, latents)
    }

    /// As [`Denoise::new`], from given initial latents, which determine the size.
    ///
    /// # Shapes
    /// - `latents`: `[B, L, H, W]`, standard normal
    ///
    /// # Errors
    /// If options or shapes do not fit the model.
    pub fn from_latents(
        decoder: &'a Decoder,
        config: &'a DecoderConfig,
        condition: Tensor<3>,
        negative: Option<Tensor<3>>,
        options: &DrawOptions,
        latents: Tensor<4>,
    ) -> Result<Self, DrawError> {
        options.validate_walk(config)?;
        let guidance = options.guidance;
        let [b, n, d] = condition.dims();
        let wrong = |what, actual: &[usize], expected: String| DrawError::Shape {
            what,
            actual: actual.into(),
            expected,
        };
        if b == 0 || n == 0 || d != config.unet.context_width {
            return Err(wrong(
                "condition",
                &[b, n, d],
                format!("[B, N, {}]", config.unet.context_width),
            ));
        }
        if latents.dims()[..2] != [b, config.vae.latent_channels] {
            return Err(wrong(
                "start",
                &latents.dims(),
                format!("[{b}, {}, H, W]", config.vae.latent_channels),
            ));
        }
        let sampler = config.scheduler.sampler(options.sampler, options.steps)?;
        let guidance = (guidance != 1.0).then_some(guidance);
        let mut context = config.normalise(condition);
        if guidance.is_some() {
            let negative = negative.unwrap_or_else(|| decoder.null_prompt.val());
            let [rows, n2, d2] = negative.dims();
            if ![1, b].contains(&rows) || [n2, d2] != [n, d] {
                return Err(wrong(
                    "negative condition",
                    &[rows, n2, d2],
                    format!("[1 or {b}, {n}, {d}]"),
                ));
            }
            context = Tensor::cat(
                vec![context, config.normalise(negative).expand([b, n, d])],
                0,
            );
        }
        let context = decoder.unet.prepare_context(context);
        Ok(Self {
            decoder,
            config,
            sampler,
            context,
            guidance,
            latents,
            sent: None,
        })
    }

    /// UNet evaluations so far, and in total.
    pub fn progress(&self) -> (usize, usize) {
        (self.sampler.position(), self.sampler.timesteps().len())
    }

    /// Whether all steps are done.
    pub fn is_done(&self) -> bool {
        self.sampler.timestep().is_none()
    }

    /// The current latents, `[B, L, H, W]`.
    pub fn latents(&self) -> Tensor<4> {
        self.latents.clone()
    }

    /// One UNet evaluation and one update of the latents. Reads nothing back unless a preview is requested. Does
    /// nothing at the end.
    ///
    /// Awaits the previous step, not this one. Without a wait the GPU's queue would run many steps behind the reported
    /// progress, and a cancellation would wait for all of them; with a wait for the current step the GPU would idle
    /// until the next launch.
    ///
    /// # Errors
    /// If the device fails.
    pub async fn step(&mut self, preview: Preview) -> Result<Progress, DrawError> {
        let mut previews = vec![];
        let throttle = &self.decoder.unet.throttle;
        let scope = throttle.scope();
        if let Some(output) = self.evaluate() {
            let clean = (preview != Preview::None)
                .then(|| self.sampler.clean(output.clone(), self.latents.clone()));
            self.advance(output);
            let sent = Sent(scope.end(), readback::done(&self.latents));
            if let Some(Sent(work, done)) = self.sent.replace(sent) {
                done.await.map_err(DrawError::Device)?;
                throttle.completed(work);
            }
            if let Some(clean) = clean {
                previews = self.preview(clean, preview).await?;
            }
        }
        let (step, total) = self.progress();
        Ok(Progress {
            step,
            total,
            previews,
        })
    }

    /// The prediction with guidance for the current latents, `[B, L, H, W]`; `None` at the end.
    pub fn evaluate(&self) -> Option<Tensor<4>> {
        let timestep = [self.sampler.timestep()? as f32];
        let unet = &self.decoder.unet;
        let latents = self.latents.clone();
        let Some(guidance) = self.guidance else {
            return Some(unet.forward_prepared(latents, &timestep, &self.context));
        };
        let [b, l, h, w] = latents.dims();
        let twice = match b {
            1 => latents.expand([2, l, h, w]),
            _ => Tensor::cat(vec![latents.clone(), latents], 0),
        };
        let both = unet.forward_prepared(twice, &timestep, &self.context);
        let (with, without) = (both.clone().narrow(0, 0, b), both.narrow(0, b, b));
        Some(without.clone() + (with - without).mul_scalar(guidance))
    }

    /// Updates the latents with the output of [`Denoise::evaluate`].
    pub fn advance(&mut self, output: Tensor<4>) {
        self.latents = self.sampler.step(output, self.latents.clone());
    }

    /// Decodes the current latents to images.
    ///
    /// # Errors
    /// If the device fails or the model computed a non-finite value.
    pub async fn pictures(&self) -> Result<Vec<RgbImage>, DrawError> {
        decode_latents(self.decoder, self.config, self.latents.clone()).await
    }

    /// Runs all remaining steps and decodes.
    ///
    /// # Errors
    /// As [`Denoise::pictures`].
    pub async fn run(mut self) -> Result<Vec<RgbImage>, DrawError> {
        while !self.is_done() {
            self.step(Preview::None).await?;
        }
        self.pictures().await
    }

    async fn preview(
        &self,
        clean: Tensor<4>,
        preview: Preview,
    ) -> Result<Vec<RgbImage>, DrawError> {
        match &self.config.latent_rgb {
            Some(colours) if preview == Preview::Rough => {
                let flat: Vec<f32> = colours.iter().flatten().copied().collect();
                let weight = Tensor::<2>::from_data(
                    TensorData::new(flat, [colours.len(), 3]),
                    &clean.device(),
                );
                let [b, l, h, w] = clean.dims();
                let mixed =
                    weight
                        .transpose()
                        .unsqueeze::<3>()
                        .matmul(clean.reshape([b, l, h * w])); // [B, 3, HW]
                to_pictures(mixed.reshape([b, 3, h, w])).await
            }
            _ => decode_latents(self.decoder, self.config, clean).await,
        }
    }
}

/// Initial latents of a seed. Each image has its own random stream, so it does not depend on the batch size.
pub fn seeded_latents(seed: u64, shape: [usize; 4], device: &Device) -> Tensor<4> {
    let [b, l, h, w] = shape;
    let values: Vec<f32> = (0..b as u64)
        .flat_map(|i| Philox::new(seed, Stream::Latents, i).normals(l * h * w))
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Decodes scaled latents, `[B, L, H, W]`, to images.
///
/// # Errors
/// If the device fails or the model computed a non-finite value.
pub async fn decode_latents(
    decoder: &Decoder,
    config: &DecoderConfig,
    latents: Tensor<4>,
) -> Result<Vec<RgbImage>, DrawError> {
    to_pictures(
        decoder
            .vae
            .decode(latents.div_scalar(config.vae.scaling_factor)),
    )
    .await
}

/// Converts `[B, 3, H, W]` from -1 to 1 to 8-bit images.
async fn to_pictures(values: Tensor<4>) -> Result<Vec<RgbImage>, DrawError> {
    let [_, channels, h, w] = values.dims();
    if channels != 3 {
        let actual = values.dims().to_vec();
        return Err(DrawError::Shape {
            what: "decoded picture",
            actual,
            expected: "[B, 3, H, W]".into(),
        });
    }
    let data = values
        .into_data_async()
        .await
        .map_err(|e| DrawError::Device(e.to_string()))?;
    emu_kernels::count::read_back(data.bytes().len());
    let values: Vec<f32> = data.iter::<f32>().collect();
    let picture = |values: &[f32]| picture_from_decoded(values, w as u32, h as u32);
    values
        .chunks(3 * h * w)
        .map(|values| picture(values).map_err(DrawError::from))
        .collect()
}

impl From<ImageError> for DrawError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::NotFinite { .. } => Self::NotFinite,
            other => Self::Device(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
