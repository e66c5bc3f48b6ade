//! The diffusion decoder: a UNet that learns to denoise latents conditioned on picture embeddings, from the encoder or
//! regressed by the LM. Encoder, LM and autoencoder are frozen.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use emu_kernels::random::{Philox, Stream};
use emu_media::image::RgbImage;
use emu_model::config::ImageConfig;
use emu_model::diffusion::decoder::{Decoder, DecoderConfig, Normalisation};
use emu_model::diffusion::pipeline::{Denoise, DrawOptions};
use emu_model::diffusion::schedule::NoiseSchedule;
use emu_model::{Emu, EmuConfig};
use serde::Deserialize;

use super::batches::Batches;
use super::corpus::{Visited, Words, image_tensor, open_set, pixels};
use super::model_file::{PLAIN, load_emu, read_emu_sizes, read_sizes};
use super::sequence::Composer;
use super::sheet::contact_sheet;
use super::sizes::preset;
use crate::data::record::{Document, Part, Record};
use crate::data::{Sample, ShardDataset};
use crate::lda::columns;
use crate::objectives::diffusion::denoising;
use crate::stage::Source;
use crate::{Stage, StepContext, StepLoss, TrainConfig, TrainError};

/// The stage's own settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// `tokenizer.json` of the data.
    tokenizer: PathBuf,
    /// Run folder of the encoder and LM that provide the embeddings.
    emu: PathBuf,
    /// The decoder's sizes: `emu-14b` (Stable Diffusion 1.5's with Emu's condition) or a JSON file; those of emu-mini if
    /// absent.
    #[serde(default)]
    sizes: Option<PathBuf>,
    /// Share of the pictures whose embeddings are regressed by the LM from their text instead of taken from the
    /// encoder.
    #[serde(default)]
    regressed: f64,
    /// Share of the pictures that are trained with the null prompt.
    #[serde(default = "tenth")]
    condition_drop: f64,
    /// Number of pictures for measuring the normalisation of embeddings and latents. With 0, the sizes' own are kept: the
    /// scale of a published autoencoder, and embeddings as they are.
    #[serde(default = "many")]
    measure: usize,
    /// Folder of requests for samples.
    #[serde(default)]
    requests: Option<PathBuf>,
    /// Number of samples.
    #[serde(default = "some")]
    samples: usize,
}

impl Options {
    /// Sizes of the decoder for this encoder and LM.
    fn decoder(&self, emu: &EmuConfig) -> Result<DecoderConfig, TrainError> {
        let sizes = match &self.sizes {
            Some(path) if path == Path::new("emu-14b") => DecoderConfig::emu_14b(),
            Some(path) => read_sizes(path)?,
            None => DecoderConfig::emu_mini(emu.queries(), emu.lm.width),
        };
        let (tokens, width) = (emu.queries(), emu.lm.width);
        if (sizes.tokens, sizes.unet.context_width) != (tokens, width) {
            let message = format!(
                "the decoder reads {} embeddings of width {}, and the LM gives {tokens} of width {width}",
                sizes.tokens, sizes.unet.context_width
            );
            return Err(TrainError::config("options.sizes", message));
        }
        Ok(sizes)
    }
}

pub(super) fn tenth() -> f64 {
    0.1
}
pub(super) fn many() -> usize {
    512
}
pub(super) fn some() -> usize {
    24
}

struct Batch {
    /// Pixels for the encoder.
    seen: Vec<f32>,
    /// Pixels for the autoencoder.
    plain: Vec<f32>,
    /// Prompt of each picture whose embeddings the LM regresses.
    requests: Vec<Option<Vec<u32>>>,
    visited: Visited,
}

/// A picture preprocessed for the encoder and for the autoencoder.
type Views = (Vec<f32>, Vec<f32>);

/// The stage `decoder`.
pub struct DecoderStage {
    options: Options,
    config: DecoderConfig,
    schedule: NoiseSchedule,
    emu: Emu,
    emu_config: EmuConfig,
    words: Arc<Words>,
    batches: Batches<Batch>,
    requests: Option<ShardDataset>,
    device: Device,
}

