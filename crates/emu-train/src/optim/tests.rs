use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData as BurnData};
use emu_kernels::random::Philox;
use emu_pack::{SafetensorsFile, TensorSource};

use super::*;

#[derive(Module, Debug)]
struct Flat {
    list: Vec<Param<Tensor<1>>>,
}

impl Flat {
    fn new(values: &[Vec<f32>], device: &Device) -> Self {
        let tensor = |v: &Vec<f32>| Tensor::from_data(BurnData::new(v.clone(), [v.len()]), device);
        Self {
            list: values
                .iter()
                .map(|v| Param::from_tensor(tensor(v).require_grad()))
                .collect(),
        }
    }

    fn values(&self) -> Vec<Vec<f32>> {
        self.list.iter().map(|p| floats(p.val())).collect()
    }

    /// Gradients of a linear loss with these slopes.
    fn gradients(&self, slopes: &[Vec<f32>]) -> GradientSum {
        let device = self.list[0].val().device();
        let terms: Vec<Tensor<1>> = self
            .list
            .iter()
            .zip(slopes)
            .map(|(p, g)| {
                (p.val() * Tensor::from_data(BurnData::new(g.clone(), [g.len()]), &device)).sum()
            })
            .collect();
        let mut sum = GradientSum::new();
        sum.add(self, Tensor::cat(terms, 0).sum().backward(), 1.0);
        sum
    }
}

fn settings(weight_decay: f64) -> OptimiserConfig {
    OptimiserConfig {
        lr: 1e-3,
        betas: (0.9, 0.98),
        eps: 1e-8,
        weight_decay,
        decay_vectors: true,
        clip: 1.0,
    }
}

fn tensors(slopes: &[Vec<f32>]) -> GradientSum {
    let device = Device::flex();
    let tensor = |g: &Vec<f32>| Tensor::from_data(BurnData::new(g.clone(), [g.len()]), &device);
    GradientSum::of_tensors(slopes.iter().map(tensor).collect())
}

/// One step on the reference's weights and gradients gives the reference's result, in both implementations.
#[test]
fn equals_pytorch() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/reference");
    let weights = SafetensorsFile::open(folder.join("tiny-emu.safetensors")).unwrap();
    let golden = SafetensorsFile::open(folder.join("tiny-emu-golden.safetensors")).unwrap();
    let names: Vec<String> = golden
        .tensors()
        .iter()
        .filter_map(|info| info.name.strip_prefix("adamw/").map(String::from))
        .collect();
    assert!(names.len() > 20);
    let read = |file: &SafetensorsFile, prefix: &str| -> Vec<Vec<f32>> {
        names
            .iter()
            .map(|name| {
                file.read(&format!("{prefix}{name}"))
                    .unwrap()
                    .to_f32()
                    .unwrap()
            })
            .collect()
    };
    let (before, gradients, after) = (
        read(&weights, ""),
        read(&golden, "grad/"),
        read(&golden, "adamw/"),
    );
    let device = Device::flex().autodiff();
    for composed in [false, true] {
        let module = Flat::new(&before, &device);
        let mut optimiser = AdamW::new(&module, settings(0.05), None);
        let sum = if composed {
            tensors(&gradients)
        } else {
            module.gradients(&gradients)
        };
        let module = optimiser.step(module, sum, 1.0, &vec![1e-3; names.len()]);
        for (((name, now), after), gradient) in names
            .iter()
            .zip(module.values())
            .zip(&after)
            .zip(&gradients)
        {
            for ((now, after), gradient) in now.iter().zip(after).zip(gradient) {
                // The first step is lr · sign(gradient), regardless of the gradient's magnitude.
                let bound = if gradient.abs() > 1e-6 {
                    2e-6 * after.abs().max(1.0)
                } else {
                    2e-3
                };
                assert!(
                    (now - after).abs() <= bound,
                    "{name}: {now} is not {after}, gradient {gradient}"
                );
            }
        }
    }
}

fn random(seed: u64, sizes: &[usize]) -> Vec<Vec<f32>> {
    sizes
        .iter()
        .enumerate()
        .map(|(i, n)| Philox::with_stream(seed, 20, i as u64).normals(*n))
        .collect()
}

