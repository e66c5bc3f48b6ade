//! Invalid input: one sentence says what is wrong, one says what to do; exit code 1, no partial output.

mod common;

use std::path::Path;

use common::{cat, drawing_pack, emu, fails, fixtures, text, tiny_pack};
use emu_pack::{SafetensorsFile, TensorData, TensorSource, write_safetensors};

/// A copy of the tiny model's fixtures, to be corrupted.
fn source(folder: &Path) -> std::path::PathBuf {
    let to = folder.join("source");
    std::fs::create_dir_all(to.join("tiny-llama")).expect("a folder");
    for file in [
        "tiny-emu.safetensors",
        "tiny-emu.pt",
        "tiny-emu-config.json",
        "tiny-llama/config.json",
        "tiny-llama/tokenizer.model",
    ] {
        std::fs::write(
            to.join(file),
            std::fs::read(fixtures().join(file)).expect("a file"),
        )
        .expect("written");
    }
    to
}

fn convert_fails(source: &Path, folder: &Path, words: &[&str]) {
    let out = folder.join("never");
    fails(&["convert", &text(source), "-o", &text(&out)], words);
    assert!(!out.exists(), "a broken pack was left");
}

fn change(path: &Path, f: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("a file");
    f(&mut bytes);
    std::fs::write(path, bytes).expect("written");
}

fn rewrite(path: &Path, f: impl FnOnce(&mut Vec<TensorData>)) {
    let source = SafetensorsFile::open(path).expect("a safetensors file");
    let infos = source.tensors().iter();
    let mut tensors: Vec<_> = infos
        .map(|info| source.read(&info.name).expect("a tensor"))
        .collect();
    f(&mut tensors);
    let mut file = std::fs::File::create(path).expect("a file");
    write_safetensors(&mut file, &tensors).expect("written");
}

#[test]
fn truncated_and_corrupt_checkpoints() {
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["tiny-emu.safetensors", "tiny-emu.pt"] {
        let source = source(folder.path());
        let path = source.join(file);
        let whole = std::fs::read(&path).expect("a file");
        change(&path, |bytes| bytes.truncate(whole.len() / 2));
        convert_fails(&path, folder.path(), &[file]);
        std::fs::write(&path, b"").expect("written");
        convert_fails(&path, folder.path(), &[file]);
        std::fs::write(&path, b"this is no checkpoint at all, and never was").expect("written");
        convert_fails(&path, folder.path(), &[file]);
    }
    // One flipped byte in a PyTorch file: its archive has checksums.
    let path = source(folder.path()).join("tiny-emu.pt");
    change(&path, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
    });
    convert_fails(&path, folder.path(), &["tiny-emu.pt"]);
}

#[test]
fn weights_that_are_not_the_configurations() {
    let folder = tempfile::tempdir().expect("a folder");
    let weights = "tiny-emu.safetensors";

    let path = source(folder.path()).join(weights);
    rewrite(&path, |tensors| {
        tensors
            .push(TensorData::from_f32("visual.extra.weight", vec![1], &[1.0]).expect("a tensor"));
    });
    convert_fails(&path, folder.path(), &["visual.extra.weight", weights]);

    let path = source(folder.path()).join(weights);
    rewrite(&path, |tensors| {
        tensors.retain(|t| t.info.name != "ln_visual.bias")
    });
    convert_fails(&path, folder.path(), &["ln_visual.bias"]);

    let path = source(folder.path()).join(weights);
    rewrite(&path, |tensors| {
        tensors[0].bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    convert_fails(&path, folder.path(), &["NaN"]);

    let path = source(folder.path()).join(weights);
    let config = path.with_file_name("tiny-emu-config.json");
    let edit = |from: &str, to: &str| {
        let text = std::fs::read_to_string(fixtures().join("tiny-emu-config.json")).expect("JSON");
        assert!(text.contains(from), "{from}");
        std::fs::write(&config, text.replacen(from, to, 1)).expect("written");
    };
    edit("\"width\": 64", "\"width\": 80");
    convert_fails(&path, folder.path(), &["does not fit its configuration"]);
    edit("\"width\": 64", "\"width\": \"wide\"");
    convert_fails(&path, folder.path(), &["width"]);
    edit("\"layers\": 2", "\"layers\": 3");
    convert_fails(&path, folder.path(), &["blocks.2"]);
    std::fs::write(&config, "{").expect("written");
    convert_fails(&path, folder.path(), &["tiny-emu-config.json", "JSON"]);
}

#[test]
fn packs_that_are_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    let run = |words: &[&str]| {
        fails(
            &["chat", "--model", &pack, "--device", "cpu", "hello"],
            words,
        );
    };
    let file = |name: &str| Path::new(&pack).join(name);
    let shard = "lm-00001-of-00001.safetensors";
    let manifest = std::fs::read(file("emu.json")).expect("a manifest");
    let whole = std::fs::read(file(shard)).expect("a shard");

    change(&file(shard), |bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    });
    run(&[shard]);
    std::fs::write(file(shard), &whole[..whole.len() - 8]).expect("written");
    run(&[shard]);
    std::fs::remove_file(file(shard)).expect("removed");
    run(&[shard]);
    std::fs::write(file(shard), &whole).expect("written");

    let json = String::from_utf8(manifest.clone()).expect("JSON");
    std::fs::write(
        file("emu.json"),
        json.replacen("\"format\": 1", "\"format\": 9", 1),
    )
    .expect("written");
    run(&["emu.json", "9"]);
    std::fs::write(
        file("emu.json"),
        json.replacen("\"causal\"", "\"casual\"", 1),
    )
    .expect("written");
    run(&["casual"]);
    std::fs::write(file("emu.json"), "{}").expect("written");
    run(&["emu.json"]);
    std::fs::write(file("emu.json"), manifest).expect("written");
    assert_eq!(
        emu(&["inspect", &pack, "--verify", "--device", "cpu"]).code,
        Some(0)
    );

    fails(
        &["chat", "--model", "no-such-pack", "hello"],
        &["no-such-pack"],
    );
}

