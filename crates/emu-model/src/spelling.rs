//! Spelling: image content as token embeddings of a language model, a fixed number for each object name, one for the
//! layout and one for the background colour.
//!
//! Encoder, decoder and language model thus share one embedding space: what the encoder sees, what a user requests and
//! what the decoder draws from.

use burn::tensor::{Device, Int, Tensor, TensorData};
use emu_kernels::QEmbedding;
pub use emu_tokenizer::english::article;
use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// Size of a spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpellingConfig {
    /// Maximum number of objects.
    pub objects: usize,
    /// Tokens per name; of a longer name the first ones and the last.
    pub tokens: usize,
}

/// Image content in tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spelled {
    /// Tokens of each object's name, in reading order.
    pub names: Vec<Vec<u32>>,
    /// Layout of several objects.
    pub layout: Option<u32>,
    /// Background colour.
    pub colour: Option<u32>,
}

/// Upper bound of both sizes.
const MOST: usize = 64;

impl SpellingConfig {
    /// Number of embeddings of an image.
    pub fn slots(&self) -> usize {
        self.objects * self.tokens + 2
    }

    /// Validates the sizes.
    ///
    /// # Errors
    /// Names the first invalid size.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = [("objects", self.objects), ("tokens", self.tokens)];
        match sizes.iter().find(|(_, n)| *n == 0 || *n > MOST) {
            Some((name, n)) => Err(ConfigError(format!(
                "spelling.{name} is {n}, not 1 to {MOST}"
            ))),
            None => Ok(()),
        }
    }

    /// Token of each slot; `None` where a name is shorter or nothing is there.
    pub fn fill(&self, picture: &Spelled) -> Vec<Option<u32>> {
        let mut slots = Vec::with_capacity(self.slots());
        for object in 0..self.objects {
            let name = picture.names.get(object).map_or(&[][..], Vec::as_slice);
            slots.extend((0..self.tokens).map(|i| {
                // The last token distinguishes long names: "bell pepper", "chili pepper".
                let last = i + 1 == self.tokens && name.len() > self.tokens;
                if last { name.last() } else { name.get(i) }.copied()
            }));
        }
        slots.extend([picture.layout, picture.colour]);
        slots
    }

    /// Embeddings of spellings; zeros for slots without a token.
    ///
    /// # Shapes
    /// - `table`: `[vocabulary, D]`
    /// - returns `[B, slots, D]`
    pub fn embed(&self, table: &QEmbedding, pictures: &[Spelled], device: &Device) -> Tensor<3> {
        let slots: Vec<Option<u32>> = pictures.iter().flat_map(|p| self.fill(p)).collect();
        let (b, n) = (pictures.len(), self.slots());
        let ids = slots.iter().map(|slot| slot.unwrap_or(0) as i32).collect();
        let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids, [b, n]), device);
        let there = slots.iter().map(|slot| f32::from(u8::from(slot.is_some())));
        let there = TensorData::new(there.collect::<Vec<f32>>(), [b, n, 1]);
        table.forward(ids) * Tensor::from_data(there, device)
    }
}

/// Squared distances of N embeddings to M rows, less the embedding's own square, `[N, M]`.
pub fn distances(embeddings: Tensor<2>, rows: Tensor<2>) -> Tensor<2> {
    let squares = rows.clone().square().sum_dim(1).transpose(); // [1, M]
    squares - embeddings.matmul(rows.transpose()).mul_scalar(2.0)
}

/// Image content in words: "a dog to the left of a rocket on a yellow background".
///
/// `layout`: the word of the layout slot, "left" or "above"; anything else puts objects side by side.
pub fn describe(names: &[&str], layout: Option<&str>, colour: Option<&str>) -> String {
    let between = match layout {
        Some("above") => " above ",
        _ => " to the left of ",
    };
    let named = names.iter().map(|name| format!("{} {name}", article(name)));
    let mut text = named.collect::<Vec<_>>().join(between);
    if let Some(colour) = colour {
        text += &format!(" on {} {colour} background", article(colour));
    }
    text
}

/// Sentence that represents a drawn image in the conversation history, so that a text-only language model knows of it
/// and later requests can refer to it.
pub fn drawn(description: &str) -> String {
    format!("{DREW}{description}.")
}

/// Whether an answer is a sentence of [`drawn`].
pub fn is_drawn(answer: &str) -> bool {
    answer.trim_start().starts_with(DREW)
}

/// First words of [`drawn`].
pub(crate) const DREW: &str = "I drew ";

#[cfg(test)]
mod tests {
    use burn::module::Param;

    use super::*;

    const TWO: SpellingConfig = SpellingConfig {
        objects: 2,
        tokens: 2,
    };

    #[test]
    fn descriptions_of_drawings_are_recognized() {
        assert!(is_drawn(&drawn("a dog on a red background")));
        assert!(is_drawn(" I drew a dog."));
        for other in ["", "I draw a dog.", "You said: I drew a dog.", "i drew"] {
            assert!(!is_drawn(other), "{other}");
        }
    }

    #[test]
    fn names_are_padded_and_long_ones_keep_their_end() {
        let picture = Spelled {
            names: vec![vec![7], vec![1, 2, 3]],
            layout: Some(9),
            colour: None,
        };
        let expected = [Some(7), None, Some(1), Some(3), Some(9), None];
        assert_eq!(TWO.fill(&picture), expected);
        assert_eq!(TWO.fill(&Spelled::default()), [None; 6]);
        // More objects than slots.
        let crowd = Spelled {
            names: vec![vec![1], vec![2], vec![3]],
            ..Spelled::default()
        };
        let expected = [Some(1), None, Some(2), None, None, None];
        assert_eq!(TWO.fill(&crowd), expected);
    }

    #[test]
    fn embeddings_are_the_tables_rows() {
        let device = Device::flex();
        let rows: Vec<f32> = (0..8).map(|v| v as f32 + 1.0).collect();
        let table = QEmbedding {
            weight: Param::from_data(TensorData::new(rows, [4, 2]), &device),
        };
        let picture = Spelled {
            names: vec![vec![3], vec![0, 1]],
            layout: None,
            colour: Some(2),
        };
        let y = TWO.embed(&table, &[picture], &device);
        assert_eq!(y.dims(), [1, 6, 2]);
        let values: Vec<f32> = y.into_data().iter::<f32>().collect();
        let expected = [7.0, 8.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 5.0, 6.0];
        assert_eq!(values, expected);
    }

    #[test]
    fn pictures_are_described() {
        let two = describe(&["dog", "owl"], Some("left"), Some("orange"));
        assert_eq!(two, "a dog to the left of an owl on an orange background");
        let two = describe(&["ufo", "hourglass"], Some("above"), None);
        assert_eq!(drawn(&two), "I drew a ufo above an hourglass.");
        assert_eq!(
            describe(&["hot dog"], None, Some("red")),
            "a hot dog on a red background"
        );
    }

    #[test]
    fn numbers_that_cannot_be_are_named() {
        assert!(TWO.validate().is_ok());
        let none = SpellingConfig { tokens: 0, ..TWO };
        let error = none.validate().expect_err("nothing to spell with");
        assert!(error.to_string().contains("spelling.tokens is 0"));
    }
}
