//! `emu part`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use emu_train::trained::Trained;
use serde_json::json;

use crate::output::{json_line, print_now};

/// `emu part`
#[derive(Debug, Args)]
pub struct PartArgs {
    /// The folder of a training run, or a part exported before.
    pub source: PathBuf,
    /// The folder to write.
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// Exports the weights of a training run.
///
/// # Errors
/// Where there is no run, or the folder cannot be written.
pub fn run(args: &PartArgs) -> Result<()> {
    let part = Trained::open(&args.source)?;
    part.write(&args.out)?;
    let numbers = { part.tensors.iter() }.map(|t| t.info.shape.iter().product::<usize>());
    let numbers: usize = numbers.sum();
    if args.json {
        let tensors = part.tensors.len();
        return json_line(&json!({"out": args.out, "tensors": tensors, "parameters": numbers}));
    }
    print_now(&format!("{numbers} parameters in {}\n", args.out.display()))
}
