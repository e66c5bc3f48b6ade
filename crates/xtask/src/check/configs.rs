//! All TOML files of the checkout must parse.

use crate::check::Finding;
use crate::workspace::Tree;

/// Finds TOML files that do not parse.
pub fn parse(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts("", ".toml") {
        if let Err(error) = text.parse::<toml::Table>() {
            let line = error
                .span()
                .map(|span| crate::check::source::line_of(text, span.start.min(text.len())));
            let place = line.map_or_else(|| path.to_owned(), |line| format!("{path}:{line}"));
            findings.push(Finding::error(
                place,
                format!("is not TOML ({}); mend it", error.message()),
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_config_is_found_with_its_line() {
        let tree = Tree::planted(&[
            ("configs/good.toml", "[model]\nwidth = 64\n"),
            ("configs/bad.toml", "[model]\nwidth = = 64\n"),
        ]);
        let findings = parse(&tree);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].place, "configs/bad.toml:2");
    }
}
