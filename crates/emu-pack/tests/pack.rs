//! Packs: round trips, and invalid packs of every kind.

mod common;

use std::{borrow::Cow, collections::HashMap, fs, path::Path};

use common::{Dice, fixture};
use emu_pack::{
    Dtype, MANIFEST_FILE, Manifest, PackError, PackReader, SafetensorsFile, Scheme, TensorData,
    TensorSource,
    convert::{PackMeta, PackWriter, Policy, WriteOptions},
    fuzzing,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn meta() -> PackMeta {
    let (name, license, attribution) = ("test".into(), "MIT".into(), "nobody".into());
    PackMeta {
        name,
        license,
        attribution,
        config: json!({"width": 64}),
        features: vec![],
    }
}

fn options(policy: &str, max_shard_bytes: u64) -> WriteOptions {
    WriteOptions {
        policy: Policy::from_argument(policy).unwrap(),
        max_shard_bytes,
        resume: None,
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, PackError>) -> &'static str {
    result.unwrap_err().code()
}

fn tensor(name: &str, shape: &[usize]) -> TensorData {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.37).sin()).collect();
    TensorData::from_f32(name, shape.into(), &values).unwrap()
}

/// The tiny reference model as a pack of three components.
fn write_tiny(folder: &Path, policy: &str, max_shard_bytes: u64) -> Manifest {
    let source = SafetensorsFile::open(fixture("tiny-emu.safetensors")).unwrap();
    let mut writer = PackWriter::create(folder, meta(), options(policy, max_shard_bytes)).unwrap();
    for info in source.tensors() {
        let component = match info.name.split('.').next() {
            Some("decoder") => "lm",
            Some("cformer") => "causal",
            _ => "vision",
        };
        writer
            .add(component, source.read(&info.name).unwrap())
            .unwrap();
    }
    writer.add_file("tokenizer.json", b"{}").unwrap();
    writer.finish().unwrap()
}

/// A small pack with a tensor in several parts, two dtypes, a quantized matrix and a scalar.
fn write_small(folder: &Path) -> Manifest {
    let mut writer = PackWriter::create(folder, meta(), options("none", 1000)).unwrap();
    writer.add("lm", tensor("table", &[20, 32])).unwrap();
    writer
        .add(
            "lm",
            TensorData::new("ids", Dtype::I64, vec![2], vec![1; 16]).unwrap(),
        )
        .unwrap();
    writer.add("vision", tensor("scalar", &[])).unwrap();
    writer.add("vision", tensor("empty", &[0, 3])).unwrap();
    writer.add_file("tokenizer.json", b"{}").unwrap();
    writer.finish().unwrap()
}

fn files_of(folder: &Path) -> HashMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            (
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                fs::read(path).unwrap(),
            )
        })
        .collect()
}

/// A pack reader over in-memory files.
fn reader_of(files: &HashMap<String, Vec<u8>>) -> Result<PackReader, PackError> {
    let manifest = files[MANIFEST_FILE].clone();
    let files = files.clone();
    PackReader::from_bytes(&manifest, move |name| match files.get(name) {
        Some(bytes) => Ok(Cow::Owned(bytes.clone())),
        None => Err("404".into()),
    })
}

