//! What this machine offers.

use emu_kernels::burn::tensor::read_sync;
use emu_kernels::burn::tensor::wgpu::wgpu;
use emu_kernels::device::{DeviceChoice, open};
use emu_kernels::packed::keeps_halves;

/// A device and its limits, as far as the system tells them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// For people; `none` where it could not be opened.
    pub device: String,
    /// Bytes of main memory that a program can have, where the weights lie in it. What a graphics card has of its own
    /// no interface tells.
    pub memory: Option<u64>,
    /// Bytes of the largest buffer that can be made and bound.
    pub largest_buffer: Option<u64>,
    /// Whether matrices of f16 stay so on it.
    pub halves: bool,
    /// Why the device could not be opened.
    pub trouble: Option<String>,
}

impl Machine {
    /// Opens the device and looks.
    pub fn look(choice: DeviceChoice) -> Self {
        let opened = match open(choice) {
            Ok(opened) => opened,
            Err(error) => {
                return Self {
                    device: "none".into(),
                    memory: memory_available(),
                    largest_buffer: None,
                    halves: false,
                    trouble: Some(error.to_string()),
                };
            }
        };
        let adapter = adapter(&opened.name);
        let discrete = adapter.as_ref().is_some_and(|(kind, _)| {
            matches!(
                kind,
                wgpu::DeviceType::DiscreteGpu | wgpu::DeviceType::VirtualGpu
            )
        });
        Self {
            halves: keeps_halves(&opened.device),
            device: opened.name,
            memory: if discrete { None } else { memory_available() },
            largest_buffer: adapter.map(|(_, largest)| largest),
            trouble: None,
        }
    }
}

/// Kind of the adapter of this name, and the largest buffer it can bind; none for the CPU.
fn adapter(name: &str) -> Option<(wgpu::DeviceType, u64)> {
    if name.starts_with("CPU (") {
        return None;
    }
    let backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters = read_sync(instance.enumerate_adapters(backends));
    let found = adapters.into_iter().find(|adapter| {
        let info = adapter.get_info();
        format!("{} ({:?})", info.name, info.backend) == name
    })?;
    let limits = found.limits();
    let binding = limits.max_storage_buffer_binding_size;
    let largest = limits.max_buffer_size.min(binding);
    Some((found.get_info().device_type, largest))
}

/// Memory that programs can have, where the system says so.
pub fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
