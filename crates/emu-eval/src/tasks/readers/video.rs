//! Questions about videos: MSVD-QA, MSRVTT-QA (original files and LAVIS'), NExT-QA (open and multiple choice).

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use super::{Collector, Id, Split, text};
use crate::tasks::error::EvalError;
use crate::tasks::files::{Folder, read_json, read_text};
use crate::tasks::problems::{ProblemKind, Problems};
use crate::tasks::question::{Question, Truth};
use crate::tasks::table::Table;

#[derive(Deserialize)]
struct Entry {
    #[serde(alias = "question_id")]
    id: Option<Id>,
    #[serde(alias = "video")]
    video_id: Option<Id>,
    question: Option<String>,
    answer: Option<String>,
}

/// MSVD-QA. Clips are `vidN` or, by `youtube_mapping.txt`, carry their name on YouTube.
pub fn msvdqa(folder: &Folder, split: &str) -> Result<Split, EvalError> {
    let mut named = HashMap::new();
    if let Some(path) = folder.optional(&["youtube_mapping.txt"]) {
        const WHAT: &str = "the mapping of MSVD's clips (a name and vidN in each line)";
        for (i, line) in read_text(&path, WHAT)?.lines().enumerate() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (None, ..) => {}
                (Some(name), Some(number), None) => {
                    named.insert(number.to_owned(), name.to_owned());
                }
                _ => {
                    let reason = format!("line {} does not have two words", i + 1);
                    return Err(EvalError::Layout {
                        path,
                        what: WHAT,
                        reason,
                    });
                }
            }
        }
    }
    read(folder, split, "questions of MSVD-QA", |video| {
        let short = match video.parse::<u64>() {
            Ok(number) => format!("vid{number}"),
            Err(_) => video.to_owned(),
        };
        named
            .get(&short)
            .cloned()
            .into_iter()
            .chain([short])
            .collect()
    })
}

/// MSRVTT-QA. Clips are `videoN`.
pub fn msrvttqa(folder: &Folder, split: &str) -> Result<Split, EvalError> {
    read(
        folder,
        split,
        "questions of MSRVTT-QA",
        |video| match video.parse::<u64>() {
            Ok(number) => vec![format!("video{number}")],
            Err(_) => vec![video.to_owned()],
        },
    )
}

fn read(
    folder: &Folder,
    split: &str,
    what: &'static str,
    names: impl Fn(&str) -> Vec<String>,
) -> Result<Split, EvalError> {
    let path = folder.file(
        what,
        &[&format!("{split}_qa.json"), &format!("qa_{split}.json")],
    )?;
    let entries: Vec<Entry> = read_json(&path, "a list of questions about videos")?;
    let mut collector = Collector::new(Problems::default());
    for (i, entry) in entries.into_iter().enumerate() {
        let Some(id) = entry.id.map(|id| id.0) else {
            collector
                .problems
                .note(ProblemKind::Null, format!("id of entry {i}"));
            continue;
        };
        collector.expect(&id);
        let record = format!("question {id}");
        let mut field = |value: Option<&str>| text(value, &record, &mut collector.problems);
        let (Some(video), Some(words), Some(answer)) = (
            field(entry.video_id.as_ref().map(|id| id.0.as_str())),
            field(entry.question.as_deref()),
            field(entry.answer.as_deref()),
        ) else {
            continue;
        };
        let files = names(&video);
        let wanted = files.first().cloned().unwrap_or_default();
        let truth = Truth::Exact(vec![answer]);
        collector.add(folder.video(&files), &wanted, |media| {
            let mut question = Question::new(id, media, words, truth);
            let first = question
                .text
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_lowercase();
            question.groups.push(("question word", first));
            question
        });
    }
    Ok(collector.finish())
}

/// NExT-QA: open questions, or multiple choice where the file has the columns `a0` to `a4`. The id is `VIDEO_QID`.
pub fn nextqa(folder: &Folder, split: &str) -> Result<Split, EvalError> {
    const WHAT: &str = "NExT-QA questions";
    let path = folder.file("questions of NExT-QA", &[&format!("{split}.csv")])?;
    let table = Table::read(&path, WHAT)?;
    for column in ["video", "question", "answer", "qid", "type"] {
        table.require(column, &path, WHAT)?;
    }
    let map: HashMap<String, Id> = match folder.optional(&["map_vid_vidorID.json"]) {
        Some(path) => read_json(&path, "the map of NExT-QA's videos")?,
        None => HashMap::new(),
    };
    let second_name = format!("add_reference_answer_{split}.json");
    let second: HashMap<String, HashMap<String, Option<String>>> =
        match folder.optional(&[&second_name]) {
            Some(path) => read_json(&path, "second answers of NExT-QA")?,
            None => HashMap::new(),
        };
    let choice = (0..)
        .map(|i| format!("a{i}"))
        .take_while(|name| table.has(name))
        .count();
    let mut collector = Collector::new(Problems::default());
    for (i, row) in table.rows().enumerate() {
        let line = format!("row {}", i + 2);
        let mut field = |name: &str| {
            text(
                row.get(name),
                &format!("{name} of {line}"),
                &mut collector.problems,
            )
        };
        let (Some(video), Some(qid)) = (field("video"), field("qid")) else {
            continue;
        };
        let (words, answer, kind) = (field("question"), field("answer"), field("type"));
        let id = format!("{video}_{qid}");
        collector.expect(&id);
        let (Some(words), Some(answer), Some(kind)) = (words, answer, kind) else {
            continue;
        };
        let mut candidates: Vec<Arc<str>> = vec![];
        for i in 0..choice {
            let name = format!("a{i}");
            candidates.extend(
                text(
                    row.get(&name),
                    &format!("{name} of {line}"),
                    &mut collector.problems,
                )
                .map(Arc::from),
            );
        }
        if candidates.len() < choice {
            continue;
        }
        let truth = if choice > 0 {
            match answer.parse() {
                Ok(index) if index < choice => Truth::Candidate {
                    index,
                    relevance: None,
                },
                _ => {
                    collector
                        .problems
                        .note(ProblemKind::BadIndex, format!("answer of {line}"));
                    continue;
                }
            }
        } else {
            let second = second
                .get(&video)
                .and_then(|answers| answers.get(&qid)?.clone());
            Truth::Exact(std::iter::once(answer).chain(second).collect())
        };
        let files: Vec<_> = map
            .get(&video)
            .map(|id| id.0.clone())
            .into_iter()
            .chain([video.clone()])
            .collect();
        collector.add(folder.video(&files), &files[0], |media| {
            let mut question = Question::new(id, media, words, truth);
            question.candidates = candidates;
            question.groups.push(("type", kind));
            question
        });
    }
    Ok(collector.finish())
}
