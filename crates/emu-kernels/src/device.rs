//! Which device a model runs on.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;
#[cfg(not(target_family = "wasm"))]
use burn::tensor::wgpu::MemoryConfiguration;

#[cfg(not(target_family = "wasm"))]
use crate::adapters::{self, Adapter};

pub use crate::device_error::DeviceError;

/// The device that the user selects: `auto`, `gpu`, `cpu`, or an adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A hardware GPU if there is one, else the CPU backend.
    #[default]
    Auto,
    /// Any adapter, software ones included.
    Gpu,
    /// The CPU backend (Flex).
    Cpu,
    /// An adapter by index, as `gpu:1`, or by a substring of its name; see [`crate::adapters::find`].
    Called(String),
}

impl FromStr for DeviceChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "" => Err("give auto, gpu, cpu, or one of `emu devices`"),
            "auto" => Ok(Self::Auto),
            "gpu" => Ok(Self::Gpu),
            "cpu" => Ok(Self::Cpu),
            name => Ok(Self::Called(name.to_owned())),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Auto => "auto",
            Self::Gpu => "gpu",
            Self::Cpu => "cpu",
            Self::Called(name) => name,
        })
    }
}

/// Whether a device is the CPU backend (Flex).
#[cfg(feature = "flex")]
pub(crate) fn on_cpu(device: &Device) -> bool {
    *device == Device::flex()
}

/// Whether a device is the CPU backend (Flex), which this build lacks.
#[cfg(not(feature = "flex"))]
pub(crate) fn on_cpu(_device: &Device) -> bool {
    false
}

impl DeviceError {
    /// Stable error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoAdapter { .. } => "no-adapter",
            Self::UnknownAdapter { .. } => "unknown-adapter",
            Self::AmbiguousAdapter { .. } => "ambiguous-adapter",
            Self::NotOpened { .. } => "adapter-failed",
        }
    }
}

/// Maximum launches per submission: a token takes one submission in a model of 14 layers, three in one of 40. Where
/// launches are slow, [`crate::throttle`] lowers the limit.
pub const LAUNCHES: usize = 128;

/// An opened device.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Device for tensors.
    pub device: Device,
    /// Display name: the adapter's name and graphics API, or "CPU (Flex)".
    pub name: String,
    /// Whether it is a hardware GPU.
    pub hardware: bool,
    /// Bytes of the largest storage buffer that a kernel can bind, if limited.
    pub binding: Option<u64>,
}

/// Bytes of the largest buffer that can be allocated and bound.
#[cfg(feature = "wgpu")]
fn largest_binding(device: &burn::tensor::wgpu::wgpu::Device) -> u64 {
    let limits = device.limits();
    let bound = limits.max_storage_buffer_binding_size;
    bound.min(limits.max_buffer_size)
}

#[cfg(feature = "flex")]
fn cpu() -> Opened {
    Opened {
        device: Device::flex(),
        name: "CPU (Flex)".into(),
        hardware: false,
        binding: None,
    }
}

/// Whether a device runs asynchronously to the host: operations are only queued.
pub fn runs_behind(device: &Device) -> bool {
    !on_cpu(device)
}

/// Runs `make`, whose tensors live as long as a model: each gets a buffer of its exact size. Intermediate results share pages
/// or have buffers of rounded sizes, which would waste up to half as much again on weights. The buffer of a dropped tensor is
/// kept for a tensor of the same size, or until [`Device::memory_cleanup`].
pub fn persistent<T: Send>(device: &Device, make: impl FnOnce() -> T + Send) -> T {
    device.memory_persistent_allocations(make, |make| make())
}

/// Opens a native device for inference: each result has a buffer of its own, of a rounded size, as in a page. Next to weights
/// the waste is small, whereas pages shared by results would each be as large as the largest result.
///
/// # Errors
/// [`DeviceError::NoAdapter`] if a GPU is requested and none is found.
#[cfg(not(target_family = "wasm"))]
pub fn open(choice: DeviceChoice) -> Result<Opened, DeviceError> {
    open_with(choice, MemoryConfiguration::ExclusivePages)
}

/// Opens a native device for training: results share pages, since they are most of the memory. A GPU that the process has
/// already opened is returned as it is.
///
/// # Errors
/// As [`open`].
#[cfg(not(target_family = "wasm"))]
pub fn open_to_train(choice: DeviceChoice) -> Result<Opened, DeviceError> {
    open_with(choice, MemoryConfiguration::default())
}

/// Whether any adapter is a hardware GPU, so that [`DeviceChoice::Auto`] selects it.
#[cfg(not(target_family = "wasm"))]
pub fn has_hardware(adapters: &[Adapter]) -> bool {
    adapters.iter().any(|adapter| adapter.kind.is_hardware())
}

