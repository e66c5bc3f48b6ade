//! What is told of conversions and tasks before they take place, compared with what they take.

mod common;
#[path = "../../emu-hub/tests/common/mod.rs"]
mod hub;

use std::path::{Path, PathBuf};

use common::{Said, drawing_pack, emu, emu_in, fails, fixtures, json_of, text, tiny_pack};
use emu_kernels::burn::tensor::Device;
use emu_model::diffusion::{self, DecoderConfig};
use emu_model::weights;
use emu_pack::{PackError, TensorData, write_safetensors};
use hub::{Hub, NAME, OWNER};
use serde_json::Value;

/// Precisions of `--quantize`.
const PRECISIONS: [&str; 4] = ["none", "f16", "q8", "q4"];

/// The weights at a precision.
fn precision<'a>(told: &'a Value, name: &str) -> &'a Value {
    let all = told["precisions"].as_array().expect("a list");
    all.iter().find(|one| one["quantize"] == name).expect(name)
}

/// Bytes of the files in a folder.
fn disk(folder: &str) -> u64 {
    let files = std::fs::read_dir(folder).expect("a folder").flatten();
    files
        .map(|file| file.metadata().expect("a file").len())
        .sum()
}

/// Paths of all files below a folder, relative to it, with `/`.
fn below(folder: &Path) -> Vec<String> {
    let mut paths = vec![];
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        match entry.path().is_dir() {
            true => {
                let inner = below(&entry.path()).into_iter();
                paths.extend(inner.map(|path| format!("{name}/{path}")));
            }
            false => paths.push(name),
        }
    }
    paths.sort();
    paths
}

/// The tiny model with a decoder and a safety checker. The fixtures lack the UNet's weights: these are random.
fn drawing_checkpoint(folder: &Path) -> PathBuf {
    let to = folder.join("checkpoint");
    for part in [
        "tiny-llama",
        "tiny-safety-checker",
        "tiny-schedulers/pndm",
        "tiny-unet",
        "tiny-vae",
    ] {
        std::fs::create_dir_all(to.join(part)).expect("a folder");
    }
    for file in [
        "tiny-emu.safetensors",
        "tiny-emu-config.json",
        "tiny-llama/config.json",
        "tiny-llama/tokenizer.model",
        "tiny-safety-checker/config.json",
        "tiny-safety-checker/model.safetensors",
        "tiny-schedulers/pndm/scheduler_config.json",
        "tiny-unet/config.json",
        "tiny-vae/config.json",
        "tiny-vae/diffusion_pytorch_model.safetensors",
    ] {
        std::fs::copy(fixtures().join(file), to.join(file)).expect(file);
    }
    let json = |file: &str| -> Value {
        let bytes = std::fs::read(to.join(file)).expect(file);
        serde_json::from_slice(&bytes).expect("JSON")
    };
    let config = DecoderConfig::from_diffusers(
        &json("tiny-unet/config.json"),
        &json("tiny-vae/config.json"),
        &json("tiny-schedulers/pndm/scheduler_config.json"),
        4,
    );
    let _sequence = emu_kernels::init::seed(5);
    let unet = config.expect("a configuration").unet.init(&Device::flex());
    let map = diffusion::keys::unet().expect("a key map");
    let mut tensors: Vec<TensorData> = vec![];
    let mut add = |tensor: TensorData| -> Result<(), PackError> {
        let key = map.to_checkpoint(&tensor.info.name).expect("a key");
        tensors.push(tensor.renamed(key));
        Ok(())
    };
    weights::export(&unet.expect("a UNet"), &mut add).expect("exported");
    let path = to.join("tiny-unet/diffusion_pytorch_model.safetensors");
    let mut file = std::fs::File::create(path).expect("a file");
    write_safetensors(&mut file, &tensors).expect("written");
    to
}

