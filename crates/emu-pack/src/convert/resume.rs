//! Resuming a killed conversion: its finished shards, and a progress file that describes them.
//!
//! The progress file is replaced after every shard by a rename, so it never refers to an incomplete shard. It belongs to
//! one conversion, identified by its key; nothing is resumed from another.

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

/// The progress file, in the staging folder.
pub(super) const PROGRESS_FILE: &str = ".progress.json";
/// Lock file, held by the process that writes the folder.
pub(super) const LOCK_FILE: &str = ".lock";

/// The state of a writer after a finished shard.
#[derive(Serialize, Deserialize)]
pub(super) struct Progress {
    /// Resume key of the conversion.
    key: String,
    /// The manifest so far.
    manifest: Manifest,
    /// Outcome of each tensor so far.
    outcomes: Vec<Outcome>,
}

/// State resumed from a killed writer.
pub(super) struct Kept {
    pub manifest: Manifest,
    pub outcomes: Vec<Outcome>,
}

/// Name of a shard while the total number of shards is unknown.
pub(super) fn working_name(number: usize) -> String {
    format!("shard-{number}")
}

/// Name of a shard in a finished pack, counted from 1.
pub(super) fn final_name(component: &str, number: usize, count: usize) -> String {
    format!("{component}-{number:05}-of-{count:05}.safetensors")
}

/// Writes the progress file.
pub(super) fn save(
    disk: &mut dyn Disk,
    scratch: &Path,
    key: &str,
    manifest: &Manifest,
    outcomes: &[Outcome],
) -> Result<(), PackError> {
    // Exclude tensors without any rows in a shard.
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

/// Reads the progress file of the conversion with this key, and verifies every byte that it refers to. `None` if there is
/// none, or if it is damaged or of another conversion.
pub(super) fn load(disk: &mut dyn Disk, scratch: &Path, key: &str) -> Option<Kept> {
    let json = read_small(&scratch.join(PROGRESS_FILE), 2 * MAX_MANIFEST).ok()?;
    let progress: Progress = serde_json::from_slice(&json).ok()?;
    if progress.key != key {
        return None;
    }
    let manifest = progress.manifest;
    // Shards that already have their final names are renamed back.
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

/// Number of a tensor's rows that are in shards.
pub(super) fn rows_stored(tensor: &TensorEntry) -> usize {
    tensor.parts.last().map_or(0, |part| part.rows[1])
}

/// Locks a folder against other processes until dropped.
pub(super) fn lock(scratch: &Path) -> Result<Option<File>, PackError> {
    let path = scratch.join(LOCK_FILE);
    let file = match File::create(&path) {
        Ok(file) => file,
        // A full disk is reported by later writes.
        Err(_) => return Ok(None),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Err(PackError::TargetInUse {
            path: scratch.display().to_string(),
            reason: "another program is writing there".into(),
        }),
        // No protection on file systems without locks.
        Err(fs::TryLockError::Error(_)) => Ok(None),
    }
}
