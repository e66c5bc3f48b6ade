//! What can stop a generation, and reading its results.

use burn::tensor::Tensor;
use emu_kernels::cache::CacheFull;
use emu_kernels::count;
use emu_kernels::decode_session::DecodeError;

use crate::splice::SpliceError;

/// Why a generation cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// Marks and pictures do not match.
    #[error(transparent)]
    Splice(#[from] SpliceError),
    /// The prompt and what is asked for do not fit in the context.
    #[error(
        "The prompt of {prompt} tokens leaves no room for {wanted} more in the context of {context}. Shorten the prompt, use fewer pictures, or ask for fewer new tokens."
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens that were to be generated at least.
        wanted: usize,
        /// Positions the model has.
        context: usize,
    },
    /// A step has no room in the cache that the prompt was given.
    #[error(transparent)]
    CacheFull(#[from] CacheFull),
    /// An empty prompt.
    #[error("The prompt is empty. Give at least one token.")]
    Empty,
    /// Options that make no sense.
    #[error("The generation option {option} is {value}. {advice}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What was given.
        value: String,
        /// What it should be.
        advice: &'static str,
    },
    /// A picture is asked for of a model that regresses none.
    #[error("This model reads pictures but draws none. Ask in words, or use a model that draws.")]
    DrawsNothing,
    /// A device failed while results were read.
    #[error("The device failed while computing: {0}. Try again, or use --device cpu.")]
    Device(String),
    /// The model computed something that is not a number.
    #[error(
        "The model computed values that are not finite. Its weights are broken, or the device miscalculates: try --device cpu."
    )]
    NotFinite,
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
    /// A stable name of the error.
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
/// Where the device fails.
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
