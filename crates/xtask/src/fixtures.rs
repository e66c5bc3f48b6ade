//! `cargo xtask fixtures`: copies the part of the reference data that the repository carries as test fixtures.
//!
//! Not copied: the LLaMA tokenizer, whose licence forbids copying it, with its goldens; the preprocessed pictures and the
//! UNet's weights, which are too large for a clone. Tests of these read the folder named by `EMU_REFERENCE`, or
//! `../shared/reference` next to the checkout. Without either they are skipped with a reason.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// Target folder.
const TARGET: &str = "tests/fixtures/reference";

/// Files to copy.
const FILES: &[&str] = &[
    "Emu-14B.json",
    "images/cat-crop-133x90.png",
    "images/cat.jpg",
    "images/panda.png",
    "images/preprocess-golden.json",
    "images/tiger.jpg",
    "keys-emu-14b.json",
    "keys-safety-checker.json",
    "keys-sd15-unet.json",
    "keys-sd15-vae.json",
    "tiny-emu-bf16mixed.pt",
    "tiny-emu-config.json",
    "tiny-emu-golden.json",
    "tiny-emu-golden.safetensors",
    "tiny-emu-instruct.pt",
    "tiny-emu-instruct.safetensors",
    "tiny-emu.pt",
    "tiny-emu.safetensors",
    "tiny-feature-extractor/preprocessor_config.json",
    "tiny-llama/config.json",
    "tiny-llama/tokenizer.model",
    "tiny-llama/tokenizer_config.json",
    "tiny-safety-checker/config.json",
    "tiny-safety-checker/model.safetensors",
    "tiny-schedulers/ddim/scheduler_config.json",
    "tiny-schedulers/pndm/scheduler_config.json",
    "tiny-sd-golden.json",
    "tiny-sd-golden.safetensors",
    "tiny-unet/config.json",
    "tiny-vae/config.json",
    "tiny-vae/diffusion_pytorch_model.safetensors",
    "tolerances.json",
];

/// Copies all files; copies none if one is missing.
pub fn run(workspace: &Workspace, reference: &Path) -> Result<bool> {
    let target = workspace.root.join(TARGET);
    let copied = copy(reference, &target, FILES)?;
    println!("{} files, {copied} bytes, in {TARGET}", FILES.len());
    Ok(true)
}

fn copy(from: &Path, to: &Path, files: &[&str]) -> Result<u64> {
    let missing: Vec<&str> = files
        .iter()
        .copied()
        .filter(|file| !from.join(file).is_file())
        .collect();
    if !missing.is_empty() {
        bail!(
            "{} lacks {}; name a folder laid out like the reference data",
            from.display(),
            missing.join(", ")
        );
    }
    let mut bytes = 0;
    for file in files {
        let target = to.join(file);
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("{} cannot be created", folder.display()))?;
        }
        // Read and written instead of copied: a copy would keep the permissions of a read-only source.
        let content =
            std::fs::read(from.join(file)).with_context(|| format!("{file} cannot be read"))?;
        std::fs::write(&target, &content)
            .with_context(|| format!("{} cannot be written", target.display()))?;
        bytes += content.len() as u64;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_holds_the_whole_list() {
        let workspace = Workspace::find().expect("a checkout");
        for file in FILES {
            assert!(
                workspace.root.join(TARGET).join(file).is_file(),
                "{file} is missing; run cargo xtask fixtures"
            );
        }
    }

    #[test]
    fn files_are_copied_with_their_folders() {
        let (from, to) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        std::fs::create_dir(from.path().join("a")).expect("a folder");
        std::fs::write(from.path().join("a/b.json"), "{}").expect("a file");
        assert_eq!(
            copy(from.path(), to.path(), &["a/b.json"]).expect("copied"),
            2
        );
        assert!(to.path().join("a/b.json").is_file());
    }

    #[test]
    fn an_incomplete_folder_is_named_and_nothing_is_copied() {
        let (from, to) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        std::fs::write(from.path().join("a.json"), "{}").expect("a file");
        let error =
            copy(from.path(), to.path(), &["a.json", "b.json"]).expect_err("b.json is missing");
        assert!(error.to_string().contains("b.json"));
        assert!(!to.path().join("a.json").exists());
    }
}
