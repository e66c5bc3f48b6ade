//! Drawing as a step machine: one evaluation of the UNet per step, previews between steps, a picture at the end.
//!
//! B pictures, N embeddings of a picture, D their width, L latent channels, H height and W width of the latents.

use std::fmt;
use std::ops::RangeInclusive;

use burn::tensor::{Device, Tensor, TensorData};
use emu_kernels::random::{Philox, Stream};
use emu_kernels::readback::{self, Done};
use emu_kernels::throttle::Work;

use super::decoder::{Decoder, DecoderConfig};
use super::schedule::SchedulerKind;
use super::scheduler::Scheduler;
use super::unet::Context;
use crate::config::ConfigError;
use crate::image::{ImageError, RgbImage, picture_from_decoded};

/// Why a picture cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum DrawError {
    /// A size that the autoencoder cannot make.
    #[error(
        "A picture of {width}x{height} cannot be drawn by this model. Use sides that are multiples of {factor}, from {factor} to {largest} pixels."
    )]
    Size {
        /// What was asked for.
        width: usize,
        /// What was asked for.
        height: usize,
        /// Pixels that a latent covers.
        factor: usize,
        /// Longest side.
        largest: usize,
    },
    /// Guidance that is not a number, or too far from usual ones.
    #[error("The guidance is {0}. Give a number from 0 to 100: 1 for none, 3 to 10 usually.")]
    Guidance(f64),
    /// No steps, or more than there are noise levels.
    #[error("The steps are {steps}. Give a whole number from 1 to {most}; 20 to 50 are usual.")]
    Steps {
        /// What was asked for.
        steps: usize,
        /// Noise levels.
        most: usize,
    },
    /// A wrong configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Embeddings of another shape than the model's.
    #[error(
        "The {what} has the shape {actual:?}, where this model needs {expected}. Take it from the same model."
    )]
    Shape {
        /// Which tensor.
        what: &'static str,
        /// Its shape.
        actual: Vec<usize>,
        /// What it should be.
        expected: String,
    },
    /// A device failed while results were read.
    #[error("The device failed while computing: {0}. Try again, or use --device cpu.")]
    Device(String),
    /// The model computed something that is not a number.
    #[error(
        "The model computed values that are not finite. Its weights are broken, or the device miscalculates: try --device cpu."
    )]
    NotFinite,
}

impl DrawError {
    /// A stable name of the error.
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

/// How to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawOptions {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Steps of the sampler.
    pub steps: usize,
    /// Which sampler.
    pub sampler: SchedulerKind,
    /// How far from the negative prompt: 1 is the condition alone, at half the price.
    pub guidance: f64,
    /// Decides the latents that the walk starts from.
    pub seed: u64,
}

impl DrawOptions {
    /// A model's own choices.
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

    /// Checks the options against what a model can draw.
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

    /// As [`DrawOptions::validate`], whatever the size.
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

/// What a step is to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preview {
    /// Nothing: no read-back.
    #[default]
    None,
    /// One pixel per latent where the configuration knows the latents' colours; else decoded.
    Rough,
    /// What the autoencoder makes of the clean latents as they are now thought to be.
    Decoded,
}

/// What a step did.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Evaluations made.
    pub step: usize,
    /// Evaluations in all.
    pub total: usize,
    /// One per picture, where a preview was asked for.
    pub previews: Vec<RgbImage>,
}

/// Longest side of a picture.
const LARGEST: usize = 4096;
/// How far predictions can be led.
const GUIDANCE: RangeInclusive<f64> = 0.0..=100.0;

/// A picture, or several, being drawn. Dropping it cancels.
#[derive(Debug)]
pub struct Denoise<'a> {
    decoder: &'a Decoder,
    config: &'a DecoderConfig,
    sampler: Scheduler,
    /// Of the conditions; with guidance, of the negatives behind them.
    context: Context,
    /// Absent where only the condition counts.
    guidance: Option<f64>,
    latents: Tensor<4>,
    /// The step that was launched last.
    sent: Option<Sent>,
}

/// A step that a device computes, and its end.
struct Sent(Work, Done);

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sent({:?})", self.0)
    }
}

impl<'a> Denoise<'a> {
    /// Prepares everything that is the same at every step.
    ///
    /// # Shapes
    /// - `condition`: `[B, N, D]`; `negative`: `[B or 1, N, D]`, the model's null prompt where absent
    ///
    /// # Errors
    /// Where options or shapes do not fit the model.
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

    /// As [`Denoise::new`], from latents of one's own, which decide the size.
    ///
    /// # Shapes
    /// - `latents`: `[B, L, H, W]`, standard normal
    ///
    /// # Errors
    /// Where options or shapes do not fit the model.
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

    /// Evaluations made, and in all.
    pub fn progress(&self) -> (usize, usize) {
        (self.sampler.position(), self.sampler.timesteps().len())
    }

    /// Whether the walk is at its end.
    pub fn is_done(&self) -> bool {
        self.sampler.timestep().is_none()
    }

    /// The latents as they are, `[B, L, H, W]`.
    pub fn latents(&self) -> Tensor<4> {
        self.latents.clone()
    }

    /// One evaluation of the UNet and one move of the latents. Reads nothing back unless a preview is asked for. Does
    /// nothing at the end.
    ///
    /// A GPU would run steps behind what is told, and a stop would have to wait for all of them; were each awaited, it would
    /// have nothing to do until the next is launched. So the one before is awaited.
    ///
    /// # Errors
    /// Where the device fails.
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

    /// The guided prediction for the current latents, `[B, L, H, W]`; none at the end.
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

    /// Moves the latents by what [`Denoise::evaluate`] returned.
    pub fn advance(&mut self, output: Tensor<4>) {
        self.latents = self.sampler.step(output, self.latents.clone());
    }

    /// The pictures of the current latents.
    ///
    /// # Errors
    /// Where the device fails, or the model computed what is not a number.
    pub async fn pictures(&self) -> Result<Vec<RgbImage>, DrawError> {
        decode_latents(self.decoder, self.config, self.latents.clone()).await
    }

    /// Steps to the end and decodes.
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

/// The latents that a seed stands for: each picture has a stream of its own, so that it does not depend on how many are
/// drawn with it.
pub fn seeded_latents(seed: u64, shape: [usize; 4], device: &Device) -> Tensor<4> {
    let [b, l, h, w] = shape;
    let values: Vec<f32> = (0..b as u64)
        .flat_map(|i| Philox::new(seed, Stream::Latents, i).normals(l * h * w))
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Pictures of scaled latents, `[B, L, H, W]`.
///
/// # Errors
/// Where the device fails, or the model computed what is not a number.
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

/// `[B, 3, H, W]` from -1 to 1 to pictures of 8 bits.
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
