//! The web tier: builds the files for browsers, then runs the tests of the packages, of the page, and of both in real
//! browsers.

use std::path::{Path, PathBuf};
use std::process::Child;

use anyhow::{Context, Result, bail};

use super::counts::{Counts, PATIENCE};
use super::node::Reader;
use super::surroundings::{KERNEL_TEXTS, cargo, kernel_texts};
use crate::command::{self, Ended};
use crate::setup::{self, Machine};
use crate::wasm::WasmArgs;
use crate::web;
use crate::workspace::Workspace;

/// Folders with tests below `web`.
const SUITES: [&str; 3] = ["package", "demo", "e2e"];

/// `cargo xtask soak`: the end-to-end tests with full counts, and with the modules as they are published. Takes hours on a software GPU.
pub fn soak(workspace: &Workspace) -> Result<bool> {
    let machine = setup::prepare(workspace, true)?;
    if let Some(missing) = machine.no_pages() {
        bail!("{missing}");
    }
    let emu = command::build_emu(workspace, cargo(workspace, &machine))?;
    web::build_for_tests(workspace, &WasmArgs::default())?;
    let counts = suite(workspace, "e2e", &emu, None, true)?;
    println!("{}", counts.closing_line());
    Ok(counts.failed == 0)
}

/// Build of the files for browsers, as a process in parallel to the other tiers. It mostly uses one processor.
pub struct Build {
    child: Child,
    log: PathBuf,
}

impl Build {
    /// Starts the build, with its output in a log file below `target`.
    pub fn start(workspace: &Workspace) -> Result<Self> {
        let target = workspace.root.join("target");
        std::fs::create_dir_all(&target)
            .with_context(|| format!("{} cannot be created", target.display()))?;
        let log = target.join("web-build.log");
        let cannot = || format!("{} cannot be written", log.display());
        let file = std::fs::File::create(&log).with_context(cannot)?;
        let program = std::env::current_exe().context("this program does not find itself")?;
        let mut build = command::new(program, &workspace.root);
        build
            .arg("pages")
            .stderr(file.try_clone().with_context(cannot)?)
            .stdout(file);
        let child = build
            .spawn()
            .context("the build of the pages cannot be started")?;
        Ok(Self { child, log })
    }

    /// Waits for the build and prints its log. Returns whether it succeeded.
    fn finish(mut self) -> Result<bool> {
        let status = self
            .child
            .wait()
            .context("the build of the pages is lost")?;
        let printed = std::fs::read(&self.log)
            .with_context(|| format!("{} cannot be read", self.log.display()))?;
        print!("{}", String::from_utf8_lossy(&printed));
        Ok(status.success())
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        // Already exited if `finish` was called.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the build and runs the tests. `filter` is a pattern of test names.
pub fn run(
    workspace: &Workspace,
    build: Option<Build>,
    machine: &Machine,
    filter: Option<&str>,
) -> Result<Counts> {
    let mut counts = Counts::default();
    let Some(build) = build else {
        println!(
            "SKIP web: {}",
            machine.no_pages().unwrap_or("it was not built")
        );
        counts.skipped += 1;
        return Ok(counts);
    };
    // The end-to-end tests compare with this program.
    let emu = command::build_emu(workspace, cargo(workspace, machine))?;
    let built = build.finish()?;
    counts.add(Counts::one(built));
    if !built {
        println!("FAILED: the pages did not build; the message is above");
    }
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
    // Not as arguments, because npm would put them after the file names.
    let pattern = filter.map(|pattern| format!(" --test-name-pattern={pattern}"));
    let options = format!("--test-reporter=tap{}", pattern.unwrap_or_default());
    npm.env("NODE_OPTIONS", options)
        .env("EMU_BIN", emu)
        .env(KERNEL_TEXTS, kernel_texts(workspace));
    if soak {
        npm.env("EMU_SOAK", "1");
    }
    // Tests of a missing browser skip themselves.
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
