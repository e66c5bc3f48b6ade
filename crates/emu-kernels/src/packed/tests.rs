use burn::module::{Module, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData};
use half::f16;

use super::*;
use crate::device::{self, DeviceChoice};
use crate::random::Philox;

const ALL: [Scheme; 4] = [Scheme::F16, Scheme::Q8, Scheme::Q4, Scheme::Q4_1];

/// A packed matrix of random blocks, and its values in f64.
fn random(seed: u32, scheme: Scheme, shape: [usize; 2], device: &Device) -> (Packed, Vec<f64>) {
    random_split(seed, scheme, shape, BINDING, device)
}

fn random_split(
    seed: u32,
    scheme: Scheme,
    [out, width]: [usize; 2],
    binding: usize,
    device: &Device,
) -> (Packed, Vec<f64>) {
    let mut random = Philox::with_stream(9, seed, 0);
    let mut uniform = || f64::from(random.uniform());
    let blocks = out * width / BLOCK;
    let mut half_word = || match scheme {
        // Both signs; some values are subnormal.
        Scheme::F16 => u32::from(f16::from_f64((uniform() - 0.5).powi(3)).to_bits()),
        _ => (uniform() * 65_536.0) as u32,
    };
    let words: Vec<u32> = (0..blocks * scheme.words())
        .map(|_| half_word() | half_word() << 16)
        .collect();
    // Both signs, as the converter produces.
    let halves = |uniform: &mut dyn FnMut() -> f64, size: f64| -> Vec<f16> {
        (0..blocks)
            .map(|_| f16::from_f64((uniform() - 0.5) * size))
            .collect()
    };
    let size = if scheme == Scheme::Q8 { 0.002 } else { 0.03 };
    let (scales, mins) = (halves(&mut uniform, size), halves(&mut uniform, 0.1));
    let bits = scheme.bits();
    let values = (0..out * width)
        .map(|i| {
            let (block, at) = (i / BLOCK, i % BLOCK);
            let word = words[block * scheme.words() + at * bits / 32];
            let stored = word >> (at * bits % 32) & ((1u32 << bits) - 1);
            let (scale, min) = (scales[block].to_f64(), mins[block].to_f64());
            match scheme {
                Scheme::F16 => f16::from_bits(stored as u16).to_f64(),
                Scheme::Q8 => f64::from(stored as u8 as i8) * scale,
                Scheme::Q4 => (f64::from(stored) - if stored > 7 { 16.0 } else { 0.0 }) * scale,
                Scheme::Q4_1 => f64::from(stored) * scale + min,
            }
        })
        .collect();
    let bits_of = |x: &[f16]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let (mut scales, mins) = (bits_of(&scales), bits_of(&mins));
    if !scheme.has_scales() {
        scales.clear();
    }
    let mins = scheme.has_mins().then_some(&mins[..]);
    let packed = Packed::split(scheme, [out, width], &words, &scales, mins, binding, device);
    (packed.expect("parts that fit"), values)
}

fn floats<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}

/// Runs `f`, which returns `elements` elements, with freed memory full of NaN and guard tensors that must stay unchanged.
fn guarded<const D: usize>(
    elements: usize,
    device: &Device,
    f: impl FnOnce() -> Tensor<D>,
) -> Vec<f64> {
    const GUARD: f32 = 7.5;
    let full = |value| Tensor::<1>::full([elements], value, device);
    let [before, dirt, after] = [GUARD, f32::NAN, GUARD].map(full);
    // Filled with NaN, then freed.
    drop(dirt.into_data());
    let made = floats(f());
    for guard in [before, after] {
        assert!(floats(guard).iter().all(|&v| v == f64::from(GUARD)));
    }
    made
}

/// Largest absolute difference; infinite if a value is not finite or the lengths differ.
fn difference(got: &[f64], want: &[f64]) -> f64 {
    if got.len() != want.len() || got.iter().any(|g| !g.is_finite()) {
        return f64::INFINITY;
    }
    let differences = got.iter().zip(want).map(|(g, w)| (g - w).abs());
    differences.fold(0.0, f64::max)
}

