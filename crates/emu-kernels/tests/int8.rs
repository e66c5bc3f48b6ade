//! Products with activations quantized to 8 bits, against those with unquantized activations.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use emu_kernels::burn;
use emu_kernels::ops;
use emu_kernels::packed::{Activations, BLOCK, Packed, Scheme};
use emu_kernels::random::{Philox, Stream};
use half::f16;

const SCHEMES: [Scheme; 3] = [Scheme::Q8, Scheme::Q4, Scheme::Q4_1];

fn random(seed: u64, scheme: Scheme, [out, width]: [usize; 2]) -> Packed {
    let mut random = Philox::new(seed, Stream::Init, 0);
    let blocks = out * width / BLOCK;
    let mut half = || (random.uniform() * 65_536.0) as u32;
    let words: Vec<u32> = (0..blocks * scheme.words())
        .map(|_| half() | half() << 16)
        .collect();
    // 1 / 1024 and 1 / 64, either sign; -1 / 8
    let scale = if scheme == Scheme::Q8 { 0x1400 } else { 0x2400 };
    let scales: Vec<u16> = (0..blocks)
        .map(|i| scale | ((i & 1) << 15) as u16)
        .collect();
    let mins = vec![0xb000; blocks];
    let mins = scheme.has_mins().then_some(&mins[..]);
    let device = Device::flex();
    Packed::new(scheme, [out, width], &words, &scales, mins, &device).expect("parts that fit")
}

fn values(seed: u64, rows: usize, width: usize) -> Tensor<2> {
    let values = Philox::new(seed, Stream::Init, 1).normals(rows * width);
    Tensor::from_data(TensorData::new(values, [rows, width]), &Device::flex())
}

/// Relative error: norm of the difference over norm of the reference.
fn relative(got: Tensor<2>, want: Tensor<2>) -> f32 {
    let length = |x: Tensor<2>| x.square().sum().sqrt().into_scalar::<f32>();
    length(got - want.clone()) / length(want)
}

/// Quantization changes an element by up to 1/254 of the greatest of its block, uniformly: of 32 normal values the greatest is
/// about 2.1 of their root mean square, so that the relative error of products is 2.1 / 127 / sqrt(12) = 0.5% on average. A
/// single row may have smaller products than that. A wrong sign, block or scale gives a far greater error.
#[test]
fn rounded_inputs_move_products_by_half_a_percent() {
    for scheme in SCHEMES {
        for (out, width) in [(70, 96), (6, 1504), (260, 288)] {
            let exact = random(1, scheme, [out, width]);
            let fused = Packed::concat_rows(&[&exact, &exact]).expect("blocks of one kind");
            let rounded = exact.clone().with_activations(Activations::Int8);
            let rounded_fused =
                Packed::concat_rows(&[&rounded, &rounded]).expect("blocks of one kind");
            for rows in [1, 3, 8, 40] {
                let (x, r) = (values(2, rows, width), values(3, rows, out));
                let plain = relative(
                    rounded.linear(x.clone(), None),
                    exact.linear(x.clone(), None),
                );
                let added = relative(
                    rounded.linear_add(x.clone(), None, r.clone()),
                    exact.linear_add(x.clone(), None, r),
                );
                let gated = relative(rounded_fused.gated(x.clone()), fused.gated(x));
                // A gate has two factors with an error.
                let errors = [
                    ("plain", plain, 0.03),
                    ("added", added, 0.03),
                    ("gated", gated, 0.05),
                ];
                for (what, error, bound) in errors {
                    let context =
                        format!("{scheme:?} {out} x {width}, {rows} rows, {what}: {error}");
                    assert!(error < bound, "{context}");
                    // A lower bound, too: if the setting were ignored, both would be equal.
                    assert!(error > 0.0005, "{context}");
                }
            }
            let again = rounded.with_activations(Activations::F32);
            let x = values(2, 3, width);
            assert_eq!(
                relative(again.linear(x.clone(), None), exact.linear(x, None)),
                0.0
            );
        }
    }
}

#[test]
fn the_comparison_sees_a_wrong_result() {
    let x = values(4, 3, 50);
    assert_eq!(relative(x.clone(), x.clone()), 0.0);
    assert!(relative(x.clone().mul_scalar(1.06), x) > 0.05);
}

/// Minimum time of many products, in microseconds.
fn best(rows: usize, width: usize, product: impl Fn(Tensor<2>) -> Tensor<2>) -> f64 {
    let x = values(5, rows, width);
    let times = (0..if rows > 10 { 8 } else { 200 }).map(|_| {
        let start = Instant::now();
        std::hint::black_box(product(x.clone()));
        start.elapsed().as_secs_f64() * 1e6
    });
    times.fold(f64::INFINITY, f64::min)
}

/// Times of products with f16 weights and with the same values in f32; to decide whether the CPU should keep f16 packed.
#[test]
#[ignore = "prints times"]
fn times_of_halves() {
    for [out, width] in [[192, 192], [960, 576], [3072, 576], [49_152, 576]] {
        for rows in [1, 4, 64, 447] {
            if rows > 10 && out > 10_000 {
                continue;
            }
            let floats = values(6, out, width).into_data();
            let halves: Vec<u32> = { floats.iter::<f32>() }
                .map(|value| f16::from_f32(value).to_bits().into())
                .collect();
            let words: Vec<u32> = { halves.chunks(2) }
                .map(|pair| pair[0] | pair[1] << 16)
                .collect();
            let device = Device::flex();
            let packed = Packed::new(Scheme::F16, [out, width], &words, &[], None, &device);
            let packed = packed.expect("parts that fit");
            let dense = packed.dense();
            let halves = best(rows, width, |x| packed.linear(x, None));
            let wide = best(rows, width, |x| ops::linear(x, dense.clone(), None));
            println!("{out} x {width}, {rows} rows: {halves:.1} of halves, {wide:.1} of f32");
        }
    }
}

/// Times of products with both precisions of activations; for changes to these.
#[test]
#[ignore = "prints times"]
fn times() {
    for (scheme, [out, width]) in [
        (Scheme::Q4_1, [960, 576]),
        (Scheme::Q4_1, [576, 1536]),
        (Scheme::Q4, [3072, 576]),
        (Scheme::Q8, [49_152, 576]),
    ] {
        for rows in [1, 4, 447] {
            if rows > 10 && out > 10_000 {
                continue;
            }
            let packed = random(6, scheme, [out, width]);
            let exact = best(rows, width, |x| packed.linear(x, None));
            let rounding = packed.with_activations(Activations::Int8);
            let rounded = best(rows, width, |x| rounding.linear(x, None));
            println!(
                "{scheme:?} {out} x {width}, {rows} rows: {exact:.1} as they are, {rounded:.1} in bytes"
            );
        }
    }
}
