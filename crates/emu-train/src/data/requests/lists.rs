//! The lists behind the requests. They are edited by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::data::DataError;

/// Placeholder in a wording.
pub const HOLE: &str = "{}";

/// Wordings or words, split into training and held-out ones.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parted {
    /// Trained on.
    pub train: Vec<String>,
    /// Never trained on.
    pub held_out: Vec<String>,
}

/// Wordings of requests for pictures, each with a placeholder for the content, and other prompts
/// (`configs/data/smol-requests.toml`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wordings {
    /// Requests used in training.
    pub train: Vec<String>,
    /// Requests never used in training.
    pub held_out: Vec<String>,
    /// Other prompts used in training, with or without a placeholder.
    pub other_train: Vec<String>,
    /// Other prompts never used in training.
    pub other_held_out: Vec<String>,
}

/// Synonyms of the concepts' names (`configs/data/smol-synonyms.toml`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Synonyms {
    /// Synonyms by name.
    pub synonyms: BTreeMap<String, Parted>,
}

/// Wordings of changes to the previous picture (`configs/data/smol-changes.toml`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// Another background, with a placeholder for the colour.
    pub colour: Parted,
    /// Another object, with a placeholder for it.
    pub object: Parted,
}

/// Questions and answers about the model itself (`configs/data/smol-persona.toml`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Persona {
    /// Within a topic, every question goes with each of the answers.
    pub topic: Vec<Topic>,
}

/// Prompts that the language model answers without the soft prompt, and prompts addressed to the model itself
/// (`configs/data/smol-ordinary.toml`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ordinary {
    /// Questions and tasks unrelated to the model and to pictures, with or without a placeholder for an object.
    pub ordinary: Parted,
    /// Prompts addressed to the model or about it, in addition to those of [`Persona`].
    pub own: Parted,
}

/// Questions with the same answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Whether they are unrelated to the model and to pictures.
    #[serde(default)]
    pub ordinary: bool,
    /// Questions used in training.
    pub train: Vec<String>,
    /// Questions never used in training.
    pub held_out: Vec<String>,
    /// Answers.
    pub answers: Vec<String>,
}

pub(super) fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, DataError> {
    toml::from_str(text).map_err(|error| DataError::malformed(path, error))
}

pub(super) fn read<T>(
    path: &Path,
    parse: impl Fn(&str, &Path) -> Result<T, DataError>,
) -> Result<T, DataError> {
    let text = std::fs::read_to_string(path).map_err(DataError::io("read", path))?;
    parse(&text, path)
}

/// Normal form of a prompt for comparisons: lower case, without final punctuation.
pub(super) fn plain(prompt: &str) -> String {
    let prompt = prompt.to_lowercase();
    prompt.trim_end_matches(['.', '!', '?', ' ']).to_owned()
}

/// Rejects a list that is empty, repeats an entry, or has an entry whose number of placeholders is outside `holes`.
fn check_list(
    path: &Path,
    name: &str,
    list: &[String],
    holes: core::ops::RangeInclusive<usize>,
) -> Result<(), DataError> {
    let refuse = |what: String| Err(DataError::malformed(path, what));
    if list.is_empty() {
        return refuse(format!("`{name}` is empty"));
    }
    let mut seen = BTreeSet::new();
    for entry in list {
        let found = entry.matches(HOLE).count();
        if !holes.contains(&found) {
            return refuse(format!("{entry:?} of `{name}` has {found} times {HOLE}"));
        }
        if entry.trim().is_empty() || !seen.insert(plain(entry)) {
            return refuse(format!("{entry:?} of `{name}` is empty or there twice"));
        }
    }
    Ok(())
}

/// Rejects entries that are both trained on and held out.
fn check_parted(
    path: &Path,
    name: &str,
    train: &[String],
    held: &[String],
) -> Result<(), DataError> {
    let train: BTreeSet<String> = train.iter().map(|entry| plain(entry)).collect();
    match held.iter().find(|entry| train.contains(&plain(entry))) {
        Some(entry) => Err(DataError::malformed(
            path,
            format!("{entry:?} of `{name}` is held out and trained on"),
        )),
        None => Ok(()),
    }
}

impl Parted {
    fn check(
        &self,
        path: &Path,
        name: &str,
        holes: core::ops::RangeInclusive<usize>,
    ) -> Result<(), DataError> {
        check_list(path, name, &self.train, holes.clone())?;
        check_list(path, name, &self.held_out, holes)?;
        check_parted(path, name, &self.train, &self.held_out)
    }
}

