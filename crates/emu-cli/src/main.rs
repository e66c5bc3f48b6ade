//! The `emu` program: pictures and text in, text and pictures out; training, converting, measuring.

mod args;
mod bench;
mod caption;
mod chat;
mod checkpoint;
mod convert;
mod dashboard;
mod data;
mod eval;
mod imagine;
mod inspect;
mod media;
mod output;
mod parity;
mod runtime;
mod signals;
mod train;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use args::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,wgpu_hal::gles=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", message(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error with its causes, those left out that it already quotes.
fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Bench(args) => bench::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Caption(args) => caption::run(&args),
        Command::Imagine(args) => imagine::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Parity(args) => parity::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Data(args) => data::run(&args),
        Command::Eval(args) => eval::run(&args),
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
}
