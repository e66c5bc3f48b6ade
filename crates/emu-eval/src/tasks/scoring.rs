//! Scores of answers, by the scorers of [`crate::score`].

use super::error::EvalError;
use super::judge::Graded;
use super::result::{Group, Interval, Metric};
use super::run::{Answer, Given};
use super::submission::ranks;
use super::{HumanAnswer, Question, Task, TaskData, Truth};
use crate::score::bootstrap::Bootstrap;
use crate::score::wups::Wups;
use crate::score::{Caption, ScoreError, captions, clean, visdial, vqa};

/// Level of the confidence intervals.
pub(super) const LEVEL: f64 = 0.95;
/// Words of an element of MM-Vet's answers up to which it can be looked for in an answer.
const ELEMENT_WORDS: usize = 5;

/// Options of [`score`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScoreOptions {
    /// Resamples of the confidence intervals; 0 for none.
    pub resamples: usize,
    /// Their seed.
    pub seed: u64,
}

/// What some metrics need besides the answers.
#[derive(Clone, Copy, Default)]
pub struct Helpers<'a> {
    /// A judge's grades of the answers that are texts, in their order.
    pub graded: Option<&'a Graded>,
    /// WUPS, and whether its stop words are those of the original program.
    pub wups: Option<(&'a Wups, bool)>,
}

/// Scores of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Metrics; the first is the main one. Empty if the references are not public.
    pub metrics: Vec<Metric>,
    /// The main metric by groups.
    pub groups: Vec<Group>,
    /// The main metric of each answer, in the unit of the metric; `None` if it has none.
    pub per_answer: Vec<Option<f64>>,
    /// Answers with a score in any metric.
    pub scored: usize,
    /// The metric of the paper's numbers, if it is another one.
    pub paper_metric: Option<&'static str>,
    /// What to know about the numbers.
    pub notes: Vec<String>,
}

/// Scores the answers to a task. Answers that the model could not give are left out.
///
/// # Errors
/// If there is nothing to score although the references are public.
pub fn score(
    data: &TaskData,
    answers: &[Answer],
    options: &ScoreOptions,
    helpers: &Helpers,
) -> Result<Scores, EvalError> {
    let mut scorer = Scorer {
        data,
        options,
        scores: Scores {
            metrics: vec![],
            groups: vec![],
            per_answer: vec![None; answers.len()],
            scored: 0,
            paper_metric: None,
            notes: vec![],
        },
    };
    let texts: Vec<Text> = answers
        .iter()
        .enumerate()
        .filter_map(|(at, answer)| {
            let question = data.questions.get(answer.question)?;
            match (&answer.given, &question.truth) {
                (_, Truth::Hidden) => None,
                (Given::Text { answer, .. }, _) => Some(Text {
                    at,
                    question,
                    answer,
                }),
                (Given::Scores(_) | Given::Nothing(_), _) => None,
            }
        })
        .collect();
    let hidden = data
        .questions
        .iter()
        .all(|question| question.truth == Truth::Hidden);
    if hidden {
        return Ok(scorer.scores);
    }
    let done = match data.task {
        _ if data.is_ranked() => scorer.rankings(answers),
        Task::Coco | Task::Nocaps | Task::Flickr30k => scorer.captions(&texts),
        Task::Vqav2 => scorer.vqa(
            &texts,
            &[
                ("VQA accuracy (Emu's scorer)", vqa::Variant::Emu),
                ("VQA accuracy (original scorer)", vqa::Variant::Official),
            ],
        ),
        Task::Okvqa => scorer.vqa(
            &texts,
            &[
                ("VQA accuracy on stems (Emu's scorer)", vqa::Variant::OkVqa),
                ("VQA accuracy (original scorer)", vqa::Variant::Official),
            ],
        ),
        Task::Vizwiz => scorer.vqa(&texts, &[("VQA accuracy (VizWiz)", vqa::Variant::VizWiz)]),
        Task::Mmvet => match (scorer.elements(&texts), helpers.graded) {
            // The elements may all be too long to be looked for.
            (Ok(()) | Err(ScoreError::Empty), Some(graded)) => scorer.judged(&texts, graded),
            (done, _) => done,
        },
        Task::Nextqa => match helpers.wups {
            Some((wups, original)) => {
                { scorer.exact(&texts) }.and_then(|()| scorer.wups(&texts, wups, original))
            }
            None => scorer.exact(&texts),
        },
        Task::Msvdqa | Task::Msrvttqa | Task::Easyvqa | Task::Own | Task::Visdial => {
            scorer.exact(&texts)
        }
    };
    done.map_err(|error| EvalError::Scores {
        task: data.task.name(),
        reason: error.to_string(),
    })?;
    Ok(scorer.scores)
}

