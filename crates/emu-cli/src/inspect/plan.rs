//! Which weights a task runs with, on which device, and what to do where it does not run.

use serde_json::{Value, json};

use super::machine::Candidate;
use super::variant::{STORED, Variant};

/// The plan of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Name of the task.
    pub task: &'static str,
    /// Weights and device, as indices; `None` where it runs nowhere.
    pub at: Option<(usize, usize)>,
    /// The plan in a sentence, or why there is none and what to do.
    pub text: String,
}

/// Plans every task: on the device that a command takes, with the most accurate weights that fit there; else on another device.
pub fn plan(variants: &[Variant<'_>], candidates: &[Candidate]) -> Vec<Planned> {
    let tasks = variants.first().and_then(|variant| variant.needs.first());
    let tasks = tasks.into_iter().flatten().enumerate();
    tasks
        .map(|(task, needs)| {
            let reasons = |v: usize, c: usize| reasons(variants, candidates, (v, c, task));
            let pairs =
                (0..candidates.len()).flat_map(|c| (0..variants.len()).map(move |v| (v, c)));
            let at = { pairs }.find(|&(v, c)| reasons(v, c).is_empty());
            let text = match at {
                Some((v, c)) => found(&variants[v], candidates, c, &reasons(v, 0)),
                None => {
                    let memory = |v: &usize| {
                        let needs = variants[*v].needs.first().and_then(|all| all.get(task));
                        needs.map_or(u64::MAX, super::needs::TaskNeeds::memory)
                    };
                    let least = (0..variants.len()).min_by_key(memory).unwrap_or(0);
                    nowhere(&variants[least], candidates, &reasons(least, 0))
                }
            };
            Planned {
                task: needs.name,
                at,
                text,
            }
        })
        .collect()
}

/// Why a task does not run with these weights on this device; empty if it does.
fn reasons(
    variants: &[Variant<'_>],
    candidates: &[Candidate],
    (variant, candidate, task): (usize, usize, usize),
) -> Vec<String> {
    let needs =
        { variants.get(variant) }.and_then(|variant| variant.needs.get(candidate)?.get(task));
    match (needs, candidates.get(candidate)) {
        (Some(needs), Some(candidate)) => needs.reasons(&candidate.machine),
        _ => vec![],
    }
}

fn weights(variant: &Variant<'_>) -> String {
    match variant.name {
        STORED => "as it is".into(),
        name => format!("converted with --quantize {name}"),
    }
}

/// `before`: why the device that a command takes by itself is not the one.
fn found(
    variant: &Variant<'_>,
    candidates: &[Candidate],
    candidate: usize,
    before: &[String],
) -> String {
    let device = candidates.get(candidate);
    let device = device.map_or("none", |candidate| candidate.device.as_str());
    let text = format!("runs here {}, on {device}", weights(variant));
    match before.first() {
        Some(reason) if candidate > 0 => {
            let first = candidates.first().map_or("", |first| first.device.as_str());
            format!("{text} with --device {device}; not on {first}: {reason}")
        }
        _ => format!("{text}."),
    }
}

fn nowhere(variant: &Variant<'_>, candidates: &[Candidate], reasons: &[String]) -> String {
    let first = candidates.first().map_or("", |first| first.device.as_str());
    format!(
        "does not run here, also not {} on {first}: {}",
        weights(variant),
        reasons.join(" ")
    )
}

impl Planned {
    /// As an entry of the plan.
    pub fn to_json(&self, variants: &[Variant<'_>], candidates: &[Candidate]) -> Value {
        let at = self.at;
        json!({
            "runs": at.is_some(),
            "quantize": at.and_then(|(v, _)| variants.get(v)).map(|variant| variant.name),
            "device": at.and_then(|(_, c)| candidates.get(c)).map(|candidate| &candidate.device),
            "text": self.text,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::Machine;
    use super::super::needs::{ComponentNeeds, TaskNeeds};
    use super::super::working::Working;
    use super::*;

    fn candidate(device: &str, memory: u64) -> Candidate {
        Candidate {
            device: device.into(),
            machine: Machine {
                device: format!("the {device}"),
                memory: Some(memory),
                largest_buffer: None,
                halves: true,
                trouble: None,
            },
        }
    }

    /// Weights of these names, of which one task takes so much memory on every device.
    fn variants(of: &[(&'static str, u64)], devices: usize) -> Vec<Variant<'static>> {
        let needs = |resident: u64| TaskNeeds {
            name: "caption",
            sum: ComponentNeeds {
                resident,
                ..Default::default()
            },
            components: vec!["lm"],
            working: Working::default(),
        };
        let of = of.iter();
        of.map(|&(name, memory)| Variant {
            name,
            conversion: None,
            needs: vec![vec![needs(memory)]; devices],
        })
        .collect()
    }

    fn planned(of: &[(&'static str, u64)], memory: &[u64]) -> Planned {
        let devices = ["gpu:0", "cpu"].iter().zip(memory);
        let devices: Vec<Candidate> = devices
            .map(|(device, memory)| candidate(device, *memory))
            .collect();
        let mut plan = plan(&variants(of, devices.len()), &devices);
        assert_eq!(plan.len(), 1);
        plan.remove(0)
    }

    #[test]
    fn the_device_of_a_command_comes_before_accuracy() {
        let all = [("none", 100), ("q8", 40), ("q4", 20)];
        for (memory, at, words) in [
            ([100, 100], (0, 0), "--quantize none, on gpu:0."),
            ([99, 100], (1, 0), "--quantize q8, on gpu:0."),
            ([20, 1000], (2, 0), "--quantize q4, on gpu:0."),
            (
                [19, 45],
                (1, 1),
                "on cpu with --device cpu; not on gpu:0: It takes 40 B",
            ),
        ] {
            let plan = planned(&all, &memory);
            assert_eq!(plan.at, Some(at), "{}", plan.text);
            assert!(plan.text.contains(words), "{}", plan.text);
        }
        let plan = planned(&[(STORED, 50), ("none", 100), ("q4", 20)], &[60]);
        assert_eq!(plan.at, Some((0, 0)));
        assert_eq!(plan.text, "runs here as it is, on gpu:0.");
    }

    #[test]
    fn what_fits_nowhere_says_how_much_is_missing() {
        let plan = planned(&[(STORED, 50), ("none", 100), ("q4", 20)], &[10, 19]);
        assert_eq!(plan.at, None);
        for words in [
            "does not run here",
            "--quantize q4",
            "20 B of memory, and 10 B are free",
        ] {
            assert!(plan.text.contains(words), "{}", plan.text);
        }
    }
}
