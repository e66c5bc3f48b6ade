//! Paths of the reference files.

use std::path::{Path, PathBuf};

use emu_pack::SafetensorsFile;
use serde_json::Value;

/// Folder of the fixtures in the repository.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/reference")
}

/// Path of a reference file: a fixture, or, for files too large for the repository, a file in the folder named by
/// `EMU_REFERENCE` (default: `../shared/reference` next to the repository).
pub fn file(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference");
    let outside = std::env::var_os("EMU_REFERENCE").map_or(beside, PathBuf::from);
    [fixtures().join(name), outside.join(name)]
        .into_iter()
        .find(|path| path.is_file())
}

/// [`file`], which prints on stdout why a test is skipped if the file is missing.
pub fn file_or_skip(test: &str, name: &str) -> Option<PathBuf> {
    let found = file(name);
    if found.is_none() {
        println!(
            "SKIP {test}: {name} is not among the fixtures and EMU_REFERENCE names no folder that has it"
        );
    }
    found
}

/// Reads a JSON file.
///
/// # Panics
/// If it cannot be read.
pub fn json(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Opens a safetensors file.
///
/// # Panics
/// If it cannot be read.
pub fn tensors(path: &Path) -> SafetensorsFile {
    SafetensorsFile::open(path).unwrap_or_else(|e| panic!("{e}"))
}
