//! Archives of folders, checksums and sizes of files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command;

/// Name of the file with the checksums.
pub const SUMS: &str = "SHA256SUMS";
/// Prints a line in the format of sha256sum for each file.
const SCRIPT: &str = "const { createHash } = require('crypto'); const { readFileSync } = require('fs');\
    for (const file of process.argv.slice(1)) \
    console.log(createHash('sha256').update(readFileSync(file)).digest('hex') + '  ' + file)";

/// Packs the folder `name` in `place` as `files/<name>.tar.gz`.
///
/// # Errors
/// If `tar` fails. It is part of Linux, macOS and Windows.
pub fn pack(place: &Path, name: &str, files: &Path) -> Result<()> {
    let archive = format!("{name}.tar.gz");
    let mut tar = command::new("tar", place);
    // Names without a path: GNU's tar takes what stands before a colon for another machine's name.
    if !command::succeeds(tar.args(["-czf", &archive, name]))? {
        bail!("tar could not pack {name}; its message is above");
    }
    let (from, to) = (place.join(&archive), files.join(&archive));
    fs::rename(&from, &to).with_context(|| format!("{} cannot be written", to.display()))
}

/// Names and sizes of the files in a folder, sorted.
pub fn listing(folder: &Path) -> Result<Vec<(String, u64)>> {
    let cannot = || format!("{} cannot be read", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let about = entry.metadata().with_context(cannot)?;
        if about.is_file() {
            files.push((
                entry.file_name().to_string_lossy().into_owned(),
                about.len(),
            ));
        }
    }
    files.sort();
    Ok(files)
}

/// Writes the SHA-256 of every file in a folder into [`SUMS`], in the format of `sha256sum`.
///
/// # Errors
/// If there is no file, or Node fails.
pub fn sums(folder: &Path) -> Result<()> {
    let files = listing(folder)?;
    let names = files
        .iter()
        .map(|(name, _)| name)
        .filter(|name| *name != SUMS);
    let mut node = command::new("node", folder);
    node.args(["-e", SCRIPT, "--"]).args(names);
    if node.get_args().count() == 3 {
        bail!("{} is empty; make another part first", folder.display());
    }
    let text = command::capture(&mut node)?;
    let file = folder.join(SUMS);
    fs::write(&file, text).with_context(|| format!("{} cannot be written", file.display()))
}

/// Removes [`SUMS`] of an earlier run: the files have changed.
pub fn forget_sums(folder: &Path) -> Result<()> {
    let file = folder.join(SUMS);
    if file.exists() {
        fs::remove_file(&file).with_context(|| format!("{} is in the way", file.display()))?;
    }
    Ok(())
}

/// A size for people.
pub fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        1e6.. => format!("{:.1} MB", bytes / 1e6),
        1e3.. => format!("{:.1} kB", bytes / 1e3),
        _ => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_get_the_checksums_of_sha256sum() {
        if command::find("node").is_none() {
            println!("SKIP unit: no Node");
            return;
        }
        let place = tempfile::tempdir().expect("a folder");
        assert!(sums(place.path()).is_err());
        fs::write(place.path().join("-b c.txt"), "").expect("written");
        fs::write(place.path().join("a.txt"), "abc").expect("written");
        let expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  -b c.txt\n\
            ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a.txt\n";
        // The second time, the file of sums is there and is left out.
        for _ in 0..2 {
            sums(place.path()).expect("written");
            let text = fs::read_to_string(place.path().join(SUMS)).expect("there");
            assert_eq!(text, expected);
        }
        for _ in 0..2 {
            forget_sums(place.path()).expect("removed");
            assert!(!place.path().join(SUMS).exists());
        }
    }

    #[test]
    fn a_folder_is_packed_with_its_name() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path().join("emu-1.0.0");
        fs::create_dir_all(folder.join("deep")).expect("made");
        fs::write(folder.join("deep/a.txt"), "abc").expect("written");
        pack(place.path(), "emu-1.0.0", place.path()).expect("packed");
        let mut list = command::new("tar", place.path());
        let list = command::capture(list.args(["-tzf", "emu-1.0.0.tar.gz"])).expect("a list");
        assert!(
            list.lines().any(|line| line == "emu-1.0.0/deep/a.txt"),
            "{list}"
        );
        assert!(pack(place.path(), "absent", place.path()).is_err());
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1_500), "1.5 kB");
        assert_eq!(size(12_340_000), "12.3 MB");
    }
}
