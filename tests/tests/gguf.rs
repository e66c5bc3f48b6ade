//! A small GGUF language model against llama.cpp: the effect of its rope settings on the next-token probabilities.
//! `fixtures/gguf/README.md` says how the reference outputs were made.

use std::path::Path;

use emu_kernels::burn::tensor::{Device, Int, Tensor, TensorData as Data, activation, read_sync};
use emu_model::TextModel;
use emu_model::lm::Visibility;
use emu_pack::convert::GgufFile;
use emu_pack::{InMemory, TensorData, TensorSource};
use emu_tests::reference::json;
use serde_json::{Value, json};

/// Tolerance for probabilities up to 0.55. Our full forward pass and our decoding steps agree to 1e-6, llama.cpp is up to
/// 5e-4 away. Without the rope factors the distance is 0.19, without the linear scale 0.54.
const TOLERANCE: f32 = 1e-3;

fn numbers(value: &Value) -> Vec<f32> {
    let list = value.as_array().expect("a list").iter();
    list.map(|v| v.as_f64().expect("a number") as f32).collect()
}

/// Next-token probabilities after the prompt, from one pass over all positions and from steps through the KV cache.
fn probabilities(model: &TextModel, prompt: &[i32]) -> [Vec<f32>; 2] {
    let (lm, device) = (&model.lm, Device::flex());
    let steps = prompt.len();
    let ids = Tensor::<2, Int>::from_data(Data::new(prompt.to_vec(), [1, steps]), &device);
    let last = |hidden: Tensor<3>| {
        let [_, steps, _] = hidden.dims();
        let logits = lm.logits(hidden.narrow(1, steps - 1, 1));
        let values = read_sync(activation::softmax(logits, 2).into_data_async());
        values.expect("numbers").try_to_vec().expect("f32")
    };
    let positions = vec![(0..steps).collect()];
    let whole = last(lm.forward(lm.embed(ids.clone()), &positions, &Visibility::All));
    let mut cache = lm.cache(1, steps);
    let mut step = |ids| lm.step_tokens(ids, &mut cache).expect("room in the cache");
    let mut hidden = step(ids.clone().narrow(1, 0, 5));
    for at in 5..steps {
        hidden = step(ids.clone().narrow(1, at, 1));
    }
    [whole, last(hidden)]
}

#[test]
fn rotary_factors_and_scales_are_those_of_llama_cpp() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/gguf");
    let file = GgufFile::open(folder.join("llama3.gguf")).expect("a GGUF file");
    let golden = json(&folder.join("rope.json"));
    let prompt: Vec<i32> = numbers(&golden["prompt"])
        .iter()
        .map(|id| *id as i32)
        .collect();
    let factors = numbers(&golden["factors"]);
    let all = || -> Vec<TensorData> {
        let names = file.tensors().iter().map(|info| info.name.clone());
        names
            .map(|name| file.read(&name).expect("a tensor"))
            .collect()
    };
    let mut linear = file.metadata().clone();
    linear.insert("llama.rope.scaling.type".into(), json!("linear"));
    linear.insert("llama.rope.scaling.factor".into(), golden["linear"].clone());
    let with = |factors: &[f32]| {
        let factors = TensorData::from_f32("rope_freqs.weight", vec![factors.len()], factors);
        let mut tensors = all();
        tensors.push(factors.expect("a tensor"));
        InMemory::new(tensors).expect("tensors")
    };
    let plain = InMemory::new(all()).expect("tensors");
    for (kind, metadata, source) in [
        ("plain", file.metadata(), &plain),
        ("freqs", file.metadata(), &with(&factors)),
        ("linear", &linear, &plain),
    ] {
        let model = TextModel::from_gguf(metadata, source, &Device::flex()).expect("a model");
        let wanted = numbers(&golden["probabilities"][kind]);
        for found in probabilities(&model, &prompt) {
            assert_eq!(found.len(), wanted.len());
            let worst = { found.iter().zip(&wanted) }
                .map(|(found, wanted)| (found - wanted).abs())
                .fold(0.0, f32::max);
            assert!(worst < TOLERANCE, "{kind}: {worst}");
        }
    }
    // Invalid rope factors.
    for wrong in [&[1.0][..], &[0.0; 8], &[f32::NAN; 8]] {
        let model = TextModel::from_gguf(file.metadata(), &with(wrong), &Device::flex());
        let message = model.expect_err("no factors").to_string();
        assert!(message.contains("rope_freqs.weight"), "{message}");
    }
}
