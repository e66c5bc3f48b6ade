//! A diffusion decoder conditioned on the token embeddings of a language model: the UNet denoises latents under the
//! spelled names, layout and colour of pictures ([`emu_model::spelling`]). It needs neither an encoder nor a forward
//! pass of the language model. The network that maps a request to these embeddings is trained separately.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use emu_kernels::random::{Philox, Stream};
use emu_model::diffusion::decoder::{Decoder, DecoderConfig};
use emu_model::diffusion::schedule::NoiseSchedule;
use emu_model::spelling::SpellingConfig;
use serde::Deserialize;

use super::batches::Batches;
use super::corpus::{Visited, image_tensor};
use super::decoder::{
    denoising_loss, draw, floats, latents, many, moments, open_requests, some, tenth,
};
use super::latents::Kept;
use super::read_sizes;
use super::sheet::contact_sheet;
use super::speller::{Speller, open_lm};
use super::vae::last_picture;
use crate::data::record::{Layout, Object, Record};
use crate::data::{Sample, ShardDataset};
use crate::stage::Source;
use crate::{Stage, StepContext, StepLoss, TrainConfig, TrainError};

/// The stage's own settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// GGUF file of the language model whose token embeddings are used.
    lm: PathBuf,
    /// JSON file with the decoder's sizes.
    sizes: PathBuf,
    /// Format of spelled pictures.
    spelling: SpellingConfig,
    /// Maximum standard deviation of noise on the conditions, in units of theirs. It covers the error of the network
    /// that regresses them.
    #[serde(default)]
    noise: f64,
    /// Share of the pictures that are trained with the null condition.
    #[serde(default = "tenth")]
    condition_drop: f64,
    /// Number of pictures for measuring the normalisation of latents.
    #[serde(default = "many")]
    measure: usize,
    /// Folder of requests for samples.
    #[serde(default)]
    requests: Option<PathBuf>,
    /// Number of samples.
    #[serde(default = "some")]
    samples: usize,
    /// Cache the latents of every picture after its first use, in f16: 4 to 5 kB per picture at 96 px. The autoencoder
    /// must be frozen.
    #[serde(default)]
    keep_latents: bool,
}

struct Batch {
    pictures: Vec<f32>,
    conditions: Vec<f32>,
    visited: Visited,
}

/// The stage `brush`.
pub struct BrushStage {
    options: Options,
    config: DecoderConfig,
    schedule: NoiseSchedule,
    spelling: Arc<Speller>,
    batches: Batches<Batch>,
    requests: Option<ShardDataset>,
    kept: Option<Kept>,
    device: Device,
}

/// Contents of a sample's last picture, if the record states them.
fn shown(sample: &Sample) -> Option<(Vec<Object>, Layout, String)> {
    match sample.record().ok()? {
        Record::Document(document) => {
            Some((document.objects, document.layout?, document.background?))
        }
        Record::Scene(scene) => Some((scene.objects, scene.layout, scene.background)),
        Record::Drawing(_) | Record::Pair(_) | Record::Video(_) | Record::Conversation(_) => None,
    }
}

/// The normalised embeddings of a picture, slot by slot.
fn spell(speller: &Speller, objects: &[Object], layout: Layout, colour: &str) -> Vec<f32> {
    let names = objects.iter().map(|object| object.name.as_str());
    speller.embeddings(&speller.slots(names, layout.word(), Some(colour)))
}

impl BrushStage {
    /// Opens the data and reads the language model's token embeddings.
    ///
    /// # Errors
    /// If the configuration, the data or the model cannot be used.
    pub fn new(train: &TrainConfig, device: &Device) -> Result<Self, TrainError> {
        let options: Options = train.options()?;
        let config: DecoderConfig = read_sizes(&options.sizes)?;
        let schedule = config
            .scheduler
            .noise_schedule()
            .map_err(|e| TrainError::other("config", e))?;
        let lm = open_lm(&options.lm, &Device::flex())?;
        let (table, tokenizer) = (&lm.lm.embed_tokens, &lm.tokenizer);
        let spelling = Speller::new(options.spelling, table, tokenizer, names(train)?)?;
        let spelling = Arc::new(spelling);
        let has = (spelling.config.slots(), spelling.width());
        if has != (config.tokens, config.unet.context_width) {
            let reason = format!(
                "the decoder wants {} embeddings of width {}, the spelling gives {} of width {}",
                config.tokens, config.unet.context_width, has.0, has.1
            );
            return Err(TrainError::config("options.sizes", reason));
        }
        let batches = {
            let spelling = spelling.clone();
            let (batch, seed, size) = (train.batch, train.seed, config.image_size);
            let (noise, drop) = (options.noise, options.condition_drop);
            Batches::open(train, move |corpus, index| {
                let mut random = Philox::new(seed, Stream::Data, index);
                let prepare =
                    |sample: &Sample| prepare(sample, &spelling, size, noise, drop, &mut random);
                let (prepared, visited) = corpus.batch(index, batch, prepare)?;
                let (pictures, conditions): (Vec<_>, Vec<_>) = prepared.into_iter().unzip();
                Ok(Batch {
                    pictures: pictures.concat(),
                    conditions: conditions.concat(),
                    visited,
                })
            })?
        };
        let requests = open_requests(options.requests.as_deref())?;
        let frozen = train
            .rates
            .iter()
            .any(|rate| rate.part == "vae" && rate.freeze);
        if options.keep_latents && !frozen {
            let what = "the autoencoder learns, and latents with it; freeze the part `vae`";
            return Err(TrainError::config("options.keep_latents", what));
        }
        let kept = options.keep_latents.then(Kept::default);
        Ok(Self {
            kept,
            options,
            config,
            schedule,
            spelling,
            batches,
            requests,
            device: device.clone(),
        })
    }

