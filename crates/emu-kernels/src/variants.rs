//! Which variants of the GPU kernels are used: those with subgroups only where the opened device has them.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::wgpu::wgpu;

/// Whether the opened device has subgroups.
static THERE: AtomicBool = AtomicBool::new(false);
/// Whether kernels use them there.
static USED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// What this thread asked for.
    static ASKED: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Takes note of what the opened device can do.
pub(crate) fn opened(features: wgpu::Features, info: &wgpu::AdapterInfo) {
    let there = features.contains(wgpu::Features::SUBGROUP);
    THERE.store(there, Ordering::Relaxed);
    let used = match std::env::var("EMU_SUBGROUPS").as_deref() {
        Ok("0") => false,
        Ok("1") => true,
        _ => pay(info),
    };
    USED.store(there && used, Ordering::Relaxed);
}

/// Whether subgroups pay.
fn pay(info: &wgpu::AdapterInfo) -> bool {
    let _ = info;
    true
}

/// Whether the opened device has subgroups.
pub fn has_subgroups() -> bool {
    THERE.load(Ordering::Relaxed)
}

/// Whether kernels that this thread launches use subgroups.
pub fn subgroups() -> bool {
    let used = USED.load(Ordering::Relaxed);
    ASKED.get().map_or(used, |asked| asked && has_subgroups())
}

/// Runs `f` with each of the variants that the opened device has.
pub fn each(mut f: impl FnMut()) {
    with_subgroups(false, &mut f);
    if has_subgroups() {
        with_subgroups(true, f);
    }
}

/// Runs `f`, whose launches on this thread use subgroups or not; never where the device has none. For tests and measurements.
pub fn with_subgroups<T>(on: bool, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<bool>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ASKED.set(self.0);
        }
    }
    let _restore = Restore(ASKED.replace(Some(on)));
    f()
}
