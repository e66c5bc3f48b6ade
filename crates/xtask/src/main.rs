//! What the README's commands do: `cargo xtask demo`, `cargo xtask test`, and the house rules, `cargo xtask check`.
//!
//! Nothing of Burn is linked in here, so that the first build of a fresh clone answers within seconds.

mod check;
mod cli;
mod command;
mod data;
mod demo;
mod fixtures;
mod model;
mod npm;
mod parts;
mod process;
mod setup;
mod test;
mod wasm;
mod web;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;

use cli::Task;
use setup::Requirement;
use workspace::Workspace;

fn main() -> ExitCode {
    match run(cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one task; `false` means that it ran and found something wrong, which it has told already.
fn run(task: Task) -> Result<bool> {
    let workspace = Workspace::find()?;
    match task {
        Task::Demo(args) => demo::run(&workspace, &args),
        Task::Test(args) => test::run(&workspace, &args),
        Task::Soak => test::soak(&workspace),
        Task::Check(args) => check::run(&workspace, &args),
        Task::Data(args) => data::run(&workspace, &args),
        Task::Parts => parts::run(&workspace),
        Task::Model(name) => model::run(&workspace, &name),
        Task::Wasm(args) => {
            setup::require(&workspace, &[Requirement::WasmTarget, Requirement::Node])?;
            wasm::run(&workspace, &args)
        }
        Task::Pages => web::build(&workspace, &wasm::WasmArgs::default()),
        Task::Fixtures(reference) => fixtures::run(&workspace, &reference),
    }
}
