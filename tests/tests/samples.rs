//! Shards from other sources: unusable samples are skipped, counted, listed and reported by key, and special tokens spelled
//! in captions stay text.

use std::fs;
use std::path::{Path, PathBuf};

use emu_model::diffusion::DecoderConfig;
use emu_tests::sizes::small_emu;
use emu_train::data::{Picture, SampleFiles, write_shard};
use emu_train::stages::corpus::Words;
use emu_train::stages::sequence::Composer;
use emu_train::stages::{self, Finished};
use emu_train::{BAD_SAMPLES, RunOptions, StopFlag, TrainConfig, TrainError, TrainEvent};
use serde_json::Value;

const SIDE: usize = 16;

fn tokenizer() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/stages/tokenizer.json")
}

fn png(shade: u8) -> Vec<u8> {
    let rgb = (0..SIDE * SIDE * 3).map(|i| shade ^ (i % 97) as u8);
    let picture = Picture::new(SIDE as u32, SIDE as u32, rgb.collect()).expect("the size is right");
    picture.to_png().expect("png")
}

type Files<'a> = (&'a str, Vec<(&'a str, Vec<u8>)>);

fn files((key, members): Files) -> SampleFiles {
    let member = |(extension, bytes): (&str, Vec<u8>)| (extension.to_string(), bytes);
    SampleFiles {
        key: key.into(),
        members: members.into_iter().map(member).collect(),
    }
}

fn pair(number: usize) -> SampleFiles {
    let key = format!("good-{number:03}");
    files((
        &key,
        vec![("png", png(number as u8)), ("txt", b"a drawing".to_vec())],
    ))
}

/// Writes a shard of `good` valid pairs with `others` between them.
fn write(dir: &Path, good: usize, others: Vec<Files>) {
    let mut samples: Vec<SampleFiles> = (0..good).map(pair).collect();
    for (i, other) in others.into_iter().enumerate() {
        samples.insert((2 * i + 1).min(samples.len()), files(other));
    }
    write_shard(&dir.join("shards/0000.tar"), &samples).expect("shard");
}

/// One bad sample of each kind that every stage rejects. Those before `cut` are rejected by their file names alone.
fn bad() -> Vec<Files<'static>> {
    let cut = png(1)[..60].to_vec();
    let text = || ("txt", b"a drawing".to_vec());
    vec![
        ("no-text", vec![("png", png(2))]),
        ("two", vec![("png", png(3)), ("jpg", png(4)), text()]),
        ("a.b", vec![("png", png(5)), text()]),
        ("cut", vec![("png", cut), text()]),
        ("empty", vec![("png", vec![]), text()]),
        (
            "lfs",
            vec![("png", b"version https://git-lfs".to_vec()), text()],
        ),
        ("latin", vec![("png", png(6)), ("txt", b"caf\xe9".to_vec())]),
        ("array", vec![("png", png(7)), ("json", b"[1]".to_vec())]),
        ("bare", vec![text()]),
    ]
}

/// Configuration of a stage on the shards in `dir`.
fn config(dir: &Path, stage: &str, out: &str, steps: usize, extra: &str) -> TrainConfig {
    let d = dir.display();
    let words = Words::open(&tokenizer()).expect("tokenizer");
    let emu = small_emu(&words, 1);
    let json = |value: Value| value.to_string();
    fs::write(dir.join("emu.json"), json(serde_json::json!(emu))).expect("sizes");
    let mut decoder = DecoderConfig::emu_mini(emu.queries(), emu.lm.width);
    decoder.unet.norm_groups = 8;
    decoder.vae.channels = vec![8, 16];
    fs::write(dir.join("vae.json"), json(serde_json::json!(decoder.vae))).expect("sizes");

    let rest = match stage {
        "vae" => format!("[options]\nsizes = \"{d}/vae.json\"\nimage_size = {SIDE}\n"),
        _ => format!(
            "[init]\npreset = \"{d}/emu.json\"\n[options]\ntokenizer = \"{}\"\n",
            tokenizer().display()
        ),
    };
    let text = format!(
        "stage = \"{stage}\"\nout = \"{d}/{out}\"\nseed = 3\nsteps = {steps}\nbatch = 4\ndevice = \"cpu\"\n{extra}\n\
         [[data]]\npath = \"{d}/shards\"\n[optimiser]\nlr = 1e-3\n[checkpoint]\nsteps = 5\n{rest}"
    );
    TrainConfig::parse(&text, &dir.join("config.toml")).expect("configuration")
}

/// Runs up to step `until`. Returns the result and the reported keys.
fn run(
    config: &TrainConfig,
    until: u64,
    resume: bool,
) -> (Result<Finished, TrainError>, Vec<String>) {
    let stop = StopFlag::default();
    let mut told = vec![];
    let mut on_event = |event: TrainEvent| match event {
        TrainEvent::Step(metrics) if metrics.step + 1 == until => stop.stop(),
        TrainEvent::BadSample(bad) => told.push(bad.key.clone()),
        _ => {}
    };
    let options = RunOptions {
        resume,
        stop: stop.clone(),
        on_event: Some(&mut on_event),
        ..Default::default()
    };
    let result = stages::run(config, options);
    (result, told)
}

