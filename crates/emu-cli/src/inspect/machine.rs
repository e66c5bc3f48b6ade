//! Device and memory of this machine.

use emu_kernels::adapters;
use emu_kernels::device::{DeviceChoice, DeviceError, open, runs_behind};
use emu_kernels::packed::keeps_halves;

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
        let adapter = listed.find(|a| format!("{} ({})", a.name, a.backend) == opened.name);
        let own = { adapter.as_ref() }.filter(|adapter| !adapter.shares_memory());
        Ok(Self {
            halves: keeps_halves(&opened.device),
            device: opened.name,
            memory: own.map_or_else(memory_available, |adapter| adapter.memory),
            largest_buffer: opened.binding,
            trouble: None,
        })
    }
}

/// Memory available to programs, where the system reports it.
pub fn memory_available() -> Option<u64> {
    adapters::memory("MemAvailable")
}
