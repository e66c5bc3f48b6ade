//! Errors about the hub, each with a stable code.

use std::io;
use std::path::{Path, PathBuf};

/// An error about a model on the hub: what is wrong, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A text that is no address.
    #[error(
        "{address} is no address of the hub: {reason}. Write hf://OWNER/NAME, and where needed @REVISION and /PATH."
    )]
    Address {
        /// The text.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An environment variable or option with an invalid value.
    #[error("{name} {reason}. Correct it, or remove it.")]
    Setting {
        /// Its name.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// No home folder, and no cache folder named.
    #[error("There is no home folder for the hub's cache. Name a folder in HF_HOME.")]
    NoHome,
    /// The repository does not exist, or is private.
    #[error(
        "{endpoint} has no model {repo} that can be seen {how}. Check the name; for a private one set HF_TOKEN to a token of an account that may read it."
    )]
    NoRepository {
        /// `OWNER/NAME`.
        repo: String,
        /// The server.
        endpoint: String,
        /// With or without a token.
        how: &'static str,
    },
    /// The revision does not exist.
    #[error(
        "{repo} has no revision {revision}. Name a branch, tag or commit of it, or none for main."
    )]
    NoRevision {
        /// `OWNER/NAME`.
        repo: String,
        /// The revision.
        revision: String,
    },
    /// A file or folder does not exist.
    #[error(
        "{repo} has no {path} at revision {revision}. Check the path in the repository's list of files."
    )]
    NoFile {
        /// `OWNER/NAME`.
        repo: String,
        /// Path in the repository.
        path: String,
        /// The revision.
        revision: String,
    },
    /// No file is left after the choice.
    #[error("{address} has no file that fits. Change --include and --exclude, or name a file.")]
    NothingChosen {
        /// The address.
        address: String,
    },
    /// Access has to be asked for.
    #[error(
        "{repo} is open only to accounts that its owners admit. Ask for access at {page}, then set HF_TOKEN to a token of that account."
    )]
    Gated {
        /// `OWNER/NAME`.
        repo: String,
        /// Page on which to ask.
        page: String,
    },
    /// The token is wrong, or one is needed.
    #[error(
        "{endpoint} refuses {repo}: {message}. Set HF_TOKEN to a valid token; one is made on the account's settings page, under Access Tokens."
    )]
    Unauthorized {
        /// `OWNER/NAME`.
        repo: String,
        /// The server.
        endpoint: String,
        /// The server's reason.
        message: String,
    },
    /// The account may not read the repository.
    #[error(
        "{endpoint} forbids {repo}: {message}. Use a token of an account that may read it, in HF_TOKEN."
    )]
    Forbidden {
        /// `OWNER/NAME`.
        repo: String,
        /// The server.
        endpoint: String,
        /// The server's reason.
        message: String,
    },
    /// The server cannot be reached.
    #[error(
        "{host} cannot be reached: {reason}. Check the network, a proxy in HTTPS_PROXY, and HF_ENDPOINT."
    )]
    Unreachable {
        /// The server.
        host: String,
        /// Why.
        reason: String,
    },
    /// Something is not in the cache, and the network is switched off.
    #[error(
        "{address} is not complete in {cache}: {missing}. Unset HF_HUB_OFFLINE and fetch it once."
    )]
    Offline {
        /// The address.
        address: String,
        /// The cache folder.
        cache: PathBuf,
        /// What is missing.
        missing: String,
    },
    /// The connection broke, and every further attempt too.
    #[error(
        "The transfer of {file} broke off at {done} of {bytes} bytes: {reason}. Run the same command again; it continues from there."
    )]
    Interrupted {
        /// Path in the repository.
        file: String,
        /// Bytes received so far.
        done: u64,
        /// Bytes in all.
        bytes: u64,
        /// Why.
        reason: String,
    },
    /// The server answers with an error.
    #[error("{url} answers with status {status}: {message}. Try again later.")]
    Status {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
        /// The server's reason.
        message: String,
    },
    /// The server's answer makes no sense.
    #[error(
        "{url} gives an answer that cannot be used: {reason}. Check HF_ENDPOINT, and whether a proxy changes answers."
    )]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The server sends whole files only.
    #[error("{url} is sent only as a whole, and a part of it is needed. Fetch the file first.")]
    NoRanges {
        /// What was asked for.
        url: String,
    },
    /// A file does not have the stated length.
    #[error(
        "{file} has {found} bytes where the hub states {expected}. Run the command again; if that does not help, the server is faulty."
    )]
    WrongSize {
        /// Path in the repository.
        file: String,
        /// Bytes stated.
        expected: u64,
        /// Bytes received.
        found: u64,
    },
    /// A file does not have the stated hash.
    #[error(
        "{file} was received with the hash {found} where the hub states {expected}, and was deleted. Run the command again; if that does not help, the connection or the server changes data."
    )]
    WrongHash {
        /// Path in the repository.
        file: String,
        /// Hash stated.
        expected: String,
        /// Hash received.
        found: String,
    },
    /// An invalid safetensors header.
    #[error("{file} has no valid safetensors header: {reason}. Tell the owner of the repository.")]
    BadHeader {
        /// Path in the repository.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A file that is read as a whole, such as a configuration, is too large for that.
    #[error(
        "{file} has {bytes} bytes, more than the {limit} that are read of such a file. Check that the path names the right file."
    )]
    Large {
        /// Path in the repository.
        file: String,
        /// Bytes of the file.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Too little space, found before anything was fetched.
    #[error(
        "{folder} has {free} bytes free, and {needed} are needed. Free some space, or name another folder in HF_HOME."
    )]
    Space {
        /// Where.
        folder: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The disk became full.
    #[error(
        "{path}: the disk is full. Free some space and run the same command again; it continues from there."
    )]
    DiskFull {
        /// What was written.
        path: PathBuf,
    },
    /// A file of the target has other contents.
    #[error("{path} exists and has other contents. Remove it, or name another folder.")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The operating system reported an error.
    #[error("{path}: {source}. Check the path and its permissions.")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The caller's flag was raised.
    #[error("The transfer was stopped. Run the same command again; it continues from there.")]
    Cancelled,
}

