//! VizWiz VQA: lists without question ids; a picture has one question, so its file name is the id.

use serde::Deserialize;

use super::{Collector, Split, people, text};
use crate::tasks::error::EvalError;
use crate::tasks::files::{Folder, read_json};
use crate::tasks::problems::{ProblemKind, Problems};
use crate::tasks::question::{Question, Truth};

#[derive(Deserialize)]
struct Entry {
    image: Option<String>,
    question: Option<String>,
    answers: Option<Vec<Answer>>,
    answer_type: Option<String>,
    answerable: Option<u8>,
}

#[derive(Deserialize)]
struct Answer {
    answer: Option<String>,
    answer_confidence: Option<String>,
}

/// VizWiz: `val`, `train`, and `test` (scored by a server).
pub fn vizwiz(folder: &Folder, split: &str) -> Result<Split, EvalError> {
    let path = folder.file("questions of VizWiz", &[&format!("{split}.json")])?;
    let entries: Vec<Entry> = read_json(&path, "VizWiz annotations")?;
    let mut collector = Collector::new(Problems::default());
    let hidden = entries.iter().all(|entry| entry.answers.is_none());
    for (i, entry) in entries.into_iter().enumerate() {
        let Some(image) = text(
            entry.image.as_deref(),
            &format!("image of entry {i}"),
            &mut collector.problems,
        ) else {
            continue;
        };
        collector.expect(&image);
        let Some(words) = text(entry.question.as_deref(), &image, &mut collector.problems) else {
            continue;
        };
        let truth = match (&entry.answers, hidden) {
            (_, true) => Truth::Hidden,
            (None, false) => {
                collector.problems.note(ProblemKind::NoReference, image);
                continue;
            }
            (Some(answers), false) => {
                let answers = answers
                    .iter()
                    .map(|one| (one.answer.as_deref(), one.answer_confidence.as_deref()));
                match people(answers, &image, &mut collector.problems) {
                    Some(answers) => Truth::Answers {
                        answers,
                        usual: None,
                    },
                    None => continue,
                }
            }
        };
        let files = [format!("{split}/{image}"), image.clone()];
        collector.add(folder.picture(&files), &image, |media| {
            let mut question = Question::new(image.clone(), media, words, truth);
            question
                .groups
                .extend(entry.answer_type.map(|kind| ("answer type", kind)));
            let answerable = entry
                .answerable
                .map(|yes| if yes == 1 { "yes" } else { "no" });
            question
                .groups
                .extend(answerable.map(|word| ("answerable", word.to_owned())));
            question
        });
    }
    Ok(collector.finish())
}
