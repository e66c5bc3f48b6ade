//! Conversions: their rounding errors, resuming after a kill, and conversion of a checkpoint in the released layout.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{drawing_pack, emu, fails, fixtures, json_of, text, tiny_pack};
use emu_pack::{SafetensorsFile, TensorData, TensorSource, write_safetensors};
use serde_json::Value;

/// The released model's key lists with smaller sizes in the same places.
fn small_keys(folder: &Path) -> PathBuf {
    fn shrink(value: &mut Value) {
        const SIZES: [(u64, u64); 7] = [
            (5120, 256),
            (13824, 704),
            (32004, 1028),
            (32128, 64),
            (1408, 176),
            (4224, 528),
            (6144, 768),
        ];
        match value {
            Value::Array(values) => values.iter_mut().for_each(shrink),
            Value::Object(values) => values.values_mut().for_each(shrink),
            Value::Number(n) => {
                let small = SIZES.iter().find(|(large, _)| n.as_u64() == Some(*large));
                if let Some((_, small)) = small {
                    *value = (*small).into();
                }
            }
            _ => {}
        }
    }
    let keys = folder.join("keys");
    std::fs::create_dir(&keys).expect("a folder");
    let name = "keys-emu-14b.json";
    let bytes = std::fs::read(fixtures().join(name)).expect("the list");
    let mut list: Value = serde_json::from_slice(&bytes).expect("JSON");
    shrink(&mut list);
    std::fs::write(keys.join(name), list.to_string()).expect("written");
    keys
}

fn small_checkpoint(folder: &Path) -> String {
    let (keys, out) = (text(&small_keys(folder)), text(&folder.join("checkpoint")));
    let line = &json_of(&[
        "data",
        "checkpoint",
        "-o",
        &out,
        "--keys",
        &keys,
        "--layers",
        "2",
        "--no-decoder",
        "--json",
    ])[0];
    assert!(
        line["bytes"].as_u64().is_some_and(|n| n > 20 << 20),
        "{line}"
    );
    out
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).expect("a file"))
        })
        .collect()
}

#[test]
fn a_killed_conversion_redoes_no_finished_shard() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = small_checkpoint(folder.path());
    let convert = |out: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_emu"));
        command.args([
            "convert",
            &source,
            "--quantize",
            "q4",
            "--max-shard",
            "200KiB",
            "--json",
        ]);
        command
            .arg("-o")
            .arg(out)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let whole = folder.path().join("whole");
    let report = |command: &mut Command| -> Value {
        let said = command.output().expect("the program runs");
        assert!(
            said.status.success(),
            "{}",
            String::from_utf8_lossy(&said.stderr)
        );
        serde_json::from_slice(&said.stdout).expect("a line of JSON")
    };
    let all = report(&mut convert(&whole));
    assert_eq!(all["kept_shards"], 0);
    let shards = all["shards"].as_u64().expect("a number") as usize;
    assert!(shards > 20, "{all}");

    let (out, scratch) = (folder.path().join("out"), folder.path().join(".out.part"));
    let finished = || {
        (0..shards)
            .take_while(|i| scratch.join(format!("shard-{i}")).exists())
            .count()
    };
    let mut before = 0;
    // Killed twice, the second time at a later point; the third run finishes.
    for wanted in [shards / 4, shards / 2] {
        let mut child = convert(&out).spawn().expect("the program starts");
        let start = Instant::now();
        while finished() < wanted && start.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_micros(200));
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert!(!out.exists(), "half a pack was put in place");
        let now = finished();
        assert!(now >= wanted && now >= before, "{now} of {shards} shards");
        before = now;
    }
    let last = report(&mut convert(&out));
    let kept = last["kept_shards"].as_u64().expect("a number") as usize;
    // The last shard may have been half written, or not yet recorded.
    assert!(kept + 1 >= before, "{kept} kept of {before}");
    assert_eq!(files(&out), files(&whole), "the same pack to the byte");
    assert_eq!(
        last["errors"].as_array().map(Vec::len),
        all["errors"].as_array().map(Vec::len)
    );
    assert!(!scratch.exists());
    let inspected = emu(&["inspect", &text(&out), "--verify", "--device", "cpu"]);
    assert_eq!(inspected.code, Some(0), "{}", inspected.err);
}

