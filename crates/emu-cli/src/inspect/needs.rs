//! Resources that a pack needs, per component and per supported task.

use std::collections::BTreeMap;

use emu_model::pack::{DECODER, LM, ModelConfig, SAFETY, VISION};
use emu_pack::Manifest;
use serde_json::{Value, json};

use super::machine::Machine;
use super::working::{LARGE, Task, Working};
use crate::output::bytes;

/// Resources of one component.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ComponentNeeds {
    /// Bytes of its shards.
    pub download: u64,
    /// Number of its shards.
    pub shards: usize,
    /// Number of weights, without scales and minima of quantized blocks.
    pub parameters: u64,
    /// Bytes of its weights in memory.
    pub resident: u64,
    /// Bytes of its largest tensor in memory, which is one buffer, bound as a whole.
    pub largest_buffer: u64,
    /// Bytes of its largest tensor as stored.
    pub largest_stored: u64,
}

impl ComponentNeeds {
    pub fn to_json(self) -> Value {
        json!({
            "bytes": self.download, "shards": self.shards, "parameters": self.parameters,
            "resident_bytes": self.resident, "largest_buffer": self.largest_buffer,
            "largest_stored": self.largest_stored,
        })
    }
}

/// Resources of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskNeeds {
    /// Name of the task, see [`Task::name`].
    pub name: &'static str,
    /// Sum over its components.
    pub sum: ComponentNeeds,
    /// Names of its components.
    pub components: Vec<&'static str>,
    /// Memory needed besides the weights.
    pub working: Working,
}

impl TaskNeeds {
    /// Bytes of weights, cache and activations in memory.
    pub fn memory(&self) -> u64 {
        self.sum.resident + self.working.bytes()
    }

    /// Reasons why a machine cannot run it; empty if it can.
    pub fn reasons(&self, machine: &Machine) -> Vec<String> {
        let mut reasons: Vec<String> = machine.trouble.iter().cloned().collect();
        if let Some(free) = machine.memory.filter(|free| *free < self.memory()) {
            reasons.push(format!(
                "It takes {} of memory, and {} are free. Close other programs, or use a smaller pack.",
                bytes(self.memory()),
                bytes(free)
            ));
        }
        if let Some(limit) = machine.largest_buffer
            && limit < self.sum.largest_buffer
        {
            reasons.push(format!(
                "Its largest tensor takes {}, and {} allows {} in one buffer. Use --device cpu.",
                bytes(self.sum.largest_buffer),
                machine.device,
                bytes(limit)
            ));
        }
        if let Some(limit) = machine.largest_buffer
            && limit < self.working.largest
        {
            reasons.push(format!(
                "Its keys and activations take a buffer of {}, and {} allows {} in one. Use --device cpu.",
                bytes(self.working.largest),
                machine.device,
                bytes(limit)
            ));
        }
        reasons
    }

    pub fn to_json(&self, machine: &Machine) -> Value {
        let reasons = self.reasons(machine);
        json!({
            "components": self.components, "download_bytes": self.sum.download, "resident_bytes": self.sum.resident,
            "cache_bytes": self.working.cache, "activation_bytes": self.working.activations,
            "largest_working": self.working.largest, "largest_buffer": self.sum.largest_buffer,
            "largest_stored": self.sum.largest_stored, "runs": reasons.is_empty(), "reasons": reasons,
        })
    }
}

/// Resources of each component. `halves`: whether f16 matrices stay packed in memory.
pub fn components(manifest: &Manifest, halves: bool) -> BTreeMap<String, ComponentNeeds> {
    let mut needs: BTreeMap<String, ComponentNeeds> = BTreeMap::new();
    for (name, component) in &manifest.components {
        let need = needs.entry(name.clone()).or_default();
        need.download = component.bytes;
        need.shards = component.shards.len();
    }
    let logical = manifest.logical_tensors();
    let values: BTreeMap<&str, u64> = logical
        .iter()
        .map(|tensor| {
            let sizes = tensor.shape.iter().map(|&n| n as u64);
            (tensor.name.as_str(), sizes.product())
        })
        .collect();
    for tensor in &manifest.tensors {
        let need = needs.entry(tensor.component.clone()).or_default();
        let stored = tensor
            .info()
            .byte_len()
            .map_or(u64::MAX, |bytes| bytes as u64);
        need.largest_stored = need.largest_stored.max(stored);
        need.parameters += values.get(tensor.name.as_str()).copied().unwrap_or(0);
        let resident = manifest.resident_bytes(tensor, halves);
        need.resident += resident;
        need.largest_buffer = need.largest_buffer.max(resident);
    }
    needs
}

