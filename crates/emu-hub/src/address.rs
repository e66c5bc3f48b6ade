//! `hf://OWNER/NAME[@REVISION][/PATH]`

use std::fmt;

use crate::HubError;

/// Prefix of an address.
pub const SCHEME: &str = "hf://";
/// Branch of an address that names no revision.
const MAIN: &str = "main";
/// Maximum length of an owner's or a repository's name.
const MAX_NAME: usize = 96;

/// A model repository on the hub, at a revision, or a file or folder in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// User or organization.
    pub owner: String,
    /// Name of the repository.
    pub name: String,
    /// Branch, tag, `refs/pr/N` or commit; `None` for `main`.
    pub revision: Option<String>,
    /// A file or folder in the repository; `None` for all of it.
    pub path: Option<String>,
}

impl Address {
    /// `OWNER/NAME`.
    pub fn repo(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The revision, or `main`.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.owner, self.name)?;
        if let Some(revision) = &self.revision {
            // A slash in a revision begins the path, except in the hub's own references.
            match is_reference(revision) {
                true => write!(f, "@{revision}")?,
                false => write!(f, "@{}", revision.replace('/', "%2F"))?,
            }
        }
        match &self.path {
            Some(path) => write!(f, "/{path}"),
            None => Ok(()),
        }
    }
}

/// Whether a text is meant as an address of the hub rather than as a path.
pub fn is_address(text: &str) -> bool {
    text.get(..SCHEME.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(SCHEME))
}

/// Parses `hf://OWNER/NAME[@REVISION][/PATH]`. A slash in a revision is written `%2F`, except in `refs/pr/N` and
/// `refs/convert/NAME`.
///
/// # Errors
/// [`HubError::Address`] if the text has another form, or a part that the hub does not allow.
pub fn parse(text: &str) -> Result<Address, HubError> {
    let wrong = |reason: &str| HubError::Address {
        address: text.into(),
        reason: reason.into(),
    };
    if !is_address(text) {
        return Err(wrong("it does not begin with hf://"));
    }
    let rest = text.get(SCHEME.len()..).unwrap_or_default();
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let Some((owner, rest)) = rest.split_once('/') else {
        return Err(wrong("the name of the repository is missing"));
    };
    if ["datasets", "spaces", "models"].contains(&owner) {
        return Err(wrong("it names no model repository"));
    }
    // The name ends at `@` or `/`, whichever comes first.
    let end = rest.find(['@', '/']).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    for part in [owner, name] {
        check_name(part).map_err(wrong)?;
    }
    let (revision, path) = match rest.strip_prefix('@') {
        Some(rest) => {
            let (revision, path) = split_revision(rest);
            let revision = revision.replace("%2F", "/").replace("%2f", "/");
            check_revision(&revision).map_err(wrong)?;
            (Some(revision), path)
        }
        None => (None, rest.strip_prefix('/')),
    };
    if let Some(path) = path {
        check_path(path).map_err(wrong)?;
    }
    Ok(Address {
        owner: owner.into(),
        name: name.into(),
        revision,
        path: path.map(str::to_owned),
    })
}

/// Splits `REVISION[/PATH]`.
fn split_revision(rest: &str) -> (&str, Option<&str>) {
    let mut slashes = rest.match_indices('/').map(|(at, _)| at);
    let parts = if rest.starts_with("refs/pr/") || rest.starts_with("refs/convert/") {
        2
    } else {
        0
    };
    match slashes.nth(parts) {
        Some(at) => {
            let (revision, path) = rest.split_at(at);
            (revision, path.get(1..))
        }
        None => (rest, None),
    }
}

/// Whether a revision is one of the hub's own references, which are written with their slashes.
fn is_reference(revision: &str) -> bool {
    let mut parts = revision.split('/');
    parts.next() == Some("refs")
        && matches!(parts.next(), Some("pr" | "convert"))
        && parts.next().is_some()
        && parts.next().is_none()
}

/// Checks the name of an owner or a repository by the hub's rules.
fn check_name(name: &str) -> Result<(), &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() {
        return Err("a name is empty");
    }
    if name.len() > MAX_NAME {
        return Err("a name is longer than 96 characters");
    }
    if !name.chars().all(allowed) {
        return Err("a name has a character other than letters, digits, `-`, `_` and `.`");
    }
    if name.contains("--") || name.contains("..") || name.starts_with(['-', '.']) {
        return Err("a name begins with `-` or `.`, or contains `--` or `..`");
    }
    Ok(())
}

