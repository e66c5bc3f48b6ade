//! Throttle of GPU submissions: limits each to about 50 ms of work, estimated from the time of earlier launches. Operating
//! systems reset a GPU that is busy for seconds, and a page that shares it freezes meanwhile.
//!
//! The runtime submits after [`crate::device::LAUNCHES`] launches in any case. Where launches are slow, a [`ThrottleScope`]
//! submits earlier. Times are wall-clock, from one awaited completion to the next.
//!
//! Estimates belong to a model and a kind of work: each [`Throttle`] has its own. What is thread-local is the open scope, which
//! the launches of the thread count against.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};
#[cfg(feature = "wgpu")]
use core::time::Duration;
use std::sync::Arc;

#[cfg(feature = "wgpu")]
use cubecl::profile::Instant;

/// Target duration of a submission, in microseconds.
const TARGET: u32 = 50_000;
/// Minimum launches of a submission: a submission costs the host and the driver about as much as ten launches.
const MIN_LAUNCHES: u32 = 4;

/// Estimated launch time, for one kind of work of one model. Clones share the estimate.
#[derive(Clone, Debug, Default)]
pub struct Throttle {
    /// Microseconds per launch; 0 while unknown.
    launch: Arc<AtomicU32>,
}

thread_local! {
    /// Launches of this thread so far.
    static LAUNCHED: Cell<u64> = const { Cell::new(0) };
    /// Time of the last known completion of work launched by this thread.
    #[cfg(feature = "wgpu")]
    static COMPLETED: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Launches per submission in the open scope; 0 disables the throttle.
    static BOUND: Cell<u32> = const { Cell::new(0) };
    /// Launches since the last submission.
    static SINCE: Cell<u32> = const { Cell::new(0) };
}

impl Throttle {
    /// Opens a scope: until it is dropped or ended, what this thread launches is submitted in pieces.
    pub fn scope(&self) -> ThrottleScope {
        let bound = match self.launch.load(Ordering::Relaxed) {
            0 => 0,
            launch => (TARGET / launch).max(MIN_LAUNCHES),
        };
        SINCE.set(0);
        ThrottleScope {
            outer: BOUND.replace(bound),
            work: Work {
                launches: LAUNCHED.get(),
                #[cfg(feature = "wgpu")]
                began: Instant::now(),
            },
        }
    }

    /// Updates the estimate: this work has completed now, and nothing else since the previous completion.
    pub fn completed(&self, work: Work) {
        #[cfg(feature = "wgpu")]
        {
            let before = COMPLETED.replace(Some(Instant::now()));
            let began = before.map_or(work.began, |before| before.max(work.began));
            self.took(work.launches, began.elapsed());
        }
        #[cfg(not(feature = "wgpu"))]
        let _ = work;
    }

    #[cfg(feature = "wgpu")]
    fn took(&self, launches: u64, time: Duration) {
        if launches > 0 {
            let micros = time.as_micros() / u128::from(launches);
            let micros = u32::try_from(micros).unwrap_or(u32::MAX).max(1);
            self.launch.store(micros, Ordering::Relaxed);
        }
    }
}

/// Launches of a scope, and when it began.
#[derive(Debug)]
pub struct Work {
    launches: u64,
    #[cfg(feature = "wgpu")]
    began: Instant,
}

/// While it lives, launches of this thread are split into submissions of bounded size.
#[derive(Debug)]
pub struct ThrottleScope {
    /// The bound of the enclosing scope.
    outer: u32,
    /// `launches` is the thread's count at the start of the scope.
    work: Work,
}

impl ThrottleScope {
    /// Closes the scope and returns its launches. Only this crate's kernels are counted.
    pub fn end(self) -> Work {
        Work {
            launches: LAUNCHED.get() - self.work.launches,
            #[cfg(feature = "wgpu")]
            began: self.work.began,
        }
    }
}

impl Drop for ThrottleScope {
    fn drop(&mut self) {
        BOUND.set(self.outer);
    }
}

/// Counts a launch. Returns whether the pending launches must be submitted now.
#[cfg(feature = "wgpu")]
pub(crate) fn launched() -> bool {
    LAUNCHED.set(LAUNCHED.get() + 1);
    let since = SINCE.get() + 1;
    let full = (1..=since).contains(&BOUND.get());
    SINCE.set(if full { 0 } else { since });
    full
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;

    fn submissions(launches: usize) -> usize {
        (0..launches).filter(|_| launched()).count()
    }

    #[test]
    fn slow_launches_are_submitted_in_pieces() {
        let throttle = Throttle::default();
        let scope = throttle.scope();
        assert_eq!(submissions(1000), 0);
        assert_eq!(scope.end().launches, 1000);

        // Five milliseconds each.
        throttle.took(100, Duration::from_millis(500));
        {
            let scope = throttle.scope();
            assert_eq!(submissions(95), 9);
            assert_eq!(scope.end().launches, 95);
        }
        assert_eq!(submissions(1000), 0, "the scope is closed");

        // A submission has a minimum size, however slow the launches.
        throttle.took(1, Duration::from_secs(3));
        let scope = throttle.scope();
        assert_eq!(submissions(40), 10);
        drop(scope);
        // Zero launches leave the estimate unchanged.
        throttle.took(0, Duration::ZERO);
        let scope = throttle.scope();
        assert_eq!(submissions(40), 10);
        drop(scope);
        throttle.took(1000, Duration::from_micros(10));
        let scope = throttle.scope();
        assert_eq!(submissions(1000), 0);
        drop(scope);
    }

    #[test]
    fn models_share_no_estimate() {
        let (slow, other) = (Throttle::default(), Throttle::default());
        slow.took(1, Duration::from_secs(1));
        {
            let _scope = other.scope();
            assert_eq!(submissions(40), 0);
        }
        let _scope = slow.clone().scope();
        assert_eq!(submissions(40), 10, "clones share it");
    }

    #[test]
    fn time_counts_from_the_completion_before() {
        let throttle = Throttle::default();
        let mut first = throttle.scope().end();
        first.launches = 1;
        first.began = Instant::now() - Duration::from_secs(10);
        throttle.completed(first);
        let known = throttle.launch.load(Ordering::Relaxed);
        assert!((10_000_000..20_000_000).contains(&known), "{known} us");
        // The second was launched with the first, and completes right after it.
        let mut second = throttle.scope().end();
        second.launches = 1;
        second.began = Instant::now() - Duration::from_secs(10);
        throttle.completed(second);
        let known = throttle.launch.load(Ordering::Relaxed);
        assert!(known < 5_000_000, "{known} us");
    }
}
