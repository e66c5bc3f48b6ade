//! Names, types and shapes of the tensors in safetensors files, without their values.

use std::io::{self, Read, Seek, SeekFrom};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Address, Entry, HubError, Options, Remote};

/// Maximum length of a header, as in the safetensors library.
const MAX_HEADER: u64 = 100_000_000;

/// A tensor as its file's header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorHeader {
    /// Name.
    pub name: String,
    /// Type as spelled in the file, such as `BF16`.
    pub dtype: String,
    /// Shape; empty for a scalar.
    pub shape: Vec<u64>,
    /// Bytes of its values.
    pub bytes: u64,
}

/// The tensors of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHeader {
    /// Path in the repository.
    pub path: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Its tensors.
    pub tensors: Vec<TensorHeader>,
}

/// Reads the headers of the safetensors files among those that [`choose`](crate::choose) takes. Fetches a few hundred
/// kilobytes of each file at most, and nothing of those in the cache. Other weights are not read: see
/// [`RemoteFile`](crate::RemoteFile).
///
/// # Errors
/// As [`Remote::open`], or if a header is invalid.
pub fn headers(address: &Address, options: &Options) -> Result<Vec<FileHeader>, HubError> {
    let remote = Remote::open(address, options)?;
    let mut headers = vec![];
    for Entry { path, .. } in remote.entries() {
        if !path.ends_with(".safetensors") {
            continue;
        }
        let mut file = remote.file(path)?;
        let size = file.seek(SeekFrom::End(0)).and_then(|size| {
            file.rewind()?;
            Ok(size)
        });
        let header = size.map_err(Trouble::Io);
        let header = header.and_then(|bytes| Ok((bytes, read(&mut file, bytes)?)));
        let (bytes, tensors) = header.map_err(|trouble| match trouble {
            Trouble::Header(reason) => HubError::BadHeader {
                file: path.clone(),
                reason,
            },
            Trouble::Io(error) => match error.downcast::<HubError>() {
                Ok(error) => error,
                Err(error) => HubError::io(path.as_ref(), error),
            },
        })?;
        headers.push(FileHeader {
            path: path.clone(),
            bytes,
            tensors,
        });
    }
    Ok(headers)
}

#[derive(Debug)]
enum Trouble {
    Header(String),
    Io(io::Error),
}

#[derive(Deserialize)]
struct Described {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// Reads and checks the header of a file of this many bytes.
fn read(reader: &mut dyn Read, file_bytes: u64) -> Result<Vec<TensorHeader>, Trouble> {
    let wrong = |reason: String| Trouble::Header(reason);
    let mut length = [0; 8];
    if file_bytes < 8 {
        return Err(wrong(format!("the file has {file_bytes} bytes")));
    }
    reader.read_exact(&mut length).map_err(Trouble::Io)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER || length > file_bytes - 8 {
        return Err(wrong(format!("its length of {length} bytes is impossible")));
    }
    let values = file_bytes - 8 - length;
    let mut json = vec![];
    let read = reader.take(length).read_to_end(&mut json);
    read.map_err(Trouble::Io)?;
    let json: Map<String, Value> =
        serde_json::from_slice(&json).map_err(|error| wrong(error.to_string()))?;
    let mut tensors = Vec::with_capacity(json.len());
    let mut sum = 0u64;
    for (name, value) in json {
        if name == "__metadata__" {
            continue;
        }
        let found: Described = serde_json::from_value(value)
            .map_err(|error| wrong(format!("tensor `{name}`: {error}")))?;
        let [begin, end] = found.data_offsets;
        let bytes = end.checked_sub(begin).filter(|_| end <= values);
        let bytes = bytes.ok_or_else(|| wrong(format!("tensor `{name}` is not in the file")))?;
        let elements = found
            .shape
            .iter()
            .try_fold(1u64, |n, size| n.checked_mul(*size));
        let fits = |elements: u64| match size_of(&found.dtype) {
            Some(size) => elements.checked_mul(size) == Some(bytes),
            // A type of the future.
            None => true,
        };
        if !elements.is_some_and(fits) {
            return Err(wrong(format!(
                "tensor `{name}` has {bytes} bytes, not those of its shape"
            )));
        }
        sum = sum.saturating_add(bytes);
        tensors.push(TensorHeader {
            name,
            dtype: found.dtype,
            shape: found.shape,
            bytes,
        });
    }
    match sum == values {
        true => Ok(tensors),
        false => Err(wrong(format!(
            "its tensors have {sum} bytes, the file {values}"
        ))),
    }
}

/// Bytes of one element.
fn size_of(dtype: &str) -> Option<u64> {
    match dtype {
        "F64" | "I64" | "U64" => Some(8),
        "F32" | "I32" | "U32" => Some(4),
        "F16" | "BF16" | "I16" | "U16" => Some(2),
        "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn file(header: &str, values: usize) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.resize(file.len() + values, 0);
        file
    }

    fn parsed(bytes: &[u8]) -> Result<Vec<TensorHeader>, Trouble> {
        read(&mut &bytes[..], bytes.len() as u64)
    }

    #[test]
    fn a_header_is_read_without_the_values() {
        let header = json!({
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
            "b": {"dtype": "F32", "shape": [], "data_offsets": [12, 16]},
        });
        let bytes = file(&header.to_string(), 16);
        // The values are not even there.
        let (whole, bytes) = (bytes.len() as u64, &bytes[..bytes.len() - 16]);
        let tensors = read(&mut &bytes[..], whole).expect("a header");
        let tensor = |name: &str, dtype: &str, shape: &[u64], bytes| TensorHeader {
            name: name.into(),
            dtype: dtype.into(),
            shape: shape.into(),
            bytes,
        };
        assert_eq!(
            tensors,
            [tensor("a", "BF16", &[2, 3], 12), tensor("b", "F32", &[], 4)]
        );
    }

    #[test]
    fn impossible_headers_are_refused() {
        let one = |dtype: &str, shape: &str, offsets: &str| {
            let entry =
                format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#);
            file(&format!(r#"{{"a":{entry}}}"#), 8)
        };
        assert!(parsed(&one("F32", "[2]", "[0,8]")).is_ok());
        assert!(parsed(&one("F4", "[16]", "[0,8]")).is_ok());
        for bad in [
            vec![],
            vec![0; 7],
            u64::MAX.to_le_bytes().to_vec(),
            200u64.to_le_bytes().to_vec(),
            file("[]", 0),
            file("{", 0),
            file("{\"a\": 3}", 0),
            file("{}", 1),
            one("F32", "[2]", "[0,9]"),
            one("F32", "[2]", "[8,0]"),
            one("F32", "[3]", "[0,8]"),
            one("F32", "[1]", "[0,4]"),
            one("F32", "[4294967296,4294967296,4294967296]", "[0,8]"),
            one("F32", "[-2]", "[0,8]"),
        ] {
            assert!(matches!(parsed(&bad), Err(Trouble::Header(_))), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_header_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parsed(&bytes);
        }

        #[test]
        fn any_changed_byte_gives_a_header_or_an_error(at in 0usize..60, byte: u8) {
            let entry = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
            let mut bytes = file(entry, 8);
            bytes[at] = byte;
            if let Ok(tensors) = parsed(&bytes) {
                prop_assert_eq!(tensors.iter().map(|tensor| tensor.bytes).sum::<u64>(), 8);
            }
        }
    }
}
