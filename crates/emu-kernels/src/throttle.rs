//! How much a GPU is given at once: about 50 milliseconds of work, as far as what ran before tells. Systems end what takes a
//! GPU seconds, and a page that shares it stands still meanwhile.
//!
//! The runtime submits after [`crate::device::LAUNCHES`] launches in any case. Where launches were found to take long, a
//! [`Throttle`] submits earlier. Times are by the clock, from one end that was waited for to the next.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};
#[cfg(feature = "wgpu")]
use core::time::Duration;

#[cfg(feature = "wgpu")]
use cubecl::profile::Instant;

/// Microseconds that a submission is to take.
const WANTED: u32 = 50_000;
/// Launches of a submission at least: each costs the program and the driver about as much as ten launches.
const LEAST: u32 = 4;

/// What a kind of work is known to take.
#[derive(Debug)]
pub struct Pace {
    /// Microseconds of a launch, 0 while nothing is known.
    launch: AtomicU32,
}

/// Steps of a drawing.
pub static DRAWING: Pace = Pace::unknown();
/// Prompts.
pub static READING: Pace = Pace::unknown();

thread_local! {
    /// Launches of this thread, ever.
    static LAUNCHED: Cell<u64> = const { Cell::new(0) };
    /// When this thread was last told of an end.
    #[cfg(feature = "wgpu")]
    static ENDED: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Launches of a submission, and those since the last one; 0 where nothing is cut.
    static BOUND: Cell<u32> = const { Cell::new(0) };
    static SINCE: Cell<u32> = const { Cell::new(0) };
}

impl Pace {
    const fn unknown() -> Self {
        Self {
            launch: AtomicU32::new(0),
        }
    }

    /// Submits what this thread launches in pieces, until the result is dropped or ended.
    pub fn throttle(&self) -> Throttle {
        let bound = match self.launch.load(Ordering::Relaxed) {
            0 => 0,
            launch => (WANTED / launch).max(LEAST),
        };
        SINCE.set(0);
        Throttle {
            outer: BOUND.replace(bound),
            work: Work {
                launches: LAUNCHED.get(),
                #[cfg(feature = "wgpu")]
                began: Instant::now(),
            },
        }
    }

    /// Learns that this has come to its end now, and nothing else since the end before.
    pub fn ended(&self, work: Work) {
        #[cfg(feature = "wgpu")]
        {
            let before = ENDED.replace(Some(Instant::now()));
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

/// What was launched, and when that began.
#[derive(Debug)]
pub struct Work {
    launches: u64,
    #[cfg(feature = "wgpu")]
    began: Instant,
}

/// Cuts what is launched while it lives.
#[derive(Debug)]
pub struct Throttle {
    outer: u32,
    /// With the launches before it.
    work: Work,
}

impl Throttle {
    /// What was launched since it began; of that, only kernels of our own count.
    pub fn end(self) -> Work {
        Work {
            launches: LAUNCHED.get() - self.work.launches,
            #[cfg(feature = "wgpu")]
            began: self.work.began,
        }
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        BOUND.set(self.outer);
    }
}

/// Notes a launch. Whether what was launched so far is to be submitted.
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
        let pace = Pace::unknown();
        let cut = pace.throttle();
        assert_eq!(submissions(1000), 0);
        assert_eq!(cut.end().launches, 1000);

        // Five milliseconds each.
        pace.took(100, Duration::from_millis(500));
        {
            let cut = pace.throttle();
            assert_eq!(submissions(95), 9);
            assert_eq!(cut.end().launches, 95);
        }
        assert_eq!(submissions(1000), 0, "what is cut ends");

        // However slow, a submission is worth its price.
        pace.took(1, Duration::from_secs(3));
        let cut = pace.throttle();
        assert_eq!(submissions(40), 10);
        drop(cut);
        // Nothing is learnt of nothing.
        pace.took(0, Duration::ZERO);
        let cut = pace.throttle();
        assert_eq!(submissions(40), 10);
        drop(cut);
        pace.took(1000, Duration::from_micros(10));
        let cut = pace.throttle();
        assert_eq!(submissions(1000), 0);
        drop(cut);
    }

    #[test]
    fn time_counts_from_the_end_before() {
        let pace = Pace::unknown();
        let mut first = pace.throttle().end();
        first.launches = 1;
        first.began = Instant::now() - Duration::from_secs(10);
        pace.ended(first);
        let known = pace.launch.load(Ordering::Relaxed);
        assert!((10_000_000..20_000_000).contains(&known), "{known} us");
        // The second was launched with the first, and ends at once after it.
        let mut second = pace.throttle().end();
        second.launches = 1;
        second.began = Instant::now() - Duration::from_secs(10);
        pace.ended(second);
        let known = pace.launch.load(Ordering::Relaxed);
        assert!(known < 5_000_000, "{known} us");
    }
}