/// Compares what is told of a source with its conversions.
#[track_caller]
fn compare(source: &str, options: &[&str], folder: &Path) {
    let mut arguments = vec!["inspect", source, "--device", "cpu", "--json"];
    arguments.extend(options);
    let told = &json_of(&arguments)[0];
    for quantize in PRECISIONS {
        let out = text(&folder.join(quantize));
        let mut arguments = vec!["convert", source, "-o", &out, "--quantize", quantize];
        arguments.extend(options);
        let said = emu(&arguments);
        assert_eq!(said.code, Some(0), "{}", said.err);
        let told = precision(told, quantize);
        assert_eq!(
            told["conversion"]["disk_bytes"],
            disk(&out),
            "{source} at {quantize}"
        );
        // The tasks of the pack take what was told of them before it was there.
        let pack = &json_of(&["inspect", &out, "--device", "cpu", "--json"])[0];
        let tasks = told["devices"]["cpu"].as_object().expect("tasks");
        let found = &precision(pack, "stored")["devices"]["cpu"];
        assert_eq!(
            found.as_object().map(serde_json::Map::len),
            Some(tasks.len())
        );
        for (task, needs) in tasks {
            for figure in [
                "download_bytes",
                "memory_bytes",
                "resident_bytes",
                "largest_buffer",
            ] {
                assert_eq!(
                    needs[figure], found[task][figure],
                    "{figure} of {task} at {quantize}"
                );
            }
        }
        std::fs::remove_dir_all(&out).expect("removed");
    }
}

#[test]
fn conversions_of_checkpoints_take_the_disk_that_was_told() {
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["tiny-emu.safetensors", "tiny-emu-bf16mixed.pt"] {
        let source = text(&fixtures().join(file));
        compare(&source, &["--no-decoder"], folder.path());
    }
    let source = text(&drawing_checkpoint(folder.path()));
    compare(&source, &[], folder.path());
    let line = &json_of(&["inspect", &source, "--device", "cpu", "--json"])[0];
    assert_eq!(
        (&line["kind"], &line["name"]),
        (&"checkpoint".into(), &"tiny-emu".into())
    );
    assert!(
        line["components"].is_null() && line["download"].is_null(),
        "{line}"
    );
    let seconds = &precision(line, "q4")["conversion"]["encoding_seconds"];
    assert!(
        seconds.as_f64().is_some_and(|seconds| seconds > 0.0),
        "{line}"
    );
}

#[test]
fn conversions_of_packs_take_the_disk_that_was_told() {
    let folder = tempfile::tempdir().expect("a folder");
    compare(&drawing_pack(folder.path()), &[], folder.path());
}

#[test]
fn every_task_says_what_it_needs() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = drawing_pack(folder.path());
    let line = &json_of(&["inspect", &pack, "--device", "cpu", "--json"])[0];
    let (tasks, components) = (&line["tasks"], &line["components"]);
    let sum = |parts: &[&str], what: &str| -> u64 {
        parts
            .iter()
            .filter_map(|part| components[part][what].as_u64())
            .sum()
    };
    for (task, parts) in [
        ("encode", &["vision"] as &[&str]),
        ("caption", &["vision", "lm"]),
        ("chat", &["vision", "lm"]),
        ("draw", &["vision", "lm", "decoder"]),
    ] {
        let needs = &tasks[task];
        assert_eq!(needs["download_bytes"], sum(parts, "bytes"), "{task}");
        assert_eq!(
            needs["resident_bytes"],
            4 * sum(parts, "parameters"),
            "{task}"
        );
        let cache = needs["cache_bytes"].as_u64();
        assert_eq!(cache.is_some_and(|n| n > 0), task != "encode", "{task}");
        assert_eq!(needs["runs"], true, "{needs}");
    }
    // Large pictures take more than the pack's own, of 16 pixels.
    let [own, large] = ["draw", "draw_512"].map(|task| tasks[task]["activation_bytes"].as_u64());
    assert!(large > own.map(|own| 100 * own), "{own:?} {large:?}");
    let plan = &line["plan"]["chat"];
    assert_eq!(
        (&plan["quantize"], &plan["device"], &plan["runs"]),
        (&"stored".into(), &"cpu".into(), &true.into())
    );
    let plain = emu(&["inspect", &pack, "--device", "cpu"]);
    assert!(
        plain.out.contains("runs here as it is, on cpu."),
        "{}",
        plain.out
    );

    // On a GPU, f16 matrices stay f16.
    if std::env::var("EMU_TEST_GPU").as_deref() == Ok("1") {
        let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emu-mini");
        let [cpu, gpu] = ["cpu", "gpu"].map(|device| {
            let line = &json_of(&["inspect", models, "--device", device, "--json"])[0];
            line["components"]["lm"]["resident_bytes"].as_f64()
        });
        let share = gpu.zip(cpu).map(|(gpu, cpu)| gpu / cpu);
        assert!(share.is_some_and(|s| s > 0.5 && s < 0.51), "{share:?}");
    }

    // The same model, quantized: a smaller download and less memory, because matrices stay packed.
    let out = text(&folder.path().join("q8"));
    let said = emu(&["convert", &pack, "-o", &out, "--quantize", "q8"]);
    assert!(
        said.code == Some(0) && said.out.contains("relative error"),
        "{}",
        said.out
    );
    let small = &json_of(&["inspect", &out, "--device", "cpu", "--json"])[0];
    for (name, component) in components.as_object().expect("components") {
        let packed = &small["components"][name];
        assert_eq!(packed["parameters"], component["parameters"], "{name}");
        assert!(
            packed["bytes"].as_u64() < component["bytes"].as_u64(),
            "{name}"
        );
        assert!(
            packed["resident_bytes"].as_u64() < component["resident_bytes"].as_u64(),
            "{name}"
        );
    }

    // A pack without a decoder reports nothing about drawing.
    let tiny = &json_of(&[
        "inspect",
        &tiny_pack(folder.path()),
        "--device",
        "cpu",
        "--json",
    ])[0];
    assert!(tiny["tasks"]["draw"].is_null() && tiny["tasks"]["chat"].is_object());
}

