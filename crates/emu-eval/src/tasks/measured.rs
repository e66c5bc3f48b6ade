//! A result from what a caller measured on this project's own splits: the same schema and reports as for the official tasks.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde_json::Value;

use super::error::EvalError;
use super::evaluate::Evaluated;
use super::figure::Figure;
use super::model::Media;
use super::outputs;
use super::problems::{ProblemKind, Problems};
use super::question::{Question, Truth};
use super::report::Thumbnail;
use super::result::{Counted, FORMAT, Interval, Metric, TaskResult};
use super::run::{Answer, Given};
use super::scoring::{LEVEL, ScoreOptions};
use crate::score::ScoreError;
use crate::score::bootstrap::Bootstrap;

/// Stands for a preset: the prompts are those that the model was trained with.
const PRESET: &str = "training prompts";
/// Begins the kinds of answers that are captions.
const CAPTION: &str = "caption";
/// Begins the kinds that are about the data's own pictures, not about the model's.
const DATA: &str = "data.";

/// How much of an answer is right, as one kind of answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The kind, such as `name.alone`.
    pub kind: String,
    /// Right parts: of an answer that is right or wrong, 1 or 0.
    pub right: usize,
    /// All parts.
    pub total: usize,
}

/// An answer that was compared with the data.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Unique: the number of the sample, and of its question where it has several.
    pub id: String,
    /// Number of the sample in its split.
    pub sample: usize,
    /// What the report shows beside it. The callback `thumbnail` gets it back.
    pub media: Option<Media>,
    /// What was asked; empty for captions.
    pub question: String,
    /// The right answer.
    pub wanted: String,
    /// The model's answer.
    pub given: String,
    /// What it counts for. The first is the score of the item.
    pub tallies: Vec<Tally>,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The figure.
    pub figure: Figure,
    /// Name of the split, such as `t3`.
    pub split: String,
    /// Name and version of the model.
    pub model: String,
    /// Settings that led to the answers.
    pub settings: Value,
    /// Samples of the split, faulty ones included.
    pub samples: usize,
    /// Samples that could not be read, by name.
    pub bad: Vec<String>,
    /// Samples that were to be used: all, or as many as the limit allows.
    pub asked: usize,
    /// Answers, in order.
    pub items: Vec<Item>,
    /// What to know about the numbers.
    pub notes: Vec<String>,
}

/// The result of a measurement. Metrics are percentages; the interval resamples items.
///
/// # Errors
/// If there are no items.
pub fn measured(
    measurement: &Measurement,
    options: &ScoreOptions,
) -> Result<TaskResult, EvalError> {
    let figure = measurement.figure;
    let metrics = metrics(measurement, options).map_err(|error| EvalError::Scores {
        task: figure.name(),
        reason: error.to_string(),
    })?;
    let mut problems = Problems::default();
    for name in &measurement.bad {
        problems.note(ProblemKind::Unreadable, name);
    }
    let used: HashSet<usize> = measurement.items.iter().map(|item| item.sample).collect();
    let questions = Counted {
        official: measurement.samples,
        usable: measurement.samples.saturating_sub(measurement.bad.len()),
        asked: measurement.asked,
        answered: used.len(),
        scored: used.len(),
    };
    Ok(TaskResult {
        format: FORMAT,
        task: figure.into(),
        split: measurement.split.clone(),
        model: measurement.model.clone(),
        preset: PRESET.to_owned(),
        settings: measurement.settings.clone(),
        questions,
        complete: questions.scored == questions.official,
        metrics,
        groups: vec![],
        problems,
        published: vec![],
        paper_metric: None,
        notes: measurement.notes.clone(),
    })
}

