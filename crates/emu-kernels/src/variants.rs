//! Selection of GPU kernel variants: subgroup variants only where the opened device has subgroups, software variants where
//! the opened device is a software adapter.
//!
//! The kernels assume neither a subgroup size nor a mapping of invocations to subgroups.
//!
//! What is known of the device is one static, because the device is a property of the process: `device::open` opens one wgpu
//! device and returns it to every caller, since Burn registers only one. All models of a process run on it, and therefore run
//! the same variants. What tests and measurements force belongs to the scope that is open on their thread.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use burn::tensor::wgpu::wgpu;

/// What is known of the process's GPU. Written when it is opened, and then constant.
static OPENED: Opened = Opened {
    lanes: AtomicU32::new(0),
    software: AtomicBool::new(false),
    said: AtomicU32::new(0),
};

struct Opened {
    /// Minimum subgroup size; 0 without subgroups.
    lanes: AtomicU32,
    /// Whether it is a software adapter.
    software: AtomicBool,
    /// The environment variable EMU_SUBGROUPS: 1 for "0", 2 for "1", 0 otherwise.
    said: AtomicU32,
}

/// Minimum subgroup size from which frequent or large reductions gain by subgroups. Measured with 8 (lavapipe): norms and
/// attention of a step are as fast or faster, the sampler is slower by a fifth, matrix products by a tenth.
const WIDE: u32 = 16;

/// Variants that a scope forces.
#[derive(Clone, Copy, Debug)]
struct Forced {
    subgroups: Option<bool>,
    software: Option<bool>,
    /// Size of emulated subgroups, and the stride between their invocations, which is odd.
    #[cfg(test)]
    emulated: Option<(usize, usize)>,
}

impl Forced {
    const NOTHING: Self = Self {
        subgroups: None,
        software: None,
        #[cfg(test)]
        emulated: None,
    };
}

thread_local! {
    /// What the innermost open scope of this thread forces. Opened by tests and measurements alone.
    static OPEN: Cell<Forced> = const { Cell::new(Forced::NOTHING) };
}

/// Records the features of the opened device.
pub(crate) fn opened(features: wgpu::Features, info: &wgpu::AdapterInfo) {
    let lanes = match features.contains(wgpu::Features::SUBGROUP) {
        true => info.subgroup_min_size.max(1),
        false => 0,
    };
    OPENED.lanes.store(lanes, Ordering::Relaxed);
    let software = match std::env::var("EMU_SOFTWARE").as_deref() {
        Ok("0") => false,
        Ok("1") => true,
        _ => info.device_type == wgpu::DeviceType::Cpu,
    };
    OPENED.software.store(software, Ordering::Relaxed);
    let said = match std::env::var("EMU_SUBGROUPS").as_deref() {
        Ok("0") => 1,
        Ok("1") => 2,
        _ => 0,
    };
    OPENED.said.store(said, Ordering::Relaxed);
}

/// Records the minimum subgroup size of a device whose subgroups wgpu does not know of: its WebGPU neither requests nor
/// reports them.
pub fn opened_with_subgroups(invocations: u32) {
    OPENED.lanes.store(invocations, Ordering::Relaxed);
}

/// Whether a kernel uses subgroups, given that it wants at least `least` invocations in each.
fn decide(lanes: u32, asked: Option<bool>, least: u32) -> bool {
    lanes > 0 && asked.unwrap_or(lanes >= least)
}

fn chosen(least: u32) -> bool {
    let said = OPENED.said.load(Ordering::Relaxed);
    let forced = OPEN.get().subgroups;
    let asked = forced.or((said > 0).then_some(said == 2));
    decide(OPENED.lanes.load(Ordering::Relaxed), asked, least)
}

/// Whether the opened device has subgroups.
pub fn has_subgroups() -> bool {
    OPENED.lanes.load(Ordering::Relaxed) > 0
}

/// Whether kernels launched by this thread use subgroups: kernels that gain by any size.
pub fn subgroups() -> bool {
    chosen(1)
}

/// Whether kernels launched by this thread use subgroups: kernels that gain only by wide ones.
pub fn wide_subgroups() -> bool {
    chosen(WIDE)
}

/// Whether kernels launched by this thread use quad operations of a subgroup.
pub fn quads() -> bool {
    OPENED.lanes.load(Ordering::Relaxed) >= 4 && chosen(4)
}

/// Whether kernels launched by this thread are the variants for software adapters.
pub fn software() -> bool {
    let forced = OPEN.get().software;
    forced.unwrap_or_else(|| OPENED.software.load(Ordering::Relaxed))
}

