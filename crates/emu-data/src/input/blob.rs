//! Bytes that are read when they are needed.

use std::borrow::Cow;
use std::fs::{self, File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use crate::build::Skip;
use crate::writer::sha256_hex;

/// Largest file that is read: the decoders' own limit.
const MAX_BYTES: u64 = 256 << 20;

/// Where bytes lie, or the bytes. Its serialized form changes when the bytes do (for files: their length or time), and not
/// when the source is moved.
#[derive(Debug, Clone)]
pub(crate) enum Blob {
    /// A file.
    File { path: Arc<Path>, stamp: Stamp },
    /// A part of a file, such as a member of a tar.
    Range {
        path: Arc<Path>,
        stamp: Stamp,
        offset: u64,
        bytes: u64,
    },
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
    /// Bytes in memory, as base64.
    Base64(Arc<str>),
}

/// Length and time of change of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Stamp {
    bytes: u64,
    nanoseconds: u64,
}

impl Stamp {
    pub fn of(file: &Metadata) -> Self {
        let changed = file.modified().ok();
        let since = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self {
            bytes: file.len(),
            nanoseconds: since.unwrap_or_default().as_nanos() as u64,
        }
    }
}

impl Blob {
    /// A file; `None` if there is none at this path.
    pub fn file(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok().filter(Metadata::is_file)?;
        Some(Self::File {
            path: path.into(),
            stamp: Stamp::of(&file),
        })
    }

    /// Number of bytes; for base64 an estimate.
    pub fn len(&self) -> u64 {
        match self {
            Self::File { stamp, .. } => stamp.bytes,
            Self::Range { bytes, .. } => *bytes,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Base64(text) => text.len() as u64 / 4 * 3,
        }
    }

    /// Bytes of memory in use.
    pub fn held(&self) -> usize {
        match self {
            Self::File { .. } | Self::Range { .. } => 0,
            Self::Bytes(bytes) => bytes.len(),
            Self::Base64(text) => text.len(),
        }
    }

    /// The bytes.
    pub fn read(&self) -> Result<Cow<'_, [u8]>, Skip> {
        let failed = |error: std::io::Error| Skip::new("file cannot be read", error);
        if self.len() > MAX_BYTES {
            let detail = format!("{} bytes, at most {MAX_BYTES} are read", self.len());
            return Err(Skip::new("file is too large", detail));
        }
        Ok(match self {
            Self::File { path, .. } => Cow::Owned(fs::read(path).map_err(failed)?),
            Self::Range {
                path,
                offset,
                bytes,
                ..
            } => {
                let mut file = File::open(path).map_err(failed)?;
                file.seek(SeekFrom::Start(*offset)).map_err(failed)?;
                let mut read = vec![0; *bytes as usize];
                file.read_exact(&mut read).map_err(failed)?;
                Cow::Owned(read)
            }
            Self::Bytes(bytes) => Cow::Borrowed(bytes),
            Self::Base64(text) => Cow::Owned(
                STANDARD
                    .decode(text.trim())
                    .map_err(|error| Skip::new("picture is no base64", error))?,
            ),
        })
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::File { stamp, .. } => stamp.serialize(to),
            Self::Range {
                stamp,
                offset,
                bytes,
                ..
            } => (stamp, offset, bytes).serialize(to),
            Self::Bytes(bytes) => sha256_hex(bytes).serialize(to),
            Self::Base64(text) => sha256_hex(text.as_bytes()).serialize(to),
        }
    }
}