#[test]
fn pictures_and_videos_that_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    let at = |name: &str| text(&folder.path().join(name));
    let caption = |path: &str, words: &[&str]| {
        fails(
            &["caption", "--model", &pack, "--device", "cpu", path],
            words,
        );
    };
    std::fs::write(at("text.png"), "no picture").expect("written");
    caption(&at("text.png"), &["text.png"]);
    std::fs::write(
        at("short.jpg"),
        &std::fs::read(cat()).expect("a picture")[..900],
    )
    .expect("written");
    caption(&at("short.jpg"), &["short.jpg"]);
    caption(&at("absent.png"), &["absent.png"]);
    std::fs::write(at("bomb.png"), bomb()).expect("written");
    caption(&at("bomb.png"), &["bomb.png", "60000"]);

    let chat = |video: &str, words: &[&str]| {
        fails(
            &[
                "chat", "--model", &pack, "--device", "cpu", "--video", video, "hm ?",
            ],
            words,
        );
    };
    std::fs::create_dir(at("empty")).expect("a folder");
    chat(&at("empty"), &["no frames"]);
    std::fs::write(at("film.mp4"), b"\0\0\0\x18ftypisom\0\0\0\0isom").expect("written");
    chat(&at("film.mp4"), &["film.mp4"]);
    chat(&at("text.png"), &["text.png"]);
}

/// A PNG whose header claims 60000 x 60000 pixels.
fn bomb() -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = b"IHDR".to_vec();
    header.extend(60000u32.to_be_bytes());
    header.extend(60000u32.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    png.extend(13u32.to_be_bytes());
    png.extend(&header);
    png.extend(crc(&header).to_be_bytes());
    // Only part of the pixel data follows, which shows only to a reader that decodes it.
    png.extend(1000u32.to_be_bytes());
    png.extend(b"IDAT");
    png.extend([0; 100]);
    png
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn prompts_that_do_not_fit() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    let chat = |more: &[&str], words: &[&str]| {
        let mut arguments = vec!["chat", "--model", &pack, "--device", "cpu"];
        arguments.extend(more);
        fails(&arguments, words);
    };
    let long = "the dog ".repeat(2000);
    chat(&[&long], &["the context holds 2048"]);
    let cat = cat();
    chat(&["what is <image> ?"], &["1 <image> mark but", "--image"]);
    chat(
        &["--image", &cat, "--image", &cat, "<image>"],
        &["1 <image> mark but", "2 times"],
    );
    chat(&["--top-p", "0", "hi"], &["top-p"]);
    chat(&["--temperature", "-1", "hi"], &["temperature"]);
    chat(&["--beams", "5000", "hi"], &["beams"]);
    chat(
        &["--beams", "2", "--presence-penalty", "1", "hi"],
        &["presence-penalty", "beam search"],
    );
    chat(
        &["--image", &cat, "<image> <image>"],
        &["2 <image> marks but", "1 time."],
    );
    for sampling in [
        ["--temperature", "0.5"],
        ["--top-k", "3"],
        ["--top-p", "0.9"],
        ["--min-p", "0.1"],
    ] {
        let searched = [&["--beams", "2", "hi"][..], &sampling].concat();
        chat(&searched, &["beam search", sampling[0]]);
    }
    chat(&["--beams", "2", "-n", "2", "hi"], &["-n"]);
    chat(
        &["--logit-bias", "4000000=1", "hi"],
        &["logit-bias", "4000000", "vocabulary"],
    );
    chat(&["--json", "--logprobs", "21", "hi"], &["top-logprobs"]);
    let searched = ["--json", "--beams", "2", "--logprobs", "1", "hi"];
    chat(&searched, &["--logprobs", "beam search"]);
    chat(&["--out", &text(folder.path()), "hi"], &["no decoder"]);
    for (option, values) in [
        ("temperature", &["nan", "inf", "-1", "1e-30", "1e9"][..]),
        ("top-p", &["nan", "0", "-0.5", "1.5"]),
        ("min-p", &["nan", "-0.1", "1.5"]),
        ("repetition-penalty", &["nan", "0", "-1", "inf", "1e-30"]),
        ("presence-penalty", &["nan", "-2.5", "3"]),
        ("frequency-penalty", &["inf", "-2.5", "3"]),
        ("logit-bias", &["5=nan", "5=101", "5=-inf"]),
        ("stop", &[""]),
        ("length-penalty", &["nan", "inf", "-inf", "100"]),
        ("beams", &["33", "18446744073709551615"]),
    ] {
        for value in values {
            let argument = format!("--{option}={value}");
            chat(&[&argument, "hi"], &[option]);
            // Fails before a model is looked up.
            fails(&["chat", "--model", "none", &argument, "hi"], &[option]);
            fails(&["caption", "--model", "none", &argument, &cat], &[option]);
        }
    }
    fails(
        &[
            "imagine",
            "--model",
            &pack,
            "--device",
            "cpu",
            "-o",
            &text(&folder.path().join("a.png")),
            "a dog",
        ],
        &["no decoder"],
    );
}

