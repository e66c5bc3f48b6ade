//! Errors about weights, each with a stable code.

use std::fmt;

use crate::kind::WrongKind;

/// An error about weights: what is wrong, where, and what to do.
///
/// `file` is the path or name the reader was given, `tensor` the tensor's name as that file spells it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The operating system reported an error.
    #[error("{file}: {source}. Check the path, its permissions and the space left.")]
    Io {
        /// Path or name.
        file: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// No space left while writing.
    #[error(
        "{file}: the disk is full. Free some space and run again; nothing that existed before was changed."
    )]
    DiskFull {
        /// Path being written.
        file: String,
    },
    /// A file of another kind than expected.
    #[error("{file} {kind}.")]
    WrongFile {
        /// Path or name.
        file: String,
        /// The detected kind.
        kind: WrongKind,
    },
    /// One part of a split model, without the others.
    #[error(
        "{file} is part {part} of {count} of a model, and {missing}. Put all parts into one folder, under the names that they were published with."
    )]
    PartOfModel {
        /// Path or name.
        file: String,
        /// Number of the part, from 1.
        part: u64,
        /// Number of parts.
        count: u64,
        /// What is known about the missing parts.
        missing: String,
    },
    /// A file is shorter than its content.
    #[error(
        "{file} is {found} bytes long where {expected} are needed. Download or convert it again."
    )]
    ShortFile {
        /// Path or name.
        file: String,
        /// Bytes needed.
        expected: u64,
        /// Bytes present.
        found: u64,
    },
    /// A file is longer than declared.
    #[error(
        "{file} is {found} bytes long where {expected} were declared. Download or convert it again."
    )]
    LongFile {
        /// Path or name.
        file: String,
        /// Bytes declared.
        expected: u64,
        /// Bytes present.
        found: u64,
    },
    /// An invalid safetensors header.
    #[error("{file} is not a valid safetensors file: {reason}. Download or convert it again.")]
    BadHeader {
        /// Path or name.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A duplicate tensor name.
    #[error("{file} holds the tensor `{tensor}` twice. Remove one of the two.")]
    DuplicateTensor {
        /// Path or name (or both, where two files share a name).
        file: String,
        /// Name of the tensor.
        tensor: String,
    },
    /// An unsupported tensor type.
    #[error(
        "{file}: tensor `{tensor}` has the type {dtype}, which is not supported. Save it as F32, F16 or BF16."
    )]
    UnsupportedDtype {
        /// Path or name.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// The type as spelled in the file.
        dtype: String,
    },
    /// A tensor of an unsuitable type.
    #[error("tensor `{tensor}` has the type {found}, but {wanted} is needed. Convert it first.")]
    WrongDtype {
        /// Name of the tensor.
        tensor: String,
        /// Its type.
        found: String,
        /// Suitable types.
        wanted: &'static str,
    },
    /// A missing tensor.
    #[error("{file} has no tensor `{tensor}`. The file belongs to another model or is incomplete.")]
    MissingTensor {
        /// Path or name.
        file: String,
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor that the manifest does not list.
    #[error(
        "{file} holds the tensor `{tensor}`, which the manifest does not list. Convert the model again."
    )]
    UnknownTensor {
        /// Path or name.
        file: String,
        /// Name of the tensor.
        tensor: String,
    },
    /// Duplicate rows of a tensor.
    #[error(
        "{file} brings rows {begin} to {end} of the tensor `{tensor}`, which came before. Give each shard once, or unload its component first."
    )]
    RowsTwice {
        /// Name of the shard.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// The first row.
        begin: usize,
        /// The row after the last.
        end: usize,
    },
    /// A tensor with the wrong type or shape.
    #[error(
        "{file}: tensor `{tensor}` is {found}, but {expected} is needed. The file belongs to another model or is damaged."
    )]
    Misshapen {
        /// Path or name.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Type and shape needed.
        expected: String,
        /// Type and shape found.
        found: String,
    },
    /// The byte length of a tensor does not match its shape.
    #[error(
        "tensor `{tensor}` has {found} bytes where its shape needs {expected}. The file is damaged."
    )]
    WrongLength {
        /// Name of the tensor.
        tensor: String,
        /// Bytes its shape needs.
        expected: u64,
        /// Bytes present.
        found: u64,
    },
    /// A declared size exceeds a limit.
    #[error(
        "{what} declares {size}, more than the limit of {limit}. The file is damaged or hostile."
    )]
    TooLarge {
        /// What declares it.
        what: String,
        /// The size declared.
        size: String,
        /// The limit.
        limit: String,
    },
    /// NaN or infinity in the weights.
    #[error(
        "tensor `{tensor}` holds {value} at element {index}. The checkpoint is broken; use another one."
    )]
    NotFinite {
        /// Name of the tensor.
        tensor: String,
        /// First such element, counted in memory order.
        index: usize,
        /// `NaN`, `inf` or `-inf`.
        value: String,
    },
    /// An inconsistent or incomplete manifest.
    #[error("{file}: {reason}. Convert or download the pack again.")]
    BadManifest {
        /// Path or name.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A pack of an unsupported format version.
    #[error(
        "{file} has the pack format {found}, but only {supported} is read here. Update this program or convert the model again."
    )]
    UnknownFormat {
        /// Path or name.
        file: String,
        /// Version found.
        found: String,
        /// The supported version.
        supported: u32,
    },
    /// The hash of a file differs from the manifest.
    #[error("{file} has the SHA-256 {found}, but the manifest says {expected}. Download it again.")]
    WrongHash {
        /// Path or name.
        file: String,
        /// Hash in the manifest.
        expected: String,
        /// Hash of the bytes.
        found: String,
    },
    /// A file name that could point outside the pack.
    #[error("`{name}` is not a plain file name. Do not use this pack.")]
    BadName {
        /// The name.
        name: String,
    },
    /// The caller's fetch function failed.
    #[error("{file} could not be fetched: {reason}. Check the connection and try again.")]
    Fetch {
        /// Name of the shard.
        file: String,
        /// The message of the fetch function.
        reason: String,
    },
    /// Checkpoint keys and model parameters do not match.
    #[error("{0}")]
    Keys(Box<KeyReport>),
    /// An invalid key map rule.
    #[error("key rule `{rule}`: {reason}. Correct the rule.")]
    BadRule {
        /// The rule.
        rule: String,
        /// What is wrong.
        reason: String,
    },
    /// An invalid storage policy.
    #[error("quantization policy: {reason}. Use none, f16, q8, q4, q4_1 or a TOML file.")]
    BadPolicy {
        /// What is wrong.
        reason: String,
    },
    /// An invalid or unsupported pickle.
    #[error(
        "{file}: pickle byte {offset}: {reason}. Save the checkpoint again with torch.save(model.state_dict(), file)."
    )]
    BadPickle {
        /// Path or name.
        file: String,
        /// Offset within `data.pkl`.
        offset: usize,
        /// What is wrong.
        reason: String,
    },
    /// A pickle uses a callable that is not allowed.
    #[error(
        "{file} wants to call `{name}`, which a file of plain weights does not need. Do not trust this file, or save only its state_dict."
    )]
    ForbiddenGlobal {
        /// Path or name.
        file: String,
        /// Module and name of the callable.
        name: String,
    },
    /// An invalid PyTorch archive.
    #[error("{file}: {reason}. Save the checkpoint again with a current PyTorch.")]
    BadArchive {
        /// Path or name.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// An invalid GGUF file.
    #[error(
        "{file} cannot be read as GGUF: {reason}. Download it again, or convert it with a current llama.cpp."
    )]
    BadGguf {
        /// Path or name.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A GGUF tensor of an unsupported block type.
    #[error(
        "{file}: tensor `{tensor}` has the type {dtype}, which is not supported. Take a file of a usual kind: F16, Q8_0, Q6_K, Q5_K_M, Q4_K_M or Q4_0."
    )]
    UnsupportedBlocks {
        /// Path or name.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// The type as spelled by llama.cpp.
        dtype: String,
    },
    /// A checkpoint written on a big-endian machine.
    #[error("{file} was written on a big-endian machine. Save it again on a little-endian one.")]
    BigEndian {
        /// Path or name.
        file: String,
    },
    /// A path without supported weights.
    #[error(
        "{path}: {reason}. Give a .pt, .bin, .safetensors or .gguf file, or a folder of a published model."
    )]
    NoWeights {
        /// The path.
        path: String,
        /// What was expected there.
        reason: String,
    },
    /// The target folder contains something else.
    #[error("{path} exists and is not a pack ({reason}). Choose another folder or empty it.")]
    TargetInUse {
        /// The folder.
        path: String,
        /// What is in the way.
        reason: String,
    },
    /// Values out of range of the narrower type.
    #[error("tensor `{tensor}` cannot be quantized: {reason}. Keep it in f16 or f32.")]
    NotQuantizable {
        /// Name of the tensor.
        tensor: String,
        /// The reason.
        reason: String,
    },
}

