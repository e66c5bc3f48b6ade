//! Checkpoints of PyTorch before 1.6: three small pickles, the pickle of the weights, one with the storage keys, and then
//! each storage with its number of elements before it.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};

use super::pickle::{LegacyState, PickledTensor, read_legacy};
use super::pytorch::{MAX_PICKLE, check_extent, gather};
use crate::safetensors::ReadSeek;
use crate::tensor::Index;
use crate::{PackError, TensorData, TensorInfo, TensorSource};

/// A `.pth` file in the legacy format of `torch.save`. Opening parses the pickles and checks that every tensor lies within
/// its storage and every storage within the file; [`read`](TensorSource::read) reads the bytes of one tensor.
pub struct LegacyPyTorchFile {
    file: String,
    index: Index,
    /// Each tensor with the file offset of its storage, in the order of `index`.
    places: Vec<(PickledTensor, u64)>,
    reader: Mutex<Box<dyn ReadSeek>>,
}

impl std::fmt::Debug for LegacyPyTorchFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LegacyPyTorchFile")
            .field("file", &self.file)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl LegacyPyTorchFile {
    /// Opens any seekable reader; `name` is for error messages.
    pub fn from_reader(
        name: impl Into<String>,
        reader: impl Read + Seek + Send + 'static,
    ) -> Result<Self, PackError> {
        let (file, mut reader): (String, Box<dyn ReadSeek>) = (name.into(), Box::new(reader));
        let io = |e| PackError::io(&file, e);
        let file_len = reader.seek(SeekFrom::End(0)).map_err(io)?;
        reader.seek(SeekFrom::Start(0)).map_err(io)?;
        // The pickles come first; they are far smaller than the limit.
        let mut head = vec![];
        reader
            .by_ref()
            .take(MAX_PICKLE)
            .read_to_end(&mut head)
            .map_err(io)?;
        let LegacyState {
            state,
            storages,
            end,
        } = read_legacy(&file, &head)?;
        drop(head);
        let starts = storage_starts(
            &file,
            &mut reader,
            &state.tensors,
            &storages,
            end as u64,
            file_len,
        )?;

        let (mut index, mut places) = (Index::default(), vec![]);
        for tensor in state.tensors {
            let info = tensor.info();
            let bytes = tensor.storage_elements * tensor.dtype.size() as u64;
            check_extent(&file, &info, &tensor, bytes)?;
            let start = starts.get(&tensor.storage).copied();
            let start = start.ok_or_else(|| PackError::BadArchive {
                file: file.clone(),
                reason: format!("the storage of tensor `{}` is not in it", tensor.name),
            })?;
            if !index.push(info) {
                return Err(PackError::DuplicateTensor {
                    file,
                    tensor: tensor.name,
                });
            }
            places.push((tensor, start));
        }
        Ok(Self {
            file,
            index,
            places,
            reader: Mutex::new(reader),
        })
    }
}

/// File offset of each storage's values.
fn storage_starts(
    file: &str,
    reader: &mut Box<dyn ReadSeek>,
    tensors: &[PickledTensor],
    storages: &[String],
    end: u64,
    file_len: u64,
) -> Result<HashMap<String, u64>, PackError> {
    let bad = |reason: String| PackError::BadArchive {
        file: file.into(),
        reason,
    };
    let mut sizes: HashMap<&str, (u64, u64)> = HashMap::new();
    for tensor in tensors {
        let element = tensor.dtype.size() as u64;
        let size = (tensor.storage_elements, element);
        let bytes = tensor.storage_elements.checked_mul(element);
        let known = sizes.entry(&tensor.storage).or_insert(size);
        if *known != size || bytes.is_none_or(|bytes| bytes > file_len) {
            return Err(bad(format!(
                "the storage {} has a size that cannot be",
                tensor.storage
            )));
        }
    }
    let (mut starts, mut at) = (HashMap::new(), end);
    for key in storages {
        let &(elements, size) = sizes
            .get(key.as_str())
            .ok_or_else(|| bad(format!("no tensor uses the storage {key}")))?;
        let (start, next) = (at + 8, at + 8 + elements * size);
        if next > file_len {
            return Err(PackError::ShortFile {
                file: file.into(),
                expected: next,
                found: file_len,
            });
        }
        let mut count = [0; 8];
        reader
            .seek(SeekFrom::Start(at))
            .and_then(|_| reader.read_exact(&mut count))
            .map_err(|e| PackError::io(file, e))?;
        let count = u64::from_le_bytes(count);
        if count != elements {
            return Err(bad(format!(
                "the storage {key} should hold {elements} elements but says {count}"
            )));
        }
        if starts.insert(key.clone(), start).is_some() {
            return Err(bad(format!("the storage {key} is in it twice")));
        }
        at = next;
    }
    match at == file_len {
        true => Ok(starts),
        false => Err(PackError::LongFile {
            file: file.into(),
            expected: at,
            found: file_len,
        }),
    }
}

impl TensorSource for LegacyPyTorchFile {
    fn tensors(&self) -> &[TensorInfo] {
        self.index.infos()
    }

    fn read(&self, name: &str) -> Result<TensorData, PackError> {
        let found = self.index.position(name);
        let found = found.and_then(|p| Some((self.index.infos().get(p)?, self.places.get(p)?)));
        let (info, (tensor, start)) = found.ok_or_else(|| PackError::MissingTensor {
            file: self.file.clone(),
            tensor: name.into(),
        })?;
        let (size, elements) = (info.dtype.size(), info.elements()?);
        let mut bytes = vec![];
        if elements > 0 {
            // Read the span from the first to the last element, then gather the elements.
            let first = start + tensor.offset * size as u64;
            let mut span = vec![0; tensor.span() * size];
            let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            reader
                .seek(SeekFrom::Start(first))
                .and_then(|_| reader.read_exact(&mut span))
                .map_err(|e| PackError::io(format!("{} (tensor `{name}`)", self.file), e))?;
            bytes = match tensor.is_contiguous() {
                true => span,
                false => gather(&span, size, elements, tensor),
            };
        }
        Ok(TensorData {
            info: info.clone(),
            bytes,
        })
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name)
    }
}
