//! The licence texts of the crates in a program, which most licences require beside a copy.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::release::graph::Crate;

/// First letters of the files that hold a licence or a notice.
const FILES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"];
const LINE: &str =
    "--------------------------------------------------------------------------------";

/// One text with the licences of all published crates: a list of crates, then each text once with the crates that have it.
///
/// # Errors
/// If the source of a crate cannot be read.
pub fn notices(crates: &[Crate]) -> Result<String> {
    let mut whole =
        String::from("Licences of the libraries in this program and in the WASM modules.\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in crates.iter().filter(|one| one.is_published) {
        let name = format!("{} {}", one.name, one.version);
        let licence = one.licence.as_deref().unwrap_or("see its text below");
        whole += &format!("{name}: {licence}\n");
        for text in licences(&one.folder)? {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    for (text, names) in &texts {
        whole += &format!("\n{LINE}\n{}\n\n{text}\n", names.join(", "));
    }
    Ok(whole)
}

/// The texts in a crate's folder.
fn licences(folder: &Path) -> Result<Vec<String>> {
    let cannot = || {
        format!(
            "{} cannot be read; run cargo fetch --locked",
            folder.display()
        )
    };
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_uppercase();
        if path.is_file() && FILES.iter().any(|start| name.starts_with(start)) {
            // Some are in Latin-1.
            let text = fs::read(&path).with_context(cannot)?;
            let text = String::from_utf8_lossy(&text).replace("\r\n", "\n");
            texts.push(text.trim().to_owned());
        }
    }
    texts.sort();
    texts.dedup();
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_stands_once_with_all_that_have_it() {
        let place = tempfile::tempdir().expect("a folder");
        let one = |name: &str, is_published: bool, files: &[(&str, &str)]| {
            let folder = place.path().join(name);
            fs::create_dir_all(&folder).expect("made");
            for (file, text) in files {
                fs::write(folder.join(file), text).expect("written");
            }
            Crate {
                name: name.into(),
                version: "1.0.0".into(),
                licence: Some("MIT".into()),
                folder,
                is_published,
                dependencies: vec![],
            }
        };
        let crates = [
            one(
                "a",
                true,
                &[("LICENSE-MIT", "Same\r\ntext\n"), ("src.rs", "code")],
            ),
            one(
                "b",
                true,
                &[("license.txt", "Same\ntext"), ("NOTICE", "More")],
            ),
            one("own", false, &[("LICENSE", "Ours")]),
        ];
        let text = notices(&crates).expect("a text");
        assert!(text.contains("a 1.0.0: MIT\nb 1.0.0: MIT\n"), "{text}");
        assert!(text.contains("a 1.0.0, b 1.0.0\n\nSame\ntext\n"), "{text}");
        assert_eq!(text.matches("Same").count(), 1);
        assert!(text.contains("b 1.0.0\n\nMore\n"), "{text}");
        assert!(!text.contains("code") && !text.contains("Ours"), "{text}");
        let gone = Crate {
            folder: place.path().join("gone"),
            ..crates[0].clone()
        };
        assert!(notices(&[gone]).is_err());
    }
}
