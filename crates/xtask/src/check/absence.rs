//! Rules about words and paths that a crate's code must not contain.

use crate::check::Finding;
use crate::check::edges::PURE;
use crate::check::source::{Keep, line_of, lines_with_word, masked, test_modules, without_tests};
use crate::workspace::Tree;

/// Excluded from the search, because its sources contain the forbidden words.
const THIS_PROGRAM: &str = "crates/xtask/";

/// Only emu-web may mention JavaScript.
pub fn javascript(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, code) in code_outside(tree, &["crates/emu-web/", THIS_PROGRAM]) {
        for word in ["JsValue", "wasm_bindgen", "web_sys", "js_sys"] {
            for line in lines_with_word(&code, word) {
                findings.push(Finding::error(
                    format!("{path}:{line}"),
                    format!("mentions {word}; only emu-web knows JavaScript, so take and return plain Rust types here"),
                ));
            }
        }
    }
    findings
}

/// [`PURE`] packages take bytes and return values. What they must not use is in their `clippy.toml`, one text for all of them,
/// and only tests are exempt from it.
pub fn pure_packages(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let file = |package: &str| format!("crates/{package}/clippy.toml");
    let rules = |package: &str| {
        let path = file(package);
        let found = tree.texts(&path, "").find(|(found, _)| *found == path);
        found.map(|(_, text)| text.to_owned())
    };
    let first = rules(PURE[0]);
    for package in PURE {
        let message = match rules(package) {
            None => "has no rules; copy them from another package without files, network and clock",
            Some(text) if Some(&text) != first.as_ref() => {
                "differs from the rules of the other packages without files, network and clock; make them equal"
            }
            Some(_) => continue,
        };
        findings.push(Finding::error(file(package), message));
    }
    for package in PURE {
        let folder = format!("crates/{package}/src/");
        let tests = test_files(tree, &folder);
        for (path, text) in tree.texts(&folder, ".rs") {
            if is_test_file(path, &tests) {
                continue;
            }
            let code = without_test_attributes(&without_tests(&masked(text, Keep::Code)));
            for lint in [
                "disallowed_methods",
                "disallowed_types",
                "disallowed_macros",
            ] {
                for line in lines_with_word(&code, lint) {
                    findings.push(Finding::error(
                        format!("{path}:{line}"),
                        format!("allows {lint}; this package takes bytes and returns values, so let the caller do this"),
                    ));
                }
            }
        }
    }
    findings
}

/// The code with `cfg_attr(test, ..)` blanked.
fn without_test_attributes(code: &str) -> String {
    let blanked = |text: &str| -> String {
        let keep = |c| if c == '\n' { '\n' } else { ' ' };
        text.chars().map(keep).collect()
    };
    let mut out = code.to_owned();
    for (start, _) in code.match_indices("cfg_attr(") {
        let Some(length) = code[start..].find(")]") else {
            continue;
        };
        let attribute = &code[start..start + length];
        let condition = attribute.trim_start_matches("cfg_attr(").trim_start();
        if condition.starts_with("test,") {
            out.replace_range(start..start + length, &blanked(attribute));
        }
    }
    out
}

/// Only emu-kernels may include the sources in shaders/.
pub fn shader_readers(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts("", ".rs").filter(|(path, _)| {
        !path.starts_with("crates/emu-kernels/") && !path.starts_with(THIS_PROGRAM)
    }) {
        let source = masked(text, Keep::CodeAndStrings);
        for name in ["include_str!", "include_bytes!", "include_wgsl!"] {
            for (start, _) in source.match_indices(name) {
                let argument = source[start..].split(';').next().unwrap_or_default();
                if argument.contains("shaders/") || argument.contains(".wgsl") {
                    findings.push(Finding::error(
                        format!("{path}:{}", line_of(&source, start)),
                        "includes a shader; only emu-kernels reads shaders/, so call its operation",
                    ));
                }
            }
        }
    }
    findings
}

/// The Rust sources outside the folders in `except`, with comments and strings blanked.
fn code_outside<'a>(
    tree: &'a Tree,
    except: &'a [&'a str],
) -> impl Iterator<Item = (&'a str, String)> {
    tree.texts("", ".rs")
        .filter(move |(path, _)| !except.iter().any(|prefix| path.starts_with(prefix)))
        .map(|(path, text)| (path, masked(text, Keep::Code)))
}

