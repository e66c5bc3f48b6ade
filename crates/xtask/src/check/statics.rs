//! No state that two models share: a `static` or thread-local holds what two models of one process would have in common. Each
//! must be listed here, with the reason why it belongs to the process, to a thread or to a scope.

use crate::check::Finding;
use crate::check::absence::{is_test_file, test_files};
use crate::check::source::{Keep, line_of, masked, without_tests};
use crate::workspace::Tree;

/// A static that is allowed.
struct Allowed {
    path: &'static str,
    name: &'static str,
    /// Why no model, session or device of several can own it.
    reason: &'static str,
}

const fn allowed(path: &'static str, name: &'static str, reason: &'static str) -> Allowed {
    Allowed { path, name, reason }
}

const ALLOWED: &[Allowed] = &[
    allowed(
        "crates/emu-cli/src/fault.rs",
        "TOLD",
        "a process has one panic hook and one terminal",
    ),
    allowed(
        "crates/emu-cli/src/signals.rs",
        "FLAG",
        "a process has one handler of signals",
    ),
    allowed(
        "crates/emu-hub/src/disk.rs",
        "COUNT",
        "numbers of temporary files are unique in a process",
    ),
    allowed(
        "crates/emu-kernels/src/count.rs",
        "OPEN",
        "which meters have a scope open on this thread; counts belong to the meters",
    ),
    allowed(
        "crates/emu-kernels/src/cpu/thread_pool.rs",
        "WORKERS",
        "a machine has one set of processors; a second pool would compete for them",
    ),
    allowed(
        "crates/emu-kernels/src/device.rs",
        "OPENED",
        "Burn registers one wgpu device per process",
    ),
    allowed(
        "crates/emu-kernels/src/init.rs",
        "OPEN",
        "which sequence of initial values is open on this thread",
    ),
    allowed(
        "crates/emu-kernels/src/readback.rs",
        "ABANDONED",
        "copies that the one device of a WASM module has not ended",
    ),
    allowed(
        "crates/emu-kernels/src/throttle.rs",
        "OPEN",
        "which scope is open on this thread; counts belong to the scope",
    ),
    allowed(
        "crates/emu-kernels/src/variants.rs",
        "OPENED",
        "features of the one wgpu device of the process",
    ),
    allowed(
        "crates/emu-kernels/src/variants.rs",
        "OPEN",
        "which variants a scope of this thread forces",
    ),
    allowed(
        "crates/emu-tokenizer/src/fuzzing.rs",
        "SAMPLE",
        "a constant of fuzz targets that takes time to build",
    ),
    allowed(
        "crates/emu-web/src/engine.rs",
        "DEVICE",
        "a WASM module has one device",
    ),
    allowed(
        "crates/emu-web/src/lib.rs",
        "ON_PANIC",
        "a WASM module has one panic hook",
    ),
];

/// Finds statics that are not listed, and listed ones that are gone.
pub fn shared_state(tree: &Tree) -> Vec<Finding> {
    findings(tree, ALLOWED)
}

fn findings(tree: &Tree, allowed: &[Allowed]) -> Vec<Finding> {
    let tests = test_files(tree, "crates/");
    let mut findings = Vec::new();
    let mut found = Vec::new();
    let sources = tree
        .texts("crates/", ".rs")
        .filter(|(path, _)| path.contains("/src/") && !is_test_file(path, &tests));
    for (path, text) in sources {
        let code = without_tests(&masked(text, Keep::Code));
        for (line, name) in statics(&code) {
            if !allowed.iter().any(|a| a.path == path && a.name == name) {
                findings.push(Finding::error(
                    format!("{path}:{line}"),
                    format!(
                        "`static {name}` is shared by all models of a process; make it a field of the context that owns it, or list it with its reason in crates/xtask/src/check/statics.rs"
                    ),
                ));
            }
            found.push((path, name));
        }
    }
    for Allowed { path, name, reason } in allowed {
        if !found.iter().any(|(p, n)| p == path && n == name) {
            findings.push(Finding::error(
                *path,
                format!(
                    "has no `static {name}` ({reason}), which crates/xtask/src/check/statics.rs lists; remove it there"
                ),
            ));
        }
    }
    findings
}

/// Line and name of every `static` item, in functions and `thread_local!` too.
fn statics(code: &str) -> Vec<(usize, String)> {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut items = Vec::new();
    for (start, word) in code.match_indices("static") {
        let before = code[..start].chars().next_back().unwrap_or(' ');
        // Lifetimes and longer words are none.
        if before == '\'' || in_word(before) {
            continue;
        }
        let rest = &code[start + word.len()..];
        let item = rest.trim_start();
        if item.len() == rest.len() {
            continue;
        }
        let item = item.strip_prefix("mut ").unwrap_or(item).trim_start();
        let name: String = item.chars().take_while(|&c| in_word(c)).collect();
        let is_item = item[name.len()..].trim_start().starts_with(':');
        if is_item && !name.is_empty() {
            items.push((line_of(code, start), name));
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &[Allowed] = &[allowed("crates/a/src/lib.rs", "LISTED", "a reason")];
    const USED: &str = "static LISTED: u8 = 0;\n";

    #[test]
    fn a_planted_static_is_found() {
        for planted in [
            "static COUNTS: AtomicU64 = AtomicU64::new(0);",
            "pub static mut COUNTS: u64 = 0;",
            "thread_local! {\n    static COUNTS: Cell<u64> = const { Cell::new(0) };\n}",
            "fn f() { static COUNTS: OnceLock<u64> = OnceLock::new(); }",
            "static COUNTS : LazyLock<u64> = LazyLock::new(f);",
        ] {
            let text = format!("{USED}{planted}");
            let tree = Tree::planted(&[("crates/a/src/lib.rs", &text)]);
            let found = findings(&tree, LISTED);
            assert_eq!(found.len(), 1, "{planted}: {found:?}");
            assert!(found[0].message.contains("`static COUNTS`"), "{found:?}");
        }
    }

    #[test]
    fn lifetimes_words_tests_and_comments_are_not() {
        let text = format!(
            "{USED}// static A: u8\nfn f(x: &'static str) {{ let statics: u8 = 0; let s = \"static B: u8\"; }}\n\
             #[cfg(test)]\nmod tests {{ static C: u8 = 0; }}\n#[cfg(test)]\nmod counted;\n"
        );
        let tree = Tree::planted(&[
            ("crates/a/src/lib.rs", &text),
            ("crates/a/src/counted.rs", "static D: u8 = 0;"),
            ("crates/a/tests/memory.rs", "static E: u8 = 0;"),
        ]);
        assert_eq!(findings(&tree, LISTED), []);
    }

    #[test]
    fn a_listed_static_that_is_gone_is_found() {
        let tree = Tree::planted(&[("crates/b/src/lib.rs", USED)]);
        let places: Vec<_> = { findings(&tree, LISTED).into_iter() }
            .map(|finding| finding.place)
            .collect();
        assert_eq!(places, ["crates/b/src/lib.rs:1", "crates/a/src/lib.rs"]);
    }
}
