use std::path::Path;

use super::*;

fn paper(name: &str) -> TrainConfig {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/train/paper");
    TrainConfig::read(folder.join(name)).unwrap()
}

fn part<'n>(needs: &'n Needs, name: &str) -> &'n PartNeeds {
    let found = needs.parts.iter().find(|part| part.name == name);
    found.unwrap_or_else(|| panic!("{name} in {:?}", needs.parts))
}

#[test]
fn pretraining_of_the_released_sizes() {
    let found = needs(&paper("pretrain.toml")).unwrap();
    let layers = part(&found, "lm.layers");
    // 40 layers of four matrices 5120 x 5120, three of 5120 x 13824, and two norms
    assert_eq!(layers.parameters, 12_688_179_200);
    assert_eq!(layers.trainable, layers.parameters);
    assert_eq!(part(&found, "lm.embed_tokens").parameters, 32_004 * 5120);
    let visual = part(&found, "visual").parameters;
    assert!((1_000_000_000..1_030_000_000).contains(&visual), "{visual}");
    let sum = found.sum();
    assert_eq!(sum.weights, 4 * sum.parameters);
    assert_eq!(
        (sum.gradients, sum.moments, sum.average),
        (sum.weights, 2 * sum.weights, 0)
    );
    // 16 bytes of each of 14.2 G parameters
    let resident = found.resident() as f64 / (16.0 * 14.2e9);
    assert!((resident - 1.0).abs() < 0.01, "{resident}");
    assert_eq!(found.checkpoint(), 3 * sum.weights);

    let batches =
        |field: fn(&BatchNeeds) -> usize| found.batches.iter().map(field).collect::<Vec<_>>();
    assert_eq!(batches(|b| b.samples), [128, 128, 64, 16, 16]);
    assert_eq!(batches(|b| b.pictures), [1, 1, 5, 8, 8]);
    assert_eq!(batches(|b| b.tokens), [100, 100, 1024, 338, 1024]);
    let largest = found
        .batches
        .iter()
        .map(BatchNeeds::activations)
        .max()
        .unwrap();
    assert_eq!(found.peak(), found.resident() + largest);
    assert!(!found.on_host);
}

#[test]
fn adapters_keep_gradients_of_adapters_only() {
    let found = needs(&paper("instruct.toml")).unwrap();
    // rank 16 on four matrices of 40 layers
    let adapters = 40 * 4 * 16 * (5120 + 5120);
    let sum = found.sum();
    assert_eq!(
        (part(&found, "lora").trainable, sum.trainable),
        (adapters, adapters)
    );
    assert_eq!((sum.gradients, sum.moments), (4 * adapters, 8 * adapters));
    assert_eq!(part(&found, "lm.embed_tokens").parameters, 32_006 * 5120);
    // A frozen encoder keeps nothing: the layers of the LM and the logits of the text are all.
    let sample = &found.batches[0];
    assert_eq!((sample.pictures, sample.tokens), (1, 1024));
    let lm = EmuConfig::emu_14b().instruct().lm;
    let expected = 4 * (40 * lm_layer(&lm, 1024, false, false) + 3 * (1024 - 34) * 32_006);
    assert_eq!(sample.sample_bytes, expected);
    assert_eq!(sample.fitting(10 * expected + 1), 10);
}

#[test]
fn the_decoder_trains_its_unet() {
    let found = needs(&paper("decoder.toml")).unwrap();
    let unet = part(&found, "unet");
    assert!(
        (960_000_000..975_000_000).contains(&unet.parameters),
        "{unet:?}"
    );
    assert_eq!(unet.trainable, unet.parameters);
    assert_eq!(
        (
            part(&found, "vae").trainable,
            part(&found, "null_prompt").gradients
        ),
        (0, 0)
    );
    let beside = found.beside as f64 / (4.0 * 14.2e9);
    assert!((beside - 1.0).abs() < 0.01, "{beside}");
    assert_eq!(found.batches.len(), 2);
    assert_eq!(
        (found.batches[0].samples, found.batches[0].tokens),
        (100, 32)
    );
    // On the CPU attention at 64 x 64 keeps its probabilities too: 8 heads of 4,096 x 4,128.
    let decoder = DecoderConfig::emu_14b();
    let more = decoder_sample(&decoder, true) - decoder_sample(&decoder, false);
    assert!(more > 5 * 4 * 8 * 4096 * 4128, "{more}");
}

/// The figures of the LM's layer at 1,024 tokens that the formulas were compared with, in MiB.
#[test]
fn a_layer_keeps_what_was_measured() {
    let lm = EmuConfig::emu_14b().lm;
    let mib = |learns, on_host| (4 * lm_layer(&lm, 1024, learns, on_host)) >> 20;
    assert_eq!([mib(true, false), mib(false, false)], [490, 376]);
    assert_eq!([mib(true, true), mib(false, true)], [542, 428]);
}

#[test]
fn what_learns_decides_what_is_kept() {
    let emu = EmuConfig::emu_mini(1009, EmuConfig::tiny().special);
    let kept = |learning: &[&str]| {
        let learns = Learns(learning.iter().map(|name| (*name).into()).collect());
        emu_sample(&emu, &learns, 1, 60, false)
    };
    let head = kept(&["lm.lm_head.weight"]);
    let adapters = kept(&["lm.layers.0.self_attn.q_proj.lora.a"]);
    let layers = kept(&["lm.layers.0.mlp.up_proj.weight"]);
    let former = kept(&["cformer.projection.weight"]);
    let all = kept(&["visual.stem.weight", "lm.layers.0.mlp.up_proj.weight"]);
    assert!(head < adapters && adapters < layers && adapters < former && layers < all);
    assert_eq!(head, 4 * 3 * (60 - 18) * 1009);
}

#[test]
fn an_average_and_the_host_are_counted() {
    let mut config = paper("instruct.toml");
    let before = needs(&config).unwrap();
    config.ema = Some(crate::config::EmaConfig { decay: 0.999 });
    config.device = DeviceChoice::Cpu;
    let after = needs(&config).unwrap();
    assert_eq!(after.sum().average, 4 * after.sum().trainable);
    assert!(after.on_host && !before.on_host);
    assert!(after.batches[0].sample_bytes > before.batches[0].sample_bytes);
}

#[test]
fn other_stages_are_refused() {
    let mut config = paper("instruct.toml");
    config.stage = "vae".into();
    let error = needs(&config).unwrap_err().to_string();
    assert!(error.contains("--check"), "{error}");
}
