//! Process setup before any computation: environment variables for graphics drivers, and the thread pool. Memory of the
//! machine.

use std::env;
use std::path::Path;

use anyhow::{Context, Result};
use emu_kernels::adapters;

/// Folder for the sockets of a login session. Mesa's Vulkan layer looks for a display there and prints a complaint if the
/// variable is not an absolute path.
const RUNTIME_FOLDER: &str = "XDG_RUNTIME_DIR";
/// Number of threads of Mesa's software adapter.
const SOFTWARE_THREADS: &str = "LP_NUM_THREADS";

/// Sets environment variables that graphics drivers read. Call it before any thread is started.
///
/// `threads`: upper bound for a software adapter, unless the user has set the variable.
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
    // SAFETY: only `prepare` calls this, at the start of `main`, while the process has a single thread, so no other thread
    // reads the environment at the same time.
    unsafe { env::set_var(name, value) }
}

/// Sets the size of the global thread pool. Matrix products and the kernels' own threads take their number from it.
///
/// # Errors
/// Where the threads cannot be started.
pub fn limit(threads: usize) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build_global().with_context(|| {
        format!("{threads} threads cannot be started. Give --threads a smaller number")
    })
}

/// Memory available to programs, where the system reports it.
pub fn memory_available() -> Option<u64> {
    adapters::memory("MemAvailable")
}
