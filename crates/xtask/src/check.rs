//! The house rules. Each rule looks for something forbidden. `ARCHITECTURE.md` numbers them.

mod absence;
mod circles;
mod configs;
mod edges;
mod finding;
mod paths;
mod shaders;
mod sizes;
mod source;
mod statics;
mod versions;

use anyhow::Result;

pub use finding::{Finding, Severity};
pub use versions::one_version;

use crate::command;
use crate::workspace::{Package, Tree, Workspace};

/// Arguments of `cargo xtask check`.
pub struct CheckArgs {
    /// Also run clippy over the whole workspace.
    pub clippy: bool,
    /// Also check the formatting.
    pub formatting: bool,
}

/// Input of the rules.
pub struct House<'a> {
    /// The packages and their direct dependencies.
    pub packages: &'a [Package],
    /// The files.
    pub tree: &'a Tree,
}

/// A rule: its name and its check.
pub type Rule = (&'static str, fn(&House) -> Vec<Finding>);

/// All rules that need only manifests and files.
pub const RULES: &[Rule] = &[
    ("dependency edges", |house| {
        edges::forbidden_edges(house.packages)
    }),
    ("who may know which library", |house| {
        edges::misplaced_libraries(house.packages)
    }),
    ("only emu-web knows JavaScript", |house| {
        absence::javascript(house.tree)
    }),
    (
        "emu-media, emu-model, emu-tokenizer: rules of clippy against file, network, clock, thread, terminal",
        |house| absence::pure_packages(house.tree),
    ),
    ("only emu-kernels reads shaders/", |house| {
        absence::shader_readers(house.tree)
    }),
    ("no circle of modules", |house| circles::modules(house.tree)),
    ("no static that two models share", |house| {
        statics::shared_state(house.tree)
    }),
    ("shader headers", |house| shaders::headers(house.tree)),
    ("file sizes", |house| sizes::rust_files(house.tree)),
    ("fixture and model sizes", |house| sizes::data(house.tree)),
    ("configs parse", |house| configs::parse(house.tree)),
    ("one version", |house| one_version(house.tree)),
    ("no machine's paths", |house| {
        paths::machine_paths(house.tree)
    }),
];

/// Result of a rule.
pub struct Outcome {
    /// The rule's name.
    pub rule: &'static str,
    /// Its findings.
    pub findings: Vec<Finding>,
}

impl Outcome {
    /// Whether no finding is an error.
    pub fn passed(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.severity != Severity::Error)
    }
}

/// Applies every rule to the checkout.
pub fn outcomes(workspace: &Workspace) -> Result<Vec<Outcome>> {
    let packages = workspace.packages()?;
    let tree = workspace.tree()?;
    let house = House {
        packages: &packages,
        tree: &tree,
    };
    Ok(RULES
        .iter()
        .map(|(rule, apply)| Outcome {
            rule,
            findings: apply(&house),
        })
        .collect())
}

/// Prints a result.
pub fn print(outcome: &Outcome) {
    println!(
        "{} {}",
        if outcome.passed() { "ok    " } else { "FAILED" },
        outcome.rule
    );
    for finding in &outcome.findings {
        println!("{finding}");
    }
}

/// `cargo fmt --check` over the workspace.
pub fn formatted(workspace: &Workspace) -> Result<bool> {
    command::succeeds(command::cargo(workspace).args(["fmt", "--all", "--check"]))
}

/// Clippy over all targets of the workspace with default features; warnings are errors.
pub fn clippy_clean(workspace: &Workspace) -> Result<bool> {
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    command::succeeds(command::cargo(workspace).args(clippy))
}

/// `cargo xtask check`.
pub fn run(workspace: &Workspace, args: &CheckArgs) -> Result<bool> {
    let outcomes = outcomes(workspace)?;
    outcomes.iter().for_each(print);
    let mut failed = outcomes.iter().filter(|outcome| !outcome.passed()).count();
    let mut step = |name: &str, passed: bool| {
        println!("{} {name}", if passed { "ok    " } else { "FAILED" });
        failed += usize::from(!passed);
    };
    if args.formatting {
        step("rustfmt (to mend: cargo fmt --all)", formatted(workspace)?);
    }
    if args.clippy {
        step("clippy", clippy_clean(workspace)?);
    }
    if failed > 0 {
        println!("{failed} of the house rules broken");
    }
    Ok(failed == 0)
}
