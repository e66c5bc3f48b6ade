//! What both reports show.

use crate::tasks::figure::Measured;
use crate::tasks::published::Mark;
use crate::tasks::question::{Question, Truth};
use crate::tasks::result::TaskResult;
use crate::tasks::run::{Answer, Given};
use crate::tasks::submission::ranks;

/// Cards of a kind in a report.
const CARDS: usize = 12;

/// A small picture for the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbnail {
    /// Its type, such as `image/jpeg`.
    pub mime: &'static str,
    /// The encoded file, best under 10 kB.
    pub bytes: Vec<u8>,
}

/// A question as the reports show it.
pub struct Card<'a> {
    pub question: &'a Question,
    pub answer: &'a Answer,
    /// Its score in the main metric.
    pub score: Option<f64>,
}

/// Cards with a title.
pub struct Section<'a> {
    pub title: &'static str,
    pub cards: Vec<Card<'a>>,
}

/// The worst, the best, and some between: evenly spaced over the scores.
pub fn sections<'a>(
    questions: &'a [Question],
    answers: &'a [Answer],
    per_answer: &[Option<f64>],
) -> Vec<Section<'a>> {
    let scores = per_answer.iter().copied().chain(std::iter::repeat(None));
    let cards = answers.iter().zip(scores);
    let mut cards: Vec<Card> = cards
        .filter_map(|(answer, score)| {
            Some(Card {
                question: questions.get(answer.question)?,
                answer,
                score,
            })
        })
        .collect();
    let unreadable = take(&mut cards, |card| {
        matches!(card.answer.given, Given::Nothing(_))
    });
    let unscored = take(&mut cards, |card| card.score.is_none());
    // The sort is stable: equal scores stay in the order of the file.
    cards.sort_by(|a, b| a.score.unwrap_or(0.0).total_cmp(&b.score.unwrap_or(0.0)));
    let n = cards.len();
    let edge = CARDS.min(n.div_ceil(3));
    let best: Vec<_> = cards.split_off(n - edge).into_iter().rev().collect();
    let between: Vec<_> = cards.split_off(edge.min(cards.len()));
    let step = between.len().div_ceil(CARDS).max(1);
    let sections = [
        ("Worst", cards),
        ("Best", best),
        ("Between", between.into_iter().step_by(step).collect()),
        (
            "No score in the main metric",
            unscored.into_iter().take(CARDS).collect(),
        ),
        ("Not readable", unreadable.into_iter().take(CARDS).collect()),
    ];
    sections
        .into_iter()
        .map(|(title, cards)| Section { title, cards })
        .filter(|section| !section.cards.is_empty())
        .collect()
}

fn take<'a>(cards: &mut Vec<Card<'a>>, is: impl Fn(&Card) -> bool) -> Vec<Card<'a>> {
    let (taken, kept) = std::mem::take(cards).into_iter().partition(is);
    *cards = kept;
    taken
}

