//! Prepares batches on a background thread, in order.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use crate::TrainError;

type Make<T> = dyn Fn(u64) -> Result<T, TrainError> + Send + Sync;

/// Prepares items `i + 1 ..= i + depth` while item `i` is in use.
///
/// An item must depend only on its index (and not on a device's generator, which belongs to the training thread). A
/// resumed run, which starts at a later index, then gets the same items.
pub struct Prefetch<T> {
    make: Arc<Make<T>>,
    depth: usize,
    worker: Option<Worker<T>>,
}

struct Worker<T> {
    next: u64,
    results: Receiver<Result<T, TrainError>>,
    thread: JoinHandle<()>,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Items by `make`, with at most `depth` waiting (and one in preparation). Nothing starts before the first
    /// [`Prefetch::get`].
    pub fn new(
        depth: usize,
        make: impl Fn(u64) -> Result<T, TrainError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            make: Arc::new(make),
            depth: depth.max(1),
            worker: None,
        }
    }

    /// Returns item `index`. Consecutive indices are fast; any other index restarts the worker there.
    ///
    /// # Errors
    /// The error of the item, or [`TrainError::Worker`] if preparing it panicked. A further call retries.
    pub fn get(&mut self, index: u64) -> Result<T, TrainError> {
        let mut worker = match self.worker.take() {
            Some(worker) if worker.next == index => worker,
            _ => self.start(index)?,
        };
        match worker.results.recv() {
            Ok(Ok(item)) => {
                worker.next += 1;
                self.worker = Some(worker);
                Ok(item)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(TrainError::Worker(panic_message(worker.thread))),
        }
    }

    fn start(&self, first: u64) -> Result<Worker<T>, TrainError> {
        let (sender, results) = sync_channel(self.depth - 1);
        let make = self.make.clone();
        let work = move || {
            for index in first.. {
                let item = make(index);
                let failed = item.is_err();
                // A closed channel means that the receiver is gone.
                if sender.send(item).is_err() || failed {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("batches".into())
            .spawn(work)
            .map_err(|e| TrainError::Worker(format!("it could not be started: {e}")))?;
        Ok(Worker {
            next: first,
            results,
            thread,
        })
    }
}

fn panic_message(thread: JoinHandle<()>) -> String {
    match thread.join() {
        Ok(()) => "it stopped early".into(),
        Err(payload) => payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_else(|| "it panicked".into()),
    }
}

impl<T> core::fmt::Debug for Prefetch<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let next = self.worker.as_ref().map(|w| w.next);
        f.debug_struct("Prefetch")
            .field("depth", &self.depth)
            .field("next", &next)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn items_come_in_order_and_from_anywhere() {
        let mut items = Prefetch::new(3, |i| Ok(i * i));
        assert_eq!(
            (0..20).map(|i| items.get(i).unwrap()).collect::<Vec<_>>(),
            (0..20).map(|i| i * i).collect::<Vec<_>>()
        );
        assert_eq!(items.get(7).unwrap(), 49);
        assert_eq!(items.get(8).unwrap(), 64);
    }

    #[test]
    fn only_so_many_are_made_ahead() {
        let made = Arc::new(AtomicU64::new(0));
        let counter = made.clone();
        let mut items = Prefetch::new(2, move |i| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(i)
        });
        items.get(0).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        // Item 0, at most one waiting in the channel and one in preparation.
        assert!(made.load(Ordering::SeqCst) <= 3);
    }

    #[test]
    fn errors_and_panics_are_reported_and_can_be_tried_again() {
        let mut items = Prefetch::new(2, |i| match i {
            2 => Err(TrainError::Stage("no picture 2".into())),
            3 => panic!("broken sample"),
            _ => Ok(i),
        });
        assert_eq!(items.get(1).unwrap(), 1);
        assert_eq!(items.get(2).unwrap_err().to_string(), "no picture 2");
        assert_eq!(items.get(2).unwrap_err().code(), "stage");
        assert!(
            items
                .get(3)
                .unwrap_err()
                .to_string()
                .contains("broken sample")
        );
        assert_eq!(items.get(4).unwrap(), 4);
    }
}
