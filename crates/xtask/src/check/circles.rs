//! Import cycles between modules. In a cycle, no module can be read first.
//!
//! A module is a file. It imports another module if its non-test code contains a path into it, in a `use` or elsewhere. A
//! name that a module re-exports (`pub use`) counts for the module that defines it.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::Finding;
use crate::check::absence::{is_test_file, test_files};
use crate::check::source::{Keep, grouped_paths, masked, without_tests};
use crate::workspace::Tree;

/// A module's path within its crate, without `crate`.
type Path = Vec<String>;

/// Contents of a module.
#[derive(Default)]
struct Module {
    file: String,
    code: String,
    /// Re-exported names and their target paths; the name `*` for glob re-exports.
    handed_on: Vec<(String, Path)>,
}

/// Crates where a cycle is an error. In other crates it is a warning.
const CLEAN: &[&str] = &[
    "crates/emu-kernels",
    "crates/emu-pack",
    "crates/emu-train",
    "crates/xtask",
];

/// Finds import cycles within each crate, one finding per cycle.
pub fn modules(tree: &Tree) -> Vec<Finding> {
    let crates: BTreeSet<&str> = tree
        .texts("crates/", ".rs")
        .filter_map(|(path, _)| Some(path.split_once("/src/")?.0))
        .collect();
    let mut findings = Vec::new();
    for name in crates {
        let modules = read(tree, &format!("{name}/src/"));
        for circle in circles(&imports(&modules)) {
            let files: Vec<&str> = circle
                .iter()
                .map(|path| modules[path].file.as_str())
                .collect();
            let told = match CLEAN.contains(&name) {
                true => Finding::error,
                false => Finding::warning,
            };
            findings.push(told(
                files[0],
                format!(
                    "{} modules import each other in a circle: {}; move what they share to one that imports none of them",
                    files.len(),
                    files.join(", ")
                ),
            ));
        }
    }
    findings
}

/// Reads the modules of a crate. Programs in `src/bin` are separate crates.
fn read(tree: &Tree, source: &str) -> BTreeMap<Path, Module> {
    let mut modules = BTreeMap::new();
    let tests = test_files(tree, source);
    for (file, text) in tree.texts(source, ".rs") {
        let inner = &file[source.len()..file.len() - ".rs".len()];
        if inner.starts_with("bin/") || is_test_file(file, &tests) {
            continue;
        }
        let mut path: Path = inner.split('/').map(String::from).collect();
        let last = path.last().map(String::as_str);
        if matches!(last, Some("mod" | "lib" | "main")) {
            path.pop();
        }
        let code = masked(text, Keep::Code);
        let module = Module {
            file: file.to_owned(),
            code: without_tests(&code),
            handed_on: vec![],
        };
        modules.insert(path, module);
    }
    let named = |path: &Path| path.last().is_some_and(|name| name.ends_with("tests"));
    modules.retain(|path, _| !named(path));
    let paths: BTreeSet<Path> = modules.keys().cloned().collect();
    for (path, module) in &mut modules {
        let uses = exports(&module.code);
        for (used, name) in uses {
            if let Some(used) = absolute(&used, path, &paths) {
                module.handed_on.push((name, used));
            }
        }
    }
    modules
}

/// Target paths and exported names of all `pub use` statements.
fn exports(code: &str) -> Vec<(Path, String)> {
    let mut found = Vec::new();
    for statement in code.split(';') {
        let Some(at) = statement.find("pub") else {
            continue;
        };
        let Some(used) = statement[at..]
            .find("use ")
            .map(|i| &statement[at + i + 4..])
        else {
            continue;
        };
        // Between `pub` and `use` only a visibility scope is allowed: `(crate)`, `(super)`, `(in ..)`.
        let between = &statement[at + 3..statement.len() - used.len() - 4];
        if !between.trim().is_empty() && !between.trim().starts_with('(') {
            continue;
        }
        grouped_paths(used.trim(), &mut |path, name| {
            let path: Path = path.split("::").map(String::from).collect();
            found.push((path, name.to_owned()));
        });
    }
    found
}

/// Resolves a path used in module `from` to a path in the crate; `None` if it leaves the crate.
fn absolute(path: &[String], from: &Path, modules: &BTreeSet<Path>) -> Option<Path> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([from.as_slice(), rest].concat()),
        "super" => {
            let (_, parent) = from.split_last()?;
            let supers = rest.iter().take_while(|part| *part == "super").count();
            let parent = parent.get(..parent.len().checked_sub(supers)?)?;
            Some([parent, &rest[supers..]].concat())
        }
        _ => {
            let child = [from.as_slice(), std::slice::from_ref(first)].concat();
            modules
                .contains(&child)
                .then(|| [child, rest.to_vec()].concat())
        }
    }
}

/// The module that defines the target of a path in the crate. Follows re-exports.
fn home(path: &Path, modules: &BTreeMap<Path, Module>, hops: usize) -> Option<Path> {
    let inner = (0..=path.len())
        .rev()
        .find(|n| modules.contains_key(&path[..*n]))?;
    let module = path[..inner].to_vec();
    let Some(name) = path.get(inner).filter(|_| hops > 0) else {
        return Some(module);
    };
    let named = modules[&module]
        .handed_on
        .iter()
        .find(|(handed, _)| handed == name);
    if let Some((_, origin)) = named {
        return home(origin, modules, hops - 1);
    }
    Some(module)
}

