//! A repository to fetch, and what has to come of it.

use std::fs;
use std::path::{Path, PathBuf};

use emu_hub::{HubError, Options, fetch};

use super::{address, bytes};

pub const LARGE: &str = "model.safetensors";

/// A checkpoint of a large file, settings in two folders, and files that no conversion needs.
pub fn checkpoint() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (".gitattributes", b"*.bin filter=lfs".to_vec()),
        ("README.md", b"# A model".to_vec()),
        ("config.json", b"{}".to_vec()),
        (LARGE, bytes(1, 700_000)),
        ("pytorch_model.bin", bytes(2, 700_000)),
        ("tokenizer.json", bytes(3, 5_000)),
        ("unet/a b#1.json", b"{\"a\": 1}".to_vec()),
        ("unet/diffusion_pytorch_model.bin", bytes(4, 300_000)),
        ("unet/empty.json", vec![]),
    ]
}

pub const WANTED: [&str; 6] = [
    "config.json",
    LARGE,
    "tokenizer.json",
    "unet/a b#1.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/empty.json",
];

pub fn quiet(options: &Options, end: &str) -> Result<PathBuf, HubError> {
    fetch(&address(end), options, &mut |_| {})
}

pub fn code(result: Result<PathBuf, HubError>) -> &'static str {
    result.expect_err("an error").code()
}

pub fn contents(folder: &Path, files: &[(&str, Vec<u8>)]) {
    for path in WANTED {
        let (_, wanted) = files
            .iter()
            .find(|(name, _)| *name == path)
            .expect("a file");
        assert!(
            fs::read(folder.join(path)).expect(path) == *wanted,
            "{path}"
        );
    }
}

/// Paths of all files below a folder.
pub fn below(folder: &Path) -> Vec<String> {
    let mut paths = vec![];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        match entry.path().is_dir() {
            true => paths.extend(
                below(&entry.path())
                    .into_iter()
                    .map(|path| format!("{name}/{path}")),
            ),
            false => paths.push(name),
        }
    }
    paths.sort();
    paths
}

pub fn blobs(options: &Options) -> Vec<String> {
    below(&options.cache.join("models--Test-Org--model_1.0/blobs"))
}
