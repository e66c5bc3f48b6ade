//! Files must not contain absolute paths of one machine.

use crate::check::Finding;
use crate::workspace::Tree;

/// Top-level folders specific to one machine. Written without slashes, so that this file does not match its own pattern.
const HOMES: &[&str] = &["root", "work"];
/// Parent folders of users' home directories.
const PARENTS_OF_HOMES: &[&str] = &["home", "Users"];

/// Finds text files that mention a home directory or an absolute working folder.
pub fn machine_paths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts("", "") {
        for (number, line) in text.lines().enumerate() {
            if let Some(found) = machine_path(line) {
                findings.push(Finding::error(
                    format!("{path}:{}", number + 1),
                    format!("holds {found}, a path of one machine; make it relative, or take it from the environment"),
                ));
            }
        }
    }
    findings
}

/// The first machine path in a line.
fn machine_path(line: &str) -> Option<String> {
    let starts_a_path = |start: usize| {
        let before = line[..start].chars().next_back().unwrap_or(' ');
        // `../work/`, `https://host/home/`, `$HOME/work/` and `{root}/work/` are not absolute paths.
        !(before.is_alphanumeric() || ".-_~}*/".contains(before))
    };
    for folder in HOMES {
        let pattern = format!("/{folder}/");
        if line
            .match_indices(&pattern)
            .any(|(start, _)| starts_a_path(start))
        {
            return Some(pattern);
        }
    }
    for folder in PARENTS_OF_HOMES {
        let pattern = format!("/{folder}/");
        for (start, _) in line.match_indices(&pattern) {
            let name: String = line[start + pattern.len()..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || "-_.".contains(*c))
                .collect();
            if !name.is_empty() && starts_a_path(start) {
                return Some(format!("{pattern}{name}"));
            }
        }
    }
    let windows = format!(r":\{}\", "Users");
    line.contains(&windows).then_some(windows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_machine_are_found() {
        for (folder, rest) in [
            ("root", "x"),
            ("work", "main/x"),
            ("home", "someone/x"),
            ("Users", "someone"),
        ] {
            let planted = format!("let path = \"/{folder}/{rest}\";");
            let tree = Tree::planted(&[
                ("crates/x/src/lib.rs", "fn a() {}"),
                ("docs/a.md", &planted),
            ]);
            let findings = machine_paths(&tree);
            assert_eq!(findings.len(), 1, "{planted}");
            assert_eq!(findings[0].place, "docs/a.md:1");
        }
        assert!(machine_path(&format!(r"C:\{}\someone", "Users")).is_some());
    }

    #[test]
    fn relative_paths_and_addresses_are_not() {
        for folder in ["work", "root", "home", "Users"] {
            for line in [
                format!("../{folder}/a"),
                format!("https://example.org/{folder}/a"),
                format!("src/{folder}/mod.rs"),
                format!("{folder}/a"),
            ] {
                assert_eq!(machine_path(&line), None, "{line}");
            }
        }
    }
}
