//! Contents and their hashes.

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Bytes that differ everywhere.
pub fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

pub fn git(bytes: &[u8]) -> String {
    let header = format!("blob {}\0", bytes.len());
    let digest = Sha1::new().chain_update(header).chain_update(bytes);
    hex(digest.finalize().as_slice())
}
