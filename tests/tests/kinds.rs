//! The kinds of data that `emu data` builds, each trained on as `pretrain` or `instruct` and resumed exactly; their
//! mixture with a batch of its own for each; what is left out, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use emu_data::record::{Conversation, Part, Record, Role, Turn, Video};
use emu_data::{
    Picture, SampleFiles, documents, instruct, pairs, storyboards, videos, write_shard,
};
use emu_kernels::burn::tensor::Device;
use emu_kernels::random::{Philox, Stream};
use emu_model::config::PromptConfig;
use emu_model::diffusion::UnetConfig;
use emu_model::{EmuConfig, weights};
use emu_pack::TensorSource;
use emu_tests::reference::{file_or_skip, json, tensors};
use emu_tests::sizes::small_emu;
use emu_train::parts::load_parts;
use emu_train::stages::corpus::{Corpus, Words};
use emu_train::stages::sequence::{Composer, frames};
use emu_train::{BAD_SAMPLES, RunOptions, StopFlag, TrainConfig, TrainEvent, stages};

/// What `emu data` builds.
const KINDS: [&str; 5] = ["pairs", "documents", "videos", "storyboards", "instruct"];

fn tokenizer() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/stages/tokenizer.json")
}

fn words() -> Words {
    Words::open(&tokenizer()).expect("tokenizer")
}

fn format(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/formats")
        .join(name)
}

fn png(shade: u8) -> Vec<u8> {
    let rgb = (0..24 * 24 * 3).map(|i| shade.wrapping_mul(40) ^ (i % 89) as u8);
    let picture = Picture::new(24, 24, rgb.collect()).expect("the size is right");
    picture.to_png().expect("png")
}

/// Builds a data set of every kind in `dir/KIND`, from files written here and the fixtures of each format.
fn build(dir: &Path) {
    let at = |kind: &str| dir.join(kind);
    let photos = dir.join("photos");
    fs::create_dir_all(&photos).expect("folder");
    for (i, caption) in ["a red dog", "a blue cat", "an apple", "a star on a box"]
        .iter()
        .enumerate()
    {
        fs::write(photos.join(format!("{i}.png")), png(i as u8)).expect("picture");
        fs::write(photos.join(format!("{i}.txt")), caption).expect("caption");
    }
    pairs::build(&pairs::Options::new(&photos, at("pairs")), &mut |_| {}).expect("pairs");

    let list = format("mmc4/docs_no_face_shard_0_v2.jsonl");
    let mut options = documents::Options::new(list, at("documents"));
    options.min_bytes = Some(1);
    options.min_similarity = 0.2;
    documents::build(&options, &mut |_| {}).expect("documents");

    let options = videos::Options::new(format("webvid"), at("videos"));
    videos::build(&options, &mut |_| {}).expect("videos");

    let mut options = storyboards::Options::new(format("storyboard"), at("storyboards"));
    options.frames = 3;
    storyboards::build(&options, &mut |_| {}).expect("storyboards");

    let list = format("llava/llava_instruct.json");
    let options = instruct::Options::new(list, at("instruct"));
    instruct::build(&options, &mut |_| {}).expect("conversations");
}

/// Writes the sizes of a model small enough for these tests to `dir/emu.json`.
fn write_sizes(dir: &Path) {
    let words = words();
    let emu = small_emu(&words, 1);
    let json = serde_json::json!(emu).to_string();
    fs::write(dir.join("emu.json"), json).expect("sizes");
}

/// A run in `dir/out`. `data` are the tables of its data, `more` those after them, `options` those of the stage.
fn config(
    dir: &Path,
    stage: &str,
    out: &str,
    data: &str,
    more: &str,
    options: &str,
) -> TrainConfig {
    let d = dir.display();
    let text = format!(
        "stage = \"{stage}\"\nout = \"{d}/{out}\"\nseed = 5\nsteps = 20\nbatch = 2\ndevice = \"cpu\"\n\
         max_bad_share = 0.5\n{data}\n[optimiser]\nlr = 3e-3\n[checkpoint]\nsteps = 10\n\
         [init]\npreset = \"{d}/emu.json\"\n{more}\n[options]\ntokenizer = \"{}\"\n{options}",
        tokenizer().display()
    );
    TrainConfig::parse(&text, &dir.join("config.toml")).expect("configuration")
}

fn data(dir: &Path, kind: &str, more: &str) -> String {
    format!(
        "[[data]]\npath = \"{}/{kind}/train\"\nkind = \"{kind}\"\n{more}\n",
        dir.display()
    )
}

