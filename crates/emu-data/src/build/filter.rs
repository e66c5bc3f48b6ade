//! Filters of captions and of the fields beside them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Skip;
use crate::DataError;
use crate::input::Value;
use crate::rng::hash_texts;

/// Which of several captions of a picture is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// One, by the seed.
    One,
    /// Each, as a sample of its own.
    Every,
}

/// Which captions are used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Captions {
    /// The field (or column) that holds the caption. Default: the first of `caption`, `text`, `title`, ... that exists; in
    /// img2dataset's layouts the `.txt`, or the JSON's `caption` where there is none.
    pub field: Option<String>,
    /// Default: one.
    pub choice: Choice,
    /// Fewest words. Default: 1.
    pub min_words: usize,
    /// Most words. Default: none.
    pub max_words: Option<usize>,
    /// Fewest characters. Default: 1.
    pub min_chars: usize,
    /// Most characters. Default: none.
    pub max_chars: Option<usize>,
}

impl Default for Captions {
    fn default() -> Self {
        Self {
            field: None,
            choice: Choice::One,
            min_words: 1,
            max_words: None,
            min_chars: 1,
            max_chars: None,
        }
    }
}

impl Captions {
    /// The captions to use, tidied, each with a name. Lengths are filtered before the choice.
    pub(crate) fn choose(
        &self,
        source: &str,
        captions: Vec<String>,
        seed: u64,
    ) -> Result<Vec<(String, String)>, Skip> {
        let captions: Vec<String> = captions.iter().map(|text| tidy(text)).collect();
        let Some(first) = captions.iter().find(|text| !text.is_empty()) else {
            return Err(match captions.is_empty() {
                true => Skip::plain("no caption"),
                false => Skip::plain("caption is empty"),
            });
        };
        let mut fitting: Vec<String> = captions
            .iter()
            .filter(|text| self.length(text).is_none())
            .cloned()
            .collect();
        if fitting.is_empty() {
            return Err(self
                .length(first)
                .unwrap_or_else(|| Skip::plain("caption is empty")));
        }
        Ok(match (self.choice, fitting.len()) {
            (_, 1) => vec![(source.to_string(), fitting.swap_remove(0))],
            (Choice::One, n) => {
                let at = hash_texts(seed, &["caption", source]) % n as u64;
                vec![(source.to_string(), fitting.swap_remove(at as usize))]
            }
            (Choice::Every, _) => fitting
                .into_iter()
                .enumerate()
                .map(|(i, text)| (format!("{source} #{i}"), text))
                .collect(),
        })
    }

    /// Why a caption is too short or too long.
    fn length(&self, text: &str) -> Option<Skip> {
        let (words, chars) = (text.split_whitespace().count(), text.chars().count());
        let long = |most: Option<usize>, length: usize| most.is_some_and(|most| length > most);
        let measured = format!("{words} words, {chars} characters");
        if text.is_empty() {
            Some(Skip::plain("caption is empty"))
        } else if words < self.min_words || chars < self.min_chars {
            Some(Skip::new("caption is too short", measured))
        } else if long(self.max_words, words) || long(self.max_chars, chars) {
            Some(Skip::new("caption is too long", measured))
        } else {
            None
        }
    }

    pub(crate) fn validate(&self) -> Result<(), DataError> {
        let crossed = |least: usize, most: Option<usize>| most.is_some_and(|most| most < least);
        if crossed(self.min_words, self.max_words) || crossed(self.min_chars, self.max_chars) {
            let message = "the shortest caption is longer than the longest";
            return Err(DataError::Options(message.into()));
        }
        Ok(())
    }
}

/// One line of text: control characters and runs of white space become single spaces.
pub(crate) fn tidy(text: &str) -> String {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control() || c == '\u{feff}')
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ")
}

/// Conditions on the fields (or columns) beside a caption: all have to hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Filters {
    /// Smallest values, such as `similarity` (of CLIP) at least 0.3.
    pub at_least: BTreeMap<String, f64>,
    /// Largest values, such as `punsafe` at most 0.1.
    pub at_most: BTreeMap<String, f64>,
    /// Required texts, such as `LANGUAGE` equal to `en`.
    pub equal: BTreeMap<String, String>,
}