impl DecoderStage {
    /// Opens the data, and the frozen parts on `device` (without autodiff).
    ///
    /// # Errors
    /// If the configuration, the data or the frozen parts cannot be used.
    pub fn new(train: &TrainConfig, device: &Device) -> Result<Self, TrainError> {
        let options: Options = train.options()?;
        let words = Arc::new(Words::open(&options.tokenizer)?);
        let (emu, emu_config) = load_emu(&options.emu, device)?;
        let config = options.decoder(&emu_config)?;
        let schedule = config
            .scheduler
            .noise_schedule()
            .map_err(|e| TrainError::other("config", e))?;
        let maker = Maker {
            words: words.clone(),
            emu: emu_config.clone(),
            sides: Sides::of(&emu_config, &config),
            regressed: options.regressed,
        };
        let batches = {
            let (batch, seed) = (train.batch, train.seed);
            Batches::open(train, move |corpus, index| {
                let mut random = Philox::new(seed, Stream::Data, index);
                let prepare = |sample: &Sample| maker.prepare(sample, &mut random);
                let (prepared, visited) = corpus.batch(index, batch, prepare)?;
                Ok(Batch::new(prepared, visited))
            })?
        };
        let requests = open_requests(options.requests.as_deref())?;
        Ok(Self {
            options,
            config,
            schedule,
            emu,
            emu_config,
            words,
            batches,
            requests,
            device: device.clone(),
        })
    }

    /// Sizes of the frozen encoder and LM, and of the model that a configuration trains. Opens no data and no weights. The
    /// former are those of `init.preset`, or of the run that the options name.
    ///
    /// # Errors
    /// If the configuration cannot be used.
    pub fn plan(train: &TrainConfig) -> Result<(EmuConfig, DecoderConfig), TrainError> {
        let options: Options = train.options()?;
        let emu = match (&train.init.preset, preset(train)?) {
            (Some(_), Some(sizes)) => sizes,
            _ => read_emu_sizes(&options.emu)?,
        };
        let decoder = options.decoder(&emu)?;
        Ok((emu, decoder))
    }

    /// Sizes of the trained model, with the result of [`DecoderStage::measure`].
    pub fn model_config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Sizes of the model that provides the embeddings.
    pub fn emu_config(&self) -> &EmuConfig {
        &self.emu_config
    }

    /// Measures the normalisation, so that the UNet sees embeddings with mean 0 and variance 1 and latents with
    /// variance 1 (their mean is not subtracted), and computes the null prompt. Deterministic: it always uses the same
    /// pictures.
    ///
    /// # Errors
    /// If the data cannot be read.
    pub fn measure(&mut self, decoder: Decoder) -> Result<Decoder, TrainError> {
        if self.options.measure > 0 {
            self.measure_normalisation(&decoder)?;
        }
        self.config
            .validate()
            .map_err(|e| TrainError::other("config", e))?;

        let null = self.regress(&[vec![self.words.special.bos]])?;
        let values = floats(null)?;
        let shape = [1, self.config.tokens, self.emu_config.lm.width];
        let null: Tensor<3> = Tensor::from_data(TensorData::new(values, shape), &self.device);
        let id = decoder.null_prompt.id;
        Ok(Decoder {
            null_prompt: burn::module::Param::initialized(id, null),
            ..decoder
        })
    }

    fn measure_normalisation(&mut self, decoder: &Decoder) -> Result<(), TrainError> {
        let mut embeddings = vec![];
        let mut latents = vec![];
        let sides = Sides::of(&self.emu_config, &self.config);
        for chunk in 0..self.options.measure.div_ceil(16) as u64 {
            let image = &self.emu_config.image;
            let (seen, plain): (Vec<_>, Vec<_>) = self
                .batches
                .corpus()
                .peek(chunk, 16, |sample| views(sample, sides, image))?
                .into_iter()
                .unzip();
            let (seen, plain) = (seen.concat(), plain.concat());
            embeddings.extend(floats(self.emu.embed_images(image_tensor(
                seen,
                sides.seen,
                &self.device,
            )))?);
            latents.extend(floats(
                decoder
                    .vae
                    .encode(image_tensor(plain, sides.drawn, &self.device))
                    .mean,
            )?);
        }
        let width = self.emu_config.lm.width;
        let (mean, std) = moments(&embeddings, width);
        let (_, latent_std) = moments(&latents, 1);
        self.config.normalisation = Some(Normalisation { mean, std });
        self.config.vae.scaling_factor = f64::from(1.0 / latent_std[0]);
        Ok(())
    }

    /// The embeddings that the LM regresses after prompts of equal length, `[B, Q, D]`.
    fn regress(&self, prompts: &[Vec<u32>]) -> Result<Tensor<3>, TrainError> {
        let lm = &self.emu.lm;
        let special = &self.words.special;
        let queries = self.emu_config.queries();
        let embeds = self
            .emu
            .splice(prompts, None, special.image)
            .map_err(|e| TrainError::other("image-marks", e))?;
        let [b, t, _] = embeds.dims();
        let mut cache = lm.cache(b, t + queries);
        // The cache has room for all of them.
        let full = |e| TrainError::other("prompt-too-long", e);
        lm.step(embeds, &mut cache).map_err(full)?;
        let begin = self
            .emu
            .splice(&vec![vec![special.img]; b], None, special.image)
            .map_err(|e| TrainError::other("image-marks", e))?;
        let mut next = begin;
        let mut all = Vec::with_capacity(queries);
        for _ in 0..queries {
            let hidden = lm.step(next, &mut cache).map_err(full)?;
            let regressed = lm.regress(hidden);
            next = regressed.map_err(|e| TrainError::other("no-component", e))?;
            all.push(next.clone());
        }
        Ok(Tensor::cat(all, 1))
    }

