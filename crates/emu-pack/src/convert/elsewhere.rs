//! Packs with shards that are not stored with the pack: they are rebuilt, byte for byte, from a file published elsewhere.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{PackMeta, PackWriter, WriteOptions};
use crate::{FileEntry, Manifest, PackError, PackReader, TensorSource};

/// File in the pack's folder that lists the tensors published elsewhere.
pub const ELSEWHERE_FILE: &str = "elsewhere.json";

/// The tensors of the shards that are rebuilt from a published file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    /// Name of the published file.
    pub file: String,
    /// The tensors, in the order in which they were added to the pack.
    pub tensors: Vec<Moved>,
}

/// A tensor taken from a published file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    /// Name in the pack.
    pub name: String,
    /// Name in the published file.
    pub from: String,
    /// Number of row groups whose halves are interleaved in the published file (`Stored::with_halves_joined`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halves: Option<usize>,
}

impl Elsewhere {
    /// Reads the list of a pack.
    ///
    /// # Errors
    /// The file is missing or invalid.
    pub fn read(pack: &Path) -> Result<Self, PackError> {
        let path = pack.join(ELSEWHERE_FILE);
        let text = std::fs::read(&path).map_err(|e| PackError::io(path.display(), e))?;
        serde_json::from_slice(&text).map_err(|e| bad(&path, &e.to_string()))
    }

    /// Rebuilds the missing shards of a pack's folder from the published file. Does nothing if none is missing.
    ///
    /// # Errors
    /// The file is not the one that the pack was made from, or the folder cannot be written; nothing is added then.
    pub fn complete(
        &self,
        pack: &Path,
        source: &(impl TensorSource + ?Sized),
    ) -> Result<(), PackError> {
        let reader = PackReader::open(pack)?;
        let manifest = reader.manifest();
        let missing: Vec<_> = { manifest.shards.iter() }
            .filter(|shard| !pack.join(&shard.file).is_file())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let made = beside(pack)?;
        let result = self.write(&made, manifest, source).and_then(|shards| {
            let found = { missing.iter() }
                .map(|shard| same(shard, &shards))
                .collect::<Result<Vec<_>, _>>()?;
            for (shard, from) in missing.iter().zip(found) {
                let to = pack.join(&shard.file);
                std::fs::rename(from, &to).map_err(|e| PackError::io(to.display(), e))?;
            }
            Ok(())
        });
        let _ = std::fs::remove_dir_all(&made);
        result
    }

    /// Writes the shards made from the published file to a folder. Returns their paths and SHA-256 hashes.
    fn write(
        &self,
        folder: &Path,
        manifest: &Manifest,
        source: &(impl TensorSource + ?Sized),
    ) -> Result<Vec<(PathBuf, String)>, PackError> {
        let mut writer = PackWriter::create(folder, PackMeta::default(), WriteOptions::default())?;
        for Moved { name, from, halves } in &self.tensors {
            let entry = manifest.tensors.iter().find(|tensor| tensor.name == *name);
            let component = entry.map(|entry| entry.component.as_str());
            let component = component.ok_or_else(|| PackError::MissingTensor {
                file: "emu.json".into(),
                tensor: name.clone(),
            })?;
            let mut tensor = source.read_stored(from)?.renamed(name);
            if let Some(groups) = halves {
                tensor = tensor.with_halves_joined(*groups)?;
            }
            writer.add_stored(component, tensor)?;
        }
        let shards = writer.finish()?.shards.into_iter();
        Ok(shards.map(|s| (folder.join(&s.file), s.sha256)).collect())
    }
}

/// The rebuilt shard with the wanted hash.
fn same<'a>(wanted: &FileEntry, made: &'a [(PathBuf, String)]) -> Result<&'a Path, PackError> {
    let found = made.iter().find(|(_, sha256)| *sha256 == wanted.sha256);
    let found = found.map(|(path, _)| path.as_path());
    found.ok_or_else(|| PackError::WrongHash {
        file: wanted.file.clone(),
        expected: wanted.sha256.clone(),
        found: made.first().map(|(_, s)| s.clone()).unwrap_or_default(),
    })
}

fn bad(path: &Path, reason: &str) -> PackError {
    PackError::BadManifest {
        file: path.display().to_string(),
        reason: reason.to_owned(),
    }
}