    /// Sizes of the trained model, with the result of [`BrushStage::measure`].
    pub fn model_config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Format of spelled pictures.
    pub fn spelling(&self) -> SpellingConfig {
        self.spelling.config
    }

    /// Measures the latents, so that the UNet sees them with variance 1, and sets the null condition.
    ///
    /// # Errors
    /// If the data cannot be read.
    pub fn measure(&mut self, decoder: Decoder) -> Result<Decoder, TrainError> {
        let size = self.config.image_size;
        let mut latents = vec![];
        for chunk in 0..self.options.measure.div_ceil(16) as u64 {
            let pictures = self
                .batches
                .corpus()
                .peek(chunk, 16, |sample| last_picture(sample, size))?;
            let pictures = image_tensor(pictures.concat(), size, &self.device);
            latents.extend(floats(decoder.vae.encode(pictures).mean)?);
        }
        let (_, std) = moments(&latents, 1);
        self.config.normalisation = Some(self.spelling.normalisation.clone());
        self.config.vae.scaling_factor = f64::from(1.0 / std[0]);
        self.config
            .validate()
            .map_err(|e| TrainError::other("config", e))?;
        // The null condition is all zeros before normalisation.
        let shape = [1, self.config.tokens, self.config.unet.context_width];
        let id = decoder.null_prompt.id;
        Ok(Decoder {
            null_prompt: Param::initialized(id, Tensor::zeros(shape, &self.device)),
            ..decoder
        })
    }

    fn conditions(&self, values: Vec<f32>, device: &Device) -> Tensor<3> {
        let (slots, width) = (self.config.tokens, self.config.unet.context_width);
        let rows = values.len() / (slots * width);
        Tensor::from_data(TensorData::new(values, [rows, slots, width]), device)
    }
}

/// All names in the data of a run: objects, colours and layouts, from the `concepts.json` beside the splits.
fn names(train: &TrainConfig) -> Result<Vec<String>, TrainError> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    #[derive(Deserialize)]
    struct Concepts {
        concepts: Vec<Named>,
        colours: Vec<Named>,
    }
    let mut names: Vec<String> = Layout::WORDS.map(String::from).to_vec();
    for data in &train.data {
        let path = data.path.with_file_name("concepts.json");
        let text = std::fs::read_to_string(&path).map_err(TrainError::io("read", &path))?;
        let found: Concepts = serde_json::from_str(&text)
            .map_err(|e| TrainError::config("data", format!("{}: {e}", path.display())))?;
        let found = found.concepts.into_iter().chain(found.colours);
        names.extend(found.map(|named| named.name));
    }
    Ok(names)
}

/// A picture and its condition, with noise, or with the null condition.
fn prepare(
    sample: &Sample,
    spelling: &Speller,
    size: usize,
    noise: f64,
    drop: f64,
    random: &mut Philox,
) -> Result<(Vec<f32>, Vec<f32>), TrainError> {
    let picture = last_picture(sample, size)?;
    let (objects, layout, colour) = shown(sample)
        .ok_or_else(|| sample.refuse("it does not say what its last picture shows"))?;
    if f64::from(random.uniform()) < drop {
        return Ok((picture, spelling.nothing()));
    }
    let mut condition = spell(spelling, &objects, layout, &colour);
    let std = random.uniform() * noise as f32;
    let normals = random.normals(condition.len());
    condition
        .iter_mut()
        .zip(normals)
        .for_each(|(v, n)| *v += n * std);
    Ok((picture, condition))
}

impl Stage for BrushStage {
    type Model = Decoder;

    fn name(&self) -> &str {
        "brush"
    }

    fn samples(&self, source: Source) -> Option<usize> {
        self.batches.samples(source)
    }

    fn loss(&mut self, model: &Decoder, context: &StepContext) -> Result<StepLoss, TrainError> {
        let batch = self.batches.get(context)?;
        let count = batch.visited.keys.len();
        let (size, config) = (self.config.image_size, &self.config);
        let encode = |pictures: Vec<f32>| {
            let pictures = image_tensor(pictures, size, &context.device);
            latents(model, config, pictures)
        };
        let latents = match &mut self.kept {
            Some(kept) => {
                let keys = &batch.visited.keys;
                kept.find(keys, &batch.pictures, &context.device, encode)?
            }
            None => encode(batch.pictures),
        };
        let conditions = self.conditions(batch.conditions, &context.device);
        let (mut random, schedule) = (context.random(Stream::Training), &self.schedule);
        let loss = denoising_loss(model, schedule, latents, conditions, &mut random, context);
        Ok(StepLoss::new(loss, count).with_visited(batch.visited))
    }

