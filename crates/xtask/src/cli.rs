//! The command line of `cargo xtask`.
//!
//! Uses clap's builder API: the derive API would compile `syn`, and more code in total than everything else here.

#[cfg(test)]
mod workflows;

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::check::CheckArgs;
use crate::data::DataArgs;
use crate::demo::DemoArgs;
use crate::model::MODELS;
use crate::release::{Part, ReleaseArgs};
use crate::test::{TestArgs, Tier};
use crate::wasm::WasmArgs;

/// A task and its arguments.
pub enum Task {
    /// Show captioning, answering and drawing with the shipped model.
    Demo(DemoArgs),
    /// Run every test.
    Test(TestArgs),
    /// Run the browser tests with full counts.
    Soak,
    /// Check the house rules.
    Check(CheckArgs),
    /// Build the training data.
    Data(DataArgs),
    /// Fetch the published weights that this project uses.
    Parts,
    /// Complete the pack of a model with its fetched part.
    Model(String),
    /// Build the WASM modules of the npm package.
    Wasm(WasmArgs),
    /// Build the documentation site.
    Docs,
    /// Build everything that a release is.
    Release(ReleaseArgs),
    /// Build the files for browsers; a step of `test`.
    Pages,
    /// Copy the reference data for the tests.
    Fixtures(PathBuf),
}

/// Parses the command line. Prints help or an error and exits if necessary.
pub fn parse() -> Task {
    let matches = command().get_matches();
    match task(&matches) {
        Some(task) => task,
        // Unreachable, because of `subcommand_required`.
        None => command()
            .error(clap::error::ErrorKind::MissingSubcommand, "name a task")
            .exit(),
    }
}

fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(help)
    };
    let option = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help);
    let demo = Command::new("demo")
        .about("Build the page with the shipped model in it, serve it and print the address")
        .arg(flag(
            "cli",
            "Build `emu` instead, let it caption, answer and draw, and write out/demo.html",
        ))
        .arg(
            option("port", "Where the page is served")
                .value_parser(value_parser!(u16))
                .default_value("8080"),
        )
        .arg(flag("build-only", "Build the page and leave"))
        .arg(
            option("seed", "The seed of everything that is drawn")
                .value_parser(value_parser!(u64))
                .default_value("7"),
        )
        .arg(
            option("device", "Passed on to `emu`")
                .value_parser(["auto", "gpu", "cpu"])
                .default_value("auto"),
        )
        .arg(
            option("out", "The folder of the page and the drawings")
                .short('o')
                .value_parser(value_parser!(PathBuf))
                .default_value("out"),
        )
        .arg(
            option("only", "Only the steps of this kind (repeatable)")
                .value_parser(["caption", "answer", "complete", "draw", "blend"])
                .action(ArgAction::Append),
        );
    let test = Command::new("test")
        .about("Set the machine up and run every test; ends in `N passed, N failed, N skipped`")
        .arg(
            option("tier", "Only these tiers (repeatable)")
                .value_parser(PossibleValuesParser::new(Tier::ALL.map(Tier::argument)))
                .action(ArgAction::Append),
        )
        .arg(option("filter", "Only tests whose name holds this"))
        .arg(flag(
            "no-install",
            "Install nothing; what is missing is skipped",
        ));
    let check = Command::new("check")
        .about("Check the house rules: dependency edges, absences, sizes, shaders, configs, paths, formatting")
        .arg(flag("clippy", "Run clippy over the whole workspace too, warnings denied; minutes on a cold target folder"))
        .arg(flag("no-fmt", "Leave the formatting alone"));
    let data = Command::new("data")
        .about(
            "Build the training data from the registries' drawings: `emu data emoji -o data/emoji`",
        )
        .arg(
            option("out", "Where the shards go")
                .short('o')
                .default_value("data/emoji"),
        )
        .arg(
            Arg::new("rest")
                .last(true)
                .num_args(0..)
                .help("Passed on to `emu data emoji`"),
        );
    let parts = Command::new("parts").about(
        "Fetch the published weights that tests and emu-smol use (SmolLM2, EfficientNet-Lite2) into data; needs Node",
    );
    let model = Command::new("model")
        .about("Fetch the published parts of a model and assemble its pack: smol, into models/emu-smol/pack")
        .arg(
            Arg::new("name")
                .required(true)
                .value_parser(PossibleValuesParser::new(MODELS.map(|model| model.name))),
        );
    let wasm = Command::new("wasm")
        .about("Build the two WASM modules of the npm package into web/package/wasm")
        .arg(flag(
            "quick",
            "For a page on this machine: larger, ready sooner, not to be published",
        ))
        .arg(
            option("only", "Only this module (repeatable)")
                .value_parser(["cpu", "webgpu"])
                .action(ArgAction::Append),
        )
        .arg(
            option(
                "peers",
                "Into this folder instead, with what tests/peers measures",
            )
            .value_parser(value_parser!(PathBuf)),
        );
    let soak = Command::new("soak").about(
        "Run the browser tests with full counts: 300 captions, 50 drawings, every step of a drawing",
    );
    let pages = Command::new("pages").hide(true);
    let docs = Command::new("docs").about(
        "Build the documentation site into target/docs-site and check its links; needs Node",
    );
    let parts_of_a_release = || {
        Arg::new("")
            .value_parser(PossibleValuesParser::new(Part::ALL.map(Part::argument)))
            .value_delimiter(',')
            .action(ArgAction::Append)
    };
    let release = Command::new("release")
        .about("Build everything that a release is into target/release-files; publishes nothing")
        .arg(flag(
            "dry-run",
            "From a commit without the version's tag, and a changelog whose section is still [Unreleased]",
        ))
        .arg(
            parts_of_a_release()
                .id("only")
                .long("only")
                .conflicts_with("skip")
                .help("Only these parts, separated by commas; the files of the others are kept"),
        )
        .arg(
            parts_of_a_release()
                .id("skip")
                .long("skip")
                .help("Without these parts, separated by commas"),
        )
        .arg(
            option("target", "Targets of `emu`, in place of this machine's (repeatable)")
                .action(ArgAction::Append),
        );
    let fixtures = Command::new("fixtures")
        .about("Copy the reference data that the tests need into tests/fixtures/reference")
        .arg(
            Arg::new("reference")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("A folder laid out like the reference data"),
        );
    Command::new("cargo xtask")
        .bin_name("cargo xtask")
        .about("Everything the project does about itself")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            demo, test, soak, check, data, parts, model, wasm, docs, release, pages, fixtures,
        ])
}