impl Card<'_> {
    /// The answer as text; for a ranking the first candidates.
    pub fn given(&self) -> String {
        match &self.answer.given {
            Given::Text { answer, .. } => answer.clone(),
            Given::Nothing(reason) => format!("({reason})"),
            Given::Scores(scores) => {
                let ranks = ranks(scores);
                let at = |rank: usize| ranks.iter().position(|other| *other == rank);
                let first = (1..=3).filter_map(|rank| {
                    Some(format!(
                        "{rank}. {}",
                        self.question.candidates.get(at(rank)?)?
                    ))
                });
                first.collect::<Vec<_>>().join("; ")
            }
        }
    }

    /// What the model wrote, if clean-up changed it.
    pub fn raw(&self) -> Option<&str> {
        match &self.answer.given {
            Given::Text { raw, answer } if raw.trim() != answer => Some(raw.trim()),
            _ => None,
        }
    }

    /// The references as text.
    pub fn wanted(&self) -> String {
        match &self.question.truth {
            Truth::Hidden => "not public".to_owned(),
            Truth::Captions(texts) | Truth::Exact(texts) => texts.join(" / "),
            Truth::Elements(text) => text.replace("<AND>", " and ").replace("<OR>", " or "),
            Truth::Candidate { index, .. } => {
                let text = self
                    .question
                    .candidates
                    .get(*index)
                    .map_or("", |text| &**text);
                match &self.answer.given {
                    Given::Scores(scores) => {
                        let rank = ranks(scores).get(*index).copied().unwrap_or_default();
                        format!("{text} (rank {rank} of {})", scores.len())
                    }
                    _ => text.to_owned(),
                }
            }
            Truth::Answers { answers, .. } => {
                let mut counts: Vec<(&str, usize)> = vec![];
                for answer in answers {
                    match counts.iter_mut().find(|(text, _)| *text == answer.answer) {
                        Some((_, count)) => *count += 1,
                        None => counts.push((&answer.answer, 1)),
                    }
                }
                counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
                let each = counts.iter().map(|(text, count)| {
                    if *count > 1 {
                        format!("{text} ({count})")
                    } else {
                        (*text).to_owned()
                    }
                });
                each.collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// A row of the table that sets the paper's numbers beside ours.
pub struct Beside {
    pub label: String,
    pub value: f64,
    /// Confidence interval of our number.
    pub interval: Option<(f64, f64)>,
    /// Mark of a published number; `None` for ours.
    pub mark: Option<Mark>,
    /// Whether this row of the paper has our preset and number of examples.
    pub counterpart: bool,
}

/// Our number, then the paper's.
pub fn beside(result: &TaskResult) -> Vec<Beside> {
    let counterpart = counterpart(result);
    let ours = result.metrics.first().map(|metric| Beside {
        label: format!(
            "This run: {}, preset {}, {}",
            short(&result.model),
            result.preset,
            shots(result)
        ),
        value: metric.value,
        interval: metric
            .interval
            .map(|interval| (interval.low, interval.high)),
        mark: None,
        counterpart: false,
    });
    let other = result
        .paper_metric
        .as_ref()
        .map_or(String::new(), |metric| {
            format!(" (another metric: {metric})")
        });
    let theirs = result.published.iter().map(|number| Beside {
        label: format!("Paper: {}{other}", number.row),
        value: number.value,
        interval: None,
        mark: Some(number.mark),
        counterpart: other.is_empty() && counterpart.as_deref() == Some(number.row.as_str()),
    });
    ours.into_iter().chain(theirs).collect()
}

/// A model's name without its hash, or with a short one.
fn short(name: &str) -> String {
    let word =
        |word: &str| match word.len() > 20 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            true => word.chars().take(8).collect(),
            false => word.to_owned(),
        };
    name.split(' ').map(word).collect::<Vec<String>>().join(" ")
}

/// The few-shot setting in words; what else the answers depend on, where there are no such examples.
pub fn shots(result: &TaskResult) -> String {
    match result.task {
        Measured::Task(_) => {}
        Measured::Figure(_) => return "greedy".to_owned(),
        Measured::Frechet => return "all features".to_owned(),
    }
    let k = result
        .settings
        .get("shots")
        .and_then(serde_json::Value::as_u64)
        .unwrap_or(0);
    let text_only = result
        .settings
        .get("text_only")
        .and_then(serde_json::Value::as_bool)
        .unwrap_or(false);
    match (k, text_only) {
        (0, _) => "zero-shot".to_owned(),
        (k, true) => format!("{k} text-only examples"),
        (k, false) => format!("{k} examples"),
    }
}

/// The row of the paper with the same preset and examples.
fn counterpart(result: &TaskResult) -> Option<String> {
    let name = match result.preset.as_str() {
        "emu" => "Emu",
        "emu-i" => "Emu-I",
        _ => return None,
    };
    Some(match shots(result).as_str() {
        "zero-shot" => name.to_owned(),
        "2 text-only examples" => format!("{name}*"),
        other => format!("{name}, {other}"),
    })
}

/// How many questions were scored, in words.
pub fn coverage(result: &TaskResult) -> String {
    let (counted, unit) = (result.questions, result.task.unit());
    match result.complete {
        true if result.metrics.is_empty() => format!(
            "All {} {unit} of the split were answered.",
            counted.official
        ),
        true => format!("All {} {unit} of the split were scored.", counted.official),
        false => format!(
            "{} of {} {unit} were scored ({} usable, {} asked): not comparable with published numbers.",
            counted.scored, counted.official, counted.usable, counted.asked
        ),
    }
}

pub fn number(value: f64) -> String {
    format!("{value:.2}")
}
