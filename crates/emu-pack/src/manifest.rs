//! `emu.json`: the manifest of a pack, with its contents and their locations.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
};

use serde::{Deserialize, Serialize};

use crate::{
    Dtype, FileKind, PackError, TensorData, TensorInfo,
    quant::{BLOCK, Quantized, Scheme, as_matrix, mins_name, scales_name},
    sniff::refuse_pages,
    verify::verify_bytes,
};

/// The supported format version.
pub const FORMAT: u32 = 1;
/// File name of the manifest.
pub const MANIFEST_FILE: &str = "emu.json";
/// Maximum manifest size.
pub(crate) const MAX_MANIFEST: u64 = 64 << 20;

/// The contents of `emu.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version, [`FORMAT`].
    pub format: u32,
    /// Model name.
    pub name: String,
    /// License of the weights: SPDX identifier or name.
    pub license: String,
    /// Attribution text.
    #[serde(default)]
    pub attribution: String,
    /// Model configuration; opaque to this crate.
    pub config: serde_json::Value,
    /// Separately loadable components by name (`vision`, `lm`, `decoder`, `safety`).
    pub components: BTreeMap<String, Component>,
    /// The safetensors files.
    pub shards: Vec<FileEntry>,
    /// Other files that belong to the pack, `tokenizer.json` among them.
    #[serde(default)]
    pub files: Vec<FileEntry>,
    /// The stored tensors, in conversion order.
    pub tensors: Vec<TensorEntry>,
    /// Scheme of each quantized tensor; other tensors are dense.
    #[serde(default)]
    pub quantization: BTreeMap<String, Scheme>,
    /// Device requirements.
    #[serde(default)]
    pub requires: Requires,
}

/// A separately loadable component of the model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Shard file names.
    pub shards: Vec<String>,
    /// Total size of the shards in bytes: the download size.
    pub bytes: u64,
}

/// A file of the pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// A plain file name.
    pub file: String,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl FileEntry {
    /// Checks bytes against length and hash.
    pub(crate) fn verify(&self, bytes: &[u8]) -> Result<(), PackError> {
        verify_bytes(&self.file, (self.bytes, &self.sha256), bytes)
    }
}

/// One stored tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorEntry {
    /// Name in the model.
    pub name: String,
    /// Element type as stored.
    pub dtype: Dtype,
    /// Shape as stored.
    pub shape: Vec<usize>,
    /// Logical shape (in the model), if the stored shape does not imply it: `[out, in, height, width]` of a convolution
    /// that is quantized as the matrix `[out, in * height * width]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logical: Option<Vec<usize>>,
    /// Component.
    pub component: String,
    /// Parts along the first dimension, in order; usually one.
    pub parts: Vec<Part>,
}

/// A range of a tensor's rows, stored as one safetensors tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Shard file.
    pub file: String,
    /// Name within that file.
    pub key: String,
    /// Row range `[first, end]`, end exclusive. A scalar counts as one row.
    pub rows: [usize; 2],
}

/// Device requirements of a pack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requires {
    /// WebGPU features.
    #[serde(default)]
    pub features: Vec<String>,
    /// Size of the largest buffer in bytes: the largest stored tensor.
    #[serde(default)]
    pub largest_buffer: u64,
    /// Size of the largest buffer binding in bytes.
    #[serde(default)]
    pub largest_binding: u64,
}

/// Rows of a tensor in a verified shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartView<'a> {
    /// The tensor.
    pub tensor: &'a TensorEntry,
    /// Row range.
    pub rows: Range<usize>,
    /// Bytes of the rows.
    pub bytes: &'a [u8],
}

/// A tensor, one of its parts, and that part's byte range in the shard.
pub(crate) type Placed<'a> = (&'a TensorEntry, &'a Part, Range<u64>);

impl TensorEntry {
    /// The tensor's info, without its location.
    pub fn info(&self) -> TensorInfo {
        TensorInfo {
            name: self.name.clone(),
            dtype: self.dtype,
            shape: self.shape.clone(),
        }
    }

