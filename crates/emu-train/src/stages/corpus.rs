//! Data handling shared by the stages: a mixture of data sets, words as tokens, pictures as tensors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};
use emu_model::config::{ImageConfig, SpecialTokens};
use emu_tokenizer::{EmuTokenizer, PromptText, TokenizerError};

pub use crate::bad::Visited;
use crate::config::ValidationConfig;
use crate::data::record::Record;
use crate::data::{BadSample, DataError, Mixture, Pick, Picture, Sample, ShardDataset, Turn};
use crate::skipped::Skipped;
use crate::{TrainConfig, TrainError};

/// The data sets of a run, sampled in the configured proportions.
pub struct Corpus {
    sets: Vec<ShardDataset>,
    /// Put before the keys of each set's samples, so that no two sets share a key.
    prefixes: Vec<String>,
    /// Most tokens of each set's samples.
    tokens: Vec<Option<usize>>,
    mixture: Mixture,
    /// Samples of a micro-batch of each set, if every micro-batch is of one set.
    sizes: Option<Vec<usize>>,
    skipped: Mutex<Skipped>,
}

/// Where in a run a sample is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Different for every sample of the run, and the same in every run of the same data: the step of the generator of
    /// the sample's random choices. A sample that replaces an unusable one has the place of that one.
    pub index: u64,
    /// Most tokens of the sample, if its data set sets a limit.
    pub tokens: Option<usize>,
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
        let mut prefixes = vec![];
        for data in &config.data {
            let set = open_set(&data.path, data.kind.as_deref())?;
            skipped.add_set(&data.path, set.len(), set.bad());
            parts.push((data.weight, set.len() as u64));
            prefixes.push(match config.data.len() {
                1 => String::new(),
                _ => prefix(&data.path),
            });
            sets.push(set);
        }
        skipped.check_opened()?;
        let sizes = config.batches();
        let mixture = match sizes {
            Some(_) => Mixture::rounds(config.seed, &parts)?,
            None => Mixture::new(config.seed, &parts)?,
        };
        Ok(Arc::new(Self {
            sets,
            prefixes,
            tokens: config.data.iter().map(|data| data.tokens).collect(),
            mixture,
            sizes,
            skipped: Mutex::new(skipped),
        }))
    }

    /// Opens a validation set. Its unusable samples are left out by the same rule, and are not listed unless there are
    /// too many.
    ///
    /// # Errors
    /// As for [`Corpus::open`].
    pub fn open_validation(
        config: &TrainConfig,
        validation: &ValidationConfig,
    ) -> Result<Self, TrainError> {
        let set = open_set(&validation.path, validation.kind.as_deref())?;
        let out = config.out.join("validation").join(validation.name());
        let mut skipped = Skipped::new(&out, config.max_bad_share);
        skipped.add_set(&validation.path, set.len(), set.bad());
        skipped.check_opened()?;
        Ok(Self {
            mixture: Mixture::new(config.seed, &[(1.0, set.len() as u64)])?,
            prefixes: vec![prefix(&validation.path)],
            tokens: vec![validation.tokens],
            sets: vec![set],
            sizes: None,
            skipped: Mutex::new(skipped),
        })
    }

    /// Number of samples of all data sets.
    pub fn samples(&self) -> usize {
        self.sets.iter().map(ShardDataset::len).sum()
    }

    /// Whether the first sample of any data set is a record of this sort.
    pub fn has(&self, sort: impl Fn(&Record) -> bool) -> bool {
        let first = |set: &ShardDataset| set.record(0).is_ok_and(|record| sort(&record));
        self.sets.iter().any(first)
    }

    /// A training micro-batch of `size` samples, each converted by `prepare`. If that returns [`DataError::Sample`],
    /// the sample is left out and the next usable one of its data set replaces it. A batch thus depends only on the
    /// data and its index. Where data sets have batches of their own, the micro-batch is of one data set, and has its
    /// size.
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
        self.batch_placed(index, size, |sample, _| prepare(sample))
    }

    /// [`Corpus::batch`] for a `prepare` that depends on the place of each sample.
    ///
    /// # Errors
    /// As [`Corpus::batch`].
    pub fn batch_placed<T>(
        &self,
        index: u64,
        size: usize,
        mut prepare: impl FnMut(&Sample, Place) -> Result<T, TrainError>,
    ) -> Result<(Vec<T>, Visited), TrainError> {
        // A panic elsewhere loses one micro-batch. The next one restores the count.
        let mut skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        skipped.begin(index)?;
        let mut refuse = |set, sample, bad| skipped.add(set, sample, bad);
        let picks = self.picks(index, size);
        let mut items = Vec::with_capacity(picks.len());
        let mut keys = Vec::with_capacity(picks.len());
        for (pick, index) in picks {
            let tokens = self.tokens.get(pick.part).copied().flatten();
            let place = Place { index, tokens };
            let mut placed = |sample: &Sample| prepare(sample, place);
            let (key, item) = self.find(pick, usize::MAX, &mut placed, &mut refuse)?;
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

    /// The samples of a micro-batch, each with the index of its [`Place`].
    fn picks(&self, index: u64, size: usize) -> Vec<(Pick, u64)> {
        let Some(sizes) = &self.sizes else {
            let positions = (0..size as u64).map(|i| index * size as u64 + i);
            return positions
                .map(|position| (self.mixture.pick(position), position))
                .collect();
        };
        let Turn { part, before } = self.mixture.turn(index);
        let size = sizes.get(part).copied().unwrap_or(size) as u64;
        let sets = self.sets.len() as u64;
        (0..size)
            .map(|i| {
                let position = before * size + i;
                let sample = self.mixture.sample(part, position);
                (Pick { part, sample }, position * sets + part as u64)
            })
            .collect()
    }

    /// Samples in the proportions of the mixture, for use outside of training: nothing is counted or listed.
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
                let pick = self.mixture.pick(index * size as u64 + i);
                let found = self.find(pick, PATIENCE, &mut prepare, &mut |_, _, _| Ok(()));
                found.map(|(_, item)| item)
            })
            .collect()
    }

    /// A sample, or the next usable one in its data set.
    fn find<T>(
        &self,
        pick: Pick,
        patience: usize,
        prepare: &mut impl FnMut(&Sample) -> Result<T, TrainError>,
        refuse: &mut impl FnMut(usize, usize, BadSample) -> Result<(), TrainError>,
    ) -> Result<(String, T), TrainError> {
        let set = &self.sets[pick.part];
        let mut last = None;
        for step in 0..set.len().min(patience) {
            let index = (pick.sample as usize + step) % set.len();
            let prepared = set
                .get(index)
                .map_err(TrainError::from)
                .and_then(|sample| Ok((prepare(&sample)?, sample.key)));
            match prepared {
                Ok((item, key)) => return Ok((format!("{}{key}", self.prefixes[pick.part]), item)),
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

fn prefix(path: &Path) -> String {
    format!("{}/", path.display())
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

    /// Tokens of a formatted prompt, with a block of `queries` tokens for each picture, and without those of
    /// [`Words::front`]. The templates of a model make control tokens; the text that fills them does not.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode_prompt(
        &self,
        prompt: &PromptText,
        queries: usize,
    ) -> Result<Vec<u32>, TrainError> {
        let front = self.front()?.len();
        Ok(self.whole_prompt(prompt, queries)?.split_off(front))
    }

    /// Tokens in front of every prompt: `<s>`, or nothing in ChatML.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn front(&self) -> Result<Vec<u32>, TrainError> {
        self.whole_prompt(&PromptText::default(), 0)
    }

    fn whole_prompt(&self, prompt: &PromptText, queries: usize) -> Result<Vec<u32>, TrainError> {
        self.tokenizer
            .encode_prompt(prompt, queries, usize::MAX)
            .map_err(|e| TrainError::other(e.code(), e))
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
    emu_media::image::resize_bicubic(&image, side, side)
        .map(image::RgbImage::into_raw)
        .map_err(|e| DataError::Picture(e.to_string()))
}

/// A tensor `[B, 3, S, S]` from the concatenated pixels of pictures.
pub fn image_tensor(pixels: Vec<f32>, size: usize, device: &Device) -> Tensor<4> {
    let count = pixels.len() / (3 * size * size);
    Tensor::from_data(TensorData::new(pixels, [count, 3, size, size]), device)
}
