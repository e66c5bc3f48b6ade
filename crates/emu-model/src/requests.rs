//! Image requests over a text-only language model: whether a conversation requests an image, and which one
//! ([`crate::reader`]), as the spelling that conditions the decoder ([`crate::spelling`]).
//!
//! The reader's embeddings are snapped to the nearest names, layout and colour, so that the model can also say what it
//! drew. That sentence is its answer, and represents the image in later turns.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use emu_kernels::QEmbedding;
use emu_kernels::cache::KvCache;
use emu_kernels::random::{Philox, Stream};
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, LmConfig};
use crate::generate::{GenerateError, read};
use crate::lm::Lm;
use crate::reader::{Reader, ReaderConfig, Trigger, TriggerConfig};
use crate::spelling::{Spelled, SpellingConfig, describe, distances, drawn};

/// A word of the spellings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word {
    /// Its text.
    pub word: String,
    /// Its tokens within a sentence.
    pub tokens: Vec<u32>,
}

/// Everything that can be drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vocabulary {
    /// Names of objects.
    pub names: Vec<Word>,
    /// Layouts of two objects.
    pub layouts: Vec<Word>,
    /// Background colours.
    pub colours: Vec<Word>,
}

/// Configuration of the request reader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestsConfig {
    /// Which image is requested.
    pub reader: ReaderConfig,
    /// Whether an image is requested.
    pub trigger: TriggerConfig,
    /// Whether the language model answers without its soft prompt; `None` for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone: Option<TriggerConfig>,
    /// Vocabulary of the spellings.
    pub vocabulary: Vocabulary,
}

/// Largest number of words per kind.
const MOST: usize = 1 << 14;
/// Largest distance from the end of a token that a trigger may look at.
const FURTHEST: usize = 64;

impl RequestsConfig {
    /// Validates the sizes.
    ///
    /// # Errors
    /// Names the first value that does not fit the language model or the others.
    pub fn validate(&self, lm: &LmConfig) -> Result<(), ConfigError> {
        self.reader.validate(lm)?;
        let wrong = |what: String| Err(ConfigError(format!("requests.{what}")));
        if self.reader.outputs.is_none() {
            return wrong("reader.outputs is missing".into());
        }
        let triggers = [
            ("trigger", Some(&self.trigger)),
            ("alone", self.alone.as_ref()),
        ];
        for (name, trigger) in triggers {
            let tokens = trigger.map_or(&[][..], |trigger| &trigger.tokens);
            if tokens.len() > FURTHEST || tokens.iter().any(|token| *token > FURTHEST) {
                return wrong(format!("{name}.tokens has {tokens:?}, not 0 to {FURTHEST}"));
            }
        }
        let Vocabulary {
            names,
            layouts,
            colours,
        } = &self.vocabulary;
        for (kind, words) in [("names", names), ("layouts", layouts), ("colours", colours)] {
            if words.is_empty() || words.len() > MOST {
                let n = words.len();
                return wrong(format!("vocabulary.{kind} has {n} words, not 1 to {MOST}"));
            }
            let unknown = |word: &&Word| {
                word.tokens.is_empty() || word.tokens.iter().any(|t| *t as usize >= lm.vocab)
            };
            if let Some(Word { word, tokens }) = words.iter().find(unknown) {
                return wrong(format!(
                    "vocabulary.{kind} spells {word:?} with {tokens:?}, of a vocabulary of {}",
                    lm.vocab
                ));
            }
        }
        Ok(())
    }

    /// Creates the networks for a language model of these sizes.
    pub fn init(&self, lm: &LmConfig, device: &Device) -> Requests {
        Requests {
            reader: self.reader.init(lm, device),
            trigger: self.trigger.init(&self.reader, lm, device),
            alone: { self.alone.as_ref() }.map(|alone| alone.init(&self.reader, lm, device)),
        }
    }
}

/// The networks of the request reader.
#[derive(Module, Debug)]
pub struct Requests {
    /// Which image is requested.
    pub reader: Reader,
    /// Whether an image is requested.
    pub trigger: Trigger,
    /// Whether the language model answers without its soft prompt.
    pub alone: Option<Trigger>,
}

/// Route of a conversation: who generates the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// An image is requested.
    Picture,
    /// The language model without its soft prompt: the conversation is about neither images nor the model.
    Alone,
    /// The language model with its soft prompt. It may be close to a request ([`CLOSE`]).
    Persona {
        /// Whether an answer that claims a drawing is taken for a request.
        close: bool,
    },
}