impl PackError {
    /// A short error code that is stable between versions, for programs to match on.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::DiskFull { .. } => "disk-full",
            Self::WrongFile { kind, .. } => kind.code(),
            Self::PartOfModel { .. } => "part-of-model",
            Self::ShortFile { .. } => "short-file",
            Self::LongFile { .. } => "long-file",
            Self::BadHeader { .. } => "bad-header",
            Self::DuplicateTensor { .. } => "duplicate-tensor",
            Self::UnsupportedDtype { .. } => "unsupported-dtype",
            Self::WrongDtype { .. } => "wrong-dtype",
            Self::MissingTensor { .. } => "missing-tensor",
            Self::UnknownTensor { .. } => "unknown-tensor",
            Self::RowsTwice { .. } => "rows-twice",
            Self::Misshapen { .. } => "misshapen",
            Self::WrongLength { .. } => "wrong-length",
            Self::TooLarge { .. } => "too-large",
            Self::NotFinite { .. } => "not-finite",
            Self::BadManifest { .. } => "bad-manifest",
            Self::UnknownFormat { .. } => "unknown-format",
            Self::WrongHash { .. } => "wrong-hash",
            Self::BadName { .. } => "bad-name",
            Self::Fetch { .. } => "fetch",
            Self::Keys(_) => "keys",
            Self::BadRule { .. } => "bad-rule",
            Self::BadPolicy { .. } => "bad-policy",
            Self::BadPickle { .. } => "bad-pickle",
            Self::ForbiddenGlobal { .. } => "forbidden-global",
            Self::BadArchive { .. } => "bad-archive",
            Self::BadGguf { .. } => "bad-gguf",
            Self::UnsupportedBlocks { .. } => "unsupported-blocks",
            Self::BigEndian { .. } => "big-endian",
            Self::NoWeights { .. } => "no-weights",
            Self::TargetInUse { .. } => "target-in-use",
            Self::NotQuantizable { .. } => "not-quantizable",
        }
    }

    /// Wraps an I/O error about `file`; a full disk becomes [`PackError::DiskFull`].
    pub(crate) fn io(file: impl fmt::Display, source: std::io::Error) -> Self {
        let file = file.to_string();
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { file }
            }
            _ => Self::Io { file, source },
        }
    }
}

