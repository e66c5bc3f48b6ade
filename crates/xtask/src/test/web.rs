//! The tier of the pages: builds what a browser gets, then runs the tests of the packages, of the page, and of both in
//! real browsers.

use anyhow::Result;

use super::node::Reader;
use super::setup::{self, Machine};
use super::{Counts, PATIENCE};
use crate::command::{self, Ended};
use crate::web;
use crate::workspace::Workspace;

/// Folders below `web` with tests, and whether they drive browsers.
const SUITES: [(&str, bool); 3] = [("package", false), ("demo", true), ("e2e", true)];

/// Builds and runs; `filter` is a pattern of test names.
pub fn run(workspace: &Workspace, machine: &Machine, filter: Option<&str>) -> Result<Counts> {
    let mut counts = Counts::default();
    for missing in [&machine.no_node, &machine.no_wasm].into_iter().flatten() {
        println!("SKIP web: {missing}");
        counts.skipped += 1;
        return Ok(counts);
    }
    // What the end-to-end tests compare with.
    let emu = command::build_emu(workspace)?;
    // A budget that is exceeded has been told.
    counts.add(Counts::one(web::build(workspace)?));
    for (suite, browsers) in SUITES {
        println!("-- web/{suite}");
        let mut npm = command::new("npm", &workspace.root.join("web").join(suite));
        npm.args(["run", "--silent", "test"]);
        // Not as arguments: they would come behind the files.
        let pattern = filter.map(|pattern| format!(" --test-name-pattern={pattern}"));
        let options = format!("--test-reporter=tap{}", pattern.unwrap_or_default());
        npm.env("NODE_OPTIONS", options);
        npm.env("EMU_BIN", &emu);
        if browsers {
            // The tests of a browser that is not there say so themselves, and count as skipped.
            for (name, program) in setup::browsers() {
                match program {
                    Some(program) => npm.env(name, program),
                    None => npm.env_remove(name),
                };
            }
        }
        let mut reader = Reader::default();
        let ended = command::lines(&mut npm, PATIENCE, |line| {
            if reader.read(line) {
                println!("{line}");
            }
        })?;
        if matches!(ended, Ended::Silent) {
            println!(
                "FAILED: web/{suite} said nothing for {} s and was ended",
                PATIENCE.as_secs()
            );
        }
        let succeeded = matches!(ended, Ended::With(status) if status.success());
        counts.add(reader.finish(succeeded));
    }
    Ok(counts)
}
