//! Errors of training.

use std::path::{Path, PathBuf};

use crate::bad::TooManyBad;
use crate::data::DataError;

/// A training error: one sentence on what is wrong, one on what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The operating system refused a file operation.
    #[error("Cannot {action} {}: {source}. Check the path, its permissions and the space left.", .path.display())]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// No space left while something was saved.
    #[error(
        "The disk is full: {} could not be written. Free some space and run again with --resume; earlier checkpoints are intact.",
        .path.display()
    )]
    DiskFull {
        /// The file that did not fit.
        path: PathBuf,
    },
    /// A configuration that cannot be parsed.
    #[error("The training configuration {} cannot be read: {message}. Correct it at that place.", .path.display())]
    ConfigSyntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what was expected there.
        message: String,
    },
    /// An invalid value in the configuration.
    #[error("The training configuration is wrong at `{key}`: {message}. Correct that value.")]
    Config {
        /// The full key, including its table.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// A run is resumed with different settings.
    #[error(
        "The run in {} was started with other settings ({differences}). Restore them, or train into another folder.",
        .out.display()
    )]
    ConfigChanged {
        /// Folder of the run.
        out: PathBuf,
        /// Every key that differs, with the old and the new value.
        differences: String,
    },
    /// The folder already holds a run.
    #[error("{} already holds a run (up to step {step}). Continue it with --resume, or train into another folder.", .out.display())]
    RunExists {
        /// Folder of the run.
        out: PathBuf,
        /// Step of its newest checkpoint.
        step: u64,
    },
    /// Another process is training into the folder.
    #[error("Another process is training into {}. Wait for it or stop it, or train into another folder.", .out.display())]
    Locked {
        /// Folder of the run.
        out: PathBuf,
    },
    /// A checkpoint that cannot be used.
    #[error("The checkpoint {} cannot be used: {reason}. Take an earlier one, or start again.", .path.display())]
    Checkpoint {
        /// Its folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The adapters of a run belong to parts that learned with them.
    #[error(
        "In the run {} not only adapters learned, but {others} too, which a pack with its adapters alone would lack. \
         Convert the run itself: emu convert {}.", .path.display(), .path.display()
    )]
    NotAlone {
        /// Folder of the run.
        path: PathBuf,
        /// The other parts.
        others: String,
    },
    /// The loss or a gradient is not finite.
    #[error(
        "Step {step} gave {what} that is not finite, for the batch [{batch}]. \
         Lower the learning rate or remove those samples, then run with --resume: the last checkpoint is intact."
    )]
    NotFinite {
        /// The step, counted from 0.
        step: u64,
        /// "a loss", "a gradient of `name`".
        what: String,
        /// Keys of the samples.
        batch: String,
    },
    /// The objective has collapsed: it no longer gives a useful gradient.
    #[error(
        "Training has collapsed at step {step}: {reason}. Go back to an earlier checkpoint and lower the learning rate."
    )]
    Collapsed {
        /// The step, counted from 0.
        step: u64,
        /// The reason.
        reason: String,
    },
    /// Too many samples are unusable.
    #[error(transparent)]
    BadSamples(Box<TooManyBad>),
    /// Data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A background thread ended without a result.
    #[error("The thread that prepares batches ended unexpectedly: {0}. Run again with --resume.")]
    Worker(String),
    /// A stage failed.
    #[error("{0}")]
    Stage(String),
    /// Weights could not be read or written.
    #[error(transparent)]
    Pack(#[from] emu_pack::PackError),
    /// Any other error of a stage, with its own message and code.
    #[error("{source}")]
    Other {
        /// Its stable error code.
        code: &'static str,
        /// The error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<TooManyBad> for TrainError {
    fn from(error: TooManyBad) -> Self {
        Self::BadSamples(Box::new(error))
    }
}

impl TrainError {
    /// The stable error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::DiskFull { .. } => "disk-full",
            Self::ConfigSyntax { .. } => "config-syntax",
            Self::Config { .. } => "config",
            Self::ConfigChanged { .. } => "config-changed",
            Self::RunExists { .. } => "run-exists",
            Self::Locked { .. } => "locked",
            Self::Checkpoint { .. } => "checkpoint",
            Self::NotAlone { .. } => "adapters-not-alone",
            Self::NotFinite { .. } => "not-finite",
            Self::Collapsed { .. } => "collapsed",
            Self::BadSamples(_) => "bad-samples",
            Self::Data(_) => "data",
            Self::Worker(_) => "worker",
            Self::Stage(_) => "stage",
            Self::Pack(error) => error.code(),
            Self::Other { code, .. } => code,
        }
    }

    /// An invalid value in the configuration.
    pub fn config(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Config {
            key: key.into(),
            message: message.into(),
        }
    }

    /// An error of another type, with a stable error code.
    pub fn other(
        code: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Other {
            code,
            source: Box::new(source),
        }
    }

    /// Wraps a system error with the attempted action. A full disk becomes [`TrainError::DiskFull`].
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| {
            use std::io::ErrorKind::{QuotaExceeded, StorageFull, WriteZero};
            match source.kind() {
                StorageFull | QuotaExceeded | WriteZero => Self::DiskFull { path },
                _ => Self::Io {
                    action,
                    path,
                    source,
                },
            }
        }
    }
}
