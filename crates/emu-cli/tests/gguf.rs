//! `emu chat` with a language model alone: a small one with random weights, written here as GGUF.

mod common;

use std::path::PathBuf;

use common::gguf::{Gguf, TEMPLATE, model};
use common::{cat, emu, emu_with_input, fails, json_of};
use serde_json::Value;
use tempfile::TempDir;

fn written(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, bytes).expect("written");
    (folder, path)
}

#[test]
fn it_answers_and_tells_what_that_took() {
    let (_folder, path) = written(&model(Some(TEMPLATE)));
    let path = path.to_str().expect("a path");
    let base = ["chat", "--device", "cpu", "--model", path];
    let ask =
        |more: &[&str]| json_of(&[&base[..], &["--json", "--max-new-tokens", "9"], more].concat());
    let texts = |lines: &[Value]| -> String {
        let texts = lines.iter().filter(|line| line["type"] == "text");
        texts.filter_map(|line| line["text"].as_str()).collect()
    };
    let lines = ask(&["hi"]);
    let usage = lines.last().expect("a line");
    assert_eq!(usage["type"], "usage");
    // Mark, "user", line break, "hi", mark, line break; mark, "assistant", line break.
    assert_eq!(usage["prompt_tokens"], 1 + 5 + 2 + 2 + 1 + 10);
    assert!((1..=9).contains(&usage["tokens"].as_u64().expect("a number")));
    let (first, all) = (&usage["first_token_seconds"], &usage["seconds"]);
    assert!(first.as_f64() <= all.as_f64() && first.as_f64() > Some(0.0));
    assert!(usage["prefill_tokens_per_second"].as_f64() > Some(0.0));
    assert_eq!(usage["cached_tokens"], 0);
    assert_eq!(usage["prefill_tokens"], 21);

    // Human-readable output is the same answer. Another word, system message or seed changes the answer.
    let plain = emu(&[&base[..], &["--max-new-tokens", "9", "hi"]].concat());
    assert_eq!(plain.out, texts(&lines) + "\n", "{}", plain.err);
    assert_ne!(texts(&ask(&["ho"])), texts(&lines));
    let told = ask(&["--system", "Be kind", "hi"]);
    let more = told.last().expect("a line")["prompt_tokens"].as_u64();
    assert_eq!(more, Some(21 + 1 + 7 + 7 + 2));
    let drawn = |seed| texts(&ask(&["--temperature", "2", "--seed", seed, "hi"]));
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(drawn("1"), drawn("2"));
    assert!(!texts(&ask(&["--beams", "2", "hi"])).is_empty());
}

#[test]
fn conversations_go_on_and_are_forgotten() {
    let (_folder, path) = written(&model(Some(TEMPLATE)));
    let path = path.to_str().expect("a path");
    let base = [
        "chat",
        "--device",
        "cpu",
        "--model",
        path,
        "--json",
        "--max-new-tokens",
        "3",
    ];
    let said = emu_with_input(&base, "hi\nho\n/reset\nhi\n");
    assert_eq!(said.code, Some(0), "{}", said.err);
    let lines = said
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    let usage: Vec<Value> = lines
        .filter(|line: &Value| line["type"] == "usage")
        .collect();
    let tokens: Vec<_> = usage
        .iter()
        .map(|u| u["prompt_tokens"].as_u64().expect("a number"))
        .collect();
    assert_eq!(tokens.len(), 3);
    assert!(
        tokens[1] > tokens[0] && tokens[2] == tokens[0],
        "{tokens:?}"
    );
    let said = emu_with_input(&base, "/image none.png\nhi\n");
    assert!(
        said.code != Some(0) && said.err.contains("sees no pictures"),
        "{}",
        said.err
    );
}

