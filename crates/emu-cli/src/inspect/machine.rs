//! Device and memory of this machine.

use emu_kernels::adapters::{self, Adapter};
use emu_kernels::device::{DeviceChoice, DeviceError, open, runs_behind};
use emu_kernels::packed::keeps_halves;

use crate::environment::memory_available;

/// A device and its limits, where the system reports them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Human-readable name; `none` if the device could not be opened.
    pub device: String,
    /// Available bytes of main memory if the device keeps weights there; else bytes of the graphics card's memory, if its driver
    /// reports them.
    pub memory: Option<u64>,
    /// Bytes of the largest buffer that can be allocated and bound.
    pub largest_buffer: Option<u64>,
    /// Whether f16 matrices stay in f16 on the device.
    pub halves: bool,
    /// Error message if the device could not be opened.
    pub trouble: Option<String>,
}

impl Machine {
    /// Opens the device and reads its limits. A device that cannot be opened is part of the report.
    ///
    /// # Errors
    /// Where the user's device name matches no adapter, or several.
    pub fn look(choice: DeviceChoice) -> Result<Self, DeviceError> {
        let opened = match open(choice) {
            Ok(opened) => opened,
            Err(
                error @ (DeviceError::UnknownAdapter { .. } | DeviceError::AmbiguousAdapter { .. }),
            ) => return Err(error),
            Err(error) => {
                return Ok(Self {
                    device: "none".into(),
                    memory: memory_available(),
                    largest_buffer: None,
                    halves: false,
                    trouble: Some(error.to_string()),
                });
            }
        };
        // The CPU backend needs no query of graphics drivers.
        let listed = match runs_behind(&opened.device) {
            true => adapters::list(),
            false => vec![],
        };
        let mut listed = listed.into_iter();
        let adapter = listed.find(|adapter| title(adapter) == opened.name);
        let own = { adapter.as_ref() }.filter(|adapter| !adapter.shares_memory());
        Ok(Self {
            halves: keeps_halves(&opened.device),
            device: opened.name,
            memory: own.map_or_else(memory_available, |adapter| adapter.memory),
            largest_buffer: opened.binding,
            trouble: None,
        })
    }

    /// The limits of an adapter that is not opened: a process opens one.
    fn of(adapter: &Adapter) -> Self {
        Self {
            device: title(adapter),
            memory: match adapter.shares_memory() {
                true => memory_available(),
                false => adapter.memory,
            },
            largest_buffer: Some(adapter.largest_binding.min(adapter.largest_buffer)),
            // As every GPU does.
            halves: true,
            trouble: None,
        }
    }
}

/// Name of an adapter as that of an opened device.
fn title(adapter: &Adapter) -> String {
    format!("{} ({})", adapter.name, adapter.backend)
}

/// A device on which a model may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// As `--device` takes it: `cpu`, `gpu:0`.
    pub device: String,
    /// Its limits.
    pub machine: Machine,
}

/// The device that a command with this `--device` takes, and after it, with `auto`, all others.
///
/// # Errors
/// As [`Machine::look`].
pub fn candidates(choice: &DeviceChoice) -> Result<Vec<Candidate>, DeviceError> {
    let taken = Machine::look(choice.clone())?;
    if *choice == DeviceChoice::Cpu {
        return Ok(vec![Candidate {
            device: "cpu".into(),
            machine: taken,
        }]);
    }
    let adapters = adapters::list();
    let number = { adapters.iter() }.position(|adapter| title(adapter) == taken.device);
    let cpu = Machine::look(DeviceChoice::Cpu)?;
    let is_cpu = taken.device == cpu.device;
    let mut candidates = vec![Candidate {
        device: match number {
            Some(number) => format!("gpu:{number}"),
            None if is_cpu => "cpu".into(),
            None => choice.to_string(),
        },
        machine: taken,
    }];
    if *choice == DeviceChoice::Auto {
        let others = adapters.iter().enumerate();
        let others = others.filter(|(n, _)| Some(*n) != number);
        candidates.extend(others.map(|(n, adapter)| Candidate {
            device: format!("gpu:{n}"),
            machine: Machine::of(adapter),
        }));
        if !is_cpu {
            candidates.push(Candidate {
                device: "cpu".into(),
                machine: cpu,
            });
        }
    }
    Ok(candidates)
}
