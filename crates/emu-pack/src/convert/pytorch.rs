//! PyTorch checkpoints: a zip archive with one pickle, and one uncompressed entry per storage.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::{Mutex, PoisonError},
};

use zip::{CompressionMethod, ZipArchive, result::ZipError};

use super::pickle::{PickledTensor, StateDict, read_pickle};
use crate::{
    FileKind, PackError, TensorData, TensorInfo, TensorSource,
    safetensors::ReadSeek,
    sniff::{refuse_others, sniff},
    tensor::Index,
};

/// Maximum pickle size; that of the full-size model is well below one megabyte.
pub(super) const MAX_PICKLE: u64 = 64 << 20;
/// Maximum size of a broadcast tensor (more elements than its storage).
const MAX_BROADCAST: u64 = 64 << 20;

/// A `.pt`, `.pth` or `.bin` file of `torch.save`. Opening parses the pickle and checks that every tensor lies
/// within its storage; [`read`](TensorSource::read) reads the bytes of one tensor.
pub struct PyTorchFile {
    file: String,
    index: Index,
    /// Location of each tensor's values, in the order of `index`.
    places: Vec<Place>,
    skipped: Vec<String>,
    archive: Mutex<ZipArchive<Box<dyn ReadSeek>>>,
}

struct Place {
    /// Index of the archive entry.
    entry: usize,
    /// Size of the entry in bytes.
    entry_bytes: u64,
    /// Whether the archive has a checksum for it.
    has_crc: bool,
    tensor: PickledTensor,
}

impl std::fmt::Debug for PyTorchFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PyTorchFile")
            .field("file", &self.file)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl PyTorchFile {
    /// Opens a file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PackError> {
        let name = path.as_ref().display().to_string();
        let file = File::open(path).map_err(|e| PackError::io(&name, e))?;
        Self::from_reader(name, file)
    }

    /// Opens any seekable reader; `name` is for error messages.
    pub fn from_reader(
        name: impl Into<String>,
        reader: impl Read + Seek + Send + 'static,
    ) -> Result<Self, PackError> {
        let mut opened = Opened::new(name.into(), Box::new(reader))?;
        let state = opened.state()?;
        let Opened {
            file,
            file_len,
            prefix,
            mut archive,
        } = opened;

        let (mut index, mut places) = (Index::default(), Vec::with_capacity(state.tensors.len()));
        let mut entries = HashMap::new();
        for tensor in state.tensors {
            let info = tensor.info();
            let (entry, entry_bytes, has_crc) = match entries.get(&tensor.storage) {
                Some(known) => *known,
                None => {
                    let found = storage_entry(&file, &mut archive, &prefix, &tensor, file_len)?;
                    entries.insert(tensor.storage.clone(), found);
                    found
                }
            };
            check_extent(&file, &info, &tensor, entry_bytes)?;
            if !index.push(info) {
                return Err(PackError::DuplicateTensor {
                    file,
                    tensor: tensor.name,
                });
            }
            places.push(Place {
                entry,
                entry_bytes,
                has_crc,
                tensor,
            });
        }
        Ok(Self {
            file,
            index,
            places,
            skipped: state.skipped,
            archive: Mutex::new(archive),
        })
    }

    /// Names, types and shapes of the tensors of any seekable reader. Reads the pickle and the archive's directory, but not the
    /// header of each storage, so nothing is known of the values.
    pub(super) fn infos(
        name: String,
        reader: impl Read + Seek + Send + 'static,
    ) -> Result<Vec<TensorInfo>, PackError> {
        let mut opened = Opened::new(name, Box::new(reader))?;
        let mut index = Index::default();
        for tensor in opened.state()?.tensors {
            if !index.push(tensor.info()) {
                return Err(PackError::DuplicateTensor {
                    file: opened.file,
                    tensor: tensor.name,
                });
            }
        }
        Ok(index.infos().to_vec())
    }

    /// Keys of non-tensor values in the state dict.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    fn read_place(&self, info: &TensorInfo, place: &Place) -> Result<Vec<u8>, PackError> {
        let size = info.dtype.size();
        let elements = info.elements()?;
        if elements == 0 {
            return Ok(vec![]);
        }
        let first = place.tensor.offset as usize * size;
        let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        let what = format!("tensor `{}`", info.name);
        let zip = |e| archive_error(&self.file, &what, e);
        let io = |e| PackError::io(format!("{} ({what})", self.file), e);
        if place.tensor.is_contiguous() {
            let mut bytes = vec![0; info.byte_len()?];
            if place.has_crc && bytes.len() as u64 == place.entry_bytes {
                let mut entry = archive.by_index(place.entry).map_err(zip)?;
                entry.read_exact(&mut bytes).map_err(io)?;
                // One more read reaches the end of the entry, which verifies its checksum.
                entry.read(&mut [0]).map_err(io)?;
            } else {
                let mut entry = archive.by_index_seek(place.entry).map_err(zip)?;
                entry.seek(SeekFrom::Start(first as u64)).map_err(io)?;
                entry.read_exact(&mut bytes).map_err(io)?;
            }
            return Ok(bytes);
        }
        // Read the span from the first to the last element, then gather the elements.
        let mut span = vec![0; place.tensor.span() * size];
        let mut entry = archive.by_index_seek(place.entry).map_err(zip)?;
        entry.seek(SeekFrom::Start(first as u64)).map_err(io)?;
        entry.read_exact(&mut span).map_err(io)?;
        Ok(gather(&span, size, elements, &place.tensor))
    }
}

