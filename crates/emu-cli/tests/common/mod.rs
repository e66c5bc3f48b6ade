//! Helpers that run the program, and packs to run it on.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod gguf;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use emu_kernels::burn::tensor::Device;
use emu_model::config::EmuConfig;
use emu_model::diffusion::DecoderConfig;
use emu_model::pack::{self, ModelConfig};
use emu_model::safety::SafetyConfig;
use emu_model::weights;
use emu_pack::convert::{PackMeta, PackWriter, WriteOptions};
use emu_pack::{PackError, TensorData};
use emu_tokenizer::{EmuTokenizer, Roles};

/// Folder of the reference fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/reference")
}

/// Exit code and output of a run.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

fn said(output: &Output) -> Said {
    Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emu"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs `emu` with these arguments.
pub fn emu(arguments: &[&str]) -> Said {
    said(&command(arguments).output().expect("the program starts"))
}

/// Runs `emu` with these environment variables; `None` removes a variable.
pub fn emu_in(variables: &[(&str, Option<&str>)], arguments: &[&str]) -> Said {
    let mut command = command(arguments);
    for (name, value) in variables {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    said(&command.output().expect("the program starts"))
}

/// An environment in which no graphics driver is found.
pub const NO_DRIVERS: [(&str, Option<&str>); 2] = [
    ("VK_DRIVER_FILES", Some("/nonexistent.json")),
    ("VK_ICD_FILENAMES", Some("/nonexistent.json")),
];

/// Runs `emu` with text on stdin.
pub fn emu_with_input(arguments: &[&str], input: &str) -> Said {
    use std::io::Write;
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(input.as_bytes())
        .expect("written");
    said(&child.wait_with_output().expect("the program ends"))
}

/// Runs `emu`, which must succeed, and returns its output lines as JSON.
#[track_caller]
pub fn json_of(arguments: &[&str]) -> Vec<serde_json::Value> {
    let said = emu(arguments);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let lines = said.out.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

/// Runs `emu`, which must fail with an error that contains all of these words and says what to do.
#[track_caller]
pub fn fails(arguments: &[&str], words: &[&str]) {
    let said = emu(arguments);
    assert_eq!(said.code, Some(1), "{} {}", said.out, said.err);
    assert!(said.err.starts_with("error: "), "{}", said.err);
    assert!(!said.err.contains("panicked"), "{}", said.err);
    for word in words {
        assert!(said.err.contains(word), "{word:?} is not in: {}", said.err);
    }
}

/// Converts the reference's tiny model, without a decoder, into `folder`.
pub fn tiny_pack(folder: &Path) -> String {
    let out = text(&folder.join("tiny"));
    let source = text(&fixtures());
    let said = emu(&["convert", &source, "-o", &out, "--no-decoder"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    out
}

/// A pack with random weights that can draw: pictures of 16 pixels, in milliseconds.
pub fn drawing_pack(folder: &Path) -> String {
    drawing_pack_with(folder, None)
}

/// [`drawing_pack`] with a safety checker.
pub fn checking_pack(folder: &Path) -> String {
    let config = serde_json::json!({"projection_dim": 32, "vision_config": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
        "image_size": 28, "patch_size": 14}});
    let config = SafetyConfig::from_transformers(&config).expect("a configuration");
    drawing_pack_with(folder, Some(config))
}

fn drawing_pack_with(folder: &Path, safety: Option<SafetyConfig>) -> String {
    let device = Device::flex();
    let _sequence = emu_kernels::init::seed(3);
    let emu = EmuConfig::tiny();
    let mut decoder = DecoderConfig::emu_mini(emu.queries(), emu.lm.width);
    decoder.unet.channels = vec![16, 32];
    decoder.unet.down.truncate(2);
    decoder.unet.up = decoder.unet.up.split_off(1);
    decoder.unet.heads = vec![2, 2];
    decoder.unet.norm_groups = 8;
    decoder.vae.channels = vec![8, 16];
    decoder.image_size = 16;
    decoder.steps = 3;
    let config = ModelConfig {
        emu,
        decoder: Some(decoder),
        safety,
    };
    let meta = PackMeta {
        name: "drawing".into(),
        license: "none".into(),
        config: serde_json::to_value(&config).expect("JSON"),
        ..Default::default()
    };
    let out = folder.join(match config.safety {
        Some(_) => "checking",
        None => "drawing",
    });
    let mut writer = PackWriter::create(&out, meta, WriteOptions::default()).expect("a writer");
    let mut add = |tensor: TensorData| -> Result<(), PackError> {
        writer.add(pack::component(&tensor.info.name.clone()), tensor)
    };
    let model = config.emu.init(&device).expect("a model");
    weights::export(&model, &mut add).expect("written");
    let decoder = config
        .decoder
        .expect("a decoder")
        .init(&device)
        .expect("a decoder");
    weights::export(&decoder, &mut add).expect("written");
    if let Some(safety) = &config.safety {
        let checker = safety.init(&device).expect("a checker");
        let mut named = |mut tensor: TensorData| {
            tensor.info.name = format!("safety.{}", tensor.info.name);
            add(tensor)
        };
        weights::export(&checker, &mut named).expect("written");
    }
    let bytes = std::fs::read(fixtures().join("tiny-llama/tokenizer.model")).expect("a tokenizer");
    let tokenizer = EmuTokenizer::from_sentencepiece_bytes(&bytes, Roles::Pretrain);
    let json = tokenizer.expect("a tokenizer").to_json().expect("JSON");
    writer
        .add_file(pack::TOKENIZER, json.as_bytes())
        .expect("written");
    writer.finish().expect("finished");
    text(&out)
}

/// A path as a command-line argument.
pub fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// Path of a picture in the fixtures.
pub fn cat() -> String {
    text(&fixtures().join("images/cat.jpg"))
}
