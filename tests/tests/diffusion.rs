//! The diffusion decoder against golden outputs of the reference implementation, and its key maps against the published
//! checkpoints.

use std::collections::BTreeMap;

use emu_kernels::device::{DeviceChoice, open};
use emu_model::diffusion::{UnetConfig, VaeConfig, keys};
use emu_model::parity::Goldens;
use emu_model::parity::diffusion::{Published, Reference};
use emu_model::safety::SafetyConfig;
use emu_model::weights;
use emu_pack::{KeyMap, Mapped, TensorInfo, TensorSource};
use emu_tests::compare::assert_rows;
use emu_tests::reference::{file_or_skip, fixtures, json, tensors};
use serde_json::Value;

/// Compares every golden output of the decoder on one backend.
fn goldens(test: &str, choice: DeviceChoice) {
    let Some(unet) = file_or_skip(test, "tiny-unet/diffusion_pytorch_model.safetensors") else {
        return;
    };
    let at = |name: &str| fixtures().join(name);
    let (unet, unet_config) = (tensors(&unet), json(&at("tiny-unet/config.json")));
    let vae = tensors(&at("tiny-vae/diffusion_pytorch_model.safetensors"));
    let vae_config = json(&at("tiny-vae/config.json"));
    let safety = tensors(&at("tiny-safety-checker/model.safetensors"));
    let safety_config = json(&at("tiny-safety-checker/config.json"));
    let pndm = json(&at("tiny-schedulers/pndm/scheduler_config.json"));
    let ddim = json(&at("tiny-schedulers/ddim/scheduler_config.json"));
    let extractor =
        std::fs::read(at("tiny-feature-extractor/preprocessor_config.json")).expect("fixture");
    let (numbers, texts) = (
        tensors(&at("tiny-sd-golden.safetensors")),
        json(&at("tiny-sd-golden.json")),
    );
    let reference = Reference {
        goldens: Goldens {
            tensors: &numbers,
            json: &texts,
        },
        unet: Published {
            config: &unet_config,
            weights: &unet,
        },
        vae: Published {
            config: &vae_config,
            weights: &vae,
        },
        safety: Published {
            config: &safety_config,
            weights: &safety,
        },
        pndm: &pndm,
        ddim: &ddim,
        extractor: &extractor,
    };

    let device = open(choice).expect("a device").device;
    let mut rows = reference
        .forward(&device)
        .expect("the reference is complete");
    rows.extend(
        reference
            .training(&device.autodiff())
            .expect("the reference is complete"),
    );
    assert_rows(test, &rows);

    // Complete: every golden tensor is compared or is an input.
    let compared: Vec<&str> = rows.iter().map(|row| row.tensor.as_str()).collect();
    let names = numbers.tensors().iter().map(|info| info.name.as_str());
    let left: Vec<&str> = names
        .filter(|n| !compared.contains(n) && !Reference::inputs().contains(n))
        .collect();
    assert!(
        left.is_empty(),
        "goldens that nothing was compared with: {left:?}"
    );
}

#[test]
fn goldens_on_the_cpu() {
    goldens("goldens-decoder-flex", DeviceChoice::Cpu);
}

#[test]
fn goldens_on_wgpu() {
    if std::env::var("EMU_TEST_GPU").as_deref() == Ok("1") {
        goldens("goldens-decoder-wgpu", DeviceChoice::Gpu);
    } else {
        println!("SKIP goldens-decoder-wgpu: EMU_TEST_GPU is not 1");
    }
}

/// The tensors in a key list.
fn listed(keys: &Value) -> Vec<TensorInfo> {
    let entries = keys.as_object().expect("a table of keys");
    let info = |(name, entry): (&String, &Value)| TensorInfo {
        name: name.clone(),
        dtype: emu_pack::Dtype::F32,
        shape: serde_json::from_value(entry[0].clone()).expect("a shape"),
    };
    entries.iter().map(info).collect()
}

