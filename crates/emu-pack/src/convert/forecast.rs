//! What a conversion will write, and what it needs, from names, types and shapes alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use half::{bf16, f16};
use sha2::{Digest, Sha256};

use super::{
    Encoding, PackMeta, WriteOptions,
    resume::final_name,
    shard::{file_order, header_cost, room},
};
use crate::{
    Component, Dtype, FORMAT, FileEntry, MANIFEST_FILE, Manifest, PackError, Part, Requires,
    TensorEntry, TensorInfo,
    header::Header,
    manifest::{check_component_name, check_file_name},
};

/// Hash of a file that does not exist yet.
const UNKNOWN: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A conversion that has not taken place.
#[derive(Debug, Clone)]
pub struct Forecast {
    /// The manifest that the pack will have, with zeros for hashes. Files besides the shards are those of [`Forecast::add_file`]. A
    /// tensor that f16 cannot hold is planned as F16 and stored as F32.
    pub manifest: Manifest,
    /// Bytes of the tensors that are read.
    pub read: u64,
    /// Bytes of disk for the pack. A pack that it replaces keeps its own until the end.
    pub disk: u64,
    /// Bytes of memory at most, besides the program: the tensor in work, the one that is read meanwhile, and a shard.
    pub memory: u64,
    /// Bytes of the tensors that are read, by their type and what becomes of them.
    pub work: Vec<(Dtype, Encoding, u64)>,
}

impl Forecast {
    /// Adds a file that the pack has besides the shards, as [`PackWriter::add_file`](super::PackWriter::add_file) does.
    ///
    /// # Errors
    /// The name is no plain file name, or taken.
    pub fn add_file(&mut self, name: &str, bytes: u64) -> Result<(), PackError> {
        check_file_name(name)?;
        let taken = name == MANIFEST_FILE || name.ends_with(".safetensors");
        if taken || self.manifest.files.iter().any(|file| file.file == name) {
            return Err(PackError::BadName { name: name.into() });
        }
        self.manifest.files.push(FileEntry {
            file: name.into(),
            bytes,
            sha256: UNKNOWN.into(),
        });
        self.disk = size(&self.manifest);
        Ok(())
    }

    /// Estimates the time of encoding and hashing, from a sample of each kind of work that is measured now, in about a tenth of a second
    /// each. The time of reading and writing is not part of it: a disk that is slower decides alone.
    ///
    /// # Errors
    /// None on tensors that can be planned.
    pub fn time(&self) -> Result<Duration, PackError> {
        /// Shares of the work that are too small to measure.
        const NEGLIGIBLE: u64 = 1000;
        let mut seconds = 0.0;
        for &(dtype, encoding, bytes) in &self.work {
            if bytes > self.read / NEGLIGIBLE {
                seconds += bytes as f64 / rate(dtype, encoding)?;
            }
        }
        Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

/// Bytes of tensors of this type that are encoded and hashed in a second.
fn rate(dtype: Dtype, encoding: Encoding) -> Result<f64, PackError> {
    /// Rows and columns of the sample.
    const SHAPE: [usize; 2] = [256, 2048];
    // Values between -1 and 1 that do not repeat; their distribution hardly changes the time.
    let values = (0..SHAPE[0] * SHAPE[1]).map(|i| (i as f32 * 0.618_034).fract() * 2.0 - 1.0);
    let bytes: Vec<u8> = match dtype {
        Dtype::F64 => values.flat_map(|v| f64::from(v).to_le_bytes()).collect(),
        Dtype::F16 => values
            .flat_map(|v| f16::from_f32(v).to_le_bytes())
            .collect(),
        Dtype::BF16 => values
            .flat_map(|v| bf16::from_f32(v).to_le_bytes())
            .collect(),
        Dtype::F32 => values.flat_map(f32::to_le_bytes).collect(),
        _ => vec![0; SHAPE[0] * SHAPE[1] * dtype.size()],
    };
    let info = TensorInfo {
        name: "sample".into(),
        dtype,
        shape: SHAPE.into(),
    };
    let begun = Instant::now();
    let (encoded, _) = encoding.encode(info, &bytes)?;
    let mut hash = Sha256::new();
    encoded.iter().for_each(|tensor| hash.update(&tensor.bytes));
    std::hint::black_box(hash.finalize());
    Ok(bytes.len() as f64 / begun.elapsed().as_secs_f64().max(1e-9))
}

/// Plans the conversion of these tensors, which have the names of the model and come with their component, in the order in which
/// they will be written.
///
/// # Errors
/// A tensor too large to count, or a row that does not fit into a shard.
pub fn forecast<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a TensorInfo)>,
    meta: PackMeta,
    options: &WriteOptions,
) -> Result<Forecast, PackError> {
    let mut plan = Planned {
        manifest: Manifest {
            format: FORMAT,
            name: meta.name,
            license: meta.license,
            attribution: meta.attribution,
            config: meta.config,
            requires: Requires {
                features: meta.features,
                ..Requires::default()
            },
            ..Manifest::default()
        },
        max_shard: options.max_shard_bytes,
        component: "",
        pieces: vec![],
        bytes: 0,
    };
    let (mut read, mut pair, mut before) = (0u64, 0, 0);
    let mut work: Vec<(Dtype, Encoding, u64)> = vec![];
    for (component, info) in tensors {
        let bytes = info.byte_len()? as u64;
        read = read.saturating_add(bytes);
        pair = pair.max(bytes.saturating_add(before));
        before = bytes;
        let encoding = options.policy.expected(info);
        let kind = (info.dtype, encoding);
        match work.iter_mut().find(|(a, b, _)| (*a, *b) == kind) {
            Some((.., sum)) => *sum += bytes,
            None => work.push((info.dtype, encoding, bytes)),
        }
        plan.add(component, info, encoding)?;
    }
    plan.flush()?;
    let manifest = plan.named();
    Ok(Forecast {
        read,
        disk: size(&manifest),
        memory: pair + options.max_shard_bytes.min(read),
        manifest,
        work,
    })
}

