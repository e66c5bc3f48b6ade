//! The files of a checkpoint: on disk, or on the hub, where headers and configurations are read in place.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use emu_hub::{Options, Remote};
use emu_pack::convert::{Described, ModelFolder, Weights, open_weights};
use emu_pack::{FileKind, check_weights};
use serde_json::Value;

/// Suffix of an index of shards.
const INDEX: &str = ".index.json";
/// Maximum size in bytes of a file on the hub that is read as a whole.
const MAX_SMALL: u64 = 64 << 20;

/// Where the files of a source are.
#[derive(Clone)]
pub enum Files {
    /// On disk.
    Disk,
    /// On the hub. Paths are those in the repository. Weights are known by their headers only.
    Hub(Arc<Remote>),
}

/// A file or folder, and where it is.
#[derive(Clone)]
pub struct Place {
    /// Where it is.
    pub files: Files,
    /// Its path there; empty for the root of a repository.
    pub path: PathBuf,
}

impl Place {
    /// A path on disk.
    pub fn disk(path: &Path) -> Self {
        Self {
            files: Files::Disk,
            path: path.to_owned(),
        }
    }

    /// A path on disk, or an address of the hub, of which only the list of files is fetched.
    ///
    /// # Errors
    /// Where the address is invalid, or its repository cannot be listed.
    pub fn of(path: &Path) -> Result<Self> {
        match path.to_str().filter(|text| emu_hub::is_address(text)) {
            None => Ok(Self::disk(path)),
            Some(text) => {
                let address = emu_hub::parse(text)?;
                let remote = Remote::open(&address, &Options::from_env()?)?;
                Ok(Self {
                    files: Files::Hub(Arc::new(remote)),
                    path: address.path.unwrap_or_default().into(),
                })
            }
        }
    }

    /// The file of this name in the folder.
    pub fn join(&self, name: impl AsRef<Path>) -> Self {
        Self {
            files: self.files.clone(),
            path: self.path.join(name),
        }
    }

    /// Whether it is a file.
    pub fn is_file(&self) -> bool {
        self.files.is_file(&self.path)
    }

    /// Reads a small file.
    ///
    /// # Errors
    /// As [`Files::read`].
    pub fn read(&self) -> Result<Vec<u8>> {
        self.files.read(&self.path)
    }

    /// Reads a JSON file.
    ///
    /// # Errors
    /// As [`Files::json`].
    pub fn json(&self) -> Result<Value> {
        self.files.json(&self.path)
    }

    /// The path or address, for messages.
    pub fn show(&self) -> String {
        self.files.show(&self.path)
    }
}

impl Files {
    /// Whether there is a file or folder.
    pub fn exists(&self, path: &Path) -> bool {
        match self {
            Self::Disk => path.exists(),
            Self::Hub(_) => self.is_file(path) || self.is_dir(path),
        }
    }

    /// Whether there is a folder.
    pub fn is_dir(&self, path: &Path) -> bool {
        match (self, inside(path)) {
            (Self::Disk, _) => path.is_dir(),
            (Self::Hub(remote), Some(folder)) => {
                let mut entries = remote.entries().iter();
                entries.any(|entry| below(&entry.path, &folder).is_some())
            }
            (Self::Hub(_), None) => false,
        }
    }

    /// Whether there is a file.
    pub fn is_file(&self, path: &Path) -> bool {
        match (self, inside(path)) {
            (Self::Disk, _) => path.is_file(),
            (Self::Hub(remote), Some(file)) => {
                remote.entries().iter().any(|entry| entry.path == file)
            }
            (Self::Hub(_), None) => false,
        }
    }

    /// Names of the files and folders in a folder, sorted.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn names(&self, folder: &Path) -> Result<Vec<String>> {
        let mut names: Vec<String> = match self {
            Self::Disk => {
                // The folder of a bare file name is the current one.
                let here = folder.as_os_str().is_empty();
                let folder = if here { Path::new(".") } else { folder };
                let entries = std::fs::read_dir(folder).with_context(|| {
                    format!("{} cannot be read; check the path", folder.display())
                })?;
                let name = |entry: std::io::Result<std::fs::DirEntry>| {
                    Some(entry.ok()?.file_name().to_string_lossy().into_owned())
                };
                entries.filter_map(name).collect()
            }
            Self::Hub(remote) => {
                let folder = self.key(folder)?;
                let entries = remote.entries().iter();
                let inner = entries.filter_map(|entry| below(&entry.path, &folder));
                inner
                    .map(|rest| rest.split('/').next().unwrap_or(rest).to_owned())
                    .collect()
            }
        };
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Reads a small file as a whole.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(&self, path: &Path) -> Result<Vec<u8>> {
        match self {
            Self::Disk => std::fs::read(path)
                .with_context(|| format!("{} cannot be read; check the path", path.display())),
            Self::Hub(remote) => Ok(remote.read(&self.key(path)?, MAX_SMALL)?),
        }
    }

