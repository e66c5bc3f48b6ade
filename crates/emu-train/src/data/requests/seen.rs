//! Questions and answers about a picture spelled in words.

use std::path::Path;

use emu_data::emoji::plural_of;
use emu_model::spelling::article;
use serde::Deserialize;

use super::super::DataError;
use super::super::rng::Rng;
use super::lists::{parse, read};

/// The list of questions (`configs/data/smol-seen.toml`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Spelling of a picture, which precedes the question.
    pub picture: String,
    /// Kinds of questions.
    pub kind: Vec<Kind>,
    /// Whole conversations about earlier turns or pictures.
    #[serde(default)]
    pub talk: Vec<Talk>,
    /// Names of people in those conversations.
    #[serde(default)]
    pub people: Vec<String>,
}

/// A conversation that is trained on as it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Talk {
    /// User turns with their answers.
    pub turns: Vec<(String, String)>,
}

/// Questions with the same answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// Spelling of the picture for this kind, if it differs.
    #[serde(default)]
    pub picture: Option<String>,
    /// Names of the objects for this kind, if they differ: at least two.
    #[serde(default)]
    pub names: Option<Vec<String>>,
    /// Questions used in training.
    pub train: Vec<String>,
    /// Questions never used in training.
    pub held_out: Vec<String>,
    /// Answers.
    pub answers: Vec<String>,
}

/// Possible contents of a picture.
#[derive(Clone, Copy, Debug)]
pub struct Shows<'a> {
    /// Names of objects, at least two.
    pub names: &'a [String],
    /// Background colours, at least two.
    pub colours: &'a [String],
}

impl Seen {
    /// Reads a list.
    ///
    /// # Errors
    /// If the file cannot be read, is not such a list, or has a kind without questions or answers, or an unknown
    /// placeholder.
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
        if self.talk.iter().any(|talk| talk.turns.is_empty()) {
            return refuse("a talk has no turns".into());
        }
        if self.people.is_empty() && !self.talk.is_empty() {
            return refuse("it has talks, but no people".into());
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
            unknown_place(texts.chain(&kind.picture)).map_or(Ok(()), refuse)?;
        }
        let turns = self.talk.iter().flat_map(|talk| &talk.turns);
        unknown_place(turns.flat_map(|(said, answer)| [said, answer])).map_or(Ok(()), refuse)?;
        Ok(())
    }

    /// Exchange `index` of a seed: up to `turns` questions with answers about one picture, which is spelled before the
    /// first.
    pub fn exchange(
        &self,
        shows: Shows<'_>,
        held_out: bool,
        turns: usize,
        (seed, index): (u64, u64),
    ) -> Vec<(String, String)> {
        let stream = if held_out { "seen-held-out" } else { "seen" };
        let random = &mut Rng::new(seed, stream, index);
        let kind = &self.kind[random.below(self.kind.len())];
        let words = self.words(shows, kind.names.as_deref(), random);
        let mut ask = |kind: &Kind| {
            let questions = if held_out {
                &kind.held_out
            } else {
                &kind.train
            };
            let question = &questions[random.below(questions.len())];
            let answer = &kind.answers[random.below(kind.answers.len())];
            (fill(question, &words), fill(answer, &words))
        };
        let (question, answer) = ask(kind);
        let picture = kind.picture.as_ref().unwrap_or(&self.picture);
        let mut exchange = vec![(fill(picture, &words) + &question, answer)];
        // Kinds of questions that fit the same picture.
        let same = |other: &&Kind| other.picture == kind.picture && other.names == kind.names;
        let same: Vec<&Kind> = self.kind.iter().filter(same).collect();
        for turn in 1..turns {
            let at = Rng::new(seed, stream, index ^ ((turn as u64) << 32)).below(same.len());
            exchange.push(ask(same[at]));
        }
        exchange
    }

    /// Conversation `index` of a seed; empty if the list has none.
    pub fn talk(&self, shows: Shows<'_>, (seed, index): (u64, u64)) -> Vec<(String, String)> {
        let random = &mut Rng::new(seed, "talk", index);
        let Some(talk) = random.choose(&self.talk) else {
            return vec![];
        };
        let words = self.words(shows, None, random);
        let turns = talk.turns.iter();
        turns
            .map(|(said, answer)| (fill(said, &words), fill(answer, &words)))
            .collect()
    }

    /// Random values for the placeholders of a text.
    fn words(&self, shows: Shows<'_>, names: Option<&[String]>, random: &mut Rng) -> Words {
        let mut some = |list: &[String], n: usize| -> Vec<String> {
            // Different ones, if the list is long enough.
            let first = random.below(list.len());
            let step = 1 + random.below((list.len() / n).max(1));
            (0..n)
                .map(|i| list[(first + i * step) % list.len()].clone())
                .collect()
        };
        let names = some(names.unwrap_or(shows.names), 4);
        let colours = some(shows.colours, 2);
        let mut words: Words = names.into_iter().chain(colours).collect();
        words.extend(random.choose(&self.people).cloned());
        words
    }
}

