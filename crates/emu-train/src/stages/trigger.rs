//! Logistic regressions on the language model's states: whether a conversation requests a picture, and whether the
//! language model answers it without the soft prompt. The inputs are the hidden state before the answer, and the
//! attention values of a few preceding tokens if they improve the cross-validated result.

use std::path::Path;

use emu_model::reader::TriggerConfig;
use emu_pack::TensorData;
use serde::Deserialize;

use super::readings::Read;
use crate::TrainError;
use crate::checkpoint::{create_file, replace_file, replace_tensors};
use crate::logistic::{Calibrated, Examples};

/// Settings of a fit.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TriggerOptions {
    /// Tokens whose values may be used, counted from the last one. Cross-validation selects how many of them, from the
    /// first on.
    pub tokens: Vec<usize>,
    /// Penalties to try.
    pub penalties: Vec<f64>,
    /// Maximum share of negative conversations above the threshold.
    pub false_alarms: f64,
}

impl TriggerOptions {
    /// The configuration for inference.
    pub fn model_config(&self) -> TriggerConfig {
        TriggerConfig {
            tokens: self.tokens.clone(),
        }
    }
}

/// Name of the file with the logistic regressions in the run's folder.
pub const TRIGGER: &str = "trigger.safetensors";
/// Name of the file with the errors on held-out conversations, beside it.
pub const MISSED: &str = "trigger-missed.txt";

/// The two classes of conversations of a regression.
pub(super) struct Classes<'a> {
    /// Name of the regression, used for its tensors and figures.
    pub name: &'static str,
    /// Settings of the fit.
    pub rule: &'a TriggerOptions,
    /// Positive training sets, each with a stride: every n-th conversation is used.
    pub yes: Vec<(&'a Read, usize)>,
    /// Negative training sets.
    pub no: Vec<(&'a Read, usize)>,
    /// Positive held-out sets.
    pub found: Vec<&'a Read>,
    /// Negative held-out sets.
    pub quiet: Vec<&'a Read>,
}

/// A fitted regression.
struct Fitted {
    tensors: [TensorData; 2],
    /// Its figures by name.
    figures: Vec<(String, f32)>,
    /// Its errors, one per line.
    wrong: String,
}

impl Classes<'_> {
    /// Fits the regression.
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
        // Last messages of the conversations whose prediction equals `fires`.
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

/// Fits the regressions, and writes them and their errors on held-out conversations. Returns the figures: recall on
/// positive held-out sets, and the number of false alarms on negative ones.
///
/// # Errors
/// If a regression cannot be fitted or written.
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
