//! Writing packs: all of a pack or nothing, and the same bytes for the same tensors.
//!
//! Everything goes into a hidden folder beside the target, which takes the target's place at the very end. An
//! existing pack is put aside for that moment under `.<name>.previous`, where
//! [`PackReader::open`](crate::PackReader::open) and the next writer find it should the program be killed in
//! between.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    disk::{Disk, RealDisk},
    policy::{Encoding, Policy, Precision},
};
use crate::{
    Component, FORMAT, FileEntry, MANIFEST_FILE, Manifest, PackError, Part, Requires, TensorData,
    TensorEntry, TensorInfo,
    header::Header,
    manifest::{MAX_MANIFEST, check_component_name, check_file_name},
    reader::{hex, set_aside},
    safetensors::read_small,
};

/// Bytes of a shard at most, unless told otherwise.
pub const DEFAULT_SHARD_BYTES: u64 = 32 << 20;

/// What a pack says of itself.
#[derive(Debug, Clone, Default)]
pub struct PackMeta {
    /// Name of the model.
    pub name: String,
    /// Licence of the weights.
    pub license: String,
    /// Whom to credit.
    pub attribution: String,
    /// The model's configuration.
    pub config: serde_json::Value,
    /// WebGPU features without which it does not run.
    pub features: Vec<String>,
}

/// How a pack is written.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// How tensors are stored.
    pub policy: Policy,
    /// Bytes of a shard at most, header included.
    pub max_shard_bytes: u64,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            policy: Policy::uniform(Precision::Keep),
            max_shard_bytes: DEFAULT_SHARD_BYTES,
        }
    }
}

/// Writes a pack, one tensor at a time. Holds no more than that tensor and one shard in memory.
///
/// [`finish`](Self::finish) makes the pack appear; dropped before that, or failing at anything, a writer leaves
/// what was there before.
pub struct PackWriter {
    target: PathBuf,
    /// Where the pack grows.
    scratch: PathBuf,
    /// Where an existing pack is put for the moment of the exchange.
    previous: PathBuf,
    options: WriteOptions,
    manifest: Manifest,
    names: HashSet<String>,
    shard: Shard,
    /// Component and number within it of each shard written, in the manifest's order.
    numbers: Vec<(String, usize)>,
    disk: Box<dyn Disk>,
    done: bool,
}

/// The shard being filled.
#[derive(Default)]
struct Shard {
    component: String,
    /// Tensors and their place in the manifest: index of the tensor, first row, last row.
    pieces: Vec<(TensorData, usize, [usize; 2])>,
    /// What it will take at most, header included.
    bytes: u64,
}

impl PackWriter {
    /// Begins a pack at `folder`, which must be absent, empty, or a pack to replace.
    pub fn create(
        folder: impl AsRef<Path>,
        meta: PackMeta,
        options: WriteOptions,
    ) -> Result<Self, PackError> {
        Self::on_disk(folder.as_ref(), meta, options, Box::new(RealDisk))
    }

    pub(crate) fn on_disk(
        folder: &Path,
        meta: PackMeta,
        options: WriteOptions,
        mut disk: Box<dyn Disk>,
    ) -> Result<Self, PackError> {
        let in_use = |reason: &str| PackError::TargetInUse {
            path: folder.display().to_string(),
            reason: reason.into(),
        };
        let target = std::path::absolute(folder).map_err(|e| PackError::io(folder.display(), e))?;
        let name = target
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| in_use("it has no name"))?;
        let scratch = target.with_file_name(format!(".{name}.part"));
        let previous = set_aside(&target).ok_or_else(|| in_use("it has no name"))?;

        // What a killed writer may have left: a pack put aside, or an unfinished one.
        if !target.exists() && previous.join(MANIFEST_FILE).is_file() {
            disk.rename(&previous, &target)
                .map_err(|e| PackError::io(target.display(), e))?;
        }
        replaceable(&target)?;
        if scratch.exists() {
            disk.remove_folder(&scratch)
                .map_err(|e| PackError::io(scratch.display(), e))?;
        }
        disk.create_folder(&scratch)
            .map_err(|e| PackError::io(scratch.display(), e))?;