/// Every key maps to one parameter of its shape, every parameter to one key, and the key map works in both directions.
fn keys_match(list: &Value, parameters: &[(String, Vec<usize>)], map: &KeyMap) {
    let checkpoint = listed(&list["keys"]);
    let plan = emu_pack::check(&checkpoint, parameters, map).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(plan.entries().len(), checkpoint.len());
    let shapes: BTreeMap<&str, &[usize]> = checkpoint
        .iter()
        .map(|info| (info.name.as_str(), info.shape.as_slice()))
        .collect();
    for (name, shape) in parameters {
        let key = map
            .to_checkpoint(name)
            .unwrap_or_else(|| panic!("{name} has no key"));
        assert_eq!(
            shapes.get(key.as_str()),
            Some(&shape.as_slice()),
            "{name} -> {key}"
        );
        assert_eq!(map.to_model(&key), Some(Mapped::Name(name.clone())));
    }
}

fn device() -> emu_kernels::burn::tensor::Device {
    open(DeviceChoice::Cpu).expect("the CPU").device
}

#[test]
fn keys_of_stable_diffusions_unet() {
    let list = json(&fixtures().join("keys-sd15-unet.json"));
    let config = UnetConfig::from_diffusers(&list["config"]).expect("supported");
    assert_eq!(config, UnetConfig::emu_14b());
    let unet = config.init(&device()).expect("valid");
    keys_match(
        &list,
        &weights::parameters(&unet),
        &keys::unet().expect("rules"),
    );
}

#[test]
fn keys_of_stable_diffusions_vae() {
    let list = json(&fixtures().join("keys-sd15-vae.json"));
    let config = VaeConfig::from_diffusers(&list["config"]).expect("supported");
    assert_eq!(config, VaeConfig::emu_14b());
    let parameters = weights::parameters(&config.init(&device()).expect("valid"));
    let map = keys::vae().expect("rules");
    keys_match(&list, &parameters, &map);

    // The newer key names of the attention map to the same parameters.
    let aliases = list["aliases"].as_object().expect("aliases");
    let mut newer = listed(&list["keys"]);
    for info in &mut newer {
        if let Some(alias) = aliases.get(&info.name) {
            assert_eq!(
                map.to_model(alias.as_str().expect("a name")),
                map.to_model(&info.name)
            );
            info.name = alias.as_str().expect("a name").into();
        }
    }
    emu_pack::check(&newer, &parameters, &map).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn keys_of_the_safety_checker() {
    let list = json(&fixtures().join("keys-safety-checker.json"));
    let config = SafetyConfig::from_transformers(&list["config"]).expect("supported");
    assert_eq!(config, SafetyConfig::emu_14b());
    let parameters = weights::parameters(&config.init(&device()).expect("valid"));
    let map = keys::safety().expect("rules");
    keys_match(&list, &parameters, &map);
    for key in list["optional"].as_object().expect("optional keys").keys() {
        assert_eq!(map.to_model(key), Some(Mapped::Ignored));
    }
}

#[test]
fn a_wrong_checkpoint_is_named() {
    let config = json(&fixtures().join("tiny-vae/config.json"));
    let config = VaeConfig::from_diffusers(&config).expect("supported");
    let source = tensors(&fixtures().join("tiny-vae/diffusion_pytorch_model.safetensors"));
    let (device, map) = (device(), keys::vae().expect("rules"));
    for (bad, needle) in [
        (
            VaeConfig {
                channels: vec![16, 32, 32],
                ..config.clone()
            },
            "unused (decoder.up_blocks.2.upsamplers",
        ),
        (
            VaeConfig {
                layers_per_block: 3,
                ..config.clone()
            },
            "64 missing (encoder.down_blocks.0.resnets.2",
        ),
        (
            VaeConfig {
                mid_attention: false,
                ..config.clone()
            },
            "mid_block.attentions.0",
        ),
        (
            VaeConfig {
                latent_channels: 8,
                ..config.clone()
            },
            "misshapen (",
        ),
    ] {
        let parameters = weights::parameters(&bad.init(&device).expect("valid"));
        let error = emu_pack::check(source.tensors(), &parameters, &map)
            .expect_err("does not fit")
            .to_string();
        assert!(error.contains(needle), "{error}");
    }
}