/// Runs `f` without subgroups, then with them where the opened device has them.
pub fn each(mut f: impl FnMut()) {
    with_subgroups(false, &mut f);
    if has_subgroups() {
        with_subgroups(true, f);
    }
}

/// Runs `f` with each of the hardware variants, then with each of the software variants.
pub fn each_of_all(mut f: impl FnMut()) {
    for software in [false, true] {
        with_software(software, || each(&mut f));
    }
}

/// An open scope. Holds what the enclosing scope forces, and restores it on drop.
struct Scope(Forced);

impl Drop for Scope {
    fn drop(&mut self) {
        OPEN.set(self.0);
    }
}

/// Runs `f` in a scope that forces what `force` adds to the enclosing scope.
fn with<T>(force: impl FnOnce(&mut Forced), f: impl FnOnce() -> T) -> T {
    let outer = OPEN.get();
    let mut forced = outer;
    force(&mut forced);
    let _scope = Scope(outer);
    OPEN.set(forced);
    f()
}

/// Runs `f` with subgroups on or off for launches on this thread; always off where the device has none. For tests and
/// measurements; programs are controlled by the environment: `EMU_SUBGROUPS=0` or `1`.
pub fn with_subgroups<T>(on: bool, f: impl FnOnce() -> T) -> T {
    with(|forced| forced.subgroups = Some(on), f)
}

/// Runs `f` with software variants on or off for launches on this thread; every device runs both. For tests and
/// measurements; programs are controlled by the environment: `EMU_SOFTWARE=0` or `1`.
pub fn with_software<T>(on: bool, f: impl FnOnce() -> T) -> T {
    with(|forced| forced.software = Some(on), f)
}

/// Runs `f` with emulated subgroups of `lanes` invocations with an odd stride of `step`.
#[cfg(test)]
pub(crate) fn with_emulated<T>(lanes: usize, step: usize, f: impl FnOnce() -> T) -> T {
    let force = |forced: &mut Forced| {
        // Variants for software adapters use quads, which are not emulated.
        *forced = Forced {
            subgroups: Some(true),
            software: Some(false),
            emulated: Some((lanes, step)),
        };
    };
    with(force, f)
}

/// Size and stride of emulated subgroups, inside [`with_emulated`].
#[cfg(test)]
pub(crate) fn emulated() -> Option<(usize, usize)> {
    OPEN.get().emulated
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{self, DeviceChoice};

    #[test]
    fn nothing_uses_what_is_not_there() {
        for asked in [None, Some(false), Some(true)] {
            assert!(!decide(0, asked, 1) && !decide(0, asked, WIDE));
        }
        assert!(decide(4, None, 1) && !decide(4, None, WIDE));
        assert!(decide(32, None, 1) && decide(32, None, WIDE));
        assert!(decide(4, Some(true), WIDE) && !decide(32, Some(false), 1));
    }

    /// Emulates subgroups in shared memory: every size, with contiguous invocations and with strided ones.
    #[test]
    fn subgroups_of_any_size_on_wgpu() {
        if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
            println!("SKIP subgroups-wgpu: EMU_TEST_GPU is not 1");
            return;
        }
        let device = device::open(DeviceChoice::Gpu).expect("an adapter").device;
        let concerned = [
            "packed layers",
            "attention over a cache",
            "layer norm",
            "root-mean-square norm",
            "group norm with SiLU",
            "choosing a token",
        ];
        let cases = crate::selftest::CASES.iter();
        let cases: Vec<_> = cases.filter(|c| concerned.contains(&c.operation)).collect();
        assert_eq!(cases.len(), concerned.len());
        for (lanes, step) in [(4, 5), (8, 1), (16, 5), (32, 1), (64, 5), (128, 1)] {
            with_emulated(lanes, step, || {
                for case in &cases {
                    let found = burn::tensor::read_sync(case.run(&device));
                    assert!(
                        found.is_ok(),
                        "subgroups of {lanes}, {step} apart: {found:?}"
                    );
                }
            });
        }
    }

    #[test]
    fn a_scope_restores_what_the_enclosing_one_forces() {
        with_software(true, || {
            with_emulated(8, 3, || {
                assert_eq!((emulated(), software()), (Some((8, 3)), false));
                with_software(true, || assert_eq!(emulated(), Some((8, 3))));
            });
            assert_eq!((emulated(), software()), (None, true));
        });
        // Another thread has no scope open.
        with_emulated(8, 3, || {
            let other = std::thread::spawn(emulated).join();
            assert_eq!(other.expect("no panic"), None);
        });
    }
}
