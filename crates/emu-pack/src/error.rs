//! Everything that can go wrong with weights, each with a stable code.

use std::fmt;

use crate::kind::WrongKind;

/// An error about weights: what is wrong, where, and what to do.
///
/// `file` is the path or name the reader was given, `tensor` the tensor's name as that file spells it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The operating system refused to read or write.
    #[error("{file}: {source}. Check the path, its permissions and the space left.")]
    Io {
        /// Path or name.
        file: String,
        /// What the system said.
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
    /// A file of another kind than the one that is wanted.
    #[error("{file} {kind}.")]
    WrongFile {
        /// Path or name.
        file: String,
        /// What it is.
        kind: WrongKind,
    },
    /// One of several files of a model, without the others.
    #[error(
        "{file} is part {part} of {count} of a model, and {missing}. Put all parts into one folder, under the names that they were published with."
    )]
    PartOfModel {
        /// Path or name.
        file: String,
        /// Its number, from 1.
        part: u64,
        /// Parts of the whole.
        count: u64,
        /// What is known of the others.
        missing: String,
    },
    /// A file ends before its content does.
    #[error(
        "{file} is {found} bytes long where {expected} are needed. Download or convert it again."
    )]
    ShortFile {
        /// Path or name.
        file: String,
        /// Bytes needed.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A file is longer than what it declares.
    #[error(
        "{file} is {found} bytes long where {expected} were declared. Download or convert it again."
    )]
    LongFile {
        /// Path or name.
        file: String,
        /// Bytes declared.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A safetensors header that cannot be believed.
    #[error("{file} is not a valid safetensors file: {reason}. Download or convert it again.")]
    BadHeader {
        /// Path or name.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// One name twice.
    #[error("{file} holds the tensor `{tensor}` twice. Remove one of the two.")]
    DuplicateTensor {
        /// Path or name (or both, where two files share a name).
        file: String,
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor type that nothing here reads.
    #[error(
        "{file}: tensor `{tensor}` has the type {dtype}, which is not supported. Save it as F32, F16 or BF16."
    )]
    UnsupportedDtype {
        /// Path or name.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// The type as the file spells it.
        dtype: String,
    },
    /// A tensor of a type which does not serve here.
    #[error("tensor `{tensor}` has the type {found}, but {wanted} is needed. Convert it first.")]
    WrongDtype {
        /// Name of the tensor.
        tensor: String,
        /// Its type.
        found: String,
        /// What would do.
        wanted: &'static str,
    },
    /// A tensor that should be there.
    #[error("{file} has no tensor `{tensor}`. The file belongs to another model or is incomplete.")]
    MissingTensor {
        /// Path or name.
        file: String,
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor that should not be there.
    #[error(
        "{file} holds the tensor `{tensor}`, which the manifest does not list. Convert the model again."
    )]
    UnknownTensor {
        /// Path or name.
        file: String,
        /// Name of the tensor.
        tensor: String,
    },
    /// Rows of a tensor that came before.
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
    /// A tensor of another shape.
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
    /// Bytes and shape of a tensor disagree.
    #[error(
        "tensor `{tensor}` has {found} bytes where its shape needs {expected}. The file is damaged."
    )]
    WrongLength {
        /// Name of the tensor.
        tensor: String,
        /// Bytes its shape needs.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// Something declares more than can be real.
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
    /// A manifest that contradicts itself or lacks something.
    #[error("{file}: {reason}. Convert or download the pack again.")]
    BadManifest {
        /// Path or name.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A pack of another version.
    #[error(
        "{file} has the pack format {found}, but only {supported} is read here. Update this program or convert the model again."
    )]
    UnknownFormat {
        /// Path or name.
        file: String,
        /// Version found.
        found: String,
        /// The version read here.
        supported: u32,
    },
    /// The bytes of a file are not those the manifest describes.
    #[error("{file} has the SHA-256 {found}, but the manifest says {expected}. Download it again.")]
    WrongHash {
        /// Path or name.
        file: String,
        /// Hash in the manifest.
        expected: String,
        /// Hash of the bytes.
        found: String,
    },
    /// A file name that could lead outside of the pack.
    #[error("`{name}` is not a plain file name. Do not use this pack.")]
    BadName {
        /// The name.
        name: String,
    },
    /// The caller's way of fetching a shard failed.
    #[error("{file} could not be fetched: {reason}. Check the connection and try again.")]
    Fetch {
        /// Name of the shard.
        file: String,
        /// What the fetcher said.
        reason: String,
    },
    /// Keys of a checkpoint and parameters of a model do not match.
    #[error("{0}")]
    Keys(Box<KeyReport>),
    /// A rule of a key map that cannot work.
    #[error("key rule `{rule}`: {reason}. Correct the rule.")]
    BadRule {
        /// The rule.
        rule: String,
        /// What is wrong.
        reason: String,
    },
    /// A dtype or quantization policy that cannot be understood.
    #[error("quantization policy: {reason}. Use none, f16, q8, q4, q4_1 or a TOML file.")]
    BadPolicy {
        /// What is wrong.
        reason: String,
    },
    /// A pickle that cannot be read.
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
    /// A pickle wants to call something.
    #[error(
        "{file} wants to call `{name}`, which a file of plain weights does not need. Do not trust this file, or save only its state_dict."
    )]
    ForbiddenGlobal {
        /// Path or name.
        file: String,
        /// Module and name of what it wants.
        name: String,
    },
    /// A PyTorch archive that cannot be read.
    #[error("{file}: {reason}. Save the checkpoint again with a current PyTorch.")]
    BadArchive {
        /// Path or name.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A GGUF file that cannot be read.
    #[error(
        "{file} cannot be read as GGUF: {reason}. Download it again, or convert it with a current llama.cpp."
    )]
    BadGguf {
        /// Path or name.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A tensor of a GGUF file in blocks that nothing here reads.
    #[error(
        "{file}: tensor `{tensor}` has the type {dtype}, which is not supported. Take a file of a usual kind: F16, Q8_0, Q6_K, Q5_K_M, Q4_K_M or Q4_0."
    )]
    UnsupportedBlocks {
        /// Path or name.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// The type as llama.cpp spells it.
        dtype: String,
    },
    /// A checkpoint written on a big-endian machine.
    #[error("{file} was written on a big-endian machine. Save it again on a little-endian one.")]
    BigEndian {
        /// Path or name.
        file: String,
    },
    /// A path where no known weights lie.
    #[error(
        "{path}: {reason}. Give a .pt, .bin, .safetensors or .gguf file, or a folder of a published model."
    )]
    NoWeights {
        /// The path.
        path: String,
        /// What was looked for.
        reason: String,
    },
    /// The folder to write to holds something else.
    #[error("{path} exists and is not a pack ({reason}). Choose another folder or empty it.")]
    TargetInUse {
        /// The folder.
        path: String,
        /// What is in the way.
        reason: String,
    },
    /// Values that a narrower type cannot hold.
    #[error("tensor `{tensor}` cannot be quantized: {reason}. Keep it in f16 or f32.")]
    NotQuantizable {
        /// Name of the tensor.
        tensor: String,
        /// Why not.
        reason: String,
    },
}

impl PackError {
    /// A short name which stays the same over versions, for programs to match on.
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

    /// Wraps what the system said about `file`; a full disk gets its own error.
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

/// How the keys of a checkpoint differ from the parameters of a model; every list holds all of them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct KeyReport {
    /// Parameters which no key maps to.
    pub missing: Vec<String>,
    /// Keys which no parameter takes and which are not on the ignore list.
    pub unused: Vec<String>,
    /// Keys of another shape than their parameter, with both shapes.
    pub misshapen: Vec<String>,
    /// Parameters that several keys map to, with those keys.
    pub duplicate: Vec<String>,
    /// The first segment of every key, where no parameter takes any.
    pub prefix: Option<String>,
}

impl KeyReport {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty()
            && self.unused.is_empty()
            && self.misshapen.is_empty()
            && self.duplicate.is_empty()
    }
}

impl fmt::Display for KeyReport {
    /// Each list with its count and its first ten names.
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