#[test]
fn people_get_a_table_of_100_columns() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = text(&drawing_checkpoint(folder.path()));
    let pack = drawing_pack(folder.path());
    for (source, rows) in [
        (&checkpoint, &["none", "f16", "q8", "q4"][..]),
        (&pack, &["stored", "none", "f16", "q8", "q4"]),
    ] {
        let said = emu(&["inspect", source, "--device", "cpu"]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        let lines: Vec<&str> = said.out.lines().collect();
        for line in &lines {
            // A path is not broken.
            let fits = line.chars().count() <= 100 || line.contains(&**source);
            assert!(fits, "{line:?}");
        }
        let head = lines.iter().position(|line| line.starts_with("precision"));
        let head = head.expect("a table");
        assert!(
            lines[head].ends_with("caption      chat      draw  draw_512"),
            "{}",
            said.out
        );
        for (line, row) in lines[head + 1..].iter().zip(rows) {
            assert!(line.starts_with(row) && line.contains(" cpu* "), "{line:?}");
        }
    }
}

/// Runs `emu` with this server as the hub, and a cache in `home`.
fn emu_at(hub: &Hub, home: &str, arguments: &[&str]) -> Said {
    let mut variables = vec![
        ("HF_ENDPOINT", Some(hub.endpoint.as_str())),
        ("HF_HOME", Some(home)),
        ("NO_PROXY", Some("127.0.0.1")),
    ];
    for name in [
        "HF_HUB_CACHE",
        "HF_HUB_OFFLINE",
        "HF_TOKEN",
        "HF_TOKEN_PATH",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        variables.push((name, None));
    }
    emu_in(&variables, arguments)
}

/// Sizes of conversions and tasks.
fn sizes(told: &Value) -> Vec<Value> {
    let all = told["precisions"].as_array().expect("a list").iter();
    all.map(|one| {
        let (conversion, tasks) = (&one["conversion"], &one["devices"]["cpu"]);
        serde_json::json!([
            one["quantize"],
            conversion["disk_bytes"],
            conversion["memory_bytes"],
            tasks["encode"]["memory_bytes"],
            tasks["caption"]["memory_bytes"],
            tasks["draw"]["memory_bytes"],
        ])
    })
    .collect()
}

/// A server that has the files of a folder, and the bytes of these.
fn served(folder: &Path) -> (Hub, u64) {
    let files: Vec<(String, Vec<u8>)> = { below(folder).into_iter() }
        .map(|path| {
            let bytes = std::fs::read(folder.join(&path)).expect("a file");
            (path, bytes)
        })
        .collect();
    let total = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let files: Vec<(&str, Vec<u8>)> = { files.iter() }
        .map(|(path, bytes)| (path.as_str(), bytes.clone()))
        .collect();
    (Hub::new(&files), total)
}

