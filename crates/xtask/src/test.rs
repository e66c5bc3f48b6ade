//! `cargo xtask test`: sets the machine up, runs all tests tier by tier, and counts the results.
//!
//! Tiers
//! - `lint`: formatting, the house rules, clippy
//! - `unit`: all tests of all crates that are in no other tier, including doc tests
//! - `golden on Flex`: the tests of `tests/`, on the CPU backend
//! - `golden on wgpu (software adapter)`: all tests with `wgpu` in their name, in any crate
//! - `web`: the npm package, the page, and both in Chromium and Firefox; the sizes of what is shipped
//!
//! Tests that need a GPU read `EMU_TEST_GPU=1`, which is set here if there is a Vulkan driver. A test that cannot run prints
//! `SKIP <tier>: <reason>` and returns; it counts as skipped, not as passed.

mod binaries;
mod counts;
mod libtest;
mod node;
mod surroundings;
mod web;

pub use web::soak;

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::Result;

use crate::check;
use crate::command::{self, Ended};
use crate::setup;
use crate::workspace::Workspace;

use counts::{Counts, PATIENCE};
use surroundings::{KERNEL_TEXTS, cargo, kernel_texts};

use binaries::TestBinary;
use libtest::{Reader, Told};

/// Arguments of `cargo xtask test`.
pub struct TestArgs {
    /// Run only these tiers; all if empty.
    pub tiers: Vec<Tier>,
    /// Whether system packages may be installed. Tests that need a missing one are skipped.
    pub may_install: bool,
    /// Run only tests whose name contains this.
    pub filter: Option<String>,
}

/// A group of tests with the same requirements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Formatting, house rules, clippy.
    Lint,
    /// Unit, property and doc tests.
    Unit,
    /// The tests of `tests/` on the CPU backend.
    Golden,
    /// The tests on any GPU, including a software adapter.
    Gpu,
    /// The packages and the page, in Node and in browsers.
    Web,
}

impl Tier {
    /// All tiers in execution order.
    pub const ALL: [Tier; 5] = [Tier::Lint, Tier::Unit, Tier::Golden, Tier::Gpu, Tier::Web];

    /// Its name on the command line.
    pub fn argument(self) -> &'static str {
        match self {
            Tier::Lint => "lint",
            Tier::Unit => "unit",
            Tier::Golden => "golden",
            Tier::Gpu => "gpu",
            Tier::Web => "web",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Tier::Lint => "lint",
            Tier::Unit => "unit",
            Tier::Golden => "golden on Flex",
            Tier::Gpu => "golden on wgpu (software adapter)",
            Tier::Web => "web",
        }
    }
}

/// Which tests a tier runs.
struct Selection {
    in_tests_folder: Option<bool>,
    filters: Vec<String>,
}

