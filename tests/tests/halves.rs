//! An f16 pack on each device against the same values as dense f32 matrices. A GPU keeps its matrices packed; the CPU and
//! autodiff devices do not.

use std::path::PathBuf;

use emu_kernels::burn::tensor::{Device, Int, Tensor, TensorData as BurnData, read_sync};
use emu_kernels::device::{DeviceChoice, open};
use emu_kernels::random::{Philox, Stream};
use emu_model::diffusion::{Denoise, DrawOptions, Preview};
use emu_model::pack::{self, ModelConfig};
use emu_model::weights;
use emu_pack::{PackError, PackReader, TensorData};

fn mini() -> PackReader {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/emu-mini");
    PackReader::open(folder).expect("the shipped pack")
}

/// A tensor of the pack in f32, which stays dense on every device.
fn widened(reader: &PackReader, name: &str) -> Result<TensorData, PackError> {
    let tensor = reader.read_logical(name)?;
    TensorData::from_f32(name, tensor.info.shape.clone(), &tensor.to_f32()?)
}

/// Maximum difference relative to the maximum value; infinite if a value is not finite.
fn difference<const D: usize>(got: Tensor<D>, want: Tensor<D>) -> f64 {
    let [got, want] = [got, want].map(|x| x.into_data().iter::<f64>().collect::<Vec<_>>());
    if got.len() != want.len() || got.iter().any(|g| !g.is_finite()) {
        return f64::INFINITY;
    }
    let most = want.iter().fold(0.0f64, |most, w| most.max(w.abs()));
    let pairs = got.iter().zip(&want);
    pairs.fold(0.0f64, |worst, (g, w)| worst.max((g - w).abs())) / most
}

fn ids(tokens: &[i32], device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(BurnData::new(tokens.to_vec(), [1, tokens.len()]), device)
}

/// Compares outputs of the model loaded from the pack and from f32 values. Checks whether its matrices are `packed`.
fn the_same_as_dense(device: &Device, packed: bool) {
    let reader = mini();
    let config = ModelConfig::from_value(&reader.manifest().config).expect("a config");
    let emu = pack::load_emu(&reader, &config.emu, device).expect("loaded");
    let new = config.emu.init(device).expect("a model");
    let dense = weights::load(new, device, |name| widened(&reader, name)).expect("loaded");
    assert_eq!(emu.lm.embed_tokens.is_packed(), packed);
    assert_eq!(emu.lm.layers[0].mlp.fused_gate_up.is_some(), packed);
    assert!(!dense.lm.embed_tokens.is_packed());
    let norms = 4 * (config.emu.lm.width * (2 * config.emu.lm.layers + 1)) as u64;
    let [ours, theirs] = [&emu, &dense].map(|emu| emu.lm.weight_bytes() - norms);
    assert_eq!(ours * if packed { 2 } else { 1 }, theirs);

    // A picture, a prompt of many tokens, then single tokens.
    let side = config.emu.vision.image_size;
    let pixels = Philox::new(3, Stream::Init, 0).normals(3 * side * side);
    let picture = Tensor::<4>::from_data(BurnData::new(pixels, [1, 3, side, side]), device);
    let [ours, theirs] = [&emu, &dense].map(|emu| emu.embed_images(picture.clone()));
    let error = difference(ours.clone(), theirs);
    assert!(error < 1e-5, "embeddings of a picture: {error:e}");

    let [mut ours, mut theirs] = [&emu, &dense].map(|emu| emu.lm.cache(1, 40));
    let prompt: Vec<i32> = (0..23).map(|i| 5 + 37 * i).collect();
    for tokens in [&prompt[..], &[17], &[900]] {
        let step = |emu: &emu_model::Emu, cache| {
            let hidden = emu
                .lm
                .step_tokens(ids(tokens, device), cache)
                .expect("room");
            let next = emu.lm.regress(hidden.clone()).expect("a head");
            (emu.lm.logits(hidden), next)
        };
        let (a, b) = (step(&emu, &mut ours), step(&dense, &mut theirs));
        let errors = [difference(a.0, b.0), difference(a.1, b.1)];
        assert!(errors.iter().all(|e| *e < 2e-5), "{errors:?}");
    }

    // Two denoising steps.
    let config = config.decoder.expect("it draws");
    let decoder = pack::load_decoder(&reader, &config, device).expect("loaded");
    let new = config.init(device).expect("a model");
    let dense = weights::load(new, device, |name| widened(&reader, name)).expect("loaded");
    let count = config.tokens * config.unet.context_width;
    let condition = Philox::new(4, Stream::Init, 0).normals(count);
    let shape = [1, config.tokens, config.unet.context_width];
    let condition = Tensor::<3>::from_data(BurnData::new(condition, shape), device);
    let [ours, theirs] = [&decoder, &dense].map(|decoder| {
        let options = DrawOptions::new(&config, 7);
        let mut walk = Denoise::new(decoder, &config, condition.clone(), None, &options)
            .expect("options that fit");
        for _ in 0..2 {
            read_sync(walk.step(Preview::None)).expect("a step");
        }
        walk.latents()
    });
    let error = difference(ours, theirs);
    assert!(error < 1e-4, "latents: {error:e}");

    // Unpacked weights are bit-identical, including those of stacked matrices.
    let (ours, theirs) = (weights::to_map(&emu.lm), weights::to_map(&decoder));
    assert!(ours.len() > 30 && theirs.len() > 30);
    for (name, tensor) in ours {
        let want = widened(&reader, &format!("lm.{name}")).expect("a tensor");
        assert_eq!(tensor.bytes, want.bytes, "{name}");
    }
    for (name, tensor) in theirs {
        assert_eq!(
            tensor.bytes,
            widened(&reader, &name).expect("a tensor").bytes,
            "{name}"
        );
    }
}

#[test]
fn halves_on_the_cpu_are_dense() {
    the_same_as_dense(&Device::flex(), false);
}

#[test]
fn halves_stay_packed_on_wgpu() {
    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP halves-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    let device = open(DeviceChoice::Gpu).expect("an adapter").device;
    the_same_as_dense(&device, true);
    // Training uses dense weights.
    let (reader, device) = (mini(), device.autodiff());
    let config = ModelConfig::from_value(&reader.manifest().config).expect("a config");
    let emu = pack::load_emu(&reader, &config.emu, &device).expect("loaded");
    assert!(!emu.lm.embed_tokens.is_packed());
    assert!(emu.lm.embed_tokens.weight.is_initialized());
}

#[test]
fn the_comparison_sees_what_is_wrong() {
    let device = Device::flex();
    let x = Tensor::<1>::from_floats([1.0, -2.0, 0.5], &device);
    assert_eq!(difference(x.clone(), x.clone()), 0.0);
    assert_eq!(difference(x.clone().add_scalar(0.5), x.clone()), 0.25);
    assert_eq!(difference(x.clone().mul_scalar(f32::NAN), x), f64::INFINITY);
}
