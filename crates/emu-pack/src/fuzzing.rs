//! Bodies of the fuzz targets: each accepts any bytes and must return.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use crate::convert::{GgufFile, PyTorchFile, read_pickle};
use crate::{KeyMap, Manifest, PackReader, Rule, SafetensorsFile, TensorSource, verify::hex};

/// Opens a safetensors file and reads all tensors of a valid one.
pub fn safetensors(data: &[u8]) {
    if let Ok(file) = SafetensorsFile::from_reader("fuzz", std::io::Cursor::new(data.to_vec())) {
        read_all(&file);
    }
}

/// A pack with one shard. Input: the manifest length as u32, the manifest, the shard.
///
/// Hash and length of the shard are corrected; otherwise nothing behind that check would be reached.
pub fn pack(data: &[u8]) {
    let Some((len, rest)) = data.split_first_chunk() else {
        return;
    };
    let len = (u32::from_le_bytes(*len) as usize).min(rest.len());
    let (json, shard) = rest.split_at(len);
    let _ = Manifest::parse("fuzz", json);
    let Ok(mut manifest) = serde_json::from_slice::<Manifest>(json) else {
        return;
    };
    for entry in &mut manifest.shards {
        entry.bytes = shard.len() as u64;
        entry.sha256 = hex(Sha256::digest(shard).as_slice());
    }
    for component in manifest.components.values_mut() {
        component.bytes = component.shards.len() as u64 * shard.len() as u64;
    }
    let shard = shard.to_vec();
    let fetch = move |_: &str| Ok(Cow::Owned(shard.clone()));
    if let Ok(pack) = PackReader::from_bytes(&manifest.to_json(), fetch) {
        read_all(&pack);
        for info in pack.manifest().logical_tensors() {
            let _ = pack.read_logical(&info.name);
        }
    }
}

/// A key map with one rule, and a key. Input lines: checkpoint pattern, model pattern, ignored pattern, key.
pub fn key_map(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.lines();
    let mut line = || lines.next().unwrap_or_default();
    let (checkpoint, model, ignored) = (line(), line(), line());
    if let Ok(map) = KeyMap::new([Rule::new(checkpoint, model)], [ignored]) {
        for key in text.lines() {
            map.to_model(key);
            map.to_checkpoint(key);
        }
    }
}

/// Opens a PyTorch file and reads all tensors of a valid one.
pub fn pytorch(data: &[u8]) {
    if let Ok(file) = PyTorchFile::from_reader("fuzz", std::io::Cursor::new(data.to_vec())) {
        read_all(&file);
    }
}

/// The pickle of a PyTorch file.
pub fn pickle(data: &[u8]) {
    let _ = read_pickle("fuzz", data);
}

/// Opens a GGUF file; reads all tensors of a valid one, dequantized and packed.
pub fn gguf(data: &[u8]) {
    if let Ok(file) = GgufFile::from_reader("fuzz", std::io::Cursor::new(data.to_vec())) {
        read_all(&file);
        for info in file.tensors() {
            let _ = file.read_packed(&info.name);
        }
    }
}

fn read_all(source: &impl TensorSource) {
    for info in source.tensors() {
        if let Ok(tensor) = source.read(&info.name) {
            let _ = tensor.check_finite();
            let _ = tensor.to_f32();
        }
    }
}
