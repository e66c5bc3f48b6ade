//! A minimal Rust lexer that separates code from comments, strings and tests, and keeps line numbers.

/// What [`masked`] keeps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Code only: comments and string contents are blanked.
    Code,
    /// Code and strings: comments are blanked.
    CodeAndStrings,
}

/// Replaces everything but `keep` by spaces. Line breaks stay.
pub fn masked(source: &str, keep: Keep) -> String {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = String::with_capacity(source.len());
    let blank = |out: &mut String, c: char| out.push(if c == '\n' { '\n' } else { ' ' });
    let text = |out: &mut String, c: char| {
        if keep == Keep::CodeAndStrings {
            out.push(c)
        } else {
            out.push(if c == '\n' { '\n' } else { ' ' })
        }
    };
    let mut i = 0;
    while i < chars.len() {
        let c = at(i);
        if c == '/' && at(i + 1) == '/' {
            while i < chars.len() && at(i) != '\n' {
                blank(&mut out, at(i));
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            let mut depth = 0;
            while i < chars.len() {
                let (step, change) = match (at(i), at(i + 1)) {
                    ('/', '*') => (2, 1),
                    ('*', '/') => (2, -1),
                    _ => (1, 0),
                };
                (0..step).for_each(|k| blank(&mut out, at(i + k)));
                i += step;
                depth += change;
                if depth == 0 {
                    break;
                }
            }
        } else if let Some(hashes) = raw_string_start(&chars, i) {
            // r"..", r#".."#, br#".."#: ends at a quote with the same number of hashes.
            while at(i) != '"' {
                out.push(at(i));
                i += 1;
            }
            out.push('"');
            i += 1;
            while i < chars.len() && !(at(i) == '"' && (1..=hashes).all(|k| at(i + k) == '#')) {
                text(&mut out, at(i));
                i += 1;
            }
            if i < chars.len() {
                out.push('"');
                i += 1;
            }
        } else if c == '"' {
            out.push('"');
            i += 1;
            while i < chars.len() && at(i) != '"' {
                if at(i) == '\\' {
                    text(&mut out, at(i));
                    i += 1;
                }
                text(&mut out, at(i));
                i += 1;
            }
            out.push('"');
            i += 1;
        } else if c == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            // A character literal, not a lifetime.
            out.push('\'');
            i += 1;
            if at(i) == '\\' {
                text(&mut out, at(i));
                i += 1;
            }
            loop {
                text(&mut out, at(i));
                i += 1;
                if i >= chars.len() || at(i) == '\'' {
                    break;
                }
            }
            out.push('\'');
            i += 1;
        } else {
            out.push(c);
            i += 1;
        }
    }
    out
}

/// The number of hashes, if a raw string starts at `i`.
fn raw_string_start(chars: &[char], i: usize) -> Option<usize> {
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    if i > 0 && is_word(at(i - 1)) {
        return None;
    }
    let mut j = i + usize::from(matches!(at(i), 'b' | 'c') && at(i + 1) == 'r');
    if at(j) != 'r' {
        return None;
    }
    j += 1;
    let hashes = (j..).take_while(|&k| at(k) == '#').count();
    (at(j + hashes) == '"').then_some(hashes)
}

/// Masked code with items under `#[cfg(test)]` blanked as well, because tests are exempt from the rules.
pub fn without_tests(masked: &str) -> String {
    let mut out = masked.to_owned();
    let mut from = 0;
    while let Some(found) = out.get(from..).and_then(|rest| rest.find("#[cfg(test)]")) {
        let start = from + found;
        let after = start + "#[cfg(test)]".len();
        let Some(rest) = out.get(after..) else { break };
        // The next item ends at its `;` or its closing brace.
        let end = match rest.find([';', '{']) {
            None => out.len(),
            Some(k) if rest[k..].starts_with(';') => after + k + 1,
            Some(k) => after + k + closing_brace(&rest[k..]),
        };
        let blanked: String = out[start..end]
            .chars()
            .map(|c| if c == '\n' { '\n' } else { ' ' })
            .collect();
        from = start + blanked.len();
        out.replace_range(start..end, &blanked);
    }
    out
}

/// Names of modules declared as `#[cfg(test)] mod name;`. Their files are test files.
pub fn test_modules(masked: &str) -> Vec<String> {
    let mut names = Vec::new();
    for part in masked.split("#[cfg(test)]").skip(1) {
        let item = part.split(['{', ';']).next().unwrap_or_default();
        let is_declaration = part
            .get(item.len()..)
            .is_some_and(|rest| rest.starts_with(';'));
        let mut words = item
            .split_whitespace()
            .filter(|word| !word.starts_with("pub"));
        if is_declaration && words.next() == Some("mod") {
            names.extend(words.next().map(str::to_owned));
        }
    }
    names
}