/// Matrix products with one row, a few and many, of sizes that are no multiple of a tile or workgroup, against f64.
fn products(device: &Device) {
    let sizes = [
        [1, 32],
        [7, 64],
        [33, 96],
        [100, 576],
        [70, 1504],
        [4100, 32],
        [129, 2080],
    ];
    for scheme in ALL {
        for (i, [out, width]) in sizes.into_iter().enumerate() {
            let (packed, weights) = random(i as u32, scheme, [out, width], device);
            for rows in [1, 2, 3, 5, 8, 9, 31, 33, 65, 131] {
                if rows * out * width > 6_000_000 {
                    continue;
                }
                let mut random = Philox::with_stream(10, rows as u32, 0);
                let (xs, bs) = (random.normals(rows * width), random.normals(out));
                let rs = random.normals(rows * out);
                let tensor = |v: &[f32], shape| {
                    Tensor::<2>::from_data(TensorData::new(v.to_vec(), shape), device)
                };
                let x = tensor(&xs, [rows, width]);
                let bias = (rows % 2 == 1).then(|| tensor(&bs, [1, out]).reshape([out]));
                let residual = (rows % 3 == 2).then(|| tensor(&rs, [rows, out]));
                let want: Vec<f64> = (0..rows * out)
                    .map(|i| {
                        let (x, w) = (
                            &xs[i / out * width..][..width],
                            &weights[i % out * width..][..width],
                        );
                        let sum: f64 = x.iter().zip(w).map(|(&x, w)| f64::from(x) * w).sum();
                        let bias = bias.as_ref().map_or(0.0, |_| f64::from(bs[i % out]));
                        let residual = residual.as_ref().map_or(0.0, |_| f64::from(rs[i]));
                        sum + bias + residual
                    })
                    .collect();
                let made = guarded(rows * out, device, || match residual {
                    Some(residual) => packed.linear_add(x, bias, residual),
                    None => packed.linear(x, bias),
                });
                let error = difference(&made, &want);
                let bound = 2e-5 * (width as f64).sqrt();
                assert!(
                    error < bound,
                    "{scheme:?} {out} x {width}, {rows} rows: {error:e}"
                );
            }
        }
    }
}

/// Row lookups, including the last row, and the whole table.
fn tables(device: &Device) {
    for scheme in ALL {
        for (out, width) in [(1, 32), (5, 96), (301, 64)] {
            let (packed, weights) = random(50, scheme, [out, width], device);
            let ids = [out - 1, 0, out / 2, out - 1];
            let index: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
            let index = Tensor::<1, Int>::from_data(TensorData::new(index, [4]), device);
            let want: Vec<f64> = ids
                .iter()
                .flat_map(|&id| weights[id * width..][..width].to_vec())
                .collect();
            let made = guarded(4 * width, device, || packed.rows(index));
            assert!(difference(&made, &want) < 1e-6, "{scheme:?} {out}");
            assert!(
                difference(&floats(packed.dense()), &weights) < 1e-6,
                "{scheme:?} {out}"
            );
        }
    }
}

/// Layers with packed parameters: outputs, dense values, names, records.
fn layers(device: &Device) {
    let (out, width) = (24, 64);
    let (packed, weights) = random(60, Scheme::Q4, [out, width], device);
    let mut linear = crate::QLinear::new(width, out, false, device);
    linear.weight = attach(ParamId::new(), packed.clone());
    assert!(of(&linear.weight, &Tensor::<1>::zeros([1], device)).is_some());
    assert!(
        !linear.weight.is_initialized(),
        "nothing is unpacked before it is asked for"
    );

    let x = Tensor::<3>::ones([1, 2, width], device);
    let want: Vec<f64> = weights.chunks(width).map(|row| row.iter().sum()).collect();
    let want = [&want[..], &want[..]].concat();
    assert!(difference(&floats(linear.forward(x.clone())), &want) < 1e-4);
    assert!(!linear.weight.is_initialized(), "using it unpacks nothing");
    assert_eq!(linear.num_params(), out * width);
    assert!(difference(&floats(linear.merged_weight()), &weights) < 1e-6);

    let mut table = crate::QEmbedding::new(out, width, 1.0, device);
    table.weight = attach(ParamId::new(), packed);
    assert!(difference(&floats(table.project(x)), &want) < 1e-4);
    let ids = Tensor::<2, Int>::from_data(TensorData::new(vec![23i32, 1, 0], [1, 3]), device);
    let want = [
        &weights[23 * width..],
        &weights[width..2 * width],
        &weights[..width],
    ]
    .concat();
    assert!(difference(&floats(table.forward(ids)), &want) < 1e-6);
}

