//! `emu bench kernels`: the GPU kernels one by one, at shapes of real use, next to the fastest copy and Burn's fastest
//! matrix product on the same device in the same run.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use emu_kernels::burn::tensor::{Device, Distribution, Int, Tensor, read_sync};
use emu_kernels::cache::LayerCache;
use emu_kernels::count::Launches;
use emu_kernels::device::{DeviceChoice, open};
use emu_kernels::ops::{self, AttentionOptions};
use emu_kernels::packed::{self, BLOCK, Packed, Scheme};
use emu_kernels::random::{Philox, Stream};
use emu_kernels::rope::RopeTables;
use emu_kernels::sample::{Processors, Sampler, Sampling};
use emu_kernels::variants;
use serde_json::{Value, json};

use super::bandwidth::copy_bandwidth;
use crate::args::BenchArgs;
use crate::output::{json_line, print_now, spinner};

/// A kernel call and its sizes.
enum Work {
    /// Product of `rows` rows with a packed matrix: gemv for few rows, gemm for many.
    Packed {
        scheme: Scheme,
        out: usize,
        width: usize,
        rows: usize,
    },
    /// Row lookup in a packed table.
    Table {
        scheme: Scheme,
        out: usize,
        width: usize,
        rows: usize,
    },
    /// Attention of one position over a KV cache.
    Decode {
        heads: usize,
        size: usize,
        length: usize,
    },
    Attention {
        heads: usize,
        queries: usize,
        keys: usize,
        size: usize,
        causal: bool,
    },
    Conv {
        from: usize,
        to: usize,
        side: usize,
    },
    GroupNorm {
        channels: usize,
        groups: usize,
        side: usize,
    },
    LayerNorm {
        rows: usize,
        width: usize,
    },
    RmsNorm {
        rows: usize,
        width: usize,
    },
    SiluPair {
        rows: usize,
        width: usize,
    },
    Geglu {
        rows: usize,
        width: usize,
    },
    Sample {
        vocab: usize,
        temperature: f32,
        top_k: usize,
        top_p: f32,
    },
}

/// Every kernel at one or more shapes: first those of emu-mini, then those of the 13-billion-parameter Emu and its UNet.
/// `quick` leaves out cases that take seconds on a software adapter.
fn works(quick: bool) -> Vec<Work> {
    let packed = |scheme, out, width, rows| Work::Packed {
        scheme,
        out,
        width,
        rows,
    };
    let (q8, q4) = (Scheme::Q8, Scheme::Q4);
    let mut works = vec![
        packed(q8, 576, 192, 1),
        packed(q4, 576, 192, 1),
        packed(q8, 5120, 5120, 1),
        packed(q4, 5120, 5120, 1),
        packed(q4, 5120, 5120, 4),
        packed(q8, 576, 192, 256),
        packed(q4, 576, 192, 256),
    ];
    if !quick {
        works.extend([packed(q8, 5120, 5120, 256), packed(q4, 5120, 5120, 256)]);
    }
    let table = |out, width, rows| Work::Table {
        scheme: q8,
        out,
        width,
        rows,
    };
    works.extend([table(1009, 192, 256), table(8192, 5120, 256)]);
    for (heads, size, length) in [(6, 32, 255), (40, 128, 1023)] {
        works.push(Work::Decode {
            heads,
            size,
            length,
        });
    }
    for (heads, queries, keys, size, causal) in [
        (6, 256, 256, 32, true),
        (40, 256, 256, 128, true),
        (8, 4096, 32, 40, false),
    ] {
        works.push(Work::Attention {
            heads,
            queries,
            keys,
            size,
            causal,
        });
    }
    let conv = |from, to, side| Work::Conv { from, to, side };
    works.extend([conv(48, 48, 16), conv(64, 64, 32)]);
    if !quick {
        works.push(conv(320, 320, 64));
    }
    for (channels, groups, side) in [(48, 16, 16), (320, 32, 64)] {
        works.push(Work::GroupNorm {
            channels,
            groups,
            side,
        });
    }
    for (rows, width) in [(16, 192), (257, 1408)] {
        works.push(Work::LayerNorm { rows, width });
    }
    for (rows, width) in [(1, 192), (1, 5120), (256, 5120)] {
        works.push(Work::RmsNorm { rows, width });
    }
    works.push(Work::SiluPair {
        rows: 256,
        width: 13_824,
    });
    works.push(Work::Geglu {
        rows: 4096,
        width: 1280,
    });
    for (vocab, temperature, top_k, top_p) in [
        (1009, 0.0, 0, 1.0),
        (32_000, 0.0, 0, 1.0),
        (32_000, 0.7, 50, 1.0),
        (32_000, 0.7, 50, 0.9),
    ] {
        works.push(Work::Sample {
            vocab,
            temperature,
            top_k,
            top_p,
        });
    }
    works
}

