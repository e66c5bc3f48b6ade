//! Installs the npm packages in the lock files of `web`.

use std::fs;

use anyhow::{Result, bail};

use crate::command;
use crate::workspace::Workspace;

/// Folders of the tools that optimise the WASM modules.
const TOOLS: [&str; 1] = ["web"];

/// Installs the tools that optimise the WASM modules.
pub fn install_tools(workspace: &Workspace) -> Result<()> {
    install(workspace, &TOOLS)
}

/// Installs the dependencies of these folders, exactly as in their lock files.
pub fn install(workspace: &Workspace, folders: &[&str]) -> Result<()> {
    for name in folders {
        let folder = workspace.root.join(name);
        let changed = |path: &str| {
            fs::metadata(folder.join(path))
                .and_then(|m| m.modified())
                .ok()
        };
        let installed = changed("node_modules/.package-lock.json");
        if installed.is_some() && installed >= changed("package-lock.json") {
            continue;
        }
        println!("$ npm ci in {name}");
        let mut npm = command::new("npm", &folder);
        if !command::succeeds(npm.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]))? {
            bail!(
                "npm ci failed in {name}, its message is above; without a network, run `npm ci` there once with one: npm keeps what it fetched"
            );
        }
    }
    Ok(())
}