/// Differences between checkpoint keys and model parameters; every list is complete.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct KeyReport {
    /// Parameters to which no key maps.
    pub missing: Vec<String>,
    /// Keys that map to no parameter and are not on the ignore list.
    pub unused: Vec<String>,
    /// Keys whose shape differs from their parameter's, with both shapes.
    pub misshapen: Vec<String>,
    /// Parameters to which several keys map, with those keys.
    pub duplicate: Vec<String>,
    /// The common first segment of all keys, if none maps to a parameter.
    pub prefix: Option<String>,
}

impl KeyReport {
    /// Whether there are no differences.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty()
            && self.unused.is_empty()
            && self.misshapen.is_empty()
            && self.duplicate.is_empty()
    }
}

impl fmt::Display for KeyReport {
    /// Prints each list with its count and its first ten names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        f.write_str("the checkpoint does not fit the model: ")?;
        if let Some(prefix) = &self.prefix {
            write!(
                f,
                "no parameter takes any of its keys, and every key begins with `{prefix}.`; "
            )?;
        }
        let lists = [
            ("missing", &self.missing),
            ("unused", &self.unused),
            ("misshapen", &self.misshapen),
            ("duplicate", &self.duplicate),
        ];
        let mut first = true;
        for (what, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
            if !std::mem::take(&mut first) {
                f.write_str("; ")?;
            }
            write!(
                f,
                "{} {what} ({}",
                names.len(),
                names
                    .iter()
                    .take(SHOWN)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ")
            )?;
            f.write_str(if names.len() > SHOWN { ", ...)" } else { ")" })?;
        }
        f.write_str(". Use the configuration that this checkpoint was made with.")
    }
}