impl HubError {
    /// Stable code of the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Address { .. } => "hub-address",
            Self::Setting { .. } => "hub-setting",
            Self::NoHome => "hub-no-home",
            Self::NoRepository { .. } => "hub-no-repository",
            Self::NoRevision { .. } => "hub-no-revision",
            Self::NoFile { .. } => "hub-no-file",
            Self::NothingChosen { .. } => "hub-nothing-chosen",
            Self::Gated { .. } => "hub-gated",
            Self::Unauthorized { .. } => "hub-unauthorized",
            Self::Forbidden { .. } => "hub-forbidden",
            Self::Unreachable { .. } => "hub-unreachable",
            Self::Offline { .. } => "hub-offline",
            Self::Interrupted { .. } => "hub-interrupted",
            Self::Status { .. } => "hub-status",
            Self::Answer { .. } => "hub-answer",
            Self::NoRanges { .. } => "hub-no-ranges",
            Self::WrongSize { .. } => "hub-wrong-size",
            Self::WrongHash { .. } => "hub-wrong-hash",
            Self::BadHeader { .. } => "hub-bad-header",
            Self::Large { .. } => "hub-large",
            Self::Space { .. } => "hub-space",
            Self::DiskFull { .. } => "disk-full",
            Self::Exists { .. } => "hub-exists",
            Self::Io { .. } => "io",
            Self::Cancelled => "cancelled",
        }
    }

    /// Wraps a system error about `path`; a full disk becomes [`HubError::DiskFull`].
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart() {
        let full = HubError::io(Path::new("x"), io::ErrorKind::StorageFull.into());
        assert_eq!(full.code(), "disk-full");
        let other = HubError::io(Path::new("x"), io::ErrorKind::PermissionDenied.into());
        assert_eq!(other.code(), "io");
    }
}
