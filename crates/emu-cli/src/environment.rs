//! What the process is given before it computes: an environment that drivers do not complain about, and threads.

use std::env;
use std::path::Path;

use anyhow::{Context, Result};

/// Where programs of a session keep sockets. Mesa's Vulkan layer looks for a display there, and complains on the terminal
/// where the variable is no absolute path.
const RUNTIME_FOLDER: &str = "XDG_RUNTIME_DIR";
/// Threads of Mesa's software adapter.
const SOFTWARE_THREADS: &str = "LP_NUM_THREADS";

/// Sets variables that graphics drivers read. Call it before anything starts a thread.
///
/// `threads`: of a software adapter at most, where the user has not said otherwise to it.
pub fn prepare(threads: Option<usize>) {
    let given = env::var_os(RUNTIME_FOLDER);
    if cfg!(unix) && !given.is_some_and(|folder| Path::new(&folder).is_absolute()) {
        set(RUNTIME_FOLDER, &env::temp_dir().to_string_lossy());
    }
    if let Some(threads) = threads
        && env::var_os(SOFTWARE_THREADS).is_none()
    {
        set(SOFTWARE_THREADS, &threads.to_string());
    }
}

fn set(name: &str, value: &str) {
    // SAFETY: called by `prepare` alone, at the start of `main`, when the process has one thread: nobody reads the
    // environment meanwhile.
    unsafe { env::set_var(name, value) }
}

/// Bounds the threads that compute on the CPU: those of the shared pool, which matrix products and the kernels' own threads
/// count too.
///
/// # Errors
/// Where they cannot be started.
pub fn limit(threads: usize) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build_global().with_context(|| {
        format!("{threads} threads cannot be started. Give --threads a smaller number")
    })
}
