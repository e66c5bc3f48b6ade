//! GGUF, the format of llama.cpp: metadata, a tensor table and the data, in one file or in numbered parts.
//!
//! Supported: versions 2 and 3, little-endian; float types and the block types listed in `kind`.

mod blocks;
mod head;
mod kind;
mod part;
mod split;

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
    sync::{Mutex, PoisonError},
};

use serde_json::{Map, Value};

use crate::{
    FileKind, PackError, Quantized, Stored, TensorData, TensorInfo, TensorSource,
    safetensors::ReadSeek,
    sniff::{refuse_others, sniff},
    tensor::Index,
};
use blocks::{dequantize, repack};
use head::{Declared, Head};
use kind::Kind;
use part::{Part, Place};

/// Magic bytes.
const MAGIC: [u8; 4] = *b"GGUF";
/// Default alignment of the data section and of each tensor in it.
const ALIGNMENT: u64 = 32;
/// Maximum accepted alignment.
const MAX_ALIGNMENT: u64 = 1 << 20;

/// A `.gguf` file, or all parts of a split one. Opening reads the metadata and checks that every tensor lies within its
/// file. [`read`](TensorSource::read) reads and dequantizes one tensor; [`read_packed`](GgufFile::read_packed) reads one in
/// the layout of a pack.
///
/// Shapes are outermost first, as everywhere here: a linear layer is `[out, in]`.
pub struct GgufFile {
    /// The path or name under which it was opened.
    file: String,
    metadata: Map<String, Value>,
    index: Index,
    /// Location of each tensor's values, in the order of `index`.
    places: Vec<Place>,
    parts: Vec<Bytes>,
}

/// An open file with tensor data.
struct Bytes {
    file: String,
    reader: Mutex<Box<dyn ReadSeek>>,
}

impl std::fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GgufFile")
            .field("file", &self.file)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl GgufFile {
    /// Whether a file has GGUF's magic bytes. `false` also if it cannot be read.
    pub fn is_one(path: impl AsRef<Path>) -> bool {
        let mut start = [0; MAGIC.len()];
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
        read.is_ok() && start == MAGIC
    }

    /// Opens a file; given any part of a split model, opens all parts.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or holds a tensor of an unsupported type; parts are missing.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PackError> {
        let path = path.as_ref();
        let part = Part::open(path)?;
        let name = part.file.clone();
        match split::of(&part)? {
            None => Self::join(name, vec![part]),
            Some(split) => Self::join(name, split.with_others(path, part)?),
        }
    }

    /// Opens any seekable reader; `name` is for error messages.
    ///
    /// # Errors
    /// As [`GgufFile::open`], and if it is a part of a split model.
    pub fn from_reader(
        name: impl Into<String>,
        reader: impl Read + Seek + Send + 'static,
    ) -> Result<Self, PackError> {
        let part = Part::read(name.into(), Box::new(reader))?;
        match split::of(&part)? {
            None => Self::join(part.file.clone(), vec![part]),
            Some(split) => Err(split.alone(&part.file, "the others were not given")),
        }
    }

    /// Joins the parts, which are in order, into one source.
    fn join(name: String, parts: Vec<Part>) -> Result<Self, PackError> {
        let mut joined = Self {
            file: name,
            metadata: Map::new(),
            index: Index::default(),
            places: vec![],
            parts: vec![],
        };
        for (at, part) in parts.into_iter().enumerate() {
            if at == 0 {
                joined.metadata = part.metadata;
            }
            for (info, place) in part.tensors {
                let tensor = info.name.clone();
                if !joined.index.push(info) {
                    return Err(PackError::DuplicateTensor {
                        file: part.file,
                        tensor,
                    });
                }
                joined.places.push(Place { part: at, ..place });
            }
            joined.parts.push(Bytes {
                file: part.file,
                reader: Mutex::new(part.bytes),
            });
        }
        Ok(joined)
    }

    /// The metadata (`general.architecture` and so on) as JSON.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// The path or name under which it was opened.
    pub fn name(&self) -> &str {
        &self.file
    }

    /// Reads a matrix in the layout of a pack, with exactly the values of the file; `None` if it is not quantized.
    ///
    /// # Errors
    /// There is no such tensor, or it cannot be read.
    pub fn read_packed(&self, name: &str) -> Result<Option<Quantized>, PackError> {
        let (info, place) = self.find(name)?;
        match (place.kind, info.shape.as_slice()) {
            (Kind::Float(_), _) => Ok(None),
            (kind, &[out, width]) => repack(kind, name, (out, width), &self.raw(info, place)?),
            _ => Ok(None),
        }
    }

    fn find(&self, name: &str) -> Result<(&TensorInfo, &Place), PackError> {
        let found = self.index.position(name);
        found
            .and_then(|p| Some((self.index.infos().get(p)?, self.places.get(p)?)))
            .ok_or_else(|| self.missing(name))
    }

    fn missing(&self, tensor: &str) -> PackError {
        PackError::MissingTensor {
            file: self.file.clone(),
            tensor: tensor.into(),
        }
    }

    /// A tensor's raw bytes.
    fn raw(&self, info: &TensorInfo, place: &Place) -> Result<Vec<u8>, PackError> {
        let part = self.parts.get(place.part);
        let part = part.ok_or_else(|| self.missing(&info.name))?;
        // Bounded by the file length, as checked when opening.
        let mut bytes = vec![0; place.bytes];
        let mut reader = part.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader
            .seek(SeekFrom::Start(place.start))
            .and_then(|_| reader.read_exact(&mut bytes))
            .map_err(|e| PackError::io(format!("{} (tensor `{}`)", part.file, info.name), e))?;
        Ok(bytes)
    }
}