#[test]
fn no_first_token_is_needed() {
    let mut whole = model(Some(TEMPLATE));
    let name = b"tokenizer.ggml.bos_token_id";
    let at = whole.windows(name.len()).position(|window| window == name);
    let at = at.expect("it is there");
    whole[at + 15..at + 18].copy_from_slice(b"xyz");
    let (_folder, path) = written(&whole);
    let path = path.to_str().expect("a path");
    let base = [
        "chat",
        "--device",
        "cpu",
        "--model",
        path,
        "--max-new-tokens",
        "4",
    ];
    for more in [
        &["--repetition-penalty", "1.2", "hi"][..],
        &["--beams", "2", "hi"],
    ] {
        let said = emu(&[&base[..], more].concat());
        assert_eq!(said.code, Some(0), "{}", said.err);
    }
}

#[test]
fn parts_are_read_together_or_named() {
    let part = |number: u16| {
        let mut file = Gguf::default();
        file.key("split.no", 2).extend(number.to_le_bytes());
        file.key("split.count", 2).extend(2u16.to_le_bytes());
        file.bytes()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let at = |number: u16| {
        folder
            .path()
            .join(format!("m-{:05}-of-00002.gguf", number + 1))
    };
    std::fs::write(at(0), part(0)).expect("written");
    let path = at(0);
    let path = path.to_str().expect("a path");
    let base = ["chat", "--device", "cpu", "--model", path, "hi"];
    fails(&base, &["part 1 of 2", "m-00002-of-00002.gguf"]);
    // Both shards exist, so the error is what they lack.
    std::fs::write(at(1), part(1)).expect("written");
    fails(&base, &["general.architecture"]);
}

#[test]
fn what_it_cannot_do_is_said() {
    let (folder, path) = written(&model(Some(TEMPLATE)));
    let path = path.to_str().expect("a path");
    let chat = ["chat", "--device", "cpu", "--model", path];
    for option in ["--image", "--video", "--out"] {
        fails(
            &[&chat[..], &[option, "x.png", "hi"]].concat(),
            &["language model alone", option],
        );
    }
    fails(
        &["caption", "--model", path, &cat()],
        &["language model alone", "pack"],
    );
    fails(&["inspect", path], &["language model alone"]);
    let out = folder.path().join("never");
    let out = out.to_str().expect("a path");
    fails(
        &["convert", path, "-o", out],
        &["language model alone", "emu chat --model"],
    );
    let long = "many words ".repeat(20);
    fails(&[&chat[..], &[&long]].concat(), &["context of 96"]);

    let (_folder, path) = written(&model(None));
    let path = path.to_str().expect("a path");
    fails(
        &["chat", "--device", "cpu", "--model", path, "hi"],
        &["chat template"],
    );
}

#[test]
fn damaged_files_are_told_apart() {
    let whole = model(Some(TEMPLATE));
    let short = whole[..whole.len() - 1].to_vec();
    let find = |name: &str| {
        let at = whole
            .windows(name.len())
            .position(|window| window == name.as_bytes());
        at.expect("it is there")
    };
    let replaced = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    // The type follows the name, the number of dimensions and one or two sizes.
    let up = find("blk.1.ffn_up.weight");
    let quantized = replaced(up + "blk.1.ffn_up.weight".len() + 4 + 16, &[16, 0, 0, 0]);
    let not_finite = replaced(whole.len() - 4, &f32::NAN.to_le_bytes());
    for (bytes, words) in [
        (short, &["bytes long"][..]),
        (quantized, &["IQ2_XXS", "blk.1.ffn_up.weight"]),
        (not_finite, &["NaN", "norm.weight"]),
        (
            replaced(up + 11, b"xx"),
            &["1 missing (blk.1.ffn_up.weight)"],
        ),
        (replaced(find("llama"), b"gemma"), &["architecture gemma"]),
        // More heads than width: the head size would be 0.
        (
            replaced(
                find("head_count") + "head_count".len() + 4,
                &64u32.to_le_bytes(),
            ),
            &["head_count", "width of 32"],
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n".to_vec(),
            &["Git LFS pointer", "git lfs pull"],
        ),
        (b"<!DOCTYPE html><html></html>".to_vec(), &["web page"]),
    ] {
        let (_folder, path) = written(&bytes);
        let path = path.to_str().expect("a path");
        fails(&["chat", "--device", "cpu", "--model", path, "hi"], words);
    }
}
