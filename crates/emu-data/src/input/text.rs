//! Text files.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::DataError;
use crate::build::Skip;

/// Largest text that is read as one.
const MAX_TEXT: u64 = 64 << 20;

/// A file's text: UTF-8, with or without a byte order mark, or else Latin-1 (old subtitles).
pub(crate) fn read_text(path: &Path) -> Result<String, Skip> {
    let failed = |error: std::io::Error| Skip::new("file cannot be read", error);
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_TEXT {
        return Err(Skip::new("text is too long", format!("{bytes} bytes")));
    }
    Ok(decode(fs::read(path).map_err(failed)?))
}

pub(crate) fn decode(bytes: Vec<u8>) -> String {
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => error
            .as_bytes()
            .iter()
            .map(|byte| char::from(*byte))
            .collect(),
    };
    match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_string(),
        None => text,
    }
}

/// The path without `.gz`, whose extension tells what is inside.
pub(crate) fn without_gz(path: &Path) -> PathBuf {
    match super::kind_of(path).as_str() {
        "gz" => path.with_extension(""),
        _ => path.to_path_buf(),
    }
}

/// Opens a text file, unpacked if it is a `.gz`, behind its byte order mark.
pub(crate) fn open(path: &Path) -> Result<BufReader<Box<dyn Read>>, DataError> {
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let mut reader: Box<dyn Read> = match super::kind_of(path).as_str() {
        "gz" => Box::new(MultiGzDecoder::new(BufReader::new(file))),
        _ => Box::new(file),
    };
    let mut head = [0; 3];
    let mut read = 0;
    while read < head.len() {
        match reader
            .read(&mut head[read..])
            .map_err(DataError::io("read", path))?
        {
            0 => break,
            bytes => read += bytes,
        }
    }
    let head = head[..read].to_vec();
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
        return Err(DataError::malformed(
            path,
            "it is UTF-16, and only UTF-8 is read",
        ));
    }
    let head = match head.as_slice() {
        [0xef, 0xbb, 0xbf] => vec![],
        _ => head,
    };
    let reader: Box<dyn Read> = Box::new(std::io::Cursor::new(head).chain(reader));
    Ok(BufReader::new(reader))
}
