//! Free space, and files that appear whole or not at all.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::HubError;

/// Free bytes on the file system that has `path`, or will have it; `None` where the system does not say.
pub fn free_space(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|path| path.exists());
    // A relative path begins in the current folder.
    system_free(match existing {
        Some(path) if !path.as_os_str().is_empty() => path,
        _ => Path::new("."),
    })
}

#[cfg(unix)]
fn system_free(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

#[cfg(not(unix))]
fn system_free(_: &Path) -> Option<u64> {
    None
}

/// Creates a folder and its parents.
pub(crate) fn create_folder(path: &Path) -> Result<(), HubError> {
    fs::create_dir_all(path).map_err(|error| HubError::io(path, error))
}

/// Makes `path` by `make`, which gets the path of a temporary file beside it.
pub(crate) fn put(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), HubError> {
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    let temporary = temporary(path);
    let _ = fs::remove_file(&temporary);
    let made = make(&temporary).and_then(|()| fs::rename(&temporary, path));
    made.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        HubError::io(path, error)
    })
}

/// A name beside `path` that no other process or thread uses.
fn temporary(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    path.with_file_name(format!(".{name}.{process}-{count}.part"))
}

/// Writes a small file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    put(path, |temporary| {
        let mut file = fs::File::create(temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    })
}

/// Whether two paths lead to the same file, or to files of the same bytes.
pub(crate) fn same_bytes(a: &Path, b: &Path) -> io::Result<bool> {
    if fs::canonicalize(a)? == fs::canonicalize(b)? {
        return Ok(true);
    }
    let (mut a, mut b) = (fs::File::open(a)?, fs::File::open(b)?);
    let (first, second) = (a.metadata()?, b.metadata()?);
    if first.len() != second.len() {
        return Ok(false);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        // Two names of one file.
        if (first.dev(), first.ino()) == (second.dev(), second.ino()) {
            return Ok(true);
        }
    }
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let read = a.read(&mut left)?;
        if read == 0 {
            return Ok(true);
        }
        let (left, right) = (left.get(..read), right.get_mut(..read));
        let right = right.unwrap_or_default();
        b.read_exact(right)?;
        if left != Some(&*right) {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_that_of_the_nearest_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let free = free_space(&folder.path().join("a/b/c"));
        #[cfg(unix)]
        assert!(free.is_some_and(|free| free > 0));
        #[cfg(not(unix))]
        assert_eq!(free, None);
        assert_eq!(
            free_space(Path::new("no-such-folder")).is_some(),
            free.is_some()
        );
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/file");
        write(&path, b"one").expect("written");
        write(&path, b"two").expect("replaced");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        let failed = put(&path, |temporary| {
            fs::write(temporary, b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(failed.expect_err("no space").code(), "disk-full");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        let left = fs::read_dir(path.parent().expect("a folder")).expect("a folder");
        assert_eq!(left.count(), 1);
    }

    #[test]
    fn bytes_are_compared_to_the_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let mut bytes = vec![7; (1 << 20) + 5];
        fs::write(at("a"), &bytes).expect("written");
        fs::write(at("b"), &bytes).expect("written");
        assert!(same_bytes(&at("a"), &at("b")).expect("compared"));
        assert!(same_bytes(&at("a"), &at("a")).expect("compared"));
        *bytes.last_mut().expect("one") = 8;
        fs::write(at("b"), &bytes).expect("written");
        assert!(!same_bytes(&at("a"), &at("b")).expect("compared"));
        bytes.pop();
        fs::write(at("b"), &bytes).expect("written");
        assert!(!same_bytes(&at("a"), &at("b")).expect("compared"));
        assert!(same_bytes(&at("a"), &at("gone")).is_err());
    }
}
