//! A published language model against llama.cpp: the same token ids, and the same most likely tokens.
//!
//! The model is not in the repository; `tests/peers/README.md` says where it comes from. Without it these tests skip.

use std::path::Path;

use emu_kernels::burn::tensor::{Device, Int, Tensor, TensorData, read_sync};
use emu_kernels::packed::Activations;
use emu_kernels::sample::argmax;
use emu_model::TextModel;
use emu_model::generate::{Prompt, TextOptions, read};
use emu_model::lm::{Lm, Visibility};
use emu_model::text::{Message, Speaker};
use emu_pack::TensorSource;
use emu_pack::convert::GgufFile;
use emu_tests::files::smollm2;
use emu_tests::reference::json;
use serde_json::Value;

/// If llama.cpp's top two logits are closer than this, either token may win.
const TIE: f64 = 0.1;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn open() -> Option<(GgufFile, TextModel, Value)> {
    let path = smollm2("golden-smollm2")?;
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

/// Logits at the positions that predict the answer's tokens.
fn logits(lm: &Lm, prompt: &[u32], tokens: &[u32]) -> Vec<Vec<f32>> {
    let all: Vec<i32> = prompt.iter().chain(tokens).map(|&id| id as i32).collect();
    let n = all.len() - 1;
    let input = TensorData::new(all[..n].to_vec(), [1, n]);
    let input: Tensor<2, Int> = Tensor::from_data(input, &Device::flex());
    let hidden = lm.forward(lm.embed(input), &[(0..n).collect()], &Visibility::All);
    let logits = lm.logits(hidden.narrow(1, prompt.len() - 1, tokens.len()));
    let flat = read_sync(read(logits)).expect("logits");
    flat.chunks(flat.len() / tokens.len())
        .map(<[f32]>::to_vec)
        .collect()
}

/// llama.cpp's top two tokens at a step, with their logits.
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

    /// Whether a row of logits has the same most likely token, or the top two are tied.
    fn agrees(&self, row: &[f32]) -> bool {
        self.is_tie() || argmax(row) as usize == self.tokens[0]
    }

    /// Maximum difference of the two logits from those in a row.
    fn distance(&self, row: &[f32]) -> f64 {
        let off = |i: usize| (f64::from(row[self.tokens[i]]) - self.logits[i]).abs();
        off(0).max(off(1))
    }
}

/// Comparison of our logits with llama.cpp's, with llama.cpp's tokens as input (teacher forcing).
#[derive(Debug, Default)]
struct Agreement {
    steps: usize,
    ties: usize,
    differ: usize,
    furthest: f64,
    /// Sum over the steps of the squared logit distance.
    squares: f64,
}

impl Agreement {
    fn add(&mut self, tops: &[Top], rows: &[Vec<f32>]) {
        for (top, row) in tops.iter().zip(rows) {
            self.steps += 1;
            self.ties += usize::from(top.is_tie());
            self.differ += usize::from(!top.agrees(row));
            self.furthest = self.furthest.max(top.distance(row));
            self.squares += top.distance(row).powi(2);
        }
    }

    fn root_mean_square(&self) -> f64 {
        (self.squares / self.steps as f64).sqrt()
    }
}

#[test]
fn fed_its_tokens_the_most_likely_one_is_that_of_llama_cpp() {
    let Some((_, model, fixture)) = open() else {
        return;
    };
    // Ours with activations quantized to bytes (the default, as in llama.cpp) and in f32. llama.cpp can do both as well.
    let rounding = &model.lm;
    let exact = model.lm.clone().with_activations(|_| Activations::F32);
    let mut found = [(); 4].map(|()| Agreement::default());
    for answer in fixture["answers"].as_array().expect("answers") {
        let (prompt, tokens) = (ids(&answer["prompt"]), ids(&answer["tokens"]));
        let theirs = [Top::list(&answer["exact"]), Top::list(&answer["top"])];
        let ours = [&exact, rounding].map(|lm| logits(lm, &prompt, &tokens));
        for (i, found) in found.iter_mut().enumerate() {
            let (rows, tops) = (&ours[i / 2], &theirs[i % 2]);
            assert_eq!((rows.len(), tops.len()), (64, 64));
            found.add(tops, rows);
        }
    }
    let [both_exact, only_ours, only_theirs, both_round] = found;
    println!("both exact: {both_exact:?}");
    println!("ours exact, theirs rounded: {only_ours:?}");
    println!("ours rounded, theirs exact: {only_theirs:?}");
    println!("both rounded: {both_round:?}");
    assert_eq!(both_exact.steps, 640);
    assert_eq!(both_exact.differ, 0, "{both_exact:?}");
    assert!(both_exact.furthest < 0.01, "{both_exact:?}");
    // Quantized activations change the winner in a few near ties. A permuted head or a wrong rope would change most winners.
    // llama.cpp's own logits move by 0.27 (root mean square) between its two modes.
    for rounded in [only_ours, only_theirs, both_round] {
        assert!(rounded.differ <= 20, "{rounded:?}");
        assert!(rounded.root_mean_square() < 0.5, "{rounded:?}");
    }
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
    // Compared up to the first near tie, after which the texts may diverge.
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
