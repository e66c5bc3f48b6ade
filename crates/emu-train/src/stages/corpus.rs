//! Data handling shared by the stages: a mixture of data sets, words as tokens, pictures as tensors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};
use emu_model::config::{ImageConfig, SpecialTokens};
use emu_model::tokenizer::{EmuTokenizer, TokenizerError};

pub use crate::bad::Visited;
use crate::data::{BadSample, DataError, Mixture, Picture, Sample, ShardDataset};
use crate::skipped::Skipped;
use crate::{TrainConfig, TrainError};

/// The data sets of a run, sampled in the configured proportions.
pub struct Corpus {
    sets: Vec<ShardDataset>,
    mixture: Mixture,
    skipped: Mutex<Skipped>,
}

/// Maximum number of consecutive unusable samples in a search outside of training.
const PATIENCE: usize = 1000;

impl Corpus {
    /// Opens the data sets in the configuration.
    ///
    /// # Errors
    /// If a data set cannot be opened, the weights are invalid, or too many samples are unusable.
    pub fn open(config: &TrainConfig) -> Result<Arc<Self>, TrainError> {
        if config.data.is_empty() {
            return Err(TrainError::config(
                "data",
                "no data set is listed ([[data]] with a path)",
            ));
        }
        let mut skipped = Skipped::new(&config.out, config.max_bad_share);
        let mut sets = vec![];
        let mut parts = vec![];
        for data in &config.data {
            let set = open_set(&data.path, data.kind.as_deref())?;
            skipped.add_set(&data.path, set.len(), set.bad());
            parts.push((data.weight, set.len() as u64));
            sets.push(set);
        }
        skipped.check_opened()?;
        Ok(Arc::new(Self {
            sets,
            mixture: Mixture::new(config.seed, &parts)?,
            skipped: Mutex::new(skipped),
        }))
    }

    /// A training micro-batch of `size` samples, each converted by `prepare`. If that returns [`DataError::Sample`],
    /// the sample is left out and the next usable one of its data set replaces it. A batch thus depends only on the
    /// data and its index.
    ///
    /// # Errors
    /// [`TrainError::BadSamples`] if too many are left out; an error if shards cannot be read; other errors of
    /// `prepare`.
    pub fn batch<T>(
        &self,
        index: u64,
        size: usize,
        mut prepare: impl FnMut(&Sample) -> Result<T, TrainError>,
    ) -> Result<(Vec<T>, Visited), TrainError> {
        // A panic elsewhere loses one micro-batch. The next one restores the count.
        let mut skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        skipped.begin(index)?;
        let mut refuse = |set, sample, bad| skipped.add(set, sample, bad);
        let mut items = Vec::with_capacity(size);
        let mut keys = Vec::with_capacity(size);
        for i in 0..size as u64 {
            let position = index * size as u64 + i;
            let (key, item) = self.find(position, usize::MAX, &mut prepare, &mut refuse)?;
            keys.push(key);
            items.push(item);
        }
        let visited = Visited {
            keys,
            bad: skipped.found(),
            total_bad: skipped.total(),
        };
        Ok((items, visited))
    }

    /// The same samples as [`Corpus::batch`], for use outside of training: nothing is counted or listed.
    ///
    /// # Errors
    /// If no usable sample is found, or shards cannot be read; other errors of `prepare`.
    pub fn peek<T>(
        &self,
        index: u64,
        size: usize,
        mut prepare: impl FnMut(&Sample) -> Result<T, TrainError>,
    ) -> Result<Vec<T>, TrainError> {
        (0..size as u64)
            .map(|i| {
                let position = index * size as u64 + i;
                let found = self.find(position, PATIENCE, &mut prepare, &mut |_, _, _| Ok(()));
                found.map(|(_, item)| item)
            })
            .collect()
    }

