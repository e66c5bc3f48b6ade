//! The commands, on packs that run in milliseconds.

mod common;

use common::{
    cat, checking_pack, drawing_pack, emu, emu_with_input, fails, fixtures, json_of, text,
    tiny_pack,
};

#[test]
fn captions_are_a_line_each() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    let panda = text(&fixtures().join("images/panda.png"));
    let arguments = ["--model", &pack, "--device", "cpu", "--max-new-tokens", "6"];
    let run = |more: &[&str]| {
        let mut all = vec!["caption"];
        all.extend(arguments);
        all.extend(more);
        emu(&all)
    };
    let plain = run(&[&cat(), &panda]);
    assert_eq!(plain.code, Some(0), "{}", plain.err);
    assert_eq!(plain.out.lines().count(), 2, "{}", plain.out);
    // A repeated run gives the same output: greedy decoding is deterministic.
    assert_eq!(run(&[&cat(), &panda]).out, plain.out);

    let mut json = vec!["caption", "--json"];
    let (cat, beams) = (cat(), ["--beams", "3"]);
    json.extend(arguments);
    json.extend([cat.as_str(), &panda]);
    let lines = json_of(&json);
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["image"], cat.as_str());
    assert!(lines.iter().all(|line| line["caption"].is_string()));
    json.extend(beams);
    assert_eq!(json_of(&json).len(), 2);
}

#[test]
fn captions_of_a_folder_continue_where_they_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    let pictures = folder.path().join("pictures");
    std::fs::create_dir_all(pictures.join("more")).expect("a folder");
    for (name, from) in [
        ("a.jpg", "cat.jpg"),
        ("b.png", "panda.png"),
        ("more/c.png", "cat-crop-133x90.png"),
    ] {
        let from = fixtures().join("images").join(from);
        std::fs::copy(from, pictures.join(name)).expect("copied");
    }
    for name in ["broken.png", "notes.txt"] {
        std::fs::write(pictures.join(name), "no picture").expect("written");
    }
    let out = text(&folder.path().join("new/captions.jsonl"));
    let pictures = text(&pictures);
    let options = ["--device", "cpu", "--max-new-tokens", "6", "--json"];
    let mut arguments = vec!["caption", "--model", &pack];
    arguments.extend(options);
    arguments.extend(["--out", &out, "--recursive", &pictures]);

    let said = emu(&arguments);
    assert_eq!(said.code, Some(1), "{}", said.err);
    for words in [
        "no caption: ",
        "broken.png",
        "1 of 4 pictures have no caption",
    ] {
        assert!(
            said.err.contains(words),
            "{words:?} is not in: {}",
            said.err
        );
    }
    let summary: serde_json::Value = serde_json::from_str(&said.out).expect("a line of JSON");
    assert_eq!(
        (&summary["written"], &summary["skipped"]),
        (&3.into(), &0.into())
    );
    let path = summary["failed"][0]["path"].as_str();
    assert!(
        path.is_some_and(|path| path.ends_with("broken.png")),
        "{summary}"
    );

    let lines = || -> Vec<serde_json::Value> {
        let lines = std::fs::read_to_string(&out).expect("a file");
        let lines = lines.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect()
    };
    let whole = lines();
    assert_eq!(whole.len(), 3);
    for line in &whole {
        // As the picture is captioned alone.
        let path = line["path"].as_str().expect("a path");
        let mut alone = vec!["caption", "--model", &pack];
        alone.extend(options);
        alone.push(path);
        assert_eq!(line["text"], json_of(&alone)[0]["caption"], "{line}");
        assert!(
            line["tokens"]
                .as_u64()
                .is_some_and(|n| (1..=7).contains(&n)),
            "{line}"
        );
        assert!(line["seconds"].as_f64().is_some_and(|n| n > 0.0), "{line}");
    }

    // Killed in the middle of the last line, and mended.
    let bytes = std::fs::read(&out).expect("a file");
    std::fs::write(&out, &bytes[..bytes.len() - 5]).expect("cut");
    std::fs::remove_file(folder.path().join("pictures/broken.png")).expect("removed");
    for (written, skipped) in [(1, 2), (0, 3)] {
        let summary = &json_of(&arguments)[0];
        assert_eq!(
            (&summary["written"], &summary["skipped"]),
            (&written.into(), &skipped.into())
        );
        assert_eq!(summary["failed"], serde_json::json!([]));
        let again = lines();
        assert_eq!(again.len(), 3);
        for (line, before) in again.iter().zip(&whole) {
            for key in ["path", "text", "tokens", "model"] {
                assert_eq!(line[key], before[key], "{key}");
            }
        }
    }

    // Without --out, folders are printed like files. Captions of another model do not go into the same file.
    let printed = emu(&["caption", "--model", &pack, "--device", "cpu", &pictures]);
    assert_eq!((printed.code, printed.out.lines().count()), (Some(0), 2));
    let other = drawing_pack(folder.path());
    let mut arguments = vec!["caption", "--model", &other, "--device", "cpu"];
    arguments.extend(["--out", &out, &pictures]);
    fails(&arguments, &["captions of the model", "--out"]);
    let empty = text(&folder.path().join("new"));
    fails(
        &["caption", "--model", &pack, "--device", "cpu", &empty],
        &["holds no pictures", "--recursive"],
    );
}

