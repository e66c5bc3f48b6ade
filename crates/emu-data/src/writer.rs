//! Writes WebDataset shards reproducibly: the bytes depend on the contents only.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::DataError;

/// One file of a sample: its extension after the key ("json", "png", "0.png") and its bytes.
pub type Member = (String, Vec<u8>);

/// The files of one sample.
#[derive(Debug, Clone)]
pub struct SampleFiles {
    /// Key, unique in its shard, without dots.
    pub key: String,
    /// Members in the order of writing.
    pub members: Vec<Member>,
}

/// A written shard, as listed in `index.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardInfo {
    /// Path below the data set's folder, with forward slashes.
    pub file: String,
    /// Split ("train").
    pub split: String,
    /// Kind of the samples ("scenes").
    pub kind: String,
    /// Number of samples.
    pub samples: usize,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// Writes samples as a tar file and returns its size and SHA-256. Owner, group and time are zero.
///
/// The file is visible under its name only once it is complete.
///
/// # Errors
/// If a name does not fit into a tar header or the file cannot be written.
pub fn write_shard(path: &Path, samples: &[SampleFiles]) -> Result<(u64, String), DataError> {
    let mut builder = tar::Builder::new(Vec::new());
    for sample in samples {
        for (extension, bytes) in &sample.members {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_entry_type(tar::EntryType::Regular);
            builder
                .append_data(
                    &mut header,
                    format!("{}.{extension}", sample.key),
                    bytes.as_slice(),
                )
                .map_err(DataError::io("add a member to", path))?;
        }
    }
    let bytes = builder
        .into_inner()
        .map_err(DataError::io("finish", path))?;
    write_atomically(path, &bytes)?;
    Ok((bytes.len() as u64, sha256_hex(&bytes)))
}

/// Writes a file under a temporary name, then renames it.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(DataError::io("create", folder))?;
    }
    let mut name = path.as_os_str().to_os_string();
    name.push(".part");
    let part = Path::new(&name);
    fs::write(part, bytes).map_err(DataError::io("write", part))?;
    fs::rename(part, path).map_err(DataError::io("rename a finished file to", path))
}

/// SHA-256 in hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