/// Scores of the trigger above this are close to those of a request. Requests that the trigger misses score -3 to 0, other
/// messages -6 and less, with few exceptions: seen in 40 conversations with emu-smol.
const CLOSE: f32 = -4.0;

/// A prefilled conversation, up to the start of the answer.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// The language model.
    pub lm: &'a Lm,
    /// Its KV cache, with one sequence.
    pub cache: &'a KvCache,
    /// Positions before the first turn: a system message or a soft prompt.
    pub opening: usize,
}

/// A requested image.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Condition of the decoder, `[1, slots, D]`.
    pub condition: Tensor<3>,
    /// Description: "I drew a dog on a red background."
    pub said: String,
}

impl Requests {
    /// Chooses the [`Route`] of a conversation.
    ///
    /// # Arguments
    /// - `hidden`: final hidden state of the last position, after the final norm, `[1, 1, D]`
    ///
    /// # Errors
    /// If the device fails or computes NaN.
    pub async fn route(
        &self,
        config: &RequestsConfig,
        heard: Heard<'_>,
        hidden: Tensor<3>,
    ) -> Result<Route, GenerateError> {
        let values = heard.values(&config.reader);
        let hidden = hidden.squeeze_dim::<2>(1);
        let score = |trigger: &Trigger, config: &TriggerConfig| {
            trigger.score(config.features(hidden.clone(), &values))
        };
        let picture = score(&self.trigger, &config.trigger);
        let alone = self.alone.as_ref().zip(config.alone.as_ref());
        let alone = alone.map(|(trigger, config)| score(trigger, config));
        // One read-back for both.
        let scores = read(Tensor::cat([picture].into_iter().chain(alone).collect(), 1)).await?;
        if scores.is_empty() || scores.iter().any(|score| score.is_nan()) {
            return Err(GenerateError::NotFinite);
        }
        let above = |i: usize| scores.get(i).is_some_and(|score| *score > 0.0);
        Ok(match (above(0), above(1)) {
            (true, _) => Route::Picture,
            (_, true) => Route::Alone,
            _ => Route::Persona {
                close: scores.first().is_some_and(|score| *score > CLOSE),
            },
        })
    }

    /// Reads which image is requested, whether or not one is.
    ///
    /// # Arguments
    /// - `seed`: chooses the background colour if none is requested
    ///
    /// # Errors
    /// As [`Requests::route`].
    pub async fn wanted(
        &self,
        config: &RequestsConfig,
        heard: Heard<'_>,
        seed: u64,
    ) -> Result<Wanted, GenerateError> {
        let RequestsConfig {
            reader, vocabulary, ..
        } = config;
        let values = reader.normalise(heard.values(reader));
        let found = self.reader.forward(values, None).squeeze_dim::<2>(0); // [slots, D]
        let table = &heard.lm.embed_tokens;
        let tokens = vocabulary.tokens();
        let rows = reader.rows(table, &tokens); // [1 + tokens, D]
        let distances = read(distances(found, rows)).await?;
        if distances.iter().any(|d| d.is_nan()) {
            return Err(GenerateError::NotFinite);
        }
        let nearest = Nearest {
            spelling: reader.spelling,
            tokens,
            distances,
        };
        let picture = nearest.picture(vocabulary);
        let mut spelled = picture.spelled();
        // The decoder was never trained on images without a background.
        let free = Philox::new(seed, Stream::Tokens, 0).below(vocabulary.colours.len());
        let any = vocabulary.colours.get(free).and_then(first);
        spelled.colour = spelled.colour.or(any);
        let device = table.weight.lazy_device();
        Ok(Wanted {
            condition: reader.spelling.embed(table, &[spelled], &device),
            said: drawn(&picture.described()),
        })
    }
}

impl Heard<'_> {
    /// Attention values of the last tokens, `[1, T, F]`, without those of the opening.
    fn values(&self, config: &ReaderConfig) -> Tensor<3> {
        let end = self.cache.len();
        // At least one token: an empty conversation requests nothing.
        let opening = self.opening.min(end.saturating_sub(1));
        let from = opening.max(end.saturating_sub(config.window));
        self.lm.values(self.cache, &config.layers, from..end)
    }
}