#[test]
fn a_checkpoint_of_the_released_layout_agrees_with_its_pack() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = small_checkpoint(folder.path());
    let out = text(&folder.path().join("pack"));
    let table = text(&folder.path().join("errors.jsonl"));
    let line = &json_of(&[
        "convert",
        &source,
        "-o",
        &out,
        "--quantize",
        "q4",
        "--errors",
        &table,
        "--json",
    ])[0];
    // The summary equals the sum over the table, and is within the bounds of the schemes.
    let error = |component: &str, stored: &str| {
        let groups = line["errors"].as_array().expect("groups").iter();
        let group = { groups }.find(|g| g["component"] == component && g["stored"] == stored);
        group
            .and_then(|g| g["relative_error"].as_f64())
            .expect("a group")
    };
    assert!((0.05..0.1).contains(&error("lm", "q4")), "{line}");
    assert!((0.002..0.007).contains(&error("lm", "q8")), "{line}");
    assert_eq!(error("lm", "F32"), 0.0, "{line}");
    let rows: Vec<Value> = std::fs::read_to_string(&table)
        .expect("a table")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let embed = rows
        .iter()
        .find(|row| row["tensor"] == "lm.embed_tokens.weight");
    assert_eq!(embed.expect("a row")["stored"], "q8");
    let bytes: u64 = rows.iter().filter_map(|row| row["bytes"].as_u64()).sum();
    let stored = line["bytes"].as_u64().expect("a number");
    assert!(
        bytes < stored && stored < bytes + (1 << 20),
        "{bytes} of {stored}"
    );

    let parity = json_of(&[
        "parity",
        &out,
        "--against",
        &source,
        "--device",
        "cpu",
        "--json",
    ]);
    let last = parity.last().expect("a line");
    assert_eq!(last["failed"], 0, "{last}");
    assert!(
        last["compared"]
            .as_u64()
            .is_some_and(|n| n as usize > rows.len()),
        "{last}"
    );

    fails(
        &[
            "data",
            "checkpoint",
            "-o",
            &source,
            "--keys",
            &text(&folder.path().join("keys")),
        ],
        &["exists already"],
    );
    fails(
        &[
            "data",
            "checkpoint",
            "-o",
            &text(&folder.path().join("c")),
            "--keys",
            "/nowhere",
        ],
        &["keys-emu-14b.json", "--keys"],
    );
}

