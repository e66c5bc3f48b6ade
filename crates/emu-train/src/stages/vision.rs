//! Warm-up of an encoder from scratch: picture embeddings are contrasted with the LM's word embeddings.
//!
//! The contrast is between the embeddings that the LM will read and the rows of its own embedding table. The encoder
//! thus represents names and colours in the LM's embedding space before the LM is trained.

use std::path::PathBuf;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use emu_model::{Emu, EmuConfig};
use serde::Deserialize;

use super::batches::Batches;
use super::corpus::{
    Corpus, Visited, WordList, Words, concept_words, image_tensor, open_held_out, pixels,
};
use super::sizes::emu_config;
use crate::data::record::{Object, Record, Scene};
use crate::data::{Sample, ShardDataset};
use crate::objectives::contrast::{multi_cross_entropy, scores};
use crate::stage::Source;
use crate::{Stage, StepContext, StepLoss, TrainConfig, TrainError};

/// The stage's own settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// `tokenizer.json` of the data.
    tokenizer: PathBuf,
    /// `concepts.json` of the data.
    concepts: PathBuf,
    /// Train without the transformer layers of encoder and causal former, which are added in the next stage. The stem
    /// alone learns names several times faster.
    #[serde(default)]
    stem_only: bool,
    /// Weight of the loss of names at the objects' positions.
    #[serde(default = "half")]
    place_weight: f64,
    /// Weight of the loss of background colours.
    #[serde(default = "third")]
    colour_weight: f64,
    /// Folders of held-out scenes for evaluation.
    #[serde(default)]
    evaluate: Vec<PathBuf>,
    /// Number of scenes to evaluate in each folder.
    #[serde(default = "some")]
    evaluate_samples: usize,
}

fn half() -> f64 {
    0.5
}
fn third() -> f64 {
    0.3
}
fn some() -> usize {
    256
}

/// Labels of the pictures in a batch.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// (picture, name)
    pub names: Vec<(usize, usize)>,
    /// (embedding, name), embeddings counted over the whole batch
    pub places: Vec<(usize, usize)>,
    /// (picture, colour)
    pub colours: Vec<(usize, usize)>,
}

/// Names and colours for the contrastive losses.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// Names of concepts.
    pub names: WordList,
    /// Names of background colours.
    pub colours: WordList,
    /// Number of embeddings along a side of the picture; 0 if embeddings have no spatial position.
    pub grid: usize,
    /// Number of embeddings per picture.
    pub queries: usize,
}

impl Vocabulary {
    /// The vocabulary for this model's embeddings.
    ///
    /// # Errors
    /// If the concepts cannot be read.
    pub fn new(
        concepts: &std::path::Path,
        words: &Words,
        config: &EmuConfig,
    ) -> Result<Self, TrainError> {
        let (names, colours) = concept_words(concepts, words)?;
        let grid = if config.causal.as_ref().is_some_and(|causal| causal.raster) {
            config.vision.grid()
        } else {
            0
        };
        Ok(Self {
            names,
            colours,
            grid,
            queries: config.queries(),
        })
    }

    /// Adds the labels of picture number `picture`.
    pub fn note(
        &self,
        shown: &mut Shown,
        picture: usize,
        objects: &[Object],
        background: Option<&str>,
    ) {
        for object in objects {
            let Some(name) = self.names.get(&object.name) else {
                continue;
            };
            if !shown.names.contains(&(picture, name)) {
                shown.names.push((picture, name));
            }
            for cell in cells(object, self.grid) {
                shown.places.push((picture * self.queries + cell, name));
            }
        }
        if let Some(colour) = background.and_then(|b| self.colours.get(b)) {
            shown.colours.push((picture, colour));
        }
    }

    /// The contrastive losses of embeddings: names per picture, names per position, colours per picture.
    ///
    /// # Shapes
    /// - `embeddings`: `[B, Q, D]`
    pub fn losses(
        &self,
        emu: &Emu,
        embeddings: Tensor<3>,
        shown: &Shown,
    ) -> [Option<Tensor<1>>; 3] {
        let (each, names) = scores(embeddings.clone(), word_rows(emu, &self.names));
        let [b, q, n] = each.dims();
        let (_, colours) = scores(embeddings, word_rows(emu, &self.colours));
        let loss = |scores: Tensor<2>, answers: &[(usize, usize)]| {
            (!answers.is_empty()).then(|| multi_cross_entropy(scores, answers))
        };
        [
            loss(names, &shown.names),
            loss(each.reshape([b * q, n]), &shown.places),
            loss(colours, &shown.colours),
        ]
    }
}

