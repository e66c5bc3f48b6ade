//! Layer norm of rows against a naive f64 reference, on the CPU and on a GPU: odd sizes, strided views, rows far from zero.

use emu_kernels::burn::tensor::{Device, Tensor, TensorData};
use emu_kernels::device::{self, DeviceChoice};
use emu_kernels::ops;
use emu_kernels::random::Philox;

fn random<const D: usize>(seed: u32, shape: [usize; D], device: &Device) -> (Tensor<D>, Vec<f64>) {
    let values = Philox::with_stream(22, seed, 0).normals(shape.iter().product());
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

/// Reference layer norm of rows of `d`.
fn reference(x: &[f64], weight: &[f64], bias: &[f64], eps: f64) -> Vec<f64> {
    let d = weight.len();
    let norm = |row: &[f64]| -> Vec<f64> {
        let mean = row.iter().sum::<f64>() / d as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d as f64;
        let scale = 1.0 / (variance + eps).sqrt();
        (0..d)
            .map(|i| (row[i] - mean) * scale * weight[i] + bias[i])
            .collect()
    };
    x.chunks(d).flat_map(norm).collect()
}

fn everything(device: &Device) {
    for (b, t, d) in [
        (1, 1, 4),
        (2, 3, 50),
        (1, 70, 64),
        (3, 1, 577),
        (1, 2, 1031),
        (1, 66_001, 2),
    ] {
        let (x, xs) = random(1, [b, t, d], device);
        let ((w, ws), (c, cs)) = (random(2, [d], device), random(3, [d], device));
        let want = reference(&xs, &ws, &cs, 1e-5);
        let error = difference(ops::layer_norm(x, w.clone(), c.clone(), 1e-5), &want);
        // Two values close to each other have a small variance with few significant digits.
        let bound = if d == 2 { 1e-3 } else { 1e-5 };
        assert!(error < bound, "{b} x {t} x {d}: {error:e}");

        // NCHW pixels, and rows that are a slice of wider ones.
        let (x, xs) = random(4, [b, d, t], device);
        let turned: Vec<f64> = (0..b * t * d)
            .map(|i| (i / (t * d), i / d % t, i % d))
            .map(|(b, row, i)| xs[(b * d + i) * t + row])
            .collect();
        let want = reference(&turned, &ws, &cs, 1e-6);
        let error = difference(
            ops::layer_norm(x.swap_dims(1, 2), w.clone(), c.clone(), 1e-6),
            &want,
        );
        assert!(error < bound, "turned {b} x {t} x {d}: {error:e}");
        let (x, xs) = random(5, [b, t, 3 * d], device);
        let part: Vec<f64> = xs
            .chunks(3 * d)
            .flat_map(|row| row[d..2 * d].to_vec())
            .collect();
        let want = reference(&part, &ws, &cs, 1e-6);
        let error = difference(ops::layer_norm(x.narrow(2, d, d), w, c, 1e-6), &want);
        assert!(error < bound, "part of {b} x {t} x {d}: {error:e}");
    }
    // Far from zero a one-pass variance would have no significant digit left.
    let (x, _) = random(6, [1, 5, 192], device);
    let x = x.add_scalar(1000.0);
    let xs: Vec<f64> = x.to_data().iter::<f64>().collect();
    let (w, c) = (Tensor::ones([192], device), Tensor::zeros([192], device));
    let want = reference(&xs, &[1.0; 192], &[0.0; 192], 1e-5);
    let error = difference(ops::layer_norm(x, w, c, 1e-5), &want);
    assert!(error < 1e-3, "far from zero: {error:e}");
}

#[test]
fn layer_norm_on_the_cpu() {
    everything(&Device::flex());
}

#[test]
fn layer_norm_on_wgpu() {
    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP layer-norm-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    let device = device::open(DeviceChoice::Gpu).expect("an adapter").device;
    emu_kernels::variants::each(|| everything(&device));
}

#[test]
fn the_comparison_sees_a_wrong_result() {
    let device = Device::flex();
    let (x, xs) = random(7, [1, 2, 9], &device);
    let norm = |eps| {
        let (w, c) = (Tensor::ones([9], &device), Tensor::zeros([9], &device));
        ops::layer_norm(x.clone(), w, c, eps)
    };
    let want = reference(&xs, &[1.0; 9], &[0.0; 9], 1e-5);
    assert!(difference(norm(1e-5), &want) < 1e-5);
    assert!(difference(norm(1e-2), &want) > 1e-4);
    assert_eq!(difference(norm(f64::NAN), &want), f64::INFINITY);
}
