//! A stage of a few hundred parameters that covers the hard parts of exact resume: convolution, linear, dropout,
//! batches from a background thread, a term read back from the device.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData, activation};
use emu_kernels::random::{Philox, Stream};
use emu_kernels::{Conv2d, Conv2dConfig, LayerNorm, QLinear, init, ops};
use emu_train::stage::Source;
use emu_train::{
    Outcome, Prefetch, RunOptions, Stage, StepContext, StepLoss, TrainConfig, TrainError,
};

/// Flex has one random generator for the whole process, so runs must be serialised.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Module, Debug)]
pub struct Toy {
    pub stem: Conv2d,
    pub norm: LayerNorm,
    pub head: QLinear,
    pub dropout: f64,
}

impl Toy {
    pub fn new(dropout: f64, device: &Device) -> Self {
        let _sequence = init::seed(11);
        Self {
            stem: Conv2dConfig::same(2, 4, 3).init(device),
            norm: LayerNorm::new(64, 1e-5, device),
            head: QLinear::new(64, 3, true, device),
            dropout,
        }
    }

    pub fn forward(&self, x: Tensor<4>, train: bool) -> Tensor<2> {
        let x = activation::relu(self.stem.forward(x)).flatten::<2>(1, 3);
        let x = self.norm.forward(x);
        let x = if train && self.dropout > 0.0 {
            ops::dropout(x, self.dropout)
        } else {
            x
        };
        self.head.forward(x)
    }
}

struct Batch {
    pictures: Vec<f32>,
    targets: Vec<f32>,
    keys: Vec<String>,
}

pub struct ToyStage {
    batches: Prefetch<Batch>,
    seed: u64,
    size: usize,
    /// Makes the pictures of this batch NaN.
    pub poison: Option<u64>,
    pub looked: Vec<(u64, f32)>,
}

/// Pictures of 2 x 4 x 4 and a target determined by them. Sample `i` does not depend on its batch.
fn sample(seed: u64, index: u64) -> (Vec<f32>, [f32; 3]) {
    let x = Philox::new(seed, Stream::Data, index).normals(32);
    let target = [x[0] + x[1], x[2] * x[3], x[4..8].iter().sum::<f32>().tanh()];
    (x, target)
}

fn batch(seed: u64, first: u64, size: usize) -> Batch {
    let mut batch = Batch {
        pictures: vec![],
        targets: vec![],
        keys: vec![],
    };
    for i in first..first + size as u64 {
        let (x, target) = sample(seed, i);
        batch.pictures.extend(x);
        batch.targets.extend(target);
        batch.keys.push(format!("sample-{i}"));
    }
    batch
}

/// Number of samples of a validation set, and the first of them.
const HELD_OUT: (usize, u64) = (12, 1_000_000);

impl ToyStage {
    pub fn new(config: &TrainConfig) -> Self {
        let (seed, size) = (config.seed, config.batch);
        Self {
            batches: Prefetch::new(3, move |index| Ok(batch(seed, index * size as u64, size))),
            seed,
            size,
            poison: None,
            looked: vec![],
        }
    }
}

impl Stage for ToyStage {
    type Model = Toy;

    fn name(&self) -> &str {
        "toy"
    }

    fn loss(&mut self, model: &Toy, context: &StepContext) -> Result<StepLoss, TrainError> {
        let Batch {
            mut pictures,
            targets,
            keys,
        } = match context.source {
            Source::Training => self.batches.get(context.batch_index())?,
            Source::Validation(_) => {
                let first = HELD_OUT.1 + context.batch_index() * self.size as u64;
                batch(self.seed, first, self.size)
            }
        };
        if self.poison == Some(context.step) {
            pictures[5] = f32::NAN;
        }
        let noise = context
            .random(Stream::TrainingNoise)
            .normals(pictures.len());
        if model.dropout > 0.0 {
            pictures
                .iter_mut()
                .zip(noise)
                .for_each(|(x, n)| *x += 0.01 * n);
        }
        let n = self.size;
        let x: Tensor<4> =
            Tensor::from_data(TensorData::new(pictures, [n, 2, 4, 4]), &context.device);
        let y: Tensor<2> = Tensor::from_data(TensorData::new(targets, [n, 3]), &context.device);
        let error = (model.forward(x, context.train) - y).square();
        let first = error.clone().narrow(1, 0, 1).mean();
        Ok(StepLoss::new(error.mean(), n)
            .with_term("first", first)
            .with_term("two", 2.0)
            .with_keys(keys))
    }

    fn samples(&self, source: Source) -> Option<usize> {
        matches!(source, Source::Validation(_)).then_some(HELD_OUT.0)
    }

    fn sample(&mut self, model: &Toy, step: u64, dir: &Path) -> Result<(), TrainError> {
        assert!(!model.head.weight.val().device().is_autodiff());
        std::fs::write(dir.join("toy.txt"), step.to_string()).map_err(TrainError::io("write", dir))
    }

    fn evaluate(&mut self, model: &Toy, step: u64) -> Result<Vec<(String, f32)>, TrainError> {
        // Uses the device's generator, which must not affect the run.
        let device = model.head.weight.val().device();
        let x = Tensor::random([2, 2, 4, 4], burn::tensor::Distribution::Default, &device);
        let value = model.forward(x, true).mean().into_scalar::<f32>();
        self.looked.push((step, value));
        Ok(vec![("mean".into(), value)])
    }
}

pub fn config(out: &Path, extra: &str) -> TrainConfig {
    let text = format!(
        "stage = 'toy'\nseed = 5\nsteps = 20\nbatch = 4\nout = {:?}\n{extra}\n[optimiser]\nlr = 1e-2\nweight_decay = 0.05\n",
        out.display().to_string()
    );
    TrainConfig::parse(&text, Path::new("toy.toml")).unwrap()
}

pub fn train(config: &TrainConfig, options: RunOptions) -> Result<Outcome<Toy>, TrainError> {
    train_stage(config, &mut ToyStage::new(config), 0.2, options)
}

pub fn train_stage(
    config: &TrainConfig,
    stage: &mut ToyStage,
    dropout: f64,
    options: RunOptions,
) -> Result<Outcome<Toy>, TrainError> {
    let device = config.training_device(&Device::flex());
    emu_train::run(config, stage, Toy::new(dropout, &device), &device, options)
}

/// All weights as raw bytes.
pub fn bits(model: &Toy) -> Vec<(String, Vec<u8>)> {
    emu_model::weights::to_map(model)
        .into_iter()
        .map(|(name, tensor)| (name, tensor.bytes))
        .collect()
}

pub fn steps_in(path: PathBuf) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap();
    let step = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["step"]
            .as_u64()
            .unwrap()
    };
    text.lines().map(step).collect()
}
