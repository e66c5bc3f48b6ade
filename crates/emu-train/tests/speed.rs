//! Cost of the parts of a training step on the CPU, in processor time over all threads, which other load on the machine
//! hardly affects. Run with `--ignored --nocapture`.

use burn::tensor::{Device, Int, Tensor, TensorData};
use emu_kernels::random::Philox;
use emu_model::config::LmConfig;
use emu_model::lm::Visibility;
use emu_train::config::OptimiserConfig;
use emu_train::objectives::cross_entropy;
use emu_train::optim::{AdamW, GradientSum};

#[test]
#[ignore = "a measurement"]
fn language_model() {
    if let Some(n) = std::env::var("THREADS").ok().and_then(|n| n.parse().ok()) {
        rayon::ThreadPoolBuilder::new()
            .num_threads(n)
            .build_global()
            .unwrap();
    }
    let rounds: usize = std::env::var("ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(10);
    let device = Device::flex().autodiff();
    let config = LmConfig {
        vocab: 600,
        width: 192,
        ffn: 512,
        layers: 4,
        heads: 6,
        kv_heads: 6,
        head_size: 32,
        context: 512,
        rope_base: 10_000.0,
        norm_eps: 1e-6,
        tied: true,
    };
    let (b, t) = (8, 160);
    let mut model = config.init(None, &device);
    let settings: OptimiserConfig = toml::from_str("lr = 1e-3").unwrap();
    let mut optimiser = AdamW::new(&model, settings, Some(0.999));
    let rates = vec![1e-3; optimiser.names().len()];
    let mut random = Philox::with_stream(1, 30, 0);
    let mut times: Vec<[f64; 4]> = Vec::new();
    for _ in 0..rounds {
        let ids: Vec<u32> = (0..b * t).map(|_| random.below(600) as u32).collect();
        let clock = cpu_seconds();
        let input: Tensor<2, Int> = Tensor::from_data(
            TensorData::new(ids.iter().map(|&i| i as i32).collect(), [b, t]),
            &device,
        );
        let hidden: Tensor<4, burn::tensor::Bool> = Tensor::from_data(
            TensorData::new(vec![false; b * t * t], [b, 1, t, t]),
            &device,
        );
        let h = model.forward(
            model.embed(input),
            &[(0..t).collect()],
            &Visibility::Blocks(hidden),
        );
        let loss = cross_entropy(model.logits(h).reshape([b * t, 600]), &ids);
        let value = loss.clone().into_scalar::<f32>();
        let forward = cpu_seconds() - clock;
        let clock = cpu_seconds();
        let gradients = loss.backward();
        let backward = cpu_seconds() - clock;
        drop(loss);
        let clock = cpu_seconds();
        let mut sum = GradientSum::new();
        sum.add(&model, gradients, 1.0);
        let norm = sum.norm();
        let norm_time = cpu_seconds() - clock;
        let clock = cpu_seconds();
        model = optimiser.step(model, sum, optimiser.clip_scale(norm), &rates);
        times.push([forward, backward, norm_time, cpu_seconds() - clock]);
        assert!(value.is_finite());
    }
    for (i, name) in ["forward", "backward", "collect + norm", "AdamW + average"]
        .iter()
        .enumerate()
    {
        let mut column: Vec<f64> = times.iter().map(|row| row[i] * 1e3).collect();
        column.sort_by(f64::total_cmp);
        println!(
            "{name}: least {:.1} ms, median {:.1} ms",
            column[0],
            column[column.len() / 2]
        );
    }
    // Two FLOP forward and four backward per weight and token.
    let weights: usize = emu_model::weights::parameters(&model)
        .iter()
        .map(|(_, s)| s.iter().product::<usize>())
        .sum();
    println!(
        "{weights} parameters, {:.1} GFLOP without attention",
        6e-9 * weights as f64 * (b * t) as f64
    );
}

/// Processor time of this process in seconds. Other load on the machine does not count.
fn cpu_seconds() -> f64 {
    #[repr(C)]
    struct Time(i64, i64);
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Time) -> i32;
    }
    let mut time = Time(0, 0);
    unsafe { clock_gettime(2, &mut time) };
    time.0 as f64 + time.1 as f64 * 1e-9
}

