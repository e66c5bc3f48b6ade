//! Models by name. They belong to a checkout; part of their weights may have to be fetched first.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use emu_pack::convert::Elsewhere;
use emu_pack::{MANIFEST_FILE, PackReader};

use crate::hub;

/// Model names that `--model` accepts, and the folder of their pack below the root of the checkout.
const NAMES: [&str; 2] = ["smol", "emu-smol"];
const PACK: &str = "models/emu-smol/pack";

/// Resolves `--model` to the folder of a pack: a model name to its pack's folder, an address of the hub to what is
/// fetched from it, a path to itself.
///
/// # Errors
/// Where a named model is not found, or weights that have to be fetched for the pack are missing.
pub fn resolve(model: &Path) -> Result<PathBuf> {
    let pack = located(&hub::local(model)?)?;
    match Elsewhere::read(&pack) {
        Ok(elsewhere) if !whole(&pack) => bail!(
            "{} lacks what is made of {}, which is fetched and not shipped. Run `cargo xtask model smol` in the checkout, or give the folder of a whole pack.",
            pack.display(),
            elsewhere.file
        ),
        _ => Ok(pack),
    }
}

/// Whether all shards exist. True for a folder that is no pack: opening it reports the error.
fn whole(pack: &Path) -> bool {
    let shards = PackReader::open(pack).map(|reader| reader.manifest().shards.clone());
    shards.is_ok_and(|shards| shards.iter().all(|shard| pack.join(&shard.file).is_file()))
}

fn located(model: &Path) -> Result<PathBuf> {
    let named = NAMES.iter().any(|name| model == Path::new(name));
    if !named || model.exists() {
        return Ok(model.to_owned());
    }
    let here = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    match find(here.iter().chain(&program).map(PathBuf::as_path)) {
        Some(pack) => Ok(pack),
        None => bail!(
            "emu-smol is not here. It belongs to the checkout of the project: run the program there, or give the folder of a pack."
        ),
    }
}

/// The pack in the nearest ancestor folder of one of `places` that contains it.
fn find<'a>(places: impl Iterator<Item = &'a Path>) -> Option<PathBuf> {
    let roots = places.flat_map(Path::ancestors);
    let mut packs = roots.map(|root| root.join(PACK));
    packs.find(|pack| pack.join(MANIFEST_FILE).is_file())
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
        std::fs::write(pack.join(MANIFEST_FILE), "{}").expect("written");
        assert_eq!(find(places()), Some(pack));
    }

    #[test]
    fn paths_stay_as_they_are() {
        for path in ["models/emu-mini", "smol.gguf", "./smol/x"] {
            assert_eq!(resolve(Path::new(path)).expect("a path"), Path::new(path));
        }
    }
}
