//! Verification of files against the manifest.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::PackError;

/// Checks the bytes of a file against length and hash.
pub(crate) fn verify_bytes(
    file: &str,
    (expected, sha256): (u64, &str),
    bytes: &[u8],
) -> Result<(), PackError> {
    compare_len(file, expected, bytes.len() as u64)?;
    compare_hash(file, sha256, Sha256::digest(bytes).as_slice())
}

pub(crate) fn compare_len(file: &str, expected: u64, found: u64) -> Result<(), PackError> {
    let file = file.to_owned();
    match found.cmp(&expected) {
        std::cmp::Ordering::Less => Err(PackError::ShortFile {
            file,
            expected,
            found,
        }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(PackError::LongFile {
            file,
            expected,
            found,
        }),
    }
}

pub(crate) fn compare_hash(file: &str, expected: &str, hash: &[u8]) -> Result<(), PackError> {
    match hex(hash) {
        found if found == expected => Ok(()),
        found => Err(PackError::WrongHash {
            file: file.into(),
            expected: expected.into(),
            found,
        }),
    }
}

/// Bytes, such as those of a hash, as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
