use burn::tensor::read_sync as block_on;

use super::*;
use crate::diffusion::{UnetConfig, VaeConfig};

fn tiny() -> (DecoderConfig, Decoder) {
    let mut config = DecoderConfig::emu_mini(2, 8);
    config.unet = UnetConfig {
        channels: vec![8, 8, 16],
        heads: vec![1, 2, 2],
        norm_groups: 4,
        ..config.unet
    };
    config.vae = VaeConfig {
        channels: vec![4, 8],
        norm_groups: 2,
        ..config.vae
    };
    config.steps = 3;
    let _sequence = emu_kernels::init::seed(3);
    let decoder = config.init(&Device::flex()).unwrap();
    (config, decoder)
}

fn condition(b: usize) -> Tensor<3> {
    Tensor::from_data(
        TensorData::new(
            (0..b * 16).map(|i| (i as f32).sin()).collect::<Vec<_>>(),
            [b, 2, 8],
        ),
        &Device::flex(),
    )
}

#[test]
fn draws_any_size_and_reports_each_step() {
    let (config, decoder) = tiny();
    for (width, height) in [(64, 64), (36, 20), (4, 4)] {
        for sampler in [
            SchedulerKind::Pndm,
            SchedulerKind::Ddim,
            SchedulerKind::DpmSolver,
        ] {
            let options = DrawOptions {
                width,
                height,
                sampler,
                ..DrawOptions::new(&config, 1)
            };
            let mut draw = Denoise::new(&decoder, &config, condition(1), None, &options).unwrap();
            let mut seen = 0;
            while !draw.is_done() {
                let progress = block_on(draw.step(Preview::None)).unwrap();
                seen += 1;
                assert_eq!(progress.step, seen);
            }
            assert_eq!(draw.progress().1, seen);
            let pictures = block_on(draw.pictures()).unwrap();
            assert_eq!(pictures[0].dimensions(), (width as u32, height as u32));
        }
    }
}

#[test]
fn pictures_depend_on_their_seed_alone() {
    let (config, decoder) = tiny();
    let draw = |b: usize, seed: u64| {
        let options = DrawOptions {
            width: 16,
            height: 16,
            ..DrawOptions::new(&config, seed)
        };
        let one = condition(1).expand([b, 2, 8]);
        block_on(
            Denoise::new(&decoder, &config, one, None, &options)
                .unwrap()
                .run(),
        )
        .unwrap()
    };
    assert_eq!(draw(1, 5), draw(1, 5));
    assert_ne!(draw(1, 5), draw(1, 6));
    let pair = draw(2, 5);
    assert_ne!(pair[0], pair[1]);
}

#[test]
fn guidance_of_one_is_the_condition_alone() {
    let (config, decoder) = tiny();
    let latents = seeded_latents(2, [1, 4, 4, 4], &Device::flex());
    let first = |guidance: f64| {
        let options = DrawOptions {
            guidance,
            ..DrawOptions::new(&config, 0)
        };
        let draw = Denoise::from_latents(
            &decoder,
            &config,
            condition(1),
            None,
            &options,
            latents.clone(),
        )
        .unwrap();
        draw.evaluate().unwrap()
    };
    let off = (first(1.0) - first(1.000_000_1))
        .abs()
        .max()
        .into_scalar::<f32>();
    assert!(off < 1e-5, "{off}");
    assert!((first(1.0) - first(5.0)).abs().max().into_scalar::<f32>() > 1e-5);
}

#[test]
fn previews_have_their_sizes() {
    let (mut config, decoder) = tiny();
    config.latent_rgb = Some(vec![[0.3; 3]; 4]);
    let options = DrawOptions {
        width: 32,
        height: 16,
        ..DrawOptions::new(&config, 1)
    };
    let mut draw = Denoise::new(&decoder, &config, condition(2), None, &options).unwrap();
    let rough = block_on(draw.step(Preview::Rough)).unwrap().previews;
    let full = block_on(draw.step(Preview::Decoded)).unwrap().previews;
    assert_eq!((rough.len(), rough[0].dimensions()), (2, (8, 4)));
    assert_eq!((full.len(), full[0].dimensions()), (2, (32, 16)));
}

#[test]
fn bad_requests_are_named() {
    let (config, decoder) = tiny();
    let good = DrawOptions::new(&config, 0);
    for (options, code) in [
        (
            DrawOptions {
                width: 66,
                ..good.clone()
            },
            "picture-size",
        ),
        (
            DrawOptions {
                height: 0,
                ..good.clone()
            },
            "picture-size",
        ),
        (
            DrawOptions {
                height: 1 << 20,
                ..good.clone()
            },
            "picture-size",
        ),
        (
            DrawOptions {
                guidance: f64::INFINITY,
                ..good.clone()
            },
            "bad-option",
        ),
        (
            DrawOptions {
                steps: 0,
                ..good.clone()
            },
            "bad-option",
        ),
        (
            DrawOptions {
                steps: 5000,
                ..good.clone()
            },
            "bad-option",
        ),
        (
            DrawOptions {
                steps: usize::MAX,
                ..good.clone()
            },
            "bad-option",
        ),
        (
            DrawOptions {
                guidance: f64::NAN,
                ..good.clone()
            },
            "bad-option",
        ),
        (
            DrawOptions {
                guidance: -1.0,
                ..good.clone()
            },
            "bad-option",
        ),
        (
            DrawOptions {
                guidance: 1e9,
                ..good.clone()
            },
            "bad-option",
        ),
    ] {
        let error = Denoise::new(&decoder, &config, condition(1), None, &options).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(options.validate(&config).unwrap_err().code(), code);
    }
    let narrow: Tensor<3> = Tensor::zeros([1, 2, 7], &Device::flex());
    let error = Denoise::new(&decoder, &config, narrow.clone(), None, &good).unwrap_err();
    assert_eq!(error.code(), "condition-shape");
    let error = Denoise::new(&decoder, &config, condition(1), Some(narrow), &good).unwrap_err();
    assert!(error.to_string().contains("negative"), "{error}");
    let start: Tensor<4> = Tensor::zeros([1, 3, 4, 4], &Device::flex());
    let error =
        Denoise::from_latents(&decoder, &config, condition(1), None, &good, start).unwrap_err();
    assert_eq!(error.code(), "condition-shape");
}

#[test]
fn broken_weights_are_told() {
    let (config, decoder) = tiny();
    let bad = Tensor::full([1, 4, 4, 4], f32::NAN, &Device::flex());
    assert_eq!(
        block_on(decode_latents(&decoder, &config, bad))
            .unwrap_err()
            .code(),
        "not-finite"
    );
}
