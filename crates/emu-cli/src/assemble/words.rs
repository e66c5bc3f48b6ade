//! Names as tokens, and as rows of a language model's embedding table.

use anyhow::{Context, Result};
use emu_model::spelling::{Spelled, SpellingConfig};
use emu_model::text::Base;
use emu_pack::TensorSource;
use emu_tokenizer::EmuTokenizer;

/// The tokens of a word inside a sentence, with the leading space.
pub(super) fn spelled(tokenizer: &EmuTokenizer, word: &str) -> Result<Vec<u32>> {
    Ok(tokenizer.encode_plain(&format!(" {word}"))?)
}

/// Embedding table of a language model.
pub struct Table {
    width: usize,
    values: Vec<f32>,
}

impl Table {
    /// Reads the table of a language model.
    ///
    /// # Errors
    /// Where the table is corrupt in the file.
    pub fn of<S: TensorSource>(base: &Base<'_, S>) -> Result<Self> {
        let table = base.table()?;
        Ok(Self {
            width: base.config.lm.width,
            values: table.to_f32()?,
        })
    }

    fn row(&self, token: u32) -> Result<&[f32]> {
        let start = token as usize * self.width;
        let row = self.values.get(start..start + self.width);
        row.with_context(|| {
            format!(
                "Token {token} is not in the language model's table. Take the file's own tokenizer"
            )
        })
    }

    /// The embeddings of a name's tokens, concatenated; zeros pad a short name.
    ///
    /// # Errors
    /// Where a token is not in the table.
    pub fn name(&self, spelling: &SpellingConfig, tokens: &[u32]) -> Result<Vec<f32>> {
        let spelled = Spelled {
            names: vec![tokens.to_vec()],
            ..Spelled::default()
        };
        let mut values = Vec::with_capacity(spelling.tokens * self.width);
        for slot in spelling.fill(&spelled).into_iter().take(spelling.tokens) {
            match slot {
                Some(token) => values.extend_from_slice(self.row(token)?),
                None => values.resize(values.len() + self.width, 0.0),
            }
        }
        Ok(values)
    }

    /// The mean embedding of a word's tokens. Most words are one token.
    ///
    /// # Errors
    /// As [`Table::name`].
    pub fn mean(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let mut mean = vec![0.0; self.width];
        let share = 1.0 / tokens.len().max(1) as f32;
        for &token in tokens {
            let row = self.row(token)?;
            mean.iter_mut().zip(row).for_each(|(m, v)| *m += share * v);
        }
        Ok(mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_rows_of_the_table() {
        let table = Table {
            width: 2,
            values: (0..8).map(|v| v as f32).collect(),
        };
        let spelling = SpellingConfig {
            objects: 2,
            tokens: 2,
        };
        let name = |tokens: &[u32]| table.name(&spelling, tokens).expect("rows");
        assert_eq!(name(&[1]), [2.0, 3.0, 0.0, 0.0]);
        // A long name keeps its first tokens and the last.
        assert_eq!(name(&[3, 1, 2]), [6.0, 7.0, 4.0, 5.0]);
        assert_eq!(table.mean(&[0, 3]).expect("rows"), [3.0, 4.0]);
        let error = table.name(&spelling, &[4]).expect_err("no such row");
        assert!(error.to_string().contains("Token 4"), "{error}");
    }
}
