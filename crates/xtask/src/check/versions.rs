//! One version: that of the workspace. Every other file that names it must agree.

use serde_json::Value;

use crate::check::Finding;
use crate::workspace::{Tree, version_in};

/// The file whose version counts.
const SOURCE: &str = "Cargo.toml";
const CHANGELOG: &str = "CHANGELOG.md";
/// JSON files, where they have the version, and what stands before it.
const JSON: &[(&str, &str, &str)] = &[
    ("web/package/package.json", "/version", ""),
    ("web/package/package-lock.json", "/version", ""),
    ("web/package/package-lock.json", "/packages//version", ""),
    ("web/mini/package.json", "/version", ""),
    ("web/mini/package.json", "/peerDependencies/emu-webgpu", "~"),
    ("web/smol/package.json", "/version", ""),
    ("web/smol/package.json", "/peerDependencies/emu-webgpu", "~"),
    (
        "web/package/examples/extension/manifest.json",
        "/version",
        "",
    ),
];
/// Scripts, and what stands before the quoted version.
const SCRIPTS: &[(&str, &str)] = &[
    ("web/package/src/version.ts", "export const VERSION = "),
    ("web/mini/index.js", "export const version = "),
    ("web/smol/index.js", "export const version = "),
];
/// Folder of the examples, which depend on the packages.
const EXAMPLES: &str = "web/package/examples/";
/// First letters of our packages' names.
const PACKAGE: &str = "emu-webgpu";

/// Finds files whose version differs from that of the workspace.
pub fn one_version(tree: &Tree) -> Vec<Finding> {
    let version = match text(tree, SOURCE).map(version_in) {
        Some(Ok(version)) => version,
        Some(Err(error)) => return vec![Finding::error(SOURCE, format!("{error:#}"))],
        None => return vec![absent(SOURCE)],
    };
    let mut findings = Vec::new();
    for &(path, pointer, prefix) in JSON {
        let wanted = format!("{prefix}{version}");
        match json(tree, path) {
            Ok(value) => {
                let found = value.pointer(pointer).and_then(Value::as_str);
                findings.extend(differs(path, pointer, found, &wanted));
            }
            Err(finding) => findings.push(finding),
        }
    }
    for &(path, before) in SCRIPTS {
        let Some(script) = text(tree, path) else {
            findings.push(absent(path));
            continue;
        };
        let found = { script.lines() }.find_map(|line| {
            line.strip_prefix(before)?
                .strip_prefix('"')?
                .split('"')
                .next()
        });
        findings.extend(differs(
            path,
            before.trim_end_matches(" = "),
            found,
            &version,
        ));
    }
    findings.extend(examples(tree, &version));
    findings.extend(changelog(tree, &version));
    findings
}

/// The examples' dependencies on our packages.
fn examples(tree: &Tree, version: &str) -> Vec<Finding> {
    let wanted = format!("^{version}");
    let mut findings = Vec::new();
    for (path, _) in tree.texts(EXAMPLES, "/package.json") {
        let value = match json(tree, path) {
            Ok(value) => value,
            Err(finding) => {
                findings.push(finding);
                continue;
            }
        };
        let dependencies = value["dependencies"].as_object().into_iter().flatten();
        for (name, range) in dependencies.filter(|(name, _)| name.starts_with(PACKAGE)) {
            findings.extend(differs(path, name, range.as_str(), &wanted));
        }
    }
    findings
}

/// The changelog's first section is that of the version, or what comes after it.
fn changelog(tree: &Tree, version: &str) -> Option<Finding> {
    let Some(log) = text(tree, CHANGELOG) else {
        return Some(absent(CHANGELOG));
    };
    let first = log.lines().find_map(|line| line.strip_prefix("## "));
    let good = first.is_some_and(|title| {
        title == "[Unreleased]" || title.starts_with(&format!("[{version}] - "))
    });
    (!good).then(|| {
        let first = first.unwrap_or("nothing");
        Finding::error(
            CHANGELOG,
            format!("begins with {first}, {SOURCE} has version {version}; begin it with [Unreleased] or [{version}] - DATE"),
        )
    })
}

