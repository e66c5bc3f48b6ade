//! Whether a conversation asks for a picture, and whether the language model answers it alone: logistic regressions over the
//! hidden state that the answer begins from, and over attention values of a few tokens before it where that helps wordings
//! that were left out.

use std::path::Path;

use emu_model::reader::TriggerConfig;
use emu_pack::TensorData;
use serde::Deserialize;

use super::readings::Read;
use crate::TrainError;
use crate::checkpoint::{create_file, replace_file, replace_tensors};
use crate::logistic::{Calibrated, Examples};

/// How it is fitted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TriggerOptions {
    /// Tokens whose values are looked at, counted from the last one; as many of them, from the first on, as help.
    pub tokens: Vec<usize>,
    /// Penalties to choose from.
    pub penalties: Vec<f64>,
    /// Share of the other conversations that may be taken for requests where the threshold is set.
    pub false_alarms: f64,
}

impl TriggerOptions {
    /// What inference needs to know.
    pub fn model_config(&self) -> TriggerConfig {
        TriggerConfig {
            tokens: self.tokens.clone(),
        }
    }
}

/// The file of the logistic regressions in the folder of the run.
pub const TRIGGER: &str = "trigger.safetensors";
/// What they got wrong of what they never saw, beside it.
pub const MISSED: &str = "trigger-missed.txt";

/// Two kinds of conversations that are told apart.
pub(super) struct Classes<'a> {
    /// Of the regression's tensors and figures.
    pub name: &'static str,
    /// How it is fitted.
    pub rule: &'a TriggerOptions,
    /// What it is to find, every so many of each set.
    pub yes: Vec<(&'a Read, usize)>,
    /// What it is not to.
    pub no: Vec<(&'a Read, usize)>,
    /// What it is to find that it never saw.
    pub found: Vec<&'a Read>,
    /// What it is not to.
    pub quiet: Vec<&'a Read>,
}

/// A regression that was fitted.
struct Fitted {
    tensors: [TensorData; 2],
    /// How it does.
    figures: Vec<(String, f32)>,
    /// What it got wrong, a line each.
    wrong: String,
}

impl Classes<'_> {
    fn fit(&self) -> Result<Fitted, TrainError> {
        let Self { name, rule, .. } = self;
        let both = [(&self.yes, true), (&self.no, false)];
        let (mut rows, mut labels, mut groups) = (vec![], vec![], vec![]);
        let (mut hidden, mut inputs) = (0, 0);
        for (reads, is) in both {
            for (read, every) in reads {
                (hidden, inputs) = (read.states.width(), read.states.inputs);
                for i in (0..read.asked.len()).step_by((*every).max(1)) {
                    rows.extend(read.features(i, &rule.tokens));
                    labels.push(is);
                    groups.push(read.asked[i].wording);
                }
            }
        }
        let examples = Examples {
            rows: &rows,
            used: 0,
            labels: &labels,
            groups: &groups,
        };
        let used: Vec<usize> = { 0..=rule.tokens.len() }
            .map(|n| hidden + n * inputs)
            .collect();
        let found = Calibrated::fit(&examples, &used, &rule.penalties, rule.false_alarms)?;
        let width = hidden + rule.tokens.len() * inputs;
        // Conversations of a kind that it fires at, or those that it does not.
        let of = |read: &Read, fires: bool| -> Vec<String> {
            let scored = (0..read.asked.len()).map(|i| {
                let row = read.features(i, &rule.tokens);
                (
                    (found.classifier.score(&row) > 0.0) == fires,
                    &read.asked[i],
                )
            });
            let wrong = scored.filter(|(is, _)| *is);
            wrong
                .filter_map(|(_, asked)| Some(asked.messages.last()?.text.clone()))
                .collect()
        };
        let mut wrong = String::new();
        let mut figures = vec![
            (format!("{name}.penalty"), found.penalty as f32),
            (format!("{name}.numbers"), found.used as f32),
            (format!("{name}.left_out.recall"), found.recall),
            (format!("{name}.left_out.false_alarms"), found.false_alarms),
        ];
        for read in &self.found {
            let missed = of(read, false);
            let n = read.asked.len().max(1) as f32;
            let recall = 1.0 - missed.len() as f32 / n;
            figures.push((format!("{name}.{}.recall", read.name), recall));
            let lines = missed
                .iter()
                .map(|text| format!("- {}: {text}\n", read.name));
            wrong.extend(lines);
        }
        let alarms: Vec<String> = self.quiet.iter().flat_map(|read| of(read, true)).collect();
        let quiet: usize = self.quiet.iter().map(|read| read.asked.len()).sum();
        figures.push((format!("{name}.false_alarms"), alarms.len() as f32));
        figures.push((format!("{name}.false_alarms.of"), quiet as f32));
        wrong.extend(alarms.iter().map(|text| format!("+ {text}\n")));
        let tensors = [
            TensorData::from_f32(
                format!("{name}.weight"),
                vec![1, width],
                &found.classifier.weight,
            )?,
            TensorData::from_f32(format!("{name}.bias"), vec![1], &[found.classifier.bias])?,
        ];
        Ok(Fitted {
            tensors,
            figures,
            wrong,
        })
    }
}

/// Fits regressions, writes them and what they got wrong of what they never saw, and says how they do: shares of what they are
/// to find and never saw, and how much else that they never saw sets them off.
///
/// # Errors
/// Where one cannot be fitted or written.
pub(super) fn write(all: &[Classes<'_>], out: &Path) -> Result<Vec<(String, f32)>, TrainError> {
    let (mut tensors, mut figures) = (vec![], vec![]);
    let mut missed = String::new();
    for classes in all {
        let fitted = classes.fit()?;
        tensors.extend(fitted.tensors);
        figures.extend(fitted.figures);
        if all.len() > 1 {
            missed += &format!("# {}\n", classes.name);
        }
        missed += &fitted.wrong;
    }
    replace_file(&out.join(MISSED), missed.as_bytes(), &create_file)?;
    replace_tensors(&out.join(TRIGGER), &tensors)?;
    Ok(figures)
}
