//! What is read at most.

/// Longest text that is encoded at once, in bytes.
pub const MAX_TEXT_BYTES: usize = 4 << 20;
/// Largest tokenizer file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 64 << 20;