impl TensorSource for GgufFile {
    fn tensors(&self) -> &[TensorInfo] {
        self.index.infos()
    }

    fn read_stored(&self, name: &str) -> Result<Stored, PackError> {
        match self.read_packed(name)? {
            Some(packed) => Ok(Stored::Quantized(packed)),
            None => self.read(name).map(Stored::Dense),
        }
    }

    fn read(&self, name: &str) -> Result<TensorData, PackError> {
        let (info, place) = self.find(name)?;
        let bytes = self.raw(info, place)?;
        let values = match place.kind {
            Kind::Float(_) => bytes,
            kind => dequantize(kind, &bytes),
        };
        TensorData::new(name, info.dtype, info.shape.clone(), values)
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name)
    }
}

impl Part {
    fn open(path: &Path) -> Result<Self, PackError> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| PackError::io(&name, e))?;
        Self::read(name, Box::new(file))
    }

    fn read(file: String, mut bytes: Box<dyn ReadSeek>) -> Result<Self, PackError> {
        let kind = sniff(&file, &mut bytes)?;
        refuse_others(&file, kind, &[FileKind::Gguf, FileKind::Empty])?;
        let io = |e| PackError::io(&file, e);
        let len = bytes.seek(SeekFrom::End(0)).map_err(io)?;
        bytes.seek(SeekFrom::Start(0)).map_err(io)?;
        let head = Head::read(&file, BufReader::new(&mut bytes), len)?;
        let alignment = alignment(&file, &head.metadata)?;
        let start = head.end.next_multiple_of(alignment);
        let mut tensors = Vec::with_capacity(head.tensors.len());
        for declared in head.tensors {
            let place = place(&file, &declared, (start, alignment, len))?;
            let info = TensorInfo {
                dtype: declared.kind.dtype(),
                name: declared.name,
                shape: declared.shape,
            };
            tensors.push((info, place));
        }
        // Without overlaps, the total read size is bounded by the file length, no matter how many tensors are declared.
        let places = tensors.iter().map(|(_, place)| place);
        let mut spans: Vec<_> = places.map(|p| (p.start, p.bytes as u64)).collect();
        spans.sort_unstable();
        let overlap = spans
            .windows(2)
            .any(|pair| matches!(pair, [(start, len), (next, _)] if start + len > *next));
        if overlap {
            return Err(PackError::BadGguf {
                file,
                reason: "its tensors overlap".into(),
            });
        }
        Ok(Self {
            file,
            metadata: head.metadata,
            tensors,
            bytes,
        })
    }
}

/// The alignment of the data section and the tensors.
fn alignment(file: &str, metadata: &Map<String, Value>) -> Result<u64, PackError> {
    let Some(value) = metadata.get("general.alignment") else {
        return Ok(ALIGNMENT);
    };
    value
        .as_u64()
        .filter(|n| n.is_power_of_two() && *n <= MAX_ALIGNMENT)
        .ok_or_else(|| PackError::BadGguf {
            file: file.into(),
            reason: format!("its alignment is {value}"),
        })
}

/// Location of a tensor's bytes in a file of `len` bytes whose data section begins at `start`.
fn place(
    file: &str,
    declared: &Declared,
    (start, alignment, len): (u64, u64, u64),
) -> Result<Place, PackError> {
    let name = &declared.name;
    let bad = |what: String| PackError::BadGguf {
        file: file.into(),
        reason: format!("tensor `{name}` {what}"),
    };
    if !declared.offset.is_multiple_of(alignment) {
        return Err(bad(format!(
            "begins at {}, which is no multiple of {alignment}",
            declared.offset
        )));
    }
    let info = TensorInfo {
        name: name.clone(),
        dtype: declared.kind.dtype(),
        shape: declared.shape.clone(),
    };
    // Check both sizes, since values are widened when read.
    info.byte_len()?;
    let width = declared.shape.last().copied().unwrap_or(1);
    let bytes = declared
        .kind
        .byte_len(info.elements()?, width)
        .ok_or_else(|| bad(format!("of {:?} has no whole blocks", declared.shape)))?;
    let begin = start.checked_add(declared.offset);
    match begin.and_then(|begin| Some((begin, begin.checked_add(bytes as u64)?))) {
        Some((begin, end)) if end <= len => Ok(Place {
            part: 0,
            kind: declared.kind,
            start: begin,
            bytes,
        }),
        end => Err(PackError::ShortFile {
            file: file.into(),
            expected: end.map_or(u64::MAX, |(_, end)| end),
            found: len,
        }),
    }
}
