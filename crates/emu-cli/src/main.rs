//! The `emu` program: runs, trains, converts and benchmarks the model.

// What clippy.toml leaves to the program: argv, the terminal, the end of the process.
#![allow(clippy::disallowed_methods)]

mod args;
mod assemble;
mod bench;
mod caption;
mod chat;
mod checkpoint;
mod convert;
mod dashboard;
mod data;
mod devices;
mod dry_run;
mod environment;
mod error_line;
mod eval;
mod fault;
mod ffmpeg;
mod hub;
mod imagine;
mod inspect;
mod media;
mod models;
mod output;
mod parity;
mod part;
mod publish;
mod report;
mod runtime;
mod serve;
mod signals;
mod text_options;
mod train;
mod values;

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use emu_kernels::device::DeviceError;

use args::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    environment::prepare(arguments.threads);
    fault::told_in_a_line();
    // Missing or failing drivers are reported in one sentence by this program, so the driver loader's own messages are off.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,wgpu_hal=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error_line::message(&error));
            match error.downcast_ref() {
                // Same exit code as for any other invalid argument.
                Some(DeviceError::UnknownAdapter { .. } | DeviceError::AmbiguousAdapter { .. }) => {
                    ExitCode::from(USAGE)
                }
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Exit code for invalid arguments, the same as clap's.
const USAGE: u8 = 2;

fn run(arguments: Arguments) -> Result<()> {
    if let Some(threads) = arguments.threads {
        environment::limit(threads)?;
    }
    match arguments.command {
        Command::Bench(args) => bench::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Caption(args) => caption::run(&args),
        Command::Imagine(args) => imagine::run(&args),
        Command::Convert(args) => convert::run(args),
        Command::Assemble(args) => assemble::run(&args),
        Command::Part(args) => part::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Parity(args) => parity::run(&args),
        Command::Train(args) => train::run(&args, arguments.threads),
        Command::Data(args) => data::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Fetch(args) => hub::run(&args),
        Command::Serve(args) => serve::run(&args),
    }
}
