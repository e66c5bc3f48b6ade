//! The files that a fetch would take, read where they are.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::client::absent;
use crate::fetch::missing;
use crate::{Address, Entry, HubError, Options, RemoteFile, choose, listing};

/// A file that can be read and searched.
pub trait Contents: Read + Seek + Send {}

impl<T: Read + Seek + Send> Contents for T {}

/// What [`fetch`](crate::fetch) would take of a repository, without fetching it. A file is read from the cache, or in parts from
/// the server.
#[derive(Debug)]
pub struct Remote {
    address: Address,
    options: Options,
    commit: String,
    entries: Vec<Entry>,
    /// The cache's folder of the commit.
    snapshot: PathBuf,
    missing: u64,
}

impl Remote {
    /// Lists a repository and chooses files as a fetch does. Where the server cannot be reached, the cache is listed.
    ///
    /// # Errors
    /// As [`listing`] and [`choose`].
    pub fn open(address: &Address, options: &Options) -> Result<Self, HubError> {
        let cache = Cache::new(address, options);
        let (listing, online) = match listing(address, options) {
            Err(error @ HubError::Unreachable { .. }) => {
                (cache.listing(address).map_err(|_| error)?, false)
            }
            listing => (listing?, !options.offline),
        };
        let chosen = choose(&listing, address, options)?;
        Ok(Self {
            missing: if online { missing(&cache, &chosen) } else { 0 },
            entries: chosen.into_iter().cloned().collect(),
            snapshot: cache.snapshot(&listing.commit),
            commit: listing.commit,
            address: address.clone(),
            options: options.clone(),
        })
    }

    /// The address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The hub's cache folder, to which a fetch would transfer.
    pub fn cache(&self) -> &Path {
        &self.options.cache
    }

    /// The chosen files, by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Bytes of all chosen files whose size the server states.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().filter_map(|entry| entry.size).sum()
    }

    /// Bytes that a fetch would transfer: those of files that the cache does not have.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Opens a chosen file. From the server, only the parts that are read are transferred.
    ///
    /// # Errors
    /// The path is not among [`Remote::entries`], or the file cannot be opened.
    pub fn file(&self, path: &str) -> Result<Box<dyn Contents>, HubError> {
        self.options.go_on()?;
        if !self.entries.iter().any(|entry| entry.path == path) {
            return Err(absent(&self.address, path));
        }
        if let Ok(file) = File::open(self.snapshot.join(path)) {
            return Ok(Box::new(file));
        }
        let file = RemoteFile::open(&self.address, &self.commit, path, &self.options)?;
        Ok(Box::new(file))
    }

    /// Reads a small file, such as a configuration, as a whole. It is not kept.
    ///
    /// # Errors
    /// As [`Remote::file`], or if the file has more than `limit` bytes.
    pub fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, HubError> {
        let mut file = self.file(path)?;
        let failed = |error: std::io::Error| match error.downcast::<HubError>() {
            Ok(error) => error,
            Err(error) => HubError::io(path.as_ref(), error),
        };
        let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if size > limit {
            return Err(HubError::Large {
                file: path.into(),
                bytes: size,
                limit,
            });
        }
        file.rewind().map_err(failed)?;
        let mut bytes = vec![];
        file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}
