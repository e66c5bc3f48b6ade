//! The head of a GGUF file: metadata and tensor table. Declared counts and lengths are checked against the remaining bytes
//! before anything is allocated.

use std::io::Read;

use serde_json::{Map, Number, Value};

use super::kind::Kind;
use crate::PackError;

/// Maximum string length in bytes; chat templates have some thousand.
const MAX_STRING: u64 = 16 << 20;
/// Maximum number of metadata values; the largest vocabularies have 250,000 tokens in three lists.
const MAX_VALUES: u64 = 4 << 20;
/// Maximum nesting depth of arrays.
const MAX_DEPTH: usize = 4;
/// Maximum number of tensor dimensions, as in ggml.
const MAX_DIMS: u32 = 4;

/// A tensor table entry.
pub(super) struct Declared {
    pub name: String,
    /// Outermost dimension first, unlike in the file.
    pub shape: Vec<usize>,
    pub kind: Kind,
    /// Offset from the start of the data section.
    pub offset: u64,
}

/// Everything before the data section.
pub(super) struct Head {
    pub metadata: Map<String, Value>,
    pub tensors: Vec<Declared>,
    /// Offset of the end of the head.
    pub end: u64,
}

impl Head {
    /// Reads the head of a file of `len` bytes.
    pub fn read(file: &str, reader: impl Read, len: u64) -> Result<Self, PackError> {
        let mut scan = Scan {
            file,
            reader,
            at: 0,
            len,
            values: MAX_VALUES,
        };
        // 1. magic, version, counts
        if &scan.bytes::<4>()? != b"GGUF" {
            return Err(scan.bad("it does not begin with GGUF"));
        }
        match u32::from_le_bytes(scan.bytes()?) {
            2 | 3 => {}
            // A small version number in the other byte order has only high bytes set.
            version if version != 0 && version & 0xffff == 0 => {
                return Err(PackError::BigEndian { file: file.into() });
            }
            version => {
                return Err(scan.bad(format!(
                    "it has version {version}, but only 2 and 3 are read"
                )));
            }
        }
        let (tensor_count, value_count) = (scan.u64()?, scan.u64()?);

        // 2. metadata
        let mut metadata = Map::new();
        for _ in 0..value_count {
            let key = scan.string("a key")?;
            let kind = scan.u32()?;
            let value = scan.value(&key, kind, 0)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(scan.bad(format!("its metadata has `{key}` twice")));
            }
        }

        // 3. tensors
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            tensors.push(scan.tensor()?);
        }
        Ok(Self {
            metadata,
            tensors,
            end: scan.at,
        })
    }
}

struct Scan<'a, R> {
    file: &'a str,
    reader: R,
    at: u64,
    len: u64,
    /// Metadata values left of the limit.
    values: u64,
}

impl<R: Read> Scan<'_, R> {
    fn bad(&self, reason: impl Into<String>) -> PackError {
        PackError::BadGguf {
            file: self.file.into(),
            reason: reason.into(),
        }
    }

    /// Fails if fewer than `n` bytes are left.
    fn require(&self, n: u64) -> Result<(), PackError> {
        match self.at.checked_add(n) {
            Some(end) if end <= self.len => Ok(()),
            end => Err(PackError::ShortFile {
                file: self.file.into(),
                expected: end.unwrap_or(u64::MAX),
                found: self.len,
            }),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), PackError> {
        self.require(bytes.len() as u64)?;
        self.reader
            .read_exact(bytes)
            .map_err(|e| PackError::io(self.file, e))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], PackError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, PackError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, PackError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn string(&mut self, what: &str) -> Result<String, PackError> {
        let len = self.u64()?;
        self.require(len)?;
        if len > MAX_STRING {
            return Err(PackError::TooLarge {
                what: format!("{what} in {}", self.file),
                size: format!("{len} bytes"),
                limit: format!("{MAX_STRING} bytes"),
            });
        }
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.bad(format!("{what} is no UTF-8")))
    }

    /// A metadata value. Floats that JSON cannot represent (NaN, infinity) become null.
    fn value(&mut self, key: &str, kind: u32, depth: usize) -> Result<Value, PackError> {
        let Some(left) = self.values.checked_sub(1) else {
            return Err(PackError::TooLarge {
                what: format!("the metadata of {}", self.file),
                size: "too many values".into(),
                limit: format!("{MAX_VALUES} values"),
            });
        };
        self.values = left;
        let float = |value: f64| Number::from_f64(value).map_or(Value::Null, Value::Number);
        Ok(match kind {
            0 => u8::from_le_bytes(self.bytes()?).into(),
            1 => i8::from_le_bytes(self.bytes()?).into(),
            2 => u16::from_le_bytes(self.bytes()?).into(),
            3 => i16::from_le_bytes(self.bytes()?).into(),
            4 => self.u32()?.into(),
            5 => i32::from_le_bytes(self.bytes()?).into(),
            6 => float(f32::from_le_bytes(self.bytes()?).into()),
            7 => match self.bytes()? {
                [0u8] => false.into(),
                [1] => true.into(),
                [other] => return Err(self.bad(format!("`{key}` is the boolean {other}"))),
            },
            8 => self.string(&format!("`{key}`"))?.into(),
            9 if depth < MAX_DEPTH => {
                let (kind, count) = (self.u32()?, self.u64()?);
                // Every value has at least one byte.
                self.require(count)?;
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.value(key, kind, depth + 1)?);
                }
                values.into()
            }
            10 => self.u64()?.into(),
            11 => i64::from_le_bytes(self.bytes()?).into(),
            12 => float(f64::from_le_bytes(self.bytes()?)),
            _ => return Err(self.bad(format!("`{key}` has a value of the unknown type {kind}"))),
        })
    }

    fn tensor(&mut self) -> Result<Declared, PackError> {
        let name = self.string("a tensor's name")?;
        let dims = self.u32()?;
        if dims > MAX_DIMS {
            return Err(self.bad(format!("tensor `{name}` has {dims} dimensions")));
        }
        let mut shape = Vec::with_capacity(dims as usize);
        for _ in 0..dims {
            let size = self.u64()?;
            shape.push(usize::try_from(size).map_err(|_| {
                self.bad(format!(
                    "tensor `{name}` has a dimension of {size} elements"
                ))
            })?);
        }
        shape.reverse();
        let kind = Kind::from_code(self.u32()?);
        let offset = self.u64()?;
        match kind {
            Ok(kind) => Ok(Declared {
                name,
                shape,
                kind,
                offset,
            }),
            Err(dtype) => Err(PackError::UnsupportedBlocks {
                file: self.file.into(),
                tensor: name,
                dtype,
            }),
        }
    }
}