#[test]
fn an_answer_comes_in_pieces_and_with_its_cost() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    let base = [
        "chat",
        "--model",
        &pack,
        "--device",
        "cpu",
        "--max-new-tokens",
        "5",
        "--json",
    ];
    let cat = cat();
    let mut arguments = base.to_vec();
    arguments.extend(["--image", &cat, "what is in <image> ?"]);
    let lines = json_of(&arguments);
    let (usage, pieces) = lines.split_last().expect("lines");
    assert_eq!(usage["type"], "usage");
    assert!(
        usage["tokens"]
            .as_u64()
            .is_some_and(|n| (1..=5).contains(&n))
    );
    assert!(pieces.iter().all(|line| line["type"] == "text"));

    // Sampling depends on the seed.
    let sampled = |seed: &str| {
        let mut arguments = base.to_vec();
        arguments.extend(["--temperature", "2", "--seed", seed, "the dog"]);
        let lines = json_of(&arguments);
        let texts = lines.iter().filter_map(|line| line["text"].as_str());
        texts.collect::<String>()
    };
    assert_eq!(sampled("1"), sampled("1"));
    assert_ne!(sampled("1"), sampled("2"));

    let mut arguments = base.to_vec();
    arguments.extend(["--beams", "2", "the dog"]);
    assert_eq!(json_of(&arguments).len(), 2);
}

#[test]
fn log_probabilities_bias_and_stop_strings_shape_an_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    let ask = |more: &[&str]| {
        let base = ["chat", "--model", &pack, "--device", "cpu", "--json"];
        json_of(&[&base[..], &["--max-new-tokens", "12"], more, &["the dog"]].concat())
    };
    let text = |lines: &[serde_json::Value]| -> String {
        let texts = lines.iter().filter_map(|line| line["text"].as_str());
        texts.collect()
    };
    // Of each token: its number, and the numbers of the most likely ones.
    let tokens = |lines: &[serde_json::Value]| -> Vec<(u64, Vec<u64>)> {
        let id = |token: &serde_json::Value| token["id"].as_u64().expect("a number");
        let all = lines.iter().filter_map(|line| line["logprobs"].as_array());
        let of = |token: &serde_json::Value| {
            let top = token["top"].as_array().expect("an array");
            assert!(
                token["logprob"]
                    .as_f64()
                    .is_some_and(|logprob| logprob <= 0.0)
            );
            (id(token), top.iter().map(id).collect())
        };
        all.flatten().map(of).collect()
    };
    let plain = ask(&[]);
    assert!(tokens(&plain).is_empty());
    let told = ask(&["--logprobs", "2"]);
    assert_eq!(text(&told), text(&plain));
    let found = tokens(&told);
    assert!(!found.is_empty());
    // Greedy decoding takes the most likely token.
    for (token, top) in &found {
        assert_eq!((top.len(), top[0]), (2, *token));
    }

    // What is banned is replaced by the next best, and what is favoured is always taken.
    let (first, second) = (found[0].0, found[0].1[1]);
    let banned = format!("{first}=-100");
    let other = tokens(&ask(&["--logprobs", "2", "--logit-bias", &banned]));
    assert_eq!(other[0].0, second);
    // The log-probabilities are those without the bias.
    assert_eq!(other[0].1, found[0].1);
    assert!(other.iter().all(|(token, _)| *token != first));
    let favoured = format!("{second}=100");
    let other = tokens(&ask(&["--logprobs", "0", "--logit-bias", &favoured]));
    assert_eq!(other, vec![(second, vec![]); 12]);

    // The text ends before a stop string, wherever the borders of its tokens are.
    let whole = text(&plain);
    let stop: String = whole.chars().skip(1).take(3).collect();
    let end = whole.find(&stop).expect("it is a part");
    let stopped = ask(&["--stop", "never said", "--stop", &stop]);
    assert_eq!(text(&stopped), whole[..end]);
    let usage = |lines: &[serde_json::Value]| lines.last().expect("a line")["tokens"].as_u64();
    assert!(usage(&stopped) < usage(&plain));
}

