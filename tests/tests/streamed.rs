//! A pack loaded shard by shard, as a page loads it, is the pack loaded by name.

use std::path::PathBuf;

use emu_kernels::burn::module::Module;
use emu_kernels::burn::tensor::Device;
use emu_model::pack::{self, ModelConfig};
use emu_model::streamed::Streamed;
use emu_model::weights;
use emu_pack::PackReader;
use emu_pack::convert::{Policy, WriteOptions, repack};

fn mini() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/emu-mini")
}

/// Bytes of a file of a pack.
fn file(pack: &std::path::Path, name: &str) -> Vec<u8> {
    std::fs::read(pack.join(name)).expect("a file of the pack")
}

/// emu-mini with another policy, in shards so small that large tensors are cut.
fn repacked(policy: &str, folder: &std::path::Path) -> PathBuf {
    let from = PackReader::open(mini()).expect("the shipped pack");
    let options = WriteOptions {
        policy: Policy::from_argument(policy).expect("a policy"),
        max_shard_bytes: 300_000,
        ..Default::default()
    };
    let out = folder.join(policy);
    repack(&from, &out, options).expect("a pack");
    out
}

fn same<M: Module>(streamed: &M, named: &M) {
    let (ours, theirs) = (weights::to_map(streamed), weights::to_map(named));
    assert!(!ours.is_empty());
    assert_eq!(ours.len(), theirs.len());
    for (name, tensor) in theirs {
        assert_eq!(ours.get(&name), Some(&tensor), "{name}");
    }
}

#[test]
fn shards_in_any_order_give_the_same_weights() {
    let folder = tempfile::tempdir().expect("a folder");
    let device = Device::flex();
    for pack in [
        mini(),
        repacked("q8", folder.path()),
        repacked("q4_1", folder.path()),
    ] {
        let mut model = Streamed::new(&file(&pack, "emu.json"), &device).expect("a manifest");
        let shards: Vec<String> = model
            .manifest()
            .shards
            .iter()
            .map(|s| s.file.clone())
            .collect();
        for shard in shards.iter().rev() {
            model.shard(shard, &file(&pack, shard)).expect("a shard");
        }
        for component in [pack::VISION, pack::LM, pack::DECODER] {
            model.finish(component).expect(component);
        }
        let reader = PackReader::open(&pack).expect("the pack");
        let config = ModelConfig::from_value(&reader.manifest().config).expect("a config");
        let emu = pack::load_emu(&reader, &config.emu, &device).expect("loaded by name");
        same(model.emu().expect("loaded").0, &emu);
        let decoder = config.decoder.as_ref().expect("it draws");
        let decoder = pack::load_decoder(&reader, decoder, &device).expect("loaded by name");
        same(model.decoder().expect("loaded").0, &decoder);
    }
}

#[test]
fn what_is_missing_or_damaged_is_named() {
    let device = Device::flex();
    let pack = mini();
    let mut model = Streamed::new(&file(&pack, "emu.json"), &device).expect("a manifest");
    let code = |error: pack::LoadError| error.code();
    assert_eq!(
        code(model.finish(pack::LM).expect_err("nothing came")),
        "missing-tensor"
    );
    assert_eq!(
        code(model.finish(pack::SAFETY).expect_err("none")),
        "no-component"
    );
    assert_eq!(code(model.emu().expect_err("not loaded")), "not-loaded");
    assert!(model.safety().expect("none is needed").is_none());

    let vision = model.manifest().components[pack::VISION].shards[0].clone();
    let mut bytes = file(&pack, &vision);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    assert_eq!(
        code(model.shard(&vision, &bytes).expect_err("flipped")),
        "wrong-hash"
    );
    assert_eq!(
        code(model.shard(&vision, &bytes[..99]).expect_err("short")),
        "short-file"
    );
    assert_eq!(
        code(model.shard("x.safetensors", &bytes).expect_err("unknown")),
        "bad-name"
    );
    bytes[middle] ^= 1;
    model.shard(&vision, &bytes).expect("the right bytes");
    model.finish(pack::VISION).expect("whole");
    assert!(model.vision().is_ok());
    assert_eq!(code(model.emu().expect_err("no LM")), "not-loaded");

    model.unload(pack::VISION).expect("it was there");
    assert_eq!(code(model.vision().expect_err("gone")), "not-loaded");
    model.shard(&vision, &bytes).expect("again");
    model.finish(pack::VISION).expect("whole again");
}