/// The imported modules of each module.
fn imports(modules: &BTreeMap<Path, Module>) -> BTreeMap<Path, BTreeSet<Path>> {
    let paths: BTreeSet<Path> = modules.keys().cloned().collect();
    let mut found = BTreeMap::new();
    for (path, module) in modules {
        let code = without_exports(&module.code);
        let mut to = BTreeSet::new();
        let bytes = code.as_bytes();
        for (at, _) in code.match_indices("::") {
            let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            let start = (0..at)
                .rev()
                .find(|i| !word(bytes[*i]))
                .map_or(0, |i| i + 1);
            // A path starts only where no `::` precedes it.
            if start == at || code[..start].ends_with("::") {
                continue;
            }
            let end = path_end(&code[start..]);
            grouped_paths(&code[start..start + end], &mut |used, _| {
                let used: Path = used.split("::").map(String::from).collect();
                let leads = absolute(&used, path, &paths);
                let home = leads.and_then(|used| home(&used, modules, 8));
                to.extend(home.filter(|home| home != path));
            });
        }
        found.insert(path.clone(), to);
    }
    found
}

/// End of the path or use tree at the start of `text`.
fn path_end(text: &str) -> usize {
    let mut depth = 0usize;
    for (i, c) in text.char_indices() {
        match c {
            '{' if depth > 0 || text[..i].ends_with("::") => depth += 1,
            '}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    return i + 1;
                }
            }
            c if depth > 0 || c.is_alphanumeric() || c == '_' || c == ':' => {}
            _ => return i,
        }
    }
    text.len()
}

/// The code without `pub use` statements: a re-export is not a use.
fn without_exports(code: &str) -> String {
    let parts = code.split_inclusive(';').map(|statement| {
        let start = statement
            .rfind("pub")
            .filter(|at| !exports(&statement[*at..]).is_empty());
        start.map_or(statement, |at| &statement[..at])
    });
    parts.collect()
}

/// Groups of modules that import each other, each group sorted.
fn circles(imports: &BTreeMap<Path, BTreeSet<Path>>) -> Vec<Vec<Path>> {
    let reach = |from: &Path| -> BTreeSet<Path> {
        let (mut seen, mut left) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(path) = left.pop() {
            for next in imports.get(&path).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    left.push(next.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&Path, BTreeSet<Path>> = imports.keys().map(|p| (p, reach(p))).collect();
    let mut found: BTreeSet<Vec<Path>> = BTreeSet::new();
    for (path, seen) in &reached {
        if seen.contains(*path) {
            let back = |other: &&Path| seen.contains(*other) && reached[*other].contains(*path);
            found.insert(reached.keys().copied().filter(back).cloned().collect());
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let findings = modules(&Tree::planted(files));
        findings
            .into_iter()
            .map(|finding| finding.message)
            .collect()
    }

    #[test]
    fn a_circle_is_found_whatever_its_paths_look_like() {
        for [a, b] in [
            ["use crate::b::B;", "use super::a::{A, C};"],
            ["fn f() { crate::b::g(); }", "use crate::{a::A, c};"],
            [
                "use super::b;\nfn f() { b::g() }",
                "use crate::a;\nfn g() { a::f() }",
            ],
        ] {
            let found = found(&[
                ("crates/x/src/lib.rs", "mod a;\nmod b;\nmod c;"),
                ("crates/x/src/a.rs", a),
                ("crates/x/src/b.rs", b),
                ("crates/x/src/c.rs", "pub fn x() {}"),
            ]);
            assert_eq!(found.len(), 1, "{a} {b}");
            assert!(
                found[0].starts_with("2 modules")
                    && found[0].contains("src/a.rs, crates/x/src/b.rs")
            );
        }
    }

    #[test]
    fn what_is_handed_on_counts_where_it_comes_from() {
        let house = |child: &str| {
            found(&[
                (
                    "crates/x/src/lib.rs",
                    "pub mod ops;\nmod cpu;\npub use ops::f;",
                ),
                (
                    "crates/x/src/ops/mod.rs",
                    "mod norm;\npub use norm::{\n    f,\n    g as h,\n};\nfn fold() {}",
                ),
                ("crates/x/src/ops/norm.rs", child),
                ("crates/x/src/cpu.rs", "use crate::ops::h;"),
            ])
        };
        // A parent that re-exports its child, and a child that uses the parent's helper, are no cycle.
        assert_eq!(
            house("use super::fold;\npub fn f() {}"),
            Vec::<String>::new()
        );
        let circle = house("use crate::cpu::x;\npub fn f() {}");
        assert!(
            circle[0].contains("cpu.rs")
                && circle[0].contains("norm.rs")
                && !circle[0].contains("mod.rs")
        );
    }

    #[test]
    fn tests_and_other_crates_are_no_imports() {
        let found = found(&[
            ("crates/x/src/lib.rs", "mod a;\nmod b;"),
            (
                "crates/x/src/a.rs",
                "use y::b::B;\n#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}",
            ),
            (
                "crates/x/src/b.rs",
                "use crate::a::A;\n// crate::b\nconst S: &str = \"crate::b\";",
            ),
            ("crates/x/src/b/more_tests.rs", "use crate::a::A;"),
        ]);
        assert_eq!(found, Vec::<String>::new());
    }
}
