//! Cache key of a conversion, so that an interrupted conversion can resume.

use std::fmt::Write;
use std::path::Path;
use std::time::UNIX_EPOCH;

use emu_pack::convert::{PackMeta, Policy};

/// A text that is equal exactly if the same version converts the same files in the same way.
///
/// Files are identified by path, length and modification time. Hashing them would take as long as converting them.
pub fn key<'a>(
    meta: &PackMeta,
    policy: &Policy,
    max_shard: u64,
    sources: impl IntoIterator<Item = &'a Path>,
) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut key = format!("{version} {max_shard} {policy:?} {meta:?}");
    for source in sources {
        // For a sharded checkpoint only the index is known here, so all files in its folder count.
        let folder = match source.is_dir() {
            true => source,
            false => source.parent().unwrap_or(source),
        };
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<String> = entries
            .filter_map(|entry| {
                let data = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
                let changed = data.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
                let path = entry.path();
                Some(format!("{} {} {changed:?}", path.display(), data.len()))
            })
            .collect();
        files.sort();
        let _ = write!(key, "\n{}: {files:?}", source.display());
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_result_changes_the_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("model.pt");
        std::fs::write(&file, "weights").expect("written");
        let policy = |name: &str| super::super::presets::policy(name).expect("a policy");
        let meta = |name: &str| PackMeta {
            name: name.into(),
            ..Default::default()
        };
        let of = |name: &str, quantize: &str, shard: u64| {
            key(&meta(name), &policy(quantize), shard, [file.as_path()])
        };
        let first = of("a", "q4", 9);
        assert_eq!(of("a", "q4", 9), first);
        assert_ne!(of("b", "q4", 9), first);
        assert_ne!(of("a", "q8", 9), first);
        assert_ne!(of("a", "q4", 8), first);
        std::fs::write(&file, "other weights").expect("written");
        assert_ne!(of("a", "q4", 9), first);
    }
}
