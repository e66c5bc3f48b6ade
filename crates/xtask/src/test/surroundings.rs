//! What the programs of every tier are started with.

use std::path::PathBuf;

use crate::command;
use crate::setup;
use crate::workspace::Workspace;

/// Names the folder where kernels leave their texts.
pub const KERNEL_TEXTS: &str = "EMU_KERNEL_TEXTS";

/// Where the tier of the GPU leaves the texts of all kernels, which the tier of the pages gives to browsers.
pub fn kernel_texts(workspace: &Workspace) -> PathBuf {
    workspace.root.join("target/kernel-texts")
}

/// The Cargo that builds tests. It compiles the crates of the workspace through clippy, which says what it finds and
/// compiles as the compiler does: a run of clippy alone would have to read every dependency a second time.
pub fn cargo(workspace: &Workspace, machine: &setup::Machine) -> std::process::Command {
    let mut cargo = command::cargo(workspace);
    if machine.no_clippy.is_none() {
        cargo.env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver");
    }
    cargo
}
