//! The layout of an index on disk.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::tasks::error::EvalError;
use crate::tasks::files::{hex, write_file};

/// First bytes of an index.
pub const MAGIC: &[u8; 8] = b"EMUFEAT1";

/// Header of an index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Name of the model that computed the vectors.
    pub model: String,
    /// Length of a vector.
    pub dim: usize,
    /// SHA-256 of the names and file sizes of the media; null in an index that was computed elsewhere.
    pub inputs_sha256: Option<String>,
    /// SHA-256 of the vectors' bytes; null in an index that was computed elsewhere.
    pub vectors_sha256: Option<String>,
    /// [`Media::name`] of each row.
    pub names: Vec<String>,
}

/// Writes an index, with the hash of its vectors.
pub fn finish(path: &Path, mut header: Header, body: &[u8]) -> Result<(), EvalError> {
    header.vectors_sha256 = Some(hex(Sha256::digest(body).as_slice()));
    let json = serde_json::to_vec(&header).map_err(|error| EvalError::Io {
        verb: "write",
        path: path.to_owned(),
        source: error.into(),
    })?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend(u32::try_from(json.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(json);
    bytes.extend(body);
    write_file(path, &bytes)
}
