//! Inspection of the writer's target folder.

use std::{collections::HashSet, fs, path::Path};

use super::resume::{LOCK_FILE, PROGRESS_FILE};
use crate::{MANIFEST_FILE, Manifest, PackError, manifest::MAX_MANIFEST, safetensors::read_small};

/// Contents of the target folder.
#[derive(Default)]
pub(super) struct Existing {
    /// Whether the target exists.
    pub exists: bool,
    /// Files that do not belong to the pack.
    pub others: Vec<String>,
}

/// Inspects the target; an error unless it is absent, an empty folder, or a pack without sub-folders.
pub(super) fn replaceable(target: &Path) -> Result<Existing, PackError> {
    let in_use = |reason: String| PackError::TargetInUse {
        path: target.display().to_string(),
        reason,
    };
    let io = |e| PackError::io(target.display(), e);
    if !target.exists() {
        return Ok(Existing::default());
    }
    if !target.is_dir() {
        return Err(in_use("it is a file".into()));
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(target).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == PROGRESS_FILE || name == LOCK_FILE {
            // Left by a writer that was killed right after the exchange.
            continue;
        }
        if !entry.file_type().map_err(io)?.is_file() {
            return Err(in_use(format!("{name} in it is not a plain file")));
        }
        files.push(name);
    }
    files.sort();
    if files.is_empty() {
        return Ok(Existing {
            exists: true,
            others: vec![],
        });
    }
    if !files.iter().any(|name| name == MANIFEST_FILE) {
        return Err(in_use(format!(
            "it holds {} but no {MANIFEST_FILE}",
            files.concat().chars().take(60).collect::<String>()
        )));
    }
    let json = read_small(&target.join(MANIFEST_FILE), MAX_MANIFEST)?;
    let own: HashSet<String> = match Manifest::parse(MANIFEST_FILE, &json) {
        Ok(old) => old
            .shards
            .into_iter()
            .chain(old.files)
            .map(|entry| entry.file)
            .collect(),
        // A damaged pack, or one of another version: recognise its shards by name.
        Err(_) => files
            .iter()
            .filter(|name| name.ends_with(".safetensors"))
            .cloned()
            .collect(),
    };
    files.retain(|name| name != MANIFEST_FILE && !own.contains(name));
    Ok(Existing {
        exists: true,
        others: files,
    })
}