/// Rows of the LM's embedding table for these words, `[N, D]`.
fn word_rows(emu: &Emu, words: &WordList) -> Tensor<2> {
    let table = emu.lm.embed_tokens.weight.val();
    let tokens: Vec<i32> = words.tokens.iter().map(|&t| t as i32).collect();
    let tokens: Tensor<1, Int> =
        Tensor::from_data(TensorData::new(tokens, [words.len()]), &table.device());
    table.select(0, tokens)
}

/// Cells of a `grid` x `grid` raster in the middle of an object.
fn cells(object: &Object, grid: usize) -> Vec<usize> {
    let side = grid as f64;
    let reach = object.size * 0.25;
    let centre = |x: f64| ((x * side) as usize).min(grid.saturating_sub(1));
    (0..grid * grid)
        .filter(|cell| {
            let (x, y) = ((cell % grid) as f64 + 0.5, (cell / grid) as f64 + 0.5);
            let inside =
                (x / side - object.cx).abs() <= reach && (y / side - object.cy).abs() <= reach;
            inside || (cell % grid == centre(object.cx) && cell / grid == centre(object.cy))
        })
        .collect()
}

struct Batch {
    pixels: Vec<f32>,
    shown: Shown,
    visited: Visited,
}

/// The stage.
pub struct Vision {
    config: EmuConfig,
    options: Options,
    vocabulary: Arc<Vocabulary>,
    batches: Batches<Batch>,
    held_out: Vec<(String, ShardDataset)>,
    batch: usize,
}

impl Vision {
    /// Opens the data.
    ///
    /// # Errors
    /// If the configuration or the data cannot be used.
    pub fn new(train: &TrainConfig) -> Result<Self, TrainError> {
        let options: Options = train.options()?;
        let words = Words::open(&options.tokenizer)?;
        let mut config = emu_config(train, &words)?;
        if options.stem_only {
            config.vision.layers = 0;
            if let Some(causal) = &mut config.causal {
                causal.layers = 0;
            }
        }
        let vocabulary = Arc::new(Vocabulary::new(&options.concepts, &words, &config)?);
        let batches = {
            let (vocabulary, config, size) = (vocabulary.clone(), config.clone(), train.batch);
            Batches::open(train, move |corpus, index| {
                make_batch(corpus, index, size, &vocabulary, &config)
            })?
        };
        let held_out = open_held_out(&options.evaluate)?;
        Ok(Self {
            config,
            options,
            vocabulary,
            batches,
            held_out,
            batch: train.batch,
        })
    }

    /// Sizes of the trained model.
    pub fn model_config(&self) -> &EmuConfig {
        &self.config
    }

    /// Accuracy of naming the objects of held-out scenes: single objects by the whole picture's scores, objects beside
    /// others by the scores at their position.
    fn naming(
        &self,
        model: &Emu,
        set: &ShardDataset,
        device: &Device,
    ) -> Result<[f32; 2], TrainError> {
        let (mut right, mut total) = ([0; 2], [0; 2]);
        let samples: Vec<Sample> = set
            .samples(self.options.evaluate_samples)
            .map(|found| found.map(|(_, sample)| sample))
            .collect::<Result<_, _>>()?;
        for chunk in samples.chunks(self.batch.max(1)) {
            let mut pixels_of = vec![];
            let mut objects = vec![];
            for (i, sample) in chunk.iter().enumerate() {
                let Ok(Record::Scene(scene)) = sample.record() else {
                    continue;
                };
                let Some(picture) = sample.images.first() else {
                    continue;
                };
                pixels_of.extend(pixels(
                    picture,
                    self.config.vision.image_size,
                    &self.config.image,
                )?);
                objects.push((i, scene.objects));
            }
            if objects.is_empty() {
                continue;
            }
            let images = image_tensor(pixels_of, self.config.vision.image_size, device);
            let embeddings = model.embed_images(images);
            let (each, whole) = scores(embeddings, word_rows(model, &self.vocabulary.names));
            let [_, q, n] = each.dims();
            let each = each
                .into_data()
                .try_to_vec::<f32>()
                .map_err(|e| TrainError::Stage(format!("{e:?}")))?;
            let whole = whole
                .into_data()
                .try_to_vec::<f32>()
                .map_err(|e| TrainError::Stage(format!("{e:?}")))?;
            for (row, (_, objects)) in objects.iter().enumerate() {
                let alone = usize::from(objects.len() > 1);
                for object in objects {
                    let mut sum = vec![0.0; n];
                    let cells = cells(object, self.vocabulary.grid);
                    for cell in &cells {
                        for (s, v) in sum.iter_mut().zip(&each[(row * q + cell) * n..]) {
                            *s += v;
                        }
                    }
                    if cells.is_empty() || alone == 0 {
                        sum = whole[row * n..(row + 1) * n].to_vec();
                    }
                    let best = emu_kernels::sample::argmax(&sum) as usize;
                    right[alone] +=
                        usize::from(self.vocabulary.names.get(&object.name) == Some(best));
                    total[alone] += 1;
                }
            }
        }
        Ok([0, 1].map(|i| right[i] as f32 / total[i].max(1) as f32))
    }
}

