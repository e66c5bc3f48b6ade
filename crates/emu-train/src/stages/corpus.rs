//! What the stages share about data: open data sets in a mixture, words as tokens, pictures as tensors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use emu_model::config::{ImageConfig, SpecialTokens};
use tokenizers::Tokenizer;

use crate::data::{Mixture, Picture, Sample, ShardDataset};
use crate::{TrainConfig, TrainError};

/// The data sets of a run, visited in the configured proportions.
pub struct Corpus {
    sets: Vec<ShardDataset>,
    mixture: Mixture,
}

impl Corpus {
    /// Opens what the configuration lists.
    ///
    /// # Errors
    /// Where a data set cannot be opened or the weights make no mixture.
    pub fn open(config: &TrainConfig) -> Result<Arc<Self>, TrainError> {
        let mut sets = vec![];
        let mut parts = vec![];
        for data in &config.data {
            let set = open_set(&data.path, data.kind.as_deref())?;
            parts.push((data.weight, set.len() as u64));
            sets.push(set);
        }
        let mixture =
            Mixture::new(config.seed, &parts).map_err(|e| TrainError::other("data", e))?;
        Ok(Arc::new(Self { sets, mixture }))
    }

    /// The sample visited at this position of the run.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn get(&self, position: u64) -> Result<Sample, TrainError> {
        let pick = self.mixture.pick(position);
        self.sets[pick.part]
            .get(pick.sample as usize)
            .map_err(|e| TrainError::other("data", e))
    }

    /// The samples of a micro-batch.
    ///
    /// # Errors
    /// Where one cannot be read.
    pub fn batch(&self, index: u64, size: usize) -> Result<Vec<Sample>, TrainError> {
        (0..size as u64)
            .map(|i| self.get(index * size as u64 + i))
            .collect()
    }
}

/// Opens a folder of shards, or only those of one kind in it.
///
/// # Errors
/// Where there are none.
pub fn open_set(path: &Path, kind: Option<&str>) -> Result<ShardDataset, TrainError> {
    match kind {
        Some(kind) => ShardDataset::open_kind(path, kind),
        None => ShardDataset::open(path),
    }
    .map_err(|e| TrainError::other("data", e))
}

/// Opens the scenes of held-out splits, each named by its folder.
///
/// # Errors
/// Where one has none.
pub fn open_held_out(paths: &[PathBuf]) -> Result<Vec<(String, ShardDataset)>, TrainError> {
    let open = |path: &PathBuf| {
        let name = path
            .file_name()
            .map_or("held-out".into(), |n| n.to_string_lossy().into_owned());
        Ok((name, open_set(path, Some("scenes"))?))
    };
    paths.iter().map(open).collect()
}

/// The tokenizer of the data, with its special tokens looked up.
pub struct Words {
    tokenizer: Tokenizer,
    /// Ids of the special tokens.
    pub special: SpecialTokens,
}

impl Words {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// Where it cannot be read or lacks one of Emu's special tokens.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let bytes = std::fs::read(path).map_err(TrainError::io("read", path))?;
        Self::from_bytes(&bytes, &path.display().to_string())
    }

    /// The bytes of a `tokenizer.json`; `name` is for errors.
    ///
    /// # Errors
    /// As [`Words::open`].
    pub fn from_bytes(bytes: &[u8], name: &str) -> Result<Self, TrainError> {
        let wrong = |what: String| TrainError::config("options.tokenizer", what);
        let tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| wrong(format!("{name}: {e}")))?;
        let id = |token: &str| {
            tokenizer
                .token_to_id(token)
                .ok_or_else(|| wrong(format!("{name} has no token {token}")))
        };
        let special = SpecialTokens {
            bos: id("<s>")?,
            eos: id("</s>")?,
            pad: id("[PAD]")?,
            img: id("[IMG]")?,
            end_img: id("[/IMG]")?,
            image: id("<image>")?,
            user: tokenizer.token_to_id("[USER]"),
            assistant: tokenizer.token_to_id("[ASSISTANT]"),
        };
        Ok(Self { tokenizer, special })
    }

    /// Tokens there are.
    pub fn vocab(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Tokens of one segment of text between special tokens: stripped, with a fresh word mark.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(vec![]);
        }
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|e| TrainError::Stage(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of tokens, special ones left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer
            .decode(ids, true)
            .unwrap_or_default()
            .trim()
            .to_string()
    }

    /// The one token of a word.
    ///
    /// # Errors
    /// Where the word takes several.
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

/// Words that pictures are contrasted with: tokens, and each word's place among them.
#[derive(Clone, Debug, Default)]
pub struct WordList {
    /// Token of each word.
    pub tokens: Vec<u32>,
    index: BTreeMap<String, usize>,
}

impl WordList {
    /// The list in this order.
    ///
    /// # Errors
    /// Where a word takes several tokens.
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

    /// Place of a word.
    pub fn get(&self, word: &str) -> Option<usize> {
        self.index.get(word).copied()
    }

    /// Number of words.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// The names and colours of a data set that training may show, from the `concepts.json` beside its splits.
///
/// # Errors
/// Where the file cannot be read.
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

/// A normalised picture, channel by channel. The picture has the model's size already, or is resized to it.
pub fn pixels(picture: &Picture, size: usize, image: &ImageConfig) -> Vec<f32> {
    let resized;
    let rgb = if picture.width as usize == size && picture.height as usize == size {
        &picture.rgb
    } else {
        resized = resize(picture, size);
        &resized
    };
    let area = size * size;
    let mut out = vec![0.0; 3 * area];
    for c in 0..3 {
        for i in 0..area {
            out[c * area + i] = (f32::from(rgb[i * 3 + c]) / 255.0 - image.mean[c]) / image.std[c];
        }
    }
    out
}

/// The bytes of a picture resized to a square as the model's preprocessing does.
fn resize(picture: &Picture, size: usize) -> Vec<u8> {
    match image::RgbImage::from_raw(picture.width, picture.height, picture.rgb.clone()) {
        Some(image) => emu_model::image::resize_bicubic(&image, size as u32, size as u32)
            .map_or_else(|_| vec![0; size * size * 3], image::RgbImage::into_raw),
        None => vec![0; size * size * 3],
    }
}

/// Pictures `[B, 3, S, S]` from their concatenated pixels.
pub fn image_tensor(pixels: Vec<f32>, size: usize, device: &Device) -> Tensor<4> {
    let count = pixels.len() / (3 * size * size);
    Tensor::from_data(TensorData::new(pixels, [count, 3, size, size]), device)
}
