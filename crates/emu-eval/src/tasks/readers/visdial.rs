//! VisDial 1.0: dialogs of up to ten rounds with 100 candidates each, and dense relevance for one round of each dialog.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Collector, Id, Split, Unique};
use crate::tasks::error::EvalError;
use crate::tasks::files::{Folder, read_json};
use crate::tasks::problems::{ProblemKind, Problems};
use crate::tasks::question::{Question, Truth};

/// Which rounds of the dialogs are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounds {
    /// All: MRR, recall and mean rank over all of them, NDCG over the dense ones.
    #[default]
    All,
    /// Only those with dense relevance: NDCG, the paper's figure, in a tenth of the time.
    Dense,
}

#[derive(Deserialize)]
struct File {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    questions: Vec<Option<String>>,
    answers: Vec<Option<String>>,
    dialogs: Vec<Dialog>,
}

#[derive(Deserialize)]
struct Dialog {
    image_id: Option<Id>,
    #[serde(default)]
    dialog: Vec<Round>,
}

#[derive(Deserialize)]
struct Round {
    question: Option<usize>,
    answer: Option<usize>,
    answer_options: Option<Vec<u32>>,
    gt_index: Option<usize>,
}

#[derive(Deserialize)]
struct Dense {
    image_id: Option<Id>,
    round_id: Option<usize>,
    #[serde(alias = "relevance")]
    gt_relevance: Option<Vec<f64>>,
}

/// VisDial: `val`, `train`, and `test` (scored by a server). The id of a question is `IMAGE:ROUND`, rounds from 1.
pub fn visdial(folder: &Folder, split: &str, rounds: Rounds) -> Result<Split, EvalError> {
    let path = folder.file(
        "dialogs of VisDial",
        &[&format!("visdial_1.0_{split}.json")],
    )?;
    let file: File = read_json(&path, "VisDial dialogs")?;
    let dense_name = format!("visdial_1.0_{split}_dense_annotations.json");
    let dense = match (folder.optional(&[&dense_name]), rounds) {
        (Some(path), _) => read_json(&path, "dense annotations of VisDial")?,
        (None, Rounds::Dense) => {
            return Err(EvalError::NoFile {
                what: "dense annotations of VisDial".into(),
                folder: path.parent().unwrap_or(&path).to_owned(),
                names: dense_name,
            });
        }
        (None, Rounds::All) => vec![],
    };
    let mut problems = Problems::default();
    let dense = by_round(dense, &file.data, &mut problems);
    let answers: Vec<Option<Arc<str>>> = file
        .data
        .answers
        .iter()
        .map(|text| text.as_deref().map(Arc::from))
        .collect();
    let tables = Tables {
        questions: &file.data.questions,
        answers: &answers,
    };
    let mut collector = Collector::new(problems);
    for dialog in &file.data.dialogs {
        let Some(image) = &dialog.image_id else {
            collector
                .problems
                .note(ProblemKind::Null, "image_id of a dialog");
            continue;
        };
        let mut history = vec![];
        for (i, round) in dialog.dialog.iter().enumerate() {
            let id = format!("{image}:{}", i + 1);
            let last = i + 1 == dialog.dialog.len();
            // The test split is asked only at the end of each dialog.
            let asked = split != "test" || last;
            let question = tables.question(round);
            if asked && (rounds == Rounds::All || dense.get(&id).is_some()) {
                collector.expect(&id);
                match tables.asked(round, question, dense.get(&id), split == "test") {
                    Err(kind) => collector.problems.note(kind, format!("round {id}")),
                    Ok((text, candidates, truth)) => {
                        let files = pictures(&image.0);
                        collector.add(folder.picture(&files), &files[0], |media| {
                            let mut asked = Question::new(id, media, text, truth);
                            asked.candidates = candidates;
                            asked.history = history.clone();
                            asked
                        });
                    }
                }
            }
            let answer = round
                .answer
                .and_then(|at| tables.answers.get(at)?.as_deref());
            match (question, answer) {
                (Some(question), Some(answer)) => {
                    history.push((question.to_owned(), answer.to_owned()))
                }
                _ if last => {}
                _ => {
                    // Later rounds would be asked without their history.
                    for later in i + 2..=dialog.dialog.len() {
                        let id = format!("{image}:{later}");
                        if rounds == Rounds::Dense && !dense.has(&id) {
                            continue;
                        }
                        collector.expect(&id);
                        collector
                            .problems
                            .note(ProblemKind::Null, format!("round {id}: an earlier answer"));
                    }
                    break;
                }
            }
        }
    }
    Ok(collector.finish())
}

