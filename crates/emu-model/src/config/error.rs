//! Error of an invalid configuration.

/// An invalid configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "The model configuration is wrong: {0}. Correct it, or take one of the presets emu-14b, emu-mini or tiny."
)]
pub struct ConfigError(pub String);
