//! Selection of GPU kernel variants: subgroup variants only where the opened device has subgroups, software variants where
//! the opened device is a software adapter.
//!
//! The kernels assume neither a subgroup size nor a mapping of invocations to subgroups.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use burn::tensor::wgpu::wgpu;

/// Minimum subgroup size of the opened device; 0 without subgroups.
static LANES: AtomicU32 = AtomicU32::new(0);
/// Whether the opened device is a software adapter.
static SOFTWARE: AtomicBool = AtomicBool::new(false);
/// The environment variable EMU_SUBGROUPS: 1 for "0", 2 for "1", 0 otherwise.
static SAID: AtomicU32 = AtomicU32::new(0);

/// Minimum subgroup size from which frequent or large reductions gain by subgroups. Measured with 8 (lavapipe): norms and
/// attention of a step are as fast or faster, the sampler is slower by a fifth, matrix products by a tenth.
const WIDE: u32 = 16;

thread_local! {
    /// Subgroup override of this thread.
    static ASKED: Cell<Option<bool>> = const { Cell::new(None) };
    /// Software-variant override of this thread.
    static SOFTWARE_ASKED: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Records the features of the opened device.
pub(crate) fn opened(features: wgpu::Features, info: &wgpu::AdapterInfo) {
    let lanes = match features.contains(wgpu::Features::SUBGROUP) {
        true => info.subgroup_min_size.max(1),
        false => 0,
    };
    LANES.store(lanes, Ordering::Relaxed);
    let software = match std::env::var("EMU_SOFTWARE").as_deref() {
        Ok("0") => false,
        Ok("1") => true,
        _ => info.device_type == wgpu::DeviceType::Cpu,
    };
    SOFTWARE.store(software, Ordering::Relaxed);
    let said = match std::env::var("EMU_SUBGROUPS").as_deref() {
        Ok("0") => 1,
        Ok("1") => 2,
        _ => 0,
    };
    SAID.store(said, Ordering::Relaxed);
}

/// Records the minimum subgroup size of a device whose subgroups wgpu does not know of: its WebGPU neither requests nor
/// reports them.
pub fn opened_with_subgroups(invocations: u32) {
    LANES.store(invocations, Ordering::Relaxed);
}

/// Whether a kernel uses subgroups, given that it wants at least `least` invocations in each.
fn decide(lanes: u32, asked: Option<bool>, least: u32) -> bool {
    lanes > 0 && asked.unwrap_or(lanes >= least)
}

fn chosen(least: u32) -> bool {
    let said = SAID.load(Ordering::Relaxed);
    let asked = ASKED.get().or((said > 0).then_some(said == 2));
    decide(LANES.load(Ordering::Relaxed), asked, least)
}

/// Whether the opened device has subgroups.
pub fn has_subgroups() -> bool {
    LANES.load(Ordering::Relaxed) > 0
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
    LANES.load(Ordering::Relaxed) >= 4 && chosen(4)
}

/// Whether kernels launched by this thread are the variants for software adapters.
pub fn software() -> bool {
    let asked = SOFTWARE_ASKED.get();
    asked.unwrap_or_else(|| SOFTWARE.load(Ordering::Relaxed))
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

/// Restores the override on drop.
struct Restore(Wish, Option<bool>);

type Wish = &'static std::thread::LocalKey<Cell<Option<bool>>>;

impl Drop for Restore {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

fn with<T>(wish: Wish, on: bool, f: impl FnOnce() -> T) -> T {
    let _restore = Restore(wish, wish.replace(Some(on)));
    f()
}

/// Runs `f` with subgroups on or off for launches on this thread; always off where the device has none. For tests and
/// measurements; programs are controlled by the environment: `EMU_SUBGROUPS=0` or `1`.
pub fn with_subgroups<T>(on: bool, f: impl FnOnce() -> T) -> T {
    with(&ASKED, on, f)
}

/// Runs `f` with software variants on or off for launches on this thread; every device runs both. For tests and
/// measurements; programs are controlled by the environment: `EMU_SOFTWARE=0` or `1`.
pub fn with_software<T>(on: bool, f: impl FnOnce() -> T) -> T {
    with(&SOFTWARE_ASKED, on, f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{self, DeviceChoice};
    use crate::gpu::emulated;

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
            emulated::with(lanes, step, || {
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
}
