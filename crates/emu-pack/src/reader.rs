//! The pack reader. Every byte is verified against the manifest before use.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use sha2::{Digest, Sha256};

use crate::{
    FileEntry, MANIFEST_FILE, Manifest, PackError, TensorData, TensorInfo, TensorSource,
    header::Header,
    manifest::MAX_MANIFEST,
    quant::{Scheme, Stored, mins_name, scales_name},
    safetensors::read_small,
    sniff::{refuse_others, refuse_pages, sniff},
    tensor::Index,
    verify::{compare_hash, compare_len},
};

/// Fetches the bytes of a file of the pack; the error is a message.
pub type Fetch = Box<dyn Fn(&str) -> Result<Cow<'static, [u8]>, String> + Send + Sync>;

/// An open pack. Its manifest is valid. A shard is verified (length, SHA-256, location of every tensor) when the first of
/// its tensors is read; [`verify`](Self::verify) verifies all of them.
///
/// As a [`TensorSource`] it provides the *stored* tensors: a quantized `<name>` is U32 words, with `<name>.scales`
/// beside it. [`read_logical`](Self::read_logical) provides the tensors that the model sees.
pub struct PackReader {
    manifest: Manifest,
    index: Index,
    /// Index of each shard in the manifest, by file name.
    shard_by_file: HashMap<String, usize>,
    /// Byte ranges of the tensors of each verified shard; `None` before its first use.
    verified: Mutex<Vec<Option<Places>>>,
    bytes: Bytes,
}

/// Byte ranges by key.
type Places = HashMap<String, Range<u64>>;

enum Bytes {
    Folder(PathBuf),
    Fetched {
        fetch: Fetch,
        /// Cache of the last fetched shard, verified; tensors are mostly read in stored order.
        last: Mutex<Option<(usize, Cow<'static, [u8]>)>>,
    },
}

impl std::fmt::Debug for PackReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackReader")
            .field("name", &self.manifest.name)
            .finish_non_exhaustive()
    }
}

