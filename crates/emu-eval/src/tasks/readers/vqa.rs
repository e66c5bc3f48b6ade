//! VQAv2 and OK-VQA: questions and annotations apart, or LAVIS' lists of both.

use serde::Deserialize;

use super::{Collector, Id, OneOrMany, Split, Unique, people, text};
use crate::tasks::error::EvalError;
use crate::tasks::files::{Folder, read_json};
use crate::tasks::problems::{ProblemKind, Problems};
use crate::tasks::question::{HumanAnswer, Question, Truth};

#[derive(Deserialize)]
struct QuestionFile {
    questions: Vec<Asked>,
}

#[derive(Deserialize, PartialEq)]
struct Asked {
    question_id: Option<Id>,
    image_id: Option<Id>,
    question: Option<String>,
}

#[derive(Deserialize)]
struct AnnotationFile {
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    question_id: Option<Id>,
    image_id: Option<Id>,
    question_type: Option<String>,
    answer_type: Option<String>,
    multiple_choice_answer: Option<String>,
    #[serde(default)]
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    answer: Option<String>,
    answer_confidence: Option<String>,
}

/// An annotation that can be used.
#[derive(PartialEq)]
struct Annotated {
    image: Option<String>,
    answers: Vec<HumanAnswer>,
    usual: Option<String>,
    groups: Vec<(&'static str, String)>,
}

/// An entry of LAVIS' lists.
#[derive(Deserialize)]
struct ListEntry {
    question_id: Option<Id>,
    image: Option<String>,
    question: Option<String>,
    answer: Option<OneOrMany>,
}

/// Names of the files of a split.
struct Names {
    questions: String,
    /// None where the answers are not public.
    annotations: Option<String>,
    list: Option<&'static str>,
    /// Folder and infix of the pictures.
    pictures: &'static str,
}

/// VQAv2: `val` (scored here), `train`, and `test`, `test-dev` (scored by a server).
pub fn vqav2(folder: &Folder, split: &str) -> Result<Split, EvalError> {
    let (subset, annotations, list, pictures) = match split {
        "train" => (
            "train2014",
            Some("train2014"),
            Some("vqa_train.json"),
            "train2014",
        ),
        "test" => ("test2015", None, Some("vqa_test.json"), "test2015"),
        "test-dev" => ("test-dev2015", None, None, "test2015"),
        _ => (
            "val2014",
            Some("val2014"),
            Some("vqa_val_eval.json"),
            "val2014",
        ),
    };
    let names = Names {
        questions: format!("v2_OpenEnded_mscoco_{subset}_questions.json"),
        annotations: annotations.map(|set| format!("v2_mscoco_{set}_annotations.json")),
        list,
        pictures,
    };
    read(folder, "questions of VQAv2", &names)
}

/// OK-VQA: `val` (the paper's test set) and `train`.
pub fn okvqa(folder: &Folder, split: &str) -> Result<Split, EvalError> {
    let (set, list) = match split {
        "train" => ("train2014", "okvqa_train.json"),
        _ => ("val2014", "vqa_val_eval.json"),
    };
    let names = Names {
        questions: format!("OpenEnded_mscoco_{set}_questions.json"),
        annotations: Some(format!("mscoco_{set}_annotations.json")),
        list: Some(list),
        pictures: set,
    };
    read(folder, "questions of OK-VQA", &names)
}

fn read(folder: &Folder, what: &'static str, names: &Names) -> Result<Split, EvalError> {
    if let Some(path) = folder.optional(&[&names.questions]) {
        let file: QuestionFile = read_json(&path, "VQA questions")?;
        let annotations = match &names.annotations {
            None => None,
            Some(name) => Some(read_json(
                &folder.file("answers", &[name])?,
                "VQA annotations",
            )?),
        };
        return Ok(joined(folder, file, annotations, names.pictures));
    }
    let mut known = vec![names.questions.as_str()];
    known.extend(names.list);
    let path = folder.file(what, &known)?;
    Ok(listed(
        folder,
        read_json(&path, "a list of questions")?,
        names.annotations.is_none(),
    ))
}

fn joined(
    folder: &Folder,
    file: QuestionFile,
    annotations: Option<AnnotationFile>,
    pictures: &str,
) -> Split {
    let mut problems = Problems::default();
    let mut asked = Unique::new();
    for (i, question) in file.questions.into_iter().enumerate() {
        match &question.question_id {
            None => problems.note(ProblemKind::Null, format!("question_id of entry {i}")),
            Some(id) => asked.add(id.0.clone(), question, "question", &mut problems),
        }
    }
    let hidden = annotations.is_none();
    let mut annotated = Unique::new();
    for (i, annotation) in annotations
        .into_iter()
        .flat_map(|file| file.annotations)
        .enumerate()
    {
        let Some(id) = annotation.question_id.as_ref().map(|id| id.0.clone()) else {
            problems.note(ProblemKind::Null, format!("question_id of annotation {i}"));
            continue;
        };
        if !asked.has(&id) {
            problems.note(
                ProblemKind::UnknownId,
                format!("annotation of question {id}"),
            );
            continue;
        }
        let answers = annotation
            .answers
            .iter()
            .map(|one| (one.answer.as_deref(), one.answer_confidence.as_deref()));
        let Some(answers) = people(answers, &format!("question {id}"), &mut problems) else {
            continue;
        };
        let group = |name: &'static str, value: Option<String>| value.map(|value| (name, value));
        let groups = group("answer type", annotation.answer_type)
            .into_iter()
            .chain(group("question type", annotation.question_type))
            .collect();
        let record = Annotated {
            image: annotation.image_id.map(|id| id.0),
            answers,
            usual: annotation.multiple_choice_answer,
            groups,
        };
        annotated.add(id, record, "annotation", &mut problems);
    }

    let mut collector = Collector::new(problems);
    let ids: Vec<_> = asked.place.keys().cloned().collect();
    let mut in_order: Vec<_> = ids
        .iter()
        .filter_map(|id| Some((*asked.place.get(id)?, id)))
        .collect();
    in_order.sort_unstable();
    for (_, id) in in_order {
        collector.expect(id);
    }
    for (id, question) in asked.into_records() {
        let record = format!("question {id}");
        let Some(words) = text(
            question.question.as_deref(),
            &record,
            &mut collector.problems,
        ) else {
            continue;
        };
        let Some(image) = question.image_id else {
            collector
                .problems
                .note(ProblemKind::Null, format!("image_id of {record}"));
            continue;
        };
        let annotation = annotated.get(&id);
        if annotation.is_none() && !hidden {
            collector.problems.note(ProblemKind::NoReference, record);
            continue;
        }
        if let Some(other) = annotation.and_then(|annotation| annotation.image.as_ref())
            && *other != image.0
        {
            collector.problems.note(
                ProblemKind::Conflict,
                format!("picture of {record}: {image} or {other}"),
            );
            continue;
        }
        let file = format!("COCO_{pictures}_{:0>12}.jpg", image.0);
        let files = [format!("{pictures}/{file}"), file];
        collector.add(folder.picture(&files), &files[0], |media| {
            let truth = annotation.map_or(Truth::Hidden, |annotation| Truth::Answers {
                answers: annotation.answers.clone(),
                usual: annotation.usual.clone(),
            });
            let mut question = Question::new(id, media, words, truth);
            question.groups =
                annotation.map_or_else(Vec::new, |annotation| annotation.groups.clone());
            question
        });
    }
    collector.finish()
}

fn listed(folder: &Folder, entries: Vec<ListEntry>, hidden: bool) -> Split {
    let mut collector = Collector::new(Problems::default());
    for (i, entry) in entries.into_iter().enumerate() {
        let Some(id) = entry.question_id.map(|id| id.0) else {
            collector
                .problems
                .note(ProblemKind::Null, format!("question_id of entry {i}"));
            continue;
        };
        collector.expect(&id);
        let record = format!("question {id}");
        let Some(words) = text(entry.question.as_deref(), &record, &mut collector.problems) else {
            continue;
        };
        let Some(image) = text(entry.image.as_deref(), &record, &mut collector.problems) else {
            continue;
        };
        let truth = if hidden {
            Truth::Hidden
        } else {
            let answers = entry.answer.map_or_else(Vec::new, OneOrMany::into_vec);
            let answers = answers.iter().map(|answer| (answer.as_deref(), None));
            match people(answers, &record, &mut collector.problems) {
                Some(answers) => Truth::Answers {
                    answers,
                    usual: None,
                },
                None => continue,
            }
        };
        collector.add(
            folder.picture(std::slice::from_ref(&image)),
            &image,
            |media| Question::new(id, media, words, truth),
        );
    }
    collector.finish()
}