#[test]
fn several_answers_have_consecutive_seeds() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    let ask = |more: &[&str]| {
        let base = ["chat", "--model", &pack, "--device", "cpu", "--json"];
        let options = ["--max-new-tokens", "8", "--temperature", "2"];
        json_of(&[&base[..], &options, more, &["the dog"]].concat())
    };
    let answers = |lines: &[serde_json::Value]| -> Vec<String> {
        let parts = lines.split_inclusive(|line| line["type"] == "usage");
        parts
            .enumerate()
            .map(|(index, part)| {
                let usage = part.last().expect("a line");
                assert_eq!(usage["index"], index);
                assert_eq!(usage["type"], "usage");
                part.iter()
                    .filter_map(|line| line["text"].as_str())
                    .collect()
            })
            .collect()
    };
    let three = answers(&ask(&["-n", "3", "--seed", "5"]));
    assert_eq!(three.len(), 3);
    for (answer, seed) in three.iter().zip(["5", "6", "7"]) {
        assert_eq!(answers(&ask(&["--seed", seed])), [answer.as_str()]);
    }
    assert_ne!(three[0], three[1]);
}

#[test]
fn lines_of_input_are_turns() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    let arguments = [
        "chat",
        "--model",
        &pack,
        "--device",
        "cpu",
        "--max-new-tokens",
        "3",
        "--json",
    ];
    let input = format!(
        "the dog\n/image {}\nwhat is this ?\n/reset\nthe dog\n/quit\nnever\n",
        cat()
    );
    let said = emu_with_input(&arguments, &input);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let lines: Vec<serde_json::Value> = said
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let told = |name: &str| -> Vec<u64> {
        { lines.iter() }
            .filter(|line| line["type"] == "usage")
            .filter_map(|line| line[name].as_u64())
            .collect()
    };
    let prompts = told("prompt_tokens");
    assert_eq!(prompts.len(), 3, "{}", said.out);
    // The second turn includes the first and a picture. A reset clears both.
    assert!(
        prompts[1] > prompts[0] + 6 && prompts[2] == prompts[0],
        "{prompts:?}"
    );
    // What a turn shares with the one before is not computed again.
    let (cached, computed) = (told("cached_tokens"), told("prefill_tokens"));
    assert!(
        cached[0] == 0 && cached[1] > 0 && cached[2] > 0,
        "{cached:?}"
    );
    let all: Vec<u64> = { cached.iter().zip(&computed) }
        .map(|(a, b)| a + b)
        .collect();
    assert_eq!(all, prompts);
}

