//! Report of a conversion: sizes, and the error of every tensor.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use emu_pack::Manifest;
use emu_pack::convert::{Loss, Outcome};
use serde_json::{Value, json};

use super::Converted;
use crate::args::ConvertArgs;
use crate::output::{bytes, json_line, print_now};

/// Number of worst tensors in the summary.
const WORST: usize = 3;

/// Prints the summary, and writes the table of all tensors if it was requested.
pub fn report(args: &ConvertArgs, converted: &Converted) -> Result<()> {
    let Converted {
        manifest,
        outcomes,
        kept_shards,
    } = converted;
    if let Some(path) = &args.errors {
        write_table(path, outcomes)?;
    }
    let groups = groups(outcomes);
    let total: u64 = manifest.shards.iter().map(|shard| shard.bytes).sum();
    if args.json {
        let components: BTreeMap<&String, u64> = { manifest.components.iter() }
            .map(|(name, part)| (name, part.bytes))
            .collect();
        let errors: Vec<Value> = groups.iter().map(Group::to_json).collect();
        return json_line(&json!({
            "out": args.out, "bytes": total, "tensors": manifest.tensors.len(), "shards": manifest.shards.len(),
            "kept_shards": kept_shards, "components": components, "errors": errors,
            "worst": worst(outcomes).into_iter().map(row).collect::<Vec<_>>(),
        }));
    }
    print_now(&text(
        args,
        manifest,
        *kept_shards,
        &groups,
        outcomes,
        total,
    ))
}

fn text(
    args: &ConvertArgs,
    manifest: &Manifest,
    kept: usize,
    groups: &[Group<'_>],
    outcomes: &[Outcome],
    total: u64,
) -> String {
    let mut lines = vec![format!(
        "{:10} {:6} {:>7} {:>10} {:>14} {:>10}",
        "component", "stored", "tensors", "bytes", "relative error", "greatest"
    )];
    lines.extend(groups.iter().map(|group| {
        format!(
            "{:10} {:6} {:>7} {:>10} {:>14.2e} {:>10.2e}",
            group.component,
            group.stored,
            group.tensors,
            bytes(group.bytes),
            group.loss.relative(),
            group.loss.worst
        )
    }));
    for outcome in worst(outcomes) {
        let error = outcome.loss.relative();
        lines.push(format!("most lost: {} {error:.2e}", outcome.tensor));
    }
    if kept > 0 {
        lines.push(format!("{kept} shards of an interrupted run were kept"));
    }
    lines.push(format!(
        "{}: {} tensors in {} shards, {}",
        args.out.display(),
        manifest.tensors.len(),
        manifest.shards.len(),
        bytes(total)
    ));
    lines.join("\n") + "\n"
}

/// Tensors of one component with the same storage type.
struct Group<'a> {
    component: &'a str,
    stored: &'a str,
    tensors: usize,
    bytes: u64,
    loss: Loss,
}

impl Group<'_> {
    fn to_json(&self) -> Value {
        json!({
            "component": self.component, "stored": self.stored, "tensors": self.tensors, "bytes": self.bytes,
            "relative_error": self.loss.relative(), "greatest_error": self.loss.worst,
        })
    }
}

fn groups(outcomes: &[Outcome]) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<(&str, &str), Group<'_>> = BTreeMap::new();
    for outcome in outcomes {
        let (component, stored) = (outcome.component.as_str(), outcome.stored.as_str());
        let group = groups.entry((component, stored)).or_insert(Group {
            component,
            stored,
            tensors: 0,
            bytes: 0,
            loss: Loss::default(),
        });
        group.tensors += 1;
        group.bytes += outcome.bytes;
        group.loss = group.loss.and(outcome.loss);
    }
    groups.into_values().collect()
}

/// The lossy tensors with the greatest relative error.
fn worst(outcomes: &[Outcome]) -> Vec<&Outcome> {
    let lossy = outcomes.iter().filter(|o| o.loss.squared_error > 0.0);
    let mut outcomes: Vec<&Outcome> = lossy.collect();
    outcomes.sort_by(|a, b| b.loss.relative().total_cmp(&a.loss.relative()));
    outcomes.truncate(WORST);
    outcomes
}

fn row(outcome: &Outcome) -> Value {
    json!({
        "tensor": outcome.tensor, "component": outcome.component, "shape": outcome.shape, "stored": outcome.stored,
        "bytes": outcome.bytes, "relative_error": outcome.loss.relative(), "greatest_error": outcome.loss.worst,
        "greatest_value": outcome.loss.largest,
    })
}

/// Writes one JSON object per tensor and line.
fn write_table(path: &Path, outcomes: &[Outcome]) -> Result<()> {
    let lines: String = outcomes.iter().map(|o| format!("{}\n", row(o))).collect();
    std::fs::write(path, lines).with_context(|| {
        format!(
            "The table of errors cannot be written to {}; check the path (the pack itself is finished)",
            path.display()
        )
    })
}