/// Bytes of a pack with this manifest, which is part of it.
fn size(manifest: &Manifest) -> u64 {
    let files = manifest.shards.iter().chain(&manifest.files);
    let files: u64 = files.map(|file| file.bytes).sum();
    files.saturating_add(manifest.to_json().len() as u64)
}

/// A pack as far as it is planned. Divides tensors among shards as the writer does.
struct Planned<'a> {
    manifest: Manifest,
    max_shard: u64,
    /// Component of the current shard.
    component: &'a str,
    /// Tensors of the current shard: as stored there, index in the manifest, row range.
    pieces: Vec<(TensorInfo, usize, [usize; 2])>,
    /// Upper bound of the current shard's size.
    bytes: u64,
}

impl<'a> Planned<'a> {
    fn add(
        &mut self,
        component: &'a str,
        info: &TensorInfo,
        encoding: Encoding,
    ) -> Result<(), PackError> {
        check_component_name(component)?;
        let stored = encoding.stored(info);
        if let Encoding::Quantized(scheme) = encoding {
            self.manifest.quantization.insert(info.name.clone(), scheme);
        }
        let first = self.manifest.tensors.len();
        let (mut total, mut headers) = (0, 0);
        for (i, stored) in stored.iter().enumerate() {
            let bytes = stored.byte_len()? as u64;
            total += bytes;
            headers += header_cost(stored);
            let packed = i == 0 && matches!(encoding, Encoding::Quantized(_));
            let largest = &mut self.manifest.requires;
            largest.largest_buffer = largest.largest_buffer.max(bytes);
            largest.largest_binding = largest.largest_buffer;
            self.manifest.tensors.push(TensorEntry {
                name: stored.name.clone(),
                dtype: stored.dtype,
                shape: stored.shape.clone(),
                logical: (packed && info.shape.len() != 2).then(|| info.shape.clone()),
                component: component.into(),
                parts: vec![],
            });
        }
        if self.component != component {
            self.flush()?;
            self.component = component;
        }
        if self.room() < total + headers {
            self.flush()?;
        }
        let rows = info.shape.first().copied().unwrap_or(1);
        if self.room() >= total + headers {
            self.put(&stored, first, [0, rows], total + headers);
            return Ok(());
        }
        let row = total / rows.max(1) as u64;
        let fit = (self.room().saturating_sub(headers) / row.max(1)) as usize;
        if fit == 0 {
            return Err(PackError::TooLarge {
                what: format!("one row of tensor `{}`", info.name),
                size: format!("{} bytes with its header", row + headers),
                limit: format!("{} bytes of a shard", self.max_shard),
            });
        }
        for begin in (0..rows).step_by(fit) {
            let end = rows.min(begin + fit);
            let takes = headers + row * (end - begin) as u64;
            if self.room() < takes {
                self.flush()?;
            }
            self.put(&stored, first, [begin, end], takes);
        }
        Ok(())
    }

    fn room(&self) -> u64 {
        room(self.max_shard, self.bytes)
    }

    fn put(&mut self, stored: &[TensorInfo], first: usize, rows: [usize; 2], takes: u64) {
        for (i, info) in stored.iter().enumerate() {
            let mut piece = info.clone();
            if let Some(len) = piece.shape.first_mut() {
                *len = rows[1] - rows[0];
            }
            if piece.shape != info.shape {
                piece.name += &format!("@{}-{}", rows[0], rows[1]);
            }
            self.pieces.push((piece, first + i, rows));
        }
        self.bytes += takes;
    }

    fn flush(&mut self) -> Result<(), PackError> {
        let mut pieces = std::mem::take(&mut self.pieces);
        self.bytes = 0;
        if pieces.is_empty() {
            return Ok(());
        }
        pieces.sort_by(|(a, ..), (b, ..)| file_order(a, b));
        let header = Header::write(pieces.iter().map(|(info, ..)| info))?;
        let mut bytes = header.len() as u64;
        // The name depends on the number of shards, which is not known yet.
        let file = format!("{}", self.manifest.shards.len());
        for (info, entry, rows) in pieces {
            bytes += info.byte_len()? as u64;
            if let Some(entry) = self.manifest.tensors.get_mut(entry) {
                entry.parts.push(Part {
                    file: file.clone(),
                    key: info.name,
                    rows,
                });
            }
        }
        let components = &mut self.manifest.components;
        let component: &mut Component = components.entry(self.component.into()).or_default();
        component.bytes += bytes;
        component.shards.push(file.clone());
        self.manifest.shards.push(FileEntry {
            file,
            bytes,
            sha256: UNKNOWN.into(),
        });
        Ok(())
    }

    /// The manifest, with the shards' names.
    fn named(mut self) -> Manifest {
        let mut names = BTreeMap::new();
        for (component, entry) in &self.manifest.components {
            let count = entry.shards.len();
            for (i, file) in entry.shards.iter().enumerate() {
                names.insert(file.clone(), final_name(component, i + 1, count));
            }
        }
        let manifest = &mut self.manifest;
        let shards = manifest.shards.iter_mut().map(|shard| &mut shard.file);
        let listed = manifest.components.values_mut();
        let listed = listed.flat_map(|component| &mut component.shards);
        let parts = manifest
            .tensors
            .iter_mut()
            .flat_map(|tensor| &mut tensor.parts);
        let parts = parts.map(|part| &mut part.file);
        for file in shards.chain(listed).chain(parts) {
            if let Some(name) = names.get(file) {
                file.clone_from(name);
            }
        }
        self.manifest
    }
}
