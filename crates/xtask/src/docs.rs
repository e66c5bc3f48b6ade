//! `cargo xtask docs`: the documentation site, from TypeDoc over the npm package and the Markdown guides.
//!
//! The list of pages is `web/docs/typedoc.json`. TypeDoc reports references that it cannot resolve, and its warnings are
//! errors; [`links`] then checks every link of the pages as written.

mod links;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::npm;
use crate::setup::{self, Requirement};
use crate::workspace::Workspace;

/// Folder of TypeDoc and its configuration.
const FOLDER: &str = "web/docs";
/// The package, whose dependencies have types that its own types name.
const PACKAGE: &str = "web/package";
/// The output folder, in Cargo's target directory.
const SITE: &str = "docs-site";

/// `cargo xtask docs`: builds the site; `false` if it has dead links.
pub fn run(workspace: &Workspace) -> Result<bool> {
    setup::require(workspace, &[Requirement::Node])?;
    let site = command::target(workspace).join(SITE);
    let good = build(workspace, &site)?;
    println!("to look at: {}", site.join("index.html").display());
    Ok(good)
}

/// Builds the site into a folder, which is replaced. Returns `false` if it has dead links, which are printed.
///
/// # Errors
/// If TypeDoc or npm fails, or a page cannot be read.
pub fn build(workspace: &Workspace, site: &Path) -> Result<bool> {
    npm::install(workspace, &[PACKAGE, FOLDER])?;
    // Pages of an earlier build would hide dead links.
    if site.exists() {
        fs::remove_dir_all(site).with_context(|| format!("{} is in the way", site.display()))?;
    }
    let folder = workspace.root.join(FOLDER);
    let script: PathBuf = ["node_modules", "typedoc", "bin", "typedoc"]
        .iter()
        .collect();
    let mut typedoc = command::new("node", &folder);
    typedoc.arg(script).arg("--out").arg(site);
    typedoc.args(["--name", &format!("Emu in Rust {}", workspace.version()?)]);
    if !command::succeeds(&mut typedoc)? {
        bail!("TypeDoc failed; its message is above, and {FOLDER}/typedoc.json lists the pages");
    }
    let report = links::check(site)?;
    for dead in &report.dead {
        println!("  error: {dead}");
    }
    println!(
        "{}: {} pages, {} links within the site, {} dead",
        site.display(),
        report.pages,
        report.links,
        report.dead.len()
    );
    Ok(report.dead.is_empty())
}
