//! `cargo xtask data`: the training data, built from the drawings of the registries.

use anyhow::Result;

use crate::command;
use crate::setup::{self, Requirement};
use crate::workspace::Workspace;

/// What `cargo xtask data` can be asked for.
pub struct DataArgs {
    /// Where the shards go.
    pub out: String,
    /// Passed on to `emu data emoji`.
    pub rest: Vec<String>,
}

/// Builds `emu` and lets it build the data.
pub fn run(workspace: &Workspace, args: &DataArgs) -> Result<bool> {
    setup::require(workspace, &[Requirement::CppCompiler, Requirement::Node])?;
    let emu = command::build_emu(workspace, command::cargo(workspace))?;
    let mut data = command::new(emu, &workspace.root);
    data.args(["data", "emoji", "-o", &args.out])
        .args(&args.rest);
    println!("$ {}", command::line(&data));
    command::succeeds(&mut data)
}