    fn sample(&mut self, model: &Decoder, _step: u64, dir: &Path) -> Result<(), TrainError> {
        let Some(requests) = &self.requests else {
            return Ok(());
        };
        let negative = self.conditions(self.spelling.nothing(), &self.device);
        let mut pictures = vec![];
        for i in 0..requests.len().min(self.options.samples) {
            let sample = requests.get(i)?;
            let Some((objects, layout, colour)) = shown(&sample) else {
                continue;
            };
            let condition = spell(&self.spelling, &objects, layout, &colour);
            let condition = self.conditions(condition, &self.device);
            let made = draw(model, &self.config, condition, negative.clone(), i as u64)?;
            pictures.extend(made);
        }
        contact_sheet(&pictures, 8, &dir.join("drawings.png"))
    }
}

#[cfg(test)]
mod tests {
    use emu_model::diffusion::decoder::Normalisation;

    use super::*;
    use crate::data::Picture;
    use crate::data::record::Place;

    /// Three words of one token and one of two tokens, in two dimensions.
    fn speller() -> Speller {
        let words = [
            ("dog", vec![1]),
            ("ice cream", vec![2, 3]),
            ("red", vec![4]),
            ("left", vec![5]),
        ];
        Speller {
            config: SpellingConfig {
                objects: 2,
                tokens: 2,
            },
            words: words
                .map(|(word, tokens)| (word.to_string(), tokens))
                .into(),
            rows: (1..=5u8)
                .map(|i| (u32::from(i), vec![f32::from(i); 2]))
                .collect(),
            empty: vec![-1.0; 2],
            normalisation: Normalisation {
                mean: vec![0.0; 2],
                std: vec![1.0; 2],
            },
        }
    }

    fn sample(record: serde_json::Value) -> Sample {
        Sample {
            key: "0".into(),
            shard: Path::new("a.tar").into(),
            json: record,
            images: vec![Picture {
                width: 4,
                height: 4,
                rgb: vec![0; 48],
            }],
            numbers: vec![0],
        }
    }

    fn object(name: &str) -> serde_json::Value {
        let object = Object {
            name: name.into(),
            hexcode: String::new(),
            set: String::new(),
            place: Place::Left,
            cx: 0.5,
            cy: 0.5,
            size: 0.5,
        };
        serde_json::to_value(object).unwrap()
    }

    fn draw() -> Sample {
        sample(serde_json::json!({
            "kind": "document", "split": "train", "task": "draw", "parts": [], "layout": "row", "background": "red",
            "objects": [object("dog"), object("ice cream")],
        }))
    }

    #[test]
    fn conditions_are_the_spelled_record() {
        let mut random = Philox::new(1, Stream::Data, 0);
        let (picture, condition) =
            prepare(&draw(), &speller(), 4, 0.0, 0.0, &mut random).expect("usable");
        assert_eq!(picture.len(), 48);
        let slots: Vec<f32> = condition.chunks_exact(2).map(|row| row[0]).collect();
        // dog, nothing, ice, cream, left, red
        assert_eq!(slots, [1.0, -1.0, 2.0, 3.0, 5.0, 4.0]);
    }

    #[test]
    fn conditions_get_noise_or_are_dropped() {
        let mut random = Philox::new(1, Stream::Data, 0);
        let plain = prepare(&draw(), &speller(), 4, 0.0, 0.0, &mut random)
            .unwrap()
            .1;
        let noisy = prepare(&draw(), &speller(), 4, 0.5, 0.0, &mut random)
            .unwrap()
            .1;
        let off = plain.iter().zip(&noisy).map(|(a, b)| (a - b).abs());
        let largest = off.fold(0.0, f32::max);
        assert!(largest > 0.0 && largest < 3.0, "{largest}");
        let nothing = prepare(&draw(), &speller(), 4, 0.5, 1.0, &mut random)
            .unwrap()
            .1;
        assert_eq!(nothing, vec![-1.0; 12]);
    }

    #[test]
    fn samples_that_show_nothing_known_are_refused() {
        let mut random = Philox::new(1, Stream::Data, 0);
        let caption = sample(serde_json::json!({"kind": "pair", "caption": "a dog"}));
        let refused = prepare(&caption, &speller(), 4, 0.0, 0.0, &mut random);
        let message = refused.expect_err("no objects").to_string();
        assert!(message.contains("what its last picture shows"), "{message}");
        let mut bare = draw();
        bare.images.clear();
        assert!(prepare(&bare, &speller(), 4, 0.0, 0.0, &mut random).is_err());
    }
}
