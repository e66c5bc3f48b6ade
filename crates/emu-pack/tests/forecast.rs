//! What is told of a conversion before it takes place, compared with what it does.

mod common;

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use common::fixture;
use emu_pack::convert::{
    Described, Encoding, PackMeta, PackWriter, Policy, WriteOptions, forecast, open_weights,
};
use emu_pack::{Dtype, Manifest, PackError, TensorData, TensorInfo, TensorSource};
use proptest::prelude::*;

fn info(name: &str, dtype: Dtype, shape: &[usize]) -> TensorInfo {
    TensorInfo {
        name: name.into(),
        dtype,
        shape: shape.into(),
    }
}

fn options(policy: &str, max_shard_bytes: u64) -> WriteOptions {
    WriteOptions {
        policy: Policy::from_argument(policy).unwrap(),
        max_shard_bytes,
        resume: None,
    }
}

/// The manifest of a real conversion of tensors of zeros, with zeros for hashes.
fn converted(
    tensors: &[(&str, TensorInfo)],
    options: WriteOptions,
) -> Result<(Manifest, u64), PackError> {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("pack");
    let mut writer = PackWriter::create(&target, PackMeta::default(), options)?;
    for (component, info) in tensors {
        let bytes = vec![0; info.byte_len()?];
        let tensor = TensorData::new(&info.name, info.dtype, info.shape.clone(), bytes)?;
        writer.add(component, tensor)?;
    }
    let mut manifest = writer.finish()?;
    let files = std::fs::read_dir(&target).unwrap();
    let disk = files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    for shard in &mut manifest.shards {
        shard.sha256 = "0".repeat(64);
    }
    Ok((manifest, disk))
}

fn planned(
    tensors: &[(&str, TensorInfo)],
    options: &WriteOptions,
) -> Result<(Manifest, u64), PackError> {
    let tensors = tensors.iter().map(|(component, info)| (*component, info));
    let plan = forecast(tensors, PackMeta::default(), options)?;
    Ok((plan.manifest, plan.disk))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_forecast_is_the_manifest_of_the_conversion(
        shapes in proptest::collection::vec(proptest::collection::vec(1usize..70, 0..4), 1..12),
        wide in proptest::collection::vec(any::<bool>(), 12),
        dtypes in proptest::collection::vec(0usize..4, 12),
        split in 0usize..12,
        policy in 0usize..5,
        shard in 1u64..40,
    ) {
        let policy = ["none", "f16", "q8", "q4", "q4_1"][policy];
        let dtype = |i: usize| [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::I64][dtypes[i]];
        let tensors: Vec<_> = shapes.iter().enumerate().map(|(i, shape)| {
            let mut shape = shape.clone();
            // Rows that divide into blocks, which are quantized.
            if wide[i] && let Some(last) = shape.last_mut() {
                *last = last.next_multiple_of(32);
            }
            let name = format!("{}t.{i}", "x".repeat(i * 7));
            (if i < split { "a" } else { "b" }, info(&name, dtype(i), &shape))
        }).collect();
        let options = options(policy, shard << 12);
        match (planned(&tensors, &options), converted(&tensors, options.clone())) {
            (Ok(planned), Ok(converted)) => prop_assert_eq!(planned, converted),
            (Err(planned), Err(converted)) => prop_assert_eq!(planned.to_string(), converted.to_string()),
            (planned, converted) => prop_assert!(false, "{planned:?} {converted:?}"),
        }
    }
}

#[test]
fn memory_is_that_of_two_tensors_and_a_shard() {
    let tensors = [
        ("lm", info("a", Dtype::F32, &[100, 100])),
        ("lm", info("b", Dtype::F32, &[200, 100])),
        ("lm", info("c", Dtype::F32, &[150, 100])),
    ];
    let each = tensors.iter().map(|(component, info)| (*component, info));
    let plan = forecast(each, PackMeta::default(), &options("none", 50_000)).unwrap();
    assert_eq!(plan.read, 180_000);
    assert_eq!(plan.memory, 80_000 + 60_000 + 50_000);
}

