//! The checkout: its root, its files, and Cargo's information about its packages.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process;

/// Text files above this size are data, and their lines are not checked.
const LARGEST_TEXT: u64 = 2 * 1024 * 1024;

/// The checkout this program was built from.
pub struct Workspace {
    /// The folder of the root `Cargo.toml`.
    pub root: PathBuf,
}

impl Workspace {
    /// Finds the root: two folders above this crate, or the nearest ancestor of the current folder with a `Cargo.lock`.
    pub fn find() -> Result<Self> {
        let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let start = std::env::current_dir()
            .context("the current folder cannot be read; run from inside the checkout")?;
        let here = start
            .ancestors()
            .find(|folder| folder.join("crates/xtask/Cargo.toml").is_file());
        let root = here.map(Path::to_path_buf).unwrap_or(built_from);
        let root = root.canonicalize().context(
            "the checkout that this program was built from is gone; run from inside a checkout",
        )?;
        Ok(Self { root })
    }

    /// Packages of the workspace, from `cargo metadata --no-deps`.
    pub fn packages(&self) -> Result<Vec<Package>> {
        let text = process::capture(process::cargo_in(&self.root).args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
        ]))?;
        let metadata: Value = serde_json::from_str(&text)
            .context("cargo metadata printed something that is not JSON")?;
        packages_from(&metadata)
    }

    /// The version of everything that is released: that of the workspace.
    pub fn version(&self) -> Result<String> {
        let path = self.root.join("Cargo.toml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        version_in(&text)
    }

    /// Files of the checkout: tracked files, and new files that git does not ignore.
    pub fn tree(&self) -> Result<Tree> {
        let listing = process::capture(process::new("git", &self.root).args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]))
        .context("the list of files comes from git; run inside a git checkout")?;
        let mut paths: Vec<&str> = listing
            .split('\0')
            .filter(|path| !path.is_empty())
            .collect();
        paths.sort_unstable();
        paths.dedup();
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let full = self.root.join(path);
            // A tracked file may have been deleted without a commit.
            let Ok(meta) = std::fs::metadata(&full) else {
                continue;
            };
            if !meta.is_file() {
                continue;
            }
            let text = if meta.len() <= LARGEST_TEXT {
                let bytes =
                    std::fs::read(&full).with_context(|| format!("{path} cannot be read"))?;
                String::from_utf8(bytes)
                    .ok()
                    .filter(|text| !text.contains('\0'))
            } else {
                None
            };
            files.push(File {
                path: path.to_owned(),
                bytes: meta.len(),
                text,
            });
        }
        Ok(Tree { files })
    }
}

/// `workspace.package.version` of the root `Cargo.toml`.
pub fn version_in(manifest: &str) -> Result<String> {
    let manifest: toml::Table = manifest
        .parse()
        .context("the root Cargo.toml is not TOML; mend it")?;
    let version = { manifest.get("workspace") }
        .and_then(|workspace| workspace.get("package")?.get("version")?.as_str());
    let version = version
        .context("the root Cargo.toml has no workspace.package.version; releases need one")?;
    Ok(version.to_owned())
}

/// One package of the workspace.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Direct dependencies, including development and build dependencies.
    pub dependencies: Vec<Dependency>,
    /// Features and dependencies that its own features enable, e.g. `dep:openh264` or `emu-pack/convert`.
    pub feature_effects: Vec<String>,
}

/// One direct dependency of a package.
#[derive(Debug, Clone)]
pub struct Dependency {
    /// Name of the dependency.
    pub name: String,
    /// Enabled features.
    pub features: Vec<String>,
}

/// Reads the packages from `cargo metadata`'s JSON.
pub fn packages_from(metadata: &Value) -> Result<Vec<Package>> {
    let Some(packages) = metadata["packages"].as_array() else {
        bail!("cargo metadata named no packages; is the root Cargo.toml intact?");
    };
    let strings = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect()
    };
    let package = |value: &Value| Package {
        name: value["name"].as_str().unwrap_or_default().to_owned(),
        dependencies: value["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|dependency| Dependency {
                name: dependency["name"].as_str().unwrap_or_default().to_owned(),
                features: strings(&dependency["features"]),
            })
            .collect(),
        feature_effects: value["features"]
            .as_object()
            .into_iter()
            .flatten()
            .flat_map(|(_, effects)| strings(effects))
            .collect(),
    };
    Ok(packages.iter().map(package).collect())
}

/// The files of a checkout.
pub struct Tree {
    /// Files, sorted by path.
    pub files: Vec<File>,
}

/// One file of a checkout.
pub struct File {
    /// Path relative to the root, with `/`.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Content, if it is UTF-8 text up to [`LARGEST_TEXT`].
    pub text: Option<String>,
}

impl Tree {
    /// Whether the file exists.
    pub fn has(&self, path: &str) -> bool {
        self.files.iter().any(|file| file.path == path)
    }

    /// Text files whose path starts with `prefix` and ends with `suffix`: paths and contents.
    pub fn texts<'a>(
        &'a self,
        prefix: &'a str,
        suffix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .filter(move |file| file.path.starts_with(prefix) && file.path.ends_with(suffix))
            .filter_map(|file| Some((file.path.as_str(), file.text.as_deref()?)))
    }

    /// Total size of all files below `prefix`.
    pub fn bytes_below(&self, prefix: &str) -> u64 {
        self.files
            .iter()
            .filter(|file| file.path.starts_with(prefix))
            .map(|file| file.bytes)
            .sum()
    }

    /// A tree for tests, without files on disk.
    #[cfg(test)]
    pub fn planted(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).to_owned(),
            bytes: text.len() as u64,
            text: Some((*text).to_owned()),
        };
        Self {
            files: files.iter().map(file).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_this_checkout_holds_this_file() {
        let workspace = Workspace::find().expect("a checkout");
        let tree = workspace.tree().expect("its files");
        assert!(tree.has("crates/xtask/src/workspace.rs"));
        assert!(
            !tree
                .files
                .iter()
                .any(|file| file.path.starts_with("target/"))
        );
    }

    #[test]
    fn the_version_is_that_of_the_workspace() {
        let text = "[workspace.package]\nversion = \"1.2.3\"\n";
        assert_eq!(version_in(text).expect("a version"), "1.2.3");
        assert!(version_in("[package]\nversion = \"1.2.3\"\n").is_err());
        assert!(version_in("version = = 1").is_err());
    }

    #[test]
    fn metadata_without_packages_is_an_error() {
        assert!(packages_from(&serde_json::json!({})).is_err());
    }
}
