//! Writers that fail or are killed at every single thing they ask of the disk.

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    PackMeta, PackWriter, WriteOptions,
    disk::{Disk, RealDisk},
};
use crate::{PackError, PackReader, TensorData, TensorSource};

/// Does `left` things, then breaks: a full disk that goes on answering, or (killed) nothing any more.
struct Breaking {
    disk: RealDisk,
    left: usize,
    killed: bool,
    count: Arc<AtomicUsize>,
}

impl Breaking {
    fn step(&mut self, needs_space: bool) -> io::Result<()> {
        self.count.fetch_add(1, Ordering::Relaxed);
        if self.left > 0 {
            self.left -= 1;
            return Ok(());
        }
        match needs_space || self.killed {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl Disk for Breaking {
    fn create_folder(&mut self, path: &Path) -> io::Result<()> {
        self.step(true)?;
        self.disk.create_folder(path)
    }

    fn write(&mut self, path: &Path, chunks: &[&[u8]]) -> io::Result<()> {
        let result = self.step(true);
        if result.is_err() {
            // Half of it was written before the disk was full.
            let all = chunks.concat();
            let _ = self.disk.write(path, &[&all[..all.len() / 2]]);
        }
        result?;
        self.disk.write(path, chunks)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(false)?;
        self.disk.rename(from, to)
    }

    fn copy(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(true)?;
        self.disk.copy(from, to)
    }

    fn remove_folder(&mut self, path: &Path) -> io::Result<()> {
        self.step(false)?;
        self.disk.remove_folder(path)
    }

    fn sync_folder(&mut self, path: &Path) -> io::Result<()> {
        self.step(true)?;
        self.disk.sync_folder(path)
    }
}

fn write(folder: &Path, value: f32, disk: Box<dyn Disk>) -> Result<(), PackError> {
    let options = WriteOptions {
        max_shard_bytes: 600,
        ..WriteOptions::default()
    };
    let mut writer = PackWriter::on_disk(folder, PackMeta::default(), options, disk)?;
    for name in ["a", "b"] {
        writer.add(
            "lm",
            TensorData::from_f32(name, vec![40, 4], &[value; 160])?,
        )?;
    }
    writer.add_file("tokenizer.json", b"{}")?;
    writer.finish().map(drop)
}

/// The value that the pack's tensors hold, after verifying all of it.
fn value(folder: &Path) -> Result<f32, PackError> {
    let pack = PackReader::open(folder)?;
    pack.verify()?;
    let values = [pack.read("a")?.to_f32()?, pack.read("b")?.to_f32()?].concat();
    assert!(values.iter().all(|v| *v == values[0]), "old and new mixed");
    Ok(values[0])
}

fn break_everywhere(killed: bool) {
    let root = tempfile::tempdir().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let disk = |left| {
        Box::new(Breaking {
            disk: RealDisk,
            left,
            killed,
            count: count.clone(),
        })
    };
    write(&root.path().join("count"), 1.0, disk(usize::MAX)).unwrap();
    let steps = count.load(Ordering::Relaxed);
    assert!(steps > 10);

    for left in 0..steps + 4 {
        // Where nothing was: nothing that reads as a pack, unless the writer got to its end.
        let fresh = root.path().join(format!("fresh-{left}"));
        match write(&fresh, 1.0, disk(left)) {
            Ok(()) => assert_eq!(value(&fresh).unwrap(), 1.0),
            Err(error) => {
                assert_eq!(error.code(), "disk-full", "{error}");
                // At the very end, only the sync of the parent folder failed: the pack is whole.
                assert!(!fresh.exists() || value(&fresh).unwrap() == 1.0);
            }
        }
        // Where a pack was: that one or the new one, whole.
        let over = root.path().join(format!("over-{left}"));
        write(&over, 1.0, Box::new(RealDisk)).unwrap();
        fs::write(over.join("README.md"), "card").unwrap();
        let result = write(&over, 2.0, disk(left));
        let found = value(&over).unwrap();
        assert!(
            found == 2.0 || (found == 1.0 && result.is_err()),
            "{left}: {found} after {result:?}"
        );
        // The next writer cleans up and succeeds.
        write(&over, 3.0, Box::new(RealDisk)).unwrap();
        assert_eq!(value(&over).unwrap(), 3.0);
        assert_eq!(fs::read_to_string(over.join("README.md")).unwrap(), "card");
        for rest in [".part", ".previous"] {
            assert!(
                !root.path().join(format!(".over-{left}{rest}")).exists(),
                "{left}: {rest} is left"
            );
        }
    }
}

#[test]
fn full_disk_at_every_step() {
    break_everywhere(false);
}

#[test]
fn killed_at_every_step() {
    break_everywhere(true);
}

#[cfg(target_os = "linux")]
#[test]
fn a_really_full_device() {
    // Writing to /dev/full fails as a full disk does.
    let error = RealDisk
        .write(Path::new("/dev/full"), &[b"x"])
        .map_err(|e| PackError::io("/dev/full", e))
        .unwrap_err();
    assert_eq!(error.code(), "disk-full");
}
