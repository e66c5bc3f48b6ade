//! Whether a conversation asks for a picture: a logistic regression over the hidden state that the answer begins from, and over
//! attention values of a few tokens before it where that helps wordings that were left out.

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

/// The file of the logistic regression in the folder of the run.
pub const TRIGGER: &str = "trigger.safetensors";
/// What it got wrong of what it never saw, beside it.
pub const MISSED: &str = "trigger-missed.txt";

/// Fits the logistic regression, writes it and says how it does: shares of the requests that it never saw, and how many of the
/// other prompts that it never saw set it off.
///
/// # Errors
/// Where it cannot be fitted or written.
pub(super) fn trigger(
    options: &TriggerOptions,
    requests: &Read,
    others: &Read,
    held_out: &[Read],
    quiet: &Read,
    out: &Path,
) -> Result<Vec<(String, f32)>, TrainError> {
    let both = [(requests, true), (others, false)];
    let features = |read: &Read| -> Vec<f32> {
        let each = (0..read.asked.len()).map(|i| read.features(i, &options.tokens));
        each.collect::<Vec<_>>().concat()
    };
    let rows: Vec<f32> = both.iter().flat_map(|(r, _)| features(r)).collect();
    let labels: Vec<bool> = { both.iter() }
        .flat_map(|(r, is)| r.asked.iter().map(|_| *is))
        .collect();
    let groups: Vec<usize> = { both.iter() }
        .flat_map(|(r, _)| r.asked.iter().map(|a| a.wording))
        .collect();
    let examples = Examples {
        rows: &rows,
        used: 0,
        labels: &labels,
        groups: &groups,
    };
    let (hidden, inputs) = (requests.states.width(), requests.states.inputs);
    let used: Vec<usize> = { 0..=options.tokens.len() }
        .map(|n| hidden + n * inputs)
        .collect();
    let found = Calibrated::fit(&examples, &used, &options.penalties, options.false_alarms)?;
    let width = hidden + options.tokens.len() * inputs;
    // Conversations of a kind that it fires at, or those that it does not.
    let of = |read: &Read, fires: bool| -> Vec<String> {
        let rows = features(read);
        let rows = rows.chunks_exact(width).zip(&read.asked);
        rows.filter(|(row, _)| (found.classifier.score(row) > 0.0) == fires)
            .filter_map(|(_, asked)| Some(asked.messages.last()?.text.clone()))
            .collect()
    };
    let mut wrong = String::new();
    let mut figures = vec![
        ("trigger.penalty".to_string(), found.penalty as f32),
        ("trigger.numbers".to_string(), found.used as f32),
        ("trigger.left_out.recall".to_string(), found.recall),
        (
            "trigger.left_out.false_alarms".to_string(),
            found.false_alarms,
        ),
    ];
    for read in held_out {
        let missed = of(read, false);
        let n = read.asked.len().max(1) as f32;
        figures.push((
            format!("trigger.{}.recall", read.name),
            1.0 - missed.len() as f32 / n,
        ));
        let lines = missed
            .iter()
            .map(|text| format!("- {}: {text}\n", read.name));
        wrong.extend(lines);
    }
    let alarms = of(quiet, true);
    figures.push(("trigger.false_alarms".into(), alarms.len() as f32));
    figures.push(("trigger.false_alarms.of".into(), quiet.asked.len() as f32));
    wrong.extend(alarms.iter().map(|text| format!("+ {text}\n")));
    replace_file(&out.join(MISSED), wrong.as_bytes(), &create_file)?;
    let tensors = [
        TensorData::from_f32("trigger.weight", vec![1, width], &found.classifier.weight)?,
        TensorData::from_f32("trigger.bias", vec![1], &[found.classifier.bias])?,
    ];
    replace_tensors(&out.join(TRIGGER), &tensors)?;
    Ok(figures)
}
