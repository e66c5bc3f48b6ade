//! Spells pictures in token embeddings: the rows of a language model's embedding table for all names in the data,
//! normalised to zero mean and unit variance.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use emu_kernels::QEmbedding;
use emu_model::TextModel;
use emu_model::diffusion::decoder::Normalisation;
use emu_model::spelling::{Spelled, SpellingConfig};
use emu_pack::convert::GgufFile;
use emu_tokenizer::PlainTokenizer;

use super::decoder::{floats, moments};
use crate::TrainError;

/// Normalised token embeddings of all names in the data.
pub(super) struct Speller {
    pub config: SpellingConfig,
    /// Tokens of each word.
    pub words: BTreeMap<String, Vec<u32>>,
    /// Normalised row of each token.
    pub rows: BTreeMap<u32, Vec<f32>>,
    /// The embedding of an empty slot.
    pub empty: Vec<f32>,
    pub normalisation: Normalisation,
}

/// Opens a language model in GGUF format.
pub(super) fn open_lm(path: &Path, device: &Device) -> Result<TextModel, TrainError> {
    let wrong = |e: &dyn std::fmt::Display| TrainError::config("options.lm", e.to_string());
    let file = GgufFile::open(path)?;
    TextModel::from_gguf(file.metadata(), &file, device).map_err(|e| wrong(&e))
}

impl Speller {
    /// A speller for these names, with the embedding table of a language model.
    ///
    /// # Errors
    /// If the sizes of the spelling are invalid, or a name is too long.
    pub fn new(
        config: SpellingConfig,
        table: &QEmbedding,
        tokenizer: &PlainTokenizer,
        names: impl IntoIterator<Item = String>,
    ) -> Result<Self, TrainError> {
        config
            .validate()
            .map_err(|e| TrainError::config("options.spelling", e.to_string()))?;
        let mut words = BTreeMap::new();
        for name in names {
            // With a leading space, as for a word within a sentence.
            let tokens = tokenizer
                .encode(&format!(" {name}"))
                .map_err(|e| TrainError::config("options.lm", e.to_string()))?;
            words.insert(name, tokens);
        }
        let mut tokens: Vec<u32> = words.values().flatten().copied().collect();
        tokens.sort_unstable();
        tokens.dedup();
        let all = SpellingConfig {
            objects: 1,
            tokens: 1,
        };
        let alone: Vec<Spelled> = tokens
            .iter()
            .map(|&token| Spelled {
                names: vec![vec![token]],
                ..Spelled::default()
            })
            .collect();
        // The first slot holds the row of the token.
        let rows = all.embed(table, &alone, &table.weight.lazy_device());
        let [_, _, width] = rows.dims();
        let rows = floats(rows.narrow(1, 0, 1))?;
        let (mean, std) = moments(&rows, width);
        let normal = |row: &[f32]| -> Vec<f32> {
            let values = row.iter().zip(&mean).zip(&std);
            values.map(|((v, m), s)| (v - m) / s).collect()
        };
        let rows = tokens.iter().zip(rows.chunks_exact(width));
        Ok(Self {
            config,
            words,
            rows: rows.map(|(&token, row)| (token, normal(row))).collect(),
            empty: normal(&vec![0.0; width]),
            normalisation: Normalisation { mean, std },
        })
    }

    /// Width of an embedding.
    pub fn width(&self) -> usize {
        self.empty.len()
    }

    /// The token of each slot of a picture.
    pub fn slots<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
        layout: Option<&str>,
        colour: Option<&str>,
    ) -> Vec<Option<u32>> {
        let of = |word: &str| self.words.get(word).cloned().unwrap_or_default();
        let first = |word: Option<&str>| word.and_then(|word| of(word).first().copied());
        self.config.fill(&Spelled {
            names: names.into_iter().map(of).collect(),
            layout: first(layout),
            colour: first(colour),
        })
    }

    /// The normalised embedding of a slot.
    pub fn row(&self, slot: Option<u32>) -> &[f32] {
        let row = slot.and_then(|token| self.rows.get(&token));
        row.unwrap_or(&self.empty)
    }

    /// The normalised embeddings of slots, concatenated.
    pub fn embeddings(&self, slots: &[Option<u32>]) -> Vec<f32> {
        slots
            .iter()
            .flat_map(|&slot| self.row(slot))
            .copied()
            .collect()
    }

    /// The normalised embeddings of an empty picture.
    pub fn nothing(&self) -> Vec<f32> {
        self.empty.repeat(self.config.slots())
    }

    /// All rows, the empty one first, with their slots.
    pub fn table(&self, device: &Device) -> (Vec<Option<u32>>, Tensor<2>) {
        let slots: Vec<_> = [None]
            .into_iter()
            .chain(self.rows.keys().map(|&t| Some(t)))
            .collect();
        let rows = self.embeddings(&slots);
        let shape = [slots.len(), self.width()];
        (
            slots,
            Tensor::from_data(TensorData::new(rows, shape), device),
        )
    }
}

#[cfg(test)]
mod tests {
    use emu_model::spelling::distances;

    use super::*;

    #[test]
    fn the_nearest_row_has_the_least_distance() {
        let device = Device::flex();
        let speller = Speller {
            config: SpellingConfig {
                objects: 1,
                tokens: 1,
            },
            words: [("dog".to_string(), vec![3]), ("red".to_string(), vec![4])].into(),
            rows: [(3, vec![1.0, 0.0]), (4, vec![0.0, 2.0])].into(),
            empty: vec![-1.0, -1.0],
            normalisation: Normalisation {
                mean: vec![0.0; 2],
                std: vec![1.0; 2],
            },
        };
        assert_eq!(
            speller.slots(["dog"], None, Some("red")),
            [Some(3), None, Some(4)]
        );
        assert_eq!(speller.slots(["cow"], Some("left"), None), [None; 3]);
        let (slots, table) = speller.table(&device);
        let read: Tensor<2> = Tensor::from_data([[0.9f32, 0.2], [-3.0, -0.5], [0.2, 1.2]], &device);
        let found = floats(distances(read, table)).expect("numbers");
        let nearest = found.chunks_exact(3).map(|row| {
            let least = row.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
            least.and_then(|(i, _)| slots[i])
        });
        assert_eq!(nearest.collect::<Vec<_>>(), [Some(3), None, Some(4)]);
    }
}