/// The first text with an unknown placeholder, as an error message.
fn unknown_place<'a>(texts: impl Iterator<Item = &'a String>) -> Option<String> {
    let words = vec!["n".to_owned(); PLACES.len()];
    let mut filled = texts.map(|text| (text, fill(text, &words)));
    let (text, _) = filled.find(|(_, filled)| filled.contains(['{', '}']))?;
    Some(format!("{text:?} has an unknown place in braces"))
}

/// Values in the order of [`PLACES`]. The last is missing if there are no names of people.
type Words = Vec<String>;

/// Placeholders in the order of their values.
const PLACES: [&str; 7] = [
    "name",
    "other",
    "third",
    "fourth",
    "colour",
    "other colour",
    "person",
];

/// Fills in the placeholders of a text.
fn fill(text: &str, words: &Words) -> String {
    let mut text = text.to_owned();
    for (place, word) in PLACES.into_iter().zip(words) {
        for (place, word) in [
            (place.to_owned(), word.clone()),
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
            let asked = list.exchange(shows, false, 2, (1, index));
            let [(question, answer), (again, same)] = &asked[..] else {
                panic!("{asked:?}");
            };
            // The picture precedes the first question only, and both questions are about it.
            assert!(question.ends_with(again), "{asked:?}");
            assert_eq!(answer, same);
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
            let [(question, _)] = &list.exchange(shows, true, 1, (1, index))[..] else {
                panic!("one question");
            };
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
    fn talks_are_filled_with_one_picture_and_one_person() {
        let text = format!(
            "people = ['Ann', 'Bo']\n{LIST}[[talk]]\nturns = [['I am {{person}}. Draw {{a name}}', '{{A name}}, {{person}}'], ['Who?', '{{person}}']]\n"
        );
        let list: Seen = parse(&text, Path::new("x")).expect("a list");
        list.check(Path::new("x")).expect("a sound list");
        let [names, colours] = [["owl", "dog"], ["orange", "red"]].map(|l| l.map(String::from));
        let shows = Shows {
            names: &names,
            colours: &colours,
        };
        let mut people = std::collections::BTreeSet::new();
        for index in 0..20 {
            let talk = list.talk(shows, (1, index));
            let person = talk[1].1.clone();
            assert!(talk[0].0.contains(&person) && talk[0].1.ends_with(&person));
            let thing = ["an owl", "a dog"]
                .into_iter()
                .find(|t| talk[0].0.ends_with(t));
            let thing = thing.expect("a thing").to_uppercase();
            assert!(talk[0].1.to_uppercase().starts_with(&thing), "{talk:?}");
            people.insert(person);
        }
        assert_eq!(people.len(), 2);
        let none: Seen = parse(LIST, Path::new("x")).expect("a list");
        assert_eq!(none.talk(shows, (1, 0)), []);
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
        let talk = |more: &str| error(&format!("{LIST}{more}"));
        assert!(talk("[[talk]]\nturns = []").contains("no turns"));
        assert!(talk("[[talk]]\nturns = [['a', 'b']]").contains("no people"));
    }

    #[test]
    fn the_projects_list_is_sound() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let list = Seen::read(root.join("configs/data/smol-seen.toml")).expect("a list");
        for kind in &list.kind {
            assert!(kind.held_out.iter().all(|q| !kind.train.contains(q)));
        }
        // Every spelling of a drawing is one of the recipe's.
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