#[test]
fn packs_convert_to_other_precisions_and_compare() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = drawing_pack(folder.path());
    let convert = |quantize: &str| {
        let out = text(&folder.path().join(quantize));
        let line = json_of(&[
            "convert",
            &source,
            "-o",
            &out,
            "--quantize",
            quantize,
            "--json",
        ]);
        (out, line[0]["bytes"].as_u64().expect("a number"))
    };
    let (f16, f16_bytes) = convert("f16");
    let (q8, q8_bytes) = convert("q8");
    let (q4, q4_bytes) = convert("q4");
    assert!(
        f16_bytes > q8_bytes && q8_bytes > q4_bytes,
        "{f16_bytes} {q8_bytes} {q4_bytes}"
    );
    for (pack, schemes) in [
        (&f16, &["F16"] as &[&str]),
        (&q8, &["q8"]),
        (&q4, &["q4", "q8"]),
    ] {
        let rows = json_of(&[
            "parity",
            pack,
            "--against",
            &source,
            "--device",
            "cpu",
            "--json",
        ]);
        let notes: Vec<&str> = rows.iter().filter_map(|row| row["note"].as_str()).collect();
        for scheme in schemes {
            assert!(
                notes.iter().any(|note| note.starts_with(scheme)),
                "{scheme}: {notes:?}"
            );
        }
        assert!(
            notes.iter().any(|note| note.contains("most likely token")),
            "{notes:?}"
        );
    }
    // Drawing works with a quantized convolution.
    let manifest = std::fs::read(Path::new(&q4).join("emu.json")).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let tensors = manifest["tensors"].as_array().expect("tensors");
    let conv = tensors
        .iter()
        .find(|t| t["logical"].as_array().is_some_and(|s| s.len() == 4));
    let name = conv.expect("a convolution")["name"]
        .as_str()
        .expect("a name");
    assert_eq!(manifest["quantization"][name], "q8");
    let png = text(&folder.path().join("a.png"));
    let drawn = emu(&[
        "imagine", "--model", &q4, "--device", "cpu", "--steps", "2", "-o", &png, "a fish",
    ]);
    assert_eq!(drawn.code, Some(0), "{}", drawn.err);

    let tiny = tiny_pack(folder.path());
    fails(
        &["parity", &q4, "--against", &tiny, "--device", "cpu"],
        &["different configurations"],
    );
}

#[test]
fn wrong_arguments_of_conversions_are_explained() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    let at = |name: &str| text(&folder.path().join(name));
    let policy = |name: &str, content: &str| {
        std::fs::write(folder.path().join(name), content).expect("written");
        at(name)
    };
    let wrong = [
        ("q5".to_owned(), "q5"),
        (at("gone.toml"), "gone.toml"),
        (policy("a.toml", "default = \"q3\""), "q3"),
        (
            policy(
                "b.toml",
                "default = \"q4\"\n[[rules]]\nmatch = \"lm.{\"\nprecision = \"q8\"",
            ),
            "lm.{",
        ),
        (
            policy(
                "c.toml",
                "default = \"q4\"\n[[rules]]\nmatch = \"lm\"\ndims = \"four\"\nprecision = \"q8\"",
            ),
            "dims",
        ),
    ];
    for (argument, word) in wrong {
        fails(
            &["convert", &pack, "-o", &at("out"), "--quantize", &argument],
            &[word],
        );
        assert!(!folder.path().join("out").exists());
    }
    let nowhere = at("no/such/table.jsonl");
    fails(
        &["convert", &pack, "-o", &at("out"), "--errors", &nowhere],
        &["table.jsonl", "finished"],
    );
    // A corrupt source pack.
    let shard = folder.path().join("tiny/lm-00001-of-00001.safetensors");
    let mut bytes = std::fs::read(&shard).expect("a shard");
    bytes[5000] ^= 1;
    std::fs::write(&shard, bytes).expect("written");
    fails(
        &["convert", &pack, "-o", &at("other")],
        &["SHA-256", "lm-00001"],
    );
    fails(
        &["parity", &at("out"), "--against", &pack, "--device", "cpu"],
        &["SHA-256"],
    );

    let data = text(&fixtures());
    fails(
        &[
            "eval",
            "agree",
            "--data",
            &data,
            "--model",
            &at("out"),
            "--device",
            "cpu",
        ],
        &[],
    );
}

/// Copies the tiny model's folder without its weights.
fn beside(folder: &Path) {
    let from = fixtures();
    std::fs::create_dir_all(folder.join("tiny-llama")).expect("a folder");
    for name in [
        "tiny-emu-config.json",
        "tiny-llama/config.json",
        "tiny-llama/tokenizer.model",
    ] {
        std::fs::copy(from.join(name), folder.join(name)).expect("copied");
    }
}

/// Tensors of the tiny model.
fn tiny() -> Vec<TensorData> {
    let file = SafetensorsFile::open(fixtures().join("tiny-emu.safetensors")).expect("weights");
    let names = file.tensors().iter().map(|info| info.name.clone());
    let read = |name: String| file.read(&name).expect("a tensor");
    names.map(read).collect()
}

