//! The files of a repository: names, sizes, hashes.

/// The hash that the hub states for a file, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Hash {
    /// SHA-256 of the bytes, for files in large-file storage.
    Sha256(String),
    /// Git's SHA-1 of the file as a blob, for all others.
    Git(String),
}

impl Hash {
    /// The hash that an ETag of the hub is; `None` for those of other servers.
    pub(crate) fn of(etag: &str) -> Option<Self> {
        let hexadecimal = etag.bytes().all(|b| b.is_ascii_hexdigit());
        let etag = etag.to_ascii_lowercase();
        match etag.len() {
            64 if hexadecimal => Some(Self::Sha256(etag)),
            40 if hexadecimal => Some(Self::Git(etag)),
            _ => None,
        }
    }

    /// Its digits.
    pub fn digits(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::Git(digits) => digits,
        }
    }
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path in the repository, with `/`.
    pub path: String,
    /// Size in bytes, if the server states it.
    pub size: Option<u64>,
    /// Hash, if the server states it.
    pub hash: Option<Hash>,
}

/// A repository at a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The commit that the revision names at present.
    pub commit: String,
    /// All files, by path.
    pub entries: Vec<Entry>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn only_hashes_are_hashes(etag in "[0-9a-fA-Fx]{0,70}") {
            let expected = [40, 64].contains(&etag.len()) && !etag.contains('x');
            prop_assert_eq!(Hash::of(&etag).is_some(), expected);
        }
    }
}