/// Ten steps compared with the formula in f64, in both implementations. The sizes cover one and several chunks.
#[test]
fn equals_its_formula() {
    let sizes = [1, 7, 40_000];
    let start = random(1, &sizes);
    let device = Device::flex().autodiff();
    let mut reference: Vec<[f64; 3]> = start
        .concat()
        .iter()
        .map(|p| [f64::from(*p), 0.0, 0.0])
        .collect();
    let mut average: Vec<f64> = reference.iter().map(|p| p[0]).collect();
    let mut host = Flat::new(&start, &device);
    let mut composed = Flat::new(&start, &device);
    let mut a = AdamW::new(&host, settings(0.1), Some(0.5));
    let mut b = AdamW::new(&composed, settings(0.1), Some(0.5));
    for step in 0..10 {
        let gradients = random(100 + step, &sizes);
        let (rate, scale) = (1e-2 / (step + 1) as f64, 0.25);
        host = a.step(host.clone(), host.gradients(&gradients), scale, &[rate; 3]);
        composed = b.step(composed, tensors(&gradients), scale, &[rate; 3]);
        let t = (step + 1) as i32;
        let decay = 0.5f64.min((1.0 + step as f64) / (10.0 + step as f64));
        for (([p, m, v], average), g) in reference
            .iter_mut()
            .zip(&mut average)
            .zip(gradients.concat())
        {
            let g = f64::from(g) * scale;
            *m = 0.9 * *m + 0.1 * g;
            *v = 0.98 * *v + 0.02 * g * g;
            let root = (*v / (1.0 - 0.98f64.powi(t))).sqrt();
            *p = *p * (1.0 - rate * 0.1) - rate * (*m / (1.0 - 0.9f64.powi(t))) / (root + 1e-8);
            *average += (1.0 - decay) * (*p - *average);
        }
    }
    for (module, optimiser) in [(&host, &a), (&composed, &b)] {
        let near = |values: Vec<Vec<f32>>, expected: Vec<f64>| {
            let error = values
                .concat()
                .iter()
                .zip(expected)
                .map(|(x, y)| (f64::from(*x) - y).abs())
                .fold(0.0, f64::max);
            assert!(error < 2e-6, "{error}");
        };
        near(module.values(), reference.iter().map(|p| p[0]).collect());
        near(
            optimiser.averaged(module).unwrap().values(),
            average.clone(),
        );
    }
}

#[test]
fn clipping_takes_all_tensors_together() {
    let sizes = [3, 50_000, 129];
    let gradients = random(3, &sizes);
    let norm = gradients
        .concat()
        .iter()
        .map(|g| f64::from(*g).powi(2))
        .sum::<f64>()
        .sqrt();
    let device = Device::flex().autodiff();
    let module = Flat::new(&random(4, &sizes), &device);
    for (sum, bound) in [
        (module.gradients(&gradients), 1e-12),
        (tensors(&gradients), 1e-5),
    ] {
        assert!(
            (sum.norm() / norm - 1.0).abs() < bound,
            "{} is not {norm}",
            sum.norm()
        );
    }
    let optimiser = AdamW::new(&module, settings(0.0), None);
    assert!((optimiser.clip_scale(norm) * norm - 1.0).abs() < 1e-6);
    assert_eq!(optimiser.clip_scale(0.5), 1.0);
    let off = AdamW::new(
        &module,
        OptimiserConfig {
            clip: 0.0,
            ..settings(0.0)
        },
        None,
    );
    assert_eq!(off.clip_scale(1e9), 1.0);
}

#[test]
fn what_is_not_finite_is_found() {
    let device = Device::flex().autodiff();
    let module = Flat::new(&random(4, &[3, 5]), &device);
    let mut gradients = random(3, &[3, 5]);
    assert_eq!(module.gradients(&gradients).first_not_finite(), None);
    gradients[1][4] = f32::INFINITY;
    let sum = module.gradients(&gradients);
    assert!(!sum.norm().is_finite());
    assert_eq!(sum.first_not_finite(), Some(1));
}

#[test]
fn vectors_decay_only_where_asked() {
    let device = Device::flex().autodiff();
    let moved = |decay_vectors| {
        let module = Flat::new(&[vec![1.0; 4]], &device);
        let mut optimiser = AdamW::new(
            &module,
            OptimiserConfig {
                decay_vectors,
                ..settings(0.5)
            },
            None,
        );
        let sum = module.gradients(&[vec![0.0; 4]]);
        optimiser.step(module, sum, 1.0, &[0.1]).values()[0][0]
    };
    assert_eq!(moved(false), 1.0);
    assert!((moved(true) - 0.95).abs() < 1e-6);
}

