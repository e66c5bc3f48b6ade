//! `cargo xtask model`: models that are assembled from what others publish and what this project ships.

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use crate::{command, parts};

/// Models by name, each with its recipe and its pack below the root.
pub const MODELS: [&str; 1] = ["smol"];
const RECIPES: &str = "configs/model";
const MODEL_FOLDER: &str = "models";

/// Fetches the parts and lets `emu` put them together.
pub fn run(workspace: &Workspace, name: &str) -> Result<bool> {
    let heads = format!("{MODEL_FOLDER}/emu-{name}/heads");
    if !workspace.root.join(&heads).is_dir() {
        bail!(
            "{heads} is not there. It belongs to the checkout: take a complete one, or fit the heads with `emu train configs/train/{name}/heads.toml` and put its run there"
        );
    }
    if !parts::run(workspace)? {
        return Ok(false);
    }
    let emu = command::build_emu(workspace, command::cargo(workspace))?;
    let mut assemble = command::new(emu, &workspace.root);
    assemble.args(["assemble", &format!("{RECIPES}/{name}.toml")]);
    assemble.args(["-o", &pack(name)]);
    println!("$ {}", command::line(&assemble));
    command::succeeds(&mut assemble)
}

/// Where the pack of a model goes; no file of it is tracked.
fn pack(name: &str) -> String {
    format!("{MODEL_FOLDER}/emu-{name}/pack")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_has_a_recipe_and_a_pack_that_is_not_tracked() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let ignored = std::fs::read_to_string(root.join(".gitignore")).expect("a list");
        for name in MODELS {
            assert!(
                root.join(format!("{RECIPES}/{name}.toml")).is_file(),
                "{name}"
            );
            let pack = format!("/{}", pack(name));
            assert!(ignored.lines().any(|line| line == pack), "{pack}");
        }
    }
}
