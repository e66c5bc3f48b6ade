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
    let prompts: Vec<u64> = lines
        .iter()
        .filter(|line| line["type"] == "usage")
        .filter_map(|line| line["prompt_tokens"].as_u64())
        .collect();
    assert_eq!(prompts.len(), 3, "{}", said.out);
    // The second turn includes the first and a picture. A reset clears both.
    assert!(
        prompts[1] > prompts[0] + 6 && prompts[2] == prompts[0],
        "{prompts:?}"
    );
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
    use emu_model::image::{Limits, RgbImage, decode};

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
