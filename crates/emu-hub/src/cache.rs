//! The hub's cache on this machine, in the layout that `hf-hub` and `huggingface_hub` share:
//!
//! ```text
//! models--OWNER--NAME/refs/REVISION            the commit of a branch or tag
//! models--OWNER--NAME/snapshots/COMMIT/PATH    a link to the file's bytes
//! models--OWNER--NAME/blobs/HASH               the bytes; HASH.incomplete while they arrive
//! .locks/models--OWNER--NAME/HASH.lock         held by the process that fetches them
//! ```

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::{CacheRepo, Repo, RepoType};

use crate::disk::{create_folder, put, same_bytes, write};
use crate::select::MANIFEST;
use crate::{Address, Entry, HubError, Listing, Options};

/// The part of the cache for one repository.
pub(crate) struct Cache {
    root: PathBuf,
    locks: PathBuf,
    repo: CacheRepo,
    whole: PathBuf,
}

impl Cache {
    pub fn new(address: &Address, options: &Options) -> Self {
        let revision = address.revision().to_owned();
        let repo = Repo::with_revision(address.repo(), RepoType::Model, revision);
        let folder = repo.folder_name();
        Self {
            root: options.cache.join(&folder),
            locks: options.cache.join(".locks").join(&folder),
            repo: hf_hub::Cache::new(options.cache.clone()).repo(repo),
            whole: options.cache.clone(),
        }
    }

    /// The file that holds, or will hold, the bytes of this hash or ETag.
    pub fn blob(&self, name: &str) -> PathBuf {
        self.root.join("blobs").join(name)
    }

    /// The unfinished file of this hash or ETag.
    pub fn incomplete(&self, name: &str) -> PathBuf {
        self.blob(&format!("{name}.incomplete"))
    }

    /// The folder of a commit's files.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo.pointer_path(commit)
    }

    /// Puts a file into the folder of a commit, as a link to its bytes.
    pub fn point(&self, commit: &str, path: &str, name: &str) -> Result<(), HubError> {
        let (blob, pointer) = (self.blob(name), self.snapshot(commit).join(path));
        if same_bytes(&blob, &pointer).unwrap_or(false) {
            return Ok(());
        }
        // From the folder of the link up to that of the repository: the path's folders, the commit, `snapshots`.
        let up = "../".repeat(path.split('/').count() + 1);
        let relative = format!("{up}blobs/{name}");
        put(&pointer, |temporary| {
            #[cfg(unix)]
            let linked = std::os::unix::fs::symlink(&relative, temporary);
            #[cfg(windows)]
            let linked = std::os::windows::fs::symlink_file(relative.replace('/', "\\"), temporary);
            // Some file systems, and Windows for most users, have no symbolic links.
            linked
                .or_else(|_| fs::hard_link(&blob, temporary))
                .or_else(|_| fs::copy(&blob, temporary).map(|_| ()))
        })
    }

    /// Records the commit of a revision.
    pub fn set_revision(&self, address: &Address, commit: &str) -> Result<(), HubError> {
        match address.revision() == commit {
            true => Ok(()),
            false => write(&self.reference(address), commit.as_bytes()),
        }
    }

    fn reference(&self, address: &Address) -> PathBuf {
        self.root.join("refs").join(address.revision())
    }

    /// Takes the lock of a hash or ETag. Waits while another process has it.
    pub fn lock(&self, name: &str, options: &Options) -> Result<File, HubError> {
        create_folder(&self.locks)?;
        let path = self.locks.join(format!("{name}.lock"));
        let file = File::create(&path).map_err(|error| HubError::io(&path, error))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => options.wait(Duration::from_millis(200))?,
                // A file system without locks: better without than not at all.
                Err(TryLockError::Error(_)) => return Ok(file),
            }
        }
    }

    /// Lists the files of a revision that are here.
    ///
    /// # Errors
    /// [`HubError::Offline`] if the revision was never fetched.
    pub fn listing(&self, address: &Address) -> Result<Listing, HubError> {
        let lacks = |missing: String| HubError::Offline {
            address: address.to_string(),
            cache: self.whole.clone(),
            missing,
        };
        let reference = fs::read_to_string(self.reference(address));
        let commit = match reference {
            Ok(commit) => commit.trim().to_owned(),
            Err(_) => address.revision().to_owned(),
        };
        let snapshot = self.snapshot(&commit);
        let fine = commit.bytes().all(|b| b.is_ascii_alphanumeric());
        if !fine || !snapshot.is_dir() {
            return Err(lacks(format!(
                "revision {} was never fetched",
                address.revision()
            )));
        }
        let mut entries = vec![];
        walk(&snapshot, "", &mut entries).map_err(|error| HubError::io(&snapshot, error))?;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Listing { commit, entries })
    }

    /// Name of the first file that an index or a manifest among these files names, and that is not here. A transfer that was
    /// stopped leaves such a gap.
    pub fn gap(&self, commit: &str, chosen: &[&Entry]) -> Option<String> {
        let snapshot = self.snapshot(commit);
        let named = chosen.iter().flat_map(|entry| {
            let folder = entry.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let files = named_files(&snapshot.join(&entry.path), &entry.path);
            files.into_iter().map(move |file| match folder {
                "" => file,
                folder => format!("{folder}/{file}"),
            })
        });
        named
            .into_iter()
            .find(|file| !snapshot.join(file).is_file())
    }
}

/// Collects the files below a folder; `prefix` ends with `/` or is empty.
fn walk(folder: &Path, prefix: &str, entries: &mut Vec<Entry>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        // Follows the links. One that leads nowhere is a file that is not here.
        let Ok(metadata) = fs::metadata(entry.path()) else {
            continue;
        };
        if metadata.is_dir() {
            walk(&entry.path(), &format!("{path}/"), entries)?;
        } else {
            entries.push(Entry {
                path,
                size: Some(metadata.len()),
                hash: None,
            });
        }
    }
    Ok(())
}

/// The files that an index of shards, or the manifest of a pack, names. None if the file is neither.
fn named_files(file: &Path, path: &str) -> Vec<String> {
    let (index, pack) = (
        path.ends_with(".index.json"),
        path.rsplit('/').next() == Some(MANIFEST),
    );
    if !index && !pack {
        return vec![];
    }
    let json = fs::read(file).ok();
    let json = json.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    let Some(json) = json else {
        return vec![];
    };
    let texts = |values: Vec<&serde_json::Value>| -> Vec<String> {
        let texts = values.into_iter().filter_map(|value| value.as_str());
        texts.map(str::to_owned).collect()
    };
    if index {
        let map = json.get("weight_map").and_then(|map| map.as_object());
        return map.map_or(vec![], |map| texts(map.values().collect()));
    }
    let lists = ["shards", "files"]
        .iter()
        .filter_map(|list| json.get(*list)?.as_array());
    texts(
        lists
            .flatten()
            .filter_map(|entry| entry.get("file"))
            .collect(),
    )
}
