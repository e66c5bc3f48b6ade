//! Static files: a page, and a pack beside it. Content types, byte ranges, entity tags, and `_headers` files, as `web/server`
//! has them; and the headers that give a page its own process, without which it has no threads.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::error::ServeError;

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;
/// Name of the file with additional headers.
const HEADERS: &str = "_headers";

const TYPES: [(&str, &str); 19] = [
    ("css", "text/css; charset=utf-8"),
    ("gif", "image/gif"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("md", "text/markdown; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mp4", "video/mp4"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("txt", "text/plain; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
];

/// Headers of every file. The first two isolate the page (`crossOriginIsolated`).
const FIXED: [(&str, &str); 6] = [
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-embedder-policy", "require-corp"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-cache"),
    ("accept-ranges", "bytes"),
];

/// Folders of static files.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// The longest prefix first.
    folders: Vec<Folder>,
}

#[derive(Debug)]
struct Folder {
    /// Begins and ends with a slash.
    prefix: &'static str,
    root: PathBuf,
    rules: Vec<Rule>,
}

/// A header for the files whose paths match a pattern.
#[derive(Debug, PartialEq)]
struct Rule {
    pattern: String,
    name: HeaderName,
    value: HeaderValue,
}

impl Page {
    /// # Errors
    /// If a folder is missing.
    pub fn new(page: Option<&Path>, pack: Option<&Path>) -> Result<Self, ServeError> {
        let folder = |prefix, root: &Path| match root.is_dir() {
            true => Ok(Folder {
                prefix,
                root: root.to_owned(),
                rules: rules(&std::fs::read_to_string(root.join(HEADERS)).unwrap_or_default()),
            }),
            false => Err(ServeError::Folder(root.to_owned())),
        };
        let pack = pack.map(|root| folder("/model/", root));
        let page = page.map(|root| folder("/", root));
        Ok(Self {
            folders: [pack, page]
                .into_iter()
                .flatten()
                .collect::<Result<_, _>>()?,
        })
    }

    /// The response to a request, if there is such a file.
    pub async fn answer(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Option<Response> {
        let path = decoded(path)?;
        for folder in &self.folders {
            if let Some(inner) = path.strip_prefix(folder.prefix)
                && let Some(response) = folder.answer(method, &path, inner, headers).await
            {
                return Some(response);
            }
        }
        None
    }

    /// Whether there are folders.
    pub fn is_empty(&self) -> bool {
        self.folders.is_empty()
    }
}

impl Folder {
    async fn answer(
        &self,
        method: &Method,
        path: &str,
        inner: &str,
        headers: &HeaderMap,
    ) -> Option<Response> {
        let mut file = self.root.clone();
        for segment in inner.split('/').filter(|segment| !segment.is_empty()) {
            if !is_plain(segment) {
                return None;
            }
            file.push(segment);
        }
        let mut about = tokio::fs::metadata(&file).await.ok()?;
        let mut name = format!("/{inner}");
        if about.is_dir() {
            if !path.ends_with('/') {
                return redirect(&format!("{path}/"));
            }
            file.push("index.html");
            name.push_str("index.html");
            about = tokio::fs::metadata(&file).await.ok()?;
        } else if path.ends_with('/') {
            return None;
        }
        if !about.is_file() {
            return None;
        }
        let modified = about.modified().ok()?.duration_since(UNIX_EPOCH);
        let modified = modified.map_or(0, |since| since.as_millis());
        let tag = format!("\"{:x}-{modified:x}\"", about.len());
        let mut response = contents(method, &file, about.len(), &tag, headers).await?;
        let extension = file.extension().and_then(|extension| extension.to_str());
        let extension = extension.unwrap_or_default().to_ascii_lowercase();
        let kind = TYPES.iter().find(|(known, _)| *known == extension);
        let kind = kind.map_or("application/octet-stream", |(_, kind)| kind);
        let all = response.headers_mut();
        all.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        for (name, value) in FIXED {
            all.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        for rule in self
            .rules
            .iter()
            .filter(|rule| matches(&rule.pattern, &name))
        {
            all.insert(rule.name.clone(), rule.value.clone());
        }
        Some(response)
    }
}

/// The response without the headers that do not depend on the request.
async fn contents(
    method: &Method,
    file: &Path,
    size: u64,
    tag: &str,
    headers: &HeaderMap,
) -> Option<Response> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let mut response = Response::new(Body::empty());
    let tag = HeaderValue::from_str(tag).ok()?;
    response.headers_mut().insert(header::ETAG, tag.clone());
    if headers.get(header::IF_NONE_MATCH) == Some(&tag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Some(response);
    }
    let same = headers
        .get(header::IF_RANGE)
        .is_none_or(|expected| *expected == tag);
    let range = text(header::RANGE)
        .filter(|_| same)
        .and_then(|range| byte_range(range, size));
    let (from, to) = match range {
        None => (0, size),
        Some(Some((from, to))) => {
            let range = format!("bytes {from}-{}/{size}", to - 1);
            response
                .headers_mut()
                .insert(header::CONTENT_RANGE, HeaderValue::from_str(&range).ok()?);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            (from, to)
        }
        Some(None) => {
            let range = format!("bytes */{size}");
            response
                .headers_mut()
                .insert(header::CONTENT_RANGE, HeaderValue::from_str(&range).ok()?);
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return Some(response);
        }
    };
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(to - from));
    if method != Method::HEAD {
        let mut file = File::open(file).await.ok()?;
        file.seek(SeekFrom::Start(from)).await.ok()?;
        *response.body_mut() = Body::from_stream(chunks(file, to - from));
    }
    Some(response)
}

/// The next bytes of a file.
fn chunks(file: File, length: u64) -> impl stream::Stream<Item = std::io::Result<Bytes>> {
    stream::try_unfold((file, length), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let size = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let mut chunk = vec![0; size];
        file.read_exact(&mut chunk).await?;
        Ok(Some((Bytes::from(chunk), (file, left - size as u64))))
    })
}

