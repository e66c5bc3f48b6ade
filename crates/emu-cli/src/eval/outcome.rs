//! What all measurements of `emu eval` have in common: the intervals, and what is printed.

use anyhow::Result;
use emu_eval::tasks::Evaluated;
use serde_json::json;

use crate::args::EvalArgs;
use crate::output::{json_line, print_now};

/// Resamples of the confidence intervals.
pub const RESAMPLES: usize = 1000;

/// Prints a result: its metrics and the files that were written, or all of it as a line of JSON.
///
/// # Errors
/// Where stdout is closed.
pub fn print(args: &EvalArgs, evaluated: &Evaluated) -> Result<()> {
    let result = &evaluated.result;
    if args.model.json {
        let submission = evaluated.submission.as_ref().map(|file| &file.path);
        return json_line(&json!({
            "result": result, "files": evaluated.files, "submission": submission,
        }));
    }
    let names = result.metrics.iter().map(|metric| metric.name.len());
    let width = names.max().unwrap_or_default().max(24);
    for metric in &result.metrics {
        let interval = metric.interval.map_or(String::new(), |interval| {
            format!(" ({:.2} to {:.2})", interval.low, interval.high)
        });
        print_now(&format!(
            "{:<width$} {:>8.2}{interval}  of {}\n",
            metric.name, metric.value, metric.questions
        ))?;
    }
    if !result.problems.is_empty() {
        eprintln!("note: {}", result.problems);
    }
    for file in &evaluated.files {
        print_now(&format!("{}\n", file.display()))?;
    }
    Ok(())
}
