//! The weights that may run: the pack as it is, or one of its conversions; and what each task takes with them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::machine::Candidate;
use super::needs::{self, TaskNeeds};
use super::subject::{Conversion, Subject};

/// Name of a pack that is run as it is.
pub const STORED: &str = "stored";

/// Weights at one precision.
pub struct Variant<'a> {
    /// [`STORED`], or a precision of `--quantize`.
    pub name: &'static str,
    /// The conversion that makes them; `None` for the pack as it is.
    pub conversion: Option<&'a Conversion>,
    /// Resources of the tasks on each candidate, in the order of the candidates. Every candidate has the same tasks.
    pub needs: Vec<Vec<TaskNeeds>>,
}

impl<'a> Variant<'a> {
    /// The pack as it is, if it is one, and the conversions.
    pub fn all(subject: &'a Subject, candidates: &[Candidate]) -> Vec<Self> {
        let stored = subject.pack.iter().map(|pack| (STORED, None, pack));
        let converted = subject.conversions.iter();
        let converted = converted.map(|to| (to.quantize, Some(to), &to.forecast.manifest));
        let variants = stored.chain(converted);
        variants
            .map(|(name, conversion, manifest)| {
                // The resources depend on this property of a device alone.
                let mut known: BTreeMap<bool, Vec<TaskNeeds>> = BTreeMap::new();
                let mut of = |halves: bool| {
                    let tasks = || needs::tasks(manifest, &subject.config, halves);
                    known.entry(halves).or_insert_with(tasks).clone()
                };
                let each = candidates.iter();
                Self {
                    name,
                    conversion,
                    needs: each.map(|candidate| of(candidate.machine.halves)).collect(),
                }
            })
            .collect()
    }

    /// As an element of the list of precisions. `free`: bytes of disk.
    pub fn to_json(&self, candidates: &[Candidate], free: Option<u64>) -> Value {
        let mut devices = serde_json::Map::new();
        for (candidate, tasks) in candidates.iter().zip(&self.needs) {
            let mut of = serde_json::Map::new();
            for task in tasks {
                let mut json = task.to_json(&candidate.machine);
                json["memory_bytes"] = task.memory().into();
                of.insert(task.name.into(), json);
            }
            devices.insert(candidate.device.clone(), of.into());
        }
        let conversion = self.conversion.map(|conversion| {
            let disk = conversion.forecast.disk;
            json!({
                "disk_bytes": disk, "memory_bytes": conversion.memory, "read_bytes": conversion.forecast.read,
                "encoding_seconds": conversion.encoding.as_secs_f64(), "fits": free.is_none_or(|free| free >= disk),
            })
        });
        json!({ "quantize": self.name, "conversion": conversion, "devices": devices })
    }
}
