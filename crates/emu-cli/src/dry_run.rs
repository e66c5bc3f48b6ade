//! `emu train --dry-run`: what a run needs, from its configuration alone.

use anyhow::Result;
use emu_kernels::adapters;
use emu_train::TrainConfig;
use emu_train::needs::{BatchNeeds, Needs, PartNeeds, needs};
use serde_json::json;

use crate::output::{bytes, json_line, print_now};

/// Prints what a run needs, and what of it fits `memory` bytes; without a number, the memory that is free here.
///
/// # Errors
/// If the configuration is wrong, or its stage has no dry run.
pub fn run(config: &TrainConfig, memory: Option<u64>, json: bool) -> Result<()> {
    let found = needs(config)?;
    let memory = memory.or_else(|| adapters::memory("MemAvailable"));
    match json {
        true => json_line(&as_json(config, &found, memory)),
        false => print_now(&(table(config, &found, memory).join("\n") + "\n")),
    }
}

/// The largest micro-batch of a data set in this memory; `None` if not even the weights fit.
fn fitting(needs: &Needs, batch: &BatchNeeds, memory: u64) -> Option<u64> {
    memory
        .checked_sub(needs.resident())
        .map(|free| batch.fitting(free))
}

fn as_json(config: &TrainConfig, found: &Needs, memory: Option<u64>) -> serde_json::Value {
    let part = |part: &PartNeeds| {
        json!({
            "name": part.name, "parameters": part.parameters, "trainable": part.trainable, "weights": part.weights,
            "gradients": part.gradients, "moments": part.moments, "average": part.average, "bytes": part.bytes(),
        })
    };
    let batch = |batch: &BatchNeeds| {
        json!({
            "name": batch.name, "samples": batch.samples, "pictures": batch.pictures, "tokens": batch.tokens,
            "activation_bytes": batch.activations(),
            "fitting_samples": memory.and_then(|memory| fitting(found, batch, memory)),
        })
    };
    json!({
        "stage": config.stage, "steps": config.steps, "samples_per_step": config.samples_per_step(),
        "parts": found.parts.iter().map(part).collect::<Vec<_>>(), "sum": part(&found.sum()),
        "beside_bytes": found.beside, "resident_bytes": found.resident(),
        "batches": found.batches.iter().map(batch).collect::<Vec<_>>(), "on_host": found.on_host,
        "peak_bytes": found.peak(), "checkpoint_bytes": found.checkpoint(), "memory_bytes": memory,
        "fits": memory.map(|memory| found.peak() <= memory),
    })
}

fn table(config: &TrainConfig, found: &Needs, memory: Option<u64>) -> Vec<String> {
    let size = |n: u64| if n == 0 { "-".into() } else { bytes(n) };
    let names = found.parts.iter().map(|part| &part.name);
    let names = names.chain(found.batches.iter().map(|batch| &batch.name));
    let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
    let row = |cells: [&str; 7]| row(width, cells);
    let mut lines = vec![
        format!(
            "stage         {}, {} steps of {} samples",
            config.stage,
            config.steps,
            config.samples_per_step()
        ),
        String::new(),
        row([
            "part",
            "parameters",
            "learn",
            "weights",
            "gradients",
            "moments",
            "average",
        ]),
    ];
    let cells = |part: &PartNeeds| {
        row([
            part.name.as_str(),
            &part.parameters.to_string(),
            &part.trainable.to_string(),
            &size(part.weights),
            &size(part.gradients),
            &size(part.moments),
            &size(part.average),
        ])
    };
    lines.extend(found.parts.iter().map(cells));
    lines.push(cells(&found.sum()));
    if found.beside > 0 {
        lines.push(format!(
            "beside        {}: the frozen model that gives the embeddings",
            bytes(found.beside)
        ));
    }
    lines.extend([
        format!("held          {}", bytes(found.resident())),
        String::new(),
        row([
            "data set",
            "samples",
            "pictures",
            "tokens",
            "activations",
            "a sample",
            "fit",
        ]),
    ]);
    for batch in &found.batches {
        let fit = memory.map(|memory| fitting(found, batch, memory).unwrap_or(0));
        lines.push(row([
            batch.name.as_str(),
            &batch.samples.to_string(),
            &batch.pictures.to_string(),
            &batch.tokens.to_string(),
            &bytes(batch.activations()),
            &bytes(batch.sample_bytes),
            &fit.map_or("-".into(), |fit| fit.to_string()),
        ]));
    }
    let device = if found.on_host { "the CPU" } else { "a GPU" };
    lines.extend([
        String::new(),
        format!(
            "peak          about {}, with the activations of {device}",
            bytes(found.peak())
        ),
        format!(
            "checkpoint    {}, which main memory holds too while it is written",
            bytes(found.checkpoint())
        ),
    ]);
    lines.extend(memory.map(|memory| verdict(found, memory)));
    lines
}