impl PackReader {
    /// Opens a pack in a folder.
    ///
    /// If a writer was killed while it exchanged an old pack for a new one, the old pack is opened from where it was
    /// moved to.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, PackError> {
        let mut folder = folder.as_ref().to_path_buf();
        if !folder.exists()
            && let Some(aside) = set_aside(&folder)
            && aside.join(MANIFEST_FILE).is_file()
        {
            folder = aside;
        }
        if folder.is_file() {
            if folder.file_name().is_some_and(|name| name == MANIFEST_FILE) {
                folder.pop();
            } else {
                let name = folder.display().to_string();
                let mut file = File::open(&folder).map_err(|e| PackError::io(&name, e))?;
                refuse_others(&name, sniff(&name, &mut file)?, &[])?;
            }
        }
        let path = folder.join(MANIFEST_FILE);
        let json = read_small(&path, MAX_MANIFEST)?;
        Self::new(
            Manifest::parse(&path.display().to_string(), &json)?,
            Bytes::Folder(folder),
        )
    }

    /// Opens an unfinished pack, with what its writer has completed.
    #[cfg(feature = "convert")]
    pub(crate) fn growing(manifest: Manifest, folder: PathBuf) -> Result<Self, PackError> {
        Self::new(manifest, Bytes::Folder(folder))
    }

    /// Opens a pack from the bytes of its `emu.json`; `fetch` is called with the name of a file when its bytes are needed.
    pub fn from_bytes(
        manifest: &[u8],
        fetch: impl Fn(&str) -> Result<Cow<'static, [u8]>, String> + Send + Sync + 'static,
    ) -> Result<Self, PackError> {
        let bytes = Bytes::Fetched {
            fetch: Box::new(fetch),
            last: Mutex::new(None),
        };
        Self::new(Manifest::parse(MANIFEST_FILE, manifest)?, bytes)
    }

    fn new(manifest: Manifest, bytes: Bytes) -> Result<Self, PackError> {
        let mut index = Index::default();
        for tensor in &manifest.tensors {
            index.push(tensor.info());
        }
        let shard_by_file = manifest
            .shards
            .iter()
            .enumerate()
            .map(|(i, shard)| (shard.file.clone(), i))
            .collect();
        let verified = Mutex::new(manifest.shards.iter().map(|_| None).collect());
        Ok(Self {
            manifest,
            index,
            shard_by_file,
            verified,
            bytes,
        })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The scheme of a tensor, if it is quantized.
    pub fn scheme(&self, name: &str) -> Option<Scheme> {
        self.manifest.quantization.get(name).copied()
    }

    /// Names of the stored tensors of one component, in stored order.
    pub fn component_tensors(&self, component: &str) -> impl Iterator<Item = &str> {
        let here = self
            .manifest
            .tensors
            .iter()
            .filter(move |tensor| tensor.component == component);
        here.map(|tensor| tensor.name.as_str())
    }

    /// Reads a tensor as the model sees it: a quantized one as f32 in its logical shape, others as stored.
    pub fn read_logical(&self, name: &str) -> Result<TensorData, PackError> {
        self.read_stored(name)?.into_dense()
    }

    /// Reads a tensor as stored, with its scales and minima if it is quantized.
    pub fn read_stored(&self, name: &str) -> Result<Stored, PackError> {
        let Some(scheme) = self.scheme(name) else {
            return self.read(name).map(Stored::Dense);
        };
        let mins = if scheme.has_mins() {
            Some(self.read(&mins_name(name))?)
        } else {
            None
        };
        let (words, scales) = (self.read(name)?, self.read(&scales_name(name))?);
        self.manifest
            .quantized(words, scales, mins)
            .map(Stored::Quantized)
    }

    /// Reads and verifies a file that is not a shard (such as `tokenizer.json`).
    pub fn file(&self, name: &str) -> Result<Vec<u8>, PackError> {
        let entry = self.manifest.file(name)?;
        let bytes = match &self.bytes {
            Bytes::Folder(folder) => {
                let path = folder.join(name);
                check_len(&path, entry.bytes)?;
                std::fs::read(&path).map_err(|e| PackError::io(path.display(), e))?
            }
            Bytes::Fetched { fetch, .. } => fetched(fetch, name)?.into_owned(),
        };
        entry.verify(&bytes)?;
        Ok(bytes)
    }

    /// Verifies every file of the pack.
    pub fn verify(&self) -> Result<(), PackError> {
        for shard in &self.manifest.shards {
            self.verify_shard(&shard.file)?;
        }
        for file in &self.manifest.files {
            self.file(&file.file)?;
        }
        Ok(())
    }

    /// Verifies a shard unless already done; returns its index in the manifest.
    ///
    /// The lock is held throughout, so that two threads do not hash the same file.
    fn verify_shard(&self, file: &str) -> Result<usize, PackError> {
        let missing = || PackError::BadName { name: file.into() };
        let &at = self.shard_by_file.get(file).ok_or_else(missing)?;
        let entry = self.manifest.shards.get(at).ok_or_else(missing)?;
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = verified.get_mut(at).ok_or_else(missing)?;
        if slot.is_none() {
            let header = match &self.bytes {
                Bytes::Folder(folder) => verify_file(entry, &folder.join(file))?,
                Bytes::Fetched { fetch, last } => {
                    let bytes = fetched(fetch, file)?;
                    entry.verify(&bytes)?;
                    let header = Header::of_bytes(file, &bytes)?;
                    *last.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, bytes));
                    header
                }
            };
            let parts = self.manifest.check_shard(file, &header)?;
            *slot = Some(
                parts
                    .into_iter()
                    .map(|(_, part, range)| (part.key.clone(), range))
                    .collect(),
            );
        }
        Ok(at)
    }

    /// Byte range of a part in a verified shard.
    fn place(&self, at: usize, key: &str) -> Option<Range<u64>> {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.get(at)?.as_ref()?.get(key).cloned()
    }

    /// Appends the bytes of one part.
    fn append(
        &self,
        file: &str,
        at: usize,
        range: Range<u64>,
        into: &mut Vec<u8>,
    ) -> Result<(), PackError> {
        let len = range.end - range.start;
        match &self.bytes {
            Bytes::Folder(folder) => {
                let path = folder.join(file);
                let io = |e| PackError::io(path.display(), e);
                let mut shard = File::open(&path).map_err(io)?;
                shard.seek(SeekFrom::Start(range.start)).map_err(io)?;
                let read = shard.take(len).read_to_end(into).map_err(io)? as u64;
                if read != len {
                    let file = path.display().to_string();
                    return Err(PackError::ShortFile {
                        file,
                        expected: range.end,
                        found: range.start + read,
                    });
                }
            }
            Bytes::Fetched { fetch, last } => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.as_ref().is_none_or(|(cached, _)| *cached != at) {
                    let bytes = fetched(fetch, file)?;
                    let entry = self.manifest.shards.get(at);
                    let entry = entry.ok_or_else(|| PackError::BadName { name: file.into() })?;
                    entry.verify(&bytes)?;
                    *last = Some((at, bytes));
                }
                let bytes = last
                    .as_ref()
                    .and_then(|(_, b)| b.get(range.start as usize..range.end as usize));
                let short = || PackError::ShortFile {
                    file: file.into(),
                    expected: range.end,
                    found: range.start,
                };
                into.extend_from_slice(bytes.ok_or_else(short)?);
            }
        }
        Ok(())
    }
}