#[test]
fn the_state_can_be_stored_and_must_fit() {
    let device = Device::flex().autodiff();
    let sizes = [3, 5];
    let gradients = random(3, &sizes);
    let fresh = || Flat::new(&random(4, &sizes), &device);
    let mut first = AdamW::new(&fresh(), settings(0.1), Some(0.9));
    let module = first.step(fresh(), fresh().gradients(&gradients), 1.0, &[1e-2; 2]);
    let (moments, average) = (first.export().unwrap(), first.export_average().unwrap());

    let mut second = AdamW::new(&module, settings(0.1), Some(0.9));
    second
        .import(&module, moments.clone(), average.clone())
        .unwrap();
    let a = first.step(
        module.clone(),
        module.gradients(&gradients),
        1.0,
        &[1e-2; 2],
    );
    let b = second.step(
        module.clone(),
        module.gradients(&gradients),
        1.0,
        &[1e-2; 2],
    );
    assert_eq!(a.values(), b.values());
    assert_eq!(
        first.averaged(&a).unwrap().values(),
        second.averaged(&b).unwrap().values()
    );

    let mut third = AdamW::new(&module, settings(0.1), Some(0.9));
    let missing = moments
        .iter()
        .filter(|t| !t.info.name.ends_with(".v"))
        .cloned()
        .collect();
    assert!(
        third
            .import(&module, missing, average.clone())
            .unwrap_err()
            .contains("list.0.v")
    );
    let renamed = moments
        .iter()
        .map(|t| t.clone().renamed(t.info.name.replace("list.1", "list.7")))
        .collect();
    assert!(
        third
            .import(&module, renamed, average.clone())
            .unwrap_err()
            .contains("list.7")
    );
    let swapped = moments
        .iter()
        .map(|t| t.clone().renamed(t.info.name.replace("list.1", "list.x")))
        .map(|t| {
            let name = t
                .info
                .name
                .replace("list.0", "list.1")
                .replace("list.x", "list.0");
            t.renamed(name)
        });
    assert!(
        third
            .import(&module, swapped.collect(), average)
            .unwrap_err()
            .contains("another size")
    );
    assert!(
        third
            .import(&module, moments, None)
            .unwrap_err()
            .contains("averaged weights are missing")
    );
}

/// Prints the time of one step. Run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let device = Device::flex().autodiff();
    let sizes = [200_000; 30];
    let gradients = random(3, &sizes);
    for decay in [None, Some(0.999)] {
        let mut module = Flat::new(&random(4, &sizes), &device);
        let mut optimiser = AdamW::new(&module, settings(0.1), decay);
        let (mut norms, mut steps) = (vec![], vec![]);
        for _ in 0..8 {
            let sum = module.gradients(&gradients);
            let clock = std::time::Instant::now();
            let norm = sum.norm();
            norms.push(clock.elapsed());
            let clock = std::time::Instant::now();
            module = optimiser.step(module, sum, optimiser.clip_scale(norm), &[1e-3; 30]);
            steps.push(clock.elapsed());
        }
        println!(
            "6 M parameters, average {decay:?}: norm {:?}, step {:?}",
            norms.iter().min(),
            steps.iter().min()
        );
    }
    let mut burn = burn::optim::AdamWConfig::new().init();
    let mut module = Flat::new(&random(4, &sizes), &device);
    let mut steps = vec![];
    for _ in 0..8 {
        let device = module.list[0].val().device();
        let terms = module.list.iter().zip(&gradients).map(|(p, g)| {
            (p.val() * Tensor::from_data(BurnData::new(g.clone(), [g.len()]), &device)).sum()
        });
        let loss = Tensor::cat(terms.collect(), 0).sum();
        let grads = burn::optim::GradientsParams::from_grads(loss.backward(), &module);
        drop(loss);
        let clock = std::time::Instant::now();
        module = burn.step(1e-3, module, grads);
        steps.push(clock.elapsed());
    }
    println!("Burn's AdamW: {:?}", steps.iter().min());
}