/// A generated answer.
struct Text<'a> {
    /// Index of the answer.
    at: usize,
    question: &'a Question,
    answer: &'a str,
}

struct Scorer<'a> {
    data: &'a TaskData,
    options: &'a ScoreOptions,
    scores: Scores,
}

impl Scorer<'_> {
    fn captions(&mut self, texts: &[Text]) -> Result<(), ScoreError> {
        let set: Vec<Caption> = texts
            .iter()
            .map(|text| Caption {
                hypothesis: text.answer.to_owned(),
                references: match &text.question.truth {
                    Truth::Captions(references) => references.clone(),
                    _ => vec![],
                },
            })
            .collect();
        let scored = captions::score(&set)?;
        let cider: Vec<f64> = scored.items.iter().map(|item| item.cider * 100.0).collect();
        let rouge: Vec<f64> = scored
            .items
            .iter()
            .map(|item| item.rouge_l * 100.0)
            .collect();
        self.main("CIDEr", scored.corpus.cider * 100.0, texts, &cider)?;
        for (n, value) in scored.corpus.bleu.iter().enumerate() {
            self.plain(&format!("BLEU-{}", n + 1), value * 100.0, texts.len());
        }
        self.mean("ROUGE-L", &rouge)?;
        self.note(
            "The interval of CIDEr resamples pictures and keeps the word weights of the whole set.",
        );
        if set.len() == 1 {
            self.note("CIDEr of a single picture is always 0.");
        }
        Ok(())
    }

    fn vqa(&mut self, texts: &[Text], variants: &[(&str, vqa::Variant)]) -> Result<(), ScoreError> {
        for (i, (name, variant)) in variants.iter().enumerate() {
            let mut values = vec![];
            for text in texts {
                values.push(
                    100.0 * vqa::accuracy(*variant, text.answer, &people(&text.question.truth))?,
                );
            }
            match i {
                0 => self.main(name, mean(&values)?, texts, &values)?,
                _ => self.mean(name, &values)?,
            }
        }
        Ok(())
    }

    fn exact(&mut self, texts: &[Text]) -> Result<(), ScoreError> {
        // The preset's clean-up of the answer is done already. References of one's own may begin with what it cuts, such as an article.
        let plain = |text: &str| text.trim().to_lowercase();
        let own = self.data.task == Task::Own;
        let hit = |text: &Text| match &text.question.truth {
            Truth::Exact(wanted) => {
                let answer = plain(text.answer);
                let equal = |wanted: &String| {
                    answer == plain(wanted) || (own && answer == clean::short_answer(wanted))
                };
                wanted.iter().any(equal)
            }
            _ => false,
        };
        let values: Vec<f64> = texts
            .iter()
            .map(|text| if hit(text) { 100.0 } else { 0.0 })
            .collect();
        self.main("exact match", mean(&values)?, texts, &values)?;
        if matches!(self.data.task, Task::Easyvqa | Task::Own) {
            let found: Vec<f64> = texts.iter().map(contains).collect();
            self.mean("reference found in the answer", &found)?;
            self.note(
                "The second metric looks for a reference as whole words anywhere in the answer, for models that answer in sentences. \
                 It also counts answers that name several things.",
            );
        }
        if matches!(self.data.task, Task::Msvdqa | Task::Msrvttqa) {
            self.note("The paper does not say how answers are normalized before they are compared. Here: the released clean-up, lower case.");
        }
        if self.data.task == Task::Nextqa {
            self.scores.paper_metric = Some("by their size WUPS");
            self.note(
                "The submission file can be scored by the original program (NExT-OE, eval_oe.py).",
            );
        }
        Ok(())
    }

    /// WUPS as main metric.
    fn wups(&mut self, texts: &[Text], wups: &Wups, original: bool) -> Result<(), ScoreError> {
        let value = |text: &Text| {
            let answer = wups.words(text.answer);
            let Truth::Exact(references) = &text.question.truth else {
                return 0.0;
            };
            let references = references.iter().map(|text| wups.words(text));
            // Yes or no, and counts.
            let whole = { text.question.groups.iter() }
                .any(|(by, kind)| *by == "type" && matches!(kind.as_str(), "DB" | "DC"));
            let each = references.map(|reference| match whole {
                true => f64::from(u8::from(answer == reference)),
                false => wups.score(&answer, &reference),
            });
            100.0 * each.fold(0.0, f64::max)
        };
        let values: Vec<f64> = texts.iter().map(value).collect();
        self.main("WUPS at 0 (own base forms)", mean(&values)?, texts, &values)?;
        let stop = match original {
            true => "with its stop words",
            false => {
                "with stop words of our own, because there is no stopwords.txt in the data folder"
            }
        };
        self.note(&format!(
            "WUPS brings words to their base forms without the original program's tagger, {stop}: it is near the original's number, \
             and not the same. Types DB and DC are compared as wholes."
        ));
        Ok(())
    }

    /// Share of the elements of MM-Vet's answers that occur as whole words.
    fn elements(&mut self, texts: &[Text]) -> Result<(), ScoreError> {
        let mut judged = vec![];
        let mut values = vec![];
        for text in texts {
            let Truth::Elements(wanted) = &text.question.truth else {
                continue;
            };
            let normal = |text: &str| vqa::Variant::Emu.normalize(text).text;
            let answer = normal(text.answer);
            let share = |alternative: &str| {
                let elements: Vec<String> = alternative.split("<AND>").map(normal).collect();
                let short = elements
                    .iter()
                    .all(|element| element.split(' ').count() <= ELEMENT_WORDS);
                let found = elements
                    .iter()
                    .filter(|element| has_words(&answer, element))
                    .count();
                short.then(|| 100.0 * found as f64 / elements.len() as f64)
            };
            if let Some(best) = wanted
                .split("<OR>")
                .filter_map(share)
                .max_by(f64::total_cmp)
            {
                judged.push(Text {
                    at: text.at,
                    question: text.question,
                    answer: text.answer,
                });
                values.push(best);
            }
        }
        self.scores.paper_metric = Some("judged by GPT-4");
        self.note(
            "MM-Vet is scored by a judge, and this is none: it is the share of the wanted elements that occur in the answer as whole \
             words, over the questions whose elements are short enough to be looked for. The predictions file is the input of the official judge.",
        );
        self.note(&format!(
            "{} of {} answers were not judged: their truth is a longer text.",
            texts.len() - judged.len(),
            texts.len()
        ));
        self.main(
            "elements found (no judge, not the MM-Vet score)",
            mean(&values)?,
            &judged,
            &values,
        )?;
        self.scores.scored = judged.len();
        Ok(())
    }

    /// The grades of a judge as main metric.
    fn judged(&mut self, texts: &[Text], graded: &Graded) -> Result<(), ScoreError> {
        let values: Vec<f64> = graded.means().iter().map(|mean| mean * 100.0).collect();
        if values.len() != texts.len() {
            return Err(ScoreError::Length {
                what: "The list of grades",
                found: values.len(),
                expected: texts.len(),
            });
        }
        let name = format!("judged by {}", graded.judge);
        self.main(&name, mean(&values)?, texts, &values)?;
        let totals = graded.totals();
        let middle = mean(&totals)?;
        let squares: Vec<f64> = totals.iter().map(|x| (x - middle) * (x - middle)).collect();
        let deviation = mean(&squares)?.sqrt();
        self.note(&format!(
            "Graded by {} in {} runs: mean {:.1}, population standard deviation {:.1}. The published number is that of another judge: \
             gpt-4-0613 with the official prompt, in five runs.",
            graded.judge,
            totals.len(),
            middle * 100.0,
            deviation * 100.0
        ));
        if graded.without > 0 {
            self.note(&format!(
                "{} replies of the judge had no grade, and count as 0.",
                graded.without
            ));
        }
        Ok(())
    }

    fn rankings(&mut self, answers: &[Answer]) -> Result<(), ScoreError> {
        let mut placed = vec![];
        for (at, answer) in answers.iter().enumerate() {
            let Some(question) = self.data.questions.get(answer.question) else {
                continue;
            };
            if let (Given::Scores(scores), Truth::Candidate { index, relevance }) =
                (&answer.given, &question.truth)
            {
                let ranks = ranks(scores);
                let rank = ranks.get(*index).copied().unwrap_or_default();
                let ndcg = match relevance {
                    Some(relevance) => visdial::ndcg(&ranks, relevance)?,
                    None => None,
                };
                placed.push((
                    Text {
                        at,
                        question,
                        answer: "",
                    },
                    rank,
                    ndcg,
                ));
            }
        }
        let each = |score: &dyn Fn(usize) -> f64| {
            placed
                .iter()
                .map(|(_, rank, _)| score(*rank))
                .collect::<Vec<_>>()
        };
        let within = |k: usize| each(&|rank| if rank <= k { 100.0 } else { 0.0 });
        if self.data.task == Task::Visdial {
            let dense = placed.iter().filter_map(|(text, _, ndcg)| {
                Some((
                    Text {
                        at: text.at,
                        question: text.question,
                        answer: "",
                    },
                    ndcg.map(|ndcg| ndcg * 100.0)?,
                ))
            });
            let (texts, values): (Vec<_>, Vec<_>) = dense.unzip();
            if values.is_empty() {
                self.note("No round has dense relevance: there is no NDCG, the paper's figure.");
                self.scores.paper_metric = Some("NDCG");
            } else {
                self.main("NDCG", mean(&values)?, &texts, &values)?;
            }
            self.mean("MRR", &each(&|rank| 100.0 / rank.max(1) as f64))?;
            for k in [1, 5, 10] {
                self.mean(&format!("R@{k}"), &within(k))?;
            }
            self.mean("mean rank", &each(&|rank| rank as f64))?;
            self.note("Candidates of equal score are ranked by their index. The original leaves their order open.");
        } else {
            let values = within(1);
            let texts: Vec<_> = placed
                .iter()
                .map(|(text, ..)| Text {
                    at: text.at,
                    question: text.question,
                    answer: "",
                })
                .collect();
            self.main(
                "accuracy (multiple choice)",
                mean(&values)?,
                &texts,
                &values,
            )?;
        }
        self.scores.scored = placed.len();
        Ok(())
    }

    /// The main metric: with interval, groups and scores of single answers.
    fn main(
        &mut self,
        name: &str,
        value: f64,
        texts: &[Text],
        values: &[f64],
    ) -> Result<(), ScoreError> {
        let interval = self.interval(values)?;
        let metric = Metric {
            name: name.to_owned(),
            value,
            interval,
            questions: values.len(),
            note: None,
        };
        self.scores.metrics.insert(0, metric);
        self.scores.scored = values.len();
        let mut groups: Vec<(Group, f64)> = vec![];
        for (text, value) in texts.iter().zip(values) {
            if let Some(place) = self.scores.per_answer.get_mut(text.at) {
                *place = Some(*value);
            }
            for (by, name) in &text.question.groups {
                match groups
                    .iter_mut()
                    .find(|(group, _)| group.by == *by && group.name == *name)
                {
                    Some((group, sum)) => {
                        group.questions += 1;
                        *sum += value;
                    }
                    None => {
                        let group = Group {
                            by: (*by).to_owned(),
                            name: name.clone(),
                            value: 0.0,
                            questions: 1,
                        };
                        groups.push((group, *value));
                    }
                }
            }
        }
        groups.sort_by(|(a, _), (b, _)| {
            (&a.by, b.questions, &a.name).cmp(&(&b.by, a.questions, &b.name))
        });
        let finish = |(group, sum): (Group, f64)| Group {
            value: sum / group.questions as f64,
            ..group
        };
        self.scores.groups = groups.into_iter().map(finish).collect();
        Ok(())
    }

    /// A metric that is a mean over questions.
    fn mean(&mut self, name: &str, values: &[f64]) -> Result<(), ScoreError> {
        let (value, interval) = (mean(values)?, self.interval(values)?);
        let metric = Metric {
            name: name.to_owned(),
            value,
            interval,
            questions: values.len(),
            note: None,
        };
        self.scores.metrics.push(metric);
        Ok(())
    }

    fn plain(&mut self, name: &str, value: f64, questions: usize) {
        let metric = Metric {
            name: name.to_owned(),
            value,
            interval: None,
            questions,
            note: None,
        };
        self.scores.metrics.push(metric);
    }

    fn interval(&self, values: &[f64]) -> Result<Option<Interval>, ScoreError> {
        if self.options.resamples == 0 || values.len() < 2 {
            return Ok(None);
        }
        let bootstrap = Bootstrap {
            resamples: self.options.resamples,
            level: LEVEL,
            seed: self.options.seed,
        };
        let interval = bootstrap.mean(values)?;
        Ok(Some(Interval {
            low: interval.low,
            high: interval.high,
            level: LEVEL,
        }))
    }

    fn note(&mut self, text: &str) {
        self.scores.notes.push(text.to_owned());
    }
}

