//! `bindgen COMPILED FOLDER`: writes the JavaScript bindings of a compiled module into the folder.
//!
//! Replaces the `wasm-bindgen` program by its library, at exactly the version in Cargo.lock, so that nobody has to install
//! a matching version. Run by `cargo xtask wasm`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

// A program has arguments.
#[allow(clippy::disallowed_methods)]
fn main() -> Result<()> {
    let mut given = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(compiled), Some(folder), None) = (given.next(), given.next(), given.next()) else {
        bail!("usage: bindgen COMPILED FOLDER");
    };
    fs::create_dir_all(&folder)
        .with_context(|| format!("{} cannot be created", folder.display()))?;
    wasm_bindgen_cli_support::Bindgen::new()
        .input_path(compiled)
        .web(true)?
        .typescript(true)
        .remove_name_section(true)
        .remove_producers_section(true)
        .generate(folder)
}