/// Contents of a sample's picture, if it has one picture with known contents.
pub fn contents(record: &Record) -> Option<(&[Object], &str)> {
    match record {
        Record::Scene(Scene {
            objects,
            background,
            ..
        }) => Some((objects, background)),
        Record::Document(document) if document.task == "draw" => {
            Some((&document.objects, document.background.as_deref()?))
        }
        Record::Drawing(drawing) => {
            Some((std::slice::from_ref(&drawing.object), &drawing.background))
        }
        _ => None,
    }
}

fn make_batch(
    corpus: &Corpus,
    index: u64,
    size: usize,
    vocabulary: &Vocabulary,
    config: &EmuConfig,
) -> Result<Batch, TrainError> {
    let (items, visited) = corpus.batch(index, size, |sample| {
        let record = sample.record()?;
        if contents(&record).is_none() {
            return Err(sample
                .refuse("it shows nothing that is named, and this stage learns from scenes and drawings")
                .into());
        }
        let pictures = sample.pictures(&record)?;
        let [picture] = pictures.as_slice() else {
            return Err(sample.refuse("it has no single picture").into());
        };
        let pixels = pixels(picture, config.vision.image_size, &config.image)
            .map_err(|e| sample.refuse(e))?;
        Ok((pixels, record))
    })?;
    let mut batch = Batch {
        pixels: vec![],
        shown: Shown::default(),
        visited,
    };
    for (number, (pixels, record)) in items.into_iter().enumerate() {
        batch.pixels.extend(pixels);
        if let Some((objects, background)) = contents(&record) {
            vocabulary.note(&mut batch.shown, number, objects, Some(background));
        }
    }
    Ok(batch)
}

impl Stage for Vision {
    type Model = Emu;

    fn name(&self) -> &str {
        "vision"
    }

    fn samples(&self, source: Source) -> Option<usize> {
        self.batches.samples(source)
    }

    fn loss(&mut self, model: &Emu, context: &StepContext) -> Result<StepLoss, TrainError> {
        let batch = self.batches.get(context)?;
        let images = image_tensor(batch.pixels, self.config.vision.image_size, &context.device);
        let embeddings = model.embed_images(images);
        let [names, places, colours] = self.vocabulary.losses(model, embeddings, &batch.shown);
        let weights = [
            ("names", names, 1.0),
            ("places", places, self.options.place_weight),
            ("colours", colours, self.options.colour_weight),
        ];
        let mut total: Option<Tensor<1>> = None;
        let mut terms = vec![];
        for (name, loss, weight) in weights {
            let Some(loss) = loss else { continue };
            terms.push((name, loss.clone()));
            let weighted = loss.mul_scalar(weight);
            total = Some(match total {
                None => weighted,
                Some(total) => total + weighted,
            });
        }
        let total = total.ok_or_else(|| {
            TrainError::Stage("A batch shows nothing that has a name. Check concepts.json.".into())
        })?;
        let count = batch.visited.keys.len();
        let mut loss = StepLoss::new(total, count).with_visited(batch.visited);
        for (name, term) in terms {
            loss = loss.with_term(name, term);
        }
        Ok(loss)
    }

    fn evaluate(&mut self, model: &Emu, _step: u64) -> Result<Vec<(String, f32)>, TrainError> {
        let device = model
            .devices()
            .first()
            .cloned()
            .unwrap_or_else(Device::flex);
        let mut figures = vec![];
        for (name, set) in &self.held_out {
            let [alone, together] = self.naming(model, set, &device)?;
            figures.push((format!("{name}.alone"), alone));
            figures.push((format!("{name}.together"), together));
        }
        Ok(figures)
    }
}