#[test]
fn the_reference_model_survives_the_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    let max = 40_000;
    let manifest = write_tiny(&path, "none", max);
    let source = SafetensorsFile::open(fixture("tiny-emu.safetensors")).unwrap();
    let pack = PackReader::open(&path).unwrap();
    pack.verify().unwrap();
    assert_eq!(pack.manifest(), &manifest);
    assert_eq!(pack.tensors().len(), source.tensors().len());
    for info in source.tensors() {
        assert_eq!(
            pack.read(&info.name).unwrap(),
            source.read(&info.name).unwrap()
        );
    }
    assert_eq!(pack.file("tokenizer.json").unwrap(), b"{}");
    assert_eq!(code(pack.file("other.json")), "bad-manifest");
    assert_eq!(code(pack.read("other")), "missing-tensor");
    assert!(
        manifest.tensors.iter().any(|tensor| tensor.parts.len() > 1),
        "no tensor was cut"
    );
    assert_eq!(
        pack.component_tensors("causal").count()
            + pack.component_tensors("lm").count()
            + pack.component_tensors("vision").count(),
        92
    );

    // Shards are valid safetensors files within the size limit, with consecutive names.
    for (component, entry) in &manifest.components {
        for (i, name) in entry.shards.iter().enumerate() {
            assert_eq!(
                *name,
                format!(
                    "{component}-{:05}-of-{:05}.safetensors",
                    i + 1,
                    entry.shards.len()
                )
            );
            let bytes = fs::read(path.join(name)).unwrap();
            assert!(bytes.len() as u64 <= max);
            safetensors::SafeTensors::deserialize(&bytes).unwrap();
        }
    }
    // No other files are left, and a second run gives the same bytes.
    assert_eq!(files_of(&path).len(), manifest.shards.len() + 2);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let again = folder.path().join("again");
    write_tiny(&again, "none", max);
    assert_eq!(files_of(&path), files_of(&again));
}

#[test]
fn policies_keep_values_within_their_precision() {
    let folder = tempfile::tempdir().unwrap();
    let source = SafetensorsFile::open(fixture("tiny-emu.safetensors")).unwrap();
    for (policy, bound) in [("f16", 0.0005), ("q8", 0.008), ("q4_1", 0.14), ("q4", 0.13)] {
        let path = folder.path().join(policy);
        // Small enough to split quantized tensors too.
        let manifest = write_tiny(&path, policy, 3_000);
        let pack = PackReader::open(&path).unwrap();
        pack.verify().unwrap();
        let logical = manifest.logical_tensors();
        assert_eq!(logical.len(), 92);
        for info in logical {
            let original = source.read(&info.name).unwrap();
            assert_eq!(info.shape, original.info.shape, "{policy} {}", info.name);
            let (a, b) = (
                original.to_f32().unwrap(),
                pack.read_logical(&info.name).unwrap().to_f32().unwrap(),
            );
            let absmax = a.iter().fold(0f32, |max, v| max.max(v.abs()));
            let worst = a
                .iter()
                .zip(&b)
                .fold(0f32, |max, (a, b)| max.max((a - b).abs()));
            assert!(
                worst <= bound * absmax + 1e-7,
                "{policy} {}: {worst} of {absmax}",
                info.name
            );
        }
        let embed = "decoder.lm.model.embed_tokens.weight";
        let scheme = match policy {
            "q8" => Some(Scheme::Q8),
            "q4" => Some(Scheme::Q4),
            "q4_1" => Some(Scheme::Q4_1),
            _ => None,
        };
        assert_eq!(pack.scheme(embed), scheme);
        let parts = |name: &str| {
            manifest
                .tensors
                .iter()
                .find(|t| t.name == name)
                .unwrap()
                .parts
                .len()
        };
        assert!(parts(embed) > 1);
        if scheme.is_some() {
            assert_eq!(
                parts(embed),
                parts(&format!("{embed}.scales")),
                "cut at the same rows"
            );
        }
    }
}

#[test]
fn what_stays_packed_takes_its_stored_size() {
    let folder = tempfile::tempdir().unwrap();
    for (policy, bytes) in [
        // For a device that widens f16, and for one that keeps it.
        (
            "f16",
            [[4 * 640, 2 * 640], [4 * 660; 2], [4 * 640; 2], [4 * 32; 2]],
        ),
        ("q8", [[640; 2], [4 * 660; 2], [4 * 640; 2], [4 * 32; 2]]),
        (
            "none",
            [[4 * 640; 2], [4 * 660; 2], [4 * 640; 2], [4 * 32; 2]],
        ),
    ] {
        let path = folder.path().join(policy);
        let mut writer = PackWriter::create(&path, meta(), options(policy, 1 << 20)).unwrap();
        let shapes: [&[usize]; 4] = [&[20, 32], &[20, 33], &[20, 8, 2, 2], &[32]];
        for (name, shape) in ["blocks", "narrow", "convolution", "bias"]
            .iter()
            .zip(shapes)
        {
            writer.add("lm", tensor(name, shape)).unwrap();
        }
        let manifest = writer.finish().unwrap();
        let of = |name: &str| {
            let entry = manifest.tensors.iter().find(|t| t.name == name).unwrap();
            [false, true].map(|halves| manifest.resident_bytes(entry, halves))
        };
        let found = ["blocks", "narrow", "convolution", "bias"].map(of);
        assert_eq!(found, bytes, "{policy}");
    }
}

