//! Kernels with and without subgroups against a naive f64 reference, at sizes where the variants differ most.

use emu_kernels::burn::tensor::{Device, Tensor, TensorData};
use emu_kernels::device::{self, DeviceChoice};
use emu_kernels::ops;
use emu_kernels::packed::{BLOCK, Packed, Scheme};
use emu_kernels::random::{Philox, Stream};
use emu_kernels::sample::{Processors, Sampler, Sampling};
use emu_kernels::variants;
use half::f16;

fn random<const D: usize>(seed: u32, shape: [usize; D], device: &Device) -> (Tensor<D>, Vec<f64>) {
    let values = Philox::with_stream(31, seed, 0).normals(shape.iter().product());
    let wide = values.iter().map(|&v| f64::from(v)).collect();
    let data = TensorData::new(values, shape);
    (Tensor::from_data(data, device), wide)
}

fn difference<const D: usize>(got: Tensor<D>, want: &[f64]) -> f64 {
    let got: Vec<f64> = got.into_data().iter::<f64>().collect();
    if got.len() != want.len() || got.iter().any(|g| !g.is_finite()) {
        return f64::INFINITY;
    }
    let differences = got.iter().zip(want).map(|(g, w)| (g - w).abs());
    differences.fold(0.0, f64::max)
}

/// A packed matrix, and its values.
fn matrix(
    scheme: Scheme,
    [out, width]: [usize; 2],
    random: &mut Philox,
    device: &Device,
) -> (Packed, Vec<f64>) {
    let blocks = out * width / BLOCK;
    let mut bits = || (random.uniform() * 65_536.0) as u32;
    let words: Vec<u32> = (0..blocks * scheme.words())
        .map(|_| bits() | bits() << 16)
        // f16 magnitudes from 1 / 64 to 1 / 32, either sign.
        .map(|word| match scheme {
            Scheme::F16 => word & 0x83ff_83ff | 0x2400_2400,
            _ => word,
        })
        .collect();
    // 1 / 1024 or 1 / 64; -1 / 8
    let (scale, step) = match scheme {
        Scheme::Q8 => (0x1400, 1.0 / 1024.0),
        _ => (0x2400, 1.0 / 64.0),
    };
    let scales = vec![scale; if scheme.has_scales() { blocks } else { 0 }];
    let mins = vec![0xb000; blocks];
    let mins = scheme.has_mins().then_some(&mins[..]);
    let packed = Packed::new(scheme, [out, width], &words, &scales, mins, device);
    let per = 32 / scheme.bits();
    let value = |at: usize| {
        let stored = words[at / per] >> (at % per * scheme.bits());
        match scheme {
            Scheme::F16 => f16::from_bits(stored as u16).to_f64(),
            Scheme::Q8 => f64::from(stored as u8 as i8) * step,
            Scheme::Q4 => f64::from(((stored << 28) as i32) >> 28) * step,
            Scheme::Q4_1 => f64::from(stored & 15) * step - 0.125,
        }
    };
    let values = (0..out * width).map(value).collect();
    (packed.expect("parts that fit"), values)
}

/// Products with rows wide enough for a workgroup each, mostly with few rows of `x`.
fn wide_products(device: &Device) {
    let mut bits = Philox::new(1, Stream::Init, 0);
    for (scheme, out, width, rows) in [
        (Scheme::Q8, 3, 1536, 1),
        (Scheme::Q4, 70, 1568, 2),
        (Scheme::Q4_1, 6, 2144, 3),
        (Scheme::F16, 6, 1568, 3),
        (Scheme::Q8, 9, 1984, 8),
        (Scheme::Q4, 4100, 1536, 1),
        (Scheme::Q4, 2, 5120, 5),
        (Scheme::Q4_1, 36, 1568, 33),
        (Scheme::Q8, 34, 1536, 17),
    ] {
        let what = format!("{scheme:?} {out} x {width}, {rows} rows");
        let (packed, ws) = matrix(scheme, [out, width], &mut bits, device);
        let (x, xs) = random(2, [rows, width], device);
        let product = |row: usize, of: usize| -> f64 {
            let (x, w) = (&xs[row * width..][..width], &ws[of * width..][..width]);
            x.iter().zip(w).map(|(x, w)| x * w).sum()
        };
        let (bias, bs) = random(3, [out], device);
        let (residual, rs) = random(4, [rows, out], device);
        let want: Vec<f64> = (0..rows * out)
            .map(|i| product(i / out, i % out) + bs[i % out] + rs[i])
            .collect();
        let got = packed.linear_add(x.clone(), Some(bias), residual);
        // Sums of thousands of terms of about one tenth.
        let error = difference(got, &want);
        assert!(error < 1e-4, "{what}: {error:e}");
        if out.is_multiple_of(2) {
            let half = out / 2;
            let want: Vec<f64> = (0..rows * half)
                .map(|i| {
                    let gate = product(i / half, i % half);
                    gate / (1.0 + (-gate).exp()) * product(i / half, half + i % half)
                })
                .collect();
            let scale = want.iter().fold(1.0f64, |most, w| most.max(w.abs()));
            let error = difference(packed.gated(x), &want) / scale;
            assert!(error < 1e-5, "gate of {what}: {error:e}");
        }
    }
}