fn redirect(to: &str) -> Option<Response> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    // A path of two slashes would name another host.
    let to = format!("/{}", to.trim_start_matches('/'));
    response
        .headers_mut()
        .insert(header::LOCATION, HeaderValue::from_str(&to).ok()?);
    Some(response)
}

/// Whether a segment of a path is a name within its folder. Hidden files and `_headers` are not served.
fn is_plain(segment: &str) -> bool {
    !segment.starts_with('.') && segment != HEADERS && !segment.contains(['\\', ':', '\0'])
}

/// Resolves percent-encoding.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Parses a single byte range, the end exclusive. `None` for the whole file, also if several ranges are asked for;
/// `Some(None)` for a range outside the file.
fn byte_range(range: &str, size: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| match text.bytes().all(|digit| digit.is_ascii_digit()) {
        true => text.parse::<u64>().ok(),
        false => None,
    };
    let (from, to) = match (first, last) {
        ("", "") => return None,
        ("", last) => (size.saturating_sub(number(last)?), size),
        (first, "") => (number(first)?, size),
        (first, last) => (number(first)?, number(last)?.saturating_add(1).min(size)),
    };
    Some((from < to).then_some((from, to)))
}

/// Parses a `_headers` file: lines with a path pattern, in which `*` matches anything, each followed by indented lines with
/// the headers for the paths that match.
fn rules(text: &str) -> Vec<Rule> {
    let (mut rules, mut pattern) = (vec![], None);
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if !line.starts_with([' ', '\t']) {
            pattern = Some(trimmed.to_owned());
            continue;
        }
        let Some((name, value)) = trimmed.split_once(':') else {
            continue;
        };
        let parsed = (
            name.trim().parse::<HeaderName>(),
            HeaderValue::from_str(value.trim()),
        );
        if let (Some(pattern), (Ok(name), Ok(value))) = (&pattern, parsed) {
            rules.push(Rule {
                pattern: pattern.clone(),
                name,
                value,
            });
        }
    }
    rules
}

/// Whether a path matches a pattern.
fn matches(pattern: &str, path: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(rest) = path.strip_prefix(pieces.next().unwrap_or_default()) else {
        return false;
    };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    let mut rest = rest;
    for piece in pieces {
        match rest.split_once(piece) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_in_http() {
        assert_eq!(byte_range("bytes=0-3", 10), Some(Some((0, 4))));
        assert_eq!(byte_range("bytes=8-", 10), Some(Some((8, 10))));
        assert_eq!(byte_range("bytes=-3", 10), Some(Some((7, 10))));
        assert_eq!(byte_range("bytes=-30", 10), Some(Some((0, 10))));
        assert_eq!(byte_range("bytes=5-99", 10), Some(Some((5, 10))));
        assert_eq!(
            byte_range("bytes=9-18446744073709551615", 10),
            Some(Some((9, 10)))
        );
        for outside in ["bytes=10-", "bytes=5-4", "bytes=-0"] {
            assert_eq!(byte_range(outside, 10), Some(None), "{outside}");
        }
        for whole in [
            "bytes=-",
            "bytes=0-1,3-4",
            "bytes=a-b",
            "lines=0-1",
            "bytes=+1-2",
            "",
        ] {
            assert_eq!(byte_range(whole, 10), None, "{whole}");
        }
    }

    #[test]
    fn headers_of_files_are_read() {
        let text = "# a comment\n/dist/worker-*.js\n  Content-Security-Policy: default-src 'none'\n\tX-Two: b\n/x\n bad name: 1\n";
        let rules = rules(text);
        let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names, ["content-security-policy", "x-two"]);
        assert!(matches(&rules[0].pattern, "/dist/worker-cpu.js"));
        for (pattern, path, expected) in [
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/*", "/anything/else", true),
            ("/a*b*c", "/a-b-b-c", true),
            ("/a*b*c", "/a-c-b", false),
            ("/dist/worker-*.js", "/dist/main.js", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn paths_stay_in_their_folder() {
        for segment in ["..", ".", ".git", "_headers", "a\\b", "c:", "a\0"] {
            assert!(!is_plain(segment), "{segment:?}");
        }
        assert_eq!(decoded("/a%20b%2fc").as_deref(), Some("/a b/c"));
        for broken in ["/%", "/%4", "/%zz", "/%+1", "/%ff"] {
            assert_eq!(decoded(broken), None, "{broken}");
        }
    }
}
