//! The judge of drawings: a small convolutional classifier, trained on pictures of single objects. It shares nothing
//! with the model it evaluates.
//!
//! B pictures, C classes (concepts).

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use emu_kernels::QLinear;
use emu_kernels::random::{Philox, Stream};
use emu_media::image::resize_bicubic;
use emu_model::config::StemConfig;
use emu_model::vision::Stem;
use emu_model::weights;
use emu_pack::TensorSource;
use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::data::record::Record;
use crate::data::{Picture, Sample, ShardDataset};
use crate::objectives::cross_entropy;
use crate::stage::Source;
use crate::stages::PLAIN;
use crate::stages::batches::Batches;
use crate::stages::corpus::{Visited, image_tensor, open_set, pixels};
use crate::{Stage, StepContext, StepLoss, TrainConfig, TrainError};

/// Side of the input pictures in pixels.
const SIDE: usize = 64;

/// The network: a convolutional stem, mean and max pooling of its features, a linear layer.
#[derive(Module, Debug)]
pub struct JudgeNet {
    /// 64 px to 4 x 4.
    pub stem: Stem,
    /// `[C, 2 D]`
    pub head: QLinear,
}

/// Configuration of the judge besides its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeConfig {
    /// Names of the concepts, by class index.
    pub names: Vec<String>,
    /// Names and RGB colours (0 to 255) of backgrounds.
    pub colours: Vec<(String, [u8; 3])>,
}

impl JudgeConfig {
    /// Reads the `concepts.json` of the data.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        #[derive(Deserialize)]
        struct Concept {
            name: String,
            #[serde(default)]
            unseen: bool,
        }
        #[derive(Deserialize)]
        struct Colour {
            name: String,
            rgb: [u8; 3],
        }
        #[derive(Deserialize)]
        struct Concepts {
            concepts: Vec<Concept>,
            colours: Vec<Colour>,
        }
        let text = std::fs::read_to_string(path).map_err(TrainError::io("read", path))?;
        let all: Concepts = serde_json::from_str(&text)
            .map_err(|e| TrainError::config("options.concepts", e.to_string()))?;
        Ok(Self {
            names: all
                .concepts
                .into_iter()
                .filter(|c| !c.unseen)
                .map(|c| c.name)
                .collect(),
            colours: all.colours.into_iter().map(|c| (c.name, c.rgb)).collect(),
        })
    }

    fn init(&self, device: &Device) -> JudgeNet {
        let stem = StemConfig {
            channels: vec![32, 48, 96, 160],
            blocks: vec![0, 1, 1, 1],
            groups: 16,
        };
        JudgeNet {
            stem: stem.init(device),
            head: QLinear::new(2 * 160, self.names.len(), true, device),
        }
    }
}

impl JudgeNet {
    /// `[B, 3, 64, 64]` in -1..1 to logits `[B, C]`.
    fn forward(&self, pictures: Tensor<4>) -> Tensor<2> {
        let features = self.stem.forward(pictures);
        let [b, d, h, w] = features.dims();
        let rows = features.reshape([b, d, h * w]);
        let mean = rows.clone().mean_dim(2).reshape([b, d]);
        let greatest = rows.max_dim(2).reshape([b, d]);
        self.head.forward(Tensor::cat(vec![mean, greatest], 1))
    }
}

/// A trained judge.
pub struct Judge {
    net: JudgeNet,
    config: JudgeConfig,
}

