//! Fault injection: the writer fails or is killed at every single file system operation.

use std::{
    collections::BTreeMap,
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

/// Allows `left` operations, then fails: only those that need space (a full disk), or all of them (`killed`).
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
            // Half of the data was written before the disk was full.
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
    write_with_key(folder, value, disk, None).map(drop)
}

/// Writes a pack of several shards and two components; returns the number of resumed shards.
fn write_with_key(
    folder: &Path,
    value: f32,
    disk: Box<dyn Disk>,
    key: Option<&str>,
) -> Result<usize, PackError> {
    let options = WriteOptions {
        max_shard_bytes: 600,
        resume: key.map(str::to_owned),
        ..WriteOptions::default()
    };
    let mut writer = PackWriter::on_disk(folder, PackMeta::default(), options, disk)?;
    let kept = writer.kept_shards();
    for (component, name) in [("vision", "c"), ("lm", "a"), ("lm", "b")] {
        if !writer.has(name) {
            let tensor = TensorData::from_f32(name, vec![40, 4], &[value; 160])?;
            writer.add(component, tensor)?;
        }
    }
    writer.add_file("tokenizer.json", b"{}")?;
    writer.finish().map(|_| kept)
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

#[test]
fn an_interrupted_conversion_goes_on_from_its_last_shard() {
    let root = tempfile::tempdir().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let whole = root.path().join("whole");
    let disk = |left, killed| {
        Box::new(Breaking {
            disk: RealDisk,
            left,
            killed,
            count: count.clone(),
        })
    };
    write_with_key(&whole, 1.0, disk(usize::MAX, true), Some("k")).unwrap();
    let (steps, whole) = (count.load(Ordering::Relaxed), files(&whole));
    let shards = whole
        .keys()
        .filter(|name| name.starts_with("lm-") || name.starts_with("vision-"));
    let shards = shards.count();
    assert!(
        shards > 4 && whole.len() == shards + 2,
        "{:?}",
        whole.keys()
    );

    for killed in [true, false] {
        let mut kept_before = 0;
        for left in 0..steps {
            let folder = root.path().join(format!("{killed}-{left}"));
            let written = write_with_key(&folder, 1.0, disk(left, killed), Some("k"));
            if written.is_ok() || folder.exists() {
                // Failed at the very end, with the pack already in place.
                continue;
            }
            let kept = write_with_key(&folder, 1.0, disk(usize::MAX, true), Some("k")).unwrap();
            // Later failures keep at least as many shards, and the result is byte-identical.
            assert!(kept >= kept_before, "{left}: {kept} after {kept_before}");
            assert!(files(&folder) == whole, "{killed} {left}");
            kept_before = kept;
        }
        assert_eq!(kept_before, shards);
    }
}

#[test]
fn nothing_is_taken_over_from_another_conversion_or_a_damaged_one() {
    let root = tempfile::tempdir().unwrap();
    let killed = |folder: &Path| {
        let count = Arc::new(AtomicUsize::new(0));
        let disk = Breaking {
            disk: RealDisk,
            left: 12,
            killed: true,
            count,
        };
        write_with_key(folder, 1.0, Box::new(disk), Some("k")).unwrap_err();
    };
    let again = |folder: &Path, value: f32, key: Option<&str>| {
        let kept = write_with_key(folder, value, Box::new(RealDisk), key).unwrap();
        let pack = PackReader::open(folder).unwrap();
        pack.verify().unwrap();
        assert_eq!(pack.read("c").unwrap().to_f32().unwrap(), [value; 160]);
        kept
    };
    let folder = |name: &str| {
        let folder = root.path().join(name);
        killed(&folder);
        folder
    };
    assert!(again(&folder("same"), 1.0, Some("k")) > 0);
    assert_eq!(again(&folder("other"), 2.0, Some("l")), 0);
    assert_eq!(again(&folder("none"), 2.0, None), 0);

    let damage = |name: &str, file: &str, change: fn(&mut Vec<u8>)| {
        let folder = folder(name);
        let path = root.path().join(format!(".{name}.part/{file}"));
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        assert_eq!(again(&folder, 2.0, Some("k")), 0, "{name}");
    };
    damage("flipped", "shard-0", |bytes| bytes[300] ^= 1);
    damage("short", "shard-1", |bytes| bytes.truncate(40));
    damage("torn", ".progress.json", |bytes| bytes.truncate(200));
    damage("empty", ".progress.json", Vec::clear);
}

#[test]
fn two_writers_of_one_pack_exclude_each_other() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("pack");
    let create = || PackWriter::create(&folder, PackMeta::default(), WriteOptions::default());
    let first = create().unwrap();
    assert_eq!(create().map(drop).unwrap_err().code(), "target-in-use");
    drop(first);
    assert!(create().is_ok());
}

/// The value of the pack's tensors, after verification.
fn value(folder: &Path) -> Result<f32, PackError> {
    let pack = PackReader::open(folder)?;
    pack.verify()?;
    let values = ["a", "b", "c"].map(|name| pack.read(name)?.to_f32());
    let values = values.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
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
        // New target: no readable pack unless the writer completed.
        let fresh = root.path().join(format!("fresh-{left}"));
        match write(&fresh, 1.0, disk(left)) {
            Ok(()) => assert_eq!(value(&fresh).unwrap(), 1.0),
            Err(error) => {
                assert_eq!(error.code(), "disk-full", "{error}");
                // If only the final sync of the parent folder failed, the pack is complete.
                assert!(!fresh.exists() || value(&fresh).unwrap() == 1.0);
            }
        }
        // Existing pack: the old or the new one, complete.
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
    // Writing to /dev/full fails like a full disk.
    let error = RealDisk
        .write(Path::new("/dev/full"), &[b"x"])
        .map_err(|e| PackError::io("/dev/full", e))
        .unwrap_err();
    assert_eq!(error.code(), "disk-full");
}