/// Runs up to step `until`.
fn run(config: &TrainConfig, until: u64, resume: bool) {
    let stop = StopFlag::default();
    let mut leave = |event: TrainEvent| {
        if let TrainEvent::Step(metrics) = event
            && metrics.step + 1 == until
            && until < config.steps
        {
            stop.stop();
        }
    };
    let options = RunOptions {
        resume,
        stop: stop.clone(),
        on_event: Some(&mut leave),
        ..RunOptions::default()
    };
    let done =
        stages::run(config, options).unwrap_or_else(|e| panic!("{}: {e}", config.out.display()));
    assert_eq!(done.step, until);
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).expect("a file of lines");
    let line = |line| serde_json::from_str(line).expect("a line of JSON");
    text.lines().map(line).collect()
}

/// The loss of every step.
fn losses(config: &TrainConfig) -> Vec<f64> {
    let metrics = lines(&config.out.join("metrics.jsonl"));
    let loss = |line: &serde_json::Value| line["loss"].as_f64().expect("a loss");
    metrics.iter().map(loss).collect()
}

fn weights_of(config: &TrainConfig) -> Vec<u8> {
    let last = format!("step-{:08}/model.safetensors", config.steps);
    fs::read(config.out.join(last)).expect("weights")
}

/// Trains twice, once with an interruption, and compares. Returns the losses.
fn trained_exactly(whole: &TrainConfig, halves: &TrainConfig) -> Vec<f64> {
    run(whole, whole.steps, false);
    run(halves, 7, false);
    run(halves, halves.steps, true);
    let found = losses(whole);
    assert!(found.iter().all(|loss| loss.is_finite()), "{found:?}");
    assert_eq!(losses(halves), found, "{}", halves.out.display());
    let same = weights_of(whole) == weights_of(halves);
    assert!(same, "{}: the weights differ", halves.out.display());
    found
}

#[test]
fn each_kind_learns_and_resumes_exactly() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    build(dir);
    write_sizes(dir);
    for kind in KINDS {
        let (stage, more, options) = match kind {
            "instruct" => (
                "instruct",
                // Adapters on what the pairs have taught, everything else frozen.
                format!("[init.parts]\n\"\" = \"{}/pairs-whole\"\n", dir.display())
                    + &["visual", "ln_visual", "cformer", "lm"]
                        .map(|part| format!("[[rates]]\npart = \"{part}\"\nfreeze = true\n"))
                        .concat()
                    + "[[rates]]\npart = \"*.lora\"\nlr = 1e-2\n",
                "answers_only = true\nadapter = { rank = 4, alpha = 8.0, dropout = 0.1 }\n",
            ),
            _ => ("pretrain", String::new(), "every_picture = true\n"),
        };
        let data = data(dir, kind, "");
        let named = |out: &str| config(dir, stage, &format!("{kind}-{out}"), &data, &more, options);
        let found = trained_exactly(&named("whole"), &named("halves"));
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (before, after) = (mean(&found[..5]), mean(&found[15..]));
        assert!(after < before, "{kind} does not learn: {found:?}");
    }
    // A run on conversations says what stands between the turns.
    let value = fs::read_to_string(dir.join("instruct-whole/model.json")).expect("sizes");
    let value: serde_json::Value = serde_json::from_str(&value).expect("JSON");
    assert_eq!(value["emu"]["prompts"]["answered"], "</s>");
}