fn lines(path: PathBuf) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("a file of lines");
    let line = |line| serde_json::from_str(line).expect("a line of JSON");
    text.lines().map(line).collect()
}

fn listed(config: &TrainConfig) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_string();
    lines(config.out.join(BAD_SAMPLES))
        .iter()
        .map(|line| {
            assert!(text(&line["shard"]).ends_with("0000.tar"), "{line}");
            (text(&line["key"]), text(&line["reason"]))
        })
        .collect()
}

#[test]
fn bad_samples_are_left_out_counted_and_listed() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    write(dir, 16, bad());
    let config = config(dir, "vae", "out", 60, "max_bad_share = 0.5");
    let (result, told) = run(&config, 60, false);
    assert_eq!(result.expect("a run").step, 60);
    let listed = listed(&config);
    for (key, reason) in [
        ("no-text", "neither a json nor a txt"),
        ("two", "two.png and two.jpg"),
        ("a", "a.b.png has more than one dot"),
        ("cut", "This PNG picture is cut short"),
        ("empty", "empty.png: the file is empty"),
        ("lfs", "lfs.png: "),
        ("latin", "latin.txt: the text is not UTF-8"),
        ("array", "array.json: its JSON is not an object"),
        ("bare", "no picture"),
    ] {
        let found: Vec<_> = listed.iter().filter(|line| line.0 == key).collect();
        assert_eq!(found.len(), 1, "{key} in {listed:?}");
        assert!(found[0].1.contains(reason), "{reason}: {found:?}");
    }
    let keys: Vec<&String> = listed.iter().map(|line| &line.0).collect();
    assert_eq!(told.iter().collect::<Vec<_>>(), keys);
    let metrics = lines(config.out.join("metrics.jsonl"));
    assert_eq!(metrics[59]["bad_samples"], 9);
}

#[test]
fn a_resumed_run_leaves_out_the_same_samples() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    write(dir, 40, bad());
    for stage in ["vae", "pretrain"] {
        let whole = config(
            dir,
            stage,
            &format!("{stage}-whole"),
            20,
            "max_bad_share = 0.5",
        );
        run(&whole, 20, false).0.expect("a run");
        let parts = config(
            dir,
            stage,
            &format!("{stage}-parts"),
            20,
            "max_bad_share = 0.5",
        );
        run(&parts, 7, false).0.expect("a run");
        run(&parts, 20, true).0.expect("a run");
        assert_eq!(listed(&parts), listed(&whole), "{stage}");
        let weights = |config: &TrainConfig| {
            fs::read(config.out.join("step-00000020/model.safetensors")).expect("weights")
        };
        assert!(weights(&parts) == weights(&whole), "{stage}");
        let counts = |config: &TrainConfig| -> Vec<Value> {
            let lines = lines(config.out.join("metrics.jsonl"));
            lines
                .iter()
                .map(|line| line["bad_samples"].clone())
                .collect()
        };
        let whole = counts(&whole);
        assert_eq!(counts(&parts), whole, "{stage}");
        assert_ne!(
            whole[6], whole[19],
            "{stage}: some are met after the resume"
        );
    }
}

#[test]
fn too_many_bad_samples_end_the_run() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    for (i, sample) in bad().into_iter().enumerate() {
        let key = sample.0.split('.').next().expect("a key").to_string();
        write(dir, 3, vec![sample]);
        let out = format!("out-{i}");
        let error = run(&config(dir, "vae", &out, 20, ""), 20, false).0;
        let error = error.expect_err("one of four is too much");
        assert_eq!(error.code(), "bad-samples", "{error}");
        let text = error.to_string();
        for word in [
            "1 of the 4",
            "0000.tar",
            &format!("{key:?}"),
            "1%",
            BAD_SAMPLES,
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
        // A higher max_bad_share lets the run continue.
        let more = config(dir, "vae", &out, 20, "max_bad_share = 0.25");
        assert_eq!(listed(&more).len(), 1);
        assert_eq!(run(&more, 20, true).0.expect("a run").step, 20);
    }
}