impl Judge {
    /// Loads the judge trained by a run of the stage `judge`.
    ///
    /// # Errors
    /// If the folder holds none.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, TrainError> {
        let value = crate::stages::read_model_file(folder)?;
        let config: JudgeConfig = serde_json::from_value(
            value.get("judge").cloned().unwrap_or_default(),
        )
        .map_err(|e| TrainError::Checkpoint {
            path: folder.into(),
            reason: e.to_string(),
        })?;
        let source = crate::checkpoint::Checkpoint::find(folder)?.weights()?;
        let net = weights::load(config.init(device), device, |name| source.read(name))?;
        Ok(Self { net, config })
    }

    /// Name of the concept in a picture of a single object.
    ///
    /// # Errors
    /// If the device fails.
    pub fn name(&self, picture: &RgbImage, device: &Device) -> Result<Option<String>, TrainError> {
        let resized = resize_bicubic(picture, SIDE as u32, SIDE as u32)
            .map_err(|e| TrainError::Stage(e.to_string()))?;
        let picture = Picture::new(SIDE as u32, SIDE as u32, resized.into_raw())?;
        let pixels = pixels(&picture, SIDE, &PLAIN)?;
        let scores = self.net.forward(image_tensor(pixels, SIDE, device));
        let scores = scores
            .into_data()
            .try_to_vec::<f32>()
            .map_err(|e| TrainError::Stage(format!("{e:?}")))?;
        Ok(self
            .config
            .names
            .get(emu_kernels::sample::argmax(&scores) as usize)
            .cloned())
    }

    /// Name of the background colour: the one nearest to the per-channel median of the border pixels.
    pub fn background(&self, picture: &RgbImage) -> Option<&str> {
        let (w, h) = picture.dimensions();
        let mut border: [Vec<u8>; 3] = Default::default();
        for (x, y, pixel) in picture.enumerate_pixels() {
            if x < 2 || y < 2 || x + 2 >= w || y + 2 >= h {
                for (channel, value) in border.iter_mut().zip(pixel.0) {
                    channel.push(value);
                }
            }
        }
        let median = border.map(|mut channel| {
            channel.sort_unstable();
            channel.get(channel.len() / 2).copied().unwrap_or(0)
        });
        let distance = |rgb: &[u8; 3]| -> i32 {
            rgb.iter()
                .zip(median)
                .map(|(&a, b)| (i32::from(a) - i32::from(b)).pow(2))
                .sum()
        };
        self.config
            .colours
            .iter()
            .min_by_key(|(_, rgb)| distance(rgb))
            .map(|(name, _)| name.as_str())
    }
}

/// The stage's own settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// `concepts.json` of the data.
    concepts: PathBuf,
    /// Folder of held-out drawings.
    #[serde(default)]
    evaluate: Option<PathBuf>,
}

struct Batch {
    pixels: Vec<f32>,
    classes: Vec<u32>,
}

/// The stage that trains the judge.
pub struct JudgeStage {
    config: JudgeConfig,
    batches: Batches<(Batch, Visited)>,
    held_out: Option<ShardDataset>,
}

impl JudgeStage {
    /// Opens the data.
    ///
    /// # Errors
    /// If the configuration or the data cannot be used.
    pub fn new(train: &TrainConfig) -> Result<Self, TrainError> {
        let options: Options = train.options()?;
        let config = JudgeConfig::read(&options.concepts)?;
        let batches = {
            let (config, size, seed) = (config.clone(), train.batch, train.seed);
            Batches::open(train, move |corpus, index| {
                let mut random = Philox::new(seed, Stream::Data, index);
                let prepare = |sample: &Sample| prepare(sample, &config, Some(&mut random));
                let (prepared, mut visited) = corpus.batch(index, size, prepare)?;
                let mut known = prepared.iter().map(Option::is_some);
                visited.keys.retain(|_| known.next().unwrap_or(false));
                Ok((Batch::new(prepared), visited))
            })?
        };
        let held_out = match &options.evaluate {
            Some(path) => Some(open_set(path, Some("drawings"))?),
            None => None,
        };
        Ok(Self {
            config,
            batches,
            held_out,
        })
    }

    /// Configuration of the judge besides its weights.
    pub fn model_config(&self) -> &JudgeConfig {
        &self.config
    }

    /// A new judge with random weights.
    pub fn init(&self, device: &Device) -> JudgeNet {
        self.config.init(device)
    }
}

