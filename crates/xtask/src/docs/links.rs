//! Links within a site of static HTML: every file exists, and every fragment names an element.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

/// What was found in a site.
#[derive(Debug, Default)]
pub struct Report {
    /// Number of HTML files.
    pub pages: usize,
    /// Number of links to files of the site, pictures and scripts included.
    pub links: usize,
    /// A sentence for each link whose target is missing.
    pub dead: Vec<String>,
}

/// One HTML file.
struct Page {
    /// Values of `id` and `name`.
    anchors: BTreeSet<String>,
    /// Values of `href` and `src`.
    links: Vec<String>,
}

/// Checks all pages below `site`. Links to other sites are not followed.
///
/// # Errors
/// If there is no page, or a file cannot be read.
pub fn check(site: &Path) -> Result<Report> {
    let mut files = BTreeSet::new();
    list(site, Path::new(""), &mut files)?;
    let mut pages = BTreeMap::new();
    for file in &files {
        if file.extension().is_some_and(|end| end == "html") {
            let full = site.join(file);
            let text = fs::read_to_string(&full)
                .with_context(|| format!("{} cannot be read", full.display()))?;
            pages.insert(file.clone(), read(&text));
        }
    }
    if pages.is_empty() {
        bail!("{} has no page; was the site built?", site.display());
    }
    let mut report = Report {
        pages: pages.len(),
        ..Report::default()
    };
    for (file, page) in &pages {
        for link in &page.links {
            if is_outside(link) {
                continue;
            }
            report.links += 1;
            if let Some(reason) = missing(file, link, &files, &pages) {
                let page = file.display();
                report
                    .dead
                    .push(format!("{page} links to {link}: {reason}"));
            }
        }
    }
    report.dead.sort();
    report.dead.dedup();
    Ok(report)
}

/// Collects the files below `site/folder`, relative to `site`.
fn list(site: &Path, folder: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    let full = site.join(folder);
    let cannot = || format!("{} cannot be read", full.display());
    for entry in fs::read_dir(&full).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let path = folder.join(entry.file_name());
        if entry.file_type().with_context(cannot)?.is_dir() {
            list(site, &path, files)?;
        } else {
            files.insert(path);
        }
    }
    Ok(())
}

/// Whether a link has a scheme (`https:`, `mailto:`, `data:`) or names another host.
fn is_outside(link: &str) -> bool {
    let scheme = link.split(['/', '?', '#']).next().unwrap_or_default();
    link.starts_with("//") || scheme.contains(':')
}

/// Why the target of a link is missing.
fn missing(
    from: &Path,
    link: &str,
    files: &BTreeSet<PathBuf>,
    pages: &BTreeMap<PathBuf, Page>,
) -> Option<&'static str> {
    let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
    let path = path.split('?').next().unwrap_or_default();
    let Some(target) = resolve(from, &decoded(path)) else {
        return Some("it leaves the site, so that no static host has it; make it relative");
    };
    if !files.contains(&target) {
        return Some("there is no such file; correct the path in its Markdown or doc comment");
    }
    let page = pages.get(&target)?;
    let known = fragment.is_empty()
        || page.anchors.contains(fragment)
        || page.anchors.contains(&decoded(fragment));
    (!known).then_some("the page has no such heading; correct the part after #")
}

/// The file that `path` names on the page `from`; `None` outside the site.
fn resolve(from: &Path, path: &str) -> Option<PathBuf> {
    if path.is_empty() {
        return Some(from.to_path_buf());
    }
    let mut target = from.parent().unwrap_or(Path::new("")).to_path_buf();
    for part in Path::new(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !target.pop() {
                    return None;
                }
            }
            Component::Normal(name) => target.push(name),
            // An absolute path: works on one host only, and never from a folder.
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(target)
}

/// Replaces `%20` and the like.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = (byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                plain.push(value);
                at += 3;
            }
            None => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Reads the anchors and links of a page. The text of scripts is skipped.
fn read(html: &str) -> Page {
    let mut page = Page {
        anchors: BTreeSet::new(),
        links: Vec::new(),
    };
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        let (name, values, after) = tag(rest);
        for (key, value) in values {
            match key {
                "id" | "name" => {
                    page.anchors.insert(unescaped(value));
                }
                "href" | "src" => page.links.push(unescaped(value)),
                _ => {}
            }
        }
        rest = match name {
            "script" => after.find("</script").map_or("", |end| &after[end..]),
            _ => after,
        };
    }
    page
}

