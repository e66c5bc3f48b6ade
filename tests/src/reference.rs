//! Where the reference's files are.

use std::path::{Path, PathBuf};

use emu_pack::SafetensorsFile;
use serde_json::Value;

/// The folder of the repository's fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/reference")
}

/// A file of the reference: one of the fixtures, or, for those that are too large to be among them, one of the folder
/// that `EMU_REFERENCE` names (`../shared/reference` beside the repository without it).
pub fn file(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference");
    let outside = std::env::var_os("EMU_REFERENCE").map_or(beside, PathBuf::from);
    [fixtures().join(name), outside.join(name)]
        .into_iter()
        .find(|path| path.is_file())
}

/// As [`file`], saying on standard output why a test skips where there is none.
pub fn file_or_skip(test: &str, name: &str) -> Option<PathBuf> {
    let found = file(name);
    if found.is_none() {
        println!(
            "SKIP {test}: {name} is not among the fixtures and EMU_REFERENCE names no folder that has it"
        );
    }
    found
}

/// A JSON file.
///
/// # Panics
/// Where it cannot be read.
pub fn json(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A safetensors file.
///
/// # Panics
/// Where it cannot be read.
pub fn tensors(path: &Path) -> SafetensorsFile {
    SafetensorsFile::open(path).unwrap_or_else(|e| panic!("{e}"))
}