#[test]
fn from_memory_and_shard_by_shard() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = write_small(&folder.path().join("pack"));
    let files = files_of(&folder.path().join("pack"));
    let pack = reader_of(&files).unwrap();
    pack.verify().unwrap();
    assert_eq!(pack.read("table").unwrap(), tensor("table", &[20, 32]));
    assert_eq!(pack.read("scalar").unwrap(), tensor("scalar", &[]));
    assert_eq!(pack.read("empty").unwrap(), tensor("empty", &[0, 3]));
    assert_eq!(
        pack.read("ids").unwrap().to_i64().unwrap(),
        [0x0101_0101_0101_0101; 2]
    );
    assert_eq!(pack.file("tokenizer.json").unwrap(), b"{}");

    let mut table = vec![];
    for shard in &manifest.shards {
        for view in manifest
            .open_shard(&shard.file, &files[&shard.file])
            .unwrap()
        {
            if view.tensor.name == "table" {
                assert_eq!(view.rows.start * 128, table.len());
                table.extend_from_slice(view.bytes);
            }
        }
    }
    assert_eq!(table, tensor("table", &[20, 32]).bytes);
    assert_eq!(code(manifest.open_shard("gone", &[])), "bad-name");
    assert_eq!(
        code(manifest.open_shard(&manifest.shards[0].file, &[])),
        "short-file"
    );

    let mut lost = files.clone();
    lost.remove(&manifest.components["lm"].shards[0]);
    let lost = reader_of(&lost).unwrap();
    let error = lost.read("table").unwrap_err();
    assert!(
        error.code() == "fetch" && error.to_string().contains("404"),
        "{error}"
    );
    assert!(lost.read("scalar").is_ok());
}

#[test]
fn damaged_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    let manifest = write_small(&path);
    let files = files_of(&path);
    let all: Vec<_> = manifest
        .shards
        .iter()
        .chain(&manifest.files)
        .map(|entry| entry.file.clone())
        .collect();
    for name in all {
        let good = &files[&name];
        let flipped: Vec<u8> = good
            .iter()
            .enumerate()
            .map(|(i, b)| if i == good.len() / 2 { b ^ 1 } else { *b })
            .collect();
        let longer = [good.as_slice(), b"\0"].concat();
        let cases = [
            (flipped, "wrong-hash"),
            (good[..good.len() - 1].to_vec(), "short-file"),
            (vec![], "short-file"),
            (longer, "long-file"),
        ];
        for (bytes, expected) in cases {
            fs::write(path.join(&name), &bytes).unwrap();
            let error = PackReader::open(&path).unwrap().verify().unwrap_err();
            assert_eq!(error.code(), expected);
            assert!(error.to_string().contains(&name), "{error}");
            let mut damaged = files.clone();
            damaged.insert(name.clone(), bytes);
            assert_eq!(code(reader_of(&damaged).unwrap().verify()), expected);
        }
        fs::remove_file(path.join(&name)).unwrap();
        let error = PackReader::open(&path).unwrap().verify().unwrap_err();
        assert!(
            error.code() == "io" && error.to_string().contains(&name),
            "{error}"
        );
        fs::write(path.join(&name), good).unwrap();
    }
    // A component with intact shards can be read while another one's are damaged.
    fs::write(path.join(&manifest.components["lm"].shards[0]), "").unwrap();
    let pack = PackReader::open(&path).unwrap();
    assert!(pack.read("scalar").is_ok() && pack.read("table").is_err());

    for end in 0..files[MANIFEST_FILE].len() - 1 {
        assert_eq!(
            code(Manifest::parse("emu.json", &files[MANIFEST_FILE][..end])),
            "bad-manifest"
        );
    }
    assert_eq!(code(PackReader::open(folder.path())), "io");
}

