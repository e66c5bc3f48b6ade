//! What the README's commands do: `cargo xtask demo`, `cargo xtask test`, and the house rules, `cargo xtask check`.
//!
//! Nothing of Burn is linked in here, so that the first build of a fresh clone answers within seconds.

mod check;
mod command;
mod data;
mod demo;
mod fixtures;
mod test;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use workspace::Workspace;

/// Everything the project does about itself.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build `emu`, let the shipped model caption, answer and draw, and write out/demo.html.
    Demo(demo::DemoArgs),
    /// Set the machine up and run every test; ends in `N passed, N failed, N skipped`.
    Test(test::TestArgs),
    /// Check the house rules: dependency edges, absences, sizes, shaders, configs, paths, formatting.
    Check(check::CheckArgs),
    /// Build the training data from the registries' drawings: `emu data emoji -o data/emoji`.
    Data(data::DataArgs),
    /// Copy the reference data that the tests need into tests/fixtures/reference.
    Fixtures {
        /// A folder laid out like the reference data.
        reference: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one task; `false` means that it ran and found something wrong, which it has told already.
fn run(cli: Cli) -> Result<bool> {
    let workspace = Workspace::find()?;
    match cli.task {
        Task::Demo(args) => demo::run(&workspace, &args),
        Task::Test(args) => test::run(&workspace, &args),
        Task::Check(args) => check::run(&workspace, &args),
        Task::Data(args) => data::run(&workspace, &args),
        Task::Fixtures { reference } => fixtures::run(&workspace, &reference),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