#[test]
fn a_mixture_has_a_batch_of_its_own_for_each_kind() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    build(dir);
    write_sizes(dir);
    let sizes: BTreeMap<&str, usize> = BTreeMap::from([
        ("pairs", 4),
        ("documents", 2),
        ("videos", 1),
        ("storyboards", 1),
    ]);
    let sets: String = {
        KINDS
            .iter()
            .filter_map(|kind| Some((kind, sizes.get(kind)?)))
    }
    .map(|(kind, size)| {
        // The document is cut, the others are shorter.
        let tokens = if *kind == "documents" { 60 } else { 400 };
        data(dir, kind, &format!("batch = {size}\ntokens = {tokens}"))
    })
    .collect();
    let more = "[schedule]\nwarmup = 2\n";
    let named = |out: &str| {
        let mut config = config(dir, "pretrain", out, &sets, more, "");
        (config.steps, config.accumulate) = (10, 4);
        config
    };
    let whole = named("whole");
    assert_eq!(whole.samples_per_step(), 8.0);

    // Every step has one micro-batch of each kind, of its size, and nothing else is in it.
    let corpus = Corpus::open(&whole).expect("data");
    for step in 0..6 {
        let mut met = BTreeSet::new();
        for index in step * 4..(step + 1) * 4 {
            let (keys, visited) = corpus
                .batch(index, 99, |sample| Ok(sample.key.clone()))
                .expect("a batch");
            let of = |key: &String| {
                let kind = KINDS
                    .into_iter()
                    .find(|kind| key.contains(&format!("/{kind}/train/")));
                kind.expect("the prefix of a data set")
            };
            let kinds: BTreeSet<&str> = visited.keys.iter().map(of).collect();
            let [kind] = kinds.into_iter().collect::<Vec<_>>()[..] else {
                panic!("{:?}", visited.keys)
            };
            assert_eq!(keys.len(), sizes[kind], "{kind}");
            assert!(met.insert(kind), "{kind} twice in step {step}");
        }
    }
    trained_exactly(&whole, &named("halves"));
}

fn text(text: &str) -> Part {
    Part::Text(text.into())
}

fn turn(role: Role, parts: Vec<Part>) -> Turn {
    Turn { role, parts }
}

fn talk(turns: Vec<Turn>) -> Conversation {
    Conversation {
        system: None,
        video: false,
        turns,
    }
}

fn sample(key: &str, record: &Record, pictures: usize) -> SampleFiles {
    let mut members = vec![(
        "json".to_string(),
        serde_json::to_vec(record).expect("json"),
    )];
    members.extend((0..pictures).map(|i| (format!("{i}.png"), png(i as u8))));
    SampleFiles {
        key: key.into(),
        members,
    }
}

#[test]
fn unusable_records_of_each_kind_are_told_by_name() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    write_sizes(dir);
    let film = |caption: &str, frames: usize| {
        Record::Video(Video {
            caption: caption.into(),
            offsets: (0..frames).collect(),
            total: frames,
        })
    };
    let asked = || {
        turn(
            Role::User,
            vec![Part::Image("0".into()), text("what is this?")],
        )
    };
    let answered = || turn(Role::Assistant, vec![text("a dog")]);
    let good = || Record::Conversation(talk(vec![asked(), answered()]));
    let long = "a dog ".repeat(2000);
    let samples = [
        ("good-1", good(), 1),
        ("good-2", good(), 1),
        ("good-3", film("a dog runs", 3), 3),
        ("good-4", film("a cat runs", 12), 12),
        ("lost-frame", film("a dog", 3), 2),
        ("no-frames", film("a dog", 2), 0),
        ("silent", film("  ", 2), 2),
        ("lost-picture", good(), 0),
        (
            "two-users",
            Record::Conversation(talk(vec![asked(), asked()])),
            1,
        ),
        ("no-answer", Record::Conversation(talk(vec![asked()])), 1),
        ("no-turns", Record::Conversation(talk(vec![])), 0),
        (
            "long",
            Record::Conversation(talk(vec![
                asked(),
                turn(Role::Assistant, vec![text(&long)]),
            ])),
            1,
        ),
    ];
    let files: Vec<SampleFiles> = samples
        .iter()
        .map(|(key, record, pictures)| sample(key, record, *pictures))
        .collect();
    write_shard(&dir.join("mixed/train/0000.tar"), &files).expect("shard");
    // With a batch of its own a data set is read from its first sample to its last before any comes again.
    let mixed = format!(
        "[[data]]\npath = \"{}/mixed/train\"\nbatch = 2\n",
        dir.display()
    );
    let mut config = config(dir, "pretrain", "out", &mixed, "", "");
    config.max_bad_share = 1.0;
    run(&config, 20, false);
    let listed = lines(&config.out.join(BAD_SAMPLES));
    let reasons: BTreeMap<&str, &str> = listed
        .iter()
        .map(|line| {
            (
                line["key"].as_str().expect("a key"),
                line["reason"].as_str().expect("a reason"),
            )
        })
        .collect();
    for (key, reason) in [
        ("lost-frame", "2 frames, and its record names 3"),
        ("no-frames", "no frames"),
        ("silent", "its caption is empty"),
        ("lost-picture", "the picture \"0\""),
        ("two-users", "its turns"),
        ("no-answer", "its turns"),
        ("no-turns", "its turns"),
        ("long", "tokens"),
    ] {
        let found = reasons
            .get(key)
            .unwrap_or_else(|| panic!("{key} in {reasons:?}"));
        assert!(found.contains(reason), "{key}: {found}");
    }
    assert_eq!(reasons.len(), 8, "{reasons:?}");
}