/// A row of a table: a cell of at least `width` characters, and narrow ones to the right.
fn row(width: usize, [first, others @ ..]: [&str; 7]) -> String {
    let others = others.map(|cell| format!("{cell:>14}")).concat();
    format!("{first:<width$}{others}", width = width.max(28))
}

/// Whether it fits, and what to change if it does not.
fn verdict(found: &Needs, memory: u64) -> String {
    let sum = found.sum();
    let of = bytes(memory);
    if found.peak() <= memory {
        return format!("It fits {of}.");
    }
    if found.resident() <= memory {
        let one = found
            .batches
            .iter()
            .all(|batch| fitting(found, batch, memory) >= Some(1));
        return match one {
            true => format!(
                "It does not fit {of} in these batches. Take batches of at most what the column `fit` says, and raise `accumulate`."
            ),
            false => format!(
                "It does not fit {of}: not even one sample does of each data set. Lower `tokens` of those whose column `fit` says 0."
            ),
        };
    }
    if sum.weights + found.beside <= memory {
        return format!(
            "It does not fit {of}: {} are held before any batch. Frozen, the weights take {}: train adapters \
             (options.adapter) or fewer parts.",
            bytes(found.resident()),
            bytes(sum.weights + found.beside)
        );
    }
    format!(
        "It does not fit {of}: the weights alone take {}. It needs a device with more memory, or a smaller model.",
        bytes(sum.weights + found.beside)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Needs {
        Needs {
            parts: vec![PartNeeds {
                name: "lm".into(),
                parameters: 10,
                trainable: 10,
                weights: 40,
                gradients: 40,
                moments: 80,
                average: 0,
            }],
            beside: 0,
            batches: vec![BatchNeeds {
                name: "pairs".into(),
                samples: 4,
                pictures: 1,
                tokens: 9,
                sample_bytes: 100,
            }],
            on_host: false,
        }
    }

    #[test]
    fn each_shortage_has_an_advice_of_its_own() {
        let found = example();
        assert_eq!(found.peak(), 560);
        for (memory, words) in [
            (560, "It fits"),
            (559, "raise `accumulate`"),
            (260, "raise `accumulate`"),
            (259, "Lower `tokens`"),
            (160, "Lower `tokens`"),
            (159, "train adapters"),
            (40, "train adapters"),
            (39, "smaller model"),
        ] {
            let said = verdict(&found, memory);
            assert!(said.contains(words), "{memory}: {said}");
        }
        assert_eq!(fitting(&found, &found.batches[0], 460), Some(3));
        assert_eq!(fitting(&found, &found.batches[0], 159), None);
    }

    #[test]
    fn columns_stand_below_each_other_beside_long_paths() {
        let mut found = example();
        found.batches[0].name = "data/{sharegpt,alpaca}/train (instruct)".into();
        let paper = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../configs/train/paper/instruct.toml");
        let config = TrainConfig::read(paper).expect("a configuration");
        let lines = table(&config, &found, Some(1000));
        let ends: Vec<usize> = ["part", "lm", "sum", "data set", "data/{sharegpt"]
            .map(|start| {
                let row = lines.iter().find(|line| line.starts_with(start));
                row.expect(start).len()
            })
            .to_vec();
        assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
    }
}
