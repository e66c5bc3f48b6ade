//! Questions about a picture that is spelled in words, with their answers.

use std::path::Path;

use emu_model::spelling::article;
use serde::Deserialize;

use super::super::DataError;
use super::super::emoji::plural_of;
use super::super::rng::Rng;
use super::lists::{parse, read};

/// The list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// How a picture is spelled, in front of the question.
    pub picture: String,
    /// Kinds of questions.
    pub kind: Vec<Kind>,
}

/// Questions that have the same answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// How a picture of this kind is spelled, where that differs.
    #[serde(default)]
    pub picture: Option<String>,
    /// What it shows, where that differs: at least two.
    #[serde(default)]
    pub names: Option<Vec<String>>,
    /// Questions that are trained on.
    pub train: Vec<String>,
    /// Questions that never are.
    pub held_out: Vec<String>,
    /// Answers.
    pub answers: Vec<String>,
}

/// What a picture may show.
#[derive(Clone, Copy, Debug)]
pub struct Shows<'a> {
    /// Things, at least two.
    pub names: &'a [String],
    /// Backgrounds, at least two.
    pub colours: &'a [String],
}

impl Seen {
    /// Reads a list.
    ///
    /// # Errors
    /// If the file cannot be read, is no such list, or has a kind without questions or answers, or an unknown place.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, DataError> {
        read(path.as_ref(), |text, path| {
            let list: Self = parse(text, path)?;
            list.check(path)?;
            Ok(list)
        })
    }

    fn check(&self, path: &Path) -> Result<(), DataError> {
        let refuse = |what: String| Err(DataError::malformed(path, what));
        if self.kind.is_empty() {
            return refuse("it has no kinds".into());
        }
        for kind in &self.kind {
            let lists = [&kind.train, &kind.held_out, &kind.answers];
            let few = kind.names.as_ref().is_some_and(|names| names.len() < 2);
            if few || lists.iter().any(|list| list.is_empty()) {
                return refuse(format!(
                    "a kind lacks questions, answers or names: {kind:?}"
                ));
            }
            let texts = lists.into_iter().flatten().chain([&self.picture]);
            let texts = texts.chain(&kind.picture);
            let filled = texts.map(|text| (text, fill(text, ["n"; PLACES.len()])));
            if let Some((text, _)) = { filled }.find(|(_, filled)| filled.contains(['{', '}'])) {
                return refuse(format!("{text:?} has an unknown place in braces"));
            }
        }
        Ok(())
    }

    /// Question `index` of a seed, the picture in front of it, and its answer.
    pub fn pair(
        &self,
        shows: Shows<'_>,
        held_out: bool,
        (seed, index): (u64, u64),
    ) -> (String, String) {
        let stream = if held_out { "seen-held-out" } else { "seen" };
        let random = &mut Rng::new(seed, stream, index);
        let kind = &self.kind[random.below(self.kind.len())];
        let questions = if held_out {
            &kind.held_out
        } else {
            &kind.train
        };
        let mut some = |list: &[String], n: usize| -> Vec<String> {
            // Different ones, as far as there are so many.
            let first = random.below(list.len());
            let step = 1 + random.below((list.len() / n).max(1));
            (0..n)
                .map(|i| list[(first + i * step) % list.len()].clone())
                .collect()
        };
        let names = some(kind.names.as_deref().unwrap_or(shows.names), 4);
        let colours = some(shows.colours, 2);
        let words = [
            &names[0],
            &names[1],
            &names[2],
            &names[3],
            &colours[0],
            &colours[1],
        ];
        let words = words.map(String::as_str);
        let question = &questions[random.below(questions.len())];
        let answer = &kind.answers[random.below(kind.answers.len())];
        (
            fill(kind.picture.as_ref().unwrap_or(&self.picture), words) + &fill(question, words),
            fill(answer, words),
        )
    }
}

/// Places in the order of the words that take them.
const PLACES: [&str; 6] = ["name", "other", "third", "fourth", "colour", "other colour"];

/// Fills the places of a text.
fn fill(text: &str, words: [&str; PLACES.len()]) -> String {
    let mut text = text.to_owned();
    for (place, word) in PLACES.into_iter().zip(words) {
        for (place, word) in [
            (place.to_owned(), word.to_owned()),
            (format!("a {place}"), format!("{} {word}", article(word))),
            (format!("{place}s"), plural_of(word)),
        ] {
            text = text.replace(&format!("{{{place}}}"), &word);
            text = text.replace(&format!("{{{}}}", capital(&place)), &capital(&word));
        }
    }
    text
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "picture = 'A {name} on {colour}. '\n[[kind]]\ntrain = ['{A name}?']\nheld_out = ['Is it {a other} on {other colour}?']\nanswers = ['{Name}, not {other}; {a colour} one']\n";

    #[test]
    fn places_are_filled() {
        let list: Seen = parse(LIST, Path::new("x")).expect("a list");
        list.check(Path::new("x")).expect("a sound list");
        let [names, colours] = [["owl", "dog"], ["orange", "red"]].map(|l| l.map(String::from));
        let shows = Shows {
            names: &names,
            colours: &colours,
        };
        for index in 0..20 {
            let (question, answer) = list.pair(shows, false, (1, index));
            let owl = question.starts_with("A owl on ");
            assert_eq!(question.ends_with("An owl?"), owl, "{question}");
            assert_eq!(question.ends_with("A dog?"), !owl, "{question}");
            let start = if owl {
                "Owl, not dog; "
            } else {
                "Dog, not owl; "
            };
            assert!(answer.starts_with(start), "{answer}");
            assert_eq!(
                question.contains("orange"),
                answer.ends_with("an orange one")
            );
            let (question, _) = list.pair(shows, true, (1, index));
            let other = if question.starts_with("A owl") {
                "a dog"
            } else {
                "an owl"
            };
            assert!(
                question.contains(&format!("Is it {other} on ")),
                "{question}"
            );
        }
    }

    #[test]
    fn lists_that_cannot_be_used_are_told() {
        let error = |text: &str| {
            let list: Seen = parse(text, Path::new("x")).expect("a list");
            list.check(Path::new("x")).expect_err(text).to_string()
        };
        assert!(error("picture = ''\nkind = []").contains("no kinds"));
        assert!(error(&LIST.replace("['{A name}?']", "[]")).contains("lacks questions"));
        assert!(error(&LIST.replace("{A name}", "{thing}")).contains("unknown place"));
    }

    #[test]
    fn the_projects_list_is_sound() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let list = Seen::read(root.join("configs/data/smol-seen.toml")).expect("a list");
        for kind in &list.kind {
            assert!(kind.held_out.iter().all(|q| !kind.train.contains(q)));
        }
        // Every way to spell a drawing is one of the recipe's.
        let recipe =
            std::fs::read_to_string(root.join("configs/model/smol.toml")).expect("a recipe");
        let spelled = { list.kind.iter() }.filter_map(|kind| kind.picture.as_ref());
        for text in spelled.chain([&list.picture]) {
            let mut text = text.replace(" natural ", " {colour} ");
            for place in [
                "{name}",
                "{other}",
                "{third}",
                "{fourth}",
                "something unknown",
            ] {
                text = text.replace(&format!(" {place}"), "<image><image><image>");
            }
            let text = text.replace(" {colour}", "<image>");
            assert!(recipe.contains(&text), "{text}");
        }
    }
}
