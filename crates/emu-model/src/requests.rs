//! Drawing on request over a language model that knows no pictures: whether a conversation asks for one, and which
//! ([`crate::reader`]), in the words that a decoder draws from ([`crate::spelling`]).
//!
//! What the reader gives is not drawn as it is: the nearest names, layout and colour are, so that the model can also say what
//! it drew. That sentence is its answer, and what it reads of the picture in later turns.

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

/// A word that pictures are spelled with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word {
    /// As people write it.
    pub word: String,
    /// As the language model reads it within a sentence.
    pub tokens: Vec<u32>,
}

/// What can be drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vocabulary {
    /// Objects.
    pub names: Vec<Word>,
    /// How two of them lie.
    pub layouts: Vec<Word>,
    /// Colours behind them.
    pub colours: Vec<Word>,
}

/// What reads requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestsConfig {
    /// Which picture is asked for.
    pub reader: ReaderConfig,
    /// Whether one is.
    pub trigger: TriggerConfig,
    /// Whether the language model answers alone, without its soft prompt; it never does without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone: Option<TriggerConfig>,
    /// What there is to ask for.
    pub vocabulary: Vocabulary,
}

/// Most words of a kind.
const MOST: usize = 1 << 14;
/// Furthest token behind the end that a trigger may look at.
const FURTHEST: usize = 64;

impl RequestsConfig {
    /// Checks the numbers.
    ///
    /// # Errors
    /// Names the first that does not fit the language model or the others.
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

    /// New networks for a language model of these sizes.
    pub fn init(&self, lm: &LmConfig, device: &Device) -> Requests {
        Requests {
            reader: self.reader.init(lm, device),
            trigger: self.trigger.init(&self.reader, lm, device),
            alone: { self.alone.as_ref() }.map(|alone| alone.init(&self.reader, lm, device)),
        }
    }
}

/// The networks.
#[derive(Module, Debug)]
pub struct Requests {
    /// Which picture is asked for.
    pub reader: Reader,
    /// Whether one is.
    pub trigger: Trigger,
    /// Whether the language model answers alone.
    pub alone: Option<Trigger>,
}

/// Who answers a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// A picture is asked for.
    Picture,
    /// The language model alone: it is not about pictures, nor about the model.
    Alone,
    /// The language model behind what stands in front of conversations.
    Persona,
}

/// A conversation that a language model has read, up to where its answer begins.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// The language model.
    pub lm: &'a Lm,
    /// What it keeps of it, one sequence.
    pub cache: &'a KvCache,
    /// Positions in front of the first turn: a system message, or a soft prompt.
    pub opening: usize,
}

/// A picture that is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What a decoder draws it from, `[1, slots, D]`.
    pub condition: Tensor<3>,
    /// What is said of it: "I drew a dog on a red background."
    pub said: String,
}

impl Requests {
    /// Who answers.
    ///
    /// # Arguments
    /// - `hidden`: of the last position after the final norm, `[1, 1, D]`
    ///
    /// # Errors
    /// Where the device fails, or computes what is not a number.
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
        // Both come back at once.
        let scores = read(Tensor::cat([picture].into_iter().chain(alone).collect(), 1)).await?;
        if scores.is_empty() || scores.iter().any(|score| score.is_nan()) {
            return Err(GenerateError::NotFinite);
        }
        let above = |i: usize| scores.get(i).is_some_and(|score| *score > 0.0);
        Ok(match (above(0), above(1)) {
            (true, _) => Route::Picture,
            (_, true) => Route::Alone,
            _ => Route::Persona,
        })
    }

    /// Which picture is asked for, whether or not one is.
    ///
    /// # Arguments
    /// - `seed`: decides the background where none is asked for
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
        // A decoder that never saw a picture without a background draws none.
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
    /// The attention values of the last tokens, `[1, T, F]`; never those of the opening.
    fn values(&self, config: &ReaderConfig) -> Tensor<3> {
        let end = self.cache.len();
        // At least one: a conversation without a token has nothing to ask for.
        let opening = self.opening.min(end.saturating_sub(1));
        let from = opening.max(end.saturating_sub(config.window));
        self.lm.values(self.cache, &config.layers, from..end)
    }
}

impl ReaderConfig {
    /// Rows of the table in the units of the network's outputs, `[1 + tokens, D]`: first what stands in an empty slot.
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
    /// Every token that a picture may be spelled with, once.
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

/// How far each slot is from each row.
struct Nearest {
    spelling: SpellingConfig,
    /// Of the rows but the first, which is that of an empty slot; in order.
    tokens: Vec<u32>,
    /// `[slots, 1 + tokens]`
    distances: Vec<f32>,
}

/// What a picture shows, in words.
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

    /// The word whose tokens are nearest to these slots; none where empty slots are nearer and may be.
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

    /// The picture: at least one object, its neighbours where they are, how they lie where there are several.
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