/// Pixels and class of a drawing; `None` for a held-out concept. With `random`, half of the drawings lose detail, to
/// match the lower resolution of objects in pairs.
fn prepare(
    sample: &Sample,
    config: &JudgeConfig,
    random: Option<&mut Philox>,
) -> Result<Option<(Vec<f32>, u32)>, TrainError> {
    let record = sample.record()?;
    let Record::Drawing(drawing) = &record else {
        return Err(sample
            .refuse("it is no drawing, and the judge learns from drawings only")
            .into());
    };
    let picture = sample
        .pictures(&record)?
        .pop()
        .ok_or_else(|| sample.refuse("it has no picture"))?;
    let Some(class) = config.names.iter().position(|n| *n == drawing.object.name) else {
        return Ok(None);
    };
    let read = |picture: &Picture| pixels(picture, SIDE, &PLAIN).map_err(|e| sample.refuse(e));
    let pixels = if random.is_some_and(|r| r.below(2) == 0) {
        read(&coarser(picture).map_err(|e| sample.refuse(e))?)?
    } else {
        read(picture)?
    };
    Ok(Some((pixels, class as u32)))
}

impl Batch {
    fn new(prepared: Vec<Option<(Vec<f32>, u32)>>) -> Self {
        let (pixels, classes): (Vec<_>, Vec<_>) = prepared.into_iter().flatten().unzip();
        Self {
            pixels: pixels.concat(),
            classes,
        }
    }
}

/// A picture downscaled to half its size and upscaled again.
fn coarser(picture: &Picture) -> Result<Picture, TrainError> {
    let wrong = |e: &dyn std::fmt::Display| TrainError::Stage(e.to_string());
    let image = RgbImage::from_raw(picture.width, picture.height, picture.rgb.clone())
        .ok_or_else(|| TrainError::Stage("A picture has too few bytes.".into()))?;
    let small =
        resize_bicubic(&image, picture.width / 2, picture.height / 2).map_err(|e| wrong(&e))?;
    let back = resize_bicubic(&small, picture.width, picture.height).map_err(|e| wrong(&e))?;
    Picture::new(picture.width, picture.height, back.into_raw()).map_err(|e| wrong(&e))
}

impl Stage for JudgeStage {
    type Model = JudgeNet;

    fn name(&self) -> &str {
        "judge"
    }

    fn samples(&self, source: Source) -> Option<usize> {
        self.batches.samples(source)
    }

    fn loss(&mut self, model: &JudgeNet, context: &StepContext) -> Result<StepLoss, TrainError> {
        let (batch, visited) = self.batches.get(context)?;
        let scores = model.forward(image_tensor(batch.pixels, SIDE, &context.device));
        let loss = cross_entropy(scores, &batch.classes);
        Ok(StepLoss::new(loss, batch.classes.len()).with_visited(visited))
    }

    fn evaluate(&mut self, model: &JudgeNet, _step: u64) -> Result<Vec<(String, f32)>, TrainError> {
        let Some(set) = &self.held_out else {
            return Ok(vec![]);
        };
        let device = model
            .devices()
            .first()
            .cloned()
            .unwrap_or_else(Device::flex);
        let (mut right, mut total) = (0, 0);
        let drawings = set
            .samples(512)
            .map(|found| prepare(&found?.1, &self.config, None))
            .collect::<Result<Vec<_>, _>>()?;
        for chunk in drawings.chunks(32) {
            let batch = Batch::new(chunk.to_vec());
            let scores = model.forward(image_tensor(batch.pixels, SIDE, &device));
            let flat = scores
                .into_data()
                .try_to_vec::<f32>()
                .map_err(|e| TrainError::Stage(format!("{e:?}")))?;
            for (row, class) in flat.chunks(self.config.names.len()).zip(batch.classes) {
                right += usize::from(emu_kernels::sample::argmax(row) == class);
                total += 1;
            }
        }
        Ok(vec![("val".into(), right as f32 / total.max(1) as f32)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backgrounds_are_told_apart() {
        let config = JudgeConfig {
            names: vec!["dog".into()],
            colours: vec![
                ("red".into(), [220, 80, 70]),
                ("white".into(), [250, 250, 250]),
            ],
        };
        let judge = Judge {
            net: config.init(&Device::flex()),
            config,
        };
        let mut picture = RgbImage::from_pixel(64, 64, image::Rgb([210, 90, 66]));
        for x in 20..44 {
            for y in 0..44 {
                picture.put_pixel(x, y, image::Rgb([255, 255, 255]));
            }
        }
        assert_eq!(judge.background(&picture), Some("red"));
    }
}
