//! Throttle of GPU submissions: limits each to about 50 ms of work, estimated from the time of earlier launches. Operating
//! systems reset a GPU that is busy for seconds, and a page that shares it freezes meanwhile.
//!
//! The runtime submits after [`crate::device::LAUNCHES`] launches in any case. Where launches are slow, a [`ThrottleScope`]
//! submits earlier. Times are wall-clock, from one awaited completion to the next.
//!
//! Estimates belong to a model and a kind of work: each [`Throttle`] has its own. The counts belong to the open scope. A
//! thread-local tells launches which scope that is, since a kernel does not know the model it runs for; nothing else is shared.

use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicU32, Ordering};
#[cfg(feature = "wgpu")]
use core::time::Duration;
use std::rc::Rc;
use std::sync::Arc;
#[cfg(feature = "wgpu")]
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "wgpu")]
use cubecl::profile::Instant;

/// Target duration of a submission, in microseconds.
const TARGET: u32 = 50_000;
/// Minimum launches of a submission: a submission costs the host and the driver about as much as ten launches.
const MIN_LAUNCHES: u32 = 4;

/// Estimated launch time, for one kind of work of one model. Clones share the estimate.
#[derive(Clone, Debug, Default)]
pub struct Throttle(Arc<Estimate>);

#[derive(Debug, Default)]
struct Estimate {
    /// Microseconds per launch; 0 while unknown.
    launch: AtomicU32,
    /// Time of the last known completion of this kind of work.
    #[cfg(feature = "wgpu")]
    completed: Mutex<Option<Instant>>,
}

/// Counts of an open scope.
#[derive(Debug, Default)]
struct Counts {
    /// Launches so far.
    launched: Cell<u64>,
    /// Launches per submission; 0 disables the throttle.
    #[cfg_attr(not(feature = "wgpu"), allow(dead_code))]
    bound: u32,
    /// Launches since the last submission.
    since: Cell<u32>,
}

thread_local! {
    /// The innermost open scope of this thread, which its launches count against.
    static OPEN: RefCell<Option<Rc<Counts>>> = const { RefCell::new(None) };
}

impl Throttle {
    /// Opens a scope: until it is dropped or ended, what this thread launches is submitted in pieces.
    pub fn scope(&self) -> ThrottleScope {
        let bound = match self.0.launch.load(Ordering::Relaxed) {
            0 => 0,
            launch => (TARGET / launch).max(MIN_LAUNCHES),
        };
        let counts = Rc::new(Counts {
            bound,
            ..Counts::default()
        });
        ThrottleScope {
            outer: OPEN.replace(Some(counts.clone())),
            counts,
            #[cfg(feature = "wgpu")]
            began: Instant::now(),
        }
    }

    /// Updates the estimate: this work has completed now, and no other since the completion before.
    pub fn completed(&self, work: Work) {
        #[cfg(feature = "wgpu")]
        {
            let completed = self.0.completed.lock();
            let mut completed = completed.unwrap_or_else(PoisonError::into_inner);
            let before = completed.replace(Instant::now());
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
            self.0.launch.store(micros, Ordering::Relaxed);
        }
    }
}

/// Launches of a scope, and when it began.
#[derive(Debug)]
pub struct Work {
    #[cfg_attr(not(feature = "wgpu"), allow(dead_code))]
    launches: u64,
    #[cfg(feature = "wgpu")]
    began: Instant,
}

/// While it lives, launches of this thread are split into submissions of bounded size.
#[derive(Debug)]
pub struct ThrottleScope {
    counts: Rc<Counts>,
    /// The enclosing scope.
    outer: Option<Rc<Counts>>,
    #[cfg(feature = "wgpu")]
    began: Instant,
}

impl ThrottleScope {
    /// Closes the scope and returns its launches. Only this crate's kernels are counted.
    pub fn end(self) -> Work {
        Work {
            launches: self.counts.launched.get(),
            #[cfg(feature = "wgpu")]
            began: self.began,
        }
    }
}

impl Drop for ThrottleScope {
    fn drop(&mut self) {
        let outer = self.outer.take();
        if let Some(outer) = &outer {
            // Its launches are also those of the enclosing scope, and its last ones may still be pending.
            let launched = outer.launched.get() + self.counts.launched.get();
            outer.launched.set(launched);
            outer.since.set(self.counts.since.get());
        }
        OPEN.set(outer);
    }
}

/// Counts a launch. Returns whether the pending launches must be submitted now.
#[cfg(feature = "wgpu")]
pub(crate) fn launched() -> bool {
    OPEN.with_borrow(|open| {
        let Some(counts) = open else {
            return false;
        };
        counts.launched.set(counts.launched.get() + 1);
        let since = counts.since.get() + 1;
        let full = (1..=since).contains(&counts.bound);
        counts.since.set(if full { 0 } else { since });
        full
    })
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
    fn a_scope_counts_the_launches_of_those_inside_it() {
        let throttle = Throttle::default();
        let outer = throttle.scope();
        assert_eq!(submissions(3), 0);
        {
            let slow = Throttle::default();
            slow.took(1, Duration::from_millis(5));
            let inner = slow.scope();
            assert_eq!(submissions(25), 2);
            assert_eq!(inner.end().launches, 25);
        }
        assert_eq!(submissions(2), 0);
        assert_eq!(outer.end().launches, 30);
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
        let known = throttle.0.launch.load(Ordering::Relaxed);
        assert!((10_000_000..20_000_000).contains(&known), "{known} us");
        // The second was launched with the first, and completes right after it.
        let mut second = throttle.scope().end();
        second.launches = 1;
        second.began = Instant::now() - Duration::from_secs(10);
        throttle.completed(second);
        let known = throttle.0.launch.load(Ordering::Relaxed);
        assert!(known < 5_000_000, "{known} us");
    }
}
