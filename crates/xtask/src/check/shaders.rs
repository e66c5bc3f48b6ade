//! The header of every shader must name its CPU reference implementation (`reference`) and the test that compares the two.

use crate::check::Finding;
use crate::workspace::Tree;

/// Finds shaders whose header lacks a `reference` or `test` entry, or names a file that does not exist.
pub fn headers(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts("shaders/", ".wgsl") {
        let header: Vec<&str> = text
            .lines()
            .map_while(|line| line.trim_start().strip_prefix("//"))
            .collect();
        for (label, meaning) in [
            ("reference", "the CPU function that computes the same"),
            ("test", "the test that compares the two"),
        ] {
            match file_after(&header, label) {
                None => findings.push(Finding::error(
                    path,
                    format!("the header names no {label}; add `// {label}  PATH.rs`, {meaning}"),
                )),
                Some(file) if !tree.has(file) => {
                    findings.push(Finding::error(path, format!("the header's {label} is {file}, which does not exist; write it or mend the path")));
                }
                Some(_) => {}
            }
        }
    }
    findings
}

/// The file name after the word `label` in the header.
fn file_after<'a>(header: &[&'a str], label: &str) -> Option<&'a str> {
    header.iter().find_map(|line| {
        let mut words = line
            .split_whitespace()
            .skip_while(|word| word.trim_end_matches(':') != label)
            .skip(1);
        words
            .next()
            .map(|word| word.trim_end_matches([',', ';']))
            .filter(|word| word.ends_with(".rs"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: (&str, &str) = ("crates/emu-kernels/src/cpu/a.rs", "");
    const TEST: (&str, &str) = ("tests/kernels/a.rs", "");

    #[test]
    fn a_full_header_is_fine() {
        let tree = Tree::planted(&[
            (
                "shaders/a.wgsl",
                "// a: y = x\n// reference  crates/emu-kernels/src/cpu/a.rs     test  tests/kernels/a.rs\nfn main() {}",
            ),
            REFERENCE,
            TEST,
        ]);
        assert_eq!(headers(&tree), []);
    }

    #[test]
    fn a_missing_line_and_a_missing_file_are_found() {
        let no_header = Tree::planted(&[
            (
                "shaders/a.wgsl",
                "fn main() {}\n// reference crates/emu-kernels/src/cpu/a.rs",
            ),
            REFERENCE,
            TEST,
        ]);
        assert_eq!(headers(&no_header).len(), 2);
        let no_file = Tree::planted(&[
            (
                "shaders/a.wgsl",
                "// reference crates/emu-kernels/src/cpu/a.rs test tests/kernels/b.rs",
            ),
            REFERENCE,
            TEST,
        ]);
        assert_eq!(headers(&no_file).len(), 1);
    }
}
