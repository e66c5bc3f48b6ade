//! Rejection of files of an unexpected kind ([`crate::kind`]).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::PackError;
use crate::kind::{FileKind, SNIFFED};

/// Detects the kind of a reader's contents, and rewinds the reader.
pub(crate) fn sniff(file: &str, reader: &mut (impl Read + Seek)) -> Result<FileKind, PackError> {
    let io = |e| PackError::io(file, e);
    reader.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut start = Vec::with_capacity(SNIFFED);
    let read = reader.by_ref().take(SNIFFED as u64).read_to_end(&mut start);
    read.map_err(io)?;
    reader.seek(SeekFrom::Start(0)).map_err(io)?;
    Ok(FileKind::of(&start))
}

/// Rejects a file of a known kind that is not in `wanted`. Unknown kinds pass; their reader reports what is wrong.
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

/// Rejects a file that is neither weights nor a shard index, before any file beside it is opened.
///
/// # Errors
/// The file is of another kind, which the error names, or cannot be read.
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

/// Rejects LFS pointers and web pages, which stand in for a file that was not fetched.
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
        // A two-byte character crosses the end of the examined bytes.
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