#[test]
fn manifests_that_contradict_themselves() {
    let folder = tempfile::tempdir().unwrap();
    write_small(&folder.path().join("pack"));
    let files = files_of(&folder.path().join("pack"));
    let good: Value = serde_json::from_slice(&files[MANIFEST_FILE]).unwrap();
    let shard = good["shards"][0]["file"].clone();
    let first = good["tensors"][0].clone();
    let quantized = |scheme: &str| json!({"table": scheme});
    let cases: [(&str, Value, &str); 30] = [
        ("/format", json!(2), "unknown-format"),
        ("/format", json!("1"), "unknown-format"),
        ("/format", json!(null), "unknown-format"),
        ("/name", json!(7), "bad-manifest"),
        ("/shards/0/file", json!("../x.safetensors"), "bad-name"),
        ("/shards/0/file", json!("/etc/passwd"), "bad-name"),
        ("/shards/0/file", json!("a\\b"), "bad-name"),
        ("/shards/0/file", json!(".."), "bad-name"),
        ("/shards/0/file", json!(""), "bad-name"),
        ("/shards/0/file", json!(MANIFEST_FILE), "bad-manifest"),
        ("/shards/0/file", json!("other.safetensors"), "bad-manifest"),
        ("/shards/0/bytes", json!(-1), "bad-manifest"),
        ("/shards/0/bytes", json!(1), "bad-manifest"),
        ("/shards/0/sha256", json!("00"), "bad-manifest"),
        ("/shards/0/sha256", json!("Z".repeat(64)), "bad-manifest"),
        ("/shards/1/file", shard.clone(), "bad-manifest"),
        ("/files/0/file", json!("../tokenizer.json"), "bad-name"),
        ("/components/lm/bytes", json!(5), "bad-manifest"),
        ("/components/vision/shards/0", shard, "bad-manifest"),
        (
            "/components/vision",
            json!({"shards": [], "bytes": 0}),
            "bad-manifest",
        ),
        ("/tensors/0/shape", json!([-20, 32]), "bad-manifest"),
        (
            "/tensors/0/shape",
            json!([1u64 << 40, 1u64 << 40]),
            "too-large",
        ),
        ("/tensors/0/shape", json!([20, 1u64 << 40]), "bad-manifest"),
        ("/tensors/0/dtype", json!("F8"), "bad-manifest"),
        ("/tensors/0/component", json!("vision"), "bad-manifest"),
        ("/tensors/0/parts", json!([]), "bad-manifest"),
        ("/tensors/0/parts/0/rows", json!([1, 2]), "bad-manifest"),
        ("/tensors/0/parts/0/rows", json!([0, u64::MAX]), "too-large"),
        ("/tensors/1", first, "duplicate-tensor"),
        ("/quantization", quantized("q5"), "bad-manifest"),
    ];
    for (pointer, value, expected) in cases {
        let mut changed = good.clone();
        *changed.pointer_mut(pointer).unwrap() = value.clone();
        assert_eq!(
            code(Manifest::parse("emu.json", changed.to_string().as_bytes())),
            expected,
            "{pointer} {value}"
        );
    }
    let mut component = good.clone();
    component["components"]["../lm"] = json!({"shards": [], "bytes": 0});
    assert_eq!(
        code(Manifest::parse(
            "emu.json",
            component.to_string().as_bytes()
        )),
        "bad-manifest"
    );
    for (table, expected) in [("table", "misshapen"), ("gone", "missing-tensor")] {
        let mut changed = good.clone();
        changed["quantization"] = json!({table: "q4"});
        assert_eq!(
            code(Manifest::parse("emu.json", changed.to_string().as_bytes())),
            expected
        );
    }
    for field in [
        "format",
        "name",
        "license",
        "config",
        "components",
        "shards",
        "tensors",
    ] {
        let mut changed = good.clone();
        changed.as_object_mut().unwrap().remove(field);
        assert_eq!(
            code(Manifest::parse("emu.json", changed.to_string().as_bytes())),
            "bad-manifest",
            "{field}"
        );
    }
    let nested = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    assert_eq!(
        code(Manifest::parse("emu.json", nested.as_bytes())),
        "bad-manifest"
    );
}

