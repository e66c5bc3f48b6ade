//! A wish to stop, from a signal or from the program.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::TrainError;

/// Shared between whoever wants a run to end and the run, which looks at it once a step.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// A flag that nobody has raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the run to save and leave.
    pub fn stop(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether somebody asked.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// The flag that Ctrl-C, SIGTERM and SIGHUP raise. A second signal ends the process at once, for a user who does not
    /// want to wait for the step: checkpoints stay intact whenever that happens.
    ///
    /// # Errors
    /// Where the system refuses a handler, or another part of the program has installed one.
    pub fn on_signals() -> Result<Self, TrainError> {
        static FLAG: OnceLock<StopFlag> = OnceLock::new();
        if let Some(flag) = FLAG.get() {
            return Ok(flag.clone());
        }
        let flag = Self::new();
        let raised = flag.clone();
        ctrlc::set_handler(move || {
            if raised.is_set() {
                std::process::exit(130);
            }
            raised.stop();
        })
        .map_err(|e| TrainError::other("signals", e))?;
        Ok(FLAG.get_or_init(|| flag).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_flag() {
        let flag = StopFlag::new();
        let other = flag.clone();
        assert!(!other.is_set());
        flag.stop();
        assert!(other.is_set());
    }
}
