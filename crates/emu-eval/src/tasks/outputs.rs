//! The files that every evaluation ends in.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::error::EvalError;
use super::files::{write_file, write_json};
use super::model::Media;
use super::question::Question;
use super::report::{Thumbnail, report};
use super::result::TaskResult;
use super::run::{Answer, Given};

/// Writes `result.json`, `scores.jsonl`, `report.md` and `report.html` into a folder, and returns their paths. `per_answer` are
/// the scores of the answers in the main metric.
pub(super) fn write(
    result: &TaskResult,
    questions: &[Question],
    answers: &[Answer],
    per_answer: &[Option<f64>],
    out: &Path,
    thumbnail: &mut dyn FnMut(&Media) -> Option<Thumbnail>,
) -> Result<Vec<PathBuf>, EvalError> {
    let report = report(questions, answers, per_answer, result, out, thumbnail);
    let paths =
        ["result.json", "scores.jsonl", "report.md", "report.html"].map(|name| out.join(name));
    let [json, scores, markdown, html] = &paths;
    write_json(json, result, true)?;
    write_file(scores, lines(questions, answers, per_answer).as_bytes())?;
    write_file(markdown, report.markdown.as_bytes())?;
    write_file(html, report.html.as_bytes())?;
    Ok(paths.into())
}

/// A line of JSON for each answer: id, answer and score in the main metric.
fn lines(questions: &[Question], answers: &[Answer], per_answer: &[Option<f64>]) -> String {
    let mut text = String::new();
    for (answer, score) in answers.iter().zip(per_answer) {
        let Some(question) = questions.get(answer.question) else {
            continue;
        };
        let given = match &answer.given {
            Given::Text { answer, .. } => json!(answer),
            Given::Scores(_) | Given::Nothing(_) => json!(null),
        };
        text.push_str(&json!({"id": question.id, "answer": given, "score": score}).to_string());
        text.push('\n');
    }
    text
}
