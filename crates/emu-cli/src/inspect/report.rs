//! The report, and its form for programs.

use std::collections::BTreeMap;

use emu_model::pack::ModelConfig;
use emu_pack::Manifest;
use serde_json::{Map, Value, json};

use super::machine::Candidate;
use super::needs::{ComponentNeeds, TaskNeeds};
use super::plan::Planned;
use super::subject::Subject;
use super::variant::Variant;
use super::working::Task;

/// Everything that is told.
pub struct Report<'a> {
    /// The pack or checkpoint.
    pub subject: &'a Subject,
    /// The pack's contents, if it is one.
    pub stored: Option<Stored<'a>>,
    /// The model's sizes.
    pub summary: Value,
    /// Devices; the first is the one that a command takes.
    pub candidates: &'a [Candidate],
    /// Weights that may run. Of a pack, the first are the pack's.
    pub variants: &'a [Variant<'a>],
    /// The plan of every task.
    pub plan: Vec<Planned>,
    /// Free bytes of disk in the current folder, if the system reports them.
    pub free: Option<u64>,
    /// Bytes of main memory available to programs, if the system reports them.
    pub memory: Option<u64>,
}

/// Contents of a pack.
pub struct Stored<'a> {
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// Resources of its components on the device that a command takes.
    pub components: BTreeMap<String, ComponentNeeds>,
    /// Whether every byte was verified.
    pub verified: bool,
}

impl Stored<'_> {
    /// Bytes of the shards.
    pub fn bytes(&self) -> u64 {
        self.manifest.shards.iter().map(|shard| shard.bytes).sum()
    }
}

impl Report<'_> {
    /// As one JSON object.
    pub fn json(&self) -> Value {
        let subject = self.subject;
        let taken = self.candidates.first().map(|taken| &taken.machine);
        let devices: Vec<Value> = { self.candidates.iter().enumerate() }
            .map(|(i, candidate)| {
                let machine = &candidate.machine;
                json!({
                    "device": candidate.device, "name": machine.device, "taken": i == 0,
                    "memory_available": machine.memory, "largest_buffer_available": machine.largest_buffer,
                    "trouble": machine.trouble,
                })
            })
            .collect();
        let precisions = self.variants.iter();
        let precisions: Vec<Value> = precisions
            .map(|variant| variant.to_json(self.candidates, self.free))
            .collect();
        let plan: Map<String, Value> = { self.plan.iter() }
            .map(|planned| {
                let json = planned.to_json(self.variants, self.candidates);
                (planned.task.to_owned(), json)
            })
            .collect();
        let download = subject.download.as_ref();
        let mut json = json!({
            "source": subject.source, "kind": if self.stored.is_some() { "pack" } else { "checkpoint" },
            "name": subject.name, "model": self.summary,
            "device": taken.map(|taken| &taken.device),
            "memory_available": taken.and_then(|taken| taken.memory),
            "largest_buffer_available": taken.and_then(|taken| taken.largest_buffer),
            "disk_available": self.free, "devices": devices, "precisions": precisions, "plan": plan,
            "download": download.map(|download| json!({
                "bytes": download.bytes, "missing_bytes": download.missing, "disk_available": download.free,
            })),
            "notes": subject.notes,
        });
        if let (Some(stored), Some(object)) = (&self.stored, json.as_object_mut()) {
            self.add_stored(stored, object);
        }
        json
    }

    /// Adds what only a pack has.
    fn add_stored(&self, stored: &Stored<'_>, object: &mut Map<String, Value>) {
        let manifest = stored.manifest;
        let components: BTreeMap<&String, Value> = { stored.components.iter() }
            .map(|(name, need)| (name, need.to_json()))
            .collect();
        let resident: u64 = stored.components.values().map(|need| need.resident).sum();
        let needs = self
            .variants
            .first()
            .and_then(|variant| variant.needs.first());
        let needs: &[TaskNeeds] = needs.map_or(&[][..], Vec::as_slice);
        let mut tasks = Map::new();
        let mut reasons: Vec<String> = vec![];
        if let Some(taken) = self.candidates.first() {
            for task in needs {
                tasks.insert(task.name.into(), task.to_json(&taken.machine));
            }
            // A size other than the pack's own is no task of the pack.
            let own = needs
                .iter()
                .filter(|task| task.name != Task::DrawLarge.name());
            for reason in own.flat_map(|task| task.reasons(&taken.machine)) {
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
        }
        let more = json!({
            "license": manifest.license, "attribution": manifest.attribution, "format": manifest.format,
            "components": components, "tasks": tasks, "bytes": stored.bytes(), "loaded_bytes": resident,
            "quantized": manifest.quantization.len(), "requires": manifest.requires, "verified": stored.verified,
            "runs": reasons.is_empty(), "reasons": reasons,
        });
        if let Value::Object(more) = more {
            object.extend(more);
        }
    }
}

/// The model's sizes.
pub fn summary(config: &ModelConfig) -> Value {
    let emu = &config.emu;
    json!({
        "picture": emu.vision.image_size, "embeddings": emu.queries(),
        "encoder": [emu.vision.layers, emu.vision.width], "causal": emu.causal.as_ref().map(|c| [c.layers, c.d_model]), "names": emu.namer.as_ref().map(|n| n.names),
        "lm": [emu.lm.layers, emu.lm.width], "vocabulary": emu.lm.vocab, "context": emu.lm.context,
        "adapter": emu.adapter.map(|a| a.rank), "draws": config.decoder.as_ref().map(|d| d.image_size),
        "checks": config.safety.is_some(),
    })
}
