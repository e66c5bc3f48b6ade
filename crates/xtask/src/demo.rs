//! `cargo xtask demo`: builds the page with the model in it, serves it and prints its address.
//!
//! `cargo xtask demo --cli`: builds `emu`, runs the shipped model's main tasks on the bundled pictures, prints each result and
//! its time, and writes a page with all results.
//!
//! The code does not depend on the model: the steps come from `models/emu-mini/demo/demo.json` (see [`plan`]), and each step
//! is one or more runs of the `emu` program, with the arguments a user would type.

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

/// Folder of the shipped model, relative to the root.
const MODEL: &str = "models/emu-mini";
/// Time limit of the demo after the build, on two cores.
const SECONDS_ALLOWED: f64 = 180.0;

/// Folder of the page, relative to the output folder.
const SITE: &str = "site";

/// Arguments of `cargo xtask demo`.
pub struct DemoArgs {
    /// Run the program instead of serving the page.
    pub cli: bool,
    /// Port of the page's server.
    pub port: u16,
    /// Build the page without serving it.
    pub build_only: bool,
    /// Random seed for drawing.
    pub seed: u64,
    /// Device passed on to `emu`: auto, gpu or cpu.
    pub device: String,
    /// Output folder of the page and the drawings.
    pub out: PathBuf,
    /// Run only steps of these kinds; all if empty.
    pub only: Vec<String>,
}

/// Runs the demo.
pub fn run(workspace: &Workspace, args: &DemoArgs) -> Result<bool> {
    if args.cli {
        return perform_cli(workspace, args);
    }
    setup::require(workspace, &[Requirement::WasmTarget, Requirement::Node])?;
    println!("building the page (the first build takes a while)");
    let clock = Instant::now();
    let seconds = || clock.elapsed().as_secs_f64();
    // The first time, the page is served as soon as the CPU module is built.
    let early = !args.build_only && !web::has_webgpu(workspace);
    let first: &[&str] = if early { &["cpu"] } else { &[] };
    web::build(workspace, &WasmArgs::local(first))?;
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
        wasm::run(workspace, &WasmArgs::local(&["webgpu"]))?;
        web::add_webgpu(workspace, &site)?;
        println!(
            "the module for WebGPU is there after {:.0} s; load the page again to use it",
            seconds()
        );
    }
    server.wait()
}

/// Builds `emu`, runs the demo's steps, and writes the page of results.
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
