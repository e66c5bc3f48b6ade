//! `cargo xtask demo`: builds the page with the model in it, serves it and prints the address.
//!
//! `cargo xtask demo --cli`: builds `emu`, lets the shipped model do its main jobs on the bundled pictures, tells what it does
//! and how long each took, and writes a page with all of it.
//!
//! Nothing here knows the model: the steps come from `models/emu-mini/demo/demo.json` (see [`plan`]), and each is one or
//! more runs of the `emu` program, as a user would type them.

mod embed;
mod page;
mod perform;
mod plan;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::command;
use crate::setup::{self, Requirement};
use crate::wasm::{self, WasmArgs};
use crate::web;
use crate::workspace::Workspace;

/// The shipped model, relative to the root.
const MODEL: &str = "models/emu-mini";
/// What the whole demo may take after the build, on two cores.
const SECONDS_ALLOWED: f64 = 180.0;

/// The page, relative to the folder that is asked for.
const SITE: &str = "site";

/// What `cargo xtask demo` can be asked for.
pub struct DemoArgs {
    /// Let the program perform, not the page.
    pub cli: bool,
    /// Where the page is served.
    pub port: u16,
    /// Build the page and leave.
    pub build_only: bool,
    /// The seed of everything that is drawn.
    pub seed: u64,
    /// Passed on to `emu`: auto, gpu or cpu.
    pub device: String,
    /// The folder of the page and the drawings.
    pub out: PathBuf,
    /// Only the steps of these kinds; all of them where empty.
    pub only: Vec<String>,
}

/// Shows what the project is for.
pub fn run(workspace: &Workspace, args: &DemoArgs) -> Result<bool> {
    if args.cli {
        return perform_cli(workspace, args);
    }
    setup::require(workspace, &[Requirement::WasmTarget, Requirement::Node])?;
    println!("building the page (the first build takes a while)");
    let clock = Instant::now();
    let seconds = || clock.elapsed().as_secs_f64();
    // The first time the page is up as soon as it can compute on the CPU.
    let early = !args.build_only && !web::has_webgpu(workspace);
    let quick = |only: &[&str]| WasmArgs {
        quick: true,
        only: only.iter().map(|module| (*module).to_owned()).collect(),
        ..WasmArgs::default()
    };
    web::build(workspace, &quick(if early { &["cpu"] } else { &[] }))?;
    let site = workspace.root.join(&args.out).join(SITE);
    web::assemble(workspace, &site)?;
    println!(
        "built in {:.0} s: {} is what any static server can serve",
        seconds(),
        args.out.join(SITE).display()
    );
    if args.build_only {
        return Ok(true);
    }
    if early {
        web::without_webgpu(&site)?;
    }
    println!("open this address in a browser; Ctrl-C ends:");
    let server = web::Server::start(workspace, &site, args.port)?;
    if early {
        println!(
            "compiling the module for WebGPU; until it is there, the page computes on the CPU"
        );
        wasm::run(workspace, &quick(&["webgpu"]))?;
        web::add_webgpu(workspace, &site)?;
        println!(
            "the module for WebGPU is there after {:.0} s; load the page again to use it",
            seconds()
        );
    }
    server.wait()
}

/// Builds `emu`, lets it perform, writes the page of what it did.
fn perform_cli(workspace: &Workspace, args: &DemoArgs) -> Result<bool> {
    let pack = workspace.root.join(MODEL);
    if !pack.join("emu.json").is_file() {
        println!(
            "no demo yet: {MODEL}/emu.json is missing, the trained model has not been added to this checkout"
        );
        return Ok(false);
    }
    let mut plan = plan::Plan::read(&pack.join("demo"))?;
    plan.steps.retain(|step| {
        args.only.is_empty() || args.only.iter().any(|kind| kind == step.kind.name())
    });

    setup::require(workspace, &[Requirement::CppCompiler])?;
    println!("building emu (the first build takes a while)");
    let clock = Instant::now();
    let emu = command::build_emu(workspace, command::cargo(workspace))?;
    let build_seconds = clock.elapsed().as_secs_f64();
    println!("built in {build_seconds:.0} s\n");

    let out = workspace.root.join(&args.out);
    std::fs::create_dir_all(&out)
        .with_context(|| format!("{} cannot be created", out.display()))?;
    let stage = perform::Stage {
        root: &workspace.root,
        emu: &emu,
        device: &args.device,
        seed: args.seed,
        out: &out,
    };
    let performance = perform::perform(&stage, &plan)?;

    let page = out.join("demo.html");
    std::fs::write(&page, page::render(&plan, &performance))
        .with_context(|| format!("{} cannot be written", page.display()))?;
    println!("\n{:.0} s in all, without the build", performance.seconds);
    if performance.seconds > SECONDS_ALLOWED {
        println!(
            "that is more than the {SECONDS_ALLOWED:.0} s that the demo should take on two cores"
        );
    }
    println!("to look at: {}", args.out.join("demo.html").display());
    Ok(performance.failures() == 0)
}
