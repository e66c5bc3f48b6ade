//! The pack writer. It is atomic (a whole pack or nothing) and deterministic (the same bytes for the same tensors).
//!
//! Everything is written to a hidden staging folder beside the target, which replaces the target at the very end. During
//! that exchange an existing pack is moved to `.<name>.previous`, where [`PackReader::open`](crate::PackReader::open) and
//! the next writer find it if the program is killed in between. A writer with a resume key records each finished shard in
//! the staging folder; the next writer with the same key continues from there.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    Loss, Outcome,
    cast::is_finite,
    disk::{Disk, RealDisk},
    existing::replaceable,
    options::{PackMeta, WriteOptions},
    policy::Encoding,
    resume::{self, final_name, rows_stored, working_name},
    shard::{Shard, file_order, header_cost, room},
};
use crate::{
    FORMAT, FileEntry, MANIFEST_FILE, Manifest, PackError, PackReader, Part, Requires, TensorData,
    TensorEntry, TensorInfo,
    header::Header,
    manifest::{check_component_name, check_file_name},
    reader::set_aside,
    verify::hex,
};

/// Writes a pack, one tensor at a time. Holds at most that tensor and one shard in memory.
///
/// [`finish`](Self::finish) puts the pack in place. If the writer fails or is dropped before that, the target stays as it was.
pub struct PackWriter {
    target: PathBuf,
    /// Hidden staging folder.
    scratch: PathBuf,
    /// Where an existing pack is moved during the exchange.
    previous: PathBuf,
    options: WriteOptions,
    manifest: Manifest,
    names: HashSet<String>,
    /// Outcome of each added tensor; losses cover the rows that are in shards.
    outcomes: Vec<Outcome>,
    /// Tensors partly stored by an earlier writer, with their number of stored rows.
    begun: HashMap<String, usize>,
    /// Number of shards resumed from an earlier writer.
    kept: usize,
    shard: Shard,
    disk: Box<dyn Disk>,
    /// Lock against other writers.
    _lock: Option<File>,
    /// Whether the staging folder is useless to a later writer and is removed on drop.
    discard: bool,
}

impl PackWriter {
    /// Creates a pack at `folder`, which must be absent, empty, or a pack to replace.
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

        // Leftovers of a killed writer: a moved pack, or an unfinished one.
        if !target.exists() && previous.join(MANIFEST_FILE).is_file() {
            disk.rename(&previous, &target)
                .map_err(|e| PackError::io(target.display(), e))?;
        }
        replaceable(&target)?;
        disk.create_folder(&scratch)
            .map_err(|e| PackError::io(scratch.display(), e))?;
        let mut lock = resume::lock(&scratch)?;
        let key = options.resume.as_deref();
        let kept = key.and_then(|key| resume::load(disk.as_mut(), &scratch, key));
        if kept.is_none() {
            // Closes the lock's file, which is in the folder.
            lock.take();
            disk.remove_folder(&scratch)
                .and_then(|()| disk.create_folder(&scratch))
                .map_err(|e| PackError::io(scratch.display(), e))?;
            lock = resume::lock(&scratch)?;
        }