/// An archive with one pickle.
struct Opened {
    file: String,
    file_len: u64,
    /// Folder of the entries, with a slash at its end, or empty.
    prefix: String,
    archive: ZipArchive<Box<dyn ReadSeek>>,
}

impl Opened {
    fn new(file: String, mut reader: Box<dyn ReadSeek>) -> Result<Self, PackError> {
        let kind = sniff(&file, &mut reader)?;
        refuse_others(&file, kind, &[FileKind::Zip, FileKind::LegacyPyTorch])?;
        if kind != FileKind::Zip {
            let reason = match kind {
                FileKind::LegacyPyTorch => "it is in the format of PyTorch before 1.6",
                _ => "it is not a PyTorch archive",
            };
            return Err(PackError::BadArchive {
                file,
                reason: reason.into(),
            });
        }
        let end = reader.seek(SeekFrom::End(0));
        let file_len = end.map_err(|e| PackError::io(&file, e))?;
        let archive = ZipArchive::new(reader)
            .map_err(|e| archive_error(&file, "it is no complete zip archive", e))?;
        let bad = |reason: &str| PackError::BadArchive {
            file: file.clone(),
            reason: reason.into(),
        };
        if archive.has_duplicate_names() {
            return Err(bad("two entries of the archive have one name"));
        }

        let mut pickles = archive.file_names_raw().filter_map(|name| {
            let prefix = std::str::from_utf8(name).ok()?.strip_suffix("data.pkl")?;
            (prefix.is_empty() || prefix.ends_with('/')).then(|| prefix.to_owned())
        });
        let prefix = match (pickles.next(), pickles.next()) {
            (Some(prefix), None) => prefix,
            (None, _) => return Err(bad("no data.pkl is in the archive")),
            _ => return Err(bad("more than one data.pkl is in the archive")),
        };
        drop(pickles);
        Ok(Self {
            file,
            file_len,
            prefix,
            archive,
        })
    }

    /// Reads the pickle.
    fn state(&mut self) -> Result<StateDict, PackError> {
        let Self {
            file,
            prefix,
            archive,
            ..
        } = self;
        let (file, prefix): (&str, &str) = (file, prefix);
        let bad = |reason: &str| PackError::BadArchive {
            file: file.into(),
            reason: reason.into(),
        };
        if let Some(order) = archive.index_for_name_raw(format!("{prefix}byteorder").as_bytes()) {
            match small_entry(file, archive, order, 16)?.trim_ascii() {
                b"little" => {}
                b"big" => return Err(PackError::BigEndian { file: file.into() }),
                _ => return Err(bad("its byte order is neither little nor big")),
            }
        }
        let pickle = archive.index_for_name_raw(format!("{prefix}data.pkl").as_bytes());
        let pickle = pickle.ok_or_else(|| bad("no data.pkl is in the archive"))?;
        read_pickle(file, &small_entry(file, archive, pickle, MAX_PICKLE)?)
    }
}