    /// Number of rows along the first dimension; 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// The info of a part as a safetensors tensor.
    pub(crate) fn part_info(&self, part: &Part) -> TensorInfo {
        let [begin, end] = part.rows;
        let mut shape = self.shape.clone();
        if let Some(rows) = shape.first_mut() {
            *rows = end.saturating_sub(begin);
        }
        TensorInfo {
            name: part.key.clone(),
            dtype: self.dtype,
            shape,
        }
    }
}

/// Whether the shape is a matrix whose rows are whole blocks.
fn in_blocks(shape: &[usize]) -> bool {
    matches!(shape, &[out, width] if out > 0 && width > 0 && width.is_multiple_of(BLOCK))
}

impl Manifest {
    /// Parses and validates a manifest; `file` is for error messages.
    ///
    /// The version is checked first, so that another version is reported as such.
    pub fn parse(file: &str, json: &[u8]) -> Result<Self, PackError> {
        let bad = |reason: String| PackError::BadManifest {
            file: file.into(),
            reason,
        };
        if json.len() as u64 > MAX_MANIFEST {
            return Err(PackError::TooLarge {
                what: file.into(),
                size: format!("{} bytes", json.len()),
                limit: format!("{MAX_MANIFEST} bytes"),
            });
        }
        refuse_pages(file, FileKind::of(json))?;
        #[derive(Deserialize)]
        struct Version {
            format: serde_json::Value,
        }
        let version: Version =
            serde_json::from_slice(json).map_err(|e| bad(format!("it is no manifest ({e})")))?;
        if version.format != FORMAT {
            let found = version.format.to_string();
            return Err(PackError::UnknownFormat {
                file: file.into(),
                found,
                supported: FORMAT,
            });
        }
        let manifest: Self =
            serde_json::from_slice(json).map_err(|e| bad(format!("it is incomplete ({e})")))?;
        manifest.validate(file)?;
        Ok(manifest)
    }

    /// Serializes the manifest as `emu.json`, deterministically.
    pub fn to_json(&self) -> Vec<u8> {
        // Serializing plain data with string keys to memory cannot fail.
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }

    /// Checks that the manifest is consistent; `file` is for error messages.
    pub fn validate(&self, file: &str) -> Result<(), PackError> {
        let bad = |reason: String| PackError::BadManifest {
            file: file.into(),
            reason,
        };
        if self.format != FORMAT {
            let found = self.format.to_string();
            return Err(PackError::UnknownFormat {
                file: file.into(),
                found,
                supported: FORMAT,
            });
        }
        let shards = self.validate_files(file)?;
        let owners = self.validate_components(file, &shards)?;

        let (mut names, mut keys) = (HashSet::new(), HashSet::new());
        let mut filled: HashMap<&str, u64> = HashMap::new();
        for tensor in &self.tensors {
            let name = &tensor.name;
            if !names.insert(name.as_str()) {
                return Err(PackError::DuplicateTensor {
                    file: file.into(),
                    tensor: name.clone(),
                });
            }
            tensor.info().byte_len()?;
            if tensor.logical.is_some() && !self.quantization.contains_key(name) {
                return Err(bad(format!(
                    "tensor `{name}` has a logical shape but is not quantized"
                )));
            }
            let mut next = 0;
            for part in &tensor.parts {
                let [begin, end] = part.rows;
                if begin != next || end < begin || (end == begin && tensor.parts.len() > 1) {
                    return Err(bad(format!(
                        "tensor `{name}` has a part of rows {begin} to {end} where row {next} comes next"
                    )));
                }
                next = end;
                if owners.get(part.file.as_str()) != Some(&tensor.component.as_str()) {
                    let component = &tensor.component;
                    return Err(bad(format!(
                        "tensor `{name}` is in {}, which is no shard of `{component}`",
                        part.file
                    )));
                }
                if !keys.insert((part.file.as_str(), part.key.as_str())) {
                    return Err(PackError::DuplicateTensor {
                        file: part.file.clone(),
                        tensor: part.key.clone(),
                    });
                }
                let bytes = filled.entry(&part.file).or_default();
                *bytes = bytes.saturating_add(tensor.part_info(part).byte_len()? as u64);
            }
            if next != tensor.rows() || tensor.parts.is_empty() {
                return Err(bad(format!(
                    "tensor `{name}` has {} rows, but its parts end at {next}",
                    tensor.rows()
                )));
            }
        }
        if let Some((shard, bytes)) = filled
            .into_iter()
            .find(|(shard, bytes)| shards.get(shard).is_none_or(|s| s < bytes))
        {
            return Err(bad(format!(
                "{shard} is too short for its tensors of {bytes} bytes"
            )));
        }
        self.validate_quantization(file)
    }

