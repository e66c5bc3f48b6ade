//! Compute devices of this machine: wgpu's adapters, and the CPU.

use burn::tensor::DeviceKind;
use burn::tensor::wgpu::{WgpuBackend, wgpu};

use crate::device_error::DeviceError;

/// Kind of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterKind {
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares main memory.
    Integrated,
    /// A GPU passed through to a virtual machine.
    Virtual,
    /// A software implementation that runs on the CPU.
    Software,
    /// Not reported by the driver.
    Other,
}

impl AdapterKind {
    /// Name for display and for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Software => "software",
            Self::Other => "other",
        }
    }

    /// Whether it is hardware, according to the driver.
    pub const fn is_hardware(self) -> bool {
        matches!(self, Self::Discrete | Self::Integrated | Self::Virtual)
    }

    const fn shares_memory(self) -> bool {
        matches!(self, Self::Integrated | Self::Software)
    }
}

impl From<wgpu::DeviceType> for AdapterKind {
    fn from(kind: wgpu::DeviceType) -> Self {
        match kind {
            wgpu::DeviceType::DiscreteGpu => Self::Discrete,
            wgpu::DeviceType::IntegratedGpu => Self::Integrated,
            wgpu::DeviceType::VirtualGpu => Self::Virtual,
            wgpu::DeviceType::Cpu => Self::Software,
            wgpu::DeviceType::Other => Self::Other,
        }
    }
}

/// An adapter as reported by wgpu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// Name reported by the driver.
    pub name: String,
    /// Kind of adapter.
    pub kind: AdapterKind,
    /// The graphics API: `Vulkan`, `Metal`, `Dx12`.
    pub backend: String,
    /// Driver name and version, as far as reported.
    pub driver: String,
    /// Bytes of the largest buffer.
    pub largest_buffer: u64,
    /// Bytes of the largest storage buffer binding.
    pub largest_binding: u64,
    /// Maximum invocations per workgroup.
    pub workgroup: u32,
    /// Bytes of workgroup memory.
    pub shared_memory: u32,
    /// Minimum and maximum subgroup size, if supported.
    pub subgroups: Option<(u32, u32)>,
    /// Whether kernels can compute in f16.
    pub f16: bool,
    /// Bytes of memory: dedicated, or main memory if shared.
    pub memory: Option<u64>,
    /// Index among adapters of the same kind and API, which is how Burn selects one.
    place: usize,
    api: WgpuBackend,
}

impl Adapter {
    fn new(adapter: &wgpu::Adapter) -> Self {
        let (info, limits) = (adapter.get_info(), adapter.limits());
        let features = adapter.features();
        let subgroups = features.contains(wgpu::Features::SUBGROUP);
        let kind = AdapterKind::from(info.device_type);
        let driver = [info.driver.as_str(), info.driver_info.as_str()];
        let driver: Vec<&str> = driver.into_iter().filter(|part| !part.is_empty()).collect();
        Self {
            kind,
            backend: format!("{:?}", info.backend),
            driver: driver.join(" "),
            largest_buffer: limits.max_buffer_size,
            largest_binding: limits.max_storage_buffer_binding_size,
            workgroup: limits.max_compute_invocations_per_workgroup,
            shared_memory: limits.max_compute_workgroup_storage_size,
            subgroups: subgroups.then_some((info.subgroup_min_size, info.subgroup_max_size)),
            f16: features.contains(wgpu::Features::SHADER_F16),
            memory: match kind {
                kind if kind.shares_memory() => memory("MemTotal"),
                _ => vulkan_memory(adapter),
            },
            name: info.name,
            place: 0,
            api: api(info.backend),
        }
    }

    /// Whether it shares main memory.
    pub const fn shares_memory(&self) -> bool {
        self.kind.shares_memory()
    }

    /// Burn's selector of this adapter.
    pub(crate) fn selector(&self) -> (DeviceKind, WgpuBackend) {
        let kind = match self.kind {
            AdapterKind::Discrete => DeviceKind::DiscreteGpu(self.place),
            AdapterKind::Integrated => DeviceKind::IntegratedGpu(self.place),
            AdapterKind::Virtual => DeviceKind::VirtualGpu(self.place),
            AdapterKind::Software => DeviceKind::Cpu,
            // Burn cannot number these.
            AdapterKind::Other => DeviceKind::DefaultDevice,
        };
        (kind, self.api)
    }

    /// Whether `info` describes this adapter or an identical one.
    pub(crate) fn is(&self, info: &wgpu::AdapterInfo) -> bool {
        self.name == info.name && self.api == api(info.backend)
    }
}