    /// The sample at this position of the run, or the next usable one in its data set.
    fn find<T>(
        &self,
        position: u64,
        patience: usize,
        prepare: &mut impl FnMut(&Sample) -> Result<T, TrainError>,
        refuse: &mut impl FnMut(usize, usize, BadSample) -> Result<(), TrainError>,
    ) -> Result<(String, T), TrainError> {
        let pick = self.mixture.pick(position);
        let set = &self.sets[pick.part];
        let mut last = None;
        for step in 0..set.len().min(patience) {
            let index = (pick.sample as usize + step) % set.len();
            let prepared = set
                .get(index)
                .map_err(TrainError::from)
                .and_then(|sample| Ok((prepare(&sample)?, sample.key)));
            match prepared {
                Ok((item, key)) => return Ok((key, item)),
                Err(TrainError::Data(DataError::Sample(bad))) => {
                    refuse(pick.part, index, bad.clone())?;
                    last = Some(bad);
                }
                Err(error) => return Err(error),
            }
        }
        Err(match last {
            Some(bad) => DataError::Sample(bad).into(),
            None => DataError::Mixture("a data set has no usable sample".into()).into(),
        })
    }
}

/// Opens a folder of shards, or only the shards of one kind in it.
///
/// # Errors
/// If there are none.
pub fn open_set(path: &Path, kind: Option<&str>) -> Result<ShardDataset, TrainError> {
    Ok(match kind {
        Some(kind) => ShardDataset::open_kind(path, kind)?,
        None => ShardDataset::open(path)?,
    })
}

/// Opens the scenes of held-out splits. The name of each is that of its folder.
///
/// # Errors
/// If a split has no scenes.
pub fn open_held_out(paths: &[PathBuf]) -> Result<Vec<(String, ShardDataset)>, TrainError> {
    let open = |path: &PathBuf| {
        let name = path
            .file_name()
            .map_or("held-out".into(), |n| n.to_string_lossy().into_owned());
        Ok((name, open_set(path, Some("scenes"))?))
    };
    paths.iter().map(open).collect()
}

/// The tokenizer of the data, with the ids of its special tokens.
pub struct Words {
    tokenizer: EmuTokenizer,
    /// Ids of the special tokens.
    pub special: SpecialTokens,
}

impl Words {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// If it cannot be read or lacks one of Emu's special tokens.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let bytes = std::fs::read(path).map_err(TrainError::io("read", path))?;
        Self::from_bytes(&bytes, &path.display().to_string())
    }

    /// Parses the bytes of a `tokenizer.json`; `name` is for error messages.
    ///
    /// # Errors
    /// As [`Words::open`].
    pub fn from_bytes(bytes: &[u8], name: &str) -> Result<Self, TrainError> {
        let wrong = |e: TokenizerError| {
            TrainError::config(
                "options.tokenizer",
                format!("{name}: {e}").trim_end_matches('.'),
            )
        };
        let tokenizer = EmuTokenizer::from_json_bytes(bytes).map_err(wrong)?;
        let found = tokenizer.specials();
        let special = SpecialTokens {
            bos: found.bos,
            eos: found.eos,
            pad: found.pad,
            img: found.img,
            end_img: found.end_img,
            image: found.image,
            user: found.user,
            assistant: found.assistant,
        };
        Ok(Self { tokenizer, special })
    }

    /// Vocabulary size.
    pub fn vocab(&self) -> usize {
        self.tokenizer.vocab_size()
    }

    /// Tokens of a text segment between special tokens, trimmed and starting like a new word. Special tokens spelled in
    /// the text (`<image>`, `[USER]`, `</s>`) are encoded as plain text: only the structure of a sample produces
    /// control tokens.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        match text.trim() {
            "" => Ok(vec![]),
            text => self
                .tokenizer
                .encode_plain(text)
                .map_err(|e| TrainError::other(e.code(), e)),
        }
    }

    /// The text of tokens, without special tokens.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer
            .decode(ids, true)
            .unwrap_or_default()
            .trim()
            .to_string()
    }

    /// The token of a single-token word.
    ///
    /// # Errors
    /// If the word needs several tokens.
    pub fn word(&self, word: &str) -> Result<u32, TrainError> {
        match self.encode(word)?.as_slice() {
            [token] => Ok(*token),
            _ => Err(TrainError::config(
                "options.tokenizer",
                format!("{word:?} is not one token"),
            )),
        }
    }
}

