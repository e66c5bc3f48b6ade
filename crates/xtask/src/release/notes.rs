//! The changelog's section of a version, as the text of a release.

use anyhow::{Result, bail};

/// The section of `version`, without its heading. In a dry run, `[Unreleased]` counts as it.
///
/// # Errors
/// If there is no such section, or it is empty.
pub fn section(changelog: &str, version: &str, dry_run: bool) -> Result<String> {
    let dated = format!("## [{version}] - ");
    let begins = |line: &&str| line.starts_with(&dated) || (dry_run && *line == "## [Unreleased]");
    let mut lines = changelog.lines().skip_while(|line| !begins(line));
    if lines.next().is_none() {
        bail!("CHANGELOG.md has no section `{dated}DATE`; rename [Unreleased] to it");
    }
    let is_end = |line: &&str| !line.starts_with("## ") && !is_reference(line);
    let text: Vec<&str> = lines.take_while(is_end).collect();
    let text = text.join("\n");
    if text.trim().is_empty() {
        bail!("CHANGELOG.md has nothing to say about {version}; write down what changed");
    }
    Ok(text.trim().to_owned() + "\n")
}

/// Whether a line defines a link, as at the end of a changelog.
fn is_reference(line: &str) -> bool {
    line.starts_with('[') && line.contains("]: ")
}

/// Makes the relative links of a Markdown text absolute: `base` is the address of the checkout's files.
pub fn with_addresses(text: &str, base: &str) -> String {
    let mut parts = text.split("](");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        whole += "](";
        let is_relative = !part.starts_with(['#', '/'])
            && !part.split(')').next().unwrap_or_default().contains(':');
        if is_relative {
            whole += base;
        }
        whole += part;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "# Changelog\n\n## [Unreleased]\n\n- new\n\n## [1.2.0] - 2026-02-01\n\n### Added\n\n- two\n\n## [1.1.0] - 2026-01-01\n\n- one\n\n[1.1.0]: https://example.org\n";

    #[test]
    fn the_section_of_a_version_is_taken() {
        assert_eq!(
            section(LOG, "1.2.0", false).expect("a section"),
            "### Added\n\n- two\n"
        );
        assert_eq!(section(LOG, "1.1.0", false).expect("a section"), "- one\n");
        assert_eq!(section(LOG, "1.3.0", true).expect("a section"), "- new\n");
    }

    #[test]
    fn a_missing_or_empty_section_is_an_error() {
        assert!(section(LOG, "1.3.0", false).is_err());
        assert!(section("# Changelog\n", "1.2.0", true).is_err());
        assert!(
            section(
                "## [1.2.0] - 2026-02-01\n\n## [1.1.0] - 2026-01-01\n- a\n",
                "1.2.0",
                false
            )
            .is_err()
        );
        // Not the prefix of another version.
        assert!(section("## [1.2.0-rc.1] - 2026-02-01\n\n- a\n", "1.2.0", false).is_err());
    }

    #[test]
    fn relative_links_become_absolute() {
        let text = "a [b](docs/b.md#c) [d](https://e.org) [f](#g) [h](mailto:i@j) [k](l.md): m";
        assert_eq!(
            with_addresses(text, "https://h/v1/"),
            "a [b](https://h/v1/docs/b.md#c) [d](https://e.org) [f](#g) [h](mailto:i@j) [k](https://h/v1/l.md): m"
        );
    }
}