fn api(backend: wgpu::Backend) -> WgpuBackend {
    match backend {
        wgpu::Backend::Vulkan => WgpuBackend::Vulkan,
        wgpu::Backend::Metal => WgpuBackend::Metal,
        wgpu::Backend::Dx12 => WgpuBackend::Dx12,
        wgpu::Backend::Gl => WgpuBackend::Gl,
        wgpu::Backend::BrowserWebGpu => WgpuBackend::WebGpu,
        wgpu::Backend::Noop => WgpuBackend::Auto,
    }
}

/// The adapters of this machine, by index: the first is `gpu:0`.
pub fn list() -> Vec<Adapter> {
    numbered(enumerate().iter().map(Adapter::new).collect())
}

/// The wgpu adapters in the same order, with nothing queried yet.
pub(crate) fn enumerate() -> Vec<wgpu::Adapter> {
    // Backends with compute shaders; probing OpenGL without a display prints warnings.
    let backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    burn::tensor::read_sync(instance.enumerate_adapters(backends))
}

/// Sets each adapter's index among those of its kind and API.
fn numbered(mut adapters: Vec<Adapter>) -> Vec<Adapter> {
    for at in 0..adapters.len() {
        let (before, from) = adapters.split_at_mut(at);
        if let Some(adapter) = from.first_mut() {
            let alike = |other: &&Adapter| other.kind == adapter.kind && other.api == adapter.api;
            adapter.place = before.iter().filter(alike).count();
        }
    }
    adapters
}

/// Index of the adapter that the user selects: `gpu:1`, or a case-insensitive substring of a name.
///
/// # Errors
/// No adapter at all, no match, or several.
pub fn find(wanted: &str, adapters: &[Adapter]) -> Result<usize, DeviceError> {
    let unknown = || DeviceError::UnknownAdapter {
        wanted: wanted.into(),
        listed: match adapters {
            [] => "there is none at all".into(),
            some => listed(some.iter().enumerate()),
        },
    };
    if let Some(number) = wanted.strip_prefix("gpu:") {
        let number: Option<usize> = number.parse().ok();
        return match adapters {
            [] => Err(DeviceError::NoAdapter {
                reason: NONE.into(),
            }),
            some => number.filter(|n| *n < some.len()).ok_or_else(unknown),
        };
    }
    let part = wanted.to_lowercase();
    let found = adapters.iter().enumerate();
    let found: Vec<_> = found
        .filter(|(_, adapter)| adapter.name.to_lowercase().contains(&part))
        .collect();
    match found.as_slice() {
        [] => Err(unknown()),
        // The same adapter through several APIs is one adapter.
        [(number, first), others @ ..]
            if { others.iter() }.all(|(_, o)| o.name == first.name && o.api != first.api) =>
        {
            Ok(*number)
        }
        several => Err(DeviceError::AmbiguousAdapter {
            wanted: wanted.into(),
            listed: listed(several.iter().copied()),
        }),
    }
}

/// Reason reported when there is no adapter.
pub(crate) const NONE: &str = "the system lists none";

