//! The safetensors header: strict parser and deterministic writer.
//!
//! Layout of a file: `N` as u64, `N` bytes of JSON, then the tensors without gaps. The JSON maps names to
//! `{"dtype", "shape", "data_offsets": [begin, end]}`; offsets count from the end of the header.

use std::{collections::HashSet, fmt, ops::Range};

use serde::{
    Deserialize,
    de::{IgnoredAny, MapAccess, Visitor},
};

use crate::{Dtype, PackError, TensorInfo, kind::MAX_HEADER, tensor::Index};

const METADATA: &str = "__metadata__";

/// Names, shapes and byte ranges of the tensors of one file.
#[derive(Debug, Default)]
pub(crate) struct Header {
    pub index: Index,
    /// Byte range of each tensor, in the order of `index`, from the start of the file.
    pub ranges: Vec<Range<u64>>,
}

impl Header {
    /// Size of length field and JSON, given the first 8 bytes of a file of `file_len` bytes.
    pub fn prefix_len(file: &str, first: [u8; 8], file_len: u64) -> Result<u64, PackError> {
        let declared = u64::from_le_bytes(first);
        if declared > MAX_HEADER {
            return Err(PackError::TooLarge {
                what: format!("the header of {file}"),
                size: format!("{declared} bytes"),
                limit: format!("{MAX_HEADER} bytes"),
            });
        }
        match declared + 8 {
            end if end > file_len => Err(PackError::ShortFile {
                file: file.into(),
                expected: end,
                found: file_len,
            }),
            end => Ok(end),
        }
    }

    /// Parses the JSON, which ends at byte `start` of a file of `file_len` bytes.
    ///
    /// Every tensor's byte range must match its shape, and together they must fill the file without gap or overlap.
    pub fn parse(file: &str, json: &[u8], start: u64, file_len: u64) -> Result<Self, PackError> {
        let bad = |reason: String| PackError::BadHeader {
            file: file.into(),
            reason,
        };
        let Entries(entries) = serde_json::from_slice(json)
            .map_err(|e| bad(format!("its header is no JSON of tensors ({e})")))?;
        let mut header = Self::default();
        let mut spans = Vec::with_capacity(entries.len());
        for (name, entry) in entries {
            let Some(dtype) = Dtype::from_name(&entry.dtype) else {
                return Err(PackError::UnsupportedDtype {
                    file: file.into(),
                    tensor: name,
                    dtype: entry.dtype,
                });
            };
            let (begin, end) = entry.data_offsets;
            let info = TensorInfo {
                name: name.clone(),
                dtype,
                shape: entry.shape,
            };
            let needed = info.byte_len()? as u64;
            if begin.checked_add(needed) != Some(end) {
                let shape = info.describe();
                return Err(bad(format!(
                    "tensor `{name}` is {shape} but its bytes are {begin} to {end}"
                )));
            }
            let end = start
                .checked_add(end)
                .ok_or_else(|| bad(format!("tensor `{name}` ends beyond any file")))?;
            spans.push((start + begin, end));
            header.ranges.push(start + begin..end);
            if !header.index.push(info) {
                return Err(PackError::DuplicateTensor {
                    file: file.into(),
                    tensor: name,
                });
            }
        }
        spans.sort_unstable();
        let filled = spans
            .into_iter()
            .try_fold(start, |at, (begin, end)| (at == begin).then_some(end));
        match filled {
            None => Err(bad("its tensors overlap or leave gaps".into())),
            Some(end) if end > file_len => Err(PackError::ShortFile {
                file: file.into(),
                expected: end,
                found: file_len,
            }),
            Some(end) if end < file_len => Err(PackError::LongFile {
                file: file.into(),
                expected: end,
                found: file_len,
            }),
            Some(_) => Ok(header),
        }
    }

    /// Parses the header of a file in memory.
    pub fn of_bytes(file: &str, bytes: &[u8]) -> Result<Self, PackError> {
        let file_len = bytes.len() as u64;
        let short = || PackError::ShortFile {
            file: file.into(),
            expected: 8,
            found: file_len,
        };
        let start = Self::prefix_len(file, *bytes.first_chunk().ok_or_else(short)?, file_len)?;
        let json = bytes.get(8..start as usize).ok_or_else(short)?;
        Self::parse(file, json, start, file_len)
    }