#[test]
fn an_address_is_told_of_without_a_download() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = text(&folder.path().join("home"));
    let address = format!("hf://{OWNER}/{NAME}");
    let pack = PathBuf::from(tiny_pack(folder.path()));
    for (source, kind) in [
        (drawing_checkpoint(folder.path()), "checkpoint"),
        (pack, "pack"),
    ] {
        let (hub, total) = served(&source);
        let inspect = |source: &str| -> Value {
            let arguments = ["inspect", source, "--device", "cpu", "--json"];
            let said = emu_at(&hub, &home, &arguments);
            assert_eq!(said.code, Some(0), "{}", said.err);
            serde_json::from_str(&said.out).expect("a line of JSON")
        };
        let (there, here) = (inspect(&address), inspect(&text(&source)));
        assert_eq!(sizes(&there), sizes(&here));
        assert_eq!(
            (&there["kind"], &there["source"]),
            (&kind.into(), &address.as_str().into())
        );
        assert_eq!(there["model"], here["model"]);
        assert_eq!(there["download"]["bytes"], total);
        assert_eq!(there["download"]["missing_bytes"], total);
        // Weights are on the content server. Of each file, the first part is read.
        let requests = hub.log();
        let sent: usize = requests.iter().map(|request| request.sent).sum();
        assert!((sent as u64) < total / 2, "{sent} of {total} bytes");
        assert!(
            !Path::new(&home).join("hub").exists(),
            "something was fetched"
        );
    }
}

#[test]
fn checkpoints_and_addresses_that_cannot_be_inspected_are_explained() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = text(&folder.path().join("home"));
    let source = drawing_checkpoint(folder.path());
    std::fs::write(source.join("alone.gguf"), "GGUF").expect("written");
    std::fs::create_dir(source.join("broken")).expect("a folder");
    std::fs::write(source.join("broken/model.safetensors"), [9; 40]).expect("written");
    let (hub, _) = served(&source);
    let explained = |end: &str, more: &[&str], words: &[&str]| {
        let address = format!("hf://{OWNER}/{end}");
        let mut arguments = vec!["inspect", &address, "--device", "cpu"];
        arguments.extend(more);
        let said = emu_at(&hub, &home, &arguments);
        assert_eq!(
            (said.code, said.out.as_str()),
            (Some(1), ""),
            "{}",
            said.err
        );
        assert!(said.err.starts_with("error: "), "{}", said.err);
        for word in words {
            assert!(said.err.contains(word), "{word:?} is not in: {}", said.err);
        }
    };
    let at = |rest: &str| format!("{NAME}{rest}");
    explained("", &[], &["no address of the hub"]);
    explained("none", &[], &["has no model", "HF_TOKEN"]);
    explained(&at("@gone"), &[], &["has no revision gone"]);
    explained(&at("/gone"), &[], &["has no gone"]);
    explained(&at("/alone.gguf"), &[], &["language model alone"]);
    explained(&at("/tiny-llama"), &[], &["holds no weights"]);
    explained(&at("/broken"), &[], &["broken/model.safetensors"]);
    explained(&at(""), &["--verify"], &["only packs have checksums"]);

    let here = text(&source.join("tiny-emu.safetensors"));
    fails(
        &["inspect", "no-such-checkpoint"],
        &["nothing at no-such-checkpoint"],
    );
    fails(
        &["inspect", &here, "--verify"],
        &["only packs have checksums"],
    );
    let pack = tiny_pack(folder.path());
    fails(
        &["inspect", &pack, "--no-decoder"],
        &["are for checkpoints"],
    );
    // Without its tokenizer, a checkpoint is known all the same.
    std::fs::remove_file(source.join("tiny-llama/tokenizer.model")).expect("removed");
    let line = &json_of(&[
        "inspect",
        &here,
        "--no-decoder",
        "--device",
        "cpu",
        "--json",
    ])[0];
    let note = line["notes"][0].as_str().expect("a note");
    assert!(
        note.contains("tokenizer") && note.contains("--llama"),
        "{note}"
    );
    std::fs::remove_file(source.join("tiny-unet/config.json")).expect("removed");
    let whole = text(&source);
    fails(&["inspect", &whole], &["tiny-unet"]);
}
