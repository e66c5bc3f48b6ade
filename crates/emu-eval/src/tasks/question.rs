//! One question of a task, whatever file it comes from.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Picture or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MediaKind {
    /// A picture file.
    Picture,
    /// A video file, or a folder with its frames in the order of their names.
    Video,
}

/// A picture or video on disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Media {
    /// Picture or video.
    pub kind: MediaKind,
    /// Path relative to the data folder, with `/`: the same on every machine.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// One of the answers that people gave to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HumanAnswer {
    /// The text as it stands in the file.
    pub answer: String,
    /// yes, maybe or no, where the file has it.
    pub confidence: Option<String>,
}

/// What an answer is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Truth {
    /// Not in the file: the split is scored by a server.
    Hidden,
    /// Reference captions.
    Captions(Vec<String>),
    /// The answers of (usually ten) people.
    Answers {
        /// In the order of the file.
        answers: Vec<HumanAnswer>,
        /// The most common one, where the file names it.
        usual: Option<String>,
    },
    /// One of [`Question::candidates`].
    Candidate {
        /// Its index, from 0.
        index: usize,
        /// How well each candidate fits, from 0 to 1, for the rounds that people judged.
        relevance: Option<Vec<f64>>,
    },
    /// Texts of which one must be given exactly.
    Exact(Vec<String>),
    /// MM-Vet: elements joined by `<AND>`, alternatives by `<OR>`.
    Elements(String),
}

/// One question of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Unique in its split; as in the official file where that has one.
    pub id: String,
    /// What is shown.
    pub media: Vec<Media>,
    /// What is asked; empty for captions.
    pub text: String,
    /// Earlier rounds of a dialog: questions and answers.
    pub history: Vec<(String, String)>,
    /// Candidates to be ranked; empty if an answer is to be generated.
    pub candidates: Vec<Arc<str>>,
    /// What the answer is compared with.
    pub truth: Truth,
    /// Groups for which the score is also given: name of the grouping and group, e.g. `("answer type", "yes/no")`.
    pub groups: Vec<(&'static str, String)>,
}

/// Which of several human answers a few-shot example shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExampleAnswer {
    /// The first in the file, as OpenFlamingo.
    First,
    /// The most common; of equally common ones the first.
    MostCommon,
}

impl Question {
    /// A question without history, candidates and groups.
    pub(crate) fn new(id: String, media: Vec<Media>, text: String, truth: Truth) -> Self {
        Self {
            id,
            media,
            text,
            history: vec![],
            candidates: vec![],
            truth,
            groups: vec![],
        }
    }

    /// The answer that this question has as a few-shot example; `None` if it is not known.
    pub fn example_answer(&self, which: ExampleAnswer) -> Option<String> {
        match &self.truth {
            Truth::Hidden => None,
            Truth::Captions(texts) | Truth::Exact(texts) => texts.first().cloned(),
            Truth::Candidate { index, .. } => {
                self.candidates.get(*index).map(|text| text.to_string())
            }
            Truth::Elements(text) => {
                let first = text.split("<OR>").next().unwrap_or_default();
                Some(
                    first
                        .split("<AND>")
                        .map(str::trim)
                        .collect::<Vec<_>>()
                        .join(", "),
                )
            }
            Truth::Answers { answers, usual } => match (which, usual) {
                (ExampleAnswer::First, _) => answers.first().map(|first| first.answer.clone()),
                (ExampleAnswer::MostCommon, Some(usual)) => Some(usual.clone()),
                (ExampleAnswer::MostCommon, None) => most_common(answers),
            },
        }
    }
}

fn most_common(answers: &[HumanAnswer]) -> Option<String> {
    let count = |answer: &str| {
        answers
            .iter()
            .filter(|other| other.answer == answer)
            .count()
    };
    let mut best: Option<(usize, &str)> = None;
    for HumanAnswer { answer, .. } in answers {
        let n = count(answer);
        if best.is_none_or(|(most, _)| n > most) {
            best = Some((n, answer));
        }
    }
    best.map(|(_, answer)| answer.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people(answers: &[&str]) -> Vec<HumanAnswer> {
        let person = |answer: &&str| HumanAnswer {
            answer: (*answer).to_owned(),
            confidence: None,
        };
        answers.iter().map(person).collect()
    }

    fn asked(truth: Truth) -> Question {
        Question::new("1".into(), vec![], "what".into(), truth)
    }

    #[test]
    fn an_example_shows_the_first_or_the_most_common_answer() {
        let question = asked(Truth::Answers {
            answers: people(&["mauve", "teal", "teal", "mauve", "sand"]),
            usual: None,
        });
        assert_eq!(
            question.example_answer(ExampleAnswer::First).as_deref(),
            Some("mauve")
        );
        assert_eq!(
            question
                .example_answer(ExampleAnswer::MostCommon)
                .as_deref(),
            Some("mauve")
        );
        let question = asked(Truth::Answers {
            answers: people(&["mauve", "teal", "teal"]),
            usual: None,
        });
        assert_eq!(
            question
                .example_answer(ExampleAnswer::MostCommon)
                .as_deref(),
            Some("teal")
        );
        let question = asked(Truth::Answers {
            answers: people(&["mauve"]),
            usual: Some("teal".into()),
        });
        assert_eq!(
            question
                .example_answer(ExampleAnswer::MostCommon)
                .as_deref(),
            Some("teal")
        );
    }

    #[test]
    fn other_truths_have_examples_too() {
        assert_eq!(
            asked(Truth::Hidden).example_answer(ExampleAnswer::First),
            None
        );
        let elements = asked(Truth::Elements("two <AND> three <OR> five".into()));
        assert_eq!(
            elements.example_answer(ExampleAnswer::First).as_deref(),
            Some("two, three")
        );
        let mut dialog = asked(Truth::Candidate {
            index: 1,
            relevance: None,
        });
        dialog.candidates = vec!["no".into(), "yes".into()];
        assert_eq!(
            dialog.example_answer(ExampleAnswer::First).as_deref(),
            Some("yes")
        );
        dialog.truth = Truth::Candidate {
            index: 2,
            relevance: None,
        };
        assert_eq!(dialog.example_answer(ExampleAnswer::First), None);
    }
}
