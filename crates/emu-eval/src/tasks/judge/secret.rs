//! A key that is never printed.

use std::fmt;

/// A key for a judge's address. Neither messages nor files contain it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a key.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// The key, for the header of a request.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0.trim())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_printed() {
        assert_eq!(
            format!("{:?}", Some(Secret::new("abc"))),
            "Some(Secret(...))"
        );
    }
}
