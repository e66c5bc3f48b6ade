//! Tables of a user's own (picture, question, answer), and the package easy-vqa.

use std::path::Path;

use super::{Collector, Split, text};
use crate::tasks::error::EvalError;
use crate::tasks::files::{Folder, read_json};
use crate::tasks::problems::{ProblemKind, Problems};
use crate::tasks::question::{Question, Truth};
use crate::tasks::table::Table;

/// Separates several accepted answers in one field.
const OR: char = '|';

/// A user's own questions: `SPLIT.csv`, `SPLIT.tsv` or `SPLIT.jsonl` with the columns `picture` (or `image`,
/// `file_name`, `video`), `question`, `answer` and, if wanted, `id` and `kind`, by which scores are grouped. Several accepted
/// answers are separated by `|`.
pub fn own(folder: &Folder, split: &str) -> Result<Split, EvalError> {
    const WHAT: &str = "a table of picture, question and answer";
    let names = ["csv", "tsv", "jsonl"].map(|ending| format!("{split}.{ending}"));
    let path = folder.file(WHAT, &[&names[0], &names[1], &names[2]])?;
    let table = Table::read(&path, WHAT)?;
    let shown = ["picture", "image", "file_name", "video"]
        .into_iter()
        .find(|name| table.has(name));
    let shown = shown.ok_or_else(|| {
        layout(
            &path,
            WHAT,
            "it has no column picture, image, file_name or video",
        )
    })?;
    for column in ["question", "answer"] {
        table.require(column, &path, WHAT)?;
    }
    let mut collector = Collector::new(Problems::default());
    for (i, row) in table.rows().enumerate() {
        let line = format!("row {}", i + 1);
        let id = row
            .get("id")
            .map_or_else(|| (i + 1).to_string(), str::to_owned);
        collector.expect(&id);
        let mut field = |name: &str| {
            text(
                row.get(name),
                &format!("{name} of {line}"),
                &mut collector.problems,
            )
        };
        let (Some(file), Some(words), Some(answer)) =
            (field(shown), field("question"), field("answer"))
        else {
            continue;
        };
        let answers: Vec<_> = answer
            .split(OR)
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .collect();
        if answers.is_empty() {
            collector
                .problems
                .note(ProblemKind::Blank, format!("answer of {line}"));
            continue;
        }
        let media = match shown {
            "video" => folder.video(std::slice::from_ref(&file)),
            _ => folder.picture(std::slice::from_ref(&file)),
        };
        collector.add(media, &file, |media| {
            let mut question = Question::new(id, media, words, Truth::Exact(answers));
            let kind = row
                .get("kind")
                .map(str::trim)
                .filter(|kind| !kind.is_empty());
            question
                .groups
                .extend(kind.map(|kind| ("kind", kind.to_owned())));
            question
        });
    }
    Ok(collector.finish())
}

/// easy-vqa: `SPLIT/questions.json`, a list of `[question, answer, picture]`. The id is the position in the list.
pub fn easy_vqa(folder: &Folder, split: &str) -> Result<Split, EvalError> {
    type Entry = (Option<String>, Option<String>, Option<u64>);
    let path = folder.file(
        "questions of easy-vqa",
        &[
            &format!("{split}/questions.json"),
            &format!("data/{split}/questions.json"),
        ],
    )?;
    let entries: Vec<Entry> = read_json(&path, "easy-vqa questions")?;
    let mut collector = Collector::new(Problems::default());
    for (i, (question, answer, picture)) in entries.into_iter().enumerate() {
        let id = i.to_string();
        collector.expect(&id);
        let record = format!("question {id}");
        let words = text(question.as_deref(), &record, &mut collector.problems);
        let answer = text(answer.as_deref(), &record, &mut collector.problems);
        let (Some(words), Some(answer)) = (words, answer) else {
            continue;
        };
        let Some(picture) = picture else {
            collector
                .problems
                .note(ProblemKind::Null, format!("picture of {record}"));
            continue;
        };
        let files = [
            format!("{split}/images/{picture}.png"),
            format!("data/{split}/images/{picture}.png"),
        ];
        collector.add(folder.picture(&files), &files[0], |media| {
            let yes_no = matches!(answer.as_str(), "yes" | "no");
            let mut question = Question::new(id, media, words, Truth::Exact(vec![answer]));
            question.groups.push((
                "answer type",
                if yes_no { "yes/no" } else { "other" }.to_owned(),
            ));
            question
        });
    }
    Ok(collector.finish())
}

fn layout(path: &Path, what: &'static str, reason: &str) -> EvalError {
    EvalError::Layout {
        path: path.to_owned(),
        what,
        reason: reason.to_owned(),
    }
}
