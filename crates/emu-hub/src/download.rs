//! The transfer of one file into the cache: continued where it broke off, checked, and complete or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::client::{Client, Purpose, Reply, backoff};
use crate::{Address, Entry, Hash, HubError, Options, Progress};

/// Bytes read at once.
const CHUNK: usize = 1 << 18;

/// The transfer of a repository's files.
pub(crate) struct Transfer<'a> {
    pub client: &'a Client,
    pub cache: &'a Cache,
    pub address: &'a Address,
    pub commit: &'a str,
    pub on: &'a mut dyn FnMut(Progress<'_>),
    /// Bytes of the files that are complete.
    pub done: u64,
    /// Bytes of all files, as far as known.
    pub total: u64,
}

/// What has to be known of a file to fetch it.
struct Wanted<'e> {
    path: &'e str,
    /// Name of its bytes in the cache.
    name: String,
    size: u64,
    hash: Option<Hash>,
}

/// Why a stream ended early.
enum Break {
    /// Another attempt may help, after this pause.
    Again(String, Duration),
    /// It will not.
    Final(HubError),
}

impl From<HubError> for Break {
    fn from(error: HubError) -> Self {
        match error {
            HubError::Unreachable { host, reason } => Self::Again(
                format!("{host} cannot be reached ({reason})"),
                Duration::ZERO,
            ),
            error => Self::Final(error),
        }
    }
}

