//! The curated list of concepts and colours (`configs/data/emoji.toml`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub(crate) use emu_tokenizer::english::article;
use serde::Deserialize;

use super::options::BuildOptions;
use crate::DataError;

/// Concepts and colours of the data set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConceptList {
    /// The drawing set for pictures to be drawn.
    pub canonical_set: String,
    /// Background colours.
    pub colours: Vec<Colour>,
    /// Concepts of the training splits.
    pub read: Vec<Concept>,
    /// Concepts of split T2, whose names and drawings are not in the training data.
    pub unseen: Vec<Concept>,
}

/// A background colour.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Colour {
    /// One lower-case word.
    pub name: String,
    /// Red, green and blue.
    pub rgb: [u8; 3],
}

/// A concept: a thing that can be named and shown.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concept {
    /// Lower-case words, unique.
    pub name: String,
    /// Its code point in lower-case hexadecimal.
    pub hexcode: String,
    /// The plural, if the rules of [`Concept::plural`] give a wrong one.
    #[serde(default)]
    plural: Option<String>,
    /// Whether it is drawable: requests ask for pictures of it.
    #[serde(default)]
    pub drawn: bool,
    /// Icon names by set, if they cannot be found by code point.
    #[serde(default)]
    pub icons: BTreeMap<String, String>,
    /// Sets in which its drawing is missing, misleading or malformed.
    #[serde(default)]
    pub skip: BTreeSet<String>,
}

/// The built-in list.
const SHIPPED: &str = include_str!("../../../../configs/data/emoji.toml");

impl ConceptList {
    /// The built-in list.
    ///
    /// # Errors
    /// Never for an unmodified build. The list is checked like any other.
    pub fn shipped() -> Result<Self, DataError> {
        Self::parse(SHIPPED, "configs/data/emoji.toml")
    }

    /// Reads a list from a file.
    ///
    /// # Errors
    /// If the file cannot be read, is not TOML of this form, or is inconsistent.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, DataError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(DataError::io("read", path))?;
        Self::parse(&text, path)
    }

    /// Parses a list; `path` is for error messages.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Self, DataError> {
        let list: Self = toml::from_str(text).map_err(|error| DataError::malformed(path, error))?;
        list.validate()?;
        Ok(list)
    }

    /// All concepts: first `read`, then `unseen`.
    pub fn all(&self) -> impl Iterator<Item = &Concept> {
        self.read.iter().chain(&self.unseen)
    }

    /// Checks that data can be built from this list with these options.
    ///
    /// # Errors
    /// If a name has several words but a tokenizer is requested, which needs one token per name.
    pub fn suits(&self, options: &BuildOptions) -> Result<(), DataError> {
        match self.all().find(|concept| concept.name.contains(' ')) {
            Some(concept) if options.tokenizer => Err(DataError::Concepts(format!(
                "{:?} has several words, which cannot be one token; build with `tokenizer = false`",
                concept.name
            ))),
            _ => Ok(()),
        }
    }

    fn validate(&self) -> Result<(), DataError> {
        let refuse = |message: String| Err(DataError::Concepts(message));
        let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase());
        let words_of = |text: &str| text.split(' ').all(word);
        let mut words = BTreeSet::new();
        let mut codes = BTreeSet::new();
        for colour in &self.colours {
            if !word(&colour.name) || !words.insert(colour.name.clone()) {
                return refuse(format!("the colour {:?} is not a new word", colour.name));
            }
        }
        for concept in self.all() {
            let name = &concept.name;
            if !words_of(name) || !words.insert(name.clone()) {
                return refuse(format!("{name:?} is not a new name of lower-case words"));
            }
            let plural = concept.plural();
            if !words_of(&plural) || (plural != *name && !words.insert(plural.clone())) {
                return refuse(format!(
                    "the plural {plural:?} is not a new name of lower-case words"
                ));
            }
            let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-');
            if concept.hexcode.is_empty() || !concept.hexcode.bytes().all(hex) {
                return refuse(format!("{name} has the code point {:?}", concept.hexcode));
            }
            if !codes.insert(concept.hexcode.clone()) {
                return refuse(format!("{name} repeats the code point {}", concept.hexcode));
            }
        }
        if let Some(concept) = self.unseen.iter().find(|concept| concept.drawn) {
            return refuse(format!("{} is both unseen and drawn", concept.name));
        }
        if self.colours.len() < 2 || self.read.len() < 2 {
            return refuse("at least two colours and two concepts are needed".into());
        }
        Ok(())
    }
}