/// Checks a revision by git's rules for references, as far as they keep it a relative path.
fn check_revision(revision: &str) -> Result<(), &'static str> {
    check_path(revision).map_err(|_| "its revision is no branch, tag or commit")?;
    let forbidden = |c: char| c.is_whitespace() || "~^:?*[%#@".contains(c);
    match revision.contains("..") || revision.contains(forbidden) {
        true => Err("its revision is no branch, tag or commit"),
        false => Ok(()),
    }
}

/// Checks that a path stays inside the folder that it is joined to, on every system.
pub(crate) fn check_path(path: &str) -> Result<(), &'static str> {
    let bad = |part: &str| part.is_empty() || part == "." || part == "..";
    if path.split('/').any(bad) {
        return Err("a part of its path is empty, `.` or `..`");
    }
    match path.contains(|c: char| c.is_control() || c == '\\' || c == ':') {
        true => Err("its path has a backslash, a colon or a control character"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(revision: Option<&str>, path: Option<&str>) -> Address {
        Address {
            owner: "BAAI".into(),
            name: "Emu".into(),
            revision: revision.map(str::to_owned),
            path: path.map(str::to_owned),
        }
    }

    #[test]
    fn every_form_is_read() {
        for (text, revision, path) in [
            ("hf://BAAI/Emu", None, None),
            ("hf://BAAI/Emu/", None, None),
            ("HF://BAAI/Emu", None, None),
            ("hf://BAAI/Emu/pretrain", None, Some("pretrain")),
            ("hf://BAAI/Emu/pretrain/", None, Some("pretrain")),
            ("hf://BAAI/Emu/pretrain/unet", None, Some("pretrain/unet")),
            ("hf://BAAI/Emu/a@b", None, Some("a@b")),
            ("hf://BAAI/Emu@v1.0", Some("v1.0"), None),
            ("hf://BAAI/Emu@v1.0/x.pt", Some("v1.0"), Some("x.pt")),
            ("hf://BAAI/Emu@refs/pr/3", Some("refs/pr/3"), None),
            (
                "hf://BAAI/Emu@refs/pr/3/a/b",
                Some("refs/pr/3"),
                Some("a/b"),
            ),
            ("hf://BAAI/Emu@my%2Fbranch/a", Some("my/branch"), Some("a")),
        ] {
            assert_eq!(parse(text).expect(text), address(revision, path), "{text}");
        }
        assert_eq!(parse("hf://BAAI/Emu").expect("one").revision(), "main");
        assert_eq!(parse("hf://BAAI/Emu@a/b").expect("one").repo(), "BAAI/Emu");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "hf://",
            "hf:/BAAI/Emu",
            "models/emu-mini",
            "https://huggingface.co/BAAI/Emu",
            "hf://gpt2",
            "hf:///Emu",
            "hf://BAAI/",
            "hf://BAAI//x",
            "hf://datasets/BAAI/Emu",
            "hf://BA AI/Emu",
            "hf://BAAI/E--mu",
            "hf://../Emu",
            "hf://BAAI/-Emu",
            "hf://BAAI/Emu@",
            "hf://BAAI/Emu@/x",
            "hf://BAAI/Emu@a..b",
            "hf://BAAI/Emu@a b",
            "hf://BAAI/Emu@..%2F..%2Fx",
            "hf://BAAI/Emu/../../x",
            "hf://BAAI/Emu/a//b",
            "hf://BAAI/Emu/C:\\x",
            "hf://BAAI/Emu/a\nb",
            "hf://BAAI/Ému",
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.code(), "hub-address", "{text}");
        }
        let long = format!("hf://BAAI/{}", "a".repeat(97));
        assert!(parse(&long).is_err());
    }

    proptest! {
        #[test]
        fn any_text_gives_an_address_or_an_error(text in "(hf://)?[a-z./@%:\\\\-]{0,24}") {
            if let Ok(address) = parse(&text) {
                // Nothing that is joined to a folder leaves it.
                let revision = address.revision().to_owned();
                for part in [Some(revision), address.path.clone()].into_iter().flatten() {
                    prop_assert!(check_path(&part).is_ok(), "{part}");
                }
            }
        }

        #[test]
        fn an_address_survives_its_text(
            owner in "[a-z0-9]{1,8}", name in "[a-zA-Z0-9_.]{0,5}[a-z]",
            revision in proptest::option::of("([a-z0-9]{1,8}(/[a-z0-9]{1,4})?)|refs/pr/[0-9]{1,3}"),
            path in proptest::option::of("[a-z0-9@ ]{1,6}(/[a-z0-9._-]{1,6}[a-z]){0,2}"),
        ) {
            prop_assume!(check_name(&name).is_ok());
            prop_assume!(!["datasets", "spaces", "models"].contains(&owner.as_str()));
            let address = Address { owner, name, revision, path };
            prop_assert_eq!(parse(&address.to_string()).expect("an address"), address);
        }
    }
}