#[test]
fn a_video_is_a_folder_of_frames_or_an_animation() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    let base = [
        "chat",
        "--model",
        &pack,
        "--device",
        "cpu",
        "--max-new-tokens",
        "2",
        "--json",
    ];
    let animation = text(&fixtures().join("../images/animation.gif"));
    let frames = folder.path().join("frames");
    std::fs::create_dir(&frames).expect("a folder");
    for name in ["a.png", "b.png"] {
        let picture = fixtures().join("images/cat-crop-133x90.png");
        std::fs::write(
            frames.join(name),
            std::fs::read(picture).expect("a picture"),
        )
        .expect("written");
    }
    for video in [animation, text(&frames)] {
        let mut arguments = base.to_vec();
        arguments.extend(["--video", &video, "what happens ?"]);
        let lines = json_of(&arguments);
        let usage = lines.last().expect("a line");
        // Eight frames of four embeddings, each between two marks.
        assert!(
            usage["prompt_tokens"].as_u64().is_some_and(|n| n > 8 * 6),
            "{usage}"
        );
    }
}

#[test]
fn drawings_follow_the_seed() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = drawing_pack(folder.path());
    let (out, previews) = (
        text(&folder.path().join("a.png")),
        text(&folder.path().join("previews")),
    );
    let draw = |more: &[&str]| {
        let mut arguments = vec![
            "imagine", "--model", &pack, "--device", "cpu", "-o", &out, "--json",
        ];
        arguments.extend(more);
        let lines = json_of(&arguments);
        assert_eq!(lines.len(), 1);
        assert!(lines[0]["flagged"].is_null(), "{}", lines[0]);
        (std::fs::read(&out).expect("a picture"), lines[0].clone())
    };
    let (first, line) = draw(&["a red fish"]);
    assert_eq!(
        (line["width"].as_u64(), line["height"].as_u64()),
        (Some(16), Some(16))
    );
    assert_eq!(draw(&["a red fish"]).0, first);
    assert_ne!(draw(&["--seed", "1", "a red fish"]).0, first);
    assert_ne!(draw(&["--negative", "the sea", "a red fish"]).0, first);
    let cat = cat();
    let (_, line) = draw(&[
        "--image",
        &cat,
        "--size",
        "32x16",
        "--guidance",
        "1",
        "<image>",
    ]);
    assert_eq!(
        (line["width"].as_u64(), line["height"].as_u64()),
        (Some(32), Some(16))
    );
    for scheduler in ["pndm", "ddim", "dpm++"] {
        draw(&[
            "--scheduler",
            scheduler,
            "--steps",
            "4",
            "--previews",
            &previews,
            "a dog",
        ]);
    }
    let shown = std::fs::read_dir(&previews).expect("a folder").count();
    assert!(shown >= 4, "{shown}");
}

#[test]
fn several_drawings_are_those_of_their_seeds() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = drawing_pack(folder.path());
    let at = |name: &str| text(&folder.path().join(name));
    let (out, previews) = (at("a.png"), at("previews"));
    let draw = |more: &[&str]| {
        let mut arguments = vec!["imagine", "--model", &pack, "--device", "cpu", "--json"];
        arguments.extend(["--negative", "the sea", "-o", &out]);
        arguments.extend(more);
        arguments.push("a red fish");
        json_of(&arguments)
    };
    let several = draw(&["--seed", "5", "--count", "3", "--previews", &previews]);
    assert!(!std::path::Path::new(&out).exists());
    assert_eq!(several.len(), 3);
    for (number, line) in (1..).zip(&several) {
        let seed = (4 + number).to_string();
        assert_eq!(line["seed"], 4 + number);
        let path = at(&format!("a-{number:04}.png"));
        assert_eq!(line["image"], path.as_str());
        assert_eq!(draw(&["--seed", &seed]).len(), 1);
        let read = |path: &str| std::fs::read(path).expect("a picture");
        assert!(read(&path) == read(&out), "{seed}");
        let shown = std::fs::read_dir(at(&format!("previews/{number:04}")));
        assert!(shown.expect("a folder").count() >= 3);
    }
    let last = u64::MAX.to_string();
    fails(
        &[
            "imagine", "--model", &pack, "-o", &out, "--seed", &last, "--count", "2", "a fish",
        ],
        &["no 2 seeds", "--seed"],
    );
    let none = emu(&["imagine", "-o", &out, "--count", "0", "a fish"]);
    assert_eq!(none.code, Some(2));
}