/// Words for contrastive scores: tokens, and the index of each word.
#[derive(Clone, Debug, Default)]
pub struct WordList {
    /// Token of each word.
    pub tokens: Vec<u32>,
    index: BTreeMap<String, usize>,
}

impl WordList {
    /// The word list in this order, without duplicates.
    ///
    /// # Errors
    /// If a word needs several tokens.
    pub fn new<'a>(
        words: &Words,
        list: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, TrainError> {
        let mut result = Self::default();
        for word in list {
            if !result.index.contains_key(word) {
                result.index.insert(word.into(), result.tokens.len());
                result.tokens.push(words.word(word)?);
            }
        }
        Ok(result)
    }

    /// Index of a word.
    pub fn get(&self, word: &str) -> Option<usize> {
        self.index.get(word).copied()
    }

    /// Number of words.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// Names and colours that may occur in training, from the `concepts.json` beside the splits.
///
/// # Errors
/// If the file cannot be read.
pub fn concept_words(path: &Path, words: &Words) -> Result<(WordList, WordList), TrainError> {
    #[derive(serde::Deserialize)]
    struct Named {
        name: String,
        #[serde(default)]
        unseen: bool,
    }
    #[derive(serde::Deserialize)]
    struct Concepts {
        concepts: Vec<Named>,
        colours: Vec<Named>,
    }
    let text = std::fs::read_to_string(path).map_err(TrainError::io("read", path))?;
    let concepts: Concepts = serde_json::from_str(&text)
        .map_err(|e| TrainError::config("options.concepts", e.to_string()))?;
    let list = |named: &[Named]| {
        WordList::new(
            words,
            named.iter().filter(|n| !n.unseen).map(|n| n.name.as_str()),
        )
    };
    Ok((list(&concepts.concepts)?, list(&concepts.colours)?))
}

/// A normalised picture in channel-first order, resized to the model's size if necessary.
///
/// # Errors
/// [`DataError::Picture`] if it cannot be resized.
pub fn pixels(picture: &Picture, size: usize, image: &ImageConfig) -> Result<Vec<f32>, DataError> {
    let resized;
    let rgb = if picture.width as usize == size && picture.height as usize == size {
        &picture.rgb
    } else {
        resized = resize(picture, size)?;
        &resized
    };
    let area = size * size;
    let mut out = vec![0.0; 3 * area];
    for c in 0..3 {
        for i in 0..area {
            out[c * area + i] = (f32::from(rgb[i * 3 + c]) / 255.0 - image.mean[c]) / image.std[c];
        }
    }
    Ok(out)
}

/// The bytes of a picture resized to a square, as in the model's preprocessing.
fn resize(picture: &Picture, size: usize) -> Result<Vec<u8>, DataError> {
    let side = u32::try_from(size).map_err(|e| DataError::Picture(e.to_string()))?;
    let image = image::RgbImage::from_raw(picture.width, picture.height, picture.rgb.clone())
        .ok_or_else(|| DataError::Picture("its bytes do not fit its size".into()))?;
    emu_model::image::resize_bicubic(&image, side, side)
        .map(image::RgbImage::into_raw)
        .map_err(|e| DataError::Picture(e.to_string()))
}

/// A tensor `[B, 3, S, S]` from the concatenated pixels of pictures.
pub fn image_tensor(pixels: Vec<f32>, size: usize, device: &Device) -> Tensor<4> {
    let count = pixels.len() / (3 * size * size);
    Tensor::from_data(TensorData::new(pixels, [count, 3, size, size]), device)
}
