//! What a caller learns of a fetch under way.

/// What happens during a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The files are chosen; nothing was transferred yet.
    Chosen {
        /// Number of files.
        files: usize,
        /// Their bytes.
        bytes: u64,
        /// Bytes of those that are in the cache already.
        present: u64,
    },
    /// A file is next.
    File {
        /// Its path in the repository.
        path: &'a str,
        /// Its bytes.
        bytes: u64,
    },
    /// What an earlier transfer left of a file is read and hashed.
    Checking {
        /// Its path in the repository.
        path: &'a str,
        /// Bytes that were left.
        bytes: u64,
    },
    /// Bytes arrived.
    Bytes {
        /// Bytes that are here, of all files.
        done: u64,
        /// Bytes of all files.
        total: u64,
    },
    /// The transfer of a file broke off and is tried again after a pause.
    Again {
        /// Its path in the repository.
        path: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// The server cannot be reached, and the files of an earlier fetch are used.
    Cached {
        /// Why.
        reason: &'a str,
    },
}
