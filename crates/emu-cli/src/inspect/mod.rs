//! `emu inspect`

mod machine;
mod needs;
mod working;

use std::collections::BTreeMap;

use anyhow::Result;
use emu_model::pack::ModelConfig;
use emu_pack::Manifest;
use serde_json::{Value, json};

use crate::args::InspectArgs;
use crate::output::{bytes, json_line, print_now, spinner};
use crate::runtime::open_pack;
use machine::Machine;
pub use machine::memory_available;
use needs::{ComponentNeeds, TaskNeeds};

/// Shows what a pack contains, what it needs, and whether this machine can run it.
pub fn run(args: &InspectArgs) -> Result<()> {
    let reader = open_pack(args.pack.as_deref())?;
    let manifest = reader.manifest();
    let config = ModelConfig::from_value(&manifest.config)?;
    if args.verify {
        let waiting = spinner("checking every byte");
        reader.verify()?;
        waiting.finish_and_clear();
    }
    let machine = Machine::look(args.device.choice())?;
    let report = Report {
        manifest,
        summary: summary(&config),
        components: needs::components(manifest, machine.halves),
        tasks: needs::tasks(manifest, &config, machine.halves),
        machine,
        verified: args.verify,
    };
    match args.json {
        true => json_line(&report.json()),
        false => print_now(&report.text()),
    }
}

struct Report<'a> {
    manifest: &'a Manifest,
    summary: Value,
    components: BTreeMap<String, ComponentNeeds>,
    tasks: Vec<TaskNeeds>,
    machine: Machine,
    verified: bool,
}

impl Report<'_> {
    /// Reasons why this machine cannot run some task of the pack, without duplicates.
    fn reasons(&self) -> Vec<String> {
        let mut reasons = vec![];
        for reason in self.tasks.iter().flat_map(|t| t.reasons(&self.machine)) {
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        reasons
    }

    fn stored(&self) -> u64 {
        self.manifest.shards.iter().map(|shard| shard.bytes).sum()
    }

    fn resident(&self) -> u64 {
        self.components.values().map(|need| need.resident).sum()
    }

    fn json(&self) -> Value {
        let (manifest, machine, reasons) = (self.manifest, &self.machine, self.reasons());
        let components: BTreeMap<&String, Value> = { self.components.iter() }
            .map(|(name, need)| (name, need.to_json()))
            .collect();
        let tasks: BTreeMap<&str, Value> = { self.tasks.iter() }
            .map(|task| (task.name, task.to_json(machine)))
            .collect();
        json!({
            "name": manifest.name, "license": manifest.license, "attribution": manifest.attribution,
            "format": manifest.format, "model": self.summary, "components": components, "tasks": tasks,
            "bytes": self.stored(), "loaded_bytes": self.resident(), "quantized": manifest.quantization.len(),
            "requires": manifest.requires, "verified": self.verified, "device": machine.device,
            "memory_available": machine.memory, "largest_buffer_available": machine.largest_buffer,
            "runs": reasons.is_empty(), "reasons": reasons,
        })
    }

    fn text(&self) -> String {
        let (manifest, machine) = (self.manifest, &self.machine);
        let mut lines = vec![
            format!(
                "{} ({}) {}",
                manifest.name, manifest.license, manifest.attribution
            ),
            format!("model      {}", self.summary),
            format!(
                "stored     {}, {} tensors quantized",
                bytes(self.stored()),
                manifest.quantization.len()
            ),
            format!(
                "{:10} {:>12} {:>11} {:>11} {:>11}",
                "", "parameters", "download", "in memory", "one tensor"
            ),
        ];
        for (name, need) in &self.components {
            lines.push(format!(
                "{name:10} {:>12} {:>11} {:>11} {:>11}",
                need.parameters,
                bytes(need.download),
                bytes(need.resident),
                bytes(need.largest_buffer)
            ));
        }
        let memory = machine.memory.map_or_else(|| "unknown".into(), bytes);
        let buffer = machine.largest_buffer.map_or_else(String::new, |limit| {
            format!("; largest buffer: {}", bytes(limit))
        });
        lines.push(format!(
            "here       {}; memory free: {memory}{buffer}",
            machine.device
        ));
        for task in &self.tasks {
            let verdict = match task.reasons(machine).as_slice() {
                [] => "runs here".to_owned(),
                reasons => format!("does not run here: {}", reasons.join(" ")),
            };
            lines.push(format!(
                "{:10} {} to download, {} of memory ({} of it cache, about {} activations); {verdict}",
                task.name,
                bytes(task.sum.download),
                bytes(task.memory()),
                bytes(task.working.cache),
                bytes(task.working.activations)
            ));
        }
        lines.join("\n") + "\n"
    }
}

/// The model's sizes.
fn summary(config: &ModelConfig) -> Value {
    let emu = &config.emu;
    json!({
        "picture": emu.vision.image_size, "embeddings": emu.queries(),
        "encoder": [emu.vision.layers, emu.vision.width], "causal": emu.causal.as_ref().map(|c| [c.layers, c.d_model]), "names": emu.namer.as_ref().map(|n| n.names),
        "lm": [emu.lm.layers, emu.lm.width], "vocabulary": emu.lm.vocab, "context": emu.lm.context,
        "adapter": emu.adapter.map(|a| a.rank), "draws": config.decoder.as_ref().map(|d| d.image_size),
        "checks": config.safety.is_some(),
    })
}