impl ReaderConfig {
    /// Rows of the embedding table in the units of the network's output, `[1 + tokens, D]`; the first one is that of an
    /// empty slot.
    fn rows(&self, table: &QEmbedding, tokens: &[u32]) -> Tensor<2> {
        let device = table.weight.lazy_device();
        let ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
        let ids = TensorData::new(ids, [1, tokens.len()]);
        let rows = table.forward(Tensor::<2, Int>::from_data(ids, &device)); // [1, tokens, D]
        let [_, _, d] = rows.dims();
        let empty = Tensor::zeros([1, 1, d], &rows.device());
        let rows = Tensor::cat(vec![empty, rows], 1);
        let rows = match &self.outputs {
            Some(outputs) => outputs.apply(rows),
            None => rows,
        };
        rows.squeeze_dim::<2>(0)
    }
}

impl Vocabulary {
    /// All distinct tokens of the vocabulary's words.
    fn tokens(&self) -> Vec<u32> {
        let words = [&self.names, &self.layouts, &self.colours];
        let all = words.into_iter().flatten().flat_map(|word| &word.tokens);
        let mut tokens: Vec<u32> = all.copied().collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }
}

fn first(word: &Word) -> Option<u32> {
    word.tokens.first().copied()
}

/// Distance of each slot from each row.
struct Nearest {
    spelling: SpellingConfig,
    /// Tokens of the rows after the first, which is that of an empty slot; sorted.
    tokens: Vec<u32>,
    /// `[slots, 1 + tokens]`
    distances: Vec<f32>,
}

/// Image content in words.
#[derive(Debug, PartialEq)]
struct Picture<'a> {
    names: Vec<&'a Word>,
    layout: Option<&'a Word>,
    colour: Option<&'a Word>,
}

impl Nearest {
    fn distance(&self, slot: usize, token: Option<u32>) -> f32 {
        let row = token.map_or(0, |token| {
            1 + self.tokens.binary_search(&token).unwrap_or_default()
        });
        let rows = 1 + self.tokens.len();
        let found = self.distances.get(slot * rows + row);
        found.copied().unwrap_or(f32::INFINITY)
    }

    /// The word whose tokens are nearest to these slots; `None` if `empty` is allowed and empty slots are nearer.
    fn word<'a>(
        &self,
        slots: core::ops::Range<usize>,
        words: &'a [Word],
        empty: bool,
    ) -> Option<&'a Word> {
        let one = SpellingConfig {
            objects: 1,
            tokens: slots.len(),
        };
        let sum = |tokens: &[u32]| -> f32 {
            let names = vec![tokens.to_vec()];
            let filled = one.fill(&Spelled {
                names,
                ..Spelled::default()
            });
            let each = slots.clone().zip(filled);
            each.map(|(slot, token)| self.distance(slot, token)).sum()
        };
        let words = words.iter().map(|word| (sum(&word.tokens), Some(word)));
        let none = empty.then(|| (sum(&[]), None));
        let nearest = words.chain(none).min_by(|a, b| a.0.total_cmp(&b.0));
        nearest.and_then(|(_, word)| word)
    }

    /// Decodes the image content: at least one object, further ones if their slots are filled, a layout if there are
    /// several.
    fn picture<'a>(&self, vocabulary: &'a Vocabulary) -> Picture<'a> {
        let SpellingConfig { objects, tokens } = self.spelling;
        let object = |i: usize| self.word(i * tokens..(i + 1) * tokens, &vocabulary.names, i > 0);
        let names: Vec<&Word> = (0..objects).filter_map(object).collect();
        let [layout, colour] = [objects * tokens, objects * tokens + 1];
        Picture {
            layout: (names.len() > 1)
                .then(|| self.word(layout..layout + 1, &vocabulary.layouts, false))
                .flatten(),
            colour: self.word(colour..colour + 1, &vocabulary.colours, true),
            names,
        }
    }
}

impl Picture<'_> {
    fn spelled(&self) -> Spelled {
        Spelled {
            names: self.names.iter().map(|word| word.tokens.clone()).collect(),
            layout: self.layout.and_then(first),
            colour: self.colour.and_then(first),
        }
    }

    fn described(&self) -> String {
        let names: Vec<&str> = self.names.iter().map(|word| word.word.as_str()).collect();
        let [layout, colour] = [self.layout, self.colour].map(|w| Some(w?.word.as_str()));
        describe(&names, layout, colour)
    }
}

#[cfg(test)]
mod tests;