    /// Conditions of a batch: embeddings regressed by the LM for pictures with a prompt, otherwise from the encoder.
    fn conditions(&self, batch: &Batch) -> Result<Tensor<3>, TrainError> {
        let size = self.emu_config.vision.image_size;
        let seen = self
            .emu
            .embed_images(image_tensor(batch.seen.clone(), size, &self.device));
        let mut rows: Vec<Tensor<3>> = seen.clone().split(1, 0);
        let mut by_length: std::collections::BTreeMap<usize, Vec<usize>> = Default::default();
        for (i, request) in batch.requests.iter().enumerate() {
            if let Some(request) = request {
                by_length.entry(request.len()).or_default().push(i);
            }
        }
        for members in by_length.values() {
            let prompts: Vec<Vec<u32>> = members
                .iter()
                .filter_map(|&i| batch.requests[i].clone())
                .collect();
            for (row, &i) in self.regress(&prompts)?.split(1, 0).into_iter().zip(members) {
                rows[i] = row;
            }
        }
        Ok(self.config.normalise(Tensor::cat(rows, 0)))
    }
}

/// Prepares samples for batches, on any thread.
struct Maker {
    words: Arc<Words>,
    emu: EmuConfig,
    sides: Sides,
    regressed: f64,
}

/// Sides of the square pictures in pixels.
#[derive(Clone, Copy)]
struct Sides {
    /// Of those that the encoder reads.
    seen: usize,
    /// Of those that are drawn.
    drawn: usize,
}

impl Sides {
    fn of(emu: &EmuConfig, decoder: &DecoderConfig) -> Self {
        Self {
            seen: emu.vision.image_size,
            drawn: decoder.image_size,
        }
    }
}

impl Maker {
    fn prepare(
        &self,
        sample: &Sample,
        random: &mut Philox,
    ) -> Result<(Views, Option<Vec<u32>>), TrainError> {
        let composer = Composer::new(&self.words, self.emu.queries(), self.emu.lm.context);
        let views = views(sample, self.sides, &self.emu.image)?;
        let request = match sample.record() {
            Ok(Record::Document(document)) => request(&composer, &document)?,
            _ => None,
        };
        // The request, [IMG] and the embeddings regressed after it.
        let (context, queries) = (self.emu.lm.context, self.emu.queries());
        if let Some(tokens) = request.as_ref().map(|request| request.len() + 1 + queries)
            && tokens > context
        {
            let reason =
                format!("it has {tokens} tokens with its picture, and the model reads {context}");
            return Err(sample.refuse(reason).into());
        }
        let regressed = f64::from(random.uniform()) < self.regressed;
        Ok((views, request.filter(|_| regressed)))
    }
}

/// The last picture of a sample, preprocessed.
fn views(sample: &Sample, sides: Sides, image: &ImageConfig) -> Result<Views, TrainError> {
    let picture = sample
        .images
        .last()
        .ok_or_else(|| sample.refuse("it has no picture"))?;
    let seen = pixels(picture, sides.seen, image).map_err(|e| sample.refuse(e))?;
    let plain = pixels(picture, sides.drawn, &PLAIN).map_err(|e| sample.refuse(e))?;
    Ok((seen, plain))
}

impl Batch {
    fn new(prepared: Vec<(Views, Option<Vec<u32>>)>, visited: Visited) -> Self {
        let mut batch = Self {
            seen: vec![],
            plain: vec![],
            requests: vec![],
            visited,
        };
        for ((seen, plain), request) in prepared {
            batch.seen.extend(seen);
            batch.plain.extend(plain);
            batch.requests.push(request);
        }
        batch
    }
}

/// The prompt of a drawing request (text, then a picture).
fn request(composer: &Composer, document: &Document) -> Result<Option<Vec<u32>>, TrainError> {
    match document.parts.as_slice() {
        [Part::Text(text), Part::Image(_)] if document.task == "draw" => {
            Ok(Some(composer.request(text)?))
        }
        _ => Ok(None),
    }
}

pub(super) fn floats<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, TrainError> {
    tensor
        .into_data()
        .try_to_vec::<f32>()
        .map_err(|e| TrainError::Stage(format!("{e:?}")))
}