/// Writes a measurement into `out` as [`evaluate`](super::evaluate) writes a task: `result.json`, `scores.jsonl`, `report.md` and
/// `report.html`.
///
/// # Errors
/// As [`measured`], or if a file cannot be written.
pub fn record(
    measurement: &Measurement,
    options: &ScoreOptions,
    out: &Path,
    thumbnail: &mut dyn FnMut(&Media) -> Option<Thumbnail>,
) -> Result<Evaluated, EvalError> {
    let result = measured(measurement, options)?;
    let (mut questions, mut answers, mut per_answer) = (vec![], vec![], vec![]);
    for (at, item) in measurement.items.iter().enumerate() {
        let mut question = Question::new(
            item.id.clone(),
            item.media.iter().cloned().collect(),
            item.question.clone(),
            Truth::Exact(vec![item.wanted.clone()]),
        );
        let kinds = item
            .tallies
            .iter()
            .map(|tally| ("kind", tally.kind.clone()));
        question.groups.extend(kinds);
        questions.push(question);
        answers.push(Answer {
            question: at,
            given: Given::Text {
                raw: item.given.clone(),
                answer: item.given.clone(),
            },
            caption: None,
            examples: vec![],
        });
        let score = item.tallies.first().filter(|tally| tally.total > 0);
        per_answer.push(score.map(|tally| percent(tally.right, tally.total)));
    }
    let files = outputs::write(&result, &questions, &answers, &per_answer, out, thumbnail)?;
    Ok(Evaluated {
        result,
        submission: None,
        files,
    })
}

/// The share of each kind, the figure's main kind first and the others by name.
fn metrics(measurement: &Measurement, options: &ScoreOptions) -> Result<Vec<Metric>, ScoreError> {
    let main = measurement.figure.main();
    let mut kinds: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
    for item in &measurement.items {
        for tally in item.tallies.iter().filter(|tally| tally.total > 0) {
            let counts = (tally.right, tally.total);
            kinds.entry(&tally.kind).or_default().push(counts);
            if measurement.figure == Figure::Vqa && !tally.kind.starts_with(CAPTION) {
                kinds.entry(main).or_default().push(counts);
            }
        }
    }
    if kinds.is_empty() {
        return Err(ScoreError::Empty);
    }
    let mut metrics = vec![];
    for (kind, counts) in kinds {
        let share = |right: usize, total: usize| percent(right, total);
        let sum = |chosen: &mut dyn Iterator<Item = (usize, usize)>| {
            let (right, total) =
                chosen.fold((0, 0), |(r, t), (right, total)| (r + right, t + total));
            share(right, total)
        };
        let interval = match options.resamples > 0 && counts.len() > 1 {
            false => None,
            true => {
                let bootstrap = Bootstrap {
                    resamples: options.resamples,
                    level: LEVEL,
                    seed: options.seed,
                };
                let interval = bootstrap.interval(counts.len(), |chosen| {
                    sum(&mut chosen.iter().filter_map(|at| counts.get(*at).copied()))
                })?;
                Some(Interval {
                    low: interval.low,
                    high: interval.high,
                    level: LEVEL,
                })
            }
        };
        let metric = Metric {
            name: kind.to_owned(),
            value: sum(&mut counts.iter().copied()),
            interval,
            questions: counts.iter().map(|(_, total)| total).sum(),
            note: kind
                .starts_with(DATA)
                .then(|| "the data's own pictures: the upper bound".to_owned()),
        };
        match kind == main {
            true => metrics.insert(0, metric),
            false => metrics.push(metric),
        }
    }
    Ok(metrics)
}