/// A packed matrix of arbitrary values.
fn matrix(scheme: Scheme, [out, width]: [usize; 2], device: &Device) -> Result<Packed> {
    let blocks = out * width / BLOCK;
    // Knuth's multiplicative hash.
    let words: Vec<u32> = { 0..(blocks * scheme.words()) as u32 }
        .map(|i| i.wrapping_mul(2_654_435_761))
        .collect();
    // 0.01 in f16.
    let scales = vec![0x211f; blocks];
    let packed = Packed::new(scheme, [out, width], &words, &scales, None, device);
    Ok(packed?)
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

impl Work {
    /// Name of the shader.
    fn kernel(&self) -> &'static str {
        match self {
            Self::Packed { rows, .. } if packed::is_gemv(*rows) => "packed_vector",
            Self::Packed { .. } => "packed_matrix",
            Self::Table { .. } => "packed_rows",
            Self::Decode { .. } => "decode_attention",
            Self::Attention { .. } => "attention",
            Self::Conv { .. } => "conv",
            Self::GroupNorm { .. } => "group_norm",
            Self::LayerNorm { .. } => "layer_norm",
            Self::RmsNorm { .. } => "rms_norm",
            Self::SiluPair { .. } => "silu_pair",
            Self::Geglu { .. } => "gelu",
            Self::Sample { .. } => "sample",
        }
    }

    /// Human-readable sizes.
    fn shape(&self) -> String {
        match self {
            Self::Packed {
                scheme,
                out,
                width,
                rows,
            }
            | Self::Table {
                scheme,
                out,
                width,
                rows,
            } => {
                let scheme = format!("{scheme:?}").to_lowercase();
                format!("{scheme}, {out} x {width}, rows {rows}")
            }
            Self::Decode {
                heads,
                size,
                length,
            } => format!("heads {heads} of {size}, positions {}", length + 1),
            Self::Attention {
                heads,
                queries,
                keys,
                size,
                causal,
            } => {
                let causal = if *causal { ", causal" } else { "" };
                format!("heads {heads} of {size}, {queries} x {keys}{causal}")
            }
            Self::Conv { from, to, side } => format!("3 x 3, {from} to {to} at {side} x {side}"),
            Self::GroupNorm {
                channels,
                groups,
                side,
            } => format!("{channels} at {side} x {side}, groups {groups}, SiLU"),
            Self::LayerNorm { rows, width }
            | Self::RmsNorm { rows, width }
            | Self::SiluPair { rows, width }
            | Self::Geglu { rows, width } => format!("{rows} x {width}"),
            Self::Sample {
                vocab,
                temperature,
                top_k,
                top_p,
            } => match (*temperature > 0.0, *top_p < 1.0) {
                (false, _) => format!("greatest of {vocab}"),
                (true, false) => format!("top {top_k} of {vocab}"),
                (true, true) => format!("top {top_k}, top-p {top_p} of {vocab}"),
            },
        }
    }

    /// Minimum bytes moved (inputs and weights read once, the result written once), and number of operations (additions and
    /// multiplications of the definition; comparisons of the sampler).
    fn cost(&self) -> (usize, usize) {
        let weights = |scheme: Scheme, out: usize, width: usize| {
            out * width / BLOCK * (4 * scheme.words() + 2)
        };
        match *self {
            Self::Packed {
                scheme,
                out,
                width,
                rows,
            } => (
                weights(scheme, out, width) + 4 * rows * (out + width),
                2 * rows * out * width,
            ),
            Self::Table {
                scheme,
                width,
                rows,
                ..
            } => (
                weights(scheme, rows, width) + 4 * rows * (width + 1),
                rows * width,
            ),
            Self::Decode {
                heads,
                size,
                length,
            } => {
                let seen = heads * size * (length + 1);
                (8 * seen + 8 * heads * size, 4 * seen)
            }
            Self::Attention {
                heads,
                queries,
                keys,
                size,
                causal,
            } => {
                let scores = if causal {
                    queries * (queries + 1) / 2
                } else {
                    queries * keys
                };
                (
                    8 * heads * size * (queries + keys),
                    4 * heads * size * scores,
                )
            }
            Self::Conv { from, to, side } => (
                4 * ((from + to) * side * side + 9 * from * to + to),
                18 * from * to * side * side,
            ),
            Self::GroupNorm { channels, side, .. } => {
                let elements = channels * side * side;
                (8 * elements + 8 * channels, 8 * elements)
            }
            Self::LayerNorm { rows, width } => (8 * rows * width + 8 * width, 8 * rows * width),
            Self::RmsNorm { rows, width } => (8 * rows * width + 4 * width, 4 * rows * width),
            Self::SiluPair { rows, width } => (12 * rows * width, 5 * rows * width),
            Self::Geglu { rows, width } => (12 * rows * width, 5 * rows * width),
            Self::Sample { vocab, .. } => (4 * vocab, vocab),
        }
    }

    /// Returns the closure that launches the kernel once. The closure owns its tensors.
    fn prepare(&self, device: &Device) -> Result<Box<dyn FnMut() + Send>> {
        let affine = |width| (random([width], device), random([width], device));
        Ok(match *self {
            Self::Packed {
                scheme,
                out,
                width,
                rows,
            } => {
                let weight = matrix(scheme, [out, width], device)?;
                let x = random([rows, width], device);
                Box::new(move || drop(weight.linear(x.clone(), None)))
            }
            Self::Table {
                scheme,
                out,
                width,
                rows,
            } => {
                let weight = matrix(scheme, [out, width], device)?;
                let last = (out - rows) as i64;
                let ids = Tensor::<1, Int>::arange(last..out as i64, device);
                Box::new(move || drop(weight.rows(ids.clone())))
            }
            Self::Decode {
                heads,
                size,
                length,
            } => {
                let mut cache = LayerCache::new(1, heads, length + 1, size, device);
                let tables = RopeTables::upto(length + 1, size, 10_000.0, device);
                let row = 3 * heads * size;
                ops::rope_append(random([1, length, row], device), &tables, &mut cache)?;
                let q = ops::rope_append(random([1, 1, row], device), &tables, &mut cache)?;
                Box::new(move || drop(ops::decode_attention(q.clone(), &cache, None)))
            }
            Self::Attention {
                heads,
                queries,
                keys,
                size,
                causal,
            } => {
                let q = random([1, heads, queries, size], device);
                let k = random([1, heads, keys, size], device);
                let v = random([1, heads, keys, size], device);
                Box::new(move || {
                    let options = AttentionOptions {
                        causal,
                        ..Default::default()
                    };
                    drop(ops::attention(q.clone(), k.clone(), v.clone(), options));
                })
            }
            Self::Conv { from, to, side } => {
                let x = random([1, from, side, side], device);
                let weight = random([to, from, 3, 3], device);
                let bias: Tensor<1> = random([to], device);
                Box::new(move || {
                    let (weight, bias) = (weight.clone(), Some(bias.clone()));
                    drop(ops::conv2d(x.clone(), weight, bias, 1, (1, 1)));
                })
            }
            Self::GroupNorm {
                channels,
                groups,
                side,
            } => {
                let x = random([1, channels, side, side], device);
                let (w, b) = affine(channels);
                Box::new(move || {
                    let (w, b) = (w.clone(), b.clone());
                    drop(ops::group_norm_silu(x.clone(), w, b, None, groups, 1e-5));
                })
            }
            Self::LayerNorm { rows, width } => {
                let x: Tensor<3> = random([1, rows, width], device);
                let (w, b) = affine(width);
                Box::new(move || drop(ops::layer_norm(x.clone(), w.clone(), b.clone(), 1e-5)))
            }
            Self::RmsNorm { rows, width } => {
                let x: Tensor<3> = random([1, rows, width], device);
                let (w, _) = affine(width);
                Box::new(move || drop(ops::rms_norm(x.clone(), w.clone(), 1e-5)))
            }
            Self::SiluPair { rows, width } => {
                let x = random([1, rows, 2 * width], device);
                Box::new(move || drop(ops::silu_pair(x.clone())))
            }
            Self::Geglu { rows, width } => {
                let x = random([1, rows, 2 * width], device);
                Box::new(move || drop(ops::geglu(x.clone())))
            }
            Self::Sample {
                vocab,
                temperature,
                top_k,
                top_p,
            } => {
                let sampling = Sampling {
                    temperature,
                    top_k,
                    top_p,
                    min_p: 0.0,
                };
                let logits = random([1, 1, vocab], device);
                let mut random = Philox::new(0, Stream::Tokens, 0);
                let end = vocab as u32 - 1;
                let plain = Processors::default();
                let mut sampler =
                    Sampler::new(plain, sampling, end, &[0], 4096, &mut random, device);
                Box::new(move || drop(sampler.sample(logits.clone(), None)))
            }
        })
    }
}