        let (shards, outcomes) = match kept {
            Some(kept) => (Some(kept.manifest), kept.outcomes),
            None => (None, vec![]),
        };
        let manifest = shards.unwrap_or_default();
        let manifest = Manifest {
            format: FORMAT,
            name: meta.name,
            license: meta.license,
            attribution: meta.attribution,
            config: meta.config,
            requires: Requires {
                features: meta.features,
                ..Requires::default()
            },
            ..manifest
        };
        // A tensor is complete if all of its rows are in shards.
        let (mut names, mut begun) = (HashSet::new(), HashMap::new());
        for tensor in &manifest.tensors {
            match rows_stored(tensor) {
                rows if rows < tensor.rows() => {
                    begun.insert(tensor.name.clone(), rows);
                }
                _ => {
                    names.insert(tensor.name.clone());
                }
            }
        }
        Ok(Self {
            target,
            scratch,
            previous,
            options,
            kept: manifest.shards.len(),
            manifest,
            names,
            outcomes,
            begun,
            shard: Shard::default(),
            disk,
            _lock: lock,
            discard: true,
        })
    }

    /// Number of shards resumed from a killed writer.
    pub fn kept_shards(&self) -> usize {
        self.kept
    }

    /// Whether a tensor is completely stored already and need not be read and added.
    pub fn has(&self, tensor: &str) -> bool {
        self.names.contains(tensor)
    }

    /// A reader of everything added so far.
    pub fn written(&mut self) -> Result<PackReader, PackError> {
        self.guarded(Self::flush)?;
        PackReader::growing(self.manifest.clone(), self.scratch.clone())
    }

    /// Runs `work`; if the disk fails, finished shards are kept for a retry.
    pub(super) fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, PackError>,
    ) -> Result<T, PackError> {
        let result = work(self);
        let disk_failed = matches!(
            result,
            Err(PackError::DiskFull { .. } | PackError::Io { .. })
        );
        if disk_failed && self.options.resume.is_some() && !self.manifest.shards.is_empty() {
            self.discard = false;
        }
        result
    }

    /// Adds a tensor to a component. NaN, infinity and duplicate names are errors.
    pub fn add(&mut self, component: &str, tensor: TensorData) -> Result<(), PackError> {
        self.guarded(|writer| writer.add_dense(component, &tensor, None))
    }

    /// Ends the current shard; the next tensor begins a new one.
    pub fn end_shard(&mut self) -> Result<(), PackError> {
        self.guarded(Self::flush)
    }

    /// Adds a tensor in the given encoding, or else that of the policy.
    pub(super) fn add_dense(
        &mut self,
        component: &str,
        tensor: &TensorData,
        encoding: Option<Encoding>,
    ) -> Result<(), PackError> {
        tensor.check_len()?;
        if !is_finite(tensor) {
            tensor.check_finite()?;
        }
        let encoding = match encoding {
            Some(encoding) => encoding,
            None => self.options.policy.encoding(tensor)?,
        };
        let rows = tensor.info.shape.first().copied().unwrap_or(1);
        let row = tensor.info.byte_len()? / rows.max(1);
        self.add_encoded(component, &tensor.info, encoding, |[begin, end]| {
            let mut info = tensor.info.clone();
            if let Some(len) = info.shape.first_mut() {
                *len = end - begin;
            }
            let bytes = tensor.bytes.get(begin * row..end * row);
            encoding.encode(info, bytes.unwrap_or_default())
        })
    }

    /// Adds a tensor. `encode` encodes a range of rows and returns one tensor per stored tensor.
    pub(super) fn add_encoded(
        &mut self,
        component: &str,
        info: &TensorInfo,
        encoding: Encoding,
        encode: impl Fn([usize; 2]) -> Result<(Vec<TensorData>, Loss), PackError>,
    ) -> Result<(), PackError> {
        check_component_name(component)?;
        let stored = encoding.stored(info);
        for stored in &stored {
            if !self.names.insert(stored.name.clone()) {
                let file = self.target.display().to_string();
                return Err(PackError::DuplicateTensor {
                    file,
                    tensor: stored.name.clone(),
                });
            }
        }
        let (first, outcome, begin) = match self.begun.remove(&info.name) {
            Some(rows) => self.place_of(info, rows)?,
            None => self.announce(component, info, encoding, &stored)?,
        };
        if self.shard.component != component {
            self.flush()?;
            self.shard.component = component.to_owned();
        }

        let rows = info.shape.first().copied().unwrap_or(1);
        let headers: u64 = stored.iter().map(header_cost).sum();
        let total = stored.iter().try_fold(headers, |sum, info| {
            Ok::<_, PackError>(sum + info.byte_len()? as u64)
        })?;
        if self.room() < total {
            self.flush()?;
        }
        if self.room() >= total && begin == 0 {
            self.add_rows(encode([0, rows])?, [0, rows], (first, outcome), total);
            return Ok(());
        }

        // Larger than a shard: split by rows.
        let row = (total - headers) / rows.max(1) as u64;
        let fit = self.room().saturating_sub(headers) / row.max(1);
        if fit == 0 {
            return Err(PackError::TooLarge {
                what: format!("one row of tensor `{}`", info.name),
                size: format!("{} bytes with its header", row + headers),
                limit: format!("{} bytes of a shard", self.options.max_shard_bytes),
            });
        }
        for begin in (begin..rows).step_by(fit as usize) {
            let end = rows.min(begin + fit as usize);
            let takes = headers + row * (end - begin) as u64;
            if self.room() < takes {
                self.flush()?;
            }
            self.add_rows(encode([begin, end])?, [begin, end], (first, outcome), takes);
        }
        Ok(())
    }

    /// Adds a new tensor to the manifest; returns its index there, the index of its outcome, and row 0.
    fn announce(
        &mut self,
        component: &str,
        info: &TensorInfo,
        encoding: Encoding,
        stored: &[TensorInfo],
    ) -> Result<(usize, usize, usize), PackError> {
        if let Encoding::Quantized(scheme) = encoding {
            let name = info.name.clone();
            self.manifest.quantization.insert(name, scheme);
        }
        let (first, outcome) = (self.manifest.tensors.len(), self.outcomes.len());
        let mut bytes = 0;
        for (i, stored) in stored.iter().enumerate() {
            bytes += stored.byte_len()? as u64;
            // Packed words record the logical shape if it is not a matrix.
            let packed = i == 0 && matches!(encoding, Encoding::Quantized(_));
            let logical = (packed && info.shape.len() != 2).then(|| info.shape.clone());
            self.manifest.tensors.push(TensorEntry {
                name: stored.name.clone(),
                dtype: stored.dtype,
                shape: stored.shape.clone(),
                logical,
                component: component.to_owned(),
                parts: vec![],
            });
        }
        self.outcomes.push(Outcome {
            tensor: info.name.clone(),
            component: component.to_owned(),
            shape: info.shape.clone(),
            stored: encoding.name().into(),
            bytes,
            loss: Loss::default(),
        });
        Ok((first, outcome, 0))
    }

    /// The same indices for a tensor that an earlier writer began, and the first row that is not stored.
    fn place_of(&self, info: &TensorInfo, rows: usize) -> Result<(usize, usize, usize), PackError> {
        let tensors = self.manifest.tensors.iter();
        let first = { tensors }.position(|tensor| tensor.name == info.name);
        let outcomes = self.outcomes.iter();
        let outcome = { outcomes }.position(|o| o.tensor == info.name && o.shape == info.shape);
        let place = first.zip(outcome).map(|(a, b)| (a, b, rows));
        place.ok_or_else(|| PackError::Misshapen {
            file: self.scratch.display().to_string(),
            tensor: info.name.clone(),
            expected: "the shape it had when the conversion was interrupted".into(),
            found: info.describe(),
        })
    }

    /// Adds a file under this name (such as `tokenizer.json`).
    pub fn add_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), PackError> {
        self.guarded(|writer| writer.write_file(name, bytes))
    }

    fn write_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), PackError> {
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

    /// Copies a file into the pack under its own name.
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

    /// Writes the manifest and puts the pack in place.
    ///
    /// Foreign files in the folder of a replaced pack (such as a model card) are kept.
    pub fn finish(self) -> Result<Manifest, PackError> {
        self.finish_with_outcomes().map(|(manifest, _)| manifest)
    }

    /// As [`finish`](Self::finish); also returns the outcome of each tensor.
    pub fn finish_with_outcomes(mut self) -> Result<(Manifest, Vec<Outcome>), PackError> {
        self.guarded(Self::complete)?;
        Ok((
            std::mem::take(&mut self.manifest),
            std::mem::take(&mut self.outcomes),
        ))
    }

    fn complete(&mut self) -> Result<(), PackError> {
        self.flush()?;
        self.name_shards()?;
        for tensor in &self.manifest.tensors {
            let bytes = tensor.info().byte_len()? as u64;
            let requires = &mut self.manifest.requires;
            requires.largest_buffer = requires.largest_buffer.max(bytes);
            requires.largest_binding = requires.largest_binding.max(bytes);
        }
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
        self.exchange(old.exists)
    }

    /// Moves the finished folder to the target.
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
                // If this fails too, the old pack can still be read from where it is.
                let _ = self.disk.rename(&self.previous, &self.target);
            }
            return Err(io(error));
        }
        // The staging folder is now the pack; remove the writer's own files from it.
        for name in [resume::PROGRESS_FILE, resume::LOCK_FILE] {
            let _ = fs::remove_file(self.target.join(name));
        }
        if let Some(parent) = self.target.parent() {
            self.disk.sync_folder(parent).map_err(io)?;
        }
        if replaces {
            // On failure the next writer removes it; the new pack is complete.
            let _ = self.disk.remove_folder(&self.previous);
        }
        Ok(())
    }

    /// Bytes left in the current shard.
    fn room(&self) -> u64 {
        room(self.options.max_shard_bytes, self.shard.bytes)
    }

    /// Adds the encoded tensors of some rows to the current shard.
    fn add_rows(
        &mut self,
        (pieces, loss): (Vec<TensorData>, Loss),
        range: [usize; 2],
        (first, outcome): (usize, usize),
        takes: u64,
    ) {
        self.shard.losses.push((outcome, loss));
        for (i, mut piece) in pieces.into_iter().enumerate() {
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
    }

    /// Writes the current shard unless it is empty.
    fn flush(&mut self) -> Result<(), PackError> {
        let Shard {
            component,
            mut pieces,
            losses,
            ..
        } = std::mem::take(&mut self.shard);
        self.shard.component.clone_from(&component);
        if pieces.is_empty() {
            return Ok(());
        }
        pieces.sort_by(|(a, ..), (b, ..)| file_order(&a.info, &b.info));
        let header = Header::write(pieces.iter().map(|(tensor, ..)| &tensor.info))?;
        let chunks: Vec<&[u8]> = std::iter::once(header.as_slice())
            .chain(pieces.iter().map(|(tensor, ..)| tensor.bytes.as_slice()))
            .collect();
        let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();

        let file = working_name(self.manifest.shards.len());
        let path = self.scratch.join(&file);
        let disk = &mut self.disk;
        let hash = || {
            let mut hash = Sha256::new();
            chunks.iter().for_each(|chunk| hash.update(chunk));
            hex(hash.finalize().as_slice())
        };
        let (written, sha256) = rayon::join(|| disk.write(&path, &chunks), hash);
        written.map_err(|e| PackError::io(path.display(), e))?;
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
        self.manifest.shards.push(FileEntry {
            file,
            bytes,
            sha256,
        });
        for (at, loss) in losses {
            if let Some(outcome) = self.outcomes.get_mut(at) {
                outcome.loss = outcome.loss.and(loss);
            }
        }
        match &self.options.resume {
            None => Ok(()),
            Some(key) => resume::save(
                self.disk.as_mut(),
                &self.scratch,
                key,
                &self.manifest,
                &self.outcomes,
            ),
        }
    }

    /// Gives the shards their final names, which contain the number of shards per component.
    fn name_shards(&mut self) -> Result<(), PackError> {
        let mut names = BTreeMap::new();
        for (component, entry) in &self.manifest.components {
            let count = entry.shards.len();
            for (i, file) in entry.shards.iter().enumerate() {
                names.insert(file.clone(), final_name(component, i + 1, count));
            }
        }
        for shard in &mut self.manifest.shards {
            if let Some(name) = names.get(&shard.file) {
                let (from, to) = (self.scratch.join(&shard.file), self.scratch.join(name));
                self.disk
                    .rename(&from, &to)
                    .map_err(|e| PackError::io(to.display(), e))?;
                shard.file.clone_from(name);
            }
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
        if self.discard && self.scratch.exists() {
            let _ = self.disk.remove_folder(&self.scratch);
        }
    }
}
