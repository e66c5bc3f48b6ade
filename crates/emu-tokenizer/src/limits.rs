//! Size limits.

/// Maximum length of a text to encode, in bytes.
pub const MAX_TEXT_BYTES: usize = 4 << 20;
/// Maximum size of a tokenizer file, in bytes.
pub const MAX_FILE_BYTES: usize = 64 << 20;