/// Manifests that are consistent but do not describe the shards: hashes match, contents do not.
#[test]
fn shards_that_hold_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    write_small(&path);
    let text = fs::read_to_string(path.join(MANIFEST_FILE)).unwrap();
    let good: Value = serde_json::from_str(&text).unwrap();
    let ids = good["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .position(|t| t["name"] == "ids")
        .unwrap();
    let mut removed = good.clone();
    removed["tensors"].as_array_mut().unwrap().remove(ids);
    let changed = |pointer: String, value: Value| {
        let mut changed = good.clone();
        *changed.pointer_mut(&pointer).unwrap() = value;
        changed
    };
    let cases = [
        (
            changed(format!("/tensors/{ids}/parts/0/key"), json!("idz")),
            "missing-tensor",
            "idz",
        ),
        (
            changed(format!("/tensors/{ids}/dtype"), json!("F64")),
            "misshapen",
            "ids",
        ),
        (
            changed(format!("/tensors/{ids}/shape"), json!([2, 1])),
            "misshapen",
            "ids",
        ),
        (removed, "unknown-tensor", "ids"),
    ];
    for (manifest, expected, tensor) in cases {
        fs::write(path.join(MANIFEST_FILE), manifest.to_string()).unwrap();
        let error = PackReader::open(&path).unwrap().verify().unwrap_err();
        assert_eq!(error.code(), expected, "{error}");
        assert!(
            error.to_string().contains(tensor) && error.to_string().contains(".safetensors"),
            "{error}"
        );
    }
}

#[test]
fn what_the_writer_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    let mut writer = PackWriter::create(&path, meta(), options("q8", 2_000)).unwrap();
    writer.add("lm", tensor("a", &[2, 32])).unwrap();
    assert_eq!(
        code(writer.add("lm", tensor("a", &[2, 32]))),
        "duplicate-tensor"
    );
    assert_eq!(
        code(writer.add("vision", tensor("a.scales", &[2]))),
        "duplicate-tensor"
    );
    assert_eq!(code(writer.add("../lm", tensor("b", &[2]))), "bad-name");
    assert_eq!(
        code(writer.add(
            "lm",
            TensorData::from_f32("b", vec![1], &[f32::NAN]).unwrap()
        )),
        "not-finite"
    );
    let short = TensorData {
        bytes: vec![0; 3],
        ..tensor("c", &[1])
    };
    assert_eq!(code(writer.add("lm", short)), "wrong-length");
    for name in ["../x", "emu.json", "x.safetensors", "", ".hidden", "a/b"] {
        assert_eq!(code(writer.add_file(name, b"")), "bad-name", "{name}");
    }
    writer.add_file("x.json", b"").unwrap();
    assert_eq!(code(writer.add_file("x.json", b"")), "bad-name");
    assert_eq!(
        code(writer.copy_file(folder.path().join("gone.json"))),
        "io"
    );
    let error = writer.add("lm", tensor("wide", &[2, 3000])).unwrap_err();
    assert!(
        error.code() == "too-large" && error.to_string().contains("`wide`"),
        "{error}"
    );
    // After an error that lost a tensor, the pack cannot be finished.
    assert!(writer.finish().is_err());
    assert!(!path.exists());
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "scratch is gone"
    );
}