/// Norms of rows shorter than a workgroup, longer by one, and far from zero.
fn norms(device: &Device) {
    for (rows, d) in [(1, 1), (2, 63), (3, 65), (1, 4099)] {
        let (x, xs) = random(5, [rows, d], device);
        let (x, xs) = (x + 3.0, xs.iter().map(|x| x + 3.0).collect::<Vec<_>>());
        let ((w, ws), (b, bs)) = (random(6, [d], device), random(7, [d], device));
        let mean = |row: &[f64]| row.iter().sum::<f64>() / d as f64;
        let layer = |row: &[f64]| -> Vec<f64> {
            let middle = mean(row);
            let squares: Vec<f64> = row.iter().map(|x| (x - middle).powi(2)).collect();
            let scale = 1.0 / (mean(&squares) + 1e-5).sqrt();
            let normed = row.iter().map(|x| (x - middle) * scale);
            normed
                .zip(ws.iter().zip(&bs))
                .map(|(x, (w, b))| x * w + b)
                .collect()
        };
        let want: Vec<f64> = xs.chunks(d).flat_map(layer).collect();
        let error = difference(ops::layer_norm(x.clone(), w.clone(), b, 1e-5), &want);
        assert!(error < 2e-5, "layer norm of {rows} x {d}: {error:e}");
        let root = |row: &[f64]| -> Vec<f64> {
            let squares: Vec<f64> = row.iter().map(|x| x * x).collect();
            let scale = 1.0 / (mean(&squares) + 1e-5).sqrt();
            row.iter().zip(&ws).map(|(x, w)| x * scale * w).collect()
        };
        let want: Vec<f64> = xs.chunks(d).flat_map(root).collect();
        let error = difference(ops::rms_norm(x, w, 1e-5), &want);
        assert!(error < 2e-5, "norm of {rows} x {d}: {error:e}");
    }
    // Groups with workgroups of 64 and of 256 invocations.
    for (c, groups, side) in [(6, 3, 5), (4, 2, 31)] {
        let (x, xs) = random(8, [2, c, side, side], device);
        let ((w, ws), (b, bs)) = (random(9, [c], device), random(10, [c], device));
        let (area, size) = (side * side, c / groups * side * side);
        let mut want = vec![];
        for (index, group) in xs.chunks(size).enumerate() {
            let mean = group.iter().sum::<f64>() / size as f64;
            let variance = group.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / size as f64;
            for (i, x) in group.iter().enumerate() {
                let channel = index % groups * (c / groups) + i / area;
                let z = (x - mean) / (variance + 1e-5).sqrt() * ws[channel] + bs[channel];
                want.push(z / (1.0 + (-z).exp()));
            }
        }
        let error = difference(ops::group_norm_silu(x, w, b, None, groups, 1e-5), &want);
        assert!(error < 2e-5, "{groups} groups of {c} x {side}: {error:e}");
    }
}

/// Tokens of vocabularies with many tokens per invocation, and with fewer tokens than invocations.
fn tokens(device: &Device) {
    for vocab in [5, 255, 40_001] {
        let (logits, values) = random(11, [1, 1, vocab], device);
        let narrow: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        for (temperature, top_k, top_p, min_p) in [
            (0.0, 0, 1.0, 0.0),
            (0.8, 3, 1.0, 0.0),
            (1.0, 0, 0.5, 0.0),
            (1.3, 50, 0.9, 0.0),
            (1.2, 0, 1.0, 0.2),
        ] {
            let sampling = Sampling {
                temperature,
                top_k,
                top_p,
                min_p,
            };
            let mut numbers = Philox::with_stream(3, 99, 0);
            let plain = Processors::default();
            let mut sampler = Sampler::new(
                plain,
                sampling.clone(),
                0,
                &[1],
                20,
                &mut numbers.clone(),
                device,
            );
            for step in 0..8 {
                // The first uniform number belongs to the token already in the history.
                let uniform = numbers.uniform();
                let got = sampler.sample(logits.clone(), None).into_data();
                let got = got.iter::<i64>().next().expect("a token") as u32;
                // A draw at the boundary of two tokens may fall on either side.
                let near = [-2e-5, 0.0, 2e-5].map(|e| sampling.sample(&narrow, uniform + e));
                assert!(
                    near.contains(&got),
                    "{vocab}, {sampling:?}, step {step}: {got}, not {near:?}"
                );
            }
        }
    }
}

