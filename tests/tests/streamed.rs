//! A pack loaded shard by shard, as the page loads it, equals the pack loaded by tensor name.

use std::collections::BTreeSet;
use std::path::PathBuf;

use emu_kernels::burn::module::{Module, ModuleVisitor, Param};
use emu_kernels::burn::tensor::{Device, Tensor, read_sync};
use emu_media::image::RgbImage;
use emu_model::diffusion::{Denoise, DrawOptions};
use emu_model::generate::{BeamOptions, BeamSearch, ImageEmbedder, TextMachine, TextOptions};
use emu_model::pack::{self, ModelConfig};
use emu_model::prompt::{Marked, Prompter};
use emu_model::streamed::Streamed;
use emu_model::weights;
use emu_pack::PackReader;
use emu_pack::convert::{Policy, WriteOptions, repack};
use emu_tokenizer::EmuTokenizer;

fn mini() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/emu-mini")
}

/// Reads a file of a pack.
fn file(pack: &std::path::Path, name: &str) -> Vec<u8> {
    std::fs::read(pack.join(name)).expect("a file of the pack")
}

/// emu-mini with another policy, in shards so small that large tensors are split.
fn repacked(policy: &str, folder: &std::path::Path) -> PathBuf {
    let from = PackReader::open(mini()).expect("the shipped pack");
    let options = WriteOptions {
        policy: Policy::from_argument(policy).expect("a policy"),
        max_shard_bytes: 100_000,
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

#[test]
fn rows_that_came_before_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let device = Device::flex();
    let pack = repacked("q4_1", folder.path());
    let manifest = file(&pack, "emu.json");
    let mut model = Streamed::new(&manifest, &device).expect("a manifest");
    let cut = { model.manifest().tensors.iter() }.find(|tensor| tensor.parts.len() > 1);
    let cut = cut.expect("a tensor in several shards").clone();
    let component = cut.component.clone();
    let shards = model.manifest().components[&component].shards.clone();
    let twice = |model: &mut Streamed, shard: &str| {
        let error = model.shard(shard, &file(&pack, shard));
        let error = error.expect_err("it came before");
        assert_eq!(error.code(), "rows-twice", "{error}");
    };
    // The first part twice has as many rows as the whole tensor of two parts, so counting rows would not detect it.
    let (first, second) = (&cut.parts[0].file, &cut.parts[1].file);
    model.shard(first, &file(&pack, first)).expect("once");
    twice(&mut model, first);
    let missing = model.finish(&component).expect_err("most is missing");
    assert_eq!(missing.code(), "missing-tensor");
    // The rejected shard left the model unchanged.
    for shard in shards.iter().rev().filter(|shard| *shard != first) {
        model.shard(shard, &file(&pack, shard)).expect("once");
    }
    twice(&mut model, second);
    for shard in model.manifest().shards.clone() {
        if !shards.contains(&shard.file) {
            model
                .shard(&shard.file, &file(&pack, &shard.file))
                .expect("once");
        }
    }
    for component in [pack::VISION, pack::LM, pack::DECODER] {
        model.finish(component).expect(component);
    }
    twice(&mut model, second);
    let reader = PackReader::open(&pack).expect("the pack");
    let config = ModelConfig::from_value(&reader.manifest().config).expect("a config");
    let emu = pack::load_emu(&reader, &config.emu, &device).expect("loaded by name");
    same(model.emu().expect("loaded").0, &emu);
    // After unloading, shards may be loaded again.
    model.unload(&component).expect("it was there");
    for shard in &shards {
        model.shard(shard, &file(&pack, shard)).expect("again");
    }
    model.finish(&component).expect("whole again");
}

/// Names of a module's parameters with materialized dense values.
fn dense<M: Module>(module: &M) -> BTreeSet<String> {
    #[derive(Default)]
    struct Dense(Vec<String>, BTreeSet<String>);
    impl ModuleVisitor for Dense {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_initialized() {
                self.1.insert(self.0.join("."));
            }
        }
    }
    let mut seen = Dense::default();
    module.visit(&mut seen);
    seen.1
}

/// The page rehearses requests while the GPU executes nothing, so values left in the model would stay invalid.
#[test]
fn requests_leave_nothing_in_the_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let device = Device::flex();
    let pack = repacked("q8", folder.path());
    let mut model = Streamed::new(&file(&pack, "emu.json"), &device).expect("a manifest");
    let shards = model.manifest().shards.clone();
    for shard in shards {
        let bytes = file(&pack, &shard.file);
        model.shard(&shard.file, &bytes).expect("a shard");
    }
    for component in [pack::VISION, pack::LM, pack::DECODER] {
        model.finish(component).expect(component);
    }
    let there = || {
        let emu = dense(model.emu().expect("loaded").0);
        (emu, dense(model.decoder().expect("loaded").0))
    };
    let before = there();
    let all = weights::parameters(model.emu().expect("loaded").0).len();
    assert!(before.0.len() < all, "some are packed");

    let (emu, config) = model.emu().expect("loaded");
    let (decoder, drawing) = model.decoder().expect("loaded");
    // Cloned, as the engine does.
    let (emu, decoder) = (emu.clone(), decoder.clone());
    let tokenizer = EmuTokenizer::from_json_bytes(&file(&pack, "tokenizer.json")).expect("one");
    let prompter = Prompter {
        emu: &emu,
        config,
        tokenizer: &tokenizer,
        device: &device,
        pictures: None,
    };
    let picture = RgbImage::from_pixel(40, 30, [200, 100, 50].into());
    let prompt = prompter.caption(picture).expect("a prompt");
    let options = TextOptions {
        max_new_tokens: 4,
        ..Default::default()
    };
    let machine = TextMachine::new(&emu, config, &prompt, options).expect("it fits");
    read_sync(machine.run()).expect("text");
    let options = BeamOptions {
        beams: 2,
        max_new_tokens: 3,
        ..Default::default()
    };
    let search = BeamSearch::new(&emu, config, &prompt, options).expect("it fits");
    read_sync(search.run()).expect("text");
    let wanted = Marked::new("a fox", vec![], vec![]).expect("no marks");
    let wanted = prompter.picture(&wanted).expect("a prompt");
    let embedder = ImageEmbedder::new(&emu, config, &wanted, 0).expect("it fits");
    let options = DrawOptions {
        steps: 2,
        ..DrawOptions::new(drawing, 1)
    };
    let (embeddings, _) = read_sync(embedder.run()).expect("embeddings");
    let walk = Denoise::new(&decoder, drawing, embeddings, None, &options);
    read_sync(walk.expect("it fits").run()).expect("a picture");
    assert_eq!(there(), before);
    // Negative control: a materialized parameter is detected.
    drop(emu.lm.embed_tokens.weight.val());
    assert_ne!(there(), before);
}
