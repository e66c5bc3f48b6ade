//! Bodies of the fuzz targets: each takes any bytes and must return.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use crate::{KeyMap, Manifest, PackReader, Rule, SafetensorsFile, TensorSource, verify::hex};

/// A safetensors file; every tensor of a valid one is read.
pub fn safetensors(data: &[u8]) {
    if let Ok(file) = SafetensorsFile::from_reader("fuzz", std::io::Cursor::new(data.to_vec())) {
        read_all(&file);
    }
}

/// A pack of one shard: the length of the manifest as u32, the manifest, the shard.
///
/// Hash and length of the shard are put right, or nothing behind that check would ever be reached.
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

/// A key map of one rule and a key, one a line: checkpoint pattern, model pattern, ignored pattern, key.
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

/// A PyTorch file; every tensor of a valid one is read.
#[cfg(feature = "convert")]
pub fn pytorch(data: &[u8]) {
    if let Ok(file) =
        crate::convert::PyTorchFile::from_reader("fuzz", std::io::Cursor::new(data.to_vec()))
    {
        read_all(&file);
    }
}

/// The pickle within a PyTorch file.
#[cfg(feature = "convert")]
pub fn pickle(data: &[u8]) {
    let _ = crate::convert::read_pickle("fuzz", data);
}

/// A GGUF file; every tensor of a valid one is read, dequantized and packed.
#[cfg(feature = "convert")]
pub fn gguf(data: &[u8]) {
    if let Ok(file) =
        crate::convert::GgufFile::from_reader("fuzz", std::io::Cursor::new(data.to_vec()))
    {
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