impl TensorSource for PackReader {
    fn tensors(&self) -> &[TensorInfo] {
        self.index.infos()
    }

    fn read(&self, name: &str) -> Result<TensorData, PackError> {
        let missing = |file: &str| PackError::MissingTensor {
            file: file.into(),
            tensor: name.into(),
        };
        let entry = self
            .index
            .position(name)
            .and_then(|p| self.manifest.tensors.get(p));
        let entry = entry.ok_or_else(|| missing(MANIFEST_FILE))?;
        // Verify all of its shards before allocating: their contents then bound the size.
        let mut places = Vec::with_capacity(entry.parts.len());
        for part in &entry.parts {
            let at = self.verify_shard(&part.file)?;
            places.push((
                at,
                self.place(at, &part.key)
                    .ok_or_else(|| missing(&part.file))?,
            ));
        }
        let info = entry.info();
        let mut bytes = Vec::with_capacity(info.byte_len()?);
        for (part, (at, range)) in entry.parts.iter().zip(places) {
            self.append(&part.file, at, range, &mut bytes)?;
        }
        let tensor = TensorData { info, bytes };
        tensor.check_len()?;
        Ok(tensor)
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name)
    }
}

fn fetched(fetch: &Fetch, file: &str) -> Result<Cow<'static, [u8]>, PackError> {
    fetch(file).map_err(|reason| PackError::Fetch {
        file: file.into(),
        reason,
    })
}

/// Verifies a file on disk against its entry, in constant memory, and reads its header.
fn verify_file(entry: &FileEntry, path: &Path) -> Result<Header, PackError> {
    let name = path.display().to_string();
    let io = |e| PackError::io(&name, e);
    check_len(path, entry.bytes)?;
    let mut file = File::open(path).map_err(io)?;
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut chunk).map_err(io)? {
            0 => break,
            read => hash.update(chunk.get(..read).unwrap_or_default()),
        }
    }
    compare_hash(&name, &entry.sha256, hash.finalize().as_slice())?;

    let mut first = [0; 8];
    if entry.bytes < 8 {
        return Err(PackError::ShortFile {
            file: name,
            expected: 8,
            found: entry.bytes,
        });
    }
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    file.read_exact(&mut first).map_err(io)?;
    let start = Header::prefix_len(&name, first, entry.bytes)?;
    let mut json = vec![0; start as usize - 8];
    file.read_exact(&mut json).map_err(io)?;
    Header::parse(&name, &json, start, entry.bytes)
}

fn check_len(path: &Path, expected: u64) -> Result<(), PackError> {
    let name = path.display().to_string();
    let io = |e| PackError::io(&name, e);
    let found = path.metadata().map_err(io)?.len();
    if found != expected {
        // A pack cloned without Git LFS, or downloaded from a page that requires a login.
        let kind = sniff(&name, &mut File::open(path).map_err(io)?)?;
        refuse_pages(&name, kind)?;
    }
    compare_len(&name, expected, found)
}

/// Where a writer moves the pack that it replaces: `.<name>.previous` beside it.
pub(crate) fn set_aside(folder: &Path) -> Option<PathBuf> {
    let name = folder.file_name()?.to_str()?;
    Some(folder.with_file_name(format!(".{name}.previous")))
}