    /// Reads a JSON file.
    ///
    /// # Errors
    /// Where it cannot be read or is no JSON.
    pub fn json(&self, path: &Path) -> Result<Value> {
        let bytes = self.read(path)?;
        if let kind @ (FileKind::LfsPointer | FileKind::WebPage) = FileKind::of(&bytes) {
            bail!("{} {}.", self.show(path), kind.refused());
        }
        serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is no JSON; take the published file", self.show(path)))
    }

    /// Rejects a file on disk that is neither weights nor an index of shards. On the hub, [`Files::weights`] does.
    ///
    /// # Errors
    /// Where it is of another kind.
    pub fn check_weights(&self, path: &Path) -> Result<()> {
        match self {
            Self::Disk => Ok(check_weights(path)?),
            Self::Hub(_) => Ok(()),
        }
    }

    /// Opens weights: a file, an index of shards, or a folder. Those on the hub are described by their headers and cannot be
    /// read.
    ///
    /// # Errors
    /// Where a file is no weight file, or its header is invalid.
    pub fn weights(&self, path: &Path) -> Result<Weights> {
        let remote = match self {
            Self::Disk => return Ok(open_weights(path)?),
            Self::Hub(remote) => remote,
        };
        let files: Vec<PathBuf> = match (self.is_dir(path), self.key(path)?) {
            (true, _) => {
                let mut names = self.names(path)?;
                names.retain(|name| name.ends_with(".safetensors"));
                names.iter().map(|name| path.join(name)).collect()
            }
            (false, file) if file.ends_with(INDEX) => self.shards(path)?,
            (false, _) => vec![path.to_owned()],
        };
        let mut described = Described::new();
        for file in &files {
            let key = self.key(file)?;
            described.add(self.show(file), remote.file(&key)?)?;
        }
        Ok(Box::new(described))
    }

    /// The files that an index of shards names.
    fn shards(&self, index: &Path) -> Result<Vec<PathBuf>> {
        let json = self.json(index)?;
        let map = json.get("weight_map").and_then(Value::as_object);
        let map = map.with_context(|| {
            format!(
                "{} has no weight_map. Take the published file.",
                self.show(index)
            )
        })?;
        let mut names: Vec<&str> = map.values().filter_map(Value::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let folder = index.parent().unwrap_or(Path::new(""));
        Ok(names.into_iter().map(|name| folder.join(name)).collect())
    }

    /// Opens a component as published by diffusers or transformers.
    ///
    /// # Errors
    /// Where its `config.json` or its weights cannot be opened.
    pub fn model_folder(&self, folder: &Path) -> Result<ModelFolder> {
        if let Self::Disk = self {
            return Ok(ModelFolder::open(folder)?);
        }
        let config = self.json(&folder.join("config.json"))?;
        let file = match ModelFolder::weight_file(|name| self.is_file(&folder.join(name))) {
            Some(name) => folder.join(name),
            None => folder.to_owned(),
        };
        let weights = self.weights(&file)?;
        Ok(ModelFolder {
            config,
            file,
            weights,
        })
    }

    /// A path or address, for messages.
    pub fn show(&self, path: &Path) -> String {
        match self {
            Self::Disk => path.display().to_string(),
            Self::Hub(remote) => {
                let mut address = remote.address().clone();
                address.path = inside(path).filter(|path| !path.is_empty());
                address.to_string()
            }
        }
    }

    /// A path in the repository.
    fn key(&self, path: &Path) -> Result<String> {
        inside(path).with_context(|| {
            format!(
                "{} is outside of the repository. Name it with an option of the command.",
                path.display()
            )
        })
    }
}

/// Reads a JSON file on disk.
///
/// # Errors
/// As [`Files::json`].
pub fn read_json(path: &Path) -> Result<Value> {
    Files::Disk.json(path)
}

/// A path in a repository, with `/` and without `.` and `..`. `None` if it leaves the repository.
fn inside(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = vec![];
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str()?),
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// The rest of a path below a folder; the root is empty.
fn below<'p>(path: &'p str, folder: &str) -> Option<&'p str> {
    match folder {
        "" => Some(path),
        _ => path.strip_prefix(folder)?.strip_prefix('/'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_repository() {
        for (path, expected) in [
            ("", Some("")),
            ("./a/b", Some("a/b")),
            ("a/../b/", Some("b")),
            ("a/../..", None),
            ("/etc", None),
        ] {
            assert_eq!(inside(Path::new(path)).as_deref(), expected, "{path}");
        }
        assert_eq!(below("a/b/c", "a"), Some("b/c"));
        assert_eq!(below("ab/c", "a"), None);
        assert_eq!(below("a", "a"), None);
        assert_eq!(below("a/b", ""), Some("a/b"));
    }

    #[test]
    fn addresses_of_no_repository_are_refused() {
        for address in ["hf://", "hf://owner", "hf://a/b@", "hf://datasets/a/b"] {
            assert!(Place::of(Path::new(address)).is_err(), "{address}");
        }
        let place = Place::of(Path::new("models/x")).expect("a path");
        assert_eq!(
            place.join("y").show(),
            Path::new("models/x/y").display().to_string()
        );
    }
}
