//! The `emu` program: runs, trains, converts and benchmarks the model.

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
mod environment;
mod eval;
mod fault;
mod ffmpeg;
mod imagine;
mod inspect;
mod media;
mod models;
mod output;
mod parity;
mod part;
mod runtime;
mod signals;
mod train;

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
            eprintln!("error: {}", message(&error));
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

/// The error and its causes in one line. Skips causes that the error already quotes. Joins the lines of messages from
/// drivers and libraries.
fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

fn run(arguments: Arguments) -> Result<()> {
    if let Some(threads) = arguments.threads {
        environment::limit(threads)?;
    }
    match arguments.command {
        Command::Bench(args) => bench::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Caption(args) => caption::run(&args),
        Command::Imagine(args) => imagine::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Assemble(args) => assemble::run(&args),
        Command::Part(args) => part::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Parity(args) => parity::run(&args),
        Command::Train(args) => train::run(&args, arguments.threads),
        Command::Data(args) => data::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Devices(args) => devices::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    #[test]
    fn a_cause_is_named_once() {
        let io = || std::io::Error::other("it is full");
        let quoted: anyhow::Result<()> =
            Err(io()).context("The disk cannot be written: it is full.");
        assert_eq!(
            super::message(&quoted.unwrap_err()),
            "The disk cannot be written: it is full."
        );
        let bare: anyhow::Result<()> = Err(io()).context("The disk cannot be written");
        assert_eq!(
            super::message(&bare.unwrap_err()),
            "The disk cannot be written: it is full"
        );
    }

    #[test]
    fn an_error_is_one_line() {
        let lost =
            anyhow::anyhow!("The device failed: An error happened\nCaused by:\n  it is gone\n");
        assert_eq!(
            super::message(&lost),
            "The device failed: An error happened Caused by: it is gone"
        );
    }
}