/// Parses a tag after its `<`: name, attributes with quoted values, and the text after the tag.
fn tag(text: &str) -> (&str, Vec<(&str, &str)>, &str) {
    let ends = |c: char| c.is_ascii_whitespace() || c == '>' || c == '/';
    let name = &text[..text.find(ends).unwrap_or(text.len())];
    let mut values = Vec::new();
    let mut rest = &text[name.len()..];
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        let Some(first) = rest.chars().next() else {
            return (name, values, rest);
        };
        if first == '>' {
            return (name, values, &rest[1..]);
        }
        let stop = |c: char| ends(c) || c == '=';
        let key = &rest[..rest.find(stop).unwrap_or(rest.len())];
        rest = &rest[key.len()..];
        let Some(value) = rest.strip_prefix('=') else {
            if key.is_empty() {
                return (name, values, rest);
            }
            continue;
        };
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let (inner, after) = match quote {
            Some(quote) => value[1..].split_once(quote).unwrap_or((&value[1..], "")),
            None => {
                let unquoted = |c: char| c.is_ascii_whitespace() || c == '>';
                value.split_at(value.find(unquoted).unwrap_or(value.len()))
            }
        };
        values.push((key, inner));
        rest = after;
    }
}

/// Replaces the entities that occur in addresses.
fn unescaped(text: &str) -> String {
    text.replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(files: &[(&str, &str)]) -> tempfile::TempDir {
        let place = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let file = place.path().join(path);
            fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            fs::write(file, text).expect("written");
        }
        place
    }

    fn dead(files: &[(&str, &str)]) -> Vec<String> {
        check(site(files).path()).expect("checked").dead
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        let place = site(&[
            (
                "index.html",
                r##"<html id='top'><a href="guides/a.html#one">a</a> <a href=#top>up</a>
                    <img alt="x > y" src="media/a%20b.png"/><a href="https://example.org/x">out</a><a href="mailto:a@b">mail</a>"##,
            ),
            (
                "guides/a.html",
                r#"<h2 id="one">One</h2><a href="../index.html?x=1&amp;y=2#top">back</a><a href="./a.html">self</a>
                    <script>document.write('<a href="nowhere.html">')</script>"#,
            ),
            ("media/a b.png", ""),
        ]);
        let report = check(place.path()).expect("checked");
        assert_eq!(report.dead, Vec::<String>::new());
        assert_eq!((report.pages, report.links), (2, 5));
    }

    #[test]
    fn each_kind_of_dead_link_is_found() {
        for (link, reason) in [
            ("b.html", "no such file"),
            ("media/b.png", "no such file"),
            ("#two", "no such heading"),
            ("a.html#two", "no such heading"),
            ("../outside.html", "leaves the site"),
            ("/a.html", "leaves the site"),
            // A folder: shown by some hosts, and never by a browser that reads files.
            ("media", "no such file"),
        ] {
            let html = format!("<p class=\"x\"><a class='y' href=\"{link}\">text</a>");
            let found = dead(&[
                ("index.html", &html),
                ("a.html", "<h2 id=\"one\">"),
                ("media/a.png", ""),
            ]);
            assert_eq!(found.len(), 1, "{link}: {found:?}");
            assert!(found[0].contains(reason), "{link}: {found:?}");
            assert!(found[0].starts_with("index.html links to "), "{found:?}");
        }
        assert_eq!(dead(&[("index.html", "<img src=a.png>")]).len(), 1);
    }

    #[test]
    fn a_folder_without_pages_is_an_error() {
        assert!(check(site(&[("a.txt", "")]).path()).is_err());
        assert!(check(Path::new("no-such-folder-here")).is_err());
    }

    #[test]
    fn broken_markup_ends() {
        for html in [
            "<a href",
            "<a href=",
            "<a href=\"x",
            "<",
            "<a =>",
            "<script>",
        ] {
            read(html);
        }
    }

    #[test]
    fn addresses_are_decoded() {
        assert_eq!(decoded("a%20b,%C3%A9"), "a b,é");
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decoded("%zz%é"), "%zz%é");
    }
}
