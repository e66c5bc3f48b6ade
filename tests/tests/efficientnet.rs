//! EfficientNet-Lite against PyTorch's outputs (`tests/peers/efficientnet.py`).

use std::path::{Path, PathBuf};

use emu_kernels::burn::tensor::{Device, Tensor, TensorData};
use emu_kernels::device::{DeviceChoice, open};
use emu_model::efficientnet::{self, EfficientNet, EfficientNetConfig, EfficientNetStage};
use emu_pack::convert::open_weights;
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/efficientnet");
    PathBuf::from(folder).join(name)
}

fn device(choice: DeviceChoice) -> Device {
    open(choice).expect("a device").device
}

/// The sizes of the fixture (`tests/peers/efficientnet.py`).
fn tiny() -> EfficientNetConfig {
    let stage = |(repeats, kernel, stride, expand, outputs)| EfficientNetStage {
        repeats,
        kernel,
        stride,
        expand,
        outputs,
    };
    let stages = [
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 4, 40),
        (1, 3, 2, 2, 48),
    ];
    EfficientNetConfig {
        stem: 8,
        stages: stages.map(stage).to_vec(),
        features: 320,
        classes: Some(10),
    }
}

fn loaded(config: &EfficientNetConfig, size: usize, file: &Path, device: &Device) -> EfficientNet {
    let weights = open_weights(file).expect("weights");
    efficientnet::load(config, size, weights, device).expect("all keys")
}

/// The input picture of the script.
fn picture(size: usize, device: &Device) -> Tensor<4> {
    let mut values = vec![];
    for c in 0..3 {
        for y in 0..size {
            for x in 0..size {
                let (c, y, x) = (c as f64, y as f64, x as f64);
                values.push((0.11 * x * (c + 1.0) + 0.07 * y + 0.9 * c).sin() as f32);
            }
        }
    }
    Tensor::from_data(TensorData::new(values, [1, 3, size, size]), device)
}

fn numbers(value: &Value) -> Vec<f32> {
    let values = value.as_array().expect("an array").iter();
    values
        .map(|v| v.as_f64().expect("a number") as f32)
        .collect()
}

/// Maximum absolute difference, relative to the maximum absolute value.
fn error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let pairs = found.iter().zip(expected);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

fn compare(net: &EfficientNet, expected: &str, device: &Device) {
    let text = std::fs::read_to_string(fixture(expected)).expect("the fixture");
    let expected: Value = serde_json::from_str(&text).expect("JSON");
    let size = expected["size"].as_u64().expect("a size") as usize;
    let every = expected["every"].as_u64().unwrap_or(1) as usize;
    let features = net.features(picture(size, device));
    let shape: Vec<usize> = features.dims()[1..].to_vec();
    assert_eq!(serde_json::json!(shape), expected["shape"]);
    let logits = net.classify(features.clone()).expect("a classifier");
    let found: Vec<f32> = features.into_data().iter::<f32>().step_by(every).collect();
    let off = error(&found, &numbers(&expected["features"]));
    assert!(off < 1e-4, "features: {off}");
    let found: Vec<f32> = logits.into_data().iter::<f32>().collect();
    let off = error(&found, &numbers(&expected["logits"]));
    assert!(off < 1e-4, "logits: {off}");
}

#[test]
fn a_tiny_network_gives_what_pytorch_gives() {
    let device = device(DeviceChoice::Cpu);
    let net = loaded(&tiny(), 54, &fixture("tiny.pth"), &device);
    compare(&net, "tiny.json", &device);
}

#[test]
fn wgpu_gives_what_pytorch_gives() {
    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP gpu: EMU_TEST_GPU is not 1");
        return;
    }
    let device = device(DeviceChoice::Gpu);
    let net = loaded(&tiny(), 54, &fixture("tiny.pth"), &device);
    compare(&net, "tiny.json", &device);
}

/// Tests the published weights, if the file is available (`tests/peers/README.md`).
#[test]
fn lite2_gives_what_pytorch_gives() {
    let file = std::env::var_os("EMU_EFFICIENTNET").map(PathBuf::from);
    let file = file.or_else(|| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/efficientnet");
        let mut files = std::fs::read_dir(folder)
            .ok()?
            .filter_map(Result::ok)
            .map(|e| e.path());
        files.find(|path| path.extension().is_some_and(|e| e == "pth"))
    });
    let Some(file) = file else {
        println!("SKIP unit: the weights of EfficientNet-Lite2 are not here");
        return;
    };
    let device = device(DeviceChoice::Cpu);
    let net = loaded(&EfficientNetConfig::lite2(), 260, &file, &device);
    compare(&net, "lite2.json", &device);
}

#[test]
fn checkpoints_of_other_networks_are_refused() {
    let device = device(DeviceChoice::Cpu);
    let mut other = tiny();
    other.stages[1].outputs = 32;
    let weights = open_weights(fixture("tiny.pth")).expect("weights");
    let refused = efficientnet::load(&other, 54, weights, &device).map(|_| ());
    assert_eq!(refused.expect_err("misshapen").code(), "keys");
}
