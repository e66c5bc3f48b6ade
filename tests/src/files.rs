//! Reference files, and helpers that copy and corrupt them.

use std::path::{Path, PathBuf};

use emu_pack::{SafetensorsFile, TensorSource, write_safetensors};

/// The folder of all reference data, if it exists: named by `EMU_REFERENCE`, or next to the checkout.
pub fn reference_folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference");
    let folder = std::env::var_os("EMU_REFERENCE").map_or(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

/// SmolLM2 as a GGUF file, if it exists: named by `EMU_SMOLLM2`, or fetched by `cargo xtask parts`. Otherwise prints that `tier`
/// is skipped.
pub fn smollm2(tier: &str) -> Option<PathBuf> {
    let named = std::env::var_os("EMU_SMOLLM2").map(PathBuf::from);
    let found = || {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/smollm2");
        let entries = std::fs::read_dir(folder).ok()?;
        let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.find(|path| path.extension().is_some_and(|kind| kind == "gguf"))
    };
    let path = named.or_else(found).filter(|path| path.is_file());
    if path.is_none() {
        println!(
            "SKIP {tier}: EMU_SMOLLM2 names no file and data/smollm2 holds none; `cargo xtask parts` fetches it"
        );
    }
    path
}

/// Copies a folder recursively.
///
/// # Panics
/// If a file cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            // Read and written instead of copied: a copy would keep the permissions of a read-only source.
            std::fs::write(target, std::fs::read(&path).expect("a file")).expect("written");
        }
    }
}

/// Rewrites a safetensors file with the first value of one tensor changed.
///
/// # Panics
/// If there is no such file or tensor.
pub fn change_weight(path: &Path, name: &str, change: impl Fn(f32) -> f32) {
    let source = SafetensorsFile::open(path).expect("a safetensors file");
    let infos = source.tensors().iter();
    let mut tensors: Vec<_> = infos
        .map(|info| source.read(&info.name).expect("a tensor"))
        .collect();
    let tensor = tensors
        .iter_mut()
        .find(|t| t.info.name == name)
        .expect("the tensor");
    let first = f32::from_le_bytes(tensor.bytes[..4].try_into().expect("four bytes"));
    tensor.bytes[..4].copy_from_slice(&change(first).to_le_bytes());
    let mut file = std::fs::File::create(path).expect("a file");
    write_safetensors(&mut file, &tensors).expect("written");
}