#[test]
fn targets_are_replaced_only_if_they_are_packs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    fs::create_dir(&path).unwrap();
    write_small(&path);
    fs::write(path.join("README.md"), "a model card").unwrap();
    write_tiny(&path, "f16", 1 << 20);
    assert_eq!(
        fs::read_to_string(path.join("README.md")).unwrap(),
        "a model card"
    );
    let pack = PackReader::open(&path).unwrap();
    pack.verify().unwrap();
    assert_eq!(
        files_of(&path).len(),
        pack.manifest().shards.len() + 3,
        "old shards are gone"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    let create = |path: &Path| PackWriter::create(path, meta(), WriteOptions::default()).map(drop);
    fs::create_dir(path.join("notes")).unwrap();
    assert_eq!(code(create(&path)), "target-in-use");
    fs::remove_dir(path.join("notes")).unwrap();
    fs::write(path.join(MANIFEST_FILE), "{}").unwrap();
    assert!(create(&path).is_ok(), "a damaged pack may be replaced");
    fs::remove_file(path.join(MANIFEST_FILE)).unwrap();
    assert_eq!(code(create(&path)), "target-in-use");
    assert_eq!(code(create(&path.join("README.md"))), "target-in-use");
    assert_eq!(code(create(Path::new("/"))), "target-in-use");
    assert!(path.join("README.md").exists());
}

#[test]
fn mutated_packs_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    let mut writer = PackWriter::create(&path, meta(), options("q4_1", 1 << 20)).unwrap();
    writer.add("lm", tensor("matrix", &[2, 64])).unwrap();
    writer.add("lm", tensor("bias", &[3])).unwrap();
    let manifest = writer.finish().unwrap();
    let (json, shard) = (
        manifest.to_json(),
        fs::read(path.join(&manifest.shards[0].file)).unwrap(),
    );
    let seed =
        |json: &[u8], shard: &[u8]| [&(json.len() as u32).to_le_bytes(), json, shard].concat();
    fuzzing::pack(&seed(&json, &shard));
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    for _ in 0..1500 {
        fuzzing::pack(&seed(&dice.mutate(&json), &shard));
        fuzzing::pack(&seed(&json, &dice.mutate(&shard)));
        fuzzing::pack(&dice.mutate(&seed(&json, &shard)));
        fuzzing::safetensors(&dice.mutate(&shard));
        fuzzing::key_map(
            &dice.mutate(b"a.{i}.{rest..}\nb{i}.{rest..}\n{x..}.ids\na.1.weight\nb1.weight\n"),
        );
    }
    fuzzing::safetensors(&shard);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any tensors survive a round trip via a folder, memory and shard by shard, however they are split.
    #[test]
    fn any_pack_survives_the_round_trip(
        tensors in prop::collection::vec(
            (0usize..3, prop::collection::vec(0usize..7, 0..4), prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::I64, Dtype::Bool])),
            0..8,
        ),
        max_shard in 500u64..2000,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pack");
        let mut writer = PackWriter::create(&path, meta(), options("none", max_shard)).unwrap();
        let mut written = vec![];
        for (i, (component, shape, dtype)) in tensors.into_iter().enumerate() {
            let bytes = (0..shape.iter().product::<usize>() * dtype.size()).map(|b| (b % 2) as u8).collect();
            let tensor = TensorData::new(format!("t{i}"), dtype, shape, bytes).unwrap();
            if writer.add(["vision", "lm", "decoder"][component], tensor.clone()).is_err() {
                return Ok(()); // a row wider than a shard
            }
            written.push(tensor);
        }
        let manifest = writer.finish().unwrap();
        prop_assert_eq!(&Manifest::parse("emu.json", &manifest.to_json()).unwrap(), &manifest);
        prop_assert!(manifest.shards.iter().all(|shard| shard.bytes <= max_shard));
        for pack in [PackReader::open(&path).unwrap(), reader_of(&files_of(&path)).unwrap()] {
            pack.verify().unwrap();
            prop_assert_eq!(pack.tensors().len(), written.len());
            for tensor in &written {
                prop_assert_eq!(&pack.read(&tensor.info.name).unwrap(), tensor);
            }
        }
    }
}