/// Time budget of a measurement.
#[derive(Clone, Copy)]
struct Effort {
    /// Target duration of a batch, unless [`LAUNCHES`] launches take less.
    batch: Duration,
    /// No more batches are started after this time, once there are three.
    all: Duration,
    /// Maximum estimated seconds of a dense matrix product; larger products are skipped.
    product: f64,
}

/// Maximum launches per batch. They fit one submission, so that the device never waits for the host.
const LAUNCHES: usize = 256;
/// Maximum number of batches; their median counts.
const BATCHES: usize = 9;

/// Device time of `launches` runs in one batch, from the device's own clock if it has one.
fn batch(device: &Device, launches: usize, run: &mut (dyn FnMut() + Send)) -> Result<f64> {
    let timed = device.profile(|| (0..launches).for_each(|_| run()));
    let ticks = timed.map(|((), time)| read_sync(time.resolve()));
    match ticks {
        Ok(Some(ticks)) => Ok(ticks.duration().as_secs_f64()),
        Ok(None) => bail!("The device did not say how long its work took. Try again."),
        Err(error) => bail!("The device failed: {error}. Try again."),
    }
}

/// Measurement of one kernel.
struct Found {
    /// Median seconds per run over the batches.
    seconds: f64,
    /// Seconds per run of the fastest batch. Less noisy than the median on a machine with other load.
    fastest: f64,
    batches: usize,
    launches: u64,
}