    /// Validates names, hashes and lengths of all files; returns the lengths of the shards.
    fn validate_files(&self, file: &str) -> Result<HashMap<&str, u64>, PackError> {
        let bad = |reason: String| PackError::BadManifest {
            file: file.into(),
            reason,
        };
        let mut seen = HashSet::from([MANIFEST_FILE]);
        for entry in self.shards.iter().chain(&self.files) {
            check_file_name(&entry.file)?;
            if !seen.insert(&entry.file) {
                return Err(bad(format!("it lists {} twice", entry.file)));
            }
            let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
            if entry.sha256.len() != 64 || !entry.sha256.bytes().all(hex) {
                return Err(bad(format!(
                    "the SHA-256 of {} is not 64 lower-case hexadecimal digits",
                    entry.file
                )));
            }
        }
        Ok(self
            .shards
            .iter()
            .map(|shard| (shard.file.as_str(), shard.bytes))
            .collect())
    }

    /// Validates names, shards and sizes of all components; returns the component of each shard.
    fn validate_components<'a>(
        &'a self,
        file: &str,
        shards: &HashMap<&str, u64>,
    ) -> Result<HashMap<&'a str, &'a str>, PackError> {
        let bad = |reason: String| PackError::BadManifest {
            file: file.into(),
            reason,
        };
        let mut owners = HashMap::new();
        for (name, component) in &self.components {
            check_component_name(name)
                .map_err(|_| bad(format!("`{name}` is no name for a component")))?;
            let mut bytes = 0u64;
            for shard in &component.shards {
                let Some(len) = shards.get(shard.as_str()) else {
                    return Err(bad(format!(
                        "component `{name}` needs {shard}, which is not listed"
                    )));
                };
                bytes = bytes.saturating_add(*len);
                if owners.insert(shard.as_str(), name.as_str()).is_some() {
                    return Err(bad(format!("{shard} belongs to two components")));
                }
            }
            if bytes != component.bytes {
                return Err(bad(format!(
                    "component `{name}` says {} bytes, its shards have {bytes}",
                    component.bytes
                )));
            }
        }
        match self
            .shards
            .iter()
            .find(|shard| !owners.contains_key(shard.file.as_str()))
        {
            Some(shard) => Err(bad(format!("{} belongs to no component", shard.file))),
            None => Ok(owners),
        }
    }

    /// Checks that quantized tensors have words, scales and, if the scheme has them, minima of matching shapes.
    fn validate_quantization(&self, file: &str) -> Result<(), PackError> {
        let by_name: HashMap<&str, &TensorEntry> =
            self.tensors.iter().map(|t| (t.name.as_str(), t)).collect();
        for (name, scheme) in &self.quantization {
            let missing = |name: &str| PackError::MissingTensor {
                file: file.into(),
                tensor: name.into(),
            };
            let packed = by_name.get(name.as_str()).ok_or_else(|| missing(name))?;
            let stored = self
                .matrix(packed)
                .and_then(|(out, width)| scheme.stored(name, out, width));
            let Some(stored) = stored.filter(|_| packed.dtype == Dtype::U32) else {
                return Err(PackError::Misshapen {
                    file: file.into(),
                    tensor: name.clone(),
                    expected: format!("U32 [out, words] for {}", scheme.name()),
                    found: packed.info().describe(),
                });
            };
            for needed in stored {
                let found = by_name
                    .get(needed.name.as_str())
                    .ok_or_else(|| missing(&needed.name))?;
                if found.info() != needed || found.component != packed.component {
                    return Err(PackError::Misshapen {
                        file: file.into(),
                        tensor: needed.name.clone(),
                        expected: format!(
                            "{} in component `{}`",
                            needed.describe(),
                            packed.component
                        ),
                        found: format!(
                            "{} in component `{}`",
                            found.info().describe(),
                            found.component
                        ),
                    });
                }
            }
        }
        Ok(())
    }

    /// The matrix shape `[out, in]` of a quantized tensor; `None` unless its logical shape is the same matrix.
    fn matrix(&self, packed: &TensorEntry) -> Option<(usize, usize)> {
        let scheme = self.quantization.get(&packed.name)?;
        let &[out, words] = packed.shape.as_slice() else {
            return None;
        };
        let matrix = (out, words.checked_mul(scheme.per_word())?);
        match &packed.logical {
            Some(shape) => as_matrix(shape).filter(|logical| *logical == matrix),
            None => Some(matrix),
        }
    }

    /// The shape of a stored tensor as the model sees it (unpacked if quantized).
    pub fn logical_shape(&self, tensor: &TensorEntry) -> Vec<usize> {
        match (&tensor.logical, self.matrix(tensor)) {
            (Some(shape), _) => shape.clone(),
            (None, Some((out, width))) => vec![out, width],
            (None, None) => tensor.shape.clone(),
        }
    }

    /// Device memory of a stored tensor, in bytes. Quantized matrices stay packed; f16 matrices in rows of whole blocks stay f16
    /// if the device keeps `halves`. All other floats are widened to f32, including convolution weights, whose scales and
    /// minima then take no memory.
    pub fn resident_bytes(&self, tensor: &TensorEntry, halves: bool) -> u64 {
        let elements = |shape: &[usize]| shape.iter().map(|&n| n as u64).product::<u64>();
        let of = [".scales", ".mins"]
            .iter()
            .find_map(|end| tensor.name.strip_suffix(end))
            .filter(|name| self.quantization.contains_key(*name));
        if let Some(of) = of {
            let widened = { self.tensors.iter() }.any(|t| t.name == of && t.logical.is_some());
            return if widened {
                0
            } else {
                2 * elements(&tensor.shape)
            };
        }
        let size = match tensor.dtype {
            Dtype::F16 if halves && in_blocks(&tensor.shape) => 2,
            Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16 => 4,
            other => other.size() as u64,
        };
        match &tensor.logical {
            Some(shape) => 4 * elements(shape),
            None => size * elements(&tensor.shape),
        }
    }

    /// The tensors as the model sees them: quantized ones as F32, without scales and minima.
    pub fn logical_tensors(&self) -> Vec<TensorInfo> {
        let helpers: HashSet<String> = self
            .quantization
            .keys()
            .flat_map(|name| [scales_name(name), mins_name(name)])
            .collect();
        let visible = self
            .tensors
            .iter()
            .filter(|tensor| !helpers.contains(&tensor.name));
        visible
            .map(|tensor| TensorInfo {
                name: tensor.name.clone(),
                dtype: match self.quantization.contains_key(&tensor.name) {
                    true => Dtype::F32,
                    false => tensor.dtype,
                },
                shape: self.logical_shape(tensor),
            })
            .collect()
    }

    /// Assembles a quantized tensor from its stored tensors.
    ///
    /// # Errors
    /// The tensor is not quantized.
    pub fn quantized(
        &self,
        words: TensorData,
        scales: TensorData,
        mins: Option<TensorData>,
    ) -> Result<Quantized, PackError> {
        let name = words.info.name.as_str();
        let scheme = self.quantization.get(name);
        let &scheme = scheme.ok_or_else(|| PackError::MissingTensor {
            file: MANIFEST_FILE.into(),
            tensor: scales_name(name),
        })?;
        let entry = self.tensors.iter().find(|entry| entry.name == name);
        let shape = match (
            entry.and_then(|entry| entry.logical.clone()),
            words.info.shape.as_slice(),
        ) {
            (Some(shape), _) => shape,
            (None, &[out, width]) => vec![out, width.saturating_mul(scheme.per_word())],
            (None, other) => other.to_vec(),
        };
        Ok(Quantized {
            scheme,
            words,
            scales,
            mins,
            shape,
        })
    }

    /// Verifies the bytes of a file that is not a shard.
    ///
    /// # Errors
    /// The manifest does not list the file, or length or hash differs.
    pub fn check_file(&self, file: &str, bytes: &[u8]) -> Result<(), PackError> {
        self.file(file)?.verify(bytes)
    }

    /// The entry of a file that is not a shard.
    pub(crate) fn file(&self, name: &str) -> Result<&FileEntry, PackError> {
        let entry = self.files.iter().find(|entry| entry.file == name);
        entry.ok_or_else(|| PackError::BadManifest {
            file: MANIFEST_FILE.into(),
            reason: format!("it lists no file {name}"),
        })
    }

    /// Verifies the bytes of one shard and returns its parts, for loaders that stream shard by shard.
    pub fn open_shard<'a>(
        &'a self,
        file: &str,
        bytes: &'a [u8],
    ) -> Result<Vec<PartView<'a>>, PackError> {
        let entry = self.shards.iter().find(|shard| shard.file == file);
        let entry = entry.ok_or_else(|| PackError::BadName { name: file.into() })?;
        entry.verify(bytes)?;
        let header = crate::header::Header::of_bytes(file, bytes)?;
        let parts = self.check_shard(file, &header)?;
        let view = |(tensor, part, range): Placed<'a>| {
            let bytes = bytes.get(range.start as usize..range.end as usize)?;
            Some(PartView {
                tensor,
                rows: part.rows[0]..part.rows[1],
                bytes,
            })
        };
        let short = || PackError::ShortFile {
            file: file.into(),
            expected: entry.bytes,
            found: bytes.len() as u64,
        };
        parts
            .into_iter()
            .map(|part| view(part).ok_or_else(short))
            .collect()
    }

    /// Checks that a shard's header lists exactly the parts in the manifest.
    pub(crate) fn check_shard<'a>(
        &'a self,
        file: &str,
        header: &crate::header::Header,
    ) -> Result<Vec<Placed<'a>>, PackError> {
        let mut parts = Vec::new();
        let here = self
            .tensors
            .iter()
            .flat_map(|tensor| tensor.parts.iter().map(move |part| (tensor, part)));
        for (tensor, part) in here.filter(|(_, part)| part.file == file) {
            let found = header.index.position(&part.key);
            let found =
                found.and_then(|p| Some((header.index.infos().get(p)?, header.ranges.get(p)?)));
            let Some((info, range)) = found else {
                return Err(PackError::MissingTensor {
                    file: file.into(),
                    tensor: part.key.clone(),
                });
            };
            let expected = tensor.part_info(part);
            if *info != expected {
                return Err(PackError::Misshapen {
                    file: file.into(),
                    tensor: part.key.clone(),
                    expected: expected.describe(),
                    found: info.describe(),
                });
            }
            parts.push((tensor, part, range.clone()));
        }
        if parts.len() != header.index.infos().len() {
            let known: HashSet<&str> = parts.iter().map(|(_, part, _)| part.key.as_str()).collect();
            let unknown = header
                .index
                .infos()
                .iter()
                .find(|info| !known.contains(info.name.as_str()));
            let tensor = unknown.map(|info| info.name.clone()).unwrap_or_default();
            return Err(PackError::UnknownTensor {
                file: file.into(),
                tensor,
            });
        }
        Ok(parts)
    }
}

/// Accepts only plain file names, which can neither point outside the pack's folder nor be hidden in it.
pub(crate) fn check_file_name(name: &str) -> Result<(), PackError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && name.chars().all(plain)
    {
        true => Ok(()),
        false => Err(PackError::BadName {
            name: name.chars().take(200).collect(),
        }),
    }
}

/// Accepts names that can begin a shard's file name.
pub(crate) fn check_component_name(name: &str) -> Result<(), PackError> {
    match !name.is_empty()
        && name.len() <= 64
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    {
        true => Ok(()),
        false => Err(PackError::BadName {
            name: name.chars().take(64).collect(),
        }),
    }
}
