//! The files and folders that a recipe names.

use std::path::Path;

use anyhow::{Result, bail};

/// Checks that a component exists. Components are published elsewhere or trained first; `how` says how to get them.
pub(super) fn there<'a>(path: &'a Path, how: &str) -> Result<&'a Path> {
    match path.exists() {
        true => Ok(path),
        false => bail!("{} is not there. {how}", path.display()),
    }
}
