//! Size limits.

use crate::check::Finding;
use crate::workspace::Tree;

/// A Rust file with more lines than this gets a warning.
const LINES_WARNING: usize = 600;
/// A Rust file with more lines than this must be split.
const LINES_ERROR: usize = 900;
/// Maximum size of the test fixtures, which are part of every clone.
const FIXTURE_BYTES: u64 = 20_000_000;
/// Maximum size of a shipped model.
const MODEL_BYTES: u64 = 40_000_000;

/// Finds Rust files that are too long.
pub fn rust_files(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts("", ".rs") {
        let lines = text.lines().count();
        if lines > LINES_ERROR {
            findings.push(Finding::error(
                path,
                format!("{lines} lines, the limit is {LINES_ERROR}; split it by topic"),
            ));
        } else if lines > LINES_WARNING {
            findings.push(Finding::warning(
                path,
                format!(
                    "{lines} lines; files above {LINES_WARNING} are hard to read in one sitting"
                ),
            ));
        }
    }
    findings
}

/// Finds fixtures and models that are too large for a clone.
pub fn data(tree: &Tree) -> Vec<Finding> {
    [
        ("tests/fixtures/", FIXTURE_BYTES),
        ("models/emu-mini/", MODEL_BYTES),
        ("models/emu-smol/", MODEL_BYTES),
    ]
        .into_iter()
        .filter_map(|(folder, limit)| {
            let bytes = tree.bytes_below(folder);
            (bytes > limit).then(|| Finding::error(folder, format!("{bytes} bytes, the limit is {limit}; every clone carries them, so make them smaller")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Severity;
    use crate::workspace::File;

    #[test]
    fn a_long_file_is_a_warning_and_a_longer_one_an_error() {
        let of = |lines: usize| {
            rust_files(&Tree::planted(&[(
                "crates/x/src/lib.rs",
                &"//\n".repeat(lines),
            )]))
        };
        assert_eq!(of(LINES_WARNING), []);
        assert_eq!(of(LINES_WARNING + 1)[0].severity, Severity::Warning);
        assert_eq!(of(LINES_ERROR + 1)[0].severity, Severity::Error);
    }

    #[test]
    fn heavy_fixtures_and_a_heavy_model_are_found() {
        let file = |path: &str, bytes| File {
            path: path.to_owned(),
            bytes,
            text: None,
        };
        let fine = Tree {
            files: vec![
                file("tests/fixtures/a.bin", FIXTURE_BYTES),
                file("models/emu-mini/lm.safetensors", MODEL_BYTES),
            ],
        };
        assert_eq!(data(&fine), []);
        let heavy = Tree {
            files: vec![
                file("tests/fixtures/a.bin", FIXTURE_BYTES),
                file("tests/fixtures/b.bin", 1),
            ],
        };
        assert_eq!(data(&heavy).len(), 1);
        let model = Tree {
            files: vec![file("models/emu-mini/lm.safetensors", MODEL_BYTES + 1)],
        };
        assert_eq!(data(&model).len(), 1);
    }
}
