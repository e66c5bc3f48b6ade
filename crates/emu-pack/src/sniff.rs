//! What a file is by its first bytes, to name those that are something else than they should be: a Git LFS pointer
//! that was never fetched, the web page of a login, an archive that was not unpacked.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::PackError;

/// As many bytes of a file's start as are looked at.
pub const SNIFFED: usize = 512;
/// Largest header of a safetensors file, as in the safetensors library.
pub(crate) const MAX_HEADER: u64 = 100_000_000;

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// Not a byte.
    Empty,
    /// The few lines that Git keeps in the place of a large file.
    LfsPointer,
    /// HTML.
    WebPage,
    /// A JSON value.
    Json,
    /// Readable text of another kind, as the messages that servers send in the place of a file.
    Text,
    /// Safetensors.
    Safetensors,
    /// A zip archive: what `torch.save` writes.
    Zip,
    /// A pickle by itself, of this protocol.
    Pickle(u8),
    /// What `torch.save` wrote before PyTorch 1.6.
    LegacyPyTorch,
    /// GGUF.
    Gguf,
    /// The format of llama.cpp before GGUF.
    Ggml,
    /// HDF5: Keras and old TensorFlow.
    Hdf5,
    /// An array of NumPy.
    Numpy,
    /// TensorFlow Lite.
    TfLite,
    /// A compressed file or an archive of this format.
    Archive(&'static str),
    /// None of these.
    Unknown,
}

/// How files of PyTorch before 1.6 begin: a pickled magic number.
pub(crate) const LEGACY: [u8; 14] = [
    0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19,
];

impl FileKind {
    /// The kind of a file that begins with these bytes; [`SNIFFED`] of them are enough.
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
        // Before pickles: the length of a header may begin as one does.
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
        // The start of a file that was cut short may be anything.
        if start.len() < 8 {
            return None;
        }
        let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
        let start = start.get(..SNIFFED).unwrap_or(start);
        // The last character may be cut.
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

    /// What to do about a file of this kind where weights are wanted.
    const fn advice(self) -> &'static str {
        match self {
            Self::LfsPointer => {
                "Fetch the file itself: run `git lfs pull` in its folder, or download it from the model's page"
            }
            Self::WebPage => {
                "Download the file itself; the page may ask to sign in or to accept a licence first"
            }
            Self::Empty | Self::Text | Self::Json => "Download the file again",
            Self::Pickle(_) | Self::LegacyPyTorch => {
                "Load it in Python and save its state_dict with a current PyTorch: torch.save(model.state_dict(), file)"
            }
            Self::Archive(_) => "Unpack it and name what is in it",
            Self::Ggml => "Convert it to GGUF with llama.cpp, or download the model as GGUF",
            _ => "Name the model's weights in the format that is wanted here",
        }
    }

    /// A stable name for what is wrong where a file is of this kind and should not be.
    const fn code(self) -> &'static str {
        match self {
            Self::LfsPointer => "lfs-pointer",
            Self::WebPage => "web-page",
            _ => "wrong-file",
        }
    }

    /// This kind as an error, for files that should be of another one.
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

/// A file of another kind than the one that is wanted: what it is, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongKind(FileKind);

impl WrongKind {
    /// A stable name: `lfs-pointer`, `web-page` or `wrong-file`.
    pub const fn code(self) -> &'static str {
        self.0.code()
    }
}

impl fmt::Display for WrongKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is {}. {}", self.0, self.0.advice())
    }
}

/// The kind of what a reader gives, which is set back to its start.
pub(crate) fn sniff(file: &str, reader: &mut (impl Read + Seek)) -> Result<FileKind, PackError> {
    let io = |e| PackError::io(file, e);
    reader.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut start = Vec::with_capacity(SNIFFED);
    let read = reader.by_ref().take(SNIFFED as u64).read_to_end(&mut start);
    read.map_err(io)?;
    reader.seek(SeekFrom::Start(0)).map_err(io)?;
    Ok(FileKind::of(&start))
}

