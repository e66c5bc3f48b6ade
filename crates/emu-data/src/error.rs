//! Errors of fetching, building and reading data.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// An error of this crate, and of the builders of emu-train. Each message says what is wrong and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}. Check that the path exists, that it may be accessed and that the disk is not full", .path.display())]
    Io {
        /// The operation, as a verb ("read", "write").
        action: &'static str,
        /// The file or folder concerned.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The program `npm` could not be started.
    #[error(
        "cannot start npm: {source}. Install Node.js (which brings npm), or copy a folder with the packages already installed and pass it as the source folder"
    )]
    NpmMissing {
        /// The system's error.
        source: std::io::Error,
    },
    /// `npm install` ran and failed.
    #[error(
        "npm install failed ({status}): {tail}. Check the connection to the package registry, then run the command again"
    )]
    NpmFailed {
        /// Exit status of npm as text.
        status: String,
        /// The end of npm's output.
        tail: String,
    },
    /// A source package is missing, incomplete or of another version.
    #[error("the source package {package} {wanted} is not usable in {}: {found}. Delete that folder and fetch the sources again", .dir.display())]
    Package {
        /// Name of the package.
        package: String,
        /// The required version.
        wanted: String,
        /// The folder searched.
        dir: PathBuf,
        /// What was found instead.
        found: String,
    },
    /// A JSON, TOML or SVG source does not have the expected form.
    #[error("{} is malformed: {message}. Restore the file, or correct it at that place", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was expected.
        message: String,
    },
    /// A path with a pattern that cannot be read.
    #[error("the pattern {} is malformed: {message}. Write it like shards/*.tar or shards/{{000..099}}.tar", .pattern.display())]
    Pattern {
        /// The path.
        pattern: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The list of concepts is inconsistent, in itself or with the sources.
    #[error(
        "the concept list is unusable: {0}. Correct the list (configs/data/emoji.toml describes its fields)"
    )]
    Concepts(String),
    /// The build options contain an invalid size or count.
    #[error("these build options are unusable: {0}. Change the option named")]
    Options(String),
    /// A drawing could not be rendered.
    #[error(
        "the drawing of {name:?} in {set} cannot be rendered: {message}. List that set under `skip` for this concept"
    )]
    Drawing {
        /// Name of the concept.
        name: String,
        /// Drawing set.
        set: String,
        /// The renderer's error.
        message: String,
    },
    /// No scene met the constraints of its split.
    #[error(
        "no {what} could be composed after {attempts} attempts. Use more concepts or hold out fewer combinations"
    )]
    Impossible {
        /// Description of the scene or picture.
        what: String,
        /// Number of attempts.
        attempts: usize,
    },
    /// The tokenizer could not be trained, or does not meet its requirements.
    #[error("the tokenizer cannot be built: {0}. Check the corpus, or allow a larger vocabulary")]
    Tokenizer(String),
    /// The output folder already holds a finished data set.
    #[error("{} already holds a data set. Choose another folder, or overwrite it with --overwrite", .0.display())]
    Exists(PathBuf),
    /// A source of a builder is of no layout that it reads.
    #[error("{} cannot be read as {kind}: {message}", .path.display())]
    Source {
        /// What was to be built ("pairs").
        kind: &'static str,
        /// The source.
        path: PathBuf,
        /// What was found, and what to do, as sentences.
        message: String,
    },
    /// An unfinished build in the output folder is of other options or of another source.
    #[error("{} holds an unfinished build, and {what} since it was begun. Restore that to continue the build, choose another folder, or begin anew with --overwrite", .folder.display())]
    Changed {
        /// The output folder.
        folder: PathBuf,
        /// What changed, as a clause.
        what: String,
    },
    /// Another process builds in the output folder.
    #[error("another build is at work in {}. Wait for its end, or choose another folder", .0.display())]
    Busy(PathBuf),
    /// A build kept no sample.
    #[error("no sample of {} is usable: {reasons}. Correct the source, or relax the filters", .source_path.display())]
    NothingKept {
        /// The source.
        source_path: PathBuf,
        /// The most frequent reasons.
        reasons: String,
    },
    /// No shard was found at the path.
    #[error("no .tar shard was found at {}. Name a folder of shards, or the shards themselves", .0.display())]
    NoShards(PathBuf),
    /// A shard is not a readable tar file.
    #[error("the shard {} is damaged near byte {offset}: {message}. Copy or build it again", .path.display())]
    Shard {
        /// The shard.
        path: PathBuf,
        /// Byte offset at which reading stopped.
        offset: u64,
        /// What is wrong at that offset.
        message: String,
    },
    /// A sample of a shard is unusable.
    #[error("{0}. Remove it from the shard, or build the shard again")]
    Sample(BadSample),
    /// A sample index beyond the end.
    #[error("there is no sample {index} in a data set of {len}. Ask for an index below {len}")]
    OutOfRange {
        /// The index asked for.
        index: usize,
        /// Number of samples.
        len: usize,
    },
    /// A mixture of data sets is invalid.
    #[error(
        "the mixture of data sets is unusable: {0}. Give every part a positive weight and at least one usable sample"
    )]
    Mixture(String),
    /// A picture's size does not match its number of bytes, or the codec failed.
    #[error("the picture is unusable: {0}")]
    Picture(String),
}

/// A sample that cannot be used for training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("the sample {key:?} of {} is unusable: {reason}", .shard.display())]
pub struct BadSample {
    /// The shard.
    #[serde(serialize_with = "lossy")]
    pub shard: PathBuf,
    /// Key of the sample.
    pub key: String,
    /// The reason, without a full stop.
    pub reason: String,
}

/// Serialises a path as JSON text; characters that are not Unicode are replaced.
fn lossy<S: serde::Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

impl BadSample {
    /// A bad sample with its reason.
    pub fn new(shard: impl AsRef<Path>, key: impl Into<String>, reason: impl ToString) -> Self {
        Self {
            shard: shard.as_ref().to_path_buf(),
            key: key.into(),
            reason: reason.to_string().trim_end_matches('.').to_string(),
        }
    }
}

impl DataError {
    /// Wraps an I/O error with the attempted action.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// A file with malformed contents.
    pub fn malformed(path: impl AsRef<Path>, message: impl ToString) -> Self {
        Self::Malformed {
            path: path.as_ref().to_path_buf(),
            message: message.to_string(),
        }
    }
}