/// `cargo xtask test`.
pub fn run(workspace: &Workspace, args: &TestArgs) -> Result<bool> {
    let started = Instant::now();
    let wanted = |tier: Tier| args.tiers.is_empty() || args.tiers.contains(&tier);
    let mut table: Vec<(Tier, Counts, f64)> = Vec::new();

    heading("set-up");
    let machine = setup::prepare(workspace, args.may_install)?;

    let mut pages = None;
    if wanted(Tier::Web) && machine.no_pages().is_none() {
        println!("\nthe pages are built beside the other tiers");
        pages = Some(web::Build::start(workspace)?);
    }

    let builds = { [Tier::Unit, Tier::Golden, Tier::Gpu].into_iter() }.any(wanted);
    let mut building = None;
    if wanted(Tier::Lint) {
        let clock = Instant::now();
        let counts = lint(workspace, &machine, !builds)?;
        table.push((Tier::Lint, counts, clock.elapsed().as_secs_f64()));
    }

    if builds {
        heading("build the tests");
        let clock = Instant::now();
        let binaries = binaries::build(workspace, &machine)?;
        let seconds = clock.elapsed().as_secs_f64();
        println!(
            "{} test binaries after {seconds:.0} s",
            binaries.found.len()
        );
        building = Some(seconds);
        if wanted(Tier::Lint) && machine.no_clippy.is_none() {
            // Clippy ran during the build.
            let passed = binaries.complete && binaries.warnings == 0;
            println!("{} clippy", mark(passed));
            table[0].1.add(Counts::one(passed));
        }
        for tier in Tier::ALL
            .into_iter()
            .filter(|tier| !matches!(tier, Tier::Lint | Tier::Web) && wanted(*tier))
        {
            heading(tier.name());
            let clock = Instant::now();
            let mut counts = Counts::default();
            if tier == Tier::Gpu && args.filter.is_none() {
                // Removes kernel sources of earlier builds.
                std::fs::remove_dir_all(kernel_texts(workspace)).ok();
            }
            if !binaries.complete {
                println!("FAILED: the tests did not build; the compiler's message is above");
                counts.failed += 1;
            }
            let filter = args.filter.as_deref();
            counts.add(run_binaries(
                workspace,
                &binaries.found,
                tier,
                filter,
                &machine,
            )?);
            if tier == Tier::Unit && args.filter.is_none() && binaries.complete {
                counts.add(run_doc_tests(workspace, &machine)?);
            }
            if counts == Counts::default() && args.filter.is_none() {
                println!("SKIP {}: no test belongs to this tier yet", tier.name());
                counts.skipped += 1;
            }
            table.push((tier, counts, clock.elapsed().as_secs_f64()));
        }
    }

    if wanted(Tier::Web) {
        heading(Tier::Web.name());
        let clock = Instant::now();
        let counts = web::run(workspace, pages.take(), &machine, args.filter.as_deref())?;
        table.push((Tier::Web, counts, clock.elapsed().as_secs_f64()));
    }

    heading("summary");
    let mut total = Counts::default();
    for (tier, counts, seconds) in &table {
        println!(
            "{:<36}{:>5} passed {:>4} failed {:>4} skipped {:>7.0} s",
            tier.name(),
            counts.passed,
            counts.failed,
            counts.skipped,
            seconds
        );
        total.add(*counts);
    }
    if let Some(seconds) = building {
        println!("{:<69}{seconds:>7.0} s", "build of the tests, with clippy");
    }
    println!("{:.0} s in all", started.elapsed().as_secs_f64());
    println!("{}", total.closing_line());
    Ok(total.failed == 0)
}

fn heading(name: &str) {
    println!("\n== {name}");
}

/// Formatting, the house rules and, unless the build of the tests runs it, clippy. Each counts as one test.
fn lint(workspace: &Workspace, machine: &setup::Machine, clippy: bool) -> Result<Counts> {
    let mut counts = Counts::default();
    heading("house rules");
    for outcome in check::outcomes(workspace)? {
        check::print(&outcome);
        counts.add(Counts::one(outcome.passed()));
    }
    type Apply = fn(&Workspace) -> Result<bool>;
    for (name, missing, apply) in [
        ("rustfmt", &machine.no_rustfmt, check::formatted as Apply),
        ("clippy", &machine.no_clippy, check::clippy_clean as Apply),
    ] {
        heading(name);
        if let Some(reason) = missing {
            println!("SKIP {name}: {reason}");
            counts.skipped += 1;
        } else if name != "clippy" || clippy {
            let passed = apply(workspace)?;
            println!("{} {name}", mark(passed));
            counts.add(Counts::one(passed));
        } else {
            println!("reads the sources while the tests are compiled");
        }
    }
    Ok(counts)
}

fn mark(passed: bool) -> &'static str {
    if passed { "ok    " } else { "FAILED" }
}

/// Arguments for the tests of a binary that belong to `tier`: golden tests are in `tests/`, GPU tests have `wgpu` in their
/// name.
fn arguments(binary: &TestBinary, tier: Tier, filter: Option<&str>) -> Option<Vec<String>> {
    let selection = match tier {
        Tier::Lint | Tier::Web => return None,
        Tier::Unit => Selection {
            in_tests_folder: Some(false),
            filters: vec!["--skip".into(), "wgpu".into()],
        },
        Tier::Golden => Selection {
            in_tests_folder: Some(true),
            filters: vec!["--skip".into(), "wgpu".into()],
        },
        Tier::Gpu => Selection {
            in_tests_folder: None,
            filters: vec!["wgpu".into()],
        },
    };
    if selection
        .in_tests_folder
        .is_some_and(|wanted| wanted != (binary.package == "emu-tests"))
    {
        return None;
    }
    let mut arguments = selection.filters;
    match (filter, tier) {
        // libtest joins several filters with "or", so the name must be the only filter.
        (Some(name), Tier::Gpu) if name.contains("wgpu") => arguments = vec![name.to_owned()],
        (Some(_), Tier::Gpu) => return None,
        (Some(name), _) => arguments.push(name.to_owned()),
        (None, _) => {}
    }
    arguments.push("--show-output".into());
    Some(arguments)
}

