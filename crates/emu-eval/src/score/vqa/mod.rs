//! VQA accuracy (Antol et al. 2015): an answer is right as far as people gave it too.
//!
//! Each of the ten people's answers in turn is left out, and an answer scores min(1, matches among the others / 3); the
//! accuracy is the mean. So k matches of ten give 0, 30, 60, 90, 100 per cent.

mod normalize;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::score::error::ScoreError;
use crate::score::python::{round2, strip};
use normalize::Normalizer;
pub use normalize::{CONTRACTIONS, Normalized};

/// Which program's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// The authors' program. Answers are normalized only if the ten differ, so `Yes` does not match ten `yes`.
    Official,
    /// The copy in Emu's released evaluation. The prediction is always normalized; from people's answers only marks and
    /// periods are removed, and only if they differ.
    Emu,
    /// Emu's rules for OK-VQA: as [`Variant::Emu`], with Porter's stem of the whole text on both sides.
    OkVqa,
    /// VizWiz: the prediction is normalized, people's answers are compared as they are. They are left out by position,
    /// because they have no ids.
    VizWiz,
}

/// A person's answer, with all fields of its record.
///
/// All variants but [`Variant::VizWiz`] leave out by record, as the original does: every answer whose record equals the one
/// that is left out is left out too. Records with an `answer_id` all differ; without it the accuracy is wrong.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The text.
    pub answer: String,
    /// The other fields, e.g. `answer_id` and `answer_confidence`.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A question with the model's and people's answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The model's answer.
    pub prediction: String,
    /// People's answers.
    pub answers: Vec<Answer>,
    /// Kind of the question, by its first words.
    #[serde(default)]
    pub question_type: String,
    /// Kind of the answer: `yes/no`, `number`, `other`.
    #[serde(default)]
    pub answer_type: String,
}

/// Accuracies of a set in per cent, rounded to two decimals as the original prints them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accuracies {
    /// Mean of all questions.
    pub overall: f64,
    /// Mean of each kind of question.
    pub per_question_type: BTreeMap<String, f64>,
    /// Mean of each kind of answer.
    pub per_answer_type: BTreeMap<String, f64>,
    /// Accuracy of each question, as a fraction, not rounded, in the order of the input.
    pub questions: Vec<f64>,
}

impl Variant {
    /// The normal form of a prediction, and the step before it.
    pub fn normalize(self, prediction: &str) -> Normalized {
        self.normalizer().all(&clean_blanks(prediction))
    }

    fn normalizer(self) -> Normalizer {
        Normalizer {
            python2: self == Variant::Official,
            stem: self == Variant::OkVqa,
        }
    }
}

/// The accuracy of a prediction, between 0 and 1.
///
/// # Errors
/// No answers.
pub fn accuracy(variant: Variant, prediction: &str, answers: &[Answer]) -> Result<f64, ScoreError> {
    if answers.is_empty() {
        return Err(ScoreError::NoReference { item: 0 });
    }
    let normalizer = variant.normalizer();
    let mut prediction = clean_blanks(prediction);
    let mut answers = answers.to_vec();
    if variant == Variant::Official {
        for answer in &mut answers {
            answer.answer = clean_blanks(&answer.answer);
        }
    }
    let differ = answers
        .iter()
        .any(|answer| answer.answer != answers[0].answer);
    if variant != Variant::Official || differ {
        prediction = normalizer.all(&prediction).text;
    }
    if differ && variant != Variant::VizWiz {
        for answer in &mut answers {
            answer.answer = match variant {
                Variant::Official => normalizer.all(&answer.answer).text,
                _ => normalizer.marks(&answer.answer),
            };
        }
    }
    let share = |position: usize, left_out: &Answer| {
        let others = answers
            .iter()
            .enumerate()
            .filter(|(other, answer)| match variant {
                Variant::VizWiz => *other != position,
                _ => *answer != left_out,
            });
        let matches = others
            .filter(|(_, answer)| answer.answer == prediction)
            .count();
        (matches as f64 / 3.0).min(1.0)
    };
    let shares = answers
        .iter()
        .enumerate()
        .map(|(position, answer)| share(position, answer));
    Ok(shares.sum::<f64>() / answers.len() as f64)
}

/// The accuracies of a set of questions.
///
/// # Errors
/// No questions, or a question without answers.
pub fn score(variant: Variant, questions: &[Question]) -> Result<Accuracies, ScoreError> {
    if questions.is_empty() {
        return Err(ScoreError::Empty);
    }
    let mut accuracies = Vec::with_capacity(questions.len());
    for (item, question) in questions.iter().enumerate() {
        let found = accuracy(variant, &question.prediction, &question.answers);
        accuracies.push(found.map_err(|_| ScoreError::NoReference { item })?);
    }
    let per = |kind: fn(&Question) -> &str| {
        let mut groups: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (question, accuracy) in questions.iter().zip(&accuracies) {
            groups
                .entry(kind(question).to_string())
                .or_default()
                .push(*accuracy);
        }
        groups
            .into_iter()
            .map(|(kind, of)| (kind, per_cent(&of)))
            .collect()
    };
    Ok(Accuracies {
        overall: per_cent(&accuracies),
        per_question_type: per(|question| &question.question_type),
        per_answer_type: per(|question| &question.answer_type),
        questions: accuracies,
    })
}

/// The mean of fractions in per cent, rounded to two decimals; NaN of none.
pub fn per_cent(fractions: &[f64]) -> f64 {
    round2(100.0 * fractions.iter().sum::<f64>() / fractions.len() as f64)
}

fn clean_blanks(text: &str) -> String {
    strip(&text.replace(['\n', '\t'], " ")).to_string()
}

#[cfg(test)]
mod tests;