impl TensorSource for PyTorchFile {
    fn tensors(&self) -> &[TensorInfo] {
        self.index.infos()
    }

    fn read(&self, name: &str) -> Result<TensorData, PackError> {
        let found = self.index.position(name);
        match found.and_then(|p| Some((self.index.infos().get(p)?, self.places.get(p)?))) {
            Some((info, place)) => Ok(TensorData {
                info: info.clone(),
                bytes: self.read_place(info, place)?,
            }),
            None => Err(PackError::MissingTensor {
                file: self.file.clone(),
                tensor: name.into(),
            }),
        }
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name)
    }
}

impl PickledTensor {
    /// Name, type and shape.
    pub(super) fn info(&self) -> TensorInfo {
        TensorInfo {
            name: self.name.clone(),
            dtype: self.dtype,
            shape: self.shape.clone(),
        }
    }

    /// Number of storage elements from the tensor's first to its last element.
    pub(super) fn span(&self) -> usize {
        self.last_element() - self.offset as usize + 1
    }

    /// Whether the tensor is contiguous in row-major order.
    pub(super) fn is_contiguous(&self) -> bool {
        let mut step = 1;
        self.shape
            .iter()
            .zip(&self.strides)
            .rev()
            .all(|(&size, &stride)| {
                let fits = size == 1 || stride == step;
                step *= size;
                fits
            })
    }

    /// Index of the last element in the storage; cannot overflow, as checked by `check_extent`.
    pub(super) fn last_element(&self) -> usize {
        let steps: usize = self
            .shape
            .iter()
            .zip(&self.strides)
            .map(|(&size, &stride)| size.saturating_sub(1) * stride)
            .sum();
        self.offset as usize + steps
    }
}

/// Reads a whole entry of at most `limit` bytes and verifies its checksum.
fn small_entry(
    file: &str,
    archive: &mut ZipArchive<Box<dyn ReadSeek>>,
    entry: usize,
    limit: u64,
) -> Result<Vec<u8>, PackError> {
    let raw = archive
        .by_index_raw(entry)
        .map_err(|e| archive_error(file, "an entry cannot be read", e))?;
    let name = String::from_utf8_lossy(raw.name_raw()).into_owned();
    if raw.compression() != CompressionMethod::Stored || raw.encrypted() {
        return Err(PackError::BadArchive {
            file: file.into(),
            reason: format!(
                "its entry {name} is compressed or encrypted, which PyTorch never does"
            ),
        });
    }
    drop(raw);
    let mut entry = archive
        .by_index(entry)
        .map_err(|e| archive_error(file, "an entry cannot be read", e))?;
    if entry.size() > limit {
        let (size, limit) = (format!("{} bytes", entry.size()), format!("{limit} bytes"));
        return Err(PackError::TooLarge {
            what: format!("{name} in {file}"),
            size,
            limit,
        });
    }
    let mut bytes = Vec::new();
    entry
        .by_ref()
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| PackError::io(format!("{file} ({name})"), e))?;
    match bytes.len() as u64 == entry.size() {
        true => Ok(bytes),
        false => Err(PackError::ShortFile {
            file: format!("{name} in {file}"),
            expected: entry.size(),
            found: bytes.len() as u64,
        }),
    }
}