fn measure(device: &Device, effort: Effort, run: &mut (dyn FnMut() + Send)) -> Result<Found> {
    // One run to compile the pipeline, one to estimate the time.
    run();
    let watch = Launches::watch();
    let once = batch(device, 1, run)?.max(1e-9);
    let launches = watch.total();
    drop(watch);
    let size = (effort.batch.as_secs_f64() / once).ceil() as usize;
    let size = size.clamp(1, LAUNCHES);
    let (start, mut times) = (Instant::now(), vec![]);
    while times.len() < BATCHES && (times.len() < 3 || start.elapsed() < effort.all) {
        times.push(batch(device, size, run)? / size as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(Found {
        seconds: times[times.len() / 2],
        fastest: times[0],
        batches: times.len(),
        launches,
    })
}

/// Best throughput of Burn's dense f32 matrix product in operations per second, and the matrix size that reaches it.
fn product_peak(device: &Device, effort: Effort) -> Result<(f64, usize)> {
    let (mut best, mut n) = ((0.0, 0), 256);
    loop {
        let a: Tensor<2> = random([n, n], device);
        let b = a.clone();
        let found = measure(device, effort, &mut || drop(a.clone().matmul(b.clone())))?;
        let speed = 2.0 * (n as f64).powi(3) / found.seconds;
        if speed > best.0 {
            best = (speed, n);
        }
        n *= 2;
        if n > 8192 || 2.0 * (n as f64).powi(3) / best.0 > effort.product {
            return Ok(best);
        }
    }
}

/// Benchmarks every kernel.
pub fn run(args: &BenchArgs) -> Result<()> {
    let opened = open(match args.model.device.choice() {
        DeviceChoice::Cpu => bail!(
            "These are the kernels of GPUs. Leave out --device cpu: a software adapter will do."
        ),
        DeviceChoice::Auto => DeviceChoice::Gpu,
        chosen => chosen,
    })?;
    let device = &opened.device;
    let waiting = spinner("measuring");
    let (batch, all, product) = if args.quick {
        (5, 500, 0.5)
    } else {
        (20, 3000, 10.0)
    };
    let effort = Effort {
        batch: Duration::from_millis(batch),
        all: Duration::from_millis(all),
        product,
    };
    let copy = copy_bandwidth(device)?;
    let (peak, size) = product_peak(device, effort)?;
    let mut list = vec![];
    let mut works = works(args.quick);
    works.retain(|work| work.kernel().contains(&args.kernel));
    if works.is_empty() {
        bail!(
            "No kernel has {} in its name. Leave out --kernel to see them all.",
            args.kernel
        );
    }
    for work in works {
        let mut prepared = work.prepare(device)?;
        let found = measure(device, effort, &mut *prepared)?;
        let (bytes, operations) = work.cost();
        let per_second = |n: usize| n as f64 / found.seconds;
        list.push(json!({
            "kernel": work.kernel(),
            "shape": work.shape(),
            "seconds": found.seconds,
            "fastest_seconds": found.fastest,
            "batches": found.batches,
            "launches": found.launches,
            "bytes": bytes,
            "bytes_per_s": per_second(bytes),
            "copy_bandwidth_share": per_second(bytes) / copy,
            "operations": operations,
            "operations_per_s": per_second(operations),
            "product_share": per_second(operations) / peak,
        }));
    }
    waiting.finish_and_clear();
    let found = json!({
        "adapter": opened.name,
        "subgroups": variants::subgroups(),
        "software": variants::software(),
        "copy_bandwidth_bytes_per_s": copy,
        "product_operations_per_s": peak,
        "product_size": size,
        "cases": list,
    });
    match args.model.json {
        true => json_line(&json!({ "kernels": found })),
        false => print_now(&table(&found)),
    }
}

/// Human-readable table.
fn table(found: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let mut text = format!(
        "{}\ncopy {:.1} GB/s; Burn's product of {size} x {size} matrices {:.1} GFLOP/s\n\n{:<14} {:<38} {:>12} {:>8} {:>6} {:>9} {:>8}\n",
        found["adapter"].as_str().unwrap_or_default(),
        number(&found["copy_bandwidth_bytes_per_s"]) / 1e9,
        number(&found["product_operations_per_s"]) / 1e9,
        "kernel",
        "shape",
        "microseconds",
        "GB/s",
        "copy",
        "GFLOP/s",
        "product",
        size = found["product_size"],
    );
    for case in found["cases"].as_array().into_iter().flatten() {
        text += &format!(
            "{:<14} {:<38} {:>12.1} {:>8.2} {:>5.0}% {:>9.2} {:>7.0}%\n",
            case["kernel"].as_str().unwrap_or_default(),
            case["shape"].as_str().unwrap_or_default(),
            number(&case["seconds"]) * 1e6,
            number(&case["bytes_per_s"]) / 1e9,
            number(&case["copy_bandwidth_share"]) * 100.0,
            number(&case["operations_per_s"]) / 1e9,
            number(&case["product_share"]) * 100.0,
        );
    }
    text
}
