//! Builds all tests of the workspace once and collects the test binaries.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::surroundings::cargo;
use crate::command::{self, Ended};
use crate::setup::Machine;
use crate::workspace::Workspace;

/// Timeout without compiler output. The compiler prints nothing while it compiles a large crate, which takes minutes.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A test binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestBinary {
    /// Its package.
    pub package: String,
    /// Its target: library, program or integration test.
    pub target: String,
    /// The file to run.
    pub executable: PathBuf,
    /// The package's folder, where Cargo would run the binary.
    pub folder: PathBuf,
}

/// Result of a build.
#[derive(Default)]
pub struct Built {
    /// The test binaries.
    pub found: Vec<TestBinary>,
    /// Number of warnings of the compiler and, if enabled, clippy. They have been printed.
    pub warnings: usize,
    /// Whether the whole build succeeded.
    pub complete: bool,
}

/// `cargo test --workspace --no-run`, and the `emu` program with the same dependencies for the tests that run it.
pub fn build(workspace: &Workspace, machine: &Machine) -> Result<Built> {
    let mut built = Built::default();
    let mut tests = cargo(workspace, machine);
    tests.args([
        "test",
        "--workspace",
        "--no-run",
        "--bins",
        "--lib",
        "--tests",
        "--message-format=json",
    ]);
    let ended = command::lines(&mut tests, PATIENCE, |line| {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            return;
        };
        if let Some(said) = diagnostic(&message) {
            eprint!("{}", said.text);
            built.warnings += usize::from(said.warns);
        }
        built.found.extend(test_binary(&message));
    })?;
    built.complete = matches!(ended, Ended::With(status) if status.success())
        && command::build_emu(workspace, cargo(workspace, machine)).is_ok();
    built
        .found
        .sort_by(|a, b| (&a.package, &a.target).cmp(&(&b.package, &b.target)));
    Ok(built)
}

/// A compiler diagnostic.
#[derive(Debug, PartialEq, Eq)]
struct Diagnostic<'a> {
    text: &'a str,
    warns: bool,
}

/// The compiler diagnostic in a message of Cargo.
fn diagnostic(message: &Value) -> Option<Diagnostic<'_>> {
    if message["reason"] != "compiler-message" {
        return None;
    }
    Some(Diagnostic {
        text: message["message"]["rendered"].as_str()?,
        warns: message["message"]["level"] == "warning",
    })
}

/// The test binary that a message of Cargo announces.
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
    fn warnings_are_told_from_errors() {
        let mut message = json!({
            "reason": "compiler-message", "message": {"level": "warning", "rendered": "warning: unused\n"},
        });
        let said = diagnostic(&message).expect("a diagnostic");
        assert_eq!((said.text, said.warns), ("warning: unused\n", true));
        message["message"]["level"] = json!("error");
        assert!(!diagnostic(&message).expect("a diagnostic").warns);
        message["reason"] = json!("build-finished");
        assert_eq!(diagnostic(&message), None);
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