/// Path prefixes of modules declared as `#[cfg(test)] mod name;` below `folder`.
pub fn test_files(tree: &Tree, folder: &str) -> Vec<String> {
    let mut prefixes = Vec::new();
    for (path, text) in tree.texts(folder, ".rs") {
        let stem = path.trim_end_matches(".rs");
        let parent = match stem.rsplit_once('/') {
            Some((parent, "lib" | "main" | "mod")) => parent,
            _ => stem,
        };
        prefixes.extend(
            test_modules(&masked(text, Keep::Code))
                .iter()
                .map(|name| format!("{parent}/{name}")),
        );
    }
    prefixes
}

/// Whether a file belongs to one of these test modules.
pub fn is_test_file(path: &str, tests: &[String]) -> bool {
    tests.iter().any(|prefix| {
        path.strip_prefix(prefix.as_str())
            .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn javascript_outside_emu_web_is_found() {
        let tree = Tree::planted(&[
            (
                "crates/emu-model/src/lib.rs",
                "// JsValue in a comment is fine\nuse wasm_bindgen::prelude::*;",
            ),
            ("crates/emu-web/src/lib.rs", "use wasm_bindgen::JsValue;"),
        ]);
        let findings = javascript(&tree);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].place, "crates/emu-model/src/lib.rs:2");
    }

    const RULES: &str = "disallowed-types = []\n";

    fn pure(files: &[(&str, &str)]) -> Vec<Finding> {
        let paths: Vec<String> = { PURE.iter() }
            .map(|package| format!("crates/{package}/clippy.toml"))
            .collect();
        let mut all: Vec<(&str, &str)> = paths.iter().map(|path| (path.as_str(), RULES)).collect();
        all.retain(|(path, _)| files.iter().all(|(other, _)| other != path));
        all.extend(files.iter().filter(|(_, text)| !text.is_empty()));
        pure_packages(&Tree::planted(&all))
    }

    #[test]
    fn a_pure_package_has_the_rules_of_the_others() {
        assert_eq!(pure(&[]), []);
        let other = "disallowed-types = [\"std::fs::File\"]\n";
        for (package, count) in [(PURE[0], PURE.len() - 1), (PURE[1], 1), (PURE[2], 1)] {
            let path = format!("crates/{package}/clippy.toml");
            assert_eq!(pure(&[(&path, other)]).len(), count, "{package}");
        }
        // A missing file.
        let found = pure(&[("crates/emu-tokenizer/clippy.toml", "")]);
        assert!(found.len() == 1 && found[0].message.contains("has no rules"));
    }

    #[test]
    fn only_tests_of_a_pure_package_are_exempt_from_its_rules() {
        let lib = "crates/emu-model/src/lib.rs";
        for fine in [
            "#![cfg_attr(\n    test,\n    allow(\n        clippy::disallowed_methods,\n        clippy::disallowed_types\n    )\n)]",
            "#[cfg(test)]\n#[allow(clippy::disallowed_methods)]\nmod tests {}",
            "// clippy::disallowed_methods",
        ] {
            assert_eq!(pure(&[(lib, fine)]), [], "{fine}");
        }
        for planted in [
            "#![allow(clippy::disallowed_methods)]",
            "#[allow(clippy::disallowed_types)]\nfn f() {}",
            "#![cfg_attr(unix, allow(clippy::disallowed_macros))]",
        ] {
            assert_eq!(pure(&[(lib, planted)]).len(), 1, "{planted}");
            assert_eq!(pure(&[("crates/emu-train/src/lib.rs", planted)]), []);
        }
    }

    #[test]
    fn a_shader_read_elsewhere_is_found() {
        let tree = Tree::planted(&[
            (
                "crates/emu-model/src/lm.rs",
                "const S: &str =\n    include_str!(\"../../../shaders/norm/rms_norm.wgsl\");",
            ),
            (
                "crates/emu-kernels/src/lib.rs",
                "const S: &str = include_str!(\"../../../shaders/norm/rms_norm.wgsl\");",
            ),
            (
                "crates/emu-model/src/config.rs",
                "const C: &str = include_str!(\"presets.toml\");",
            ),
        ]);
        let findings = shader_readers(&tree);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].place, "crates/emu-model/src/lm.rs:2");
    }
}
