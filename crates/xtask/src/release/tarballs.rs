//! The npm packages as tarballs, packed from copies in which the repository's address is filled in.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::command;
use crate::wasm;
use crate::web;
use crate::workspace::Workspace;

/// The packages: name, folder, and a folder in it that the build makes.
pub const PACKAGES: [(&str, &str, &str); 3] = [
    ("emu-webgpu", "web/package", "wasm"),
    ("emu-webgpu-mini", "web/mini", "pack"),
    ("emu-webgpu-smol", "web/smol", "pack"),
];

/// Packs all packages into `files`, through copies below `place`. Returns a sentence for each package that lacks what a
/// user needs: it must not be published.
///
/// # Errors
/// If a file cannot be copied, or npm fails.
pub fn pack(
    workspace: &Workspace,
    place: &Path,
    files: &Path,
    repository: Option<&str>,
) -> Result<Vec<String>> {
    let mut gaps = Vec::new();
    for (name, folder, built) in PACKAGES {
        let from = workspace.root.join(folder);
        if built == "wasm" && !wasm::is_published(workspace) {
            gaps.push(format!("{name} has no modules built for publishing"));
        } else if built == "pack" && !from.join("pack/emu.json").is_file() {
            gaps.push(format!("{name} has no pack"));
        }
        let copy = place.join(name);
        stage(&from, &copy, folder, repository)?;
        let mut npm = command::new("npm", &copy);
        npm.args(["pack", "--silent", "--ignore-scripts", "--pack-destination"]);
        if !command::succeeds(npm.arg(files))? {
            bail!(
                "npm pack failed in {}; its message is above",
                copy.display()
            );
        }
    }
    Ok(gaps)
}

/// Copies what a package publishes. `repository` goes into its `package.json`: npm's proof of origin compares the two.
fn stage(from: &Path, to: &Path, folder: &str, repository: Option<&str>) -> Result<()> {
    let path = from.join("package.json");
    let cannot = || format!("{} cannot be read", path.display());
    let text = fs::read_to_string(&path).with_context(cannot)?;
    let mut manifest: Value = serde_json::from_str(&text).with_context(cannot)?;
    let listed = manifest["files"].as_array();
    let listed = listed.with_context(|| format!("{} lists no files", path.display()))?;
    let mut entries: Vec<&str> = { listed.iter() }
        .filter_map(|entry| entry.as_str()?.split('/').next())
        .collect();
    entries.dedup();
    for entry in entries {
        let source = from.join(entry);
        if source.exists() {
            web::copy(&source, &to.join(entry))?;
        }
    }
    if let Some(address) = repository {
        let url = format!("git+{address}.git");
        manifest["repository"] = json!({"type": "git", "url": url, "directory": folder});
    }
    fs::create_dir_all(to).with_context(|| format!("{} cannot be made", to.display()))?;
    let text = serde_json::to_string_pretty(&manifest)? + "\n";
    fs::write(to.join("package.json"), text)
        .with_context(|| format!("{} cannot be written", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_what_is_listed_and_the_repository() {
        let place = tempfile::tempdir().expect("a folder");
        let (from, to) = (place.path().join("from"), place.path().join("to"));
        fs::create_dir_all(from.join("wasm/cpu")).expect("made");
        fs::create_dir_all(from.join("src")).expect("made");
        for file in ["wasm/cpu/a.js", "src/b.ts", "README.md"] {
            fs::write(from.join(file), "x").expect("written");
        }
        let manifest =
            r#"{"name": "a", "files": ["wasm/*/a.js", "wasm/*/b.wasm", "README.md", "dist"]}"#;
        fs::write(from.join("package.json"), manifest).expect("written");
        stage(&from, &to, "web/a", Some("https://host/owner/name")).expect("copied");
        assert!(to.join("wasm/cpu/a.js").is_file() && to.join("README.md").is_file());
        assert!(!to.join("src").exists());
        let text = fs::read_to_string(to.join("package.json")).expect("there");
        let copied: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            copied["repository"]["url"],
            "git+https://host/owner/name.git"
        );
        assert_eq!(copied["repository"]["directory"], "web/a");
        assert_eq!(copied["name"], "a");
        fs::write(from.join("package.json"), "{}").expect("written");
        assert!(stage(&from, &to, "web/a", None).is_err());
    }
}