/// Number of test programs that run in parallel. Each GPU test keeps one processor busy, mostly with compiling kernels.
fn at_once(tier: Tier) -> usize {
    match tier {
        Tier::Gpu => {
            thread::available_parallelism().map_or(1, |processors| processors.get().min(2))
        }
        _ => 1,
    }
}

/// Runs the tests of a tier in all binaries.
fn run_binaries(
    workspace: &Workspace,
    binaries: &[TestBinary],
    tier: Tier,
    filter: Option<&str>,
    machine: &setup::Machine,
) -> Result<Counts> {
    let (next, workers) = (AtomicUsize::new(0), at_once(tier));
    let output = if workers > 1 {
        Output::Held
    } else {
        Output::AsItComes
    };
    let work = || -> Result<Counts> {
        let mut counts = Counts::default();
        while let Some(binary) = binaries.get(next.fetch_add(1, Ordering::Relaxed)) {
            counts.add(run_binary(
                workspace, binary, tier, filter, machine, output,
            )?);
        }
        Ok(counts)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let mut counts = Counts::default();
        for worker in workers {
            counts.add(worker.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok(counts)
    })
}

fn run_binary(
    workspace: &Workspace,
    binary: &TestBinary,
    tier: Tier,
    filter: Option<&str>,
    machine: &setup::Machine,
    output: Output,
) -> Result<Counts> {
    let Some(arguments) = arguments(binary, tier, filter) else {
        return Ok(Counts::default());
    };
    let mut test = command::new(&binary.executable, &binary.folder);
    test.args(arguments)
        .env("CARGO_MANIFEST_DIR", &binary.folder)
        .env("EMU_BIN", command::emu(workspace));
    if machine.no_gpu.is_none() {
        test.env("EMU_TEST_GPU", "1");
        if tier == Tier::Gpu {
            test.env(KERNEL_TEXTS, kernel_texts(workspace));
        }
    } else {
        test.env_remove("EMU_TEST_GPU");
    }
    let title = format!("{} {}", binary.package, binary.target);
    follow(&mut test, &title, output)
}

fn run_doc_tests(workspace: &Workspace, machine: &setup::Machine) -> Result<Counts> {
    follow(
        cargo(workspace, machine).args(["test", "--workspace", "--doc", "--", "--show-output"]),
        "doc tests",
        Output::AsItComes,
    )
}

/// When the output of a child process is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    AsItComes,
    /// At its end, because other processes run in parallel.
    Held,
}

/// Runs a child process, prints the relevant output, and counts the results.
fn follow(test: &mut std::process::Command, title: &str, output: Output) -> Result<Counts> {
    let mut reader = Reader::default();
    let mut titled = false;
    let mut held = String::new();
    let mut show = |line: &str| match output {
        Output::AsItComes => println!("{line}"),
        Output::Held => held.extend([line, "\n"]),
    };
    let ended = command::lines(test, PATIENCE, |line| match reader.read(line) {
        Told::Show => {
            if !titled {
                show(&format!("-- {title}"));
                titled = true;
            }
            show(line);
        }
        Told::Hide => {}
    })?;
    let succeeded = matches!(ended, Ended::With(status) if status.success());
    match ended {
        Ended::Silent => show(&format!(
            "FAILED: {title} said nothing for {} s and was ended",
            PATIENCE.as_secs()
        )),
        Ended::With(status) if !reader.ended() => {
            show(&format!(
                "FAILED: {title} ended with {status} before its summary"
            ));
        }
        Ended::With(_) => {}
    }
    print!("{held}");
    Ok(reader.finish(succeeded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_is_as_promised() {
        let mut counts = Counts::one(true);
        counts.add(Counts {
            passed: 1,
            failed: 0,
            skipped: 3,
        });
        assert_eq!(counts.closing_line(), "2 passed, 0 failed, 3 skipped");
    }

    #[test]
    fn each_tier_takes_its_own_tests() {
        let of = |package: &str| TestBinary {
            package: package.into(),
            target: "t".into(),
            executable: "t".into(),
            folder: ".".into(),
        };
        let goldens = of("emu-tests");
        let unit = of("emu-model");
        assert!(arguments(&goldens, Tier::Unit, None).is_none());
        assert!(arguments(&unit, Tier::Golden, None).is_none());
        assert_eq!(
            arguments(&unit, Tier::Unit, None).expect("unit")[..2],
            ["--skip", "wgpu"]
        );
        assert_eq!(
            arguments(&goldens, Tier::Gpu, None).expect("gpu")[0],
            "wgpu"
        );
        assert_eq!(
            arguments(&unit, Tier::Unit, Some("rope")).expect("unit")[2],
            "rope"
        );
    }
}
