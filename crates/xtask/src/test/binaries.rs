//! Builds every test of the workspace once, and finds what was built.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::command::{self, Ended};
use crate::workspace::Workspace;

/// Between two crates the compiler says nothing, for minutes where a crate is large.
const PATIENCE: Duration = Duration::from_secs(3600);

/// One built test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestBinary {
    /// The package it belongs to.
    pub package: String,
    /// The library, program or integration test.
    pub target: String,
    /// The file to run.
    pub executable: PathBuf,
    /// The package's folder, where Cargo would run it.
    pub folder: PathBuf,
}

/// What a build gave.
pub struct Built {
    /// The tests.
    pub found: Vec<TestBinary>,
    /// Whether everything was built.
    pub complete: bool,
}

/// `cargo test --workspace --no-run`, and the `emu` program with the very same dependencies, for the tests that run it.
pub fn build(workspace: &Workspace) -> Result<Built> {
    let mut found = Vec::new();
    let mut cargo = command::cargo(workspace);
    cargo.args([
        "test",
        "--workspace",
        "--no-run",
        "--bins",
        "--lib",
        "--tests",
        "--message-format=json-render-diagnostics",
    ]);
    let ended = command::lines(&mut cargo, PATIENCE, |line| {
        if let Some(binary) = serde_json::from_str(line)
            .ok()
            .and_then(|message| test_binary(&message))
        {
            found.push(binary);
        }
    })?;
    let mut complete = matches!(ended, Ended::With(status) if status.success());
    if complete {
        complete = command::succeeds(command::cargo(workspace).args([
            "build",
            "--workspace",
            "--bin",
            "emu",
        ]))?;
    }
    found.sort_by(|a, b| (&a.package, &a.target).cmp(&(&b.package, &b.target)));
    Ok(Built { found, complete })
}

/// A test binary, where this message of Cargo's announces one.
fn test_binary(message: &Value) -> Option<TestBinary> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let executable = PathBuf::from(message["executable"].as_str()?);
    let folder = Path::new(message["manifest_path"].as_str()?)
        .parent()?
        .to_path_buf();
    let target = message["target"]["name"].as_str()?.to_owned();
    let package = package_name(message["package_id"].as_str()?)?;
    Some(TestBinary {
        package,
        target,
        executable,
        folder,
    })
}

/// The name in a package id: `path+file:///x/crates/emu-pack#0.1.0` or `path+file:///x/tests#emu-tests@0.1.0`.
fn package_name(id: &str) -> Option<String> {
    let (address, fragment) = id.split_once('#')?;
    let name = match fragment.split_once('@') {
        Some((name, _)) => name,
        None => address.rsplit('/').next()?,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_forms_of_package_ids_are_read() {
        assert_eq!(
            package_name("path+file:///x/crates/emu-pack#0.1.0").as_deref(),
            Some("emu-pack")
        );
        assert_eq!(
            package_name("path+file:///x/tests#emu-tests@0.1.0").as_deref(),
            Some("emu-tests")
        );
    }

    #[test]
    fn only_tests_are_taken() {
        let mut message = json!({
            "reason": "compiler-artifact", "profile": {"test": true}, "executable": "/x/t",
            "manifest_path": "/x/tests/Cargo.toml", "target": {"name": "golden"}, "package_id": "path+file:///x/tests#emu-tests@0.1.0",
        });
        let binary = test_binary(&message).expect("a test");
        assert_eq!(
            (binary.package.as_str(), binary.target.as_str()),
            ("emu-tests", "golden")
        );
        message["profile"]["test"] = json!(false);
        assert_eq!(test_binary(&message), None);
    }
}