    /// Writes the header of a file that holds these tensors consecutively: length and JSON, padded with spaces so that the
    /// tensors begin at a multiple of 8.
    pub fn write<'a>(
        tensors: impl IntoIterator<Item = &'a TensorInfo>,
    ) -> Result<Vec<u8>, PackError> {
        let mut json = String::from("{");
        let mut at = 0usize;
        for (i, info) in tensors.into_iter().enumerate() {
            let end = at.saturating_add(info.byte_len()?);
            let separator = if i > 0 { "," } else { "" };
            // serde_json escapes the name; the rest are plain numbers and type names.
            let name = serde_json::Value::from(info.name.as_str());
            json += &format!(
                r#"{separator}{name}:{{"dtype":"{}","shape":{},"data_offsets":[{at},{end}]}}"#,
                info.dtype,
                serde_json::Value::from(info.shape.clone()),
            );
            at = end;
        }
        json.push('}');
        while json.len() % 8 != 0 {
            json.push(' ');
        }
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.into_bytes());
        Ok(bytes)
    }
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// The JSON object as a list; a map type would silently drop duplicate names.
struct Entries(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        let mut seen_metadata = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                map.next_value::<IgnoredAny>()?;
                if !seen_metadata.insert(name) {
                    return Err(serde::de::Error::custom("it has two __metadata__ entries"));
                }
            } else {
                entries.push((name, map.next_value()?));
            }
        }
        Ok(Entries(entries))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(json: &str, data: usize) -> Vec<u8> {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn code(json: &str, data: usize) -> &'static str {
        Header::of_bytes("x", &file(json, data))
            .map(|_| "ok")
            .unwrap_or_else(|e| e.code())
    }

    #[test]
    fn reads_what_it_should() {
        let json = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;
        let header = Header::of_bytes("x", &file(json, 8)).unwrap();
        assert_eq!(header.index.infos().len(), 2);
        assert_eq!(header.index.get("b").unwrap().shape, [2]);
        assert_eq!(code("{}", 0), "ok");
        assert_eq!(
            code(
                r#"{"e":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]}}"#,
                0
            ),
            "ok"
        );
    }

    #[test]
    fn refuses_what_it_should() {
        let one = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        assert_eq!(code(&one("F32", "[2]", "[0,8]"), 8), "ok");
        assert_eq!(code(&one("F32", "[2]", "[0,8]"), 7), "short-file");
        assert_eq!(code(&one("F32", "[2]", "[0,8]"), 9), "long-file");
        assert_eq!(code(&one("F32", "[2]", "[0,4]"), 4), "bad-header");
        assert_eq!(code(&one("F32", "[2]", "[8,0]"), 8), "bad-header");
        assert_eq!(code(&one("F32", "[2]", "[4,12]"), 12), "bad-header");
        assert_eq!(code(&one("F32", "[-2]", "[0,8]"), 8), "bad-header");
        assert_eq!(
            code(&one("F8_E4M3", "[2]", "[0,2]"), 2),
            "unsupported-dtype"
        );
        assert_eq!(
            code(&one("F32", "[4611686018427387904,4]", "[0,8]"), 8),
            "too-large"
        );
        assert_eq!(
            code(
                &one("U8", "[18446744073709551615]", "[0,18446744073709551615]"),
                8
            ),
            "bad-header"
        );
        assert_eq!(
            code(
                &one("U8", "[9223372036854775807]", "[0,9223372036854775807]"),
                8
            ),
            "short-file"
        );
        assert_eq!(
            code(
                &one("U8", "[0]", "[18446744073709551615,18446744073709551615]"),
                8
            ),
            "bad-header"
        );
        assert_eq!(code("[]", 0), "bad-header");
        assert_eq!(code("{", 0), "bad-header");
        assert_eq!(code(&"[".repeat(100_000), 0), "bad-header");
        let twice = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
        assert_eq!(code(twice, 2), "duplicate-tensor");
        let overlapping = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
        assert_eq!(code(overlapping, 1), "bad-header");
        assert_eq!(
            Header::of_bytes("x", &[1, 2, 3]).unwrap_err().code(),
            "short-file"
        );
        assert_eq!(
            Header::of_bytes("x", &u64::MAX.to_le_bytes())
                .unwrap_err()
                .code(),
            "too-large"
        );
        assert_eq!(
            Header::of_bytes("x", &99u64.to_le_bytes())
                .unwrap_err()
                .code(),
            "short-file"
        );
    }

    #[test]
    fn the_safetensors_library_agrees_with_what_is_written() {
        let infos = [
            TensorInfo {
                name: "odd \"name\"\n".into(),
                dtype: Dtype::F32,
                shape: vec![2, 3],
            },
            TensorInfo {
                name: "b".into(),
                dtype: Dtype::BF16,
                shape: vec![5],
            },
        ];
        let mut bytes = Header::write(&infos).unwrap();
        assert_eq!(bytes.len() % 8, 0);
        bytes.extend((0..34u8).collect::<Vec<_>>());
        let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(
            theirs.tensor("b").unwrap().data(),
            (24..34).collect::<Vec<u8>>()
        );
        assert_eq!(theirs.tensor(&infos[0].name).unwrap().shape(), [2, 3]);
        assert_eq!(Header::of_bytes("x", &bytes).unwrap().index.infos(), infos);
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Header::of_bytes("x", &bytes);
        }

        #[test]
        fn any_json_gives_an_answer(json in r#"\{("[ab]":\{"dtype":"(F32|U8|X)","shape":\[[0-9]{1,20}\],"data_offsets":\[[0-9]{1,20},[0-9]{1,20}\]\},?){0,3}\}"#) {
            let _ = Header::of_bytes("x", &file(&json, 16));
        }

        #[test]
        fn written_headers_read_back(shapes in prop::collection::vec(prop::collection::vec(0usize..5, 0..4), 0..6)) {
            let infos: Vec<_> = shapes.into_iter().enumerate()
                .map(|(i, shape)| TensorInfo { name: format!("t{i}"), dtype: Dtype::U32, shape }).collect();
            let mut bytes = Header::write(&infos).unwrap();
            let data: usize = infos.iter().map(|info| info.byte_len().unwrap()).sum();
            bytes.resize(bytes.len() + data, 0);
            let header = Header::of_bytes("x", &bytes).unwrap();
            prop_assert_eq!(header.index.infos(), infos);
        }
    }
}