/// Texts of questions and answers, which rounds name by index.
struct Tables<'a> {
    questions: &'a [Option<String>],
    answers: &'a [Option<Arc<str>>],
}

type Asked = (String, Vec<Arc<str>>, Truth);

impl<'a> Tables<'a> {
    fn question(&self, round: &Round) -> Option<&'a str> {
        self.questions.get(round.question?)?.as_deref()
    }

    fn asked(
        &self,
        round: &Round,
        question: Option<&str>,
        dense: Option<&Vec<f64>>,
        hidden: bool,
    ) -> Result<Asked, ProblemKind> {
        let question = question.ok_or(match round.question {
            Some(at) if at >= self.questions.len() => ProblemKind::BadIndex,
            _ => ProblemKind::Null,
        })?;
        let options = round.answer_options.as_ref().ok_or(ProblemKind::Null)?;
        let candidate = |at: &u32| {
            let text = self
                .answers
                .get(*at as usize)
                .ok_or(ProblemKind::BadIndex)?;
            text.clone().ok_or(ProblemKind::Null)
        };
        let candidates: Vec<Arc<str>> = options.iter().map(candidate).collect::<Result<_, _>>()?;
        if candidates.is_empty() {
            return Err(ProblemKind::BadIndex);
        }
        let truth = match round.gt_index {
            Some(index) if index < candidates.len() => match dense {
                Some(relevance) if relevance.len() != candidates.len() => {
                    return Err(ProblemKind::BadIndex);
                }
                relevance => Truth::Candidate {
                    index,
                    relevance: relevance.cloned(),
                },
            },
            Some(_) => return Err(ProblemKind::BadIndex),
            None if hidden => Truth::Hidden,
            None => return Err(ProblemKind::Null),
        };
        Ok((question.to_owned(), candidates, truth))
    }
}

/// Dense relevance by id of the round.
fn by_round(dense: Vec<Dense>, data: &Data, problems: &mut Problems) -> Unique<Vec<f64>> {
    let lengths: HashMap<_, _> = data
        .dialogs
        .iter()
        .filter_map(|dialog| Some((dialog.image_id.clone()?, dialog.dialog.len())))
        .collect();
    let mut rounds = Unique::new();
    for entry in dense {
        let (Some(image), Some(round), Some(relevance)) =
            (entry.image_id, entry.round_id, entry.gt_relevance)
        else {
            problems.note(ProblemKind::Null, "a dense annotation");
            continue;
        };
        let id = format!("{image}:{round}");
        if lengths
            .get(&image)
            .is_none_or(|length| !(1..=*length).contains(&round))
        {
            problems.note(
                ProblemKind::UnknownId,
                format!("dense annotation of round {id}"),
            );
        } else {
            rounds.add(id, relevance, "dense annotation", problems);
        }
    }
    rounds
}

/// Possible names of a dialog's picture.
fn pictures(id: &str) -> Vec<String> {
    let mut names = vec![];
    for set in ["VisualDialog_val2018", "VisualDialog_test2018"] {
        names.push(format!("{set}/{set}_{id:0>12}.jpg"));
        names.push(format!("{set}_{id:0>12}.jpg"));
    }
    for set in ["train2014", "val2014"] {
        names.push(format!("{set}/COCO_{set}_{id:0>12}.jpg"));
    }
    names
}
