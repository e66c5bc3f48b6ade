//! Files for the official scorers and servers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::error::EvalError;
use super::files::write_json;
use super::run::{Answer, Given};
use super::{Question, Task, TaskData, Truth};
use crate::score::visdial;

/// A written file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Where it is. The name begins with `partial-` if answers are missing.
    pub path: PathBuf,
    /// Questions of the official file that have no answer, so that a server would refuse or misjudge the file.
    pub missing: usize,
}

/// Writes the answers in the official format of the task; `None` if it has none.
///
/// # Errors
/// If the file cannot be written, or an id is not what the format needs.
pub fn submission(
    data: &TaskData,
    answers: &[Answer],
    folder: &Path,
) -> Result<Option<Submission>, EvalError> {
    let given: Vec<(&Question, &Given)> = answers
        .iter()
        .filter_map(|answer| Some((data.questions.get(answer.question)?, &answer.given)))
        .collect();
    let texts = given.iter().filter_map(|(question, given)| match given {
        Given::Text { answer, .. } => Some((*question, answer.as_str())),
        Given::Scores(_) | Given::Nothing(_) => None,
    });
    let task = data.task;
    let (name, value) = match task {
        Task::Coco | Task::Nocaps | Task::Flickr30k => {
            let entry = |(question, caption): (&Question, &str)| {
                Ok(json!({"image_id": integer(task, &question.id)?, "caption": caption}))
            };
            (
                "captions",
                Value::Array(texts.map(entry).collect::<Result<_, EvalError>>()?),
            )
        }
        Task::Vqav2 | Task::Okvqa => {
            let entry = |(question, answer): (&Question, &str)| {
                Ok(json!({"question_id": integer(task, &question.id)?, "answer": answer}))
            };
            (
                "results",
                Value::Array(texts.map(entry).collect::<Result<_, EvalError>>()?),
            )
        }
        Task::Vizwiz => {
            let entry = |(question, answer): (&Question, &str)| json!({"image": question.id, "answer": answer});
            ("results", Value::Array(texts.map(entry).collect()))
        }
        Task::Visdial => {
            let scored = given.iter().filter_map(|(question, given)| match given {
                Given::Scores(scores) => Some((*question, scores)),
                Given::Text { .. } | Given::Nothing(_) => None,
            });
            let entry = |(question, scores): (&Question, &Vec<f64>)| {
                let (image, round) = question.id.split_once(':').unwrap_or((&question.id, ""));
                Ok(json!({
                    "image_id": integer(task, image)?,
                    "round_id": integer(task, round)?,
                    "ranks": ranks(scores),
                }))
            };
            (
                "ranks",
                Value::Array(scored.map(entry).collect::<Result<_, EvalError>>()?),
            )
        }
        Task::Mmvet => {
            let entry =
                |(question, answer): (&Question, &str)| (question.id.clone(), json!(answer));
            ("predictions", Value::Object(texts.map(entry).collect()))
        }
        // The original scorer of NExT-OE: an object of videos with an object of question numbers.
        Task::Nextqa if !data.is_ranked() => {
            let mut videos: Map<String, Value> = Map::new();
            for (question, answer) in texts {
                let (video, qid) = question.id.rsplit_once('_').unwrap_or((&question.id, ""));
                videos.entry(video).or_insert_with(|| json!({}))[qid] = json!(answer);
            }
            ("results", Value::Object(videos))
        }
        Task::Nextqa => {
            let choice = |(question, given): &(&Question, &Given)| match (given, &question.truth) {
                (Given::Scores(scores), Truth::Candidate { index, .. }) => {
                    let best = ranks(scores).iter().position(|rank| *rank == 1)?;
                    Some((
                        question.id.clone(),
                        json!({"prediction": best, "answer": index}),
                    ))
                }
                _ => None,
            };
            (
                "results",
                Value::Object(given.iter().filter_map(choice).collect()),
            )
        }
        Task::Msvdqa | Task::Msrvttqa | Task::Easyvqa | Task::Own => return Ok(None),
    };
    let answered: HashMap<&str, ()> = given
        .iter()
        .filter(|(_, given)| !matches!(given, Given::Nothing(_)))
        .map(|(question, _)| (question.id.as_str(), ()))
        .collect();
    let missing = data
        .ids
        .iter()
        .filter(|id| !answered.contains_key(id.as_str()))
        .count();
    let partial = if missing == 0 { "" } else { "partial-" };
    let path = folder.join(format!(
        "{partial}{}-{}-{name}.json",
        task.name(),
        data.split
    ));
    write_json(&path, &value, false)?;
    Ok(Some(Submission { path, missing }))
}

/// The rank of each candidate, from 1, by falling score; of equal ones the first in the list has the better rank. Scores are
/// finite: [`super::run`] checks that.
pub fn ranks(scores: &[f64]) -> Vec<usize> {
    visdial::ranks(scores).unwrap_or_default()
}

fn integer(task: Task, id: &str) -> Result<i64, EvalError> {
    id.parse().map_err(|_| EvalError::Submission {
        task: task.name(),
        reason: format!("the id {id:?} is no whole number, as the official format needs. Use the official annotation file"),
    })
}
