//! What this machine offers.

use emu_kernels::adapters;
use emu_kernels::device::{DeviceChoice, DeviceError, open, runs_behind};
use emu_kernels::packed::keeps_halves;

/// A device and its limits, as far as the system tells them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// For people; `none` where it could not be opened.
    pub device: String,
    /// Bytes of main memory that a program can have, where the weights lie in it; else bytes of the graphics card, where its
    /// driver says.
    pub memory: Option<u64>,
    /// Bytes of the largest buffer that can be made and bound.
    pub largest_buffer: Option<u64>,
    /// Whether matrices of f16 stay so on it.
    pub halves: bool,
    /// Why the device could not be opened.
    pub trouble: Option<String>,
}

impl Machine {
    /// Opens the device and looks. One that does not open is part of what is told.
    ///
    /// # Errors
    /// Where no adapter is called as the user says, or several are.
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
        // No driver is asked where the CPU computes.
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

/// Memory that programs can have, where the system says so.
pub fn memory_available() -> Option<u64> {
    adapters::memory("MemAvailable")
}