#[test]
fn every_kind_of_checkpoint_converts_and_agrees() {
    let folder = tempfile::tempdir().expect("a folder");
    for (file, quantize) in [
        ("tiny-emu.safetensors", "none"),
        ("tiny-emu.pt", "none"),
        ("tiny-emu-bf16mixed.pt", "none"),
        ("tiny-emu-instruct.pt", "f16"),
        ("tiny-emu-instruct.safetensors", "q8"),
    ] {
        let (source, out) = (
            text(&fixtures().join(file)),
            text(&folder.path().join(file)),
        );
        let line = &json_of(&[
            "convert",
            &source,
            "-o",
            &out,
            "--quantize",
            quantize,
            "--no-decoder",
            "--max-shard",
            "256KiB",
            "--json",
        ])[0];
        assert!(line["shards"].as_u64().is_some_and(|n| n > 2), "{line}");
        let inspected = &json_of(&["inspect", &out, "--device", "cpu", "--verify", "--json"])[0];
        assert_eq!(inspected["runs"], true, "{inspected}");
        assert_eq!(
            inspected["model"]["adapter"].is_u64(),
            file.contains("instruct"),
            "{inspected}"
        );
        let parity = emu(&["parity", &out, "--against", &source, "--device", "cpu"]);
        assert_eq!(parity.code, Some(0), "{file}: {}", parity.out);
        let chat = emu(&[
            "chat",
            "--model",
            &out,
            "--device",
            "cpu",
            "--max-new-tokens",
            "2",
            "the dog",
        ]);
        assert_eq!(chat.code, Some(0), "{}", chat.err);
    }
}

#[test]
fn parity_ends_with_1_where_a_number_is_off() {
    let good = emu(&["parity", &text(&fixtures()), "--device", "cpu", "--json"]);
    assert_eq!(good.code, Some(0), "{}", good.err);
    let last = good.out.lines().last().expect("a line");
    let last: serde_json::Value = serde_json::from_str(last).expect("JSON");
    assert!(
        last["compared"].as_u64().is_some_and(|n| n > 300) && last["failed"] == 0,
        "{last}"
    );

    let folder = tempfile::tempdir().expect("a folder");
    copy(&fixtures(), folder.path());
    let golden = folder.path().join("tiny-emu-golden.json");
    let bytes = std::fs::read(&golden).expect("a file");
    let mut json: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    json["generate"]["greedy"]["text"][0] = "something else".into();
    std::fs::write(&golden, json.to_string()).expect("written");
    let wrong = emu(&["parity", &text(folder.path()), "--device", "cpu"]);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.out.contains("FAIL gen.greedy.text"), "{}", wrong.out);
    assert!(wrong.err.contains("1 of"), "{}", wrong.err);

    let empty = tempfile::tempdir().expect("a folder");
    fails(
        &["parity", &text(empty.path()), "--device", "cpu"],
        &["laid out like"],
    );
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            std::fs::create_dir(&target).expect("a folder");
            copy(&path, &target);
        } else {
            std::fs::write(target, std::fs::read(&path).expect("a file")).expect("written");
        }
    }
}