/// Index and length of a storage's archive entry, and whether it has a checksum.
fn storage_entry(
    file: &str,
    archive: &mut ZipArchive<Box<dyn ReadSeek>>,
    prefix: &str,
    tensor: &PickledTensor,
    file_len: u64,
) -> Result<(usize, u64, bool), PackError> {
    let name = format!("{prefix}data/{}", tensor.storage);
    let what = format!("storage {name} of tensor `{}`", tensor.name);
    let bad = |reason: String| PackError::BadArchive {
        file: file.into(),
        reason,
    };
    let index = archive.index_for_name_raw(name.as_bytes());
    let index = index.ok_or_else(|| bad(format!("the {what} is not in the archive")))?;
    let entry = archive
        .by_index_raw(index)
        .map_err(|e| archive_error(file, &what, e))?;
    if entry.encrypted()
        || entry.compression() != CompressionMethod::Stored
        || entry.size() != entry.compressed_size()
    {
        return Err(bad(format!("the {what} is compressed or encrypted")));
    }
    let (size, start) = (entry.size(), entry.data_start().unwrap_or(u64::MAX));
    if start.checked_add(size).is_none_or(|end| end > file_len) {
        return Err(PackError::ShortFile {
            file: file.into(),
            expected: start.saturating_add(size),
            found: file_len,
        });
    }
    if tensor
        .storage_elements
        .checked_mul(tensor.dtype.size() as u64)
        != Some(size)
    {
        let (elements, dtype) = (tensor.storage_elements, tensor.dtype);
        return Err(bad(format!(
            "the {what} should hold {elements} elements of {dtype} but has {size} bytes"
        )));
    }
    Ok((index, size, entry.crc32() != 0))
}

/// Checks that every element of a tensor lies within its storage, and that a broadcast tensor is not excessively large.
pub(super) fn check_extent(
    file: &str,
    info: &TensorInfo,
    tensor: &PickledTensor,
    entry_bytes: u64,
) -> Result<(), PackError> {
    let bytes = info.byte_len()? as u64;
    let in_storage = entry_bytes / info.dtype.size() as u64;
    if info.elements()? == 0 {
        return Ok(());
    }
    let end = tensor.shape.iter().zip(&tensor.strides).try_fold(
        tensor.offset,
        |end, (&size, &stride)| {
            end.checked_add((size as u64).checked_sub(1)?.checked_mul(stride as u64)?)
        },
    );
    if end.is_none_or(|last| last >= in_storage) {
        let reason = format!(
            "tensor `{}` of {} reaches beyond its storage of {in_storage} elements",
            info.name,
            info.describe()
        );
        return Err(PackError::BadArchive {
            file: file.into(),
            reason,
        });
    }
    if bytes > entry_bytes && bytes > MAX_BROADCAST {
        return Err(PackError::TooLarge {
            what: format!("tensor `{}` in {file}", info.name),
            size: format!("{bytes} bytes out of a storage of {entry_bytes}"),
            limit: format!("{MAX_BROADCAST} bytes"),
        });
    }
    Ok(())
}

/// Gathers a tensor's elements in row-major order from a span that begins with its first element.
pub(super) fn gather(span: &[u8], size: usize, elements: usize, tensor: &PickledTensor) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(elements * size);
    let mut place = vec![0usize; tensor.shape.len()];
    let mut at = 0usize;
    for _ in 0..elements {
        bytes.extend_from_slice(span.get(at * size..(at + 1) * size).unwrap_or_default());
        // Increments the index, last dimension first, and updates `at`.
        // (A dimension of size 1 never advances; its stride is arbitrary.)
        let dimensions = place
            .iter_mut()
            .zip(&tensor.shape)
            .zip(&tensor.strides)
            .rev();
        for ((place, &len), &stride) in dimensions.filter(|((_, len), _)| **len > 1) {
            *place += 1;
            at += stride;
            if *place < len {
                break;
            }
            at -= len * stride;
            *place = 0;
        }
    }
    bytes
}

fn archive_error(file: &str, what: &str, error: ZipError) -> PackError {
    match error {
        ZipError::Io(source) if source.kind() != std::io::ErrorKind::UnexpectedEof => {
            PackError::io(format!("{file} ({what})"), source)
        }
        other => PackError::BadArchive {
            file: file.into(),
            reason: format!("{what}: {other}"),
        },
    }
}
