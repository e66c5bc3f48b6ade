//! File kind detection by magic bytes, so that errors can name unexpected files: a Git LFS pointer that was never
//! fetched, the web page of a login, an archive that was not unpacked.

use std::fmt;

/// Number of leading bytes that are examined.
pub const SNIFFED: usize = 512;
/// Maximum header size of a safetensors file, as in the safetensors library.
pub(crate) const MAX_HEADER: u64 = 100_000_000;

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// An empty file.
    Empty,
    /// A Git LFS pointer, which Git stores in place of a large file.
    LfsPointer,
    /// HTML.
    WebPage,
    /// A JSON value.
    Json,
    /// Other readable text, such as an error message that a server sent in place of a file.
    Text,
    /// Safetensors.
    Safetensors,
    /// A zip archive, as written by `torch.save`.
    Zip,
    /// A bare pickle of this protocol.
    Pickle(u8),
    /// The legacy format of `torch.save`, before PyTorch 1.6.
    LegacyPyTorch,
    /// GGUF.
    Gguf,
    /// llama.cpp's format before GGUF.
    Ggml,
    /// HDF5, used by Keras and old TensorFlow.
    Hdf5,
    /// A NumPy array.
    Numpy,
    /// TensorFlow Lite.
    TfLite,
    /// A compressed file or archive of this format.
    Archive(&'static str),
    /// None of these.
    Unknown,
}

/// Magic bytes of legacy PyTorch files (before 1.6): a pickled magic number.
pub(crate) const LEGACY: [u8; 14] = [
    0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19,
];

impl FileKind {
    /// Detects the kind of a file from its first bytes; [`SNIFFED`] of them are enough.
    pub fn of(start: &[u8]) -> Self {
        const MAGICS: [(&[u8], FileKind); 14] = [
            (b"GGUF", FileKind::Gguf),
            (b"PK\x03\x04", FileKind::Zip),
            (b"PK\x05\x06", FileKind::Zip),
            (b"lmgg", FileKind::Ggml),
            (b"fmgg", FileKind::Ggml),
            (b"tjgg", FileKind::Ggml),
            (b"\x89HDF\r\n\x1a\n", FileKind::Hdf5),
            (b"\x93NUMPY", FileKind::Numpy),
            (b"\x1f\x8b", FileKind::Archive("gzip")),
            (b"\x28\xb5\x2f\xfd", FileKind::Archive("Zstandard")),
            (b"\xfd7zXZ\0", FileKind::Archive("xz")),
            (b"BZh", FileKind::Archive("bzip2")),
            (b"7z\xbc\xaf\x27\x1c", FileKind::Archive("7-Zip")),
            (b"Rar!\x1a\x07", FileKind::Archive("RAR")),
        ];
        if start.is_empty() {
            return Self::Empty;
        }
        // Before pickles: the length of a safetensors header may begin like one.
        if let Some((len, rest)) = start.split_first_chunk()
            && u64::from_le_bytes(*len) <= MAX_HEADER
            && rest.first() == Some(&b'{')
        {
            return Self::Safetensors;
        }
        if let Some((_, kind)) = MAGICS.iter().find(|(magic, _)| start.starts_with(magic)) {
            return *kind;
        }
        match start {
            _ if start.starts_with(&LEGACY) => return Self::LegacyPyTorch,
            [0x80, protocol @ 0..=5, ..] => return Self::Pickle(*protocol),
            [_, _, _, _, b'T', b'F', b'L', b'3', ..] => return Self::TfLite,
            _ => {}
        }
        if start.get(257..262) == Some(b"ustar") {
            return Self::Archive("tar");
        }
        Self::of_text(start).unwrap_or(Self::Unknown)
    }

    fn of_text(start: &[u8]) -> Option<Self> {
        // A truncated file could be anything.
        if start.len() < 8 {
            return None;
        }
        let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
        let start = start.get(..SNIFFED).unwrap_or(start);
        // The last UTF-8 sequence may be truncated.
        let text = match std::str::from_utf8(start) {
            Ok(text) => text,
            Err(e) if e.error_len().is_none() => {
                std::str::from_utf8(start.get(..e.valid_up_to())?).ok()?
            }
            Err(_) => return None,
        };
        if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
            return None;
        }
        let text = text.trim_start();
        let has = |tag: &str| {
            let head = text.get(..tag.len());
            head.is_some_and(|head| head.eq_ignore_ascii_case(tag))
        };
        Some(
            if text.starts_with("version https://git-lfs.github.com/spec/")
                || text.starts_with("version https://hawser.github.com/spec/")
            {
                Self::LfsPointer
            } else if ["<!doctype html", "<html", "<head", "<body", "<?xml", "<!--"]
                .into_iter()
                .any(has)
            {
                Self::WebPage
            } else if text.starts_with(['{', '[']) {
                Self::Json
            } else {
                Self::Text
            },
        )
    }

    /// What to do about a file of this kind if weights are expected.
    const fn advice(self) -> &'static str {
        match self {
            Self::LfsPointer => {
                "Fetch the file itself: run `git lfs pull` in its folder, or download it from the model's page"
            }
            Self::WebPage => {
                "Download the file itself; the page may ask to sign in or to accept a licence first"
            }
            Self::Empty => "Download the file again",
            Self::Text | Self::Json => {
                "Name the model's weights; if this is where they should be, download them again"
            }
            Self::Pickle(_) | Self::LegacyPyTorch => {
                "Load it in Python and save its state_dict with a current PyTorch: torch.save(model.state_dict(), file)"
            }
            Self::Archive(_) => "Unpack it and name what is in it",
            Self::Ggml => "Convert it to GGUF with llama.cpp, or download the model as GGUF",
            _ => "Name the model's weights in the format that is wanted here",
        }
    }

    /// Stable error code for an unexpected file of this kind.
    const fn code(self) -> &'static str {
        match self {
            Self::LfsPointer => "lfs-pointer",
            Self::WebPage => "web-page",
            _ => "wrong-file",
        }
    }

    /// This kind as an error, for files of an unexpected kind.
    pub const fn refused(self) -> WrongKind {
        WrongKind(self)
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "an empty file",
            Self::LfsPointer => "a Git LFS pointer, which stands for a file that was not fetched",
            Self::WebPage => "a web page",
            Self::Json => "a JSON text",
            Self::Text => "a plain text",
            Self::Safetensors => "a safetensors file",
            Self::Zip => "a zip archive, as PyTorch writes them",
            Self::Pickle(protocol) => {
                return write!(
                    f,
                    "a bare Python pickle (protocol {protocol}), not an archive of torch.save"
                );
            }
            Self::LegacyPyTorch => "in the format of PyTorch before 1.6",
            Self::Gguf => "a GGUF file",
            Self::Ggml => "a GGML file, the format of llama.cpp before GGUF",
            Self::Hdf5 => "an HDF5 file, as Keras writes them",
            Self::Numpy => "a NumPy array",
            Self::TfLite => "a TensorFlow Lite model",
            Self::Archive(format) => return write!(f, "compressed or an archive ({format})"),
            Self::Unknown => "of no known format",
        })
    }
}

/// The kind of an unexpected file, with advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongKind(FileKind);

impl WrongKind {
    /// Stable error code: `lfs-pointer`, `web-page` or `wrong-file`.
    pub const fn code(self) -> &'static str {
        self.0.code()
    }
}

impl fmt::Display for WrongKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is {}. {}", self.0, self.0.advice())
    }
}
