//! The tier of the pages: builds what a browser gets, then runs the tests of the packages, of the page, and of both in
//! real browsers.

use std::path::Path;

use anyhow::Result;

use super::node::Reader;
use super::setup::{self, Machine};
use super::{Counts, PATIENCE};
use crate::command::{self, Ended};
use crate::web;
use crate::workspace::Workspace;

/// Folders below `web` with tests.
const SUITES: [&str; 3] = ["package", "demo", "e2e"];

/// `cargo xtask soak`: the end-to-end tests with full counts, hours where the GPU is a software one.
pub fn soak(workspace: &Workspace) -> Result<bool> {
    let machine = setup::prepare(workspace, true)?;
    if let Some(missing) = machine.no_node.or(machine.no_wasm) {
        println!("SKIP soak: {missing}");
        return Ok(false);
    }
    let emu = command::build_emu(workspace)?;
    web::build(workspace)?;
    let counts = suite(workspace, "e2e", &emu, None, true)?;
    println!("{}", counts.closing_line());
    Ok(counts.failed == 0)
}

/// Builds and runs; `filter` is a pattern of test names.
pub fn run(workspace: &Workspace, machine: &Machine, filter: Option<&str>) -> Result<Counts> {
    let mut counts = Counts::default();
    if let Some(missing) = machine.no_node.as_ref().or(machine.no_wasm.as_ref()) {
        println!("SKIP web: {missing}");
        counts.skipped += 1;
        return Ok(counts);
    }
    // What the end-to-end tests compare with.
    let emu = command::build_emu(workspace)?;
    // A budget that is exceeded has been told.
    counts.add(Counts::one(web::build(workspace)?));
    for name in SUITES {
        counts.add(suite(workspace, name, &emu, filter, false)?);
    }
    Ok(counts)
}

/// Runs the tests of a folder.
fn suite(
    workspace: &Workspace,
    name: &str,
    emu: &Path,
    filter: Option<&str>,
    soak: bool,
) -> Result<Counts> {
    println!("-- web/{name}");
    let mut npm = command::new("npm", &workspace.root.join("web").join(name));
    npm.args(["run", "--silent", "test"]);
    // Not as arguments: they would come behind the files.
    let pattern = filter.map(|pattern| format!(" --test-name-pattern={pattern}"));
    let options = format!("--test-reporter=tap{}", pattern.unwrap_or_default());
    npm.env("NODE_OPTIONS", options)
        .env("EMU_BIN", emu)
        .env(super::KERNEL_TEXTS, super::kernel_texts(workspace));
    if soak {
        npm.env("EMU_SOAK", "1");
    }
    // The tests of a browser that is not there say so themselves, and count as skipped.
    for (variable, program) in setup::browsers() {
        match program {
            Some(program) => npm.env(variable, program),
            None => npm.env_remove(variable),
        };
    }
    let mut reader = Reader::default();
    let ended = command::lines(&mut npm, PATIENCE, |line| {
        if reader.read(line) {
            println!("{line}");
        }
    })?;
    if matches!(ended, Ended::Silent) {
        println!(
            "FAILED: web/{name} said nothing for {} s and was ended",
            PATIENCE.as_secs()
        );
    }
    let succeeded = matches!(ended, Ended::With(status) if status.success());
    Ok(reader.finish(succeeded))
}
