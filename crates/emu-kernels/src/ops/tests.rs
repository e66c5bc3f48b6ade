use burn::tensor::{Device, Tensor, TensorData};

use crate::cache::{CacheFull, KvCache, LayerCache};
use crate::device::{self, DeviceChoice};
use crate::ops;
use crate::random::Philox;
use crate::rope::RopeTables;
use crate::sample::{Processors, Sampler, Sampling};

fn random<const D: usize>(seed: u32, shape: [usize; D], device: &Device) -> (Tensor<D>, Vec<f64>) {
    let wide = random_values(seed, shape.iter().product());
    let values: Vec<f32> = wide.iter().map(|&v| v as f32).collect();
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

/// RMS norm and SiLU gate, with odd widths.
fn rows(device: &Device) {
    // The reciprocal of the last two eps is no integer.
    for (rows, d, eps) in [
        (1, 4, 1e-5),
        (3, 50, 1e-5),
        (2, 192, 1e-6),
        (5, 577, 0.7),
        (1, 1031, 2.3),
    ] {
        let (x, xs) = random(1, [1, rows, d], device);
        let (w, ws) = random(2, [d], device);
        let want: Vec<f64> = { xs.chunks(d) }
            .flat_map(|row| {
                let mean = row.iter().map(|x| x * x).sum::<f64>() / d as f64;
                row.iter()
                    .zip(&ws)
                    .map(move |(x, w)| x / (mean + eps).sqrt() * w)
            })
            .collect();
        let error = difference(ops::rms_norm(x, w, eps), &want);
        assert!(error < 1e-5, "norm of {rows} x {d}: {error:e}");

        let (x, xs) = random(3, [1, rows, 2 * d], device);
        let want: Vec<f64> = { xs.chunks(2 * d) }
            .flat_map(|row| (0..d).map(move |i| row[i] / (1.0 + (-row[i]).exp()) * row[d + i]))
            .collect();
        let error = difference(ops::silu_pair(x), &want);
        assert!(error < 1e-5, "gate of {rows} x {d}: {error:e}");
    }
}

/// Reference rotation of one head's vector to its position.
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

/// A prefill and decoding steps, against reference attention over everything written.
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
        let tables = RopeTables::upto(cache.dims()[2], e, base, device);
        let (mut keys, mut values): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (vec![], vec![]);
        for (run, &t) in runs.iter().enumerate() {
            let (qkv, all) = random(20 + run as u32, [1, t, width], device);
            let start = cache.len();
            let q = ops::rope_append(qkv, &tables, &mut cache).expect("room");
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

/// Greedy sampling: the lowest of equal maxima, never the banned token, -1 on NaN.
fn greatest(device: &Device) {
    let (width, banned) = (1003, 17);
    let plain: Vec<f32> = random_values(30, width)
        .iter()
        .map(|v| (*v as f32 * 4.0).round())
        .collect();
    let with = |at: usize, value: f32| {
        let mut row = plain.clone();
        (row[banned], row[at]) = (99.0, value);
        row
    };
    let most = plain.iter().copied().fold(f32::MIN, f32::max);
    let first = plain.iter().position(|&v| v == most).expect("a greatest");
    let random = || Philox::with_stream(1, 30, 0);
    let mut sampler = {
        let (processors, sampling) = (Processors::default(), Sampling::default());
        Sampler::new(processors, sampling, 2, &[1], 9, &mut random(), device)
    };
    for (row, banned, want) in [
        (plain.clone(), Some(banned), first as i64),
        (with(banned, 99.0), None, banned as i64),
        (with(1002, 90.0), Some(banned), 1002),
        (with(0, 90.0), Some(banned), 0),
        (with(700, f32::NAN), Some(banned), -1),
        (vec![f32::MIN; width], Some(banned), 0),
    ] {
        let logits = Tensor::<3>::from_data(TensorData::new(row, [1, 1, width]), device);
        let got = sampler.sample(logits, banned).into_data();
        assert_eq!(got.iter::<i64>().next(), Some(want));
    }
}

/// Reference distribution after processors, top-k, top-p and min-p, as f64 probabilities.
fn drawable(logits: &[f64], past: &[u32], p: &Processors, s: &Sampling, banned: usize) -> Vec<f64> {
    let mut narrow: Vec<f32> = logits.iter().map(|&v| v as f32).collect();
    p.apply(past, 2, &mut narrow);
    narrow[banned] = f32::NEG_INFINITY;
    let mut order: Vec<usize> = (0..narrow.len()).collect();
    order.sort_by(|&a, &b| narrow[b].total_cmp(&narrow[a]).then(a.cmp(&b)));
    if s.top_k > 0 {
        order.truncate(s.top_k);
    }
    let most = f64::from(narrow[order[0]]);
    let weight = |i: usize| ((f64::from(narrow[i]) - most) / f64::from(s.temperature)).exp();
    let all: f64 = order.iter().map(|&i| weight(i)).sum();
    let (mut weights, mut sum) = (vec![0.0; narrow.len()], 0.0);
    for i in order {
        if sum < f64::from(s.top_p) * all && weight(i) >= f64::from(s.min_p) {
            weights[i] = weight(i);
        }
        sum += weight(i);
    }
    let kept: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= kept);
    weights
}

/// Each sampled token's interval of the cumulative distribution contains its uniform number.
fn drawn(device: &Device) {
    let (vocab, banned, tokens) = (517, 5, 12);
    let plain = Processors::default();
    let strict = Processors {
        repetition_penalty: 1.7,
        no_repeat_ngram: 2,
        min_length: 6,
        ..Processors::default()
    };
    let counted = Processors {
        presence_penalty: 1.25,
        frequency_penalty: 0.75,
        ..Processors::default()
    };
    let biased = Processors {
        // Twice the same token, the highest one, and two outside the vocabulary.
        logit_bias: vec![
            (9, 4.5),
            (516, -7.0),
            (40, 3.0),
            (9, 0.75),
            (517, 80.0),
            (u32::MAX, 80.0),
        ],
        ..Processors::default()
    };
    let all = Processors {
        frequency_penalty: -0.25,
        logit_bias: biased.logit_bias.clone(),
        ..strict.clone()
    };
    for (processors, temperature, top_k, top_p, min_p) in [
        (&plain, 1.0, 0, 1.0, 0.0),
        (&plain, 0.7, 1, 1.0, 0.0),
        (&strict, 1.3, 0, 0.6, 0.0),
        (&strict, 0.9, 40, 1.0, 0.0),
        (&plain, 2.0, 600, 0.9, 0.0),
        (&strict, 1.1, 7, 0.8, 0.0),
        (&strict, 0.0, 0, 1.0, 0.0),
        (&counted, 0.0, 0, 1.0, 0.0),
        (&counted, 1.0, 0, 1.0, 0.0),
        (&biased, 0.0, 0, 1.0, 0.0),
        (&biased, 1.2, 0, 1.0, 0.0),
        (&plain, 1.1, 0, 1.0, 0.05),
        (&plain, 0.8, 0, 0.95, 0.01),
        (&counted, 1.4, 30, 1.0, 0.02),
        (&all, 0.0, 0, 1.0, 0.0),
        (&all, 1.3, 50, 0.97, 0.015),
        (&plain, 1.0, 0, 1.0, 1.0),
        // A subnormal number, whose reciprocal is infinite.
        (&strict, 1e-40, 0, 1.0, 0.0),
        (&plain, 1e-40, 9, 0.9, 0.0),
        (&all, 1e-40, 0, 1.0, 0.1),
    ] {
        let sampling = Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
        };
        let mut history = vec![1u32];
        let random = Philox::with_stream(5, 77, 0);
        let mut sampler = Sampler::new(
            processors.clone(),
            sampling.clone(),
            2,
            &history,
            tokens,
            &mut random.clone(),
            device,
        );
        let mut random = random;
        for step in 0..tokens {
            // Few levels, so that there are ties; a few favoured tokens, so that tokens repeat.
            let mut logits = random_values(50 + step as u32, vocab);
            logits
                .iter_mut()
                .for_each(|v| *v = (*v * 4.0).round() / 2.0);
            for favoured in [3, 9, 100, 516] {
                logits[favoured] += 4.0;
            }
            logits[banned] = 40.0;
            logits[2] += 8.0;
            let uniform = f64::from(random.uniform());
            let narrow: Vec<f32> = logits.iter().map(|&v| v as f32).collect();
            let row = Tensor::<3>::from_data(TensorData::new(narrow, [1, 1, vocab]), device);
            let got = sampler.sample(row, Some(banned)).into_data();
            let got = got.iter::<i64>().next().expect("a token") as usize;
            let cold = Sampling {
                temperature: temperature.max(1e-3),
                ..sampling.clone()
            };
            let weights = drawable(&logits, &history, processors, &cold, banned);
            let what = format!("{processors:?} {sampling:?} step {step}: {got}");
            assert!(weights[got] > 0.0, "{what} may not be drawn");
            if temperature == 0.0 {
                let most = weights.iter().copied().fold(0.0, f64::max);
                assert_eq!(weights.iter().position(|&w| w == most), Some(got), "{what}");
            } else {
                let below: f64 = weights[..got].iter().sum();
                let inside = below - 1e-4..below + weights[got] + 1e-4;
                assert!(inside.contains(&uniform), "{what}: {uniform} in {inside:?}");
            }
            history.push(got as u32);
        }
        // After a rewind, sampling continues from the shorter history.
        sampler.rewind(&history[..2]);
        let logits = Tensor::<3>::zeros([1, 1, vocab], device);
        let next = sampler.sample(logits, None).into_data();
        assert!(next.iter::<i64>().next().is_some_and(|token| token >= 0));
        let broken = vec![f32::NAN; vocab];
        let broken = Tensor::<3>::from_data(TensorData::new(broken, [1, 1, vocab]), device);
        let token = sampler.sample(broken, None).into_data();
        assert_eq!(token.iter::<i64>().next(), Some(-1));
    }
}