/// Cost of each operation of the language model, forward and backward. Run alone, with RAYON_NUM_THREADS=1.
#[test]
#[ignore = "a measurement"]
fn operations() {
    use burn::tensor::{Distribution, Shape};
    use emu_kernels::ops::{self, AttentionOptions};
    let device = Device::flex().autodiff();
    fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
        Tensor::random(Shape::from(shape), Distribution::Normal(0.0, 1.0), device).require_grad()
    }
    fn measure<const D: usize>(name: &str, count: usize, mut f: impl FnMut() -> Tensor<D>) {
        let (mut forward, mut backward, mut base) = (f64::MAX, f64::MAX, f64::MAX);
        for _ in 0..20 {
            let clock = cpu_seconds();
            let y = f();
            forward = forward.min(cpu_seconds() - clock);
            // The cost of the loss itself is subtracted.
            let leaf: Tensor<D> = y.clone().inner().autodiff().require_grad();
            let clock = cpu_seconds();
            let _ = (leaf.clone() * leaf).sum().backward();
            base = base.min(cpu_seconds() - clock);
            let clock = cpu_seconds();
            let _ = (y.clone() * y).sum().backward();
            backward = backward.min(cpu_seconds() - clock);
        }
        let (forward, backward) = (forward * 1e3, (backward - base) * 1e3);
        let all = count as f64 * (forward + backward);
        println!(
            "{name:32} x{count:2}: forward {forward:6.2} ms, backward {backward:6.2} ms, all {all:6.1} ms"
        );
    }
    let (b, t, d, h, e, f, v) = (8, 160, 192, 6, 32, 512, 600);
    let x = random([b, t, d], &device);
    let wide = random([b, t, f], &device);
    let w = random([d, d], &device);
    let w_up = random([f, d], &device);
    let w_down = random([d, f], &device);
    let table = random([v, d], &device);
    let gamma = random([d], &device);
    let q = random([b, h, t, e], &device);
    let logits = random([b * t, v], &device);
    let targets: Vec<u32> = (0..b * t).map(|i| (i % v) as u32).collect();
    let hidden: Tensor<4, burn::tensor::Bool> = Tensor::from_data(
        TensorData::new(vec![false; b * t * t], [b, 1, t, t]),
        &device,
    );
    let middle = random([b, t, f], &device);
    let tables = emu_kernels::rope::RopeTables::new(&[(0..t).collect()], e, 10_000.0, &device);
    let ids: Tensor<2, Int> = Tensor::zeros([b, t], &device);

    measure("linear 192 -> 192", 16, || {
        ops::linear(x.clone(), w.clone(), None)
    });
    measure("linear 192 -> 512", 8, || {
        ops::linear(x.clone(), w_up.clone(), None)
    });
    measure("linear 512 -> 192", 4, || {
        ops::linear(wide.clone(), w_down.clone(), None)
    });
    measure("linear 192 -> 600", 1, || {
        ops::linear(x.clone(), table.clone(), None)
    });
    measure("2-D matmul 192 -> 192", 0, || {
        x.clone().reshape([b * t, d]).matmul(w.clone().transpose())
    });
    measure("2-D matmul 192 -> 512", 0, || {
        x.clone()
            .reshape([b * t, d])
            .matmul(w_up.clone().transpose())
    });
    measure("2-D matmul 512 -> 192", 0, || {
        wide.clone()
            .reshape([b * t, f])
            .matmul(w_down.clone().transpose())
    });
    measure("rms_norm", 9, || {
        ops::rms_norm(x.clone(), gamma.clone(), 1e-6)
    });
    measure("residual", 8, || x.clone() + x.clone());
    measure("silu_gate", 4, || {
        ops::silu_gate(wide.clone(), wide.clone())
    });
    measure("burn: silu_gate", 0, || {
        burn::tensor::activation::silu(wide.clone()).mul(wide.clone())
    });
    measure("burn: gelu", 0, || {
        burn::tensor::activation::gelu(middle.clone())
    });
    measure("burn: attention, blocks", 0, || {
        let options = burn::tensor::ops::AttentionModuleOptions {
            scale: None,
            softcap: None,
            is_causal: true,
        };
        let hidden = hidden.clone().expand([b, h, t, t]);
        burn::tensor::module::attention(
            q.clone(),
            q.clone(),
            q.clone(),
            Some(hidden),
            None,
            options,
        )
    });
    measure("gelu (encoder)", 0, || ops::gelu(middle.clone()));
    measure("rotate", 8, || tables.rotate(q.clone()));
    measure("heads", 12, || {
        x.clone().reshape([b, t, h, e]).swap_dims(1, 2)
    });
    measure("merge heads", 4, || {
        q.clone().swap_dims(1, 2).reshape([b, t, h * e])
    });
    let causal = || AttentionOptions {
        causal: true,
        ..Default::default()
    };
    measure("attention, causal", 0, || {
        ops::attention(q.clone(), q.clone(), q.clone(), causal())
    });
    measure("attention, blocks", 4, || {
        let options = AttentionOptions {
            mask: Some(hidden.clone()),
            ..causal()
        };
        ops::attention(q.clone(), q.clone(), q.clone(), options)
    });
    measure("embedding", 1, || {
        ops::embedding(table.clone(), ids.clone())
    });
    measure("cross-entropy", 1, || {
        cross_entropy(logits.clone(), &targets)
    });
}