        let manifest = Manifest {
            format: FORMAT,
            name: meta.name,
            license: meta.license,
            attribution: meta.attribution,
            config: meta.config,
            components: BTreeMap::new(),
            shards: vec![],
            files: vec![],
            tensors: vec![],
            quantization: BTreeMap::new(),
            requires: Requires {
                features: meta.features,
                ..Requires::default()
            },
        };
        let (names, shard, numbers) = (HashSet::new(), Shard::default(), vec![]);
        Ok(Self {
            target,
            scratch,
            previous,
            options,
            manifest,
            names,
            shard,
            numbers,
            disk,
            done: false,
        })
    }

    /// Adds a tensor to a component. NaN, infinity, and a name that was there before are errors.
    pub fn add(&mut self, component: &str, tensor: TensorData) -> Result<(), PackError> {
        check_component_name(component)?;
        tensor.check_finite()?;
        let encoding = self.options.policy.encoding(&tensor)?;
        let stored = encoding.stored(&tensor.info);
        for info in &stored {
            if !self.names.insert(info.name.clone()) {
                let file = self.target.display().to_string();
                return Err(PackError::DuplicateTensor {
                    file,
                    tensor: info.name.clone(),
                });
            }
        }
        if let Encoding::Quantized(scheme) = encoding {
            self.manifest
                .quantization
                .insert(tensor.info.name.clone(), scheme);
        }
        let first = self.manifest.tensors.len();
        for info in &stored {
            let bytes = info.byte_len()? as u64;
            let requires = &mut self.manifest.requires;
            requires.largest_buffer = requires.largest_buffer.max(bytes);
            requires.largest_binding = requires.largest_binding.max(bytes);
            let (name, shape, component) =
                (info.name.clone(), info.shape.clone(), component.to_owned());
            self.manifest.tensors.push(TensorEntry {
                name,
                dtype: info.dtype,
                shape,
                component,
                parts: vec![],
            });
        }
        if self.shard.component != component {
            self.flush()?;
            self.shard.component = component.to_owned();
        }

        let rows = tensor.info.shape.first().copied().unwrap_or(1);
        let headers: u64 = stored.iter().map(header_cost).sum();
        let total = stored.iter().try_fold(headers, |sum, info| {
            Ok::<_, PackError>(sum + info.byte_len()? as u64)
        })?;
        if self.room() < total {
            self.flush()?;
        }
        if self.room() >= total {
            return self.add_rows(
                encoding,
                tensor.info,
                &tensor.bytes,
                [0, rows],
                first,
                total,
            );
        }

        // Larger than a shard: as many rows as fit, again and again.
        let row = (total - headers) / rows.max(1) as u64;
        let fit = self.room().saturating_sub(headers) / row.max(1);
        if fit == 0 {
            return Err(PackError::TooLarge {
                what: format!("one row of tensor `{}`", tensor.info.name),
                size: format!("{} bytes with its header", row + headers),
                limit: format!("{} bytes of a shard", self.options.max_shard_bytes),
            });
        }
        let source_row = tensor.info.byte_len()? / rows.max(1);
        for begin in (0..rows).step_by(fit as usize) {
            let end = rows.min(begin + fit as usize);
            let mut info = tensor.info.clone();
            if let Some(len) = info.shape.first_mut() {
                *len = end - begin;
            }
            let bytes = tensor
                .bytes
                .get(begin * source_row..end * source_row)
                .unwrap_or_default();
            let bytes_here = headers + row * (end - begin) as u64;
            if self.room() < bytes_here {
                self.flush()?;
            }
            self.add_rows(encoding, info, bytes, [begin, end], first, bytes_here)?;
        }
        Ok(())
    }

    /// Adds a file under this name (`tokenizer.json`).
    pub fn add_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), PackError> {
        check_file_name(name)?;
        let taken = name == MANIFEST_FILE || name.ends_with(".safetensors");
        if taken || self.manifest.files.iter().any(|file| file.file == name) {
            return Err(PackError::BadName { name: name.into() });
        }
        let path = self.scratch.join(name);
        self.disk
            .write(&path, &[bytes])
            .map_err(|e| PackError::io(path.display(), e))?;
        let sha256 = hex(Sha256::digest(bytes).as_slice());
        self.manifest.files.push(FileEntry {
            file: name.into(),
            bytes: bytes.len() as u64,
            sha256,
        });
        Ok(())
    }

    /// Copies a file in under its own name.
    pub fn copy_file(&mut self, path: impl AsRef<Path>) -> Result<(), PackError> {
        let path = path.as_ref();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        let bytes = fs::read(path).map_err(|e| PackError::io(path.display(), e))?;
        self.add_file(&name, &bytes)
    }

    /// Writes the manifest and puts the pack in its place.
    ///
    /// Files in the folder of a replaced pack that were none of its own (a model card) stay.
    pub fn finish(mut self) -> Result<Manifest, PackError> {
        self.flush()?;
        self.name_shards()?;
        self.manifest.validate(MANIFEST_FILE)?;
        let path = self.scratch.join(MANIFEST_FILE);
        self.disk
            .write(&path, &[&self.manifest.to_json()])
            .map_err(|e| PackError::io(path.display(), e))?;

        let old = replaceable(&self.target)?;
        for name in &old.others {
            let (from, to) = (self.target.join(name), self.scratch.join(name));
            if !to.exists() {
                self.disk
                    .copy(&from, &to)
                    .map_err(|e| PackError::io(to.display(), e))?;
            }
        }
        self.disk
            .sync_folder(&self.scratch)
            .map_err(|e| PackError::io(self.scratch.display(), e))?;
        self.exchange(old.exists)?;
        Ok(self.manifest.clone())
    }

    /// Puts the finished folder where the target is.
    fn exchange(&mut self, replaces: bool) -> Result<(), PackError> {
        let io = |e| PackError::io(self.target.display(), e);
        if replaces {
            if self.previous.exists() {
                self.disk.remove_folder(&self.previous).map_err(io)?;
            }
            self.disk.rename(&self.target, &self.previous).map_err(io)?;
        }
        if let Err(error) = self.disk.rename(&self.scratch, &self.target) {
            if replaces {
                // If this fails too, the old pack is still read from where it is.
                let _ = self.disk.rename(&self.previous, &self.target);
            }
            return Err(io(error));
        }
        self.done = true;
        if let Some(parent) = self.target.parent() {
            self.disk.sync_folder(parent).map_err(io)?;
        }
        if replaces {
            // What cannot be removed now is removed by the next writer; the new pack is complete.
            let _ = self.disk.remove_folder(&self.previous);
        }
        Ok(())
    }

    /// Bytes that the current shard still takes. The fixed part: the length, braces and padding.
    fn room(&self) -> u64 {
        self.options
            .max_shard_bytes
            .saturating_sub(self.shard.bytes + 32)
    }

    fn add_rows(
        &mut self,
        encoding: Encoding,
        rows: TensorInfo,
        bytes: &[u8],
        range: [usize; 2],
        first: usize,
        takes: u64,
    ) -> Result<(), PackError> {
        for (i, mut piece) in encoding.encode(rows, bytes)?.into_iter().enumerate() {
            let whole = self
                .manifest
                .tensors
                .get(first + i)
                .is_some_and(|entry| entry.shape == piece.info.shape);
            if !whole {
                piece.info.name += &format!("@{}-{}", range[0], range[1]);
            }
            self.shard.pieces.push((piece, first + i, range));
        }
        self.shard.bytes += takes;
        Ok(())
    }

    /// Writes the current shard, if there is anything in it.
    fn flush(&mut self) -> Result<(), PackError> {
        let Shard {
            component,
            mut pieces,
            ..
        } = std::mem::take(&mut self.shard);
        self.shard.component.clone_from(&component);
        if pieces.is_empty() {
            return Ok(());
        }
        // Wide types first, so that every tensor is aligned to its own elements.
        pieces.sort_by(|(a, ..), (b, ..)| {
            let wide = |tensor: &TensorData| std::cmp::Reverse(tensor.info.dtype.size());
            wide(a)
                .cmp(&wide(b))
                .then_with(|| a.info.name.cmp(&b.info.name))
        });
        let header = Header::write(pieces.iter().map(|(tensor, ..)| &tensor.info))?;
        let chunks: Vec<&[u8]> = std::iter::once(header.as_slice())
            .chain(pieces.iter().map(|(tensor, ..)| tensor.bytes.as_slice()))
            .collect();
        let mut hash = Sha256::new();
        chunks.iter().for_each(|chunk| hash.update(chunk));
        let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();

        let file = format!("shard-{}", self.manifest.shards.len());
        let path = self.scratch.join(&file);
        self.disk
            .write(&path, &chunks)
            .map_err(|e| PackError::io(path.display(), e))?;
        for (tensor, entry, rows) in &pieces {
            if let Some(entry) = self.manifest.tensors.get_mut(*entry) {
                entry.parts.push(Part {
                    file: file.clone(),
                    key: tensor.info.name.clone(),
                    rows: *rows,
                });
            }
        }
        let entry = self
            .manifest
            .components
            .entry(component.clone())
            .or_default();
        entry.bytes += bytes;
        entry.shards.push(file.clone());
        self.numbers.push((component, entry.shards.len()));
        self.manifest.shards.push(FileEntry {
            file,
            bytes,
            sha256: hex(hash.finalize().as_slice()),
        });
        Ok(())
    }

    /// Gives the shards their final names, now that it is known how many each component has.
    fn name_shards(&mut self) -> Result<(), PackError> {
        let mut names = BTreeMap::new();
        for (shard, (component, number)) in self.manifest.shards.iter_mut().zip(&self.numbers) {
            let count = self
                .manifest
                .components
                .get(component)
                .map_or(0, |c: &Component| c.shards.len());
            let name = format!("{component}-{number:05}-of-{count:05}.safetensors");
            let (from, to) = (self.scratch.join(&shard.file), self.scratch.join(&name));
            self.disk
                .rename(&from, &to)
                .map_err(|e| PackError::io(to.display(), e))?;
            names.insert(std::mem::replace(&mut shard.file, name.clone()), name);
        }
        let components = self
            .manifest
            .components
            .values_mut()
            .flat_map(|component| &mut component.shards);
        let parts = self
            .manifest
            .tensors
            .iter_mut()
            .flat_map(|tensor| &mut tensor.parts)
            .map(|part| &mut part.file);
        for file in components.chain(parts) {
            if let Some(name) = names.get(file) {
                file.clone_from(name);
            }
        }
        Ok(())
    }
}