#[cfg(not(target_family = "wasm"))]
fn open_with(choice: DeviceChoice, memory: MemoryConfiguration) -> Result<Opened, DeviceError> {
    match choice {
        DeviceChoice::Cpu => Ok(cpu()),
        DeviceChoice::Gpu => gpu::open(None, memory),
        DeviceChoice::Auto if has_hardware(&adapters::list()) => gpu::open(None, memory),
        DeviceChoice::Auto => Ok(cpu()),
        DeviceChoice::Called(name) => {
            let adapters = adapters::list();
            let number = adapters::find(&name, &adapters)?;
            gpu::open(adapters.get(number), memory)
        }
    }
}

/// Opens the one device of a WASM module: the CPU, or the page's WebGPU.
///
/// # Errors
/// [`DeviceError::NoAdapter`] if the page has no WebGPU.
#[cfg(all(target_family = "wasm", feature = "flex"))]
pub async fn open_async() -> Result<Opened, DeviceError> {
    Ok(cpu())
}

/// Opens the one device of a WASM module: the CPU, or the page's WebGPU.
///
/// # Errors
/// [`DeviceError::NoAdapter`] if the page has no WebGPU.
#[cfg(all(target_family = "wasm", feature = "wgpu"))]
pub async fn open_async() -> Result<Opened, DeviceError> {
    let options = Device::wgpu_options().tasks_max(LAUNCHES);
    let options = options.init_with_setup_async().await;
    let (device, setup) = options.map_err(|e| DeviceError::NoAdapter {
        reason: e.to_string(),
    })?;
    let info = setup.adapter.get_info();
    crate::variants::opened(setup.device.features(), &info);
    Ok(Opened {
        device,
        name: info.name,
        hardware: info.device_type != burn::tensor::wgpu::wgpu::DeviceType::Cpu,
        binding: Some(largest_binding(&setup.device)),
    })
}

#[cfg(not(target_family = "wasm"))]
mod gpu {
    use std::sync::{Mutex, PoisonError};

    use burn::tensor::Device;
    use burn::tensor::wgpu::{MemoryConfiguration, wgpu};

    use super::{DeviceError, Opened};
    use crate::adapters::{self, Adapter};

    /// A property of the process: Burn registers only one wgpu device.
    static OPENED: Mutex<Option<Opened>> = Mutex::new(None);

    /// Opens an adapter, or wgpu's default one. A device that is already open is returned instead.
    pub fn open(
        wanted: Option<&Adapter>,
        memory: MemoryConfiguration,
    ) -> Result<Opened, DeviceError> {
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = &*opened {
            return Ok(opened.clone());
        }
        if wanted.is_none() && adapters::enumerate().is_empty() {
            return Err(DeviceError::NoAdapter {
                reason: adapters::NONE.into(),
            });
        }
        let mut options = Device::wgpu_options()
            .tasks_max(super::LAUNCHES)
            .memory_config(memory);
        if let Some(wanted) = wanted {
            let (kind, api) = wanted.selector();
            options = options.device_kind(kind).graphics_api(api);
        }
        let failed = |reason: String| match wanted {
            Some(Adapter { name, .. }) => DeviceError::NotOpened {
                wanted: name.clone(),
                reason,
            },
            None => DeviceError::NoAdapter { reason },
        };
        let (device, setup) = options
            .init_with_setup()
            .map_err(|e| failed(e.to_string()))?;
        let info = setup.adapter.get_info();
        if wanted.is_some_and(|wanted| !wanted.is(&info)) {
            return Err(failed(format!("{} answered in its place", info.name)));
        }
        let hardware = info.device_type != wgpu::DeviceType::Cpu;
        crate::variants::opened(setup.device.features(), &info);
        let new = Opened {
            device,
            name: format!("{} ({:?})", info.name, info.backend),
            hardware,
            binding: Some(super::largest_binding(&setup.device)),
        };
        *opened = Some(new.clone());
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_written_alike() {
        let called = |name: &str| DeviceChoice::Called(name.into());
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("gpu", DeviceChoice::Gpu),
            ("cpu", DeviceChoice::Cpu),
            ("gpu:1", called("gpu:1")),
            ("llvmpipe", called("llvmpipe")),
        ] {
            assert_eq!(text.parse(), Ok(choice.clone()));
            assert_eq!(choice.to_string(), text);
        }
        assert!(" ".parse::<DeviceChoice>().is_err());
    }

    /// `variants` keeps what is known of the device in one static. It relies on this.
    #[test]
    fn a_process_has_one_gpu_on_wgpu() {
        if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
            println!("SKIP one-gpu-wgpu: EMU_TEST_GPU is not 1");
            return;
        }
        let first = open(DeviceChoice::Gpu).expect("an adapter");
        let again = open_to_train(DeviceChoice::Gpu).expect("an adapter");
        assert_eq!((first.device, first.name), (again.device, again.name));
    }

    #[test]
    fn an_adapter_that_is_not_there_is_named() {
        let error = open(DeviceChoice::Called("abacus".into())).expect_err("no such adapter");
        assert_eq!(error.code(), "unknown-adapter");
        assert!(error.to_string().contains("abacus"), "{error}");
    }
}