#[test]
fn variants_on_wgpu() {
    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP variants-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    let device = device::open(DeviceChoice::Gpu).expect("an adapter").device;
    variants::each(|| {
        norms(&device);
        tokens(&device);
    });
    variants::each_of_all(|| wide_products(&device));

    // The variants are distinct kernels: another summation order differs in the last bits.
    if variants::has_subgroups() {
        let (x, _) = random(12, [64, 4099], &device);
        let norm = || ops::rms_norm(x.clone(), Tensor::ones([4099], &device), 1e-5).into_data();
        let trees = variants::with_subgroups(false, norm);
        let subgroups = variants::with_subgroups(true, norm);
        assert_ne!(trees, subgroups);
        assert_eq!(trees, variants::with_subgroups(false, norm));
    }

    // Same for the variants for software adapters.
    let (x, _) = random(13, [1, 4, 40, 64], &device);
    let attention = || {
        let x = x.clone();
        ops::attention(x.clone(), x.clone(), x, ops::AttentionOptions::default()).into_data()
    };
    let hardware = variants::with_software(false, attention);
    assert_ne!(hardware, variants::with_software(true, attention));
    assert_eq!(hardware, variants::with_software(false, attention));
}

/// Waits for a tensor by reading it back.
fn ended<const D: usize>(x: Tensor<D>) {
    let data = x.into_data();
    assert!(data.iter::<f32>().all(f32::is_finite));
}

/// Times of all variants in alternation, minimum of six runs: `--ignored`.
#[test]
#[ignore = "a measurement"]
fn costs_on_wgpu() {
    let device = device::open(DeviceChoice::Gpu).expect("an adapter").device;
    let mut bits = Philox::new(1, Stream::Init, 0);
    let compare = |what: &str, f: &dyn Fn()| {
        let mut least = [f64::INFINITY; 4];
        for _ in 0..6 {
            let mut kind = 0;
            variants::each_of_all(|| {
                let start = std::time::Instant::now();
                f();
                least[kind] = least[kind].min(start.elapsed().as_secs_f64() * 1e3);
                kind += 1;
            });
        }
        println!("{what}: {least:.2?} ms");
    };
    println!("hardware, with subgroups, software, with subgroups");
    for (heads, n, head) in [(16, 256, 64), (8, 256, 40), (6, 256, 32), (4, 256, 96)] {
        let (x, _) = random(14, [1, heads, n, head], &device);
        compare(&format!("attention {heads} x {n} x {head}"), &|| {
            let x = x.clone();
            let options = ops::AttentionOptions::default();
            ended(ops::attention(x.clone(), x.clone(), x, options));
        });
    }
    for scheme in [Scheme::Q4, Scheme::Q8, Scheme::F16] {
        let (packed, _) = matrix(scheme, [2048, 2048], &mut bits, &device);
        for rows in [1, 4, 32, 256] {
            let (x, _) = random(15, [rows, 2048], &device);
            compare(&format!("{scheme:?} 2048 x 2048, {rows} rows"), &|| {
                ended(packed.linear(x.clone(), None));
            });
        }
    }
}

#[test]
fn variants_are_asked_for_within_a_scope() {
    // Opened first: another test may open the device concurrently, which changes the default variants.
    if std::env::var("EMU_TEST_GPU").as_deref() == Ok("1") {
        device::open(DeviceChoice::Gpu).expect("an adapter");
    }
    let before = variants::subgroups();
    variants::with_subgroups(true, || {
        assert_eq!(variants::wide_subgroups(), variants::has_subgroups());
        variants::with_subgroups(false, || {
            assert!(!variants::subgroups() && !variants::wide_subgroups());
        });
        assert_eq!(variants::subgroups(), variants::has_subgroups());
    });
    let failed = std::panic::catch_unwind(|| variants::with_subgroups(!before, || panic!("once")));
    assert!(failed.is_err());
    assert_eq!(variants::subgroups(), before);

    let before = variants::software();
    for on in [true, false] {
        variants::with_software(on, || assert_eq!(variants::software(), on));
    }
    assert_eq!(variants::software(), before);
    let mut seen = vec![];
    variants::each_of_all(|| seen.push((variants::software(), variants::subgroups())));
    let kinds = if variants::has_subgroups() { 4 } else { 2 };
    assert_eq!(seen.len(), kinds);
    assert!((0..kinds).all(|i| !seen[..i].contains(&seen[i])));
}

#[test]
fn the_comparison_sees_a_wrong_result() {
    let device = Device::flex();
    let (x, xs) = random(13, [2, 7], &device);
    assert_eq!(difference(x.clone(), &xs), 0.0);
    assert!(difference(x.clone() + 1e-3, &xs) > 9e-4);
    assert_eq!(difference(x.clone(), &xs[1..]), f64::INFINITY);
    assert_eq!(difference(x * f32::NAN, &xs), f64::INFINITY);
}
