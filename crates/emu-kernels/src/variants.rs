//! Which variants of the GPU kernels are used: those with subgroups only where the opened device has them, those for
//! software adapters where the opened device is one.
//!
//! The kernels assume nothing of how many invocations a subgroup has, nor of which.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use burn::tensor::wgpu::wgpu;

/// Invocations of the smallest subgroup of the opened device; 0 where it has none.
static LANES: AtomicU32 = AtomicU32::new(0);
/// Whether the opened device computes on the processor.
static SOFTWARE: AtomicBool = AtomicBool::new(false);
/// What the variable EMU_SUBGROUPS says: one more than 0 or 1, or 0 for nothing.
static SAID: AtomicU32 = AtomicU32::new(0);

/// From so many invocations on, sums that are made often or of much pay with subgroups. Measured with 8 (lavapipe): norms
/// and attention of a step are as fast or faster, the sampler takes a fifth longer, products a tenth.
const WIDE: u32 = 16;

thread_local! {
    /// What this thread asked for.
    static ASKED: Cell<Option<bool>> = const { Cell::new(None) };
    /// Likewise of the variants for software adapters.
    static SOFTWARE_ASKED: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Takes note of what the opened device can do.
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

/// Takes note of the smallest subgroup of a device that was opened with subgroups without wgpu knowing: its WebGPU neither
/// asks for them nor tells of them.
pub fn opened_with_subgroups(invocations: u32) {
    LANES.store(invocations, Ordering::Relaxed);
}

/// Whether a kernel uses subgroups that have so many invocations at least.
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

/// Whether kernels that this thread launches use subgroups: those that gain by any.
pub fn subgroups() -> bool {
    chosen(1)
}

/// Whether kernels that this thread launches use subgroups: those that gain by wide ones only.
pub fn wide_subgroups() -> bool {
    chosen(WIDE)
}

/// Whether kernels that this thread launches exchange numbers within quads of a subgroup.
pub fn quads() -> bool {
    LANES.load(Ordering::Relaxed) >= 4 && chosen(4)
}

/// Whether kernels that this thread launches are those for software adapters.
pub fn software() -> bool {
    let asked = SOFTWARE_ASKED.get();
    asked.unwrap_or_else(|| SOFTWARE.load(Ordering::Relaxed))
}

/// Runs `f` with subgroups, where the opened device has them, and without.
pub fn each(mut f: impl FnMut()) {
    with_subgroups(false, &mut f);
    if has_subgroups() {
        with_subgroups(true, f);
    }
}

/// Runs `f` with each of the variants for hardware and of those for software adapters.
pub fn each_of_all(mut f: impl FnMut()) {
    for software in [false, true] {
        with_software(software, || each(&mut f));
    }
}

/// Puts a thread's wish back when it goes.
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

/// Runs `f`, whose launches on this thread use subgroups or not; never where the device has none. For tests and
/// measurements; programs can be told by the environment: `EMU_SUBGROUPS=0` or `1`.
pub fn with_subgroups<T>(on: bool, f: impl FnOnce() -> T) -> T {
    with(&ASKED, on, f)
}

/// Runs `f`, whose launches on this thread are those for software adapters or not: every device can run both. For tests
/// and measurements; programs can be told by the environment: `EMU_SOFTWARE=0` or `1`.
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

    /// Subgroups of every size, of neighbours and of invocations that lie apart, made of shared memory.
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
