//! The few things that writing a pack asks of a file system, so that tests can make each of them fail.

use std::{fs, io, io::Write, path::Path};

/// What the writer does to a disk.
pub(crate) trait Disk: Send {
    /// Creates a folder and its parents.
    fn create_folder(&mut self, path: &Path) -> io::Result<()>;
    /// Creates a file of these bytes and waits until they are on the disk.
    fn write(&mut self, path: &Path, chunks: &[&[u8]]) -> io::Result<()>;
    /// Renames a file or folder.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Copies a file.
    fn copy(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a folder and what is in it.
    fn remove_folder(&mut self, path: &Path) -> io::Result<()>;
    /// Waits until the entries of a folder are on the disk.
    fn sync_folder(&mut self, path: &Path) -> io::Result<()>;
}

/// The real one.
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn create_folder(&mut self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn write(&mut self, path: &Path, chunks: &[&[u8]]) -> io::Result<()> {
        let mut file = fs::File::create(path)?;
        for chunk in chunks {
            file.write_all(chunk)?;
        }
        file.sync_all()
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn copy(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::copy(from, to)?;
        fs::File::open(to)?.sync_all()
    }

    fn remove_folder(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_folder(&mut self, path: &Path) -> io::Result<()> {
        // Only Unix lets a folder be opened and synced; elsewhere the rename has to do.
        match cfg!(unix) {
            true => fs::File::open(path)?.sync_all(),
            false => Ok(()),
        }
    }
}
