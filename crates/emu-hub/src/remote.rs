//! A file on the hub, read in parts.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};

use crate::client::{Client, Purpose, Reply};
use crate::{Address, HubError, Options};

/// Bytes of one request.
const BLOCK: u64 = 1 << 18;
/// Blocks that are kept.
const KEPT: usize = 64;
/// Bytes that are read and dropped at most, where a server sends whole files only.
const SKIPPED: u64 = 16 << 20;

/// A file of a repository, to be read and searched like one on disk. Only the parts that are read are transferred, so that the
/// header of a checkpoint of many gigabytes takes a few requests.
///
/// Errors of the hub are the sources of its [`io::Error`]s.
pub struct RemoteFile {
    client: Client,
    address: Address,
    path: String,
    url: String,
    size: u64,
    at: u64,
    /// Blocks by number, the latest first.
    blocks: VecDeque<(u64, Vec<u8>)>,
}

impl RemoteFile {
    /// Opens a file at a commit, which a [`Listing`](crate::Listing) names. Fetches its first block.
    ///
    /// # Errors
    /// If it does not exist or may not be read, or the server cannot be reached.
    pub fn open(
        address: &Address,
        commit: &str,
        path: &str,
        options: &Options,
    ) -> Result<Self, HubError> {
        let client = Client::new(options);
        let mut file = Self {
            url: client.file_url(address, commit, path),
            client,
            address: address.clone(),
            path: path.into(),
            size: 0,
            at: 0,
            blocks: VecDeque::new(),
        };
        let reply = file.client.get(&file.url, Some((0, Some(BLOCK))))?;
        if reply.status == 416 {
            // An empty file has no first byte.
            return Ok(file);
        }
        let reply = reply.checked(file.purpose(), options)?;
        let size = match reply.status {
            206 => reply.content_range().and_then(|(_, total)| total),
            _ => reply.content_length().or(reply.linked_size),
        };
        file.size = size.ok_or_else(|| HubError::Answer {
            url: reply.url.clone(),
            reason: "it states no length".into(),
        })?;
        let bytes = file.body(reply, 0)?;
        file.blocks.push_front((0, bytes));
        Ok(file)
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn purpose(&self) -> Purpose<'_> {
        Purpose {
            address: &self.address,
            path: Some(&self.path),
        }
    }

    /// Makes sure that a block is first among those kept.
    fn load(&mut self, number: u64) -> Result<(), HubError> {
        if let Some(found) = self.blocks.iter().position(|(kept, _)| *kept == number) {
            if let Some(block) = self.blocks.remove(found) {
                self.blocks.push_front(block);
            }
            return Ok(());
        }
        let first = number * BLOCK;
        let reply = self
            .client
            .get(&self.url, Some((first, Some(first + BLOCK))))?;
        let reply = reply.checked(self.purpose(), &self.client.options)?;
        let bytes = self.body(reply, first)?;
        self.blocks.push_front((number, bytes));
        self.blocks.truncate(KEPT);
        Ok(())
    }

    /// Reads the block that begins at byte `first` from an answer.
    fn body(&self, reply: Reply, first: u64) -> Result<Vec<u8>, HubError> {
        let url = reply.url.clone();
        let wrong = |reason: &str| HubError::Answer {
            url: url.clone(),
            reason: reason.into(),
        };
        let whole = reply.status == 200;
        if whole && first > SKIPPED {
            return Err(HubError::NoRanges { url });
        }
        if !whole && !matches!(reply.content_range(), Some((start, _)) if start == first) {
            return Err(wrong("it is another part of the file than was asked for"));
        }
        let broken = |error: io::Error| HubError::Unreachable {
            host: url.clone(),
            reason: error.to_string(),
        };
        let length = BLOCK.min(self.size - first);
        let mut reader = reply.reader();
        if whole {
            let skipped = io::copy(&mut reader.by_ref().take(first), &mut io::sink());
            skipped.map_err(broken)?;
        }
        let mut bytes = vec![];
        let read = reader.take(length).read_to_end(&mut bytes);
        read.map_err(broken)?;
        match bytes.len() as u64 == length {
            true => Ok(bytes),
            false => Err(wrong("it is shorter than stated")),
        }
    }
}

impl Read for RemoteFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.size || buffer.is_empty() {
            return Ok(0);
        }
        self.load(self.at / BLOCK).map_err(io::Error::other)?;
        let from = (self.at % BLOCK) as usize;
        let block = self.blocks.front().and_then(|(_, bytes)| bytes.get(from..));
        let block = block.unwrap_or_default();
        let count = block.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), block.get(..count)) {
            to.copy_from_slice(from);
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for RemoteFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl std::fmt::Debug for RemoteFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteFile")
            .field("path", &self.path)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
