//! Compares losses, their gradients and an optimiser step with the goldens.

use emu_kernels::burn::tensor::{Device, Tensor};
use emu_model::parity::core::{self, Batch, Subject};
use emu_model::parity::diffusion::gradients;
use emu_model::parity::{Bound, Goldens, ParityError, Row, compare, exact};
use emu_model::{Emu, EmuConfig, keys, weights};
use emu_pack::convert::open_weights;
use emu_pack::{KeyMap, Mapped};
use serde_json::Value;

use super::folder::{Files, FolderError, open};
use crate::config::OptimiserConfig;
use crate::objectives::unified::{Regression, Sequences, UnifiedLoss, UnifiedOptions, unified};
use crate::optim::{AdamW, GradientSum};

/// A model in training, with its goldens.
struct Trained<'a> {
    emu: Emu,
    config: &'a EmuConfig,
    device: &'a Device,
    goldens: &'a Goldens<'a>,
    /// Prefix of its batch and gradients in the goldens.
    prefix: &'a str,
}

impl Trained<'_> {
    fn loss(&self, regression: Regression) -> Result<UnifiedLoss, ParityError> {
        let batch = Batch::read(self.goldens, self.prefix)?;
        let subject = Subject {
            emu: &self.emu,
            config: self.config,
            device: self.device,
        };
        let visual = core::embeddings(subject, self.goldens)?;
        let q = self.config.queries().max(1);
        let [held, _, _] = visual.dims();
        let pictures = batch.image_tokens(self.config.special.image) / q;
        let visual = visual.narrow(0, 0, pictures.min(held));
        let sequences = Sequences {
            positions: vec![(0..batch.steps()).collect()],
            visibility: batch.visibility(self.device),
            ids: batch.ids,
            wanted: None,
        };
        let options = UnifiedOptions {
            regression,
            ..Default::default()
        };
        Ok(unified(
            &self.emu,
            &self.config.special,
            &sequences,
            Some(visual),
            None,
            &options,
        )?)
    }

    /// Compares every golden gradient under `prefix` with that of this loss.
    fn gradients(&self, prefix: &str, loss: Option<Tensor<1>>, map: &KeyMap) -> Vec<Row> {
        let names: Vec<&str> = self
            .goldens
            .names()
            .filter(|n| n.starts_with(prefix))
            .collect();
        if names.is_empty() {
            return vec![];
        }
        let Some(loss) = loss else {
            return vec![Row::failed(prefix, "the batch has nothing to lose on")];
        };
        let found = gradients(&self.emu, &loss.backward());
        let mut rows = vec![];
        for name in names {
            let ours = match map.to_model(&name[prefix.len()..]) {
                Some(Mapped::Name(ours)) => found.get(&ours),
                _ => None,
            };
            rows.push(match ours {
                Some(ours) => self.goldens.compare_data(name, ours, Bound::Gradient),
                None => Row::failed(name, "no parameter of this name has a gradient"),
            });
        }
        rows
    }

    /// Labels in the reference's format, -100 for none.
    fn labels(&self, name: &str, loss: &UnifiedLoss) -> Result<Row, ParityError> {
        let label = |label: &Option<u32>| label.map_or(-100, i64::from);
        let got: Vec<i64> = loss.labels.iter().flatten().map(label).collect();
        let (_, want) = self.goldens.ints(name)?;
        Ok(exact(name, &got, &want))
    }
}

/// Both losses of the pretrained model and their terms, all gradients, and a step of AdamW.
pub(super) fn pretrained(files: &Files, device: &Device) -> Result<Vec<Row>, FolderError> {
    let source = files.goldens()?;
    let goldens = Goldens {
        tensors: &source,
        json: &files.json,
    };
    let device = device.clone().autodiff();
    let config = files.pretrained()?;
    let map = keys::emu()?;
    let emu = open(&files.path(".safetensors"), &config, &map, &device)?;
    let trained = Trained {
        emu,
        config: &config,
        device: &device,
        goldens: &goldens,
        prefix: "right",
    };

    // 1. the losses and their terms
    let loss = trained.loss(Regression::N)?;
    let other = trained.loss(Regression::NPlusOne)?;
    let mut rows = vec![];
    for (name, value) in [
        ("loss.cls", &loss.text),
        ("loss.reg", &loss.visual),
        ("loss.reg_np1", &other.visual),
        ("loss.total", &loss.total(1.0)),
    ] {
        if goldens.has(name) {
            rows.push(scalar(&goldens, name, value));
        }
    }
    rows.push(trained.labels("loss.labels", &loss)?);
    let regressed: Vec<i64> = loss
        .regressed
        .iter()
        .flatten()
        .map(|&r| i64::from(r))
        .collect();
    rows.push(exact(
        "loss.reg_mask",
        &regressed,
        &goldens.ints("loss.reg_mask")?.1,
    ));
    for (name, got) in [
        ("loss.reg_pred", &loss.predicted),
        ("loss.reg_target", &loss.target),
    ] {
        rows.push(match got {
            Some(got) => goldens.compare(name, got, Bound::Forward),
            None => Row::failed(name, "nothing is regressed"),
        });
    }

    // 2. gradients of each loss and of their sum
    let (text, visual) = (
        trained.loss(Regression::N)?.text,
        trained.loss(Regression::N)?.visual,
    );
    rows.extend(trained.gradients("grad_cls/", text, &map));
    rows.extend(trained.gradients("grad_reg/", visual, &map));
    rows.extend(trained.gradients("grad/", loss.total(1.0), &map));

    // 3. one optimiser step
    rows.extend(step(trained, &map)?);
    Ok(rows)
}

