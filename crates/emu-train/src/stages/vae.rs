//! Trains the autoencoder (VAE) between pictures and latents.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use emu_kernels::random::{Philox, Stream};
use emu_model::diffusion::vae::{Vae, VaeConfig};
use serde::Deserialize;

use super::batches::Batches;
use super::corpus::{Visited, image_tensor, pixels};
use super::model_file::{PLAIN, read_sizes};
use super::sheet::{contact_sheet, pictures_of};
use crate::data::Sample;
use crate::objectives::diffusion::autoencoder;
use crate::stage::Source;
use crate::{Stage, StepContext, StepLoss, TrainConfig, TrainError};

/// The stage's own settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    /// Side of the pictures in pixels.
    image_size: usize,
    /// Side of a random square crop of each picture in a step; the whole picture if absent. Convolutions trained on
    /// crops work on whole pictures, and crops cost less.
    crop: Option<usize>,
    /// JSON file with the autoencoder's sizes; those of emu-mini if absent.
    sizes: Option<PathBuf>,
    /// Weight of the edge loss.
    edge_weight: f64,
    /// Weight of the KL divergence.
    kl_weight: f64,
}

struct Batch {
    pixels: Vec<f32>,
    visited: Visited,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            image_size: 64,
            crop: None,
            sizes: None,
            edge_weight: 0.5,
            kl_weight: 1e-5,
        }
    }
}

/// The stage.
pub struct VaeStage {
    config: VaeConfig,
    options: Options,
    batches: Batches<Batch>,
    samples: Vec<f32>,
}

impl VaeStage {
    /// Opens the data.
    ///
    /// # Errors
    /// If the configuration or the data cannot be used.
    pub fn new(train: &TrainConfig) -> Result<Self, TrainError> {
        let options: Options = train.options()?;
        let config = match &options.sizes {
            Some(path) => read_sizes(path)?,
            None => VaeConfig::emu_mini(),
        };
        let (size, batch, seed) = (options.image_size, train.batch, train.seed);
        let side = options.crop.unwrap_or(size);
        let factor = config.factor();
        if side == 0 || side > size || !side.is_multiple_of(factor) {
            let reason =
                format!("{side} is no multiple of {factor} up to {size}, the pictures' side");
            return Err(TrainError::config("options.crop", reason));
        }
        let batches = Batches::open(train, move |corpus, index| {
            let mut random = Philox::new(seed, Stream::Data, index);
            let mut place = || random.below(size - side + 1);
            let (pixels, visited) = corpus.batch(index, batch, |sample| {
                let picture = last_picture(sample, size)?;
                Ok(cut(&picture, size, side, place(), place()))
            })?;
            let pixels = pixels.concat();
            Ok(Batch { pixels, visited })
        })?;
        let samples = batches
            .corpus()
            .peek(u64::MAX / 2 / 16, 16, |sample| last_picture(sample, size))?
            .concat();
        Ok(Self {
            config,
            options,
            batches,
            samples,
        })
    }

    /// Sizes of the trained model.
    pub fn model_config(&self) -> &VaeConfig {
        &self.config
    }

    /// Side of the training pictures in pixels.
    fn side(&self) -> usize {
        self.options.crop.unwrap_or(self.options.image_size)
    }

    fn noise(
        &self,
        pictures: usize,
        values: impl FnOnce(usize) -> Vec<f32>,
        device: &Device,
    ) -> Tensor<4> {
        let side = self.side() / self.config.factor();
        let shape = [pictures, self.config.latent_channels, side, side];
        Tensor::from_data(
            TensorData::new(values(shape.iter().product()), shape),
            device,
        )
    }
}

/// The square crop at (x, y) of a picture of `size`, both `[3, side, side]`.
fn cut(picture: &[f32], size: usize, side: usize, x: usize, y: usize) -> Vec<f32> {
    let rows = picture.chunks_exact(size);
    rows.enumerate()
        .filter(|(row, _)| (y..y + side).contains(&(row % size)))
        .flat_map(|(_, row)| row[x..x + side].iter().copied())
        .collect()
}

/// The last picture of a sample, which in documents is the one to be drawn.
pub(super) fn last_picture(sample: &Sample, size: usize) -> Result<Vec<f32>, TrainError> {
    let picture = sample
        .images
        .last()
        .ok_or_else(|| sample.refuse("it has no picture"))?;
    Ok(pixels(picture, size, &PLAIN).map_err(|e| sample.refuse(e))?)
}

impl Stage for VaeStage {
    type Model = Vae;

    fn name(&self) -> &str {
        "vae"
    }

    fn samples(&self, source: Source) -> Option<usize> {
        self.batches.samples(source)
    }

    fn loss(&mut self, model: &Vae, context: &StepContext) -> Result<StepLoss, TrainError> {
        let batch = self.batches.get(context)?;
        let count = batch.visited.keys.len();
        let images = image_tensor(batch.pixels, self.side(), &context.device);
        let mut random = context.random(Stream::TrainingNoise);
        let noise = self.noise(count, |n| random.normals(n), &context.device);
        let losses = autoencoder(model, images, noise);
        let total = losses.pixels.clone()
            + losses.edges.clone().mul_scalar(self.options.edge_weight)
            + losses.kl.clone().mul_scalar(self.options.kl_weight);
        Ok(StepLoss::new(total, count)
            .with_visited(batch.visited)
            .with_term("pixels", losses.pixels)
            .with_term("edges", losses.edges)
            .with_term("kl", losses.kl))
    }

    fn evaluate(&mut self, model: &Vae, _step: u64) -> Result<Vec<(String, f32)>, TrainError> {
        let device = model
            .devices()
            .first()
            .cloned()
            .unwrap_or_else(Device::flex);
        let images = image_tensor(self.samples.clone(), self.options.image_size, &device);
        let made = model.decode(model.encode(images.clone()).mean);
        // PSNR of pictures in -1..1: the peak-to-peak range is 2.
        let mse = (made - images).square().mean().into_scalar::<f32>();
        Ok(vec![("psnr".into(), 10.0 * (4.0 / mse.max(1e-12)).log10())])
    }

    fn sample(&mut self, model: &Vae, _step: u64, dir: &Path) -> Result<(), TrainError> {
        let device = model
            .devices()
            .first()
            .cloned()
            .unwrap_or_else(Device::flex);
        let images = image_tensor(self.samples.clone(), self.options.image_size, &device);
        let made = model.decode(model.encode(images.clone()).mean);
        let mut pictures = pictures_of(images)?;
        pictures.extend(pictures_of(made)?);
        contact_sheet(&pictures, 8, &dir.join("reconstructions.png"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_cut_out_of_every_channel() {
        let picture: Vec<f32> = (0..3 * 16).map(|v| v as f32).collect();
        let middle = cut(&picture, 4, 2, 1, 2);
        let expected = [9.0, 10.0, 13.0, 14.0];
        let of = |channel: f32| expected.map(|v| v + 16.0 * channel);
        assert_eq!(middle, [of(0.0), of(1.0), of(2.0)].concat());
        assert_eq!(cut(&picture, 4, 4, 0, 0), picture);
    }
}
