//! What a killed conversion leaves to the next: the finished shards and a note of what is in them.
//!
//! The note is replaced after every shard, by renaming, so that it never speaks of a shard that is not whole. It
//! belongs to one conversion, known by its key; of another one, nothing is taken over.

use std::{
    collections::HashSet,
    fs::{self, File},
    path::Path,
};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Outcome, disk::Disk};
use crate::{
    FileEntry, Manifest, PackError, TensorEntry, manifest::MAX_MANIFEST, safetensors::read_small,
};

/// The note, in the folder where a pack grows.
pub(super) const PROGRESS_FILE: &str = ".progress.json";
/// Held by the program that writes there.
pub(super) const LOCK_FILE: &str = ".lock";

/// The state of a writer just after a shard.
#[derive(Serialize, Deserialize)]
pub(super) struct Progress {
    /// What is converted, and how.
    key: String,
    /// The manifest as it would be if nothing followed.
    manifest: Manifest,
    /// What became of each tensor so far.
    outcomes: Vec<Outcome>,
}

/// What can be taken over.
pub(super) struct Kept {
    pub manifest: Manifest,
    pub outcomes: Vec<Outcome>,
}

/// Name of a shard while the number of shards is not known.
pub(super) fn working_name(number: usize) -> String {
    format!("shard-{number}")
}

/// Name of a shard in a finished pack, counted from 1.
pub(super) fn final_name(component: &str, number: usize, count: usize) -> String {
    format!("{component}-{number:05}-of-{count:05}.safetensors")
}

/// Writes the note.
pub(super) fn save(
    disk: &mut dyn Disk,
    scratch: &Path,
    key: &str,
    manifest: &Manifest,
    outcomes: &[Outcome],
) -> Result<(), PackError> {
    // Without the tensors of which nothing is in a shard yet.
    let stored = manifest.tensors.iter().filter(|t| !t.parts.is_empty());
    let known: HashSet<&str> = stored.clone().map(|tensor| tensor.name.as_str()).collect();
    let outcomes = outcomes
        .iter()
        .filter(|o| known.contains(o.tensor.as_str()));
    let quantization = manifest.quantization.iter();
    let progress = Progress {
        key: key.into(),
        manifest: Manifest {
            tensors: stored.cloned().collect(),
            quantization: quantization
                .filter(|(name, _)| known.contains(name.as_str()))
                .map(|(name, scheme)| (name.clone(), *scheme))
                .collect(),
            files: vec![],
            ..manifest.clone()
        },
        outcomes: outcomes.cloned().collect(),
    };
    let json = serde_json::to_vec(&progress).unwrap_or_default();
    let (path, new) = (
        scratch.join(PROGRESS_FILE),
        scratch.join(format!("{PROGRESS_FILE}.new")),
    );
    disk.write(&new, &[&json])
        .and_then(|()| disk.rename(&new, &path))
        .map_err(|e| PackError::io(path.display(), e))
}

/// Reads the note of the conversion with this key, and checks every byte that it speaks of. `None` where there is
/// nothing to take over, be it that it is damaged or of another conversion.
pub(super) fn load(disk: &mut dyn Disk, scratch: &Path, key: &str) -> Option<Kept> {
    let json = read_small(&scratch.join(PROGRESS_FILE), 2 * MAX_MANIFEST).ok()?;
    let progress: Progress = serde_json::from_slice(&json).ok()?;
    if progress.key != key {
        return None;
    }
    let manifest = progress.manifest;
    // Shards whose final names were already given get their working names back.
    for (component, entry) in &manifest.components {
        let count = entry.shards.len();
        for (i, file) in entry.shards.iter().enumerate() {
            let named = scratch.join(final_name(component, i + 1, count));
            if !scratch.join(file).exists() && named.exists() {
                disk.rename(&named, &scratch.join(file)).ok()?;
            }
        }
    }
    let whole = |entry: &FileEntry| {
        let bytes = fs::read(scratch.join(&entry.file));
        bytes.is_ok_and(|bytes| entry.verify(&bytes).is_ok())
    };
    let numbered = manifest.shards.iter().enumerate();
    let in_order = numbered.fold(true, |all, (i, shard)| all && shard.file == working_name(i));
    (in_order && manifest.shards.par_iter().all(whole)).then_some(Kept {
        manifest,
        outcomes: progress.outcomes,
    })
}

/// Rows of a tensor that are in shards.
pub(super) fn rows_stored(tensor: &TensorEntry) -> usize {
    tensor.parts.last().map_or(0, |part| part.rows[1])
}

/// Keeps other programs out of a folder until it is dropped.
pub(super) fn lock(scratch: &Path) -> Result<Option<File>, PackError> {
    let path = scratch.join(LOCK_FILE);
    let file = match File::create(&path) {
        Ok(file) => file,
        // A disk that is full says so where it matters.
        Err(_) => return Ok(None),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Err(PackError::TargetInUse {
            path: scratch.display().to_string(),
            reason: "another program is writing there".into(),
        }),
        // Where a file system knows no locks there is no protection.
        Err(fs::TryLockError::Error(_)) => Ok(None),
    }
}
