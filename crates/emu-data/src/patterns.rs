//! Paths of data sets with patterns: `shards/*.tar`, `coco/{00000..00099}.tar`.

use std::path::{Path, PathBuf};

use crate::DataError;

/// Largest number of paths that braces may give.
const MOST: usize = 1_000_000;

/// The paths that match, sorted, or `None` if the path has no pattern or exists as it is. Braces with two numbers
/// count from one to the other, as in WebDataset; `*`, `?` and `[..]` are those of a shell, `**` matches any folders.
///
/// # Errors
/// If a pattern is malformed, or nothing matches it.
pub(super) fn expand(path: &Path) -> Result<Option<Vec<PathBuf>>, DataError> {
    let Some(text) = path
        .to_str()
        .filter(|text| text.contains(['*', '?', '[', '{']))
    else {
        return Ok(None);
    };
    if path.exists() {
        return Ok(None);
    }
    let wrong = |message: String| DataError::Pattern {
        pattern: path.into(),
        message,
    };
    let mut paths = vec![];
    for text in braces(text).map_err(wrong)? {
        if !text.contains(['*', '?', '[']) {
            paths.push(PathBuf::from(text));
            continue;
        }
        let found = glob::glob(&text).map_err(|e| wrong(e.to_string()))?;
        for found in found {
            paths.push(found.map_err(|e| wrong(e.to_string()))?);
        }
    }
    paths.sort();
    paths.dedup();
    match paths.is_empty() {
        true => Err(DataError::NoShards(path.into())),
        false => Ok(Some(paths)),
    }
}

/// Expands `{a,b}` and `{000..099}`, from left to right. Numbers are padded to the length of the first.
fn braces(text: &str) -> Result<Vec<String>, String> {
    let Some(open) = text.find('{') else {
        return Ok(vec![text.into()]);
    };
    let (head, rest) = (&text[..open], &text[open + 1..]);
    let close = rest.find('}').ok_or("it has `{` without `}`")?;
    let (inner, tail) = (&rest[..close], &rest[close + 1..]);
    let choices: Vec<String> = match inner.split_once("..") {
        Some((first, last)) => {
            let number = |text: &str| -> Result<usize, String> {
                text.parse().map_err(|_| format!("`{text}` is no number"))
            };
            let (width, first, last) = (first.len(), number(first)?, number(last)?);
            if last < first || last - first >= MOST {
                return Err(format!("{{{inner}}} gives no numbers, or more than {MOST}"));
            }
            (first..=last).map(|n| format!("{n:0width$}")).collect()
        }
        None => inner.split(',').map(str::to_string).collect(),
    };
    let tails = braces(tail)?;
    if choices.len().saturating_mul(tails.len()) > MOST {
        return Err(format!("its braces give more than {MOST} paths"));
    }
    let with_tails = |choice: &String| {
        let start = format!("{head}{choice}");
        tails
            .iter()
            .map(move |tail| format!("{start}{tail}"))
            .collect::<Vec<_>>()
    };
    Ok(choices.iter().flat_map(with_tails).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_count_and_choose() {
        let expanded = |text| braces(text).expect(text);
        assert_eq!(expanded("a.tar"), ["a.tar"]);
        assert_eq!(expanded("{08..10}.tar"), ["08.tar", "09.tar", "10.tar"]);
        assert_eq!(expanded("{a,b}/{1..2}"), ["a/1", "a/2", "b/1", "b/2"]);
        for text in [
            "{1..x}",
            "{3..1}",
            "{1",
            "{0..9999999}",
            "{0..9999}{0..9999}",
        ] {
            assert!(braces(text).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_match_files_and_folders() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a/1.tar", "a/2.tar", "b/1.tar", "b/[x].tar"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, "").expect("a file");
        }
        let found = |pattern: &str| {
            let found = expand(&folder.path().join(pattern)).expect(pattern)?;
            let relative = |p: PathBuf| {
                let relative = p.strip_prefix(folder.path()).expect("a prefix");
                relative.to_string_lossy().replace('\\', "/")
            };
            Some(found.into_iter().map(relative).collect::<Vec<_>>())
        };
        assert_eq!(
            found("*/1.tar"),
            Some(vec!["a/1.tar".into(), "b/1.tar".into()])
        );
        assert_eq!(
            found("a/{1..2}.tar"),
            Some(vec!["a/1.tar".into(), "a/2.tar".into()])
        );
        assert_eq!(found("?"), Some(vec!["a".into(), "b".into()]));
        assert_eq!(found("a/1.tar"), None);
        // A file that exists is itself, whatever its name.
        assert_eq!(found("b/[x].tar"), None);
        assert!(expand(&folder.path().join("c/*.tar")).is_err());
        assert!(expand(&folder.path().join("a/***/x")).is_err());
    }
}