/// Resources of each task that the pack has the components for. `halves` as for [`components`].
pub fn tasks(manifest: &Manifest, config: &ModelConfig, halves: bool) -> Vec<TaskNeeds> {
    let components = components(manifest, halves);
    let task = |task: Task, wanted: &[&'static str]| TaskNeeds {
        name: task.name(),
        sum: wanted
            .iter()
            .filter_map(|part| components.get(*part))
            .fold(ComponentNeeds::default(), |a, b| a.and(b)),
        components: { wanted.iter().copied() }
            .filter(|part| components.contains_key(*part))
            .collect(),
        working: Working::of(config, task, 1),
    };
    let mut tasks = vec![
        task(Task::Encode, &[VISION]),
        task(Task::Caption, &[VISION, LM]),
        task(Task::Chat, &[VISION, LM]),
    ];
    if let Some(decoder) = &config.decoder {
        let parts = [VISION, LM, DECODER, SAFETY];
        tasks.push(task(Task::Draw, &parts));
        let fits = LARGE.is_multiple_of(decoder.vae.factor());
        if fits && decoder.image_size != LARGE {
            tasks.push(task(Task::DrawLarge, &parts));
        }
    }
    tasks
}

impl ComponentNeeds {
    /// Sum of two components.
    fn and(self, other: &Self) -> Self {
        Self {
            download: self.download + other.download,
            shards: self.shards + other.shards,
            parameters: self.parameters + other.parameters,
            resident: self.resident + other.resident,
            largest_buffer: self.largest_buffer.max(other.largest_buffer),
            largest_stored: self.largest_stored.max(other.largest_stored),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(resident: u64, cache: u64, largest_buffer: u64) -> TaskNeeds {
        TaskNeeds {
            name: "chat",
            sum: ComponentNeeds {
                resident,
                largest_buffer,
                ..Default::default()
            },
            components: vec![LM],
            working: Working {
                cache,
                ..Default::default()
            },
        }
    }

    fn machine(memory: Option<u64>, largest_buffer: Option<u64>) -> Machine {
        Machine {
            device: "a GPU".into(),
            memory,
            largest_buffer,
            halves: true,
            trouble: None,
        }
    }

    #[test]
    fn each_shortage_is_a_reason_of_its_own() {
        let task = task(100, 20, 60);
        assert!(task.reasons(&machine(Some(120), Some(60))).is_empty());
        assert!(task.reasons(&machine(None, None)).is_empty());
        let short = task.reasons(&machine(Some(119), Some(60)));
        assert!(
            short.len() == 1 && short[0].contains("119 B are free"),
            "{short:?}"
        );
        let narrow = task.reasons(&machine(Some(120), Some(59)));
        assert!(
            narrow.len() == 1 && narrow[0].contains("a GPU allows 59 B"),
            "{narrow:?}"
        );
        let mut none = machine(Some(0), Some(0));
        let wide = TaskNeeds {
            working: Working {
                largest: 61,
                ..task.working
            },
            ..task.clone()
        };
        let narrow = wide.reasons(&machine(None, Some(60)));
        assert!(
            narrow.len() == 1 && narrow[0].contains("a buffer of 61 B, and a GPU allows 60 B"),
            "{narrow:?}"
        );
        none.trouble = Some("No GPU adapter was found.".into());
        assert_eq!(task.reasons(&none).len(), 3);
    }
}
