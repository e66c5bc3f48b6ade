//! `cargo xtask data`: builds the training data from drawings published in package registries.

use anyhow::Result;

use crate::command;
use crate::setup::{self, Requirement};
use crate::workspace::Workspace;

/// Arguments of `cargo xtask data`.
pub struct DataArgs {
    /// Output folder of the shards.
    pub out: String,
    /// Arguments passed on to `emu data emoji`.
    pub rest: Vec<String>,
}

/// Builds `emu` and runs it to build the data.
pub fn run(workspace: &Workspace, args: &DataArgs) -> Result<bool> {
    setup::require(workspace, &[Requirement::CppCompiler, Requirement::Node])?;
    let emu = command::build_emu(workspace, command::cargo(workspace))?;
    let mut data = command::new(emu, &workspace.root);
    data.args(["data", "emoji", "-o", &args.out])
        .args(&args.rest);
    println!("$ {}", command::line(&data));
    command::succeeds(&mut data)
}