/// The instruction-tuned model: text loss, labels, gradients of the LoRA adapters.
pub(super) fn instructed(files: &Files, device: &Device) -> Result<Vec<Row>, FolderError> {
    let source = files.goldens()?;
    let goldens = Goldens {
        tensors: &source,
        json: &files.json,
    };
    let device = device.clone().autodiff();
    let path = files.path("-instruct.safetensors");
    let config = files.instructed(&*open_weights(&path)?)?;
    let map = keys::emu_instruct()?;
    let trained = Trained {
        emu: open(&path, &config, &map, &device)?,
        config: &config,
        device: &device,
        goldens: &goldens,
        prefix: "instruct",
    };
    let loss = trained.loss(Regression::N)?;
    let mut rows = vec![
        scalar(&goldens, "instruct.loss", &loss.text),
        trained.labels("instruct.labels", &loss)?,
    ];
    rows.extend(trained.gradients("instruct.grad/", loss.text, &map));
    Ok(rows)
}

fn scalar(goldens: &Goldens<'_>, name: &str, value: &Option<Tensor<1>>) -> Row {
    match value {
        Some(value) => goldens.compare(name, value, Bound::Forward),
        None => Row::failed(name, "the batch has nothing to lose on"),
    }
}

/// One AdamW step on the total loss, with the settings in the JSON, and the losses after it.
fn step(mut trained: Trained<'_>, map: &KeyMap) -> Result<Vec<Row>, ParityError> {
    let goldens = trained.goldens;
    let Some(settings) = goldens.json.get("adamw") else {
        return Ok(vec![]);
    };
    let number = |key: &str| {
        let value = settings.get(key).and_then(Value::as_f64);
        value.ok_or_else(|| ParityError::Json(format!("adamw.{key}")))
    };
    let beta = |i: usize| {
        let value = settings
            .get("betas")
            .and_then(|b| b.get(i))
            .and_then(Value::as_f64);
        value.ok_or_else(|| ParityError::Json("adamw.betas".into()))
    };
    let lr = number("lr")?;
    let config = OptimiserConfig {
        lr,
        betas: (beta(0)?, beta(1)?),
        eps: number("eps")?,
        weight_decay: number("weight_decay")?,
        decay_vectors: true,
        clip: 0.0,
    };
    let Some(total) = trained.loss(Regression::N)?.total(1.0) else {
        return Ok(vec![Row::failed(
            "adamw",
            "the batch has nothing to lose on",
        )]);
    };
    let mut sum = GradientSum::new();
    sum.add(&trained.emu, total.backward(), 1.0);
    let mut optimiser = AdamW::new(&trained.emu, config, None);
    let rates = vec![lr; optimiser.names().len()];
    trained.emu = optimiser.step(trained.emu, sum, 1.0, &rates);

    let stepped = weights::to_map(&trained.emu);
    let mut rows = vec![];
    for name in goldens.names() {
        let Some(key) = name.strip_prefix("adamw/") else {
            continue;
        };
        let ours = match map.to_model(key) {
            Some(Mapped::Name(ours)) => stepped.get(&ours),
            _ => None,
        };
        match ours {
            Some(ours) => rows.extend(compare_step(goldens, name, key, &ours.to_f32()?, lr)?),
            None => rows.push(Row::failed(name, "there is no such parameter")),
        }
    }
    let after = trained.loss(Regression::N)?;
    for (key, value) in [("cls", after.text), ("reg", after.visual)] {
        let want = settings
            .get("loss_after")
            .and_then(|l| l.get(key))
            .and_then(Value::as_f64);
        if let (Some(want), Some(value)) = (want, value) {
            let got: Vec<f32> = value.to_data().iter::<f32>().collect();
            let name = format!("adamw.loss_after.{key}");
            rows.push(compare(&name, &got, &[want as f32], Bound::Forward));
        }
    }
    Ok(rows)
}

/// The first step of AdamW moves a weight by about `lr · sign(gradient)`. If the gradient is as small as its own
/// rounding error, its sign is arbitrary, and the weight may be off by twice the learning rate. Elsewhere it must
/// match.
fn compare_step(
    goldens: &Goldens<'_>,
    name: &str,
    key: &str,
    got: &[f32],
    lr: f64,
) -> Result<Vec<Row>, ParityError> {
    let (_, want) = goldens.floats(name)?;
    let (_, gradient) = goldens.floats(&format!("grad/{key}"))?;
    if got.len() != want.len() || gradient.len() != want.len() {
        return Ok(vec![Row::failed(name, "its size is another")]);
    }
    let absmax = gradient.iter().fold(0f32, |max, g| max.max(g.abs()));
    let (mut clear, mut chance) = ((vec![], vec![]), (vec![], vec![]));
    for ((got, want), gradient) in got.iter().zip(&want).zip(&gradient) {
        // Below 1e-6, the eps of 1e-8 and the gradient's error also affect the step.
        let certain = gradient.abs() > 2e-4 * absmax && gradient.abs() > 1e-6;
        let (ours, theirs) = if certain { &mut clear } else { &mut chance };
        ours.push(*got);
        theirs.push(*want);
    }
    let mut rows = vec![compare(
        name,
        &clear.0,
        &clear.1,
        Bound::Absolute(0.02 * lr),
    )];
    if !chance.0.is_empty() {
        let name = format!("{name} (gradient near 0)");
        rows.push(compare(
            &name,
            &chance.0,
            &chance.1,
            Bound::Absolute(2.0 * lr),
        ));
    }
    Ok(rows)
}