#[test]
fn time_is_estimated_for_every_kind_of_work() {
    let tensors = [
        ("lm", info("a", Dtype::BF16, &[64, 64])),
        ("lm", info("b", Dtype::F32, &[64, 64])),
        ("lm", info("c", Dtype::F64, &[64, 64])),
        ("lm", info("d", Dtype::F16, &[64, 63])),
        ("lm", info("e", Dtype::I64, &[64])),
        ("lm", info("f", Dtype::F32, &[64, 64])),
    ];
    for policy in ["none", "f16", "q8", "q4", "q4_1"] {
        let each = tensors.iter().map(|(component, info)| (*component, info));
        let plan = forecast(each, PackMeta::default(), &options(policy, 50_000)).unwrap();
        assert_eq!(plan.work.len(), 5, "{policy}");
        assert_eq!(
            plan.work.iter().map(|(.., bytes)| bytes).sum::<u64>(),
            plan.read
        );
        let time = plan.time().unwrap().as_secs_f64();
        assert!(time > 0.0, "{policy}: {time} s");
    }
    let none = forecast([], PackMeta::default(), &options("q4", 50_000)).unwrap();
    assert!(none.time().unwrap().is_zero());
}

#[test]
fn only_values_that_f16_cannot_hold_change_an_encoding() {
    let policy = Policy::from_argument("f16").unwrap();
    let tensor = TensorData::from_f32("t", vec![1, 2], &[1.0, 7e4]).unwrap();
    assert_eq!(policy.expected(&tensor.info), Encoding::Dense(Dtype::F16));
    let encoding = policy.encoding(&tensor).unwrap();
    assert_eq!(encoding, Encoding::Dense(Dtype::F32));
}

/// The tensors of a list of keys, under the model's names. Types are those on disk.
fn keys(file: &str, of: &str, prefix: &str, half: bool) -> Vec<TensorInfo> {
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixture(file)).unwrap()).unwrap();
    let mut tensors = vec![];
    for (key, value) in json[of].as_object().unwrap() {
        // Buffers that are computed, and parts of T5 and EVA that Emu does not use.
        let unused = [
            "inv_freq",
            "position_ids",
            "embed_tokens.weight",
            "visual.head",
            "visual.norm",
        ];
        let table = key.starts_with("decoder.lm.model.embed_tokens");
        if unused.iter().any(|unused| key.contains(unused)) && !table {
            continue;
        }
        let name = key
            .replace("decoder.lm.model.", "lm.")
            .replace("decoder.lm.", "lm.");
        let shape = value[0].as_array().unwrap().iter();
        let shape: Vec<usize> = shape.map(|n| n.as_u64().unwrap() as usize).collect();
        let dtype =
            match half && (key.starts_with("decoder.") || key.starts_with("cformer.cformer.")) {
                true => Dtype::BF16,
                false => Dtype::F32,
            };
        tensors.push(info(&format!("{prefix}{name}"), dtype, &shape));
    }
    tensors
}

/// The sizes of the 40-layer pack in docs/quantization.md, which was written once.
#[test]
fn the_released_model_is_forecast_as_it_was_converted() {
    let emu = keys("keys-emu-14b.json", "pretrain", "", true);
    let part = |info: &TensorInfo| {
        if info.name.starts_with("lm.") {
            "lm"
        } else {
            "vision"
        }
    };
    let mut tensors: Vec<_> = emu.into_iter().map(|info| (part(&info), info)).collect();
    tensors.sort_by_key(|(component, _)| *component == "lm");
    for (file, component, prefix) in [
        ("keys-safety-checker.json", "safety", "safety."),
        ("keys-sd15-unet.json", "decoder", "unet."),
        ("keys-sd15-vae.json", "decoder", "vae."),
    ] {
        let part = keys(file, "keys", prefix, false);
        tensors.extend(part.into_iter().map(|info| (component, info)));
    }
    let policy = std::fs::read_to_string(fixture("../../../configs/quantize/q4.toml")).unwrap();
    let options = WriteOptions {
        policy: Policy::from_toml(&policy).unwrap(),
        ..WriteOptions::default()
    };
    let each = tensors.iter().map(|(component, info)| (*component, info));
    let plan = forecast(each, PackMeta::default(), &options).unwrap();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let component = |name: &str| mib(plan.manifest.components[name].bytes);
    for (name, expected) in [
        ("lm", 7168.0),
        ("vision", 618.0),
        ("decoder", 963.0),
        ("safety", 310.0),
    ] {
        let found = component(name);
        assert!(
            (found - expected).abs() < 0.002 * expected + 0.5,
            "{name}: {found} MiB"
        );
    }
    assert!(
        (mib(plan.disk) / 1024.0 - 8.84).abs() < 0.02,
        "{} bytes",
        plan.disk
    );
    assert!(
        (mib(plan.read) / 1024.0 - 33.4).abs() < 0.1,
        "{} bytes",
        plan.read
    );
    // The table of token embeddings, twice 163 million values of two bytes and what is read beside it.
    assert!(plan.memory < 600 << 20, "{} bytes", plan.memory);
}

