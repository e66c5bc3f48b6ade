//! What running costs, in counts that hold on any machine: launches of kernels, bytes of weights that were read, results
//! that were asked for.

use std::sync::atomic::{AtomicU64, Ordering};

static WEIGHT_BYTES: AtomicU64 = AtomicU64::new(0);

/// Notes that a product reads this many bytes of weights.
pub(crate) fn weights_read(bytes: usize) {
    WEIGHT_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// Bytes of weights that products have read so far, in this process.
pub fn weight_bytes() -> u64 {
    WEIGHT_BYTES.load(Ordering::Relaxed)
}

static READS: AtomicU64 = AtomicU64::new(0);
static READ_BYTES: AtomicU64 = AtomicU64::new(0);

/// Notes that a result of so many bytes was asked of the device.
pub fn read_back(bytes: usize) {
    READS.fetch_add(1, Ordering::Relaxed);
    READ_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// Results asked of devices so far, in this process, and their bytes.
pub fn reads() -> (u64, u64) {
    let [reads, bytes] = [&READS, &READ_BYTES].map(|count| count.load(Ordering::Relaxed));
    (reads, bytes)
}

/// Launches of recordings that ran again.
static REPLAYED: AtomicU64 = AtomicU64::new(0);

/// What a recording costs each time it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    launches: u64,
    weight_bytes: u64,
}

/// Counts what is launched while it lives.
pub(crate) struct Counting {
    #[cfg(feature = "wgpu")]
    launches: Launches,
    weight_bytes: u64,
}

impl Counting {
    pub fn start() -> Self {
        Self {
            #[cfg(feature = "wgpu")]
            launches: Launches::watch(),
            weight_bytes: weight_bytes(),
        }
    }

    pub fn spent(&self) -> Cost {
        Cost {
            #[cfg(feature = "wgpu")]
            launches: self.launches.total(),
            #[cfg(not(feature = "wgpu"))]
            launches: 0,
            weight_bytes: weight_bytes() - self.weight_bytes,
        }
    }
}

/// Notes that a recording ran again.
pub(crate) fn replayed(cost: &Cost) {
    REPLAYED.fetch_add(cost.launches, Ordering::Relaxed);
    WEIGHT_BYTES.fetch_add(cost.weight_bytes, Ordering::Relaxed);
}

#[cfg(feature = "wgpu")]
pub use launches::{Launches, LiveBytes};

#[cfg(feature = "wgpu")]
mod launches {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex, PoisonError};

    use burn::tensor::Device;
    use cubecl::logging::{LaunchObservation, LaunchObserver};

    use super::{AtomicU64, Ordering, REPLAYED};

    #[derive(Default)]
    struct Seen(Mutex<BTreeMap<&'static str, u64>>);

    impl LaunchObserver for Seen {
        fn launched(&self, kernel: &'static str) {
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *seen.entry(kernel).or_default() += 1;
        }
    }

    /// Counts every launch of the process while it lives.
    pub struct Launches {
        seen: Arc<Seen>,
        replayed: u64,
        _observation: LaunchObservation,
    }

    impl Launches {
        /// Starts counting.
        pub fn watch() -> Self {
            let seen = Arc::new(Seen::default());
            Self {
                _observation: LaunchObservation::new(seen.clone()),
                seen,
                replayed: REPLAYED.load(Ordering::Relaxed),
            }
        }

        /// Launches so far, by the kernel's name. Those that a recording made again have one name.
        pub fn by_kernel(&self) -> BTreeMap<&'static str, u64> {
            let seen = self.seen.0.lock();
            let mut seen = seen.unwrap_or_else(PoisonError::into_inner).clone();
            let replayed = REPLAYED.load(Ordering::Relaxed) - self.replayed;
            if replayed > 0 {
                seen.insert("replayed", replayed);
            }
            seen
        }

        /// Launches so far.
        pub fn total(&self) -> u64 {
            self.by_kernel().values().sum()
        }
    }

    struct Sampled {
        device: Device,
        most: AtomicU64,
    }

    impl Sampled {
        fn sample(&self) {
            let usage = self.device.memory_pool_usage();
            let bytes = usage.map_or(0, |usage| usage.bytes_in_use);
            self.most.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    impl LaunchObserver for Sampled {
        fn launched(&self, _: &'static str) {
            self.sample();
        }
    }

    /// The most bytes of tensors that a device holds at once, seen before each launch while it lives: those that rest there
    /// and those in between. Launches of recordings that run again use the memory that they were recorded with.
    pub struct LiveBytes {
        sampled: Arc<Sampled>,
        _observation: LaunchObservation,
    }

    impl LiveBytes {
        /// Starts sampling, which costs every launch a question to the device's memory.
        pub fn watch(device: &Device) -> Self {
            let sampled = Arc::new(Sampled {
                device: device.clone(),
                most: AtomicU64::new(0),
            });
            Self {
                _observation: LaunchObservation::new(sampled.clone()),
                sampled,
            }
        }

        /// Most bytes so far; 0 where the device does not count them.
        pub fn most(&self) -> u64 {
            self.sampled.sample();
            self.sampled.most.load(Ordering::Relaxed)
        }
    }
}
