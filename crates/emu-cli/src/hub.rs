//! Models of the Hugging Face Hub: `emu fetch`, and addresses in place of paths.

use std::path::{Path, PathBuf};

use anyhow::Result;
use emu_hub::{Address, Options, Progress};
use serde_json::json;

use crate::args::FetchArgs;
use crate::output::{bytes_bar, json_line, print_now};
use crate::signals;

/// Fetches a model and prints where it is.
pub fn run(args: &FetchArgs) -> Result<()> {
    let address = emu_hub::parse(&args.address)?;
    let options = Options {
        out: args.out.clone(),
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        // Ctrl-C ends the transfer; what has arrived is kept for the next call.
        cancel: signals::stop_flag()?.shared(),
        ..Options::from_env()?
    };
    let path = fetch(&address, &options)?;
    match args.json {
        true => json_line(&json!({ "path": path })),
        false => print_now(&format!("{}\n", path.display())),
    }
}

/// The path itself, or what an address of the hub names, fetched.
///
/// # Errors
/// As [`emu_hub::fetch`].
pub fn local(path: &Path) -> Result<PathBuf> {
    match path.to_str().filter(|text| emu_hub::is_address(text)) {
        Some(text) => fetch(&emu_hub::parse(text)?, &Options::from_env()?),
        None => Ok(path.to_owned()),
    }
}

/// Fetches with a bar of bytes.
fn fetch(address: &Address, options: &Options) -> Result<PathBuf> {
    let bar = bytes_bar();
    let fetched = emu_hub::fetch(address, options, &mut |progress| match progress {
        Progress::Chosen { bytes, present, .. } => {
            bar.set_length(bytes);
            bar.set_position(present);
        }
        Progress::File { path, .. } => bar.set_message(path.to_owned()),
        Progress::Checking { path, .. } => bar.set_message(format!("checking {path}")),
        Progress::Bytes { done, total } => {
            bar.set_length(total);
            bar.set_position(done);
        }
        Progress::Again { path, reason } => {
            bar.suspend(|| eprintln!("{path}: {reason}; trying again"));
        }
        Progress::Cached { reason } => bar.suspend(|| eprintln!("{reason}; the cache is used")),
        _ => {}
    });
    bar.finish_and_clear();
    Ok(fetched?)
}
