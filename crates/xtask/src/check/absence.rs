//! Rules about words and paths that a crate's code must not contain.

use crate::check::Finding;
use crate::check::source::{
    Keep, line_of, lines_with_word, masked, std_paths, test_modules, without_tests,
};
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

/// emu-model takes bytes and returns tensors and events. It must not use files, network, clock, threads, processes or the
/// terminal.
pub fn outside_world(tree: &Tree) -> Vec<Finding> {
    const FORBIDDEN: &[&str] = &[
        "fs",
        "net",
        "thread",
        "process",
        "env",
        "time::Instant",
        "time::SystemTime",
    ];
    const MACROS: &[&str] = &["println!", "eprintln!", "print!", "eprint!", "dbg!"];
    let is_below = |path: &str, root: &str| {
        path == root
            || path
                .strip_prefix(root)
                .is_some_and(|rest| rest.starts_with("::"))
    };
    let mut findings = Vec::new();
    let tests = test_files(tree, "crates/emu-model/src/");
    for (path, text) in tree
        .texts("crates/emu-model/src/", ".rs")
        .filter(|(path, _)| !is_test_file(path, &tests))
    {
        let code = without_tests(&masked(text, Keep::Code));
        for (line, name) in std_paths(&code) {
            // Also `use std::time;`, because it allows `time::Instant` later.
            let forbidden = name == "time"
                || name == "time::self"
                || name == "time::*"
                || FORBIDDEN.iter().any(|root| is_below(&name, root));
            if forbidden {
                findings.push(Finding::error(
                    format!("{path}:{line}"),
                    format!("uses std::{name}; emu-model takes bytes and returns tensors and events, so let the caller do this"),
                ));
            }
        }
        for name in MACROS {
            for line in lines_with_word(&code, name) {
                findings.push(Finding::error(
                    format!("{path}:{line}"),
                    format!("{name} in emu-model; return an event, and let the caller print"),
                ));
            }
        }
    }
    findings
}

/// Only emu-cli and xtask may read the command line.
pub fn arguments(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, code) in code_outside(tree, &["crates/emu-cli/", THIS_PROGRAM]) {
        for (line, name) in std_paths(&without_tests(&code)) {
            if matches!(name.as_str(), "env::args" | "env::args_os") {
                findings.push(Finding::error(
                    format!("{path}:{line}"),
                    format!("uses std::{name}; only emu-cli knows argv, so take a parameter"),
                ));
            }
        }
    }
    findings
}

/// Only programs may exit the process, handle signals or check for a terminal.
pub fn process_ends(tree: &Tree) -> Vec<Finding> {
    const FORBIDDEN: &[(&str, &str)] = &[
        (
            "process::exit",
            "ends the process of whoever called; return an error",
        ),
        (
            "process::abort",
            "ends the process of whoever called; return an error",
        ),
        (
            "io::stdin",
            "reads the terminal; take what it should read as a parameter",
        ),
        (
            "io::IsTerminal",
            "asks for the terminal; let emu-cli decide what is shown",
        ),
    ];
    let mut findings = Vec::new();
    for (path, code) in code_outside(tree, &["crates/emu-cli/", THIS_PROGRAM, "tests/", "fuzz/"]) {
        let is_program = path.contains("/src/bin/") || path.ends_with("/src/main.rs");
        let is_test = path.contains("/tests/") || path.contains("/benches/");
        if is_program || is_test || path.ends_with("build.rs") {
            continue;
        }
        let code = without_tests(&code);
        let paths = std_paths(&code);
        for (name, why) in FORBIDDEN {
            let named = paths.iter().filter(|(_, path)| path == name);
            // Also finds uses after `use std::process;`.
            let mut lines = lines_with_word(&code, name);
            lines.extend(named.map(|(line, _)| line));
            lines.sort_unstable();
            lines.dedup();
            findings.extend(lines.into_iter().map(|line| {
                let message = format!("std::{name} in a library {why}");
                Finding::error(format!("{path}:{line}"), message)
            }));
        }
    }
    findings
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

    #[test]
    fn the_outside_world_in_emu_model_is_found() {
        for planted in [
            "use std::fs;",
            "use std::{fmt, net::TcpStream};",
            "fn f() { std::thread::spawn(|| ()); }",
            "use std::time::{Duration, Instant};",
            "use std::time;",
            "fn f() { println!(\"x\"); }",
        ] {
            let tree = Tree::planted(&[("crates/emu-model/src/lm.rs", planted)]);
            assert_eq!(outside_world(&tree).len(), 1, "{planted}");
        }
    }

    #[test]
    fn tests_of_emu_model_and_other_crates_may_touch_the_world() {
        let tree = Tree::planted(&[
            (
                "crates/emu-model/src/lib.rs",
                "use std::time::Duration;\n#[cfg(test)]\nmod fixtures;\n#[cfg(test)]\nmod tests { use std::fs; }",
            ),
            ("crates/emu-model/src/fixtures.rs", "use std::fs;"),
            ("crates/emu-train/src/lib.rs", "use std::fs;"),
        ]);
        assert_eq!(outside_world(&tree), []);
    }

    #[test]
    fn argv_outside_emu_cli_is_found() {
        let tree = Tree::planted(&[
            (
                "crates/emu-train/src/lib.rs",
                "fn f() { let _ = std::env::args(); }",
            ),
            (
                "crates/emu-cli/src/main.rs",
                "fn main() { let _ = std::env::args(); }",
            ),
        ]);
        assert_eq!(arguments(&tree).len(), 1);
    }

    #[test]
    fn a_library_that_ends_the_process_is_found() {
        let exit = "fn f() { std::process::exit(130); }";
        let grouped = "use std::{io::IsTerminal, process::{Command, exit}};";
        let tree = Tree::planted(&[
            ("crates/emu-train/src/stop.rs", exit),
            ("crates/emu-kernels/src/lib.rs", grouped),
            (
                "crates/emu-web/src/lib.rs",
                "use std::process;\nfn f() { process::abort() }",
            ),
            ("crates/emu-cli/src/signals.rs", exit),
            ("crates/emu-pack/src/bin/repack.rs", exit),
            (
                "crates/emu-pack/src/lib.rs",
                "#[cfg(test)]\nmod tests { fn f() { std::process::exit(1); } }",
            ),
            ("crates/emu-model/build.rs", exit),
        ]);
        let places: Vec<String> = process_ends(&tree)
            .into_iter()
            .map(|finding| finding.place)
            .collect();
        let kernels = "crates/emu-kernels/src/lib.rs:1";
        let expected = [
            "crates/emu-train/src/stop.rs:1",
            kernels,
            kernels,
            "crates/emu-web/src/lib.rs:2",
        ];
        assert_eq!(places, expected);
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
