//! Answers to questions: `vqa.json`, `vqa_contractions.json`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::compare::Comparison;
use super::layout::{Layout, parse};
use crate::score::clean::short_answer;
use crate::score::vqa::{self, CONTRACTIONS, Question, Variant};

/// Difference of accuracies of one question, in per cent: both are rounded to two decimals.
const QUESTION: f64 = 1e-9;
/// Difference of accuracies of a set, in per cent: Python 2 and 3 round halves differently.
const SET: f64 = 0.010_000_1;

#[derive(Deserialize)]
struct File {
    cases: Vec<Recorded>,
    #[serde(default)]
    cases_without_answer_id: Vec<Recorded>,
    #[serde(default)]
    okvqa_cases: Vec<Recorded>,
    #[serde(default)]
    short_answer: Vec<Cleaned>,
    #[serde(default)]
    expected_set: BTreeMap<String, Set>,
    #[serde(default)]
    expected_set_okvqa_emu: Option<Set>,
}

#[derive(Deserialize)]
struct Recorded {
    question_id: u64,
    #[serde(flatten)]
    question: Question,
    expected: BTreeMap<String, Expected>,
}

/// What a program made of a prediction.
#[derive(Deserialize)]
struct Expected {
    normalized_punctuation: Option<String>,
    normalized: Option<String>,
    short_answer: Option<String>,
    accuracy: f64,
}

#[derive(Deserialize)]
struct Cleaned {
    input: String,
    expected: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Set {
    overall: f64,
    per_question_type: BTreeMap<String, f64>,
    per_answer_type: BTreeMap<String, f64>,
}

/// The name of a program in the file: its rules, and whether predictions are cut to short answers first.
fn program(name: &str, usual: Variant) -> Result<(Variant, bool), Layout> {
    match name {
        "official" => Ok((Variant::Official, false)),
        "emu" => Ok((Variant::Emu, false)),
        "okvqa_emu" => Ok((Variant::OkVqa, false)),
        "emu_after_short_answer" => Ok((usual, true)),
        other => Err(Layout(format!("there is no scorer {other:?}"))),
    }
}

/// Normal forms, accuracies, sets, and the clean-up of predictions.
pub fn accuracies(text: &str, comparison: &mut Comparison) -> Result<(), Layout> {
    let file: File = parse(text)?;
    for (cases, usual) in [
        (&file.cases, Variant::Emu),
        (&file.cases_without_answer_id, Variant::Emu),
        (&file.okvqa_cases, Variant::OkVqa),
    ] {
        for case in cases {
            one(case, usual, comparison)?;
        }
    }
    for (name, recorded) in &file.expected_set {
        let (variant, cut) = program(name, Variant::Emu)?;
        set(name, variant, cut, &file.cases, recorded, comparison)?;
    }
    if let Some(recorded) = &file.expected_set_okvqa_emu {
        set(
            "okvqa_emu",
            Variant::OkVqa,
            false,
            &file.okvqa_cases,
            recorded,
            comparison,
        )?;
    }
    for case in file.short_answer {
        comparison.equal(
            format!("short answer of {:?}", case.input),
            short_answer(&case.input),
            case.expected,
        );
    }
    Ok(())
}

fn one(case: &Recorded, usual: Variant, comparison: &mut Comparison) -> Result<(), Layout> {
    for (name, recorded) in &case.expected {
        let (variant, cut) = program(name, usual)?;
        let prediction = prediction(case, cut);
        let label = |what: &str| format!("{} {name} {what}", case.question_id);
        let normal = variant.normalize(&prediction);
        let accuracy = vqa::accuracy(variant, &prediction, &case.question.answers)
            .map_err(|error| Layout(format!("question {}: {error}", case.question_id)))?;
        for (what, found, recorded) in [
            ("marks", &normal.marks, &recorded.normalized_punctuation),
            ("normal form", &normal.text, &recorded.normalized),
            ("short answer", &prediction, &recorded.short_answer),
        ] {
            if let Some(recorded) = recorded {
                comparison.equal(label(what), found, recorded);
            }
        }
        let found = vqa::per_cent(&[accuracy]);
        comparison.absolute(label("accuracy"), found, recorded.accuracy, QUESTION);
    }
    Ok(())
}

fn prediction(case: &Recorded, cut: bool) -> String {
    let prediction = &case.question.prediction;
    if cut {
        short_answer(prediction)
    } else {
        prediction.clone()
    }
}

fn set(
    name: &str,
    variant: Variant,
    cut: bool,
    cases: &[Recorded],
    recorded: &Set,
    comparison: &mut Comparison,
) -> Result<(), Layout> {
    let questions: Vec<Question> = cases
        .iter()
        .map(|case| Question {
            prediction: prediction(case, cut),
            ..case.question.clone()
        })
        .collect();
    let found = vqa::score(variant, &questions).map_err(|error| Layout(error.to_string()))?;
    comparison.absolute(
        format!("{name} overall"),
        found.overall,
        recorded.overall,
        SET,
    );
    for (kind, found, recorded) in [
        (
            "questions",
            found.per_question_type,
            &recorded.per_question_type,
        ),
        ("answers", found.per_answer_type, &recorded.per_answer_type),
    ] {
        let kinds = |of: &BTreeMap<String, f64>| of.keys().cloned().collect::<Vec<_>>();
        comparison.equal(
            format!("{name} kinds of {kind}"),
            kinds(&found),
            kinds(recorded),
        );
        for (of, recorded) in recorded {
            let found = found.get(of).copied().unwrap_or(f64::NAN);
            comparison.absolute(format!("{name} {kind} {of:?}"), found, *recorded, SET);
        }
    }
    Ok(())
}

/// The table of contractions.
pub fn contractions(text: &str, comparison: &mut Comparison) -> Result<(), Layout> {
    #[derive(Deserialize)]
    struct File {
        lowercase_keys: BTreeMap<String, String>,
    }
    let recorded = parse::<File>(text)?.lowercase_keys;
    let found: BTreeMap<&str, &str> = CONTRACTIONS.iter().copied().collect();
    comparison.equal("number of contractions", found.len(), recorded.len());
    for (key, recorded) in &recorded {
        comparison.equal(
            format!("{key:?}"),
            found.get(key.as_str()).copied(),
            Some(recorded.as_str()),
        );
    }
    Ok(())
}
