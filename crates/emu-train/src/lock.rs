//! Lock of a run folder: one process per folder.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::TrainError;

/// Locks a folder against other processes until the file is dropped or the process ends.
pub(crate) fn lock(out: &Path) -> Result<File, TrainError> {
    let path = out.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(TrainError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TrainError::Locked { out: out.into() }),
        Err(TryLockError::Error(e)) => Err(TrainError::io("lock", &path)(e)),
    }
}
