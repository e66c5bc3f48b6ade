//! Models by name: those that are assembled in a checkout, not shipped in the program.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// What `--model` may say, and where `cargo xtask model` leaves it below the root.
const NAMES: [&str; 2] = ["smol", "emu-smol"];
const PACK: &str = "models/emu-smol/pack";
/// What makes a folder a pack.
const MANIFEST: &str = "emu.json";

/// The folder of a pack: a path as it is, a name as the folder that it stands for.
///
/// # Errors
/// Where a model of that name is not assembled.
pub fn resolve(model: &Path) -> Result<PathBuf> {
    let named = NAMES.iter().any(|name| model == Path::new(name));
    if !named || model.exists() {
        return Ok(model.to_owned());
    }
    let here = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    match find(here.iter().chain(&program).map(PathBuf::as_path)) {
        Some(pack) => Ok(pack),
        None => bail!(
            "emu-smol is not assembled here: its language model and encoder are fetched, not shipped. Run `cargo xtask model smol` in the checkout, or give the folder of a pack."
        ),
    }
}

/// The pack in the nearest folder above one of these that has it.
fn find<'a>(places: impl Iterator<Item = &'a Path>) -> Option<PathBuf> {
    let roots = places.flat_map(Path::ancestors);
    let mut packs = roots.map(|root| root.join(PACK));
    packs.find(|pack| pack.join(MANIFEST).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_found_from_below_its_checkout() {
        let root = tempfile::tempdir().expect("a folder");
        let deep = root.path().join("crates/emu-cli/src");
        let pack = root.path().join(PACK);
        std::fs::create_dir_all(&deep).expect("a folder");
        std::fs::create_dir_all(&pack).expect("a folder");
        let places = || [Path::new("/nowhere"), deep.as_path()].into_iter();
        assert_eq!(find(places()), None);
        std::fs::write(pack.join(MANIFEST), "{}").expect("written");
        assert_eq!(find(places()), Some(pack));
    }

    #[test]
    fn paths_stay_as_they_are() {
        for path in ["models/emu-mini", "smol.gguf", "./smol/x"] {
            assert_eq!(resolve(Path::new(path)).expect("a path"), Path::new(path));
        }
    }
}
