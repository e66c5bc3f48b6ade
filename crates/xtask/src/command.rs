//! Cargo commands and build outputs; [`crate::process`] starts other programs.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process::cargo_in;
use crate::workspace::Workspace;

pub use crate::process::{
    Ended, capture, find, line, lines, new, quietly_succeeds, succeeds, succeeds_given,
};

/// The Cargo that runs this program, in the workspace root.
pub fn cargo(workspace: &Workspace) -> Command {
    cargo_in(&workspace.root)
}

/// Builds the `emu` program with `cargo` and returns its path. It uses the same dependency features as the tests, so that
/// nothing is built twice.
pub fn build_emu(workspace: &Workspace, mut cargo: Command) -> Result<PathBuf> {
    if !succeeds(cargo.args(["build", "--workspace", "--bin", "emu"]))? {
        bail!("`emu` did not build; the compiler's message is above");
    }
    Ok(emu(workspace))
}

/// Cargo's target directory.
pub fn target(workspace: &Workspace) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace.root.join(target)
}

/// Path of a program built with the dev profile.
pub fn built(workspace: &Workspace, program: &str) -> PathBuf {
    let file = format!("{program}{}", std::env::consts::EXE_SUFFIX);
    target(workspace).join("debug").join(file)
}

/// Path of the `emu` program.
pub fn emu(workspace: &Workspace) -> PathBuf {
    built(workspace, "emu")
}