/// People's answers for the scorer. Their position stands for the `answer_id`, which not every layout has: without it equal
/// answers would be left out together.
fn people(truth: &Truth) -> Vec<vqa::Answer> {
    let Truth::Answers { answers, .. } = truth else {
        return vec![];
    };
    let one = |(i, answer): (usize, &HumanAnswer)| vqa::Answer {
        answer: answer.answer.clone(),
        other: std::iter::once(("answer_id".to_owned(), (i + 1).into())).collect(),
    };
    answers.iter().enumerate().map(one).collect()
}

fn mean(values: &[f64]) -> Result<f64, ScoreError> {
    match values.is_empty() {
        true => Err(ScoreError::Empty),
        false => Ok(values.iter().sum::<f64>() / values.len() as f64),
    }
}

/// 100 if one of the references occurs in the answer as whole words, after the normalization of VQA; otherwise 0.
fn contains(text: &Text) -> f64 {
    let normal = |text: &str| vqa::Variant::Emu.normalize(text).text;
    let answer = normal(text.answer);
    let found = match &text.question.truth {
        Truth::Exact(wanted) => wanted
            .iter()
            .any(|wanted| has_words(&answer, &normal(wanted))),
        _ => false,
    };
    if found { 100.0 } else { 0.0 }
}

/// Whether the words of `element` occur in `text` one after another.
fn has_words(text: &str, element: &str) -> bool {
    let (words, wanted): (Vec<_>, Vec<_>) =
        (text.split(' ').collect(), element.split(' ').collect());
    !element.is_empty() && words.windows(wanted.len()).any(|window| window == wanted)
}