fn differs(path: &str, place: &str, found: Option<&str>, wanted: &str) -> Option<Finding> {
    (found != Some(wanted)).then(|| {
        let found = found.unwrap_or("no version");
        Finding::error(
            path,
            format!("has {found} at {place}, {SOURCE} asks for {wanted}; correct one of them"),
        )
    })
}

fn text<'a>(tree: &'a Tree, path: &str) -> Option<&'a str> {
    let file = tree.files.iter().find(|file| file.path == path)?;
    file.text.as_deref()
}

fn json(tree: &Tree, path: &str) -> Result<Value, Finding> {
    let text = text(tree, path).ok_or_else(|| absent(path))?;
    serde_json::from_str(text)
        .map_err(|error| Finding::error(path, format!("is not JSON ({error}); mend it")))
}

fn absent(path: &str) -> Finding {
    Finding::error(
        path,
        "is missing, and has the version of a release; add it, or take it from check/versions.rs",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    /// The files of this checkout that have the version, with `file` changed.
    fn planted(file: &str, from: &str, to: &str) -> Vec<Finding> {
        let tree = Workspace::find().and_then(|workspace| workspace.tree());
        let tree = tree.expect("the files of this checkout");
        let texts: Vec<(&str, String)> = { tree.files.iter() }
            .filter_map(|known| {
                let text = known.text.as_deref()?;
                let changed = match known.path == file {
                    true => text.replacen(from, to, 1),
                    false => text.to_owned(),
                };
                assert!(
                    known.path != file || changed != text,
                    "{file} has no {from}"
                );
                Some((known.path.as_str(), changed))
            })
            .collect();
        let files: Vec<_> = { texts.iter() }
            .map(|(path, text)| (*path, text.as_str()))
            .collect();
        one_version(&Tree::planted(&files))
    }

    #[test]
    fn each_file_with_another_version_is_found() {
        let version = Workspace::find().and_then(|workspace| workspace.version());
        let version = version.expect("a version");
        let quoted = format!("\"{version}\"");
        let mut files: Vec<_> = { JSON.iter().map(|(path, ..)| *path) }
            .chain(SCRIPTS.iter().map(|(path, _)| *path))
            .collect();
        files.dedup();
        for file in files {
            let findings = planted(file, &quoted, "\"9.9.9\"");
            assert_eq!(findings.len(), 1, "{file}: {findings:?}");
            assert_eq!(findings[0].place, file);
        }
        let range = format!("\"~{version}\"");
        assert_eq!(
            planted("web/smol/package.json", &range, "\"~9.9.9\"").len(),
            1
        );
        let range = format!("\"^{version}\"");
        let example = "web/package/examples/vite/package.json";
        assert_eq!(planted(example, &range, "\"^9.9.9\"").len(), 1);
        assert!(planted(SOURCE, &quoted, "\"9.9.9\"").len() >= JSON.len());
    }

    #[test]
    fn the_changelog_begins_with_the_version_or_what_is_not_released() {
        let log = |text: &str| changelog(&Tree::planted(&[(CHANGELOG, text)]), "1.2.0");
        assert_eq!(
            log("# Changelog\n\n## [Unreleased]\n\n## [1.1.0] - 2026-01-01\n"),
            None
        );
        assert_eq!(log("# Changelog\n\n## [1.2.0] - 2026-02-01\n"), None);
        assert!(log("# Changelog\n\n## [1.1.0] - 2026-01-01\n").is_some());
        assert!(log("# Changelog\n").is_some());
        assert!(changelog(&Tree::planted(&[]), "1.2.0").is_some());
    }

    #[test]
    fn an_absent_or_broken_file_is_found() {
        let findings = one_version(&Tree::planted(&[(
            SOURCE,
            "[workspace.package]\nversion = \"1.2.0\"\n",
        )]));
        assert!(
            findings
                .iter()
                .any(|found| found.place == "web/mini/index.js")
        );
        assert_eq!(one_version(&Tree::planted(&[])).len(), 1);
        assert_eq!(one_version(&Tree::planted(&[(SOURCE, "[")])).len(), 1);
        assert!(json(&Tree::planted(&[("a.json", "{")]), "a.json").is_err());
    }
}