#[test]
fn conversations_need_prompts_that_mark_turns() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    write_sizes(dir);
    let path = dir.join("emu.json");
    let mut value = json(&path);
    value["prompts"] = serde_json::json!({});
    fs::write(&path, value.to_string()).expect("sizes");
    let record = Record::Conversation(talk(vec![
        turn(Role::User, vec![text("hello")]),
        turn(Role::Assistant, vec![text("hello")]),
    ]));
    write_shard(
        &dir.join("x/train/instruct-0.tar"),
        &[sample("a", &record, 0)],
    )
    .expect("shard");
    let config = config(
        dir,
        "instruct",
        "out",
        &data(dir, "x", "").replace("kind = \"x\"\n", ""),
        "",
        "",
    );
    let error = stages::run(&config, RunOptions::default())
        .expect_err("no marks")
        .to_string();
    assert!(
        error.contains("init.preset") && error.contains("mark no turns"),
        "{error}"
    );
}

#[test]
fn only_what_the_assistant_says_is_a_target() {
    let words = words();
    let special = words.special;
    let composer = Composer::new(&words, 4, 512);
    let conversation = talk(vec![
        turn(
            Role::User,
            vec![
                Part::Image("0".into()),
                text("what is this? </s>[ASSISTANT]<image>"),
            ],
        ),
        turn(Role::Assistant, vec![text("a dog")]),
        turn(Role::User, vec![text("and its colour?")]),
        turn(Role::Assistant, vec![text("red")]),
    ]);
    let trained = PromptConfig::trained();
    let (sequence, pictures) = composer
        .conversation(&conversation, &trained, 512)
        .expect("a sequence");
    assert_eq!(pictures, 1);
    let targets: Vec<u32> = { sequence.ids.iter().zip(&sequence.wanted) }
        .filter_map(|(id, wanted)| wanted.then_some(*id))
        .collect();
    let said: Vec<String> = { targets.split(|id| *id == special.eos) }
        .map(|ids| words.decode(ids))
        .collect();
    assert_eq!(said, ["a dog", "red", ""]);
    let count = |id: u32| sequence.ids.iter().filter(|other| **other == id).count();
    assert_eq!(
        (
            count(special.img),
            count(special.image),
            count(special.end_img)
        ),
        (1, 4, 1)
    );
    assert_eq!((count(special.bos), count(special.eos)), (1, 2));
    let role = |id: Option<u32>| count(id.expect("a role"));
    assert_eq!((role(special.user), role(special.assistant)), (2, 2));
    assert_eq!(
        sequence.positions,
        (0..sequence.ids.len()).collect::<Vec<_>>()
    );
    // In the form of the model's prompts: the picture, [USER], the question, [ASSISTANT].
    let front = [
        special.bos,
        special.img,
        special.image,
        special.image,
        special.image,
        special.image,
    ];
    assert_eq!(sequence.ids[..6], front);
    assert_eq!(
        sequence.ids[6..8],
        [special.end_img, special.user.expect("a role")]
    );

    // A shorter limit leaves the last exchange out, and the first is never cut.
    let whole = sequence.ids.len();
    for (most, answers) in [(whole, 2), (whole - 1, 1), (1, 1)] {
        let (sequence, pictures) = composer
            .conversation(&conversation, &trained, most)
            .expect("a sequence");
        let ends = sequence.ids.iter().filter(|id| **id == special.eos).count();
        assert_eq!((ends, pictures), (answers, 1), "{most}");
    }

    // Emu-I's form, with a system message: `SYSTEM [USER]: INSTRUCTION [ASSISTANT]: ANSWER`.
    let prompts = EmuConfig::emu_14b().instruct().prompts;
    let spoken = Conversation {
        system: Some("be brief".into()),
        ..talk(conversation.turns[2..].to_vec())
    };
    let (sequence, _) = composer
        .conversation(&spoken, &prompts, 512)
        .expect("a sequence");
    let mut expected = vec![special.bos];
    expected.extend(words.encode("be brief").expect("tokens"));
    expected.extend(special.user);
    expected.extend(words.encode(": and its colour?").expect("tokens"));
    expected.extend(special.assistant);
    expected.extend(words.encode(":").expect("tokens"));
    expected.extend(words.encode("red").expect("tokens"));
    expected.push(special.eos);
    assert_eq!(sequence.ids, expected);
}