/// A hidden sibling folder of the pack, on the same file system.
fn beside(pack: &Path) -> Result<PathBuf, PackError> {
    let target = std::path::absolute(pack).map_err(|e| PackError::io(pack.display(), e))?;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    Ok(target.with_file_name(format!(".{name}.elsewhere")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, InMemory, TensorData};

    fn tensor(name: &str, bytes: Vec<u8>) -> TensorData {
        TensorData::new(name, Dtype::U8, vec![bytes.len(), 1], bytes).expect("a tensor")
    }

    fn source(tensors: Vec<TensorData>) -> InMemory {
        InMemory::new(tensors).expect("tensors")
    }

    fn published(last: u8) -> InMemory {
        source(vec![
            tensor("blk.q", vec![0, 2, 1, 3]),
            tensor("blk.v", vec![5, 6, 7, last]),
        ])
    }

    /// A pack of three shards: two from tensors of a published file, then one of its own.
    fn pack(folder: &Path) -> Elsewhere {
        let moved = |name: &str, from: &str, halves| Moved {
            name: name.into(),
            from: from.into(),
            halves,
        };
        let list = Elsewhere {
            file: "lm.gguf".into(),
            tensors: vec![
                moved("lm.q", "blk.q", Some(1)),
                moved("lm.v", "blk.v", None),
            ],
        };
        let mut writer =
            PackWriter::create(folder, PackMeta::default(), WriteOptions::default()).expect("new");
        writer
            .add("vision", tensor("eye", vec![1, 2]))
            .expect("added");
        let file = published(8);
        for Moved { name, from, halves } in &list.tensors {
            let stored = file.read_stored(from).expect("there").renamed(name);
            let stored = match halves {
                Some(groups) => stored.with_halves_joined(*groups).expect("halves"),
                None => stored,
            };
            writer.add_stored("lm", stored).expect("added");
        }
        writer.end_shard().expect("written");
        writer.add("lm", tensor("lm.own", vec![9])).expect("added");
        let text = serde_json::to_vec(&list).expect("JSON");
        writer.add_file(ELSEWHERE_FILE, &text).expect("added");
        writer.finish().expect("a pack");
        list
    }

    #[test]
    fn what_is_elsewhere_is_put_back_byte_for_byte() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("pack");
        let list = pack(&at);
        assert_eq!(Elsewhere::read(&at).expect("a list"), list);
        let shard = at.join("lm-00001-of-00002.safetensors");
        let whole = std::fs::read(&shard).expect("there");
        let names = || std::fs::read_dir(&at).expect("a folder").count();
        let (before, all) = (PackReader::open(&at).expect("a pack"), names());
        let q = before.read_logical("lm.q").expect("there");
        assert_eq!(q.bytes, [0, 1, 2, 3]);

        // Already complete: nothing is read.
        list.complete(&at, &source(vec![])).expect("whole");
        std::fs::remove_file(&shard).expect("removed");
        // Another file, and one without a needed tensor: the attempt leaves nothing behind.
        let error = list.complete(&at, &published(1)).expect_err("another file");
        assert_eq!(error.code(), "wrong-hash");
        let error = list.complete(&at, &source(vec![])).expect_err("empty");
        assert_eq!(error.code(), "missing-tensor");
        assert_eq!(
            (names(), folder.path().read_dir().expect("a folder").count()),
            (all - 1, 1)
        );

        list.complete(&at, &published(8)).expect("completed");
        assert_eq!(std::fs::read(&shard).expect("there"), whole);
        PackReader::open(&at)
            .expect("a pack")
            .verify()
            .expect("whole");
        assert_eq!(folder.path().read_dir().expect("a folder").count(), 1);
    }

    #[test]
    fn lists_that_do_not_fit_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("pack");
        let mut list = pack(&at);
        std::fs::remove_file(at.join("lm-00001-of-00002.safetensors")).expect("removed");
        list.tensors[0].name = "lm.other".into();
        let error = list.complete(&at, &published(8)).expect_err("unknown");
        assert_eq!(error.code(), "missing-tensor");
        std::fs::write(at.join(ELSEWHERE_FILE), "{}").expect("written");
        assert!(Elsewhere::read(&at).is_err());
        std::fs::remove_file(at.join(ELSEWHERE_FILE)).expect("removed");
        assert!(Elsewhere::read(&at).is_err());
    }
}