#[test]
fn drawings_that_cannot_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = drawing_pack(folder.path());
    let out = text(&folder.path().join("a.png"));
    let draw = |out: &str, more: &[&str], words: &[&str]| {
        let mut arguments = vec!["imagine", "--model", &pack, "--device", "cpu", "-o", out];
        arguments.extend(more);
        fails(&arguments, words);
    };
    draw(&out, &["--size", "17x16", "a dog"], &["17x16", "multiples"]);
    draw(&out, &["--size", "0x0", "a dog"], &["0x0"]);
    draw(&out, &["--size", "65536x65536", "a dog"], &["65536"]);
    draw(&out, &["--guidance", "nan", "a dog"], &["guidance"]);
    draw(&out, &["--guidance=-1", "a dog"], &["guidance"]);
    draw(&out, &["--guidance", "1e9", "a dog"], &["guidance"]);
    draw(&out, &["--steps", "100000", "a dog"], &["steps"]);
    let nowhere = text(&folder.path().join("no/such/folder/a.png"));
    draw(&nowhere, &["a dog"], &["There is no folder"]);
    draw(&text(folder.path()), &["a dog"], &["is a folder"]);
    assert!(!Path::new(&out).exists());
}

#[test]
fn arguments_that_are_not_known() {
    for arguments in [
        &["chat", "--colour", "red", "hi"][..],
        &["paint"],
        &["caption"],
        &["chat", "--beams", "0", "hi"],
        &["chat", "--device", "abacus", "hi"],
        &["chat", "--device", "", "hi"],
        &["chat", "--max-new-tokens", "0", "hi"],
        &["chat", "--seed", "-1", "hi"],
        &["chat", "--top-k", "-1", "hi"],
        &["chat", "--threads", "0", "hi"],
        &["imagine", "-o", "a.png", "--steps", "0", "a dog"],
        &["imagine", "a dog"],
        &["convert", "x", "-o", "y", "--max-shard", "big"],
    ] {
        let said = emu(arguments);
        assert_eq!(said.code, Some(2), "{arguments:?} {}", said.err);
        assert!(said.err.contains("error:"), "{}", said.err);
    }
    fails(&["convert", "no-such-file", "-o", "y"], &["no-such-file"]);
    fails(
        &["convert", &text(&fixtures()), "-o", "y", "--quantize", "q5"],
        &["q5"],
    );
    fails(&["train", "no-such-stage.toml"], &["no-such-stage.toml"]);
    assert_eq!(emu(&["--help"]).code, Some(0));
    assert_eq!(emu(&["--version"]).code, Some(0));
}

#[test]
fn measuring_needs_data_and_a_task() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    let data = text(folder.path());
    let eval = |task| {
        [
            "eval", "--model", &pack, "--device", "cpu", task, "--data", &data,
        ]
    };
    fails(&eval("caption"), &[&data]);
    assert_eq!(emu(&eval("sing")).code, Some(2));
}
