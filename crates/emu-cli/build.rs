//! Embeds `models/emu-mini` into the program, if the checkout has it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let folder = root.join("../../models/emu-mini");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", folder.display());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let text = format!(
        "/// Files of the shipped pack, by name; none where the program was built without one.\n\
         pub const FILES: &[(&str, &[u8])] = &[{}];\n",
        entries(&folder)
    );
    if let Err(error) = std::fs::write(out.join("embedded.rs"), text) {
        println!("cargo:warning=the embedded model cannot be listed: {error}");
    }
}

/// The embedded files: manifest, tokenizer and shards, without the model card and its pictures.
fn entries(folder: &Path) -> String {
    let mut list = String::new();
    let Ok(files) = std::fs::read_dir(folder) else {
        return list;
    };
    let mut paths: Vec<PathBuf> = files.filter_map(|file| Some(file.ok()?.path())).collect();
    paths.sort();
    if !paths.iter().any(|path| path.ends_with("emu.json")) {
        return list;
    }
    for path in paths {
        let kind = path.extension().and_then(|e| e.to_str());
        if let (Some("json" | "safetensors"), Some(name)) = (kind, path.file_name()) {
            let name = name.to_string_lossy();
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            let _ = write!(
                list,
                "({name:?}, include_bytes!({:?})),",
                path.display().to_string()
            );
        }
    }
    list
}