fn task(matches: &ArgMatches) -> Option<Task> {
    let (name, given) = matches.subcommand()?;
    let text = |name: &str| given.get_one::<String>(name).cloned();
    let texts = |name: &str| {
        given
            .get_many::<String>(name)
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
    };
    let path = |name: &str| given.get_one::<PathBuf>(name).cloned();
    Some(match name {
        "demo" => Task::Demo(DemoArgs {
            cli: given.get_flag("cli"),
            port: given.get_one::<u16>("port").copied()?,
            build_only: given.get_flag("build-only"),
            seed: given.get_one::<u64>("seed").copied()?,
            device: text("device")?,
            out: path("out")?,
            only: texts("only"),
        }),
        "test" => Task::Test(TestArgs {
            tiers: texts("tier")
                .iter()
                .filter_map(|name| Tier::ALL.into_iter().find(|tier| tier.argument() == name))
                .collect(),
            may_install: !given.get_flag("no-install"),
            filter: text("filter"),
        }),
        "soak" => Task::Soak,
        "check" => Task::Check(CheckArgs {
            clippy: given.get_flag("clippy"),
            formatting: !given.get_flag("no-fmt"),
        }),
        "data" => Task::Data(DataArgs {
            out: text("out")?,
            rest: texts("rest"),
        }),
        "parts" => Task::Parts,
        "model" => Task::Model(text("name")?),
        "wasm" => Task::Wasm(WasmArgs {
            quick: given.get_flag("quick"),
            only: texts("only"),
            peers: path("peers"),
        }),
        "docs" => Task::Docs,
        "release" => Task::Release(ReleaseArgs {
            dry_run: given.get_flag("dry-run"),
            parts: Part::chosen(&texts("only"), &texts("skip")),
            keep: given.contains_id("only"),
            targets: texts("target"),
        }),
        "pages" => Task::Pages,
        "fixtures" => Task::Fixtures(path("reference")?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Option<Task> {
        let matches = command()
            .try_get_matches_from(std::iter::once(&"xtask").chain(words))
            .ok()?;
        Some(task(&matches).expect("every accepted command line is a task"))
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_task_is_read() {
        assert!(
            matches!(parsed(&["demo"]), Some(Task::Demo(args)) if args.seed == 7 && args.device == "auto" && args.only.is_empty() && !args.cli && args.port == 8080)
        );
        assert!(matches!(parsed(&["demo", "--cli"]), Some(Task::Demo(args)) if args.cli));
        assert!(
            matches!(parsed(&["wasm", "--only", "cpu"]), Some(Task::Wasm(args)) if args.only == ["cpu"])
        );
        assert!(
            matches!(parsed(&["test", "--tier", "unit", "--tier", "gpu"]), Some(Task::Test(args)) if args.tiers == [Tier::Unit, Tier::Gpu])
        );
        assert!(
            matches!(parsed(&["test"]), Some(Task::Test(args)) if args.tiers.is_empty() && args.may_install)
        );
        assert!(
            matches!(parsed(&["check", "--clippy"]), Some(Task::Check(args)) if args.clippy && args.formatting)
        );
        assert!(
            matches!(parsed(&["data", "--", "--seed", "3"]), Some(Task::Data(args)) if args.rest == ["--seed", "3"])
        );
        assert!(matches!(parsed(&["parts"]), Some(Task::Parts)));
        assert!(matches!(parsed(&["docs"]), Some(Task::Docs)));
        assert!(
            matches!(parsed(&["release", "--dry-run", "--skip", "binaries,wasm"]), Some(Task::Release(args)) if args.dry_run && !args.keep && args.parts == Part::ALL[2..])
        );
        assert!(
            matches!(parsed(&["release", "--only", "npm", "--target", "a-b-c"]), Some(Task::Release(args)) if !args.dry_run && args.keep && args.parts == [Part::Npm] && args.targets == ["a-b-c"])
        );
        assert!(matches!(parsed(&["model", "smol"]), Some(Task::Model(name)) if name == "smol"));
        assert!(matches!(
            parsed(&["fixtures", "there"]),
            Some(Task::Fixtures(_))
        ));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for words in [
            &["dance"][..],
            &["demo", "--device", "tpu"],
            &["test", "--tier", "none"],
            &["fixtures"],
            &["model"],
            &["model", "large"],
            &["release", "--skip", "cake"],
            &["release", "--skip", "npm", "--only", "docs"],
            &[],
        ] {
            assert!(parsed(words).is_none(), "{words:?}");
        }
    }
}