fn store(path: &Path, tensors: &[TensorData]) {
    let mut out = std::fs::File::create(path).expect("a file");
    write_safetensors(&mut out, tensors).expect("written");
}

/// Converts a folder and returns the hashes of the shards.
fn converted(source: &Path) -> Vec<Value> {
    let out = tempfile::tempdir().expect("a folder");
    let pack = out.path().join("pack");
    let said = emu(&["convert", &text(source), "-o", &text(&pack), "--no-decoder"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let manifest = std::fs::read(pack.join("emu.json")).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let shards = manifest["shards"].as_array().expect("shards").iter();
    shards.map(|shard| shard["sha256"].clone()).collect()
}

#[test]
fn shards_and_prefixes_make_the_same_pack() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| {
        let path = folder.path().join(name);
        beside(&path);
        path
    };
    let tensors = tiny();
    let whole = at("whole");
    store(&whole.join("tiny-emu.safetensors"), &tensors);
    let wanted = converted(&whole);
    assert!(!wanted.is_empty());

    // An index and two shards.
    let sharded = at("sharded");
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let mut map = serde_json::Map::new();
    for (number, tensors) in [(1, first), (2, second)] {
        let name = format!("model-0000{number}-of-00002.safetensors");
        store(&sharded.join(&name), tensors);
        for tensor in tensors {
            map.insert(tensor.info.name.clone(), name.clone().into());
        }
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
    std::fs::write(sharded.join("model.safetensors.index.json"), index).expect("written");
    assert_eq!(converted(&sharded), wanted);
    assert_eq!(
        converted(&sharded.join("model.safetensors.index.json")),
        wanted
    );
    assert_eq!(
        converted(&sharded.join("model-00001-of-00002.safetensors")),
        wanted
    );

    // Key prefixes that module wrappers add.
    for prefix in ["module.", "_orig_mod.module.", "state.model."] {
        let prefixed = at(prefix);
        let renamed: Vec<_> = { tensors.iter().cloned() }
            .map(|tensor| {
                let name = format!("{prefix}{}", tensor.info.name);
                tensor.renamed(name)
            })
            .collect();
        store(&prefixed.join("tiny-emu.safetensors"), &renamed);
        assert_eq!(converted(&prefixed), wanted, "{prefix}");
    }
}

#[test]
fn files_that_are_no_weights_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    beside(folder.path());
    let path = folder.path().join("tiny-emu.pt");
    let (source, out) = (text(folder.path()), text(&folder.path().join("out")));
    let pickle = b"\x80\x04\x95\x02\0\0\0\0\0\0\0}\x94.";
    for (bytes, words) in [
        (
            &b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 27\n"[..],
            &["Git LFS pointer", "git lfs pull"][..],
        ),
        (
            b"<!DOCTYPE html><html><body>Sign in</body></html>",
            &["web page"],
        ),
        (pickle, &["pickle", "protocol 4", "torch.save"]),
        (b"Entry not found", &["plain text"]),
        (b"\x1f\x8b\x08\0\0\0\0\0", &["gzip", "Unpack"]),
        (b"\x89HDF\r\n\x1a\n\0\0\0\0", &["HDF5"]),
    ] {
        std::fs::write(&path, bytes).expect("written");
        fails(&["convert", &source, "-o", &out], words);
    }
    // Next to the weights: the tokenizer.
    store(&folder.path().join("tiny-emu.safetensors"), &tiny());
    let tokenizer = folder.path().join("tiny-llama/tokenizer.model");
    std::fs::write(tokenizer, b"version https://git-lfs.github.com/spec/v1\n").expect("written");
    fails(
        &["convert", &source, "-o", &out],
        &["tokenizer.model", "Git LFS pointer"],
    );
}
