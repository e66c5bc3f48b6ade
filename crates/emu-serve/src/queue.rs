//! The queue of calls: bounded, first in, first out, with places that can be given up.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A queue of calls before a single engine.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity: usize,
}

struct State<T> {
    waiting: VecDeque<(u64, T)>,
    next: u64,
    /// Whether a call is being run.
    running: bool,
    /// No further calls are accepted.
    closed: bool,
    /// The running call should end.
    aborted: bool,
}

/// Why a call was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The queue is full.
    Full,
    /// The queue is closed.
    Closed,
}

impl<T> Queue<T> {
    /// A queue in which `capacity` calls can wait beside the one that runs.
    pub fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                next: 0,
                running: false,
                closed: false,
                aborted: false,
            }),
            changed: Condvar::new(),
            capacity,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // No invariant spans two statements under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call would be accepted now.
    pub fn room(&self) -> Result<(), Refused> {
        self.state().room(self.capacity)
    }

    /// Appends a call. Dropping the returned place removes it if it still waits.
    pub fn push(self: &Arc<Self>, call: T) -> Result<Place<T>, Refused> {
        let mut state = self.state();
        state.room(self.capacity)?;
        let number = state.next;
        state.next += 1;
        state.waiting.push_back((number, call));
        self.changed.notify_all();
        let queue = self.clone();
        Ok(Place { queue, number })
    }

    /// The next call; waits for one. `None` when the queue is closed and empty.
    pub fn pop(&self) -> Option<T> {
        let mut state = self.state();
        loop {
            if let Some((_, call)) = state.waiting.pop_front() {
                state.running = true;
                return Some(call);
            }
            if state.closed {
                return None;
            }
            state = { self.changed.wait(state) }.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The call that [`Queue::pop`] returned has ended.
    pub fn done(&self) {
        self.state().running = false;
    }

    /// Accepts no further calls.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Accepts no further calls, drops the waiting ones and asks the running one to end.
    pub fn abort(&self) {
        let dropped = {
            let mut state = self.state();
            (state.closed, state.aborted) = (true, true);
            std::mem::take(&mut state.waiting)
        };
        self.changed.notify_all();
        drop(dropped);
    }

    /// Whether the running call should end.
    pub fn is_aborted(&self) -> bool {
        self.state().aborted
    }

    /// Whether no further calls are accepted.
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Number of waiting calls.
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Whether a call is being run.
    pub fn running(&self) -> bool {
        self.state().running
    }
}

impl<T> State<T> {
    /// With an idle engine a call does not wait.
    fn room(&self, capacity: usize) -> Result<(), Refused> {
        let idle = usize::from(!self.running);
        match self.waiting.len() < capacity + idle {
            _ if self.closed => Err(Refused::Closed),
            true => Ok(()),
            false => Err(Refused::Full),
        }
    }
}

/// A place in the queue.
pub(crate) struct Place<T> {
    queue: Arc<Queue<T>>,
    number: u64,
}

impl<T> Place<T> {
    /// Whether the queue has dropped its calls.
    pub fn aborted(&self) -> bool {
        self.queue.is_aborted()
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        let left = {
            let mut state = self.queue.state();
            let at = { state.waiting.iter() }.position(|(number, _)| *number == self.number);
            at.and_then(|at| state.waiting.remove(at))
        };
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn calls_run_in_their_order_and_those_given_up_do_not() {
        let queue = Arc::new(Queue::new(3));
        let places: Vec<_> = (0..3).map(|n| queue.push(n).expect("room")).collect();
        let mut places = places.into_iter();
        let _first = places.next();
        drop(places.next());
        queue.close();
        assert_eq!((queue.pop(), queue.pop()), (Some(0), Some(2)));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn the_bound_counts_those_that_wait() {
        let queue = Arc::new(Queue::new(1));
        let first = queue.push(1).expect("the engine is idle");
        let _second = queue.push(2).expect("one may wait");
        assert_eq!(queue.push(3).err(), Some(Refused::Full));
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.push(3).err(), Some(Refused::Full));
        queue.done();
        assert!(queue.push(3).is_ok());
        drop(first);
        queue.close();
        assert_eq!(queue.push(4).err(), Some(Refused::Closed));
    }

    #[test]
    fn an_engine_that_waits_is_woken() {
        let queue = Arc::new(Queue::new(1));
        let engine = {
            let queue = queue.clone();
            thread::spawn(move || (queue.pop(), queue.pop()))
        };
        let place = queue.push(7).expect("room");
        while !queue.running() {
            thread::yield_now();
        }
        queue.abort();
        assert_eq!(engine.join().expect("no panic"), (Some(7), None));
        assert!(queue.is_aborted());
        drop(place);
    }
}