impl Transfer<'_> {
    /// Puts a file into the cache, and a link to it into the folder of the commit.
    pub fn file(&mut self, entry: &Entry) -> Result<(), HubError> {
        let wanted = self.wanted(entry)?;
        if entry.size.is_none() {
            self.total += wanted.size;
        }
        if !self.present(&wanted) {
            (self.on)(Progress::File {
                path: wanted.path,
                bytes: wanted.size,
            });
            let _lock = self.cache.lock(&wanted.name, &self.client.options)?;
            // Another process may have fetched it in the meantime.
            if !self.present(&wanted) {
                self.fetch(&wanted)?;
            }
        }
        self.cache.point(self.commit, wanted.path, &wanted.name)?;
        self.done += wanted.size;
        self.report(0);
        Ok(())
    }

    fn present(&self, wanted: &Wanted<'_>) -> bool {
        has(&self.cache.blob(&wanted.name), wanted.size)
    }

    fn report(&mut self, part: u64) {
        (self.on)(Progress::Bytes {
            done: self.done + part,
            total: self.total,
        });
    }

    /// Size and hash from the list, or else from the headers of the file.
    fn wanted<'e>(&self, entry: &'e Entry) -> Result<Wanted<'e>, HubError> {
        if let (Some(size), Some(hash)) = (entry.size, &entry.hash) {
            return Ok(Wanted {
                path: &entry.path,
                name: hash.digits().into(),
                size,
                hash: Some(hash.clone()),
            });
        }
        let reply = self.get(&entry.path, Some((0, Some(1))))?;
        let purpose = self.purpose(&entry.path);
        // An empty file has no first byte.
        let empty = reply.status == 416 && matches!(entry.size, None | Some(0));
        let reply = match empty {
            true => reply,
            false => reply.checked(purpose, &self.client.options)?,
        };
        let length = match (empty, reply.status) {
            (true, _) => Some(0),
            (_, 206) => reply.content_range().and_then(|(_, total)| total),
            _ => reply.content_length(),
        };
        let wrong = |reason: &str| HubError::Answer {
            url: reply.url.clone(),
            reason: reason.into(),
        };
        let size = entry.size.or(reply.linked_size).or(length);
        let hash = entry.hash.clone();
        let hash = hash.or_else(|| reply.etag.as_deref().and_then(Hash::of));
        let name = match &hash {
            Some(hash) => Some(hash.digits().to_owned()),
            None => reply.etag.clone(),
        };
        Ok(Wanted {
            path: &entry.path,
            name: name.ok_or_else(|| wrong("it has no ETag"))?,
            size: size.ok_or_else(|| wrong("it states no length"))?,
            hash,
        })
    }

    fn purpose<'p>(&'p self, path: &'p str) -> Purpose<'p> {
        Purpose {
            address: self.address,
            path: Some(path),
        }
    }

    fn get(&self, path: &str, span: Option<(u64, Option<u64>)>) -> Result<Reply, HubError> {
        let url = self.client.file_url(self.address, self.commit, path);
        self.client.get(&url, span)
    }

    fn fetch(&mut self, wanted: &Wanted<'_>) -> Result<(), HubError> {
        let path = self.cache.incomplete(&wanted.name);
        let mut part = Part::open(path, wanted)?;
        let resumed = part.catch_up(wanted, &self.client.options, self.on)?;
        self.receive(&mut part, wanted)?;
        let mut checked = part.check(wanted);
        if resumed && matches!(checked, Err(HubError::WrongHash { .. })) {
            // The beginning may be another program's.
            part.restart()?;
            self.receive(&mut part, wanted)?;
            checked = part.check(wanted);
        }
        match checked {
            Ok(()) => part.keep(&self.cache.blob(&wanted.name)),
            Err(error) => {
                part.discard();
                Err(error)
            }
        }
    }

    /// Receives what is missing, in as many attempts as it takes while there is progress.
    fn receive(&mut self, part: &mut Part, wanted: &Wanted<'_>) -> Result<(), HubError> {
        let (mut failures, mut best) = (0, part.len);
        while part.len < wanted.size {
            let (reason, asked) = match self.stream(part, wanted) {
                Ok(()) if part.len == wanted.size => break,
                Ok(()) => ("the connection was closed".to_owned(), Duration::ZERO),
                Err(Break::Again(reason, pause)) => (reason, pause),
                Err(Break::Final(error)) => return Err(error),
            };
            failures = if part.len > best { 1 } else { failures + 1 };
            best = best.max(part.len);
            let options = &self.client.options;
            if failures > options.retries {
                return Err(HubError::Interrupted {
                    file: wanted.path.into(),
                    done: part.len,
                    bytes: wanted.size,
                    reason,
                });
            }
            (self.on)(Progress::Again {
                path: wanted.path,
                reason: &reason,
            });
            options.wait(asked.max(backoff(options, failures)))?;
        }
        Ok(())
    }

    /// Receives in one answer what is missing, or as much as arrives.
    fn stream(&mut self, part: &mut Part, wanted: &Wanted<'_>) -> Result<(), Break> {
        let span = (part.len > 0).then_some((part.len, None));
        let reply = self.get(wanted.path, span)?;
        if let Some(pause) = reply.pause() {
            let reason = format!("the server answers with status {}", reply.status);
            return Err(Break::Again(reason, pause));
        }
        if reply.status == 416 {
            part.restart()?;
            return Err(Break::Again(
                "the server has no such range".into(),
                Duration::ZERO,
            ));
        }
        let reply = reply.checked(self.purpose(wanted.path), &self.client.options)?;
        let stated = match reply.status {
            206 => match reply.content_range() {
                Some((first, total)) if first == part.len => total,
                _ => {
                    return Err(Break::Final(HubError::Answer {
                        url: reply.url,
                        reason: "it is another part of the file than was asked for".into(),
                    }));
                }
            },
            // A server without ranges sends all of it again.
            _ => {
                part.restart()?;
                reply.content_length()
            }
        };
        let wrong = |found| HubError::WrongSize {
            file: wanted.path.into(),
            expected: wanted.size,
            found,
        };
        if let Some(found) = stated.filter(|found| *found != wanted.size) {
            return Err(Break::Final(wrong(found)));
        }
        let mut reader = reply.reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            self.client.options.go_on()?;
            let read = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Break::Again(error.to_string(), Duration::ZERO)),
            };
            if part.len + read as u64 > wanted.size {
                return Err(Break::Final(wrong(part.len + read as u64)));
            }
            part.add(buffer.get(..read).unwrap_or_default())?;
            self.report(part.len);
        }
    }
}

/// Whether a file of this size is there.
pub(crate) fn has(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == size)
}

/// An unfinished file, and the hash of its bytes.
struct Part {
    path: PathBuf,
    file: File,
    len: u64,
    digest: Option<Digesting>,
    /// The state of `digest` before the first byte.
    fresh: Option<Digesting>,
}

