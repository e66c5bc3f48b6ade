//! Readers of the official files. Each gives the questions of a split with their references; faulty records are left
//! out, named and counted. A file that cannot be read at all is an error.

mod captions;
mod mmvet;
mod own;
mod video;
mod visdial;
mod vizwiz;
mod vqa;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use serde::{Deserialize, Deserializer};

pub use captions::{coco, flickr30k, nocaps};
pub use mmvet::mmvet;
pub use own::{easy_vqa, own};
pub use video::{msrvttqa, msvdqa, nextqa};
pub use visdial::{Rounds, visdial};
pub use vizwiz::vizwiz;
pub use vqa::{okvqa, vqav2};

use super::problems::{ProblemKind, Problems};
use super::question::{HumanAnswer, Media, Question};

/// What a reader returns.
#[derive(Debug, Default)]
pub struct Split {
    /// Usable questions, in the order of the file.
    pub questions: Vec<Question>,
    /// Ids of all questions of the file, usable or not: what an official submission must contain.
    pub ids: Vec<String>,
    /// Faulty records.
    pub problems: Problems,
}

/// An id, which files spell as a number or as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Id(String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelling {
            Number(i64),
            Text(String),
        }
        Ok(match Spelling::deserialize(deserializer)? {
            Spelling::Number(number) => Self(number.to_string()),
            Spelling::Text(text) => Self(text),
        })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Captions or answers in LAVIS' lists: one text or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<Option<String>>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<Option<String>> {
        match self {
            Self::One(one) => vec![Some(one)],
            Self::Many(many) => many,
        }
    }
}

/// The number at the end of a file name's stem, without leading zeros: the picture's id in COCO and Flickr30K.
fn trailing_number(name: &str) -> Option<String> {
    let file = name.rsplit(['/', '\\']).next()?;
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let digits = stem.len() - stem.bytes().rev().take_while(u8::is_ascii_digit).count();
    let number = stem.get(digits..)?;
    let number = match number.trim_start_matches('0') {
        "" if number.is_empty() => return None,
        "" => "0",
        trimmed => trimmed,
    };
    Some(number.to_owned())
}

/// Text of a field that must not be null or blank; the fault is noted.
fn text(field: Option<&str>, record: &str, problems: &mut Problems) -> Option<String> {
    match field {
        None => problems.note(ProblemKind::Null, record),
        Some(text) if text.trim().is_empty() => problems.note(ProblemKind::Blank, record),
        Some(text) => return Some(text.to_owned()),
    }
    None
}

/// The answers of people; `None` if one of them is null, because fewer answers would give another accuracy.
fn people<'a>(
    answers: impl IntoIterator<Item = (Option<&'a str>, Option<&'a str>)>,
    record: &str,
    problems: &mut Problems,
) -> Option<Vec<HumanAnswer>> {
    let person = |(answer, confidence): (Option<&str>, Option<&str>)| {
        Some(HumanAnswer {
            answer: answer?.to_owned(),
            confidence: confidence.map(str::to_owned),
        })
    };
    let all: Option<Vec<_>> = answers.into_iter().map(person).collect();
    match all {
        None => problems.note(ProblemKind::Null, format!("{record}: an answer")),
        Some(all) if all.is_empty() => problems.note(ProblemKind::NoReference, record),
        Some(all) => return Some(all),
    }
    None
}

/// Records by id. A record that comes twice is kept once; of records that contradict each other none is kept.
struct Unique<T> {
    place: HashMap<String, usize>,
    records: Vec<Option<(String, T)>>,
}

impl<T: PartialEq> Unique<T> {
    fn new() -> Self {
        Self {
            place: HashMap::new(),
            records: vec![],
        }
    }

    fn add(&mut self, id: String, record: T, what: &str, problems: &mut Problems) {
        match self.place.entry(id) {
            Entry::Vacant(place) => {
                let id = place.key().clone();
                place.insert(self.records.len());
                self.records.push(Some((id, record)));
            }
            Entry::Occupied(place) => {
                let kept = &mut self.records[*place.get()];
                let same = kept.as_ref().is_some_and(|(_, kept)| *kept == record);
                let kind = if same {
                    ProblemKind::Duplicate
                } else {
                    ProblemKind::Conflict
                };
                problems.note(kind, format!("{what} {}", place.key()));
                if !same {
                    *kept = None;
                }
            }
        }
    }