impl Filters {
    /// Whether the fields meet the conditions. A field that is missing does not.
    pub(crate) fn check(&self, fields: &Value) -> Result<(), Skip> {
        let bounds = self
            .at_least
            .iter()
            .map(|(name, bound)| (name, bound, true));
        let most = self
            .at_most
            .iter()
            .map(|(name, bound)| (name, bound, false));
        for (name, bound, least) in bounds.chain(most) {
            let Some(value) = fields.field(name).and_then(Value::number) else {
                return Err(Skip::new(
                    format!("field {name:?} has no number"),
                    fields.names(),
                ));
            };
            if least && value < *bound {
                let reason = format!("field {name:?} is below {bound}");
                return Err(Skip::new(reason, value));
            }
            if !least && value > *bound {
                let reason = format!("field {name:?} is above {bound}");
                return Err(Skip::new(reason, value));
            }
        }
        for (name, wanted) in &self.equal {
            let value = fields.field(name).and_then(Value::text);
            if value.as_deref() != Some(wanted) {
                return Err(Skip::new(
                    format!("field {name:?} is not {wanted:?}"),
                    value.unwrap_or_default(),
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at_least.is_empty() && self.at_most.is_empty() && self.equal.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captions(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).into()).collect()
    }

    #[test]
    fn texts_are_tidied_and_kept_as_text() {
        assert_eq!(tidy("\u{feff} a\r\n cat\t\u{0} \u{2028}sat "), "a cat sat");
        assert_eq!(tidy(" <image> [IMG]</s> "), "<image> [IMG]</s>");
        assert_eq!(tidy("\u{3000}\n"), "");
    }

    #[test]
    fn one_caption_by_the_seed_or_every() {
        let options = Captions::default();
        let texts = captions(&["a", "b", "c", " "]);
        let one = |seed, source: &str| options.choose(source, texts.clone(), seed).expect("kept");
        assert_eq!(one(1, "x"), one(1, "x"));
        let chosen: std::collections::BTreeSet<String> = (0..40)
            .map(|i| one(1, &format!("x{i}")).swap_remove(0).1)
            .collect();
        assert_eq!(
            chosen.len(),
            3,
            "all are chosen somewhere, the empty one never"
        );
        let every = Captions {
            choice: Choice::Every,
            ..Captions::default()
        };
        let all = every.choose("x", texts, 1).expect("kept");
        assert_eq!(all[2], ("x #2".into(), "c".into()));
    }

    #[test]
    fn lengths_and_missing_captions_are_told() {
        let options = Captions {
            min_words: 2,
            max_chars: Some(9),
            ..Captions::default()
        };
        let reason = |texts: &[&str]| {
            let skip = options
                .choose("x", captions(texts), 0)
                .expect_err("skipped");
            skip.reason.to_string()
        };
        assert_eq!(reason(&[]), "no caption");
        assert_eq!(reason(&[" \n"]), "caption is empty");
        assert_eq!(reason(&["cat"]), "caption is too short");
        assert_eq!(reason(&["a long caption"]), "caption is too long");
        assert!(options.choose("x", captions(&["cat", "a cat"]), 0).is_ok());
    }

    #[test]
    fn fields_are_compared() {
        let fields = Value::from(
            serde_json::json!({"similarity": "0.31", "punsafe": 0.2, "LANGUAGE": "en"}),
        );
        let mut filters = Filters::default();
        filters.at_least.insert("similarity".into(), 0.3);
        filters.at_most.insert("punsafe".into(), 0.2);
        filters.equal.insert("LANGUAGE".into(), "en".into());
        assert_eq!(filters.check(&fields), Ok(()));
        let reason = |filters: &Filters| {
            let skip = filters.check(&fields).expect_err("skipped");
            skip.reason.to_string()
        };
        let mut strict = filters.clone();
        strict.at_least.insert("similarity".into(), 0.4);
        assert_eq!(reason(&strict), "field \"similarity\" is below 0.4");
        let mut strict = filters.clone();
        strict.at_most.insert("punsafe".into(), 0.1);
        assert_eq!(reason(&strict), "field \"punsafe\" is above 0.1");
        let mut strict = filters.clone();
        strict.equal.insert("LANGUAGE".into(), "de".into());
        assert_eq!(reason(&strict), "field \"LANGUAGE\" is not \"de\"");
        filters.at_least.insert("score".into(), 0.0);
        assert_eq!(reason(&filters), "field \"score\" has no number");
    }
}
