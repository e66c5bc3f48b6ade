//! Errors of opening a device.

/// Error of opening a device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No adapter was found.
    #[error(
        "No GPU adapter was found: {reason}. Use --device cpu, or install a Vulkan driver (mesa-vulkan-drivers has a software one)."
    )]
    NoAdapter {
        /// The graphics API's error.
        reason: String,
    },
    /// No adapter has this index or name.
    #[error(
        "No adapter is called {wanted} ({listed}). Choose auto, gpu, cpu, or one of `emu devices`."
    )]
    UnknownAdapter {
        /// The requested adapter.
        wanted: String,
        /// The available adapters.
        listed: String,
    },
    /// The name matches several adapters.
    #[error("Several adapters are called {wanted}: {listed}. Choose one by its number.")]
    AmbiguousAdapter {
        /// The requested adapter.
        wanted: String,
        /// The matching adapters.
        listed: String,
    },
    /// The requested adapter could not be opened, or another one was opened instead.
    #[error(
        "The adapter {wanted} cannot be opened: {reason}. Choose another one of `emu devices`, or use --device cpu."
    )]
    NotOpened {
        /// The requested adapter.
        wanted: String,
        /// The reason.
        reason: String,
    },
}
