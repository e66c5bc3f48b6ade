use burn::tensor::{Device, Tensor, TensorData};

use crate::cache::{KvCache, LayerCache};
use crate::device::{self, DeviceChoice};
use crate::ops;
use crate::random::Philox;
use crate::rope::RopeTables;

fn random<const D: usize>(seed: u32, shape: [usize; D], device: &Device) -> (Tensor<D>, Vec<f64>) {
    let values = Philox::with_stream(11, seed, 0).normals(shape.iter().product());
    let wide = values.iter().map(|&v| f64::from(v)).collect();
    (
        Tensor::from_data(TensorData::new(values, shape), device),
        wide,
    )
}

fn difference<const D: usize>(got: Tensor<D>, want: &[f64]) -> f64 {
    let got: Vec<f64> = got.into_data().iter::<f64>().collect();
    if got.len() != want.len() || got.iter().any(|g| !g.is_finite()) {
        return f64::INFINITY;
    }
    got.iter()
        .zip(want)
        .map(|(g, w)| (g - w).abs())
        .fold(0.0, f64::max)
}

/// Norms and gates of rows of odd widths.
fn rows(device: &Device) {
    for (rows, d) in [(1, 4), (3, 50), (2, 192), (5, 577), (1, 1031)] {
        let (x, xs) = random(1, [1, rows, d], device);
        let (w, ws) = random(2, [d], device);
        let want: Vec<f64> = { xs.chunks(d) }
            .flat_map(|row| {
                let mean = row.iter().map(|x| x * x).sum::<f64>() / d as f64;
                row.iter()
                    .zip(&ws)
                    .map(move |(x, w)| x / (mean + 1e-5).sqrt() * w)
            })
            .collect();
        let error = difference(ops::rms_norm(x, w, 1e-5), &want);
        assert!(error < 1e-5, "norm of {rows} x {d}: {error:e}");

        let (x, xs) = random(3, [1, rows, 2 * d], device);
        let want: Vec<f64> = { xs.chunks(2 * d) }
            .flat_map(|row| (0..d).map(move |i| row[i] / (1.0 + (-row[i]).exp()) * row[d + i]))
            .collect();
        let error = difference(ops::silu_pair(x), &want);
        assert!(error < 1e-5, "gate of {rows} x {d}: {error:e}");
    }
}

/// `[B, T, heads, E]` rows, rotated to their positions.
fn rotated(x: &[f64], e: usize, position: usize, base: f64) -> Vec<f64> {
    let half = e / 2;
    (0..e)
        .map(|i| {
            let angle = position as f64 * base.powf(-2.0 * (i % half) as f64 / e as f64);
            let other = if i < half { -x[i + half] } else { x[i - half] };
            x[i] * angle.cos() + other * angle.sin()
        })
        .collect()
}

/// Several positions at once and then one after the other, beside attention over everything that was written.
fn steps(device: &Device) {
    for (h, g, e, runs) in [
        (1, 1, 4, &[1, 1, 1][..]),
        (4, 2, 12, &[5, 1, 1]),
        (6, 6, 32, &[3, 1, 2, 1]),
        (9, 3, 64, &[70, 1, 1]),
        (2, 1, 160, &[130, 1]),
    ] {
        let (width, base) = ((h + 2 * g) * e, 10_000.0);
        let mut cache = LayerCache::new(1, g, runs.iter().sum::<usize>() + 2, e, device);
        let (mut keys, mut values): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (vec![], vec![]);
        for (run, &t) in runs.iter().enumerate() {
            let (qkv, all) = random(20 + run as u32, [1, t, width], device);
            let start = cache.len();
            let tables = RopeTables::new(&[(start..start + t).collect()], e, base, device);
            let q = ops::rope_append(qkv, &tables, &mut cache);
            let got = ops::decode_attention(q, &cache, None);
            let mut want = vec![];
            for (step, row) in all.chunks(width).enumerate() {
                let heads: Vec<&[f64]> = row.chunks(e).collect();
                let turn = |x: &&[f64]| rotated(x, e, start + step, base);
                keys.push(heads[h..h + g].iter().flat_map(turn).collect());
                values.push(heads[h + g..].concat());
                for (head, q) in heads.iter().enumerate().take(h) {
                    let (q, at) = (turn(q), head / (h / g) * e);
                    let score = |k: &Vec<f64>| {
                        let products = q.iter().zip(&k[at..at + e]).map(|(q, k)| q * k);
                        (products.sum::<f64>() / (e as f64).sqrt()).exp()
                    };
                    let weights: Vec<f64> = keys.iter().map(score).collect();
                    let total: f64 = weights.iter().sum();
                    want.extend((0..e).map(|i| {
                        let terms = weights.iter().zip(&values).map(|(w, v)| w * v[at + i]);
                        terms.sum::<f64>() / total
                    }));
                }
            }
            let error = difference(got, &want);
            assert!(error < 2e-5, "{h} heads of {e}, run {run}: {error:e}");
        }
    }
}

