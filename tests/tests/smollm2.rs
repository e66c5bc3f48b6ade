//! A published language model against llama.cpp: the same token ids, and the same most likely tokens.
//!
//! The model is no part of the repository; `tests/peers/README.md` says where it comes from. Without it these tests skip.

use std::fs;
use std::path::{Path, PathBuf};

use emu_kernels::burn::tensor::{Device, Int, Tensor, TensorData, read_sync};
use emu_kernels::sample::argmax;
use emu_model::TextModel;
use emu_model::generate::{Prompt, TextOptions, read};
use emu_model::lm::Visibility;
use emu_model::text::{Message, Speaker};
use emu_pack::TensorSource;
use emu_pack::convert::GgufFile;
use emu_tests::reference::json;
use serde_json::Value;

/// Where llama.cpp's two greatest logits are closer than this, either may win.
const TIE: f64 = 0.1;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The model, where it is.
fn model_file() -> Option<PathBuf> {
    let named = std::env::var_os("EMU_SMOLLM2").map(PathBuf::from);
    let found = || {
        let entries = fs::read_dir(here().join("../data/smollm2")).ok()?;
        let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.find(|path| path.extension().is_some_and(|kind| kind == "gguf"))
    };
    let path = named.or_else(found).filter(|path| path.is_file());
    if path.is_none() {
        println!(
            "SKIP golden-smollm2: EMU_SMOLLM2 names no file and data/smollm2 holds none; tests/peers/README.md says where it comes from"
        );
    }
    path
}

fn open() -> Option<(GgufFile, TextModel, Value)> {
    let path = model_file()?;
    let file = GgufFile::open(&path).expect("a GGUF file");
    let model = TextModel::from_gguf(file.metadata(), &file, &Device::flex()).expect("a model");
    let fixture = json(&here().join("fixtures/smollm2/llama-cpp.json"));
    Some((file, model, fixture))
}

fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().expect("a list").iter();
    list.map(|id| id.as_u64().expect("an id") as u32).collect()
}