fn listed<'a>(adapters: impl Iterator<Item = (usize, &'a Adapter)>) -> String {
    let shown = adapters.map(|(n, adapter)| {
        let Adapter { name, backend, .. } = adapter;
        format!("gpu:{n} is {name} ({backend})")
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Properties of the CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Model name, if reported by the system.
    pub name: Option<String>,
    /// Size of the thread pool.
    pub threads: usize,
    /// Instruction sets available to matrix products.
    pub features: Vec<&'static str>,
    /// Bytes of main memory, if reported by the system.
    pub memory: Option<u64>,
}

/// Detects the CPU.
pub fn cpu() -> Cpu {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = { text.lines() }
        .filter(|line| line.starts_with("model name"))
        .find_map(|line| Some(line.split_once(':')?.1.trim().to_owned()));
    Cpu {
        name,
        threads: rayon::current_num_threads(),
        features: cpu_features(),
        memory: memory("MemTotal"),
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<&'static str> {
    let all = [
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
    ];
    there(&all)
}

#[cfg(target_arch = "aarch64")]
fn cpu_features() -> Vec<&'static str> {
    let all = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
        (
            "dotprod",
            std::arch::is_aarch64_feature_detected!("dotprod"),
        ),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
    ];
    there(&all)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_features() -> Vec<&'static str> {
    there(&[])
}

fn there(features: &[(&'static str, bool)]) -> Vec<&'static str> {
    let found = features.iter().filter(|(_, there)| *there);
    found.map(|(name, _)| *name).collect()
}

/// Bytes of main memory, if reported by the system: total (`MemTotal`) or available to programs (`MemAvailable`).
pub fn memory(field: &str) -> Option<u64> {
    bytes_in("/proc/meminfo", field)
}

/// Largest amount of main memory that this process has held so far, in bytes, if reported by the system.
pub fn peak_memory() -> Option<u64> {
    bytes_in("/proc/self/status", "VmHWM")
}

/// A line `FIELD: N kB` of one of the system's files, in bytes.
fn bytes_in(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Bytes of an adapter's dedicated memory, which Vulkan reports but WebGPU does not.
#[cfg(any(target_os = "linux", target_os = "windows"))]
fn vulkan_memory(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: no handle of the adapter is destroyed or kept beyond this function.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = adapter.shared_instance().raw_instance();
    // SAFETY: the device belongs to this instance, and both live as long as `adapter`.
    let properties =
        unsafe { instance.get_physical_device_memory_properties(adapter.raw_physical_device()) };
    // VK_MEMORY_HEAP_DEVICE_LOCAL_BIT
    let local = |flags: u32| flags & 1 != 0;
    let heaps = properties.memory_heaps_as_slice().iter();
    let heaps = heaps.filter(|heap| local(heap.flags.as_raw()));
    heaps.map(|heap| heap.size).max()
}

#[cfg(not(any(target_os = "linux", target_os = "windows")))]
fn vulkan_memory(_adapter: &wgpu::Adapter) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, kind: AdapterKind, api: WgpuBackend) -> Adapter {
        Adapter {
            name: name.into(),
            kind,
            backend: format!("{api:?}"),
            driver: String::new(),
            largest_buffer: 1 << 30,
            largest_binding: 1 << 27,
            workgroup: 256,
            shared_memory: 1 << 14,
            subgroups: None,
            f16: false,
            memory: None,
            place: 0,
            api,
        }
    }

    fn machine() -> Vec<Adapter> {
        use AdapterKind::{Discrete, Integrated, Software};
        use WgpuBackend::{Dx12, Vulkan};
        numbered(vec![
            adapter("GeForce RTX 4090", Discrete, Vulkan),
            adapter("GeForce RTX 4090", Discrete, Vulkan),
            adapter("Intel Arc", Integrated, Vulkan),
            adapter("llvmpipe", Software, Vulkan),
            adapter("Intel Arc", Integrated, Dx12),
        ])
    }

    #[test]
    fn adapters_are_found_by_number_and_name() {
        let all = machine();
        for (wanted, number) in [
            ("gpu:0", 0),
            ("gpu:1", 1),
            ("gpu:4", 4),
            ("arc", 2),
            ("LLVM", 3),
        ] {
            assert_eq!(find(wanted, &all).expect(wanted), number);
        }
        assert!(matches!(
            all[1].selector(),
            (DeviceKind::DiscreteGpu(1), WgpuBackend::Vulkan)
        ));
        assert!(matches!(
            all[4].selector(),
            (DeviceKind::IntegratedGpu(0), WgpuBackend::Dx12)
        ));
    }

    #[test]
    fn names_that_fit_none_or_several_are_told_with_the_list() {
        let all = machine();
        for wanted in ["gpu:5", "gpu:", "gpu:-1", "gpu:x", "radeon"] {
            let error = find(wanted, &all).expect_err(wanted);
            assert_eq!(error.code(), "unknown-adapter", "{wanted}");
            let text = error.to_string();
            assert!(
                text.contains(wanted) && text.contains("gpu:3 is llvmpipe (Vulkan)"),
                "{text}"
            );
        }
        for wanted in ["geforce", "r"] {
            let error = find(wanted, &all).expect_err(wanted);
            assert_eq!(error.code(), "ambiguous-adapter", "{wanted}");
            assert!(error.to_string().contains("gpu:1 is GeForce RTX 4090"));
        }
        for (wanted, code) in [("gpu:0", "no-adapter"), ("arc", "unknown-adapter")] {
            let error = find(wanted, &[]).expect_err(wanted);
            assert_eq!(error.code(), code, "{wanted}");
        }
    }

    #[test]
    fn the_cpu_says_what_it_is() {
        let cpu = cpu();
        assert!(cpu.threads >= 1);
        if cfg!(target_os = "linux") {
            assert!(cpu.memory.is_some_and(|bytes| bytes > 1 << 26));
        }
    }
}