/// The greatest of rows: the first of several, not the banned one, -1 where one is not a number.
fn greatest(device: &Device) {
    let width = 1003;
    let (_, mut values) = random(30, [6, width], device);
    values.iter_mut().for_each(|v| *v = (*v * 4.0).round());
    values[2 * width + 1002] = 90.0;
    values[3 * width] = 90.0;
    values[4 * width + 700] = f64::NAN;
    values[5 * width..].fill(f64::NEG_INFINITY);
    let banned = 17;
    values[banned] = 99.0;
    let narrow: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    let want: Vec<i32> = { narrow.chunks(width) }
        .map(|row| {
            let top = |skip: Option<usize>| {
                let allowed = row.iter().enumerate().filter(|(i, _)| Some(*i) != skip);
                allowed.fold(
                    (0, f32::NEG_INFINITY),
                    |a, (i, &v)| if v > a.1 { (i, v) } else { a },
                )
            };
            if row.iter().any(|v| v.is_nan()) {
                -1
            } else {
                top(Some(banned)).0 as i32
            }
        })
        .collect();
    assert_eq!((want[2], want[3], want[4], want[5]), (1002, 0, -1, 0));
    let logits = Tensor::<2>::from_data(TensorData::new(narrow, [6, width]), device);
    let got: Vec<i32> = ops::best(logits.clone(), Some(banned))
        .into_data()
        .iter::<i32>()
        .collect();
    assert_eq!(got, want);
    let got: Vec<i32> = ops::best(logits, None).into_data().iter::<i32>().collect();
    assert_eq!((got[0], got[1]), (17, want[1]));
}

/// Beams that continue one another see what their ancestors wrote.
fn beams(device: &Device) {
    let (h, e, beams) = (2, 8, 3);
    let tables = |at: usize| RopeTables::new(&[vec![at]], e, 100.0, device);
    let write = |cache: &mut KvCache, seed: u32, beams: usize| {
        let (qkv, _) = random(seed, [beams, 1, 3 * h * e], device);
        cache.extend(1);
        let tables = tables(cache.len());
        let q = ops::rope_append(qkv, &tables, &mut cache.layers[0]);
        ops::decode_attention(q, &cache.layers[0], None)
    };
    let mut cache = KvCache::new(1, 1, h, 8, e, device);
    write(&mut cache, 40, 1);
    let mut cache = cache.into_beams(beams);
    write(&mut cache, 41, beams);
    cache.reorder(&[2, 0, 0]);
    write(&mut cache, 42, beams);
    cache.reorder(&[1, 2, 1]);
    let got = write(&mut cache, 43, beams);
    // The same, each beam as a sequence of its own with what its ancestors wrote: 1 <- 0, 2 <- 0, 1 <- 0 at first.
    for (beam, ancestors) in [[0, 1], [0, 2], [0, 1]].into_iter().enumerate() {
        let mut alone = KvCache::new(1, 1, h, 8, e, device);
        let mut last = None;
        for (at, (seed, row)) in [(40, 0), (41, ancestors[0]), (42, ancestors[1]), (43, beam)]
            .into_iter()
            .enumerate()
        {
            let rows = if seed == 40 { 1 } else { beams };
            let (qkv, _) = random(seed, [rows, 1, 3 * h * e], device);
            let q = ops::rope_append(qkv.narrow(0, row, 1), &tables(at), &mut alone.layers[0]);
            last = Some(ops::decode_attention(q, &alone.layers[0], None));
        }
        let want: Vec<f64> = last
            .expect("four steps")
            .into_data()
            .iter::<f64>()
            .collect();
        let error = difference(got.clone().narrow(0, beam, 1), &want);
        assert!(error < 1e-5, "beam {beam}: {error:e}");
    }
}

/// What every device must get right.
fn everything(device: &Device) {
    greatest(device);
    rows(device);
    steps(device);
    beams(device);
}

#[test]
fn a_step_on_the_cpu() {
    everything(&Device::flex());
}

#[test]
fn a_step_on_wgpu() {
    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP decode-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    everything(&device::open(DeviceChoice::Gpu).expect("an adapter").device);
}