impl Wordings {
    /// Reads the wordings from a file.
    ///
    /// # Errors
    /// If the file cannot be read, is not TOML of this form, or is inconsistent.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        read(path, Self::parse)
    }

    /// Parses the wordings; `path` is for error messages.
    ///
    /// # Errors
    /// As [`Wordings::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, DataError> {
        let list: Self = parse(text, path)?;
        check_list(path, "train", &list.train, 1..=1)?;
        check_list(path, "held_out", &list.held_out, 1..=1)?;
        check_parted(path, "held_out", &list.train, &list.held_out)?;
        check_list(path, "other_train", &list.other_train, 0..=1)?;
        check_list(path, "other_held_out", &list.other_held_out, 0..=1)?;
        check_parted(
            path,
            "other_held_out",
            &list.other_train,
            &list.other_held_out,
        )?;
        Ok(list)
    }
}

impl Synonyms {
    /// Reads the synonyms from a file, for concepts with these names.
    ///
    /// # Errors
    /// As [`Wordings::read`].
    pub fn read(path: &Path, names: &[&str]) -> Result<Self, DataError> {
        read(path, |text, path| Self::parse(text, path, names))
    }

    /// Parses the synonyms; `path` is for error messages.
    ///
    /// # Errors
    /// As [`Wordings::read`], and if a word has two meanings.
    pub fn parse(text: &str, path: &Path, names: &[&str]) -> Result<Self, DataError> {
        let list: Self = parse(text, path)?;
        let mut seen: BTreeSet<&str> = names.iter().copied().collect();
        for (name, words) in &list.synonyms {
            if !names.contains(&name.as_str()) {
                let what = format!("{name:?} is nothing that is drawn");
                return Err(DataError::malformed(path, what));
            }
            words.check(path, name, 0..=0)?;
            let all = words.train.iter().chain(&words.held_out);
            if let Some(word) = all.map(String::as_str).find(|word| !seen.insert(word)) {
                let what = format!("{word:?} of {name:?} means something else too");
                return Err(DataError::malformed(path, what));
            }
        }
        Ok(list)
    }
}

impl Changes {
    /// Reads the wordings from a file.
    ///
    /// # Errors
    /// As [`Wordings::read`].
    pub fn read(path: &Path) -> Result<Self, DataError> {
        read(path, Self::parse)
    }

    /// Parses the wordings; `path` is for error messages.
    ///
    /// # Errors
    /// As [`Wordings::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, DataError> {
        let list: Self = parse(text, path)?;
        list.colour.check(path, "colour", 1..=1)?;
        list.object.check(path, "object", 1..=1)?;
        Ok(list)
    }
}

impl Ordinary {
    /// Reads both lists from a file.
    ///
    /// # Errors
    /// If the file cannot be read, is not TOML of this form, or is inconsistent.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        read(path, Self::parse)
    }

    /// Parses both lists; `path` is for error messages.
    ///
    /// # Errors
    /// As [`Ordinary::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, DataError> {
        let list: Self = parse(text, path)?;
        list.ordinary.check(path, "ordinary", 0..=1)?;
        list.own.check(path, "own", 0..=1)?;
        let all = |parted: &Parted| [parted.train.clone(), parted.held_out.clone()].concat();
        check_parted(path, "own", &all(&list.ordinary), &all(&list.own))?;
        Ok(list)
    }
}

impl Persona {
    /// Reads the topics from a file.
    ///
    /// # Errors
    /// As [`Wordings::read`].
    pub fn read(path: &Path) -> Result<Self, DataError> {
        read(path, Self::parse)
    }