/// Refuses a file of a known kind that is none of `wanted`. Unknown ones pass: their reader says what is wrong with them.
pub(crate) fn refuse_others(
    file: &str,
    kind: FileKind,
    wanted: &[FileKind],
) -> Result<(), PackError> {
    match kind == FileKind::Unknown || wanted.contains(&kind) {
        true => Ok(()),
        false => Err(PackError::WrongFile {
            file: file.into(),
            kind: kind.refused(),
        }),
    }
}

/// Refuses a file that is neither weights nor an index of them, before anything beside it is looked for.
///
/// # Errors
/// Names what it is; where it cannot be read.
pub fn check_weights(path: impl AsRef<Path>) -> Result<(), PackError> {
    let path = path.as_ref();
    let name = path.display().to_string();
    let mut file = File::open(path).map_err(|e| PackError::io(&name, e))?;
    let wanted = [
        FileKind::Safetensors,
        FileKind::Zip,
        FileKind::LegacyPyTorch,
        FileKind::Gguf,
        FileKind::Json,
        FileKind::Empty,
    ];
    refuse_others(&name, sniff(&name, &mut file)?, &wanted)
}

/// Refuses what stands in the place of a file that was not fetched.
pub(crate) fn refuse_pages(file: &str, kind: FileKind) -> Result<(), PackError> {
    match kind {
        FileKind::LfsPointer | FileKind::WebPage => refuse_others(file, kind, &[]),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_start() {
        let safetensors = [&640u64.to_le_bytes()[..], b"{\"a\""].concat();
        let mut tar = vec![b'a'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
        // A character of two bytes over the edge of what is looked at.
        let long = [&b"<HTML>\n"[..], "\u{e9}".repeat(400).as_bytes()].concat();
        let cases: [(&[u8], FileKind); 21] = [
            (b"", FileKind::Empty),
            (pointer, FileKind::LfsPointer),
            (b"\xef\xbb\xbf \n<!DOCTYPE html><html>", FileKind::WebPage),
            (&long, FileKind::WebPage),
            (b"<?xml version=\"1.0\"?><Error>", FileKind::WebPage),
            (b"{\"error\":\"Unauthorized\"}", FileKind::Json),
            (b"Entry not found", FileKind::Text),
            (&safetensors, FileKind::Safetensors),
            (b"PK\x03\x04\0", FileKind::Zip),
            (b"\x80\x04\x95\x02\0\0\0\0\0\0\0}\x94.", FileKind::Pickle(4)),
            (b"\x80\x02}q\x00.", FileKind::Pickle(2)),
            (
                b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
                FileKind::LegacyPyTorch,
            ),
            (b"GGUF\x03\0\0\0", FileKind::Gguf),
            (b"tjgg\x03\0\0\0", FileKind::Ggml),
            (b"\x89HDF\r\n\x1a\n\0", FileKind::Hdf5),
            (b"\x93NUMPY\x01\0", FileKind::Numpy),
            (b"\x1c\0\0\0TFL3", FileKind::TfLite),
            (b"\x1f\x8b\x08\0", FileKind::Archive("gzip")),
            (&tar, FileKind::Archive("tar")),
            (b"\0\x01\x02\x03", FileKind::Unknown),
            (b"\n\x0e\n\x05<unk>", FileKind::Unknown),
        ];
        for (start, kind) in cases {
            assert_eq!(FileKind::of(start), kind, "{start:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        let told = |start: &[u8]| FileKind::of(start).refused();
        let pointer = told(b"version https://git-lfs.github.com/spec/v1\n");
        assert_eq!(pointer.code(), "lfs-pointer");
        assert!(pointer.to_string().contains("git lfs pull"), "{pointer}");
        let page = told(b"<html></html>");
        assert_eq!(page.code(), "web-page");
        let pickle = told(b"\x80\x04.");
        assert_eq!(pickle.code(), "wrong-file");
        assert!(pickle.to_string().contains("protocol 4"), "{pickle}");
    }
}