impl Part {
    fn open(path: PathBuf, wanted: &Wanted<'_>) -> Result<Self, HubError> {
        if let Some(folder) = path.parent() {
            crate::disk::create_folder(folder)?;
        }
        let mut open = OpenOptions::new();
        let open = open.read(true).write(true).create(true).truncate(false);
        let file = open.open(&path);
        let file = file.map_err(|error| HubError::io(&path, error))?;
        let digest = wanted
            .hash
            .as_ref()
            .map(|hash| Digesting::new(hash, wanted.size));
        Ok(Self {
            path,
            file,
            len: 0,
            fresh: digest.clone(),
            digest,
        })
    }

    /// Hashes the bytes that an earlier transfer left. Returns whether there are any.
    fn catch_up(
        &mut self,
        wanted: &Wanted<'_>,
        options: &Options,
        on: &mut dyn FnMut(Progress<'_>),
    ) -> Result<bool, HubError> {
        let left = self.file.metadata();
        let left = left.map_err(|error| HubError::io(&self.path, error))?.len();
        if left == 0 {
            return Ok(false);
        }
        if left > wanted.size {
            self.restart()?;
            return Ok(false);
        }
        on(Progress::Checking {
            path: wanted.path,
            bytes: left,
        });
        let mut buffer = vec![0; CHUNK];
        while self.len < left {
            options.go_on()?;
            let read = self.file.read(&mut buffer);
            let read = read.map_err(|error| HubError::io(&self.path, error))?;
            if read == 0 {
                break;
            }
            self.count(buffer.get(..read).unwrap_or_default());
        }
        Ok(true)
    }

    fn count(&mut self, bytes: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        self.len += bytes.len() as u64;
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| HubError::io(&self.path, error))?;
        self.count(bytes);
        Ok(())
    }

    fn restart(&mut self) -> Result<(), HubError> {
        let cut = self.file.set_len(0).and_then(|()| self.file.rewind());
        cut.map_err(|error| HubError::io(&self.path, error))?;
        self.len = 0;
        self.digest.clone_from(&self.fresh);
        Ok(())
    }

    /// Compares size and hash with those stated.
    fn check(&mut self, wanted: &Wanted<'_>) -> Result<(), HubError> {
        if self.len != wanted.size {
            return Err(HubError::WrongSize {
                file: wanted.path.into(),
                expected: wanted.size,
                found: self.len,
            });
        }
        let (Some(digest), Some(hash)) = (&self.digest, &wanted.hash) else {
            return Ok(());
        };
        let found = digest.clone().digits();
        match found == hash.digits() {
            true => Ok(()),
            false => Err(HubError::WrongHash {
                file: wanted.path.into(),
                expected: hash.digits().into(),
                found,
            }),
        }
    }

    /// Gives the file its final name.
    fn keep(self, blob: &Path) -> Result<(), HubError> {
        let synced = self.file.sync_all();
        drop(self.file);
        let kept = synced.and_then(|()| fs::rename(&self.path, blob));
        kept.map_err(|error| HubError::io(blob, error))
    }

    fn discard(self) {
        drop(self.file);
        let _ = fs::remove_file(&self.path);
    }
}

/// A hash under way.
#[derive(Clone)]
enum Digesting {
    Sha256(Sha256),
    Git(Sha1),
}

impl Digesting {
    fn new(hash: &Hash, size: u64) -> Self {
        match hash {
            Hash::Sha256(_) => Self::Sha256(Sha256::new()),
            // Git hashes a file with a header of its kind and length.
            Hash::Git(_) => Self::Git(Sha1::new().chain_update(format!("blob {size}\0"))),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(digest) => digest.update(bytes),
            Self::Git(digest) => digest.update(bytes),
        }
    }

    fn digits(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sha256(digest) => hex(digest.finalize().as_slice()),
            Self::Git(digest) => hex(digest.finalize().as_slice()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(hash: &Hash, bytes: &[u8]) -> String {
        let mut digest = Digesting::new(hash, bytes.len() as u64);
        bytes.chunks(3).for_each(|chunk| digest.update(chunk));
        digest.digits()
    }

    /// As `git hash-object` and `sha256sum` print them.
    #[test]
    fn hashes_are_gits_and_sha_256() {
        let (git, sha) = (Hash::Git(String::new()), Hash::Sha256(String::new()));
        assert_eq!(
            digits(&git, b""),
            "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
        );
        assert_eq!(
            digits(&git, b"hello\n"),
            "ce013625030ba8dba906f756967f9e9ca394464a"
        );
        assert_eq!(
            digits(&sha, b"hello\n"),
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
        );
    }
}
