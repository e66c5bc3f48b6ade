//! The crates that end up in what is released, from `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command;
use crate::workspace::Workspace;

/// The packages that are released: the program, and the code of the WASM modules with both its features.
pub const ROOTS: [&str; 2] = ["emu-cli", "emu-web"];
const FEATURES: &str = "emu-web/cpu,emu-web/webgpu";

/// A crate that a released package depends on, or such a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence as an SPDX expression; `None` if only a file has it.
    pub licence: Option<String>,
    /// Folder of its source.
    pub folder: PathBuf,
    /// Whether it comes from a registry rather than from this workspace.
    pub is_published: bool,
    /// Names and versions of its direct dependencies within the list.
    pub dependencies: Vec<(String, String)>,
}

/// The crates of everything that is released, on any target, sorted by name and version.
pub fn crates(workspace: &Workspace) -> Result<Vec<Crate>> {
    let mut metadata = command::cargo(workspace);
    metadata.args(["metadata", "--format-version", "1", "--locked"]);
    let text = command::capture(metadata.args(["--features", FEATURES]))?;
    let metadata =
        serde_json::from_str(&text).context("cargo metadata printed something that is not JSON")?;
    closure(&metadata, &ROOTS)
}

/// The packages named `roots` and all that they depend on, without dependencies of tests and build scripts.
///
/// # Errors
/// If a root or a dependency is missing in the metadata.
pub fn closure(metadata: &Value, roots: &[&str]) -> Result<Vec<Crate>> {
    let by_id = |list: &'static str, entries: &'_ Value| -> Result<BTreeMap<String, Value>> {
        let entries = entries.as_array();
        let entries = entries.with_context(|| format!("cargo metadata has no list of {list}"))?;
        Ok({ entries.iter() }
            .filter_map(|entry| Some((entry["id"].as_str()?.to_owned(), entry.clone())))
            .collect())
    };
    let packages = by_id("packages", &metadata["packages"])?;
    let nodes = by_id("dependencies", &metadata["resolve"]["nodes"])?;
    let mut waiting = Vec::new();
    for root in roots {
        let package = { packages.values() }
            .find(|package| package["name"] == *root && package["source"].is_null());
        let id = package.and_then(|package| package["id"].as_str());
        waiting.push(
            id.with_context(|| format!("{root} is not in the workspace"))?
                .to_owned(),
        );
    }
    let (mut seen, mut crates) = (BTreeSet::new(), Vec::new());
    while let Some(id) = waiting.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let package = { packages.get(&id) }
            .with_context(|| format!("cargo metadata does not describe {id}"))?;
        let mut dependencies = Vec::new();
        for next in nodes.get(&id).map(linked).unwrap_or_default() {
            let other = { packages.get(&next) }
                .with_context(|| format!("cargo metadata does not describe {next}"))?;
            dependencies.push((text(other, "name"), text(other, "version")));
            waiting.push(next);
        }
        dependencies.sort();
        let manifest = PathBuf::from(text(package, "manifest_path"));
        crates.push(Crate {
            name: text(package, "name"),
            version: text(package, "version"),
            licence: package["license"].as_str().map(spdx),
            folder: manifest.parent().map(PathBuf::from).unwrap_or_default(),
            is_published: !package["source"].is_null(),
            dependencies,
        });
    }
    crates.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(crates)
}

/// Ids of the packages that a node of the graph is linked with.
fn linked(node: &Value) -> Vec<String> {
    let dependencies = node["deps"].as_array().into_iter().flatten();
    dependencies
        .filter(|dependency| {
            let kinds = dependency["dep_kinds"].as_array();
            kinds
                .into_iter()
                .flatten()
                .any(|kind| kind["kind"].is_null())
        })
        .filter_map(|dependency| dependency["pkg"].as_str().map(str::to_owned))
        .collect()
}

fn text(package: &Value, key: &str) -> String {
    package[key].as_str().unwrap_or_default().to_owned()
}

/// A licence as an SPDX expression. Old manifests have a slash for "or".
fn spdx(licence: &str) -> String {
    let choices: Vec<&str> = licence.split('/').map(str::trim).collect();
    choices.join(" OR ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata() -> Value {
        let package = |name: &str, source: Value, licence: Value| {
            json!({"id": name, "name": name, "version": "1.0.0", "source": source, "license": licence,
                "manifest_path": format!("src/{name}/Cargo.toml")})
        };
        let dep = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        json!({
            "packages": [
                package("emu-cli", Value::Null, json!("MIT")),
                package("linked", json!("registry"), json!("MIT/Apache-2.0")),
                package("deep", json!("registry"), Value::Null),
                package("test-only", json!("registry"), json!("MIT")),
                package("build-only", json!("registry"), json!("MIT")),
            ],
            "resolve": {"nodes": [
                {"id": "emu-cli", "deps": [dep("linked", Value::Null), dep("test-only", json!("dev")), dep("build-only", json!("build"))]},
                {"id": "linked", "deps": [dep("deep", Value::Null), dep("emu-cli", json!("dev"))]},
                {"id": "deep", "deps": []},
            ]},
        })
    }

    #[test]
    fn what_is_linked_is_listed_and_nothing_else() {
        let crates = closure(&metadata(), &["emu-cli"]).expect("a list");
        let names: Vec<&str> = crates.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["deep", "emu-cli", "linked"]);
        assert_eq!(crates[0].licence, None);
        assert!(crates[0].is_published && !crates[1].is_published);
        assert_eq!(
            crates[1].dependencies,
            [("linked".to_owned(), "1.0.0".to_owned())]
        );
        assert_eq!(crates[2].licence.as_deref(), Some("MIT OR Apache-2.0"));
        assert_eq!(crates[2].folder, PathBuf::from("src/linked"));
    }

    #[test]
    fn an_incomplete_graph_is_an_error() {
        assert!(closure(&metadata(), &["emu-web"]).is_err());
        assert!(closure(&json!({}), &["emu-cli"]).is_err());
        let mut broken = metadata();
        broken["packages"].as_array_mut().expect("a list").remove(2);
        assert!(closure(&broken, &["emu-cli"]).is_err());
    }
}