fn percent(right: usize, total: usize) -> f64 {
    100.0 * right as f64 / total.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(sample: usize, n: usize, tallies: &[(&str, usize, usize)]) -> Item {
        Item {
            id: format!("{sample}:{n}"),
            sample,
            media: None,
            question: "what is it?".into(),
            wanted: "a kite".into(),
            given: if tallies[0].1 > 0 { "a kite" } else { "a boat" }.into(),
            tallies: tallies
                .iter()
                .map(|(kind, right, total)| Tally {
                    kind: (*kind).to_owned(),
                    right: *right,
                    total: *total,
                })
                .collect(),
        }
    }

    fn measurement(figure: Figure, items: Vec<Item>) -> Measurement {
        Measurement {
            figure,
            split: "t3".into(),
            model: "fake".into(),
            settings: serde_json::json!({"limit": 4}),
            samples: 10,
            bad: vec!["scenes-00000.tar: 000007".into()],
            asked: 4,
            items,
            notes: vec![],
        }
    }

    const OPTIONS: ScoreOptions = ScoreOptions {
        resamples: 100,
        seed: 1,
    };

    #[test]
    fn each_kind_is_a_metric_and_the_main_one_is_first() {
        let items = vec![
            item(0, 0, &[("caption", 1, 1), ("caption.objects", 1, 1)]),
            item(0, 1, &[("yesno", 1, 1)]),
            item(1, 0, &[("caption", 0, 1)]),
            item(1, 1, &[("count", 0, 1)]),
            item(1, 2, &[("yesno", 1, 1)]),
        ];
        let result = measured(&measurement(Figure::Vqa, items.clone()), &OPTIONS).expect("result");
        let found: Vec<_> = { result.metrics.iter() }
            .map(|metric| (metric.name.as_str(), metric.value, metric.questions))
            .collect();
        assert_eq!(
            found,
            [
                ("answers", 200.0 / 3.0, 3),
                ("caption", 50.0, 2),
                ("caption.objects", 100.0, 1),
                ("count", 0.0, 1),
                ("yesno", 100.0, 2),
            ]
        );
        let interval = result.metrics[1].interval.expect("interval");
        assert!(
            (interval.low, interval.high) == (0.0, 100.0),
            "{interval:?}"
        );
        assert!(result.metrics[3].interval.is_none(), "one answer");
        let counted = result.questions;
        assert_eq!(
            (
                counted.official,
                counted.usable,
                counted.asked,
                counted.scored
            ),
            (10, 9, 4, 2)
        );
        assert!(!result.complete);
        assert_eq!(result.problems.count(ProblemKind::Unreadable), 1);
        let result = measured(&measurement(Figure::Caption, items), &OPTIONS).expect("result");
        assert_eq!(result.metrics[0].name, "caption");
        assert!(result.metrics.iter().all(|metric| metric.name != "answers"));
    }

    #[test]
    fn parts_of_an_item_are_weighted_and_resampled_together() {
        // 90 of 100 positions in one scene, 0 of 10 in another.
        let items = vec![
            item(0, 0, &[("all", 90, 100)]),
            item(1, 0, &[("all", 0, 10)]),
        ];
        let result = measured(&measurement(Figure::Agree, items), &OPTIONS).expect("result");
        let metric = &result.metrics[0];
        assert!((metric.value - 100.0 * 90.0 / 110.0).abs() < 1e-9);
        assert_eq!(metric.questions, 110);
        let interval = metric.interval.expect("interval");
        assert_eq!((interval.low, interval.high), (0.0, 90.0));
    }

    #[test]
    fn nothing_measured_is_an_error() {
        let error = measured(&measurement(Figure::Draw, vec![]), &OPTIONS)
            .expect_err("nothing")
            .to_string();
        assert!(
            error.contains("draw") && error.contains("nothing to score"),
            "{error}"
        );
    }

    #[test]
    fn a_measurement_ends_in_the_files_of_a_task() {
        let folder = tempfile::tempdir().expect("folder");
        let mut items = vec![
            item(0, 0, &[("few", 1, 1), ("few.name", 1, 1)]),
            item(0, 1, &[("zero", 0, 1), ("zero.name", 0, 1)]),
        ];
        items[0].media = Some(Media {
            kind: super::super::MediaKind::Picture,
            name: "000000".into(),
            path: "000000".into(),
        });
        let mut asked = vec![];
        let mut thumbnail = |media: &Media| {
            asked.push(media.name.clone());
            Some(Thumbnail {
                mime: "image/png",
                bytes: vec![1, 2, 3],
            })
        };
        let done = record(
            &measurement(Figure::Fewshot, items),
            &OPTIONS,
            folder.path(),
            &mut thumbnail,
        )
        .expect("recorded");
        assert_eq!(asked, ["000000"]);
        assert!(done.submission.is_none());
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
        let again: TaskResult = serde_json::from_str(&read("result.json")).expect("schema");
        assert_eq!(again.task, Figure::Fewshot.into());
        assert_eq!(again.metrics[0].name, "few");
        let lines: Vec<Value> = read("scores.jsonl")
            .lines()
            .map(|line| serde_json::from_str(line).expect("line"))
            .collect();
        assert_eq!(lines[1]["score"], 0.0);
        assert_eq!(lines[1]["answer"], "a boat");
        let markdown = read("report.md");
        assert!(markdown.contains("Few-shot completion (t3)"), "{markdown}");
        assert!(
            markdown.contains("1 of 10 samples were scored"),
            "{markdown}"
        );
        assert!(read("report.html").contains("data:image/png;base64,AQID"));
    }
}