    fn get(&self, id: &str) -> Option<&T> {
        let place = *self.place.get(id)?;
        self.records.get(place)?.as_ref().map(|(_, record)| record)
    }

    /// Whether the id occurs, be its records usable or not.
    fn has(&self, id: &str) -> bool {
        self.place.contains_key(id)
    }

    fn into_records(self) -> impl Iterator<Item = (String, T)> {
        self.records.into_iter().flatten()
    }
}

/// Assembles a split: detects repeated ids and missing media.
struct Collector {
    questions: Unique<Question>,
    ids: Unique<()>,
    problems: Problems,
}

impl Collector {
    fn new(problems: Problems) -> Self {
        Self {
            questions: Unique::new(),
            ids: Unique::new(),
            problems,
        }
    }

    /// Registers an id of the file, be its question usable or not.
    fn expect(&mut self, id: &str) {
        self.ids
            .add(id.to_owned(), (), "", &mut Problems::default());
    }

    /// Adds a question; `media` of `None` means that it was not found under the name `wanted`.
    fn add(
        &mut self,
        media: Option<Media>,
        wanted: &str,
        question: impl FnOnce(Vec<Media>) -> Question,
    ) {
        match media {
            None => {
                let id = question(vec![]).id;
                self.expect(&id);
                self.problems.note(
                    ProblemKind::MissingMedia,
                    format!("{wanted} (question {id})"),
                );
            }
            Some(media) => {
                let question = question(vec![media]);
                self.expect(&question.id);
                self.questions.add(
                    question.id.clone(),
                    question,
                    "question",
                    &mut self.problems,
                );
            }
        }
    }

    fn finish(self) -> Split {
        Split {
            questions: self
                .questions
                .into_records()
                .map(|(_, question)| question)
                .collect(),
            ids: self.ids.into_records().map(|(id, ())| id).collect(),
            problems: self.problems,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_number_of_a_file_name() {
        for (name, number) in [
            ("val2014/COCO_val2014_000000000101.jpg", Some("101")),
            ("flickr30k-images/1007129816.jpg", Some("1007129816")),
            ("000.png", Some("0")),
            ("a\\b_07", Some("7")),
            ("seven.jpg", None),
            ("", None),
        ] {
            assert_eq!(trailing_number(name).as_deref(), number, "{name}");
        }
    }

    #[test]
    fn contradicting_records_are_both_dropped_and_equal_ones_kept_once() {
        let mut problems = Problems::default();
        let mut unique = Unique::new();
        for (id, value) in [("a", 1), ("b", 2), ("a", 1), ("b", 3), ("b", 2)] {
            unique.add(id.into(), value, "record", &mut problems);
        }
        assert_eq!(unique.get("a"), Some(&1));
        assert_eq!(unique.get("b"), None);
        assert!(unique.has("b") && !unique.has("c"));
        assert_eq!(problems.count(ProblemKind::Duplicate), 1);
        assert_eq!(problems.count(ProblemKind::Conflict), 2);
        assert_eq!(
            unique.into_records().collect::<Vec<_>>(),
            [("a".to_owned(), 1)]
        );
    }

    proptest! {
        #[test]
        fn ids_are_numbers_or_texts(number in any::<i64>(), text in ".*") {
            let read = |json: serde_json::Value| serde_json::from_value::<Id>(json);
            prop_assert_eq!(read(number.into()).expect("number").0, number.to_string());
            prop_assert_eq!(read(text.clone().into()).expect("text").0, text);
            prop_assert!(read(serde_json::json!([number])).is_err());
            prop_assert!(read(serde_json::json!(0.5)).is_err());
        }

        #[test]
        fn any_name_is_survived(name in ".*") {
            if let Some(number) = trailing_number(&name) {
                prop_assert!(number.bytes().all(|digit| digit.is_ascii_digit()));
            }
        }
    }
}