#[test]
fn previews_are_blurred_where_there_is_a_checker() {
    use emu_media::image::{Limits, RgbImage, decode};

    let folder = tempfile::tempdir().expect("a folder");
    let previews = |pack: &str, name: &str| -> Vec<RgbImage> {
        let to = folder.path().join(name);
        let (to, out) = (text(&to), text(&folder.path().join("a.png")));
        let said = emu(&[
            "imagine",
            "--model",
            pack,
            "--device",
            "cpu",
            "--seed",
            "5",
            "--steps",
            "2",
            "--scheduler",
            "ddim",
            "--previews",
            &to,
            "-o",
            &out,
            "the dog",
        ]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        let read = |step: usize| {
            let bytes = std::fs::read(format!("{to}/step-{step:03}.png")).expect("a preview");
            decode(&bytes, &Limits::default()).expect("a picture")
        };
        vec![read(1), read(2)]
    };
    let clear = previews(&drawing_pack(folder.path()), "clear");
    let blurred = previews(&checking_pack(folder.path()), "blurred");
    assert_ne!(clear, blurred);
    let expected: Vec<RgbImage> = clear.iter().map(emu_model::safety::blur).collect();
    assert_eq!(expected, blurred);
}

#[test]
fn a_dry_run_says_what_a_run_needs() {
    let configs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/train");
    let config = |name: &str| text(&configs.join(name));
    let pretrain = config("paper/pretrain.toml");
    let line = &json_of(&[
        "train",
        &pretrain,
        "--dry-run",
        "--memory",
        "80GB",
        "--json",
    ])[0];
    assert_eq!(line["samples_per_step"], 352.0);
    assert_eq!(line["fits"], false);
    // 14.2 G parameters of 4 bytes, gradients of as many, and two moments
    let held = line["resident_bytes"].as_f64().expect("bytes");
    assert!((held / 227e9 - 1.0).abs() < 0.01, "{held}");
    let batches = line["batches"].as_array().expect("data sets");
    assert_eq!(batches.len(), 5);
    assert!(
        batches
            .iter()
            .all(|batch| batch["fitting_samples"].is_null())
    );

    let said = emu(&[
        "train",
        &config("paper/instruct.toml"),
        "--dry-run",
        "--memory",
        "80GB",
    ]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    for words in [
        "lora",
        "lm.layers",
        "26214400",
        "peak",
        "It does not fit",
        "accumulate",
    ] {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
    fails(
        &["train", &config("vae.toml"), "--dry-run"],
        &["stage", "--check"],
    );
}

#[test]
fn adapters_need_a_pack_that_they_fit() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    let out = text(&folder.path().join("out"));
    fails(
        &["convert", &pack, "-o", &out, "--merge"],
        &["no adapters to merge", "--adapter"],
    );
    let nowhere = text(&folder.path().join("nowhere"));
    fails(
        &["convert", &pack, "-o", &out, "--adapter", &nowhere],
        &["nowhere"],
    );
    // A source that is not there is no checkpoint to be converted first.
    fails(
        &["convert", &nowhere, "-o", &out, "--merge"],
        &["There is nothing at"],
    );
    fails(
        &["convert", &nowhere, "-o", &out, "--adapter", &pack],
        &["There is nothing at"],
    );
    let reference = text(&fixtures());
    let arguments = ["convert", &reference, "-o", &out, "--no-decoder"];
    fails(
        &[&arguments[..], &["--adapter", &pack]].concat(),
        &["needs a pack"],
    );
    fails(
        &[&arguments[..], &["--merge"]].concat(),
        &["Convert the checkpoint"],
    );
    assert!(!folder.path().join("out").exists());
}

/// A pack with adapters and the pack in which they are merged say the same.
#[test]
fn merged_adapters_change_nothing_but_the_speed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (apart, merged) = (
        text(&folder.path().join("apart")),
        text(&folder.path().join("merged")),
    );
    let source = text(&fixtures().join("tiny-emu-instruct.safetensors"));
    let said = emu(&["convert", &source, "-o", &apart, "--no-decoder"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let said = emu(&["convert", &apart, "-o", &merged, "--merge"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let lora = |pack: &str| {
        let manifest = std::fs::read_to_string(format!("{pack}/emu.json")).expect("a manifest");
        manifest.contains(".lora.")
    };
    assert!(lora(&apart) && !lora(&merged));
    let answer = |pack: &str| {
        let cat = cat();
        let arguments = [
            "chat",
            "--model",
            pack,
            "--device",
            "cpu",
            "--max-new-tokens",
            "8",
            "--image",
            &cat,
            "what is this?",
        ];
        let said = emu(&arguments);
        assert_eq!(said.code, Some(0), "{}", said.err);
        said.out
    };
    assert_eq!(answer(&apart), answer(&merged));
}

#[test]
fn what_is_published_is_a_pack_with_a_card_and_a_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let (nameless, pack, out) = (
        tiny_pack(folder.path()),
        text(&at("own")),
        text(&at("public/own")),
    );
    fails(
        &["publish", &nameless, "-o", &out],
        &["licence", "--license"],
    );
    let said = emu(&[
        "convert",
        &nameless,
        "-o",
        &pack,
        "--name",
        "own",
        "--license",
        "CC-BY-4.0",
    ]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    fails(
        &["publish", &pack, "-o", &out, "--page", &pack],
        &["no index.html", "xtask demo"],
    );
    assert!(!at("public/own").exists());

    for (file, words) in [
        (
            "site/index.html",
            "<html lang=\"en\"><script src=\"dist/main.js\"></script></html>",
        ),
        ("site/dist/main.js", "script"),
        ("site/_headers", "headers"),
        ("site/emu-webgpu-mini/pack/emu.json", "another pack"),
    ] {
        std::fs::create_dir_all(at(file).parent().expect("a folder")).expect("a folder");
        std::fs::write(at(file), words).expect("written");
    }
    let site = text(&at("site"));
    let line = &json_of(&["publish", &pack, "-o", &out, "--page", &site, "--json"])[0];
    assert_eq!(
        (&line["name"], &line["license"]),
        (&"own".into(), &"CC-BY-4.0".into())
    );
    let read = |name: &str| {
        let path = at("public/own").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let card = read("README.md");
    assert!(
        card.starts_with("---\nlicense: cc-by-4.0\n") && card.contains("\n# own\n"),
        "{card}"
    );
    assert!(read("index.html").contains("page.html?model=./"));
    assert!(read("page.html").contains("data-models=\"none\""));
    assert!(read(".gitattributes").contains("safetensors"));
    assert_eq!(
        (read("dist/main.js"), read("_headers")),
        ("script".into(), "headers".into())
    );
    assert!(!at("public/own/emu-webgpu-mini").exists());
    let inspected = &json_of(&["inspect", &out, "--device", "cpu", "--verify", "--json"])[0];
    assert_eq!(inspected["verified"], true, "{inspected}");
    fails(&["publish", &pack, "-o", &out], &["exists already"]);

    // A damaged pack is not published.
    let tokenizer = at("own/tokenizer.json");
    let mut bytes = std::fs::read(&tokenizer).expect("a file");
    bytes[10] ^= 1;
    std::fs::write(&tokenizer, bytes).expect("written");
    fails(
        &["publish", &pack, "-o", &text(&at("other"))],
        &["tokenizer.json"],
    );
}

#[test]
fn a_run_is_reported_in_one_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |name: &str, losses: &[f64]| {
        let run = folder.path().join(name);
        std::fs::create_dir(&run).expect("a folder");
        let lines = losses.iter().enumerate();
        let lines: String = lines
            .map(|(step, loss)| format!("{{\"step\":{step},\"loss\":{loss},\"seconds\":{step}}}\n"))
            .collect();
        std::fs::write(run.join("metrics.jsonl"), lines).expect("written");
        text(&run)
    };
    let (one, two) = (run("one", &[3.5, 1.25]), run("two", &[2.75]));
    let page = folder.path().join("page.html");
    let out = text(&page);
    let said = emu(&["report", &one, &two, "-o", &out]);
    assert_eq!(
        (said.code, said.out.trim()),
        (Some(0), &*out),
        "{}",
        said.err
    );
    let html = std::fs::read_to_string(&page).expect("a page");
    assert!(
        html.contains("1.25 <small>at 1</small>") && html.contains("2.75"),
        "{html}"
    );

    std::fs::remove_file(&page).expect("removed");
    let nothing = text(&folder.path().join("none"));
    fails(
        &["report", &one, &nothing, "-o", &out],
        &["metrics.jsonl", "Name the folder"],
    );
    let nowhere = text(&folder.path().join("none/page.html"));
    fails(&["report", &one, "-o", &nowhere], &["cannot be written"]);
    let left = std::fs::read_dir(folder.path()).expect("a folder");
    assert_eq!(left.count(), 2, "only the runs are left");
}