/// Matrices split into several buffers match those in one.
fn splits(device: &Device) {
    let (out, width) = (37, 96);
    for scheme in ALL {
        let (whole, _) = random(70, scheme, [out, width], device);
        let (split, _) = random_split(70, scheme, [out, width], 400, device);
        assert!(split.parts.len() > 3 && whole.parts.len() == 1);
        for packed in [&whole, &split] {
            let words = packed.parts.iter().map(|part| {
                let more = [&part.scales, &part.mins].into_iter().flatten();
                part.words.dims()[0] + more.map(|half| half.dims()[0]).sum::<usize>()
            });
            assert_eq!(packed.bytes(), 4 * words.sum::<usize>() as u64);
        }
        assert_eq!(
            (split.shape(), split.bytes()),
            (whole.shape(), whole.bytes())
        );
        let xs = Philox::with_stream(12, 0, 0).normals(3 * width);
        let x = Tensor::<2>::from_data(TensorData::new(xs, [3, width]), device);
        let bias = Tensor::<1>::ones([out], device);
        let residual = Tensor::<2>::ones([3, out], device);
        let both = [&whole, &split].map(|w| {
            let y = w.linear_add(x.clone(), Some(bias.clone()), residual.clone());
            (
                floats(y),
                floats(w.linear(x.clone(), None)),
                floats(w.dense()),
            )
        });
        assert!(difference(&both[1].0, &both[0].0) < 1e-5, "{scheme:?}");
        assert!(difference(&both[1].1, &both[0].1) < 1e-5, "{scheme:?}");
        assert!(difference(&both[1].2, &both[0].2) == 0.0, "{scheme:?}");
        assert!(Packed::concat_rows(&[&split, &split]).is_none());
    }
}

/// Stacked matrices, as one product and as a gate.
fn fused_products(device: &Device) {
    let width = 96;
    for (scheme, out) in ALL
        .into_iter()
        .flat_map(|scheme| [(scheme, 26), (scheme, 70)])
    {
        let made = [80, 81].map(|seed| random(seed, scheme, [out, width], device));
        let layers = made.clone().map(|(packed, _)| {
            let mut layer = crate::QLinear::new(width, out, false, device);
            layer.weight = attach(ParamId::new(), packed);
            layer
        });
        let [mut gate, mut up] = layers.clone();
        let fused = crate::QLinear::fuse([&mut gate, &mut up]).expect("blocks of one kind");
        assert!(
            difference(&floats(up.weight.val()), &made[1].1) < 1e-6,
            "{scheme:?}"
        );
        for rows in [1, 6, 19, 67] {
            let xs = Philox::with_stream(13, rows as u32, 0).normals(rows * width);
            let x = Tensor::<2>::from_data(TensorData::new(xs, [rows, width]), device);
            let [g, u] = layers.clone().map(|layer| layer.forward(x.clone()));
            let beside = floats(Tensor::cat(vec![g.clone(), u.clone()], 1));
            assert!(difference(&floats(fused.linear(x.clone(), None)), &beside) < 1e-5);
            let want: Vec<f64> = floats(g)
                .into_iter()
                .zip(floats(u))
                .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                .collect();
            let made = guarded(rows * out, device, || fused.gated(x.clone()));
            let error = difference(&made, &want);
            assert!(error < 1e-4, "{scheme:?}, {rows} rows: {error:e}");
            let residual = Tensor::<2>::ones([rows, 2 * out], device);
            let want: Vec<f64> = beside.iter().map(|y| y + 1.0).collect();
            assert!(difference(&floats(fused.linear_add(x, None, residual)), &want) < 1e-5);
        }
    }
    let out = 26;
    let other = random(82, Scheme::Q8, [out, width], device).0;
    let one = random(82, Scheme::Q4, [out, width], device).0;
    assert!(Packed::concat_rows(&[&one, &other]).is_none());
}

/// All checks of a device.
fn everything(device: &Device) {
    splits(device);
    fused_products(device);
    products(device);
    tables(device);
    layers(device);
}