fn random_values(seed: u32, n: usize) -> Vec<f64> {
    let values = Philox::with_stream(11, seed, 0).normals(n);
    values.iter().map(|&v| f64::from(v)).collect()
}

/// Reordered beams attend to what their ancestors wrote.
fn beams(device: &Device) {
    let (h, e, beams) = (2, 8, 3);
    let new = || KvCache::new(1, [1, h, 8, e], 100.0, device);
    let write = |cache: &mut KvCache, seed: u32, beams: usize| {
        let (qkv, _) = random(seed, [beams, 1, 3 * h * e], device);
        cache.extend(1).expect("room");
        let q = ops::rope_append(qkv, &cache.rope, &mut cache.layers[0]).expect("room");
        ops::decode_attention(q, &cache.layers[0], None)
    };
    let mut cache = new();
    write(&mut cache, 40, 1);
    let mut cache = cache.into_beams(beams);
    write(&mut cache, 41, beams);
    cache.reorder(&[2, 0, 0]);
    write(&mut cache, 42, beams);
    cache.reorder(&[1, 2, 1]);
    let got = write(&mut cache, 43, beams);
    // Reference: each beam as a separate sequence with its ancestors' inputs: 1 <- 0, 2 <- 0, 1 <- 0 at first.
    for (beam, ancestors) in [[0, 1], [0, 2], [0, 1]].into_iter().enumerate() {
        let mut alone = new();
        let mut last = None;
        for (seed, row) in [(40, 0), (41, ancestors[0]), (42, ancestors[1]), (43, beam)] {
            let rows = if seed == 40 { 1 } else { beams };
            let (qkv, _) = random(seed, [rows, 1, 3 * h * e], device);
            let qkv = qkv.narrow(0, row, 1);
            let q = ops::rope_append(qkv, &alone.rope, &mut alone.layers[0]).expect("room");
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

/// A write without room is refused as a whole: other heads' rows stay intact, and later writes are correct.
fn room(device: &Device) {
    let (h, e, capacity) = (2, 8, 3);
    let width = 3 * h * e;
    // Rotary tables with more positions than the cache holds, as of a longer cache.
    let tables = RopeTables::upto(9, e, 100.0, device);
    // Head size 6 has no kernels: it is composed of Burn's operations.
    for e in [e, 6] {
        let width = width / 8 * e;
        let tables = if e == 8 {
            tables.clone()
        } else {
            RopeTables::upto(9, e, 100.0, device)
        };
        let mut cache = LayerCache::new(1, h, capacity, e, device);
        let write = |cache: &mut LayerCache, seed: u32, steps: usize| {
            let (qkv, _) = random(seed, [1, steps, width], device);
            ops::rope_append(qkv, &tables, cache)
        };
        write(&mut cache, 50, 2).expect("room for two");
        let seen = |cache: &LayerCache| {
            let (keys, values) = cache.visible();
            [keys, values].map(|x| x.into_data().iter::<f32>().collect::<Vec<_>>())
        };
        let before = seen(&cache);
        let full = write(&mut cache, 51, 2).expect_err("no room for two more");
        let (length, steps) = (2, 2);
        assert_eq!(
            full,
            CacheFull {
                length,
                steps,
                capacity
            }
        );
        assert_eq!((cache.len(), seen(&cache)), (2, before));
        write(&mut cache, 52, 1).expect("room for one");
        write(&mut cache, 53, 1).expect_err("no room for another");
        assert_eq!(cache.len(), 3);
    }
    let mut caches = KvCache::new(2, [1, h, capacity, e], 100.0, device);
    assert!(caches.extend(4).is_err() && caches.extend(usize::MAX).is_err());
    assert!(caches.is_empty() && caches.extend(3).is_ok());
}

/// All checks of a device.
fn everything(device: &Device) {
    room(device);
    greatest(device);
    drawn(device);
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
    let device = device::open(DeviceChoice::Gpu).expect("an adapter").device;
    crate::variants::each(|| everything(&device));
}