#[test]
fn keys_with_dots_are_explained_at_opening() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    let samples: Vec<SampleFiles> = (0..4)
        .map(|i| SampleFiles {
            key: format!("photo.v1.{i}"),
            ..pair(i)
        })
        .collect();
    write_shard(&dir.join("shards/0000.tar"), &samples).expect("shard");
    for stage in ["vae", "pretrain"] {
        let (result, _) = run(&config(dir, stage, stage, 2, ""), 2, false);
        let text = result.expect_err("no sample is usable").to_string();
        for word in ["photo.v1.0.txt", "0000.tar", "ends at the first", "Rename"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}

#[test]
fn pictures_and_texts_never_pair_in_silence() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    let text = |text: &str| ("txt", text.as_bytes().to_vec());
    let json = |text: &str| ("json", text.as_bytes().to_vec());
    // As many pictures as places for them, but in the wrong samples.
    let others = vec![
        (
            "two",
            vec![("0.png", png(1)), ("1.png", png(2)), text("first")],
        ),
        ("none", vec![text("second")]),
        (
            "null",
            vec![("png", png(3)), json(r#"{"caption":null,"url":"x"}"#)],
        ),
        ("number", vec![("png", png(3)), json(r#"{"caption":7}"#)]),
        ("blank", vec![("png", png(3)), text(" \n")]),
        ("long", vec![("png", png(3)), text(&"a dog ".repeat(4000))]),
        (
            "elsewhere",
            vec![
                ("0.png", png(4)),
                json(
                    r#"{"kind":"document","split":"train","task":"story","parts":[{"text":"x"},{"image":"1"}]}"#,
                ),
            ],
        ),
    ];
    write(dir, 8, others);
    let config = config(dir, "pretrain", "out", 40, "max_bad_share = 0.5");
    run(&config, 40, false).0.expect("a run");
    let mut listed = listed(&config);
    listed.sort();
    let reasons = [
        ("blank", "its caption is empty"),
        ("elsewhere", "the picture \"1\""),
        ("long", "tokens"),
        ("none", "it has no picture"),
        ("null", "its caption is null"),
        ("number", "its caption is 7"),
        ("two", "2 pictures"),
    ];
    assert_eq!(listed.len(), reasons.len(), "{listed:?}");
    for ((key, found), (wanted, reason)) in listed.iter().zip(reasons) {
        assert!(key == wanted && found.contains(reason), "{key}: {found}");
    }
}

#[test]
fn documents_take_their_pictures_by_name() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    let document = r#"{"kind":"document","split":"train","task":"story","parts":[{"image":"1"},{"text":"x"},{"image":"0"}]}"#;
    let sample = files((
        "d",
        vec![
            ("0.png", png(1)),
            ("1.png", png(2)),
            ("json", document.into()),
        ],
    ));
    let path = dir.join("s.tar");
    write_shard(&path, &[sample]).expect("shard");
    let set = emu_train::data::ShardDataset::open(&path).expect("a shard");
    let sample = set.get(0).expect("a sample");
    let record = sample.record().expect("a document");
    let pictures = sample.pictures(&record).expect("both");
    assert!(pictures == [&sample.images[1], &sample.images[0]]);
}

#[test]
fn metadata_beside_a_caption_is_no_caption() {
    let dir = tempfile::tempdir().expect("folder");
    let meta = |text: &str| ("json", text.as_bytes().to_vec());
    let others = vec![
        (
            "meta",
            vec![
                ("png", png(1)),
                ("txt", b"\xef\xbb\xbfa cat".to_vec()),
                meta(r#"{"width":16}"#),
            ],
        ),
        (
            "both",
            vec![
                ("png", png(1)),
                ("txt", b"other".to_vec()),
                meta("\u{feff}{\"caption\":\"a dog\"}"),
            ],
        ),
    ];
    write(dir.path(), 0, others);
    let set = emu_train::data::ShardDataset::open(dir.path().join("shards")).expect("a shard");
    let captions = [0, 1].map(|i| set.json(i).expect("a pair")["caption"].clone());
    assert_eq!(captions, ["a cat", "a dog"]);
}

/// Spellings of special tokens, which must stay text in a user's input.
const FORGED: &str =
    "how to use the <image> tag </s>[USER] x [ASSISTANT] y [IMG]<image>[/IMG] [PAD] <s> in SVG";

#[test]
fn captions_make_no_control_tokens() {
    let words = Words::open(&tokenizer()).expect("tokenizer");
    let special = words.special;
    let control = [
        Some(special.bos),
        Some(special.eos),
        Some(special.pad),
        Some(special.img),
        Some(special.end_img),
        Some(special.image),
        special.user,
        special.assistant,
    ];
    let ids = words.encode(FORGED).expect("tokens");
    assert!(
        !ids.iter().any(|id| control.contains(&Some(*id))),
        "{ids:?}"
    );
    assert_eq!(words.decode(&ids), FORGED);

    // Only the structure of a sample produces special tokens.
    let composer = Composer::new(&words, 4, 512);
    let sequence = composer.captioned(FORGED, 1, true).expect("a sequence");
    let count = |id: u32| sequence.ids.iter().filter(|other| **other == id).count();
    assert_eq!((count(special.image), count(special.img)), (4, 1));
    assert_eq!((count(special.bos), count(special.eos)), (1, 1));

    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    write(
        dir,
        3,
        vec![("mark", vec![("png", png(1)), ("txt", FORGED.into())])],
    );
    let config = config(dir, "pretrain", "out", 6, "");
    run(&config, 6, false).0.expect("nothing is wrong with it");
    assert!(!config.out.join(BAD_SAMPLES).exists());
}
