//! The workflows in `.github/workflows` call only commands that exist.

use super::command;
use crate::workspace::{Tree, Workspace};

const WORKFLOWS: &str = ".github/workflows/";
const XTASK: &str = "cargo xtask ";

/// What is wrong with the workflows: a sentence each.
fn problems(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in tree.texts(WORKFLOWS, ".yml") {
        let mut say = |line: usize, what: &str| problems.push(format!("{path}:{line}: {what}"));
        for key in ["name:", "on:", "permissions:", "jobs:"] {
            if !text.lines().any(|line| line.starts_with(key)) {
                say(1, &format!("no {key} at the top level"));
            }
        }
        for (index, line) in text.lines().enumerate() {
            let (number, code) = (index + 1, line.trim_start());
            let indent = line.len() - code.len();
            if line.contains('\t') || indent % 2 == 1 {
                say(number, "indented by something else than pairs of spaces");
            }
            if code.starts_with('#') {
                continue;
            }
            for call in calls(code) {
                let words = std::iter::once("xtask").chain(call.split_whitespace());
                if let Err(error) = command().try_get_matches_from(words) {
                    say(number, &format!("{XTASK}{call}: {}", error.kind()));
                }
            }
            if let Some(action) = code.trim_start_matches("- ").strip_prefix("uses: ") {
                // A tag can be moved to other code.
                let (_, commit) = action.split_once('@').unwrap_or_default();
                let hash = commit.split(' ').next().unwrap_or_default();
                if hash.len() != 40 || !commit.contains(" # v") {
                    say(
                        number,
                        "an action without the hash of a commit and its version",
                    );
                }
            }
            for script in code
                .split_whitespace()
                .filter(|word| word.starts_with(".ci/"))
            {
                if !tree.has(script) {
                    say(number, &format!("{script} does not exist"));
                }
            }
        }
    }
    problems
}

/// Arguments of each `cargo xtask` in a line. An expression counts as a value after an option, and as nothing elsewhere.
fn calls(code: &str) -> Vec<String> {
    let mut calls = Vec::new();
    for call in code.split(XTASK).skip(1) {
        let call = call.split(['&', '|', ';', '"']).next().unwrap_or_default();
        let mut parts = call.split("${{");
        let mut whole = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let option = whole.split_whitespace().next_back();
            if option.is_some_and(|word| word.starts_with("--")) {
                whole += "value";
            }
            whole += part.split_once("}}").map_or("", |(_, rest)| rest);
        }
        calls.push(whole.trim().to_owned());
    }
    calls
}

#[test]
fn the_workflows_call_what_exists() {
    let tree = Workspace::find().and_then(|workspace| workspace.tree());
    let tree = tree.expect("the files of this checkout");
    assert_eq!(problems(&tree), Vec::<String>::new());
    // They are there, and their calls are found.
    for (file, wanted) in [("ci.yml", "--skip"), ("release.yml", "--only")] {
        let path = format!("{WORKFLOWS}{file}");
        let (_, text) = tree.texts(&path, "").next().expect(file);
        let found: Vec<String> = text.lines().flat_map(calls).collect();
        assert!(found.iter().any(|call| call.contains(wanted)), "{found:?}");
    }
    let (_, ci) = tree
        .texts(".github/workflows/ci.yml", "")
        .next()
        .expect("ci.yml");
    assert!(ci.contains("run: .ci/run"));
}

#[test]
fn a_planted_mistake_is_found() {
    const GOOD: &str = "name: a\non: push\npermissions: {}\njobs:\n  b:\n    steps:\n      - run: cargo xtask release ${{ env.X }} --only npm --target ${{ matrix.t }} && cargo xtask docs\n";
    let found = |text: &str| problems(&Tree::planted(&[(".github/workflows/a.yml", text)]));
    assert_eq!(found(GOOD), Vec::<String>::new());
    let hash = "0123456789012345678901234567890123456789";
    assert!(found(&format!("{GOOD}      - uses: a/b@{hash} # v1.0.0\n")).is_empty());
    for mistake in [
        "      - run: cargo xtask dance\n",
        "      - run: cargo xtask docs && cargo xtask release --only cake\n",
        "      - run: cargo xtask release --dry-runs\n",
        "      - run: .ci/walk\n",
        "      - uses: a/b@v1\n",
        "     - run: true\n",
        "\t- run: true\n",
    ] {
        assert_eq!(found(&format!("{GOOD}{mistake}")).len(), 1, "{mistake}");
    }
    assert_eq!(found(&GOOD.replace("permissions: {}\n", "")).len(), 1);
}
