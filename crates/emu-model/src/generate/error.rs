//! Errors of generation, and the read-back of results.

use burn::tensor::Tensor;
use emu_kernels::cache::CacheFull;
use emu_kernels::count;
use emu_kernels::decode_session::DecodeError;

use crate::lm::NoRegressionHead;
use crate::splice::SpliceError;

/// Why a generation cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// Number of image marks and images differ.
    #[error(transparent)]
    Splice(#[from] SpliceError),
    /// Prompt and requested tokens exceed the context.
    #[error(
        "The prompt of {prompt} tokens leaves no room for {wanted} more in the context of {context}. Shorten the prompt, use fewer pictures, or ask for fewer new tokens."
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Minimum number of tokens to generate.
        wanted: usize,
        /// Context length.
        context: usize,
    },
    /// The KV cache reserved for the prompt is full.
    #[error(transparent)]
    CacheFull(#[from] CacheFull),
    /// An empty prompt.
    #[error("The prompt is empty. Give at least one token.")]
    Empty,
    /// An option out of range.
    #[error("The generation option {option} is {value}. {advice}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Given value.
        value: String,
        /// What to use instead.
        advice: &'static str,
    },
    /// An image is requested from a model that regresses no embeddings.
    #[error("This model reads pictures but draws none. Ask in words, or use a model that draws.")]
    DrawsNothing,
    /// The device failed during a read-back.
    #[error("The device failed while computing: {0}. Try again, or use --device cpu.")]
    Device(String),
    /// The model computed a non-finite value.
    #[error(
        "The model computed values that are not finite. Its weights are broken, or the device miscalculates: try --device cpu."
    )]
    NotFinite,
}

impl From<NoRegressionHead> for GenerateError {
    fn from(_: NoRegressionHead) -> Self {
        Self::DrawsNothing
    }
}

impl From<DecodeError> for GenerateError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Cache(full) => Self::CacheFull(full),
            DecodeError::Device(reason) => Self::Device(reason),
            DecodeError::NotFinite => Self::NotFinite,
        }
    }
}

impl GenerateError {
    /// Stable error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Splice(_) => "image-marks",
            Self::TooLong { .. } | Self::CacheFull(_) => "prompt-too-long",
            Self::Empty => "prompt-empty",
            Self::Option { .. } => "bad-option",
            Self::DrawsNothing => "no-component",
            Self::Device(_) => "device",
            Self::NotFinite => "not-finite",
        }
    }
}

/// Reads a tensor back as f32.
///
/// # Errors
/// If the device fails.
pub async fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, GenerateError> {
    let data = tensor
        .into_data_async()
        .await
        .map_err(|e| GenerateError::Device(e.to_string()))?;
    count::read_back(data.bytes().len());
    data.convert::<f32>()
        .try_into_vec::<f32>()
        .map_err(|e| GenerateError::Device(format!("{e:?}")))
}