#[test]
fn captions_stand_before_or_after_their_frames() {
    let words = words();
    let special = words.special;
    let composer = Composer::new(&words, 2, 512);
    let wanted = |sequence: &emu_train::stages::sequence::Sequence| {
        let pairs = sequence.ids.iter().zip(&sequence.wanted);
        pairs
            .filter(|(id, wanted)| **id == special.image && **wanted)
            .count()
    };
    let first = composer.captioned("a dog", 3, true).expect("a sequence");
    let last = composer.captioned("a dog", 3, false).expect("a sequence");
    assert_eq!(first.ids.len(), last.ids.len());
    assert_eq!(first.ids[1..3], [special.img, special.image]);
    assert_eq!(last.ids[last.ids.len() - 2], special.end_img);
    assert_eq!((wanted(&first), wanted(&last)), (0, 6));
    let composer = composer.with_every_picture(true);
    let first = composer.captioned("a dog", 3, true).expect("a sequence");
    assert_eq!(wanted(&first), 6);

    // A cut goes before a picture that would not be whole.
    let mut cut = first.clone();
    assert_eq!(composer.cut(&mut cut, 7), 1);
    assert_eq!(cut.ids, first.ids[..5]);
    let mut cut = first.clone();
    assert_eq!(composer.cut(&mut cut, 13), 3);
    assert_eq!(
        (cut.ids.len(), cut.wanted.len(), cut.positions.len()),
        (13, 13, 13)
    );
    let mut whole = first.clone();
    assert_eq!(composer.cut(&mut whole, 500), 3);
    assert_eq!(whole, first);
}

#[test]
fn frames_are_drawn_at_random_and_repeated_where_there_are_few() {
    let random = |step| Philox::new(7, Stream::Data, step);
    assert_eq!(frames(3, 8, &mut random(0)), [0, 0, 0, 1, 1, 1, 2, 2]);
    assert_eq!(frames(8, 8, &mut random(0)), [0, 1, 2, 3, 4, 5, 6, 7]);
    let mut counts = [0; 16];
    let mut choices = BTreeSet::new();
    for step in 0..400 {
        let chosen = frames(16, 8, &mut random(step));
        assert_eq!(chosen, frames(16, 8, &mut random(step)));
        assert!(
            chosen.len() == 8 && chosen.is_sorted_by(|a, b| a < b),
            "{chosen:?}"
        );
        chosen.iter().for_each(|frame| counts[*frame] += 1);
        choices.insert(chosen);
    }
    // Each of 16 frames is expected in 200 of 400 draws, with a deviation of 10.
    assert!(
        counts.iter().all(|count| (150..250).contains(count)),
        "{counts:?}"
    );
    assert!(choices.len() > 350, "{}", choices.len());
}

#[test]
fn a_published_unet_begins_a_decoder_of_another_condition() {
    let name = "tiny-unet/diffusion_pytorch_model.safetensors";
    let Some(file) = file_or_skip("published-unet", name) else {
        return;
    };
    let folder = file.parent().expect("a folder");
    let mut sizes = UnetConfig::from_diffusers(&json(&folder.join("config.json"))).expect("sizes");
    sizes.context_width += 8;
    let device = Device::flex();
    let text = format!(
        "stage = 't'\nout = 'o'\nsteps = 1\nbatch = 1\n[optimiser]\nlr = 1.0\n[init.parts]\n\"\" = '{}'\n",
        folder.display()
    );
    let config = TrainConfig::parse(&text, Path::new("t.toml")).expect("a configuration");
    let unet = load_parts(sizes.init(&device).expect("a UNet"), &config, &device).expect("weights");
    let published = tensors(&file);
    let mut loaded = BTreeMap::new();
    weights::export(&unet, |tensor| {
        loaded.insert(tensor.info.name.clone(), tensor);
        Ok::<_, emu_pack::PackError>(())
    })
    .expect("weights");
    let same = published.read("conv_in.weight").expect("a tensor");
    assert_eq!(
        loaded["conv_in.weight"].to_f32().expect("values"),
        same.to_f32().expect("values")
    );
    let (name, key) = { loaded.iter() }
        .find(|(name, _)| name.contains("attn2.to_k"))
        .expect("cross-attention");
    assert_eq!(key.info.shape[1], sizes.context_width, "{name}");
    assert!(
        key.to_f32().expect("values").iter().any(|v| *v != 0.0),
        "{name}"
    );
}