impl Concept {
    /// A concept with default rules, for lists made in code.
    pub fn new(name: &str, hexcode: &str, drawn: bool) -> Self {
        Self {
            name: name.into(),
            hexcode: hexcode.into(),
            plural: None,
            drawn,
            icons: BTreeMap::new(),
            skip: BTreeSet::new(),
        }
    }

    /// "a" or "an".
    pub fn article(&self) -> &'static str {
        article(&self.name)
    }

    /// "dogs", "foxes", "cherries", or the plural given in the list.
    pub fn plural(&self) -> String {
        if let Some(plural) = &self.plural {
            return plural.clone();
        }
        plural_of(&self.name)
    }
}

/// The regular plural of a name.
pub fn plural_of(name: &str) -> String {
    let vowel_before_last = name
        .len()
        .checked_sub(2)
        .and_then(|i| name.as_bytes().get(i))
        .is_some_and(|b| b"aeiou".contains(b));
    match name.strip_suffix('y') {
        Some(stem) if !vowel_before_last => format!("{stem}ies"),
        _ if ["s", "x", "ch", "sh"].iter().any(|end| name.ends_with(end)) => {
            format!("{name}es")
        }
        _ => format!("{name}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_list_keeps_its_promises() {
        let list = ConceptList::shipped().expect("valid");
        assert!(list.read.len() >= 150, "{} concepts", list.read.len());
        assert_eq!(list.read.iter().filter(|c| c.drawn).count(), 60);
        assert!((15..=25).contains(&list.unseen.len()));
        assert_eq!(list.colours.len(), 8);
    }

    #[test]
    fn the_larger_list_has_its_concepts() {
        let text = include_str!("../../../../configs/data/smol.toml");
        let list = ConceptList::parse(text, "configs/data/smol.toml").expect("valid");
        assert!(list.read.len() >= 500, "{} concepts", list.read.len());
        assert!(list.read.iter().filter(|c| c.drawn).count() >= 150);
        let with = |tokenizer| BuildOptions {
            tokenizer,
            ..Default::default()
        };
        assert!(list.suits(&with(false)).is_ok());
        let error = list.suits(&with(true)).expect_err("names of two words");
        assert!(error.to_string().contains("tokenizer = false"), "{error}");
    }

    #[test]
    fn spelling() {
        let plural = |name: &str| Concept::new(name, "1", false).plural();
        assert_eq!(plural("dog"), "dogs");
        assert_eq!(plural("fox"), "foxes");
        assert_eq!(plural("cherry"), "cherries");
        assert_eq!(plural("key"), "keys");
        assert_eq!(plural("peach"), "peaches");
    }

    #[test]
    fn refuses_contradictions() {
        let list = |read: &str, unseen: &str| {
            let text = format!(
                "canonical_set='a'\ncolours=[{{name='red',rgb=[1,2,3]}},{{name='blue',rgb=[1,2,3]}}]\nread=[{read}]\nunseen=[{unseen}]"
            );
            ConceptList::parse(&text, "list.toml")
        };
        let (dog, cat) = ("{name='dog',hexcode='1'}", "{name='cat',hexcode='2'}");
        assert!(list(&format!("{dog},{cat}"), "").is_ok());
        for (read, unseen) in [
            (dog.to_string(), String::new()),
            (format!("{dog},{dog}"), String::new()),
            (format!("{dog},{{name='cat',hexcode='1'}}"), String::new()),
            (format!("{dog},{cat}"), dog.to_string()),
            (
                format!("{dog},{cat}"),
                "{name='owl',hexcode='3',drawn=true}".into(),
            ),
            (format!("{dog},{{name='Cat',hexcode='2'}}"), String::new()),
            (format!("{dog},{{name='red',hexcode='2'}}"), String::new()),
            (format!("{dog},{{name='dogs',hexcode='2'}}"), String::new()),
            (format!("{dog},{{name='cat',hexcode='x'}}"), String::new()),
            (
                format!("{dog},{{name='cat',hexcode='2',size=3}}"),
                String::new(),
            ),
        ] {
            assert!(list(&read, &unseen).is_err(), "{read} / {unseen}");
        }
        assert!(ConceptList::read("/no/such/list.toml").is_err());
    }
}
