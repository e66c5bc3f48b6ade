//! Environment of the programs in every tier.

use std::path::PathBuf;

use crate::command;
use crate::setup;
use crate::workspace::Workspace;

/// Environment variable with the folder where tests write their kernel sources.
pub const KERNEL_TEXTS: &str = "EMU_KERNEL_TEXTS";

/// Folder where the GPU tier writes all kernel sources. The web tier compiles them in browsers.
pub fn kernel_texts(workspace: &Workspace) -> PathBuf {
    workspace.root.join("target/kernel-texts")
}

/// The Cargo that builds tests. It compiles the workspace's crates through clippy, which lints and compiles in one pass. A
/// separate clippy run would have to read every dependency a second time.
pub fn cargo(workspace: &Workspace, machine: &setup::Machine) -> std::process::Command {
    let mut cargo = command::cargo(workspace);
    if machine.no_clippy.is_none() {
        cargo.env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver");
    }
    cargo
}