    /// Parses the topics; `path` is for error messages.
    ///
    /// # Errors
    /// As [`Wordings::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, DataError> {
        let list: Self = parse(text, path)?;
        let all = |pick: fn(&Topic) -> &Vec<String>| -> Vec<String> {
            list.topic.iter().flat_map(pick).cloned().collect()
        };
        let (train, held_out) = (all(|t| &t.train), all(|t| &t.held_out));
        check_list(path, "train", &train, 0..=0)?;
        check_list(path, "held_out", &held_out, 0..=0)?;
        check_parted(path, "held_out", &train, &held_out)?;
        for topic in &list.topic {
            check_list(path, "answers", &topic.answers, 0..=0)?;
            check_list(path, "train", &topic.train, 0..=0)?;
        }
        Ok(list)
    }

    /// The questions used in training.
    pub fn questions(&self) -> impl Iterator<Item = &str> {
        self.topic.iter().flat_map(|t| &t.train).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "list.toml";

    fn message<T>(result: Result<T, DataError>) -> String {
        result.err().map_or(String::new(), |e| e.to_string())
    }

    #[test]
    fn wordings_have_one_hole_and_one_side() {
        let list = |train: &str, held_out: &str, other: &str| {
            let text = format!(
                "train=[{train}]\nheld_out=[{held_out}]\nother_train=[{other}]\nother_held_out=['no']"
            );
            Wordings::parse(&text, Path::new(AT))
        };
        assert!(list("'draw {}'", "'paint {}'", "'hi','what is {}?'").is_ok());
        for (train, held_out, other, needle) in [
            ("'draw'", "'paint {}'", "'hi'", "0 times {}"),
            ("'draw {} {}'", "'paint {}'", "'hi'", "2 times {}"),
            ("", "'paint {}'", "'hi'", "`train` is empty"),
            ("'draw {}','Draw {}.'", "'paint {}'", "'hi'", "there twice"),
            ("'draw {}'", "'Draw {}!'", "'hi'", "held out and trained on"),
            (
                "'draw {}'",
                "'paint {}'",
                "'No.'",
                "held out and trained on",
            ),
        ] {
            let found = message(list(train, held_out, other));
            assert!(found.contains(needle), "{needle}: {found}");
        }
        let extra =
            "train=['draw {}']\nheld_out=['{}']\nother_train=['a']\nother_held_out=['b']\nx=1";
        let found = message(Wordings::parse(extra, Path::new(AT)));
        assert!(found.contains("unknown field"), "{found}");
        assert!(Wordings::read(Path::new("/no/such/list.toml")).is_err());
    }

    #[test]
    fn synonyms_mean_one_thing() {
        let list = |dog: &str, cat: &str| {
            let text = format!("[synonyms]\ndog={{{dog}}}\ncat={{{cat}}}");
            Synonyms::parse(&text, Path::new(AT), &["dog", "cat"])
        };
        let cat = "train=['kitty'],held_out=['kitten']";
        assert!(list("train=['hound'],held_out=['puppy']", cat).is_ok());
        let found = message(list("train=['kitten'],held_out=['puppy']", cat));
        assert!(found.contains("means something else too"), "{found}");
        let found = message(list("train=['cat'],held_out=['puppy']", cat));
        assert!(found.contains("means something else too"), "{found}");
        let found = message(list("train=['puppy'],held_out=['puppy']", cat));
        assert!(found.contains("held out and trained on"), "{found}");
        let text = "[synonyms]\ncow={train=['a'],held_out=['b']}";
        let found = message(Synonyms::parse(text, Path::new(AT), &["dog"]));
        assert!(found.contains("nothing that is drawn"), "{found}");
    }

    #[test]
    fn shipped_lists_keep_their_promises() {
        let text = include_str!("../../../../../configs/data/smol-requests.toml");
        let wordings = Wordings::parse(text, Path::new(AT)).expect("valid");
        assert!(wordings.train.len() >= 100 && wordings.held_out.len() == 200);
        assert!(wordings.other_train.len() >= 100 && wordings.other_held_out.len() == 300);
        let text = include_str!("../../../../../configs/data/smol-changes.toml");
        let changes = Changes::parse(text, Path::new(AT)).expect("valid");
        assert!(changes.colour.train.len() >= 20 && changes.object.held_out.len() == 10);
        let text = include_str!("../../../../../configs/data/smol-persona.toml");
        let persona = Persona::parse(text, Path::new(AT)).expect("valid");
        // Paraphrases of three questions: who it is, whether it sees, whether it draws.
        assert!(persona.topic[..3].iter().all(|t| t.held_out.len() == 10));
        let text = include_str!("../../../../../configs/data/smol-ordinary.toml");
        let list = Ordinary::parse(text, Path::new(AT)).expect("valid");
        assert!(list.ordinary.train.len() >= 200 && list.own.held_out.len() >= 30);
        let pairs = persona
            .topic
            .iter()
            .map(|t| t.train.len() * t.answers.len());
        assert!(pairs.sum::<usize>() >= 300);
    }

    #[test]
    fn what_is_ordinary_is_nothing_else() {
        let list = |ordinary: &str, own: &str| {
            let text = format!(
                "[ordinary]\ntrain=['what is {{}}?']\nheld_out=[{ordinary}]\n[own]\ntrain=['hi']\nheld_out=[{own}]"
            );
            message(Ordinary::parse(&text, Path::new(AT)))
        };
        assert_eq!(list("'why?'", "'hello'"), "");
        assert!(list("'What is {}'", "'hello'").contains("trained on"));
        assert!(list("'why?'", "'Why'").contains("trained on"));
        assert!(list("'why?'", "").contains("is empty"));
    }

    #[test]
    fn questions_have_one_side() {
        let list = |train: &str, held_out: &str| {
            let text = format!("[[topic]]\ntrain=[{train}]\nheld_out=[{held_out}]\nanswers=['a']");
            message(Persona::parse(&text, Path::new(AT)))
        };
        assert_eq!(list("'who are you?'", "'what are you?'"), "");
        assert!(list("'who are you?'", "'Who are you'").contains("trained on"));
        assert!(list("'who are you?'", "").contains("is empty"));
    }
}