/// Mean and standard deviation of each of `width` columns.
pub(super) fn moments(values: &[f32], width: usize) -> (Vec<f32>, Vec<f32>) {
    let moments = columns(values, width).into_iter();
    moments
        .map(|(mean, variance)| (mean as f32, variance.max(1e-8).sqrt() as f32))
        .unzip()
}

/// Opens the requests for samples.
pub(super) fn open_requests(folder: Option<&Path>) -> Result<Option<ShardDataset>, TrainError> {
    folder
        .map(|folder| open_set(folder, Some("draw")))
        .transpose()
}

/// Draws pictures under normalised conditions.
pub(super) fn draw(
    model: &Decoder,
    config: &DecoderConfig,
    condition: Tensor<3>,
    negative: Tensor<3>,
    seed: u64,
) -> Result<Vec<RgbImage>, TrainError> {
    let bare = DecoderConfig {
        normalisation: None,
        ..config.clone()
    };
    let options = DrawOptions::new(config, seed);
    let drawing = Denoise::new(model, &bare, condition, Some(negative), &options)
        .map_err(|e| TrainError::other(e.code(), e))?;
    burn::tensor::read_sync(drawing.run()).map_err(|e| TrainError::other(e.code(), e))
}

/// The latents of pictures `[B, 3, S, S]`, scaled for the UNet.
pub(super) fn latents(model: &Decoder, config: &DecoderConfig, pictures: Tensor<4>) -> Tensor<4> {
    let latents = model.vae.encode(pictures).mean.detach();
    latents.mul_scalar(config.vae.scaling_factor)
}

/// The denoising loss of latents under normalised conditions `[B, N, D]`, with a random timestep for each picture.
pub(super) fn denoising_loss(
    model: &Decoder,
    schedule: &NoiseSchedule,
    latents: Tensor<4>,
    conditions: Tensor<3>,
    random: &mut Philox,
    context: &StepContext,
) -> Tensor<1> {
    let shape = latents.dims();
    let levels = schedule.alphas_cumprod.len();
    let timesteps: Vec<usize> = (0..shape[0]).map(|_| random.below(levels)).collect();
    let values = context
        .random(Stream::TrainingNoise)
        .normals(shape.iter().product());
    let noise = Tensor::from_data(TensorData::new(values, shape), &context.device);
    denoising(
        &model.unet,
        schedule,
        latents,
        noise,
        &timesteps,
        conditions,
    )
}

impl Stage for DecoderStage {
    type Model = Decoder;

    fn name(&self) -> &str {
        "decoder"
    }

    fn samples(&self, source: Source) -> Option<usize> {
        self.batches.samples(source)
    }

    fn loss(&mut self, model: &Decoder, context: &StepContext) -> Result<StepLoss, TrainError> {
        let batch = self.batches.get(context)?;
        let count = batch.visited.keys.len();
        let mut random = context.random(Stream::Training);

        let pictures = image_tensor(batch.plain.clone(), self.config.image_size, &context.device);
        let conditions = self.conditions(&batch)?;
        let null = self
            .config
            .normalise(model.null_prompt.val().detach().inner());
        let rows: Vec<Tensor<3>> = conditions
            .split(1, 0)
            .into_iter()
            .map(|row| {
                if f64::from(random.uniform()) < self.options.condition_drop {
                    null.clone()
                } else {
                    row
                }
            })
            .collect();
        let conditions = Tensor::from_inner(Tensor::cat(rows, 0));
        let latents = latents(model, &self.config, pictures);
        let schedule = &self.schedule;
        let loss = denoising_loss(model, schedule, latents, conditions, &mut random, context);
        Ok(StepLoss::new(loss, count).with_visited(batch.visited))
    }

    fn sample(&mut self, model: &Decoder, _step: u64, dir: &Path) -> Result<(), TrainError> {
        let Some(requests) = &self.requests else {
            return Ok(());
        };
        let composer = Composer::new(
            &self.words,
            self.emu_config.queries(),
            self.emu_config.lm.context,
        );
        let mut pictures = vec![];
        for i in 0..requests.len().min(self.options.samples) {
            let Ok(Record::Document(document)) = requests.record(i) else {
                continue;
            };
            let Some(prompt) = request(&composer, &document)? else {
                continue;
            };
            let condition = self.config.normalise(self.regress(&[prompt])?);
            let negative = self.config.normalise(model.null_prompt.val());
            let made = draw(model, &self.config, condition, negative, i as u64)?;
            pictures.extend(made);
        }
        contact_sheet(&pictures, 8, &dir.join("drawings.png"))
    }
}

/// The sizes of encoder, LM and decoder as one JSON value, for the file beside the checkpoints.
pub fn model_value(emu: &EmuConfig, decoder: &DecoderConfig) -> serde_json::Value {
    serde_json::json!({ "emu": emu, "decoder": decoder })
}
