//! `emu chat` with a language model alone: a small one of random weights, written here as GGUF.

mod common;

use std::path::PathBuf;

use common::{cat, emu, emu_with_input, fails, json_of};
use serde_json::Value;
use tempfile::TempDir;

const WIDTH: usize = 32;
const FFN: usize = 48;
const TEMPLATE: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}";

/// A file in the making: head and data, filled side by side.
#[derive(Default)]
struct Gguf {
    values: (u64, Vec<u8>),
    tensors: (u64, Vec<u8>),
    data: Vec<u8>,
    state: u32,
}

impl Gguf {
    fn text(bytes: &mut Vec<u8>, text: &str) {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    }

    fn key(&mut self, key: &str, kind: u32) -> &mut Vec<u8> {
        self.values.0 += 1;
        Self::text(&mut self.values.1, key);
        self.values.1.extend(kind.to_le_bytes());
        &mut self.values.1
    }

    fn number(&mut self, key: &str, value: u32) {
        self.key(key, 4).extend(value.to_le_bytes());
    }

    fn word(&mut self, key: &str, value: &str) {
        Self::text(self.key(key, 8), value);
    }

    fn words(&mut self, key: &str, values: &[String]) {
        let bytes = self.key(key, 9);
        bytes.extend(8u32.to_le_bytes());
        bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| Self::text(bytes, value));
    }

    /// A tensor of noise around `middle`, sizes outermost first.
    fn tensor(&mut self, name: &str, shape: &[usize], middle: f32) {
        self.tensors.0 += 1;
        let bytes = &mut self.tensors.1;
        Self::text(bytes, name);
        bytes.extend((shape.len() as u32).to_le_bytes());
        for &size in shape.iter().rev() {
            bytes.extend((size as u64).to_le_bytes());
        }
        bytes.extend(0u32.to_le_bytes());
        bytes.extend((self.data.len() as u64).to_le_bytes());
        for _ in 0..shape.iter().product() {
            self.state = self
                .state
                .wrapping_mul(1_664_525)
                .wrapping_add(1_013_904_223);
            let noise = (self.state >> 8) as f32 / (1 << 23) as f32 - 1.0;
            self.data.extend((middle + 0.3 * noise).to_le_bytes());
        }
        self.data.resize(self.data.len().next_multiple_of(32), 0);
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes()].concat();
        bytes.extend(self.tensors.0.to_le_bytes());
        bytes.extend(self.values.0.to_le_bytes());
        bytes.extend(self.values.1);
        bytes.extend(self.tensors.1);
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(self.data);
        bytes
    }
}

/// Two layers, four query heads over two, the 256 bytes and three marks as vocabulary.
fn model(template: Option<&str>) -> Vec<u8> {
    let mut file = Gguf::default();
    let bytes = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ');
    let bytes = bytes.chain('\u{100}'..='\u{143}').map(String::from);
    let marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned);
    let tokens: Vec<String> = marks.into_iter().chain(bytes).collect();
    file.word("general.architecture", "llama");
    for (key, value) in [
        ("block_count", 2),
        ("context_length", 96),
        ("embedding_length", WIDTH as u32),
        ("feed_forward_length", FFN as u32),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
    ] {
        file.number(&format!("llama.{key}"), value);
    }
    let eps = file.key("llama.attention.layer_norm_rms_epsilon", 6);
    eps.extend(1e-5f32.to_le_bytes());
    file.word("tokenizer.ggml.model", "gpt2");
    file.word("tokenizer.ggml.pre", "smollm");
    file.words("tokenizer.ggml.tokens", &tokens);
    let types = file.key("tokenizer.ggml.token_type", 9);
    types.extend(5u32.to_le_bytes());
    types.extend((tokens.len() as u64).to_le_bytes());
    for id in 0..tokens.len() {
        types.extend(if id < 3 { 3i32 } else { 1 }.to_le_bytes());
    }
    file.words("tokenizer.ggml.merges", &["a b".to_owned()][..0]);
    file.number("tokenizer.ggml.bos_token_id", 1);
    file.number("tokenizer.ggml.eos_token_id", 2);
    if let Some(template) = template {
        file.word("tokenizer.chat_template", template);
    }

    file.tensor("token_embd.weight", &[tokens.len(), WIDTH], 0.0);
    for i in 0..2 {
        let name = |part: &str| format!("blk.{i}.{part}.weight");
        file.tensor(&name("attn_norm"), &[WIDTH], 1.0);
        file.tensor(&name("attn_q"), &[WIDTH, WIDTH], 0.0);
        file.tensor(&name("attn_k"), &[WIDTH / 2, WIDTH], 0.0);
        file.tensor(&name("attn_v"), &[WIDTH / 2, WIDTH], 0.0);
        file.tensor(&name("attn_output"), &[WIDTH, WIDTH], 0.0);
        file.tensor(&name("ffn_norm"), &[WIDTH], 1.0);
        file.tensor(&name("ffn_gate"), &[FFN, WIDTH], 0.0);
        file.tensor(&name("ffn_up"), &[FFN, WIDTH], 0.0);
        file.tensor(&name("ffn_down"), &[WIDTH, FFN], 0.0);
    }
    file.tensor("output_norm.weight", &[WIDTH], 1.0);
    file.bytes()
}

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
    // Mark, "user", a line's end, "hi", mark, a line's end; mark, "assistant", a line's end.
    assert_eq!(usage["prompt_tokens"], 1 + 5 + 2 + 2 + 1 + 10);
    assert!((1..=9).contains(&usage["tokens"].as_u64().expect("a number")));
    let (first, all) = (&usage["first_token_seconds"], &usage["seconds"]);
    assert!(first.as_f64() <= all.as_f64() && first.as_f64() > Some(0.0));

    // The same answer streams to people; another word, system message or seed gives another.
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
    // Both there: what they lack is no part.
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
        // More heads than width: the size of a head would be 0.
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