/// Length of `text`, which starts with `{`, up to and including the matching `}`.
fn closing_brace(text: &str) -> usize {
    let mut depth = 0usize;
    for (i, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// Expands a use tree: `a::{b, c::{d}}` gives `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, each: &mut impl FnMut(String)) {
    let Some(open) = tree.find('{') else {
        // The original name counts, not the alias (`Instant as Clock`).
        let name = tree
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .trim_end_matches(':');
        if !name.is_empty() {
            each(format!("{prefix}{name}"));
        }
        return;
    };
    let inner_prefix = format!("{prefix}{}", tree[..open].trim());
    let inner = tree[open + 1..].trim_end().trim_end_matches('}');
    let mut depth = 0usize;
    let mut piece = String::new();
    for c in inner.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                expand(&inner_prefix, piece.trim(), each);
                piece.clear();
                continue;
            }
            _ => {}
        }
        piece.push(c);
    }
    // The trim above may have removed closing braces of the last piece; this restores them.
    piece.push_str(&"}".repeat(depth));
    expand(&inner_prefix, piece.trim(), each);
}

/// Expands a use tree, also one of several lines. Passes each path and the name it gets to `each`.
pub fn grouped_paths(tree: &str, each: &mut impl FnMut(&str, &str)) {
    let one_line: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
    let spelled = one_line
        .replace(":: ", "::")
        .replace("{ ", "{")
        .replace(" }", "}");
    expand(
        "",
        &spelled.replace(",}", "}").replace(" as ", "="),
        &mut |path| {
            let (path, name) = path.split_once('=').unwrap_or((path.as_str(), ""));
            let path = path.trim_end_matches("::self");
            let last = path.rsplit("::").next().unwrap_or(path);
            each(path, if name.is_empty() { last } else { name });
        },
    );
}

/// Line numbers, from 1, where `word` occurs as a whole word.
pub fn lines_with_word(code: &str, word: &str) -> Vec<usize> {
    code.match_indices(word)
        .filter(|(start, _)| {
            let before = code[..*start].chars().next_back().unwrap_or(' ');
            let after = code[start + word.len()..].chars().next().unwrap_or(' ');
            !is_word(before) && (!is_word(after) || !word.ends_with(is_word))
        })
        .map(|(start, _)| line_of(code, start))
        .collect()
}

/// Line number of a byte offset, from 1.
pub fn line_of(text: &str, byte: usize) -> usize {
    text.as_bytes()[..byte]
        .iter()
        .filter(|&&b| b == b'\n')
        .count()
        + 1
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_not_code() {
        let source = "let a = \"x // y\"; // println\n/* z /* w */ */ let b = r#\"q\"q\"#; let c = '\"'; let d: &'static str;";
        let code = masked(source, Keep::Code);
        for gone in ["x // y", "println", "z", "w ", "q\"q"] {
            assert!(!code.contains(gone), "{gone} in {code}");
        }
        for kept in ["let a", "let b", "let c", "&'static str"] {
            assert!(code.contains(kept), "{kept} not in {code}");
        }
        assert_eq!(code.lines().count(), source.lines().count());
        assert!(masked(source, Keep::CodeAndStrings).contains("x // y"));
    }

    #[test]
    fn test_modules_are_blanked_and_what_follows_is_kept() {
        let code = without_tests(
            "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { if c {} } }\nfn d() {}\n#[cfg(test)]\nmod e;\nfn f() {}",
        );
        assert!(!code.contains("fn b") && !code.contains("mod e"));
        assert!(code.contains("fn a") && code.contains("fn d") && code.contains("fn f"));
        assert_eq!(
            test_modules("#[cfg(test)]\nmod e;\n#[cfg(test)]\nmod tests { }"),
            ["e"]
        );
    }

    #[test]
    fn grouped_paths_are_spelled_out() {
        let paths = |tree: &str| {
            let mut paths = Vec::new();
            grouped_paths(tree, &mut |path, name| paths.push(format!("{path} {name}")));
            paths
        };
        assert_eq!(
            paths("std::{fmt, fs::{self, File as Open}, time::Duration}"),
            [
                "std::fmt fmt",
                "std::fs fs",
                "std::fs::File Open",
                "std::time::Duration Duration"
            ]
        );
        assert_eq!(
            paths("std::{a, b::{\n    c,\n    d::{e},\n}}").last(),
            Some(&"std::b::d::e e".to_owned())
        );
    }

    #[test]
    fn a_word_inside_a_longer_word_is_not_the_word() {
        assert_eq!(
            lines_with_word("eprintln!(\"\");\nprintln!(\"\");", "println!"),
            [2]
        );
        assert!(lines_with_word("NotJsValueAtAll", "JsValue").is_empty());
    }
}
