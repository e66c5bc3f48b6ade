//! Why a device could not be had.

/// Why a device could not be had.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No adapter answers.
    #[error(
        "No GPU adapter was found: {reason}. Use --device cpu, or install a Vulkan driver (mesa-vulkan-drivers has a software one)."
    )]
    NoAdapter {
        /// What the graphics API said.
        reason: String,
    },
    /// No adapter has this number or name.
    #[error(
        "No adapter is called {wanted} ({listed}). Choose auto, gpu, cpu, or one of `emu devices`."
    )]
    UnknownAdapter {
        /// What was asked for.
        wanted: String,
        /// Those that there are.
        listed: String,
    },
    /// Several adapters have a name like this.
    #[error("Several adapters are called {wanted}: {listed}. Choose one by its number.")]
    AmbiguousAdapter {
        /// What was asked for.
        wanted: String,
        /// Those that fit.
        listed: String,
    },
    /// Another adapter came than was asked for.
    #[error(
        "The adapter {wanted} cannot be opened: {reason}. Choose another one of `emu devices`, or use --device cpu."
    )]
    NotOpened {
        /// What was asked for.
        wanted: String,
        /// Why not.
        reason: String,
    },
}