#[test]
fn files_besides_the_shards_are_part_of_the_disk() {
    let tensors = [("lm", info("a", Dtype::F32, &[64, 64]))];
    let files = [("tokenizer.json", 12_345), ("notes.txt", 0)];
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("pack");
    let options = options("q8", 50_000);
    let mut writer = PackWriter::create(&target, PackMeta::default(), options.clone()).unwrap();
    for (component, info) in &tensors {
        let bytes = vec![0; info.byte_len().unwrap()];
        let tensor = TensorData::new(&info.name, info.dtype, info.shape.clone(), bytes).unwrap();
        writer.add(component, tensor).unwrap();
    }
    for (name, bytes) in files {
        writer.add_file(name, &vec![7; bytes]).unwrap();
    }
    let mut written = writer.finish().unwrap();
    for file in written.shards.iter_mut().chain(&mut written.files) {
        file.sha256 = "0".repeat(64);
    }
    let each = tensors.iter().map(|(component, info)| (*component, info));
    let mut plan = forecast(each, PackMeta::default(), &options).unwrap();
    for (name, bytes) in files {
        plan.add_file(name, bytes as u64).unwrap();
    }
    let on_disk = std::fs::read_dir(&target).unwrap();
    let on_disk: u64 = on_disk
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!((plan.manifest.clone(), plan.disk), (written, on_disk));
    for name in ["tokenizer.json", "emu.json", "x.safetensors", "../x", ""] {
        let error = plan.add_file(name, 1).unwrap_err();
        assert_eq!(error.code(), "bad-name", "{name}");
    }
}

/// A file that counts the bytes that are read, and the seeks to elsewhere.
struct Counted {
    file: Cursor<Vec<u8>>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.read.fetch_add(read as u64, Relaxed);
        Ok(read)
    }
}

impl Seek for Counted {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(to)
    }
}

#[test]
fn names_types_and_shapes_are_read_without_the_values() {
    for name in [
        "tiny-emu.pt",
        "tiny-emu-bf16mixed.pt",
        "tiny-emu.safetensors",
    ] {
        let path = fixture(name);
        let mut bytes = vec![];
        File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
        let (size, read) = (bytes.len() as u64, Arc::new(AtomicU64::new(0)));
        let counted = Counted {
            file: Cursor::new(bytes),
            read: read.clone(),
        };
        let mut described = Described::new();
        described.add(name, counted).unwrap();
        let expected = open_weights(&path).unwrap();
        assert_eq!(described.tensors(), expected.tensors(), "{name}");
        let read = read.load(Relaxed);
        assert!(read < size / 5, "{name}: {read} of {size} bytes");
    }
    let mut described = Described::new();
    let bytes = std::fs::read(fixture("tiny-emu.safetensors")).unwrap();
    described.add("a", Cursor::new(bytes.clone())).unwrap();
    let name = described.tensors()[0].name.clone();
    assert!(described.info(&name).is_some());
    assert_eq!(described.read(&name).unwrap_err().code(), "no-weights");
    let twice = described.add("b", Cursor::new(bytes)).unwrap_err();
    assert_eq!(twice.code(), "duplicate-tensor");
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0".to_vec();
    for wrong in [pointer, vec![], b"PK\x03\x04 no archive".to_vec()] {
        assert!(Described::new().add("x", Cursor::new(wrong)).is_err());
    }
}
