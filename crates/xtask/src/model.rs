//! `cargo xtask model`: models with a part that others publish. The rest of them is in the checkout.

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::command;
use crate::parts::{self, Part};
use crate::workspace::Workspace;

/// A model.
pub struct Model {
    /// Its name on the command line.
    pub name: &'static str,
    /// Folder of its pack, relative to the root.
    pub pack: &'static str,
    /// The published part that the pack lacks.
    part: Part,
}

/// All models.
pub const MODELS: [Model; 1] = [Model {
    name: "smol",
    pack: "models/emu-smol/pack",
    part: parts::SMOLLM2,
}];

/// Completes the pack of a model.
pub fn run(workspace: &Workspace, name: &str) -> Result<bool> {
    let model = { MODELS.iter() }
        .find(|model| model.name == name)
        .with_context(|| format!("there is no model {name}"))?;
    complete(workspace, model)?;
    Ok(true)
}

/// Fetches the missing part of a model's pack and adds it.
pub fn complete(workspace: &Workspace, model: &Model) -> Result<()> {
    let Model { pack, part, .. } = model;
    if !workspace.root.join(pack).join("emu.json").is_file() {
        bail!("{pack}/emu.json is not there. It belongs to the checkout: take a complete one");
    }
    parts::fetch(workspace, part)?;
    let from = part.target(&workspace.root);
    repack(workspace, &json!({"pack": pack, "from": from}))
        .with_context(|| format!("{pack} cannot be completed"))
}

/// Passes an order to emu-pack's `repack` program.
pub fn repack(workspace: &Workspace, order: &serde_json::Value) -> Result<()> {
    let mut repack = command::cargo(workspace);
    repack
        .args(["run", "--quiet", "--package", "emu-pack"])
        .args(["--features", "convert", "--bin", "repack"]);
    match command::succeeds_given(&mut repack, &order.to_string())? {
        true => Ok(()),
        false => bail!("the message is above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_has_a_recipe_and_a_pack_whose_missing_shards_are_not_tracked() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let read = |path: &str| std::fs::read_to_string(root.join(path)).expect(path);
        let ignored = read(".gitignore");
        for Model { name, pack, .. } in &MODELS {
            assert!(root.join(format!("configs/model/{name}.toml")).is_file());
            // The language model's shards come first and are three.
            let rule = format!("/{pack}/lm-0000[123]-of-*.safetensors");
            assert!(ignored.lines().any(|line| line == rule), "{rule}");
            let read = |file: &str| -> serde_json::Value {
                serde_json::from_str(&read(&format!("{pack}/{file}"))).expect("JSON")
            };
            let [manifest, elsewhere] = ["emu.json", "elsewhere.json"].map(read);
            let moved = elsewhere["tensors"].as_array().expect("a list");
            for tensor in manifest["tensors"].as_array().expect("a list") {
                let name = tensor["name"].as_str().expect("a name");
                let base = [".scales", ".mins"]
                    .iter()
                    .fold(name, |n, e| n.strip_suffix(e).unwrap_or(n));
                let fetched = moved.iter().any(|moved| moved["name"] == base);
                for part in tensor["parts"].as_array().expect("a list") {
                    let file = part["file"].as_str().expect("a file");
                    let ignored = (1..=3).any(|n| file.starts_with(&format!("lm-0000{n}-of-")));
                    assert_eq!(ignored, fetched, "{name} is in {file}");
                }
            }
        }
    }
}
