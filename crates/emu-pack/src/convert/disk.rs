//! The file system operations of the pack writer, as a trait so that tests can inject failures.

use std::{fs, io, io::Write, path::Path};

/// File system operations of the writer.
pub(crate) trait Disk: Send {
    /// Creates a folder and its parents.
    fn create_folder(&mut self, path: &Path) -> io::Result<()>;
    /// Creates a file with these bytes and syncs it to disk.
    fn write(&mut self, path: &Path, chunks: &[&[u8]]) -> io::Result<()>;
    /// Renames a file or folder.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Copies a file.
    fn copy(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a folder and its contents.
    fn remove_folder(&mut self, path: &Path) -> io::Result<()>;
    /// Syncs the entries of a folder to disk.
    fn sync_folder(&mut self, path: &Path) -> io::Result<()>;
}

/// The real file system.
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
        // Folders can be opened and synced on Unix only; elsewhere the rename has to suffice.
        match cfg!(unix) {
            true => fs::File::open(path)?.sync_all(),
            false => Ok(()),
        }
    }
}