#[test]
fn texts_become_the_tokens_of_llama_cpp() {
    let Some((_, model, fixture)) = open() else {
        return;
    };
    let tokenizer = &model.tokenizer;
    let cases = fixture["texts"].as_array().expect("cases");
    assert!(cases.len() > 40, "the fixture is incomplete");
    let mut wrong = vec![];
    for case in cases {
        let text = case["text"].as_str().expect("a text");
        let plain = tokenizer.encode(text).expect("ids");
        assert_eq!(tokenizer.decode(&plain).expect("a text"), text);
        let marked = tokenizer.encode_marked(text).expect("ids");
        for (kind, got) in [("plain", plain), ("marked", marked)] {
            let want = ids(&case[kind]);
            if got != want {
                wrong.push(format!("{kind} {text:?}: {got:?} instead of {want:?}"));
            }
        }
    }
    println!("{} texts, {} of 2 x that differ", cases.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn conversations_are_written_as_the_template_does() {
    let Some((_, model, fixture)) = open() else {
        return;
    };
    for answer in fixture["answers"].as_array().expect("answers") {
        let text = answer["question"].as_str().expect("a text").to_owned();
        let speaker = Speaker::User;
        let prompt = model.chat(&[Message { speaker, text }]).expect("a prompt");
        assert_eq!(prompt.ids, ids(&answer["prompt"]));
    }
}

/// Logits at the positions which predict the answer's tokens.
fn logits(model: &TextModel, prompt: &[u32], tokens: &[u32]) -> Vec<Vec<f32>> {
    let all: Vec<i32> = prompt.iter().chain(tokens).map(|&id| id as i32).collect();
    let n = all.len() - 1;
    let input = TensorData::new(all[..n].to_vec(), [1, n]);
    let input: Tensor<2, Int> = Tensor::from_data(input, &Device::flex());
    let lm = &model.lm;
    let hidden = lm.forward(lm.embed(input), &[(0..n).collect()], &Visibility::All);
    let logits = lm.logits(hidden.narrow(1, prompt.len() - 1, tokens.len()));
    let flat = read_sync(read(logits)).expect("logits");
    flat.chunks(model.config.lm.vocab)
        .map(<[f32]>::to_vec)
        .collect()
}

/// The two greatest logits at a step: the tokens, and how much the first is ahead.
struct Top {
    tokens: [usize; 2],
    logits: [f64; 2],
}

impl Top {
    fn list(value: &Value) -> Vec<Self> {
        let steps = value.as_array().expect("steps").iter();
        steps
            .map(|top| {
                let number = |i: usize| top[i].as_f64().expect("a number");
                Self {
                    tokens: [number(0) as usize, number(1) as usize],
                    logits: [number(2), number(3)],
                }
            })
            .collect()
    }

    fn is_tie(&self) -> bool {
        self.logits[0] - self.logits[1] < TIE
    }

    /// Whether a row of logits has the same winner, or this is too close to say.
    fn agrees(&self, row: &[f32]) -> bool {
        self.is_tie() || argmax(row) as usize == self.tokens[0]
    }

    /// How far the two logits are from those of a row.
    fn distance(&self, row: &[f32]) -> f64 {
        let off = |i: usize| (f64::from(row[self.tokens[i]]) - self.logits[i]).abs();
        off(0).max(off(1))
    }
}

#[test]
fn fed_its_tokens_the_most_likely_one_is_that_of_llama_cpp() {
    let Some((_, model, fixture)) = open() else {
        return;
    };
    let (mut steps, mut ties, mut furthest, mut wrong) = (0, 0, 0f64, vec![]);
    let (mut rounded, mut rounded_furthest) = (0, 0f64);
    for answer in fixture["answers"].as_array().expect("answers") {
        let rows = logits(&model, &ids(&answer["prompt"]), &ids(&answer["tokens"]));
        let (exact, top) = (Top::list(&answer["exact"]), Top::list(&answer["top"]));
        assert_eq!((rows.len(), exact.len(), top.len()), (64, 64, 64));
        for (at, (row, (exact, top))) in rows.iter().zip(exact.iter().zip(&top)).enumerate() {
            steps += 1;
            ties += usize::from(exact.is_tie());
            furthest = furthest.max(exact.distance(row));
            if !exact.agrees(row) {
                wrong.push(format!("{} token {at}", answer["question"]));
            }
            rounded += usize::from(!top.agrees(row));
            rounded_furthest = rounded_furthest.max(top.distance(row));
        }
    }
    println!(
        "{steps} steps, {ties} of them ties: {} differ beyond ties, logits by at most {furthest:.5}; \
         from llama.cpp with rounded activations {rounded} differ, logits by at most {rounded_furthest:.3}",
        wrong.len()
    );
    assert_eq!(steps, 640);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(furthest < 0.01, "a logit is {furthest} off");
    // Its rounding decides a few close races; a permuted head or a wrong rope would lose most of them.
    assert!(rounded <= 13, "{rounded} of {steps} steps differ");
}

#[test]
fn decoding_token_by_token_says_the_same() {
    let Some((_, model, fixture)) = open() else {
        return;
    };
    let answer = &fixture["answers"][0];
    let (prompt, tokens) = (ids(&answer["prompt"]), ids(&answer["tokens"]));
    let options = TextOptions {
        max_new_tokens: 24,
        ..Default::default()
    };
    let machine = model
        .generate(&Prompt::text(prompt), options)
        .expect("a machine");
    let said = read_sync(machine.run()).expect("an answer");
    // Up to the first near tie, behind which the two may go different ways.
    let tops = Top::list(&answer["exact"]);
    let sure = tops.iter().zip(&tokens);
    let sure = sure.take_while(|(top, token)| !top.is_tie() && top.tokens[0] == **token as usize);
    let sure = sure.count().min(24);
    assert!(sure > 4, "the fixture's first answer is too close a race");
    assert_eq!(said[1..=sure], tokens[..sure]);
}

#[test]
fn packed_matrices_hold_the_values_that_are_computed_with() {
    let Some((file, ..)) = open() else {
        return;
    };
    let mut packed = 0;
    for info in file.tensors() {
        if let Some(matrix) = file.read_packed(&info.name).expect("a tensor") {
            packed += 1;
            let (blocks, values) = (matrix.dequantize(), file.read(&info.name));
            assert_eq!(blocks.expect("blocks"), values.expect("values"));
        }
    }
    assert_eq!(packed, 211);
}
