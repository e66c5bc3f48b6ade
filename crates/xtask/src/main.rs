//! The README's commands: `cargo xtask demo`, `cargo xtask test`, and `cargo xtask check` for the house rules.
//!
//! Links nothing of Burn, so that the first build in a fresh clone takes only seconds.

mod check;
mod cli;
mod command;
mod data;
mod demo;
mod docs;
mod fixtures;
mod model;
mod npm;
mod parts;
mod process;
mod release;
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

/// Runs a task; `false` means that it ran and has already reported a problem.
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
        Task::Docs => docs::run(&workspace),
        Task::Release(args) => release::run(&workspace, &args),
        Task::Pages => web::build_for_tests(&workspace, &wasm::WasmArgs::local(&[])),
        Task::Fixtures(reference) => fixtures::run(&workspace, &reference),
    }
}