impl Drop for PackWriter {
    fn drop(&mut self) {
        if !self.done {
            let _ = self.disk.remove_folder(&self.scratch);
        }
    }
}

/// What is at the target of a writer.
#[derive(Default)]
struct Existing {
    exists: bool,
    /// Files which are none of the pack's own.
    others: Vec<String>,
}

/// Looks at what is there; only nothing, an empty folder or a pack without sub-folders may be replaced.
fn replaceable(target: &Path) -> Result<Existing, PackError> {
    let in_use = |reason: String| PackError::TargetInUse {
        path: target.display().to_string(),
        reason,
    };
    let io = |e| PackError::io(target.display(), e);
    if !target.exists() {
        return Ok(Existing::default());
    }
    if !target.is_dir() {
        return Err(in_use("it is a file".into()));
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(target).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.file_type().map_err(io)?.is_file() {
            return Err(in_use(format!("{name} in it is not a plain file")));
        }
        files.push(name);
    }
    files.sort();
    if files.is_empty() {
        return Ok(Existing {
            exists: true,
            others: vec![],
        });
    }
    if !files.iter().any(|name| name == MANIFEST_FILE) {
        return Err(in_use(format!(
            "it holds {} but no {MANIFEST_FILE}",
            files.concat().chars().take(60).collect::<String>()
        )));
    }
    let json = read_small(&target.join(MANIFEST_FILE), MAX_MANIFEST)?;
    let own: HashSet<String> = match Manifest::parse(MANIFEST_FILE, &json) {
        Ok(old) => old
            .shards
            .into_iter()
            .chain(old.files)
            .map(|entry| entry.file)
            .collect(),
        // A damaged pack, or one of another version: its shards are known by their names.
        Err(_) => files
            .iter()
            .filter(|name| name.ends_with(".safetensors"))
            .cloned()
            .collect(),
    };
    files.retain(|name| name != MANIFEST_FILE && !own.contains(name));
    Ok(Existing {
        exists: true,
        others: files,
    })
}

/// Bytes of a tensor's entry in a header, at most: its name as JSON, the rows of a part, numbers of 20 digits.
fn header_cost(info: &TensorInfo) -> u64 {
    let name = serde_json::Value::from(info.name.as_str())
        .to_string()
        .len();
    (name + 42 + 60 + 42 + 21 * info.shape.len().max(1)) as u64
}