#[test]
fn packed_weights_on_the_cpu() {
    everything(&Device::flex());
}

#[test]
fn packed_weights_on_wgpu() {
    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP packed-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    let device = device::open(DeviceChoice::Gpu).expect("an adapter").device;
    crate::variants::each_of_all(|| everything(&device));
}

#[test]
fn comparisons_find_what_is_wrong() {
    assert_eq!(difference(&[1.0, 2.0], &[1.0, 2.5]), 0.5);
    assert_eq!(difference(&[1.0], &[1.0, 2.5]), f64::INFINITY);
    assert_eq!(difference(&[f64::NAN], &[1.0]), f64::INFINITY);
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let device = Device::flex();
    let new = |[out, width]: [usize; 2], words, scales, mins: Option<usize>| {
        let mins = mins.map(|n| vec![0u16; n]);
        let (words, scales) = (vec![0u32; words], vec![0u16; scales]);
        Packed::new(
            Scheme::Q4,
            [out, width],
            &words,
            &scales,
            mins.as_deref(),
            &device,
        )
    };
    assert!(new([3, 64], 24, 6, None).is_ok());
    for (shape, words, scales, mins) in [
        ([3, 65], 24, 6, None),
        ([3, 64], 23, 6, None),
        ([3, 64], 24, 7, None),
        ([3, 64], 24, 6, Some(6)),
    ] {
        let error = new(shape, words, scales, mins).expect_err("parts that do not fit");
        assert!(error.to_string().contains("packed matrix"), "{error}");
    }
    let missing = Packed::new(Scheme::Q4_1, [1, 32], &[0; 4], &[0; 1], None, &device);
    assert!(missing.is_err());
    let halves =
        |scales: &[u16]| Packed::new(Scheme::F16, [1, 32], &[0; 16], scales, None, &device);
    assert_eq!(halves(&[]).expect("no scales").bytes(), 64);
    assert!(halves(&[0]).is_err());
    for (shape, fit) in [
        ([1, 32], true),
        ([3, 33], false),
        ([0, 32], false),
        ([3, 0], false),
    ] {
        assert_eq!(fits(shape), fit);
    }
}

/// A token of the 14B model reads more bytes than fit in 32 bits, the size of `usize` in a page.
#[test]
fn bytes_of_a_whole_model_are_counted_in_64_bits() {
    let (layers, width, ffn, vocab) = (40, 5120, 13_824, 32_274);
    let bytes = |scheme: Scheme| -> u64 {
        let layer = [
            [3 * width, width],
            [width, width],
            [2 * ffn, width],
            [width, ffn],
        ];
        let layer: u64 = layer.map(|shape| scheme.bytes(shape)).iter().sum();
        layers * layer + scheme.bytes([vocab, width])
    };
    let weights = 40 * (4 * 5120 * 5120 + 3 * 5120 * 13_824) + 32_274 * 5120_u64;
    assert_eq!(bytes(Scheme::F16), 2 * weights);
    assert_eq!(bytes(Scheme::Q8), weights + weights / 16);
    assert_eq!(bytes(Scheme::Q4), weights / 2 + weights / 16);
    assert_eq!(bytes(Scheme::Q4_1), weights / 2 + weights / 8);
    assert!(bytes(Scheme::Q4) > u64::from(u32::MAX));
    // The functions that sum bytes return u64.
    let _: fn(&Packed) -> u64 = Packed::bytes;
    let _: fn(&Param<Tensor<2>>) -> u64 = super::bytes;
    let _: fn(&crate::count::Meter) -> u64 = crate::count::Meter::weight_bytes;
}

/// f16 weights never quantize activations, even if allowed.
#[test]
fn halves_round_no_inputs() {
    let device = Device::flex();
    let (packed, _) = random(90, Scheme::F16, [37, 96], &device);
    for rows in [1, 9] {
        let xs = Philox::with_stream(14, rows as u32, 0).normals(rows * 96);
        let x = Tensor::<2>::from_data(TensorData::new(xs, [rows, 96]), &device);
        let exact = floats(packed.linear(x.clone(), None));
        let rounding = packed.clone().with_activations(Activations::Int8);
        assert_eq!(floats(rounding.linear(x, None)), exact);
    }
    assert_eq!(Activations::by_weight(Scheme::F16), Activations::F32);
}
