//! Signals that ask a run to stop.

use std::sync::OnceLock;

use anyhow::{Context, Result};
use emu_train::StopFlag;

/// The stop flag that Ctrl-C, SIGTERM and SIGHUP raise. A second signal ends the process at once, for users who do not want
/// to wait for the current step. Checkpoints stay intact in either case.
///
/// # Errors
/// Where the system rejects a handler, or another part of the program has installed one.
pub fn stop_flag() -> Result<StopFlag> {
    static FLAG: OnceLock<StopFlag> = OnceLock::new();
    if let Some(flag) = FLAG.get() {
        return Ok(flag.clone());
    }
    let flag = StopFlag::new();
    let raised = flag.clone();
    ctrlc::set_handler(move || {
        if raised.is_set() {
            std::process::exit(130);
        }
        raised.stop();
    })
    .context("Signals cannot be caught. Start the program again")?;
    Ok(FLAG.get_or_init(|| flag).clone())
}
