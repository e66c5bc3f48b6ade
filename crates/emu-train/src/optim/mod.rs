//! AdamW, gradient accumulation, gradient clipping, and the EMA of the weights.
//!
//! Burn's AdamW makes about twelve passes over every tensor, and clips each tensor separately. Here the whole update of
//! a tensor, including its EMA, is one pass for tensors in host memory ([`host`]), and composed of Burn's operations
//! elsewhere. Both implementations keep the same state and write the same files.

mod gradients;
mod host;
mod slices;
mod values;

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use emu_pack::{Dtype, PackError, TensorData as Stored};

pub use gradients::GradientSum;

use self::slices::AdamWUpdate;
pub(crate) use self::values::floats;
use self::values::on_host;
use crate::config::OptimiserConfig;

/// AdamW with a learning rate per parameter, and optionally an EMA of the weights.
///
/// As in PyTorch: `p ← p·(1 − lr·wd) − lr/(1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + eps)`, where `t` counts the updates of
/// that parameter. Parameters without a gradient are not updated.
#[derive(Debug)]
pub struct AdamW {
    settings: OptimiserConfig,
    names: Vec<String>,
    states: Vec<Option<State>>,
    average: Option<Average>,
}

/// Optimiser state of one parameter.
#[derive(Debug)]
struct State {
    updates: u64,
    m: Values,
    v: Values,
}

/// EMA of the weights: `a ← a + (1 − d)(p − a)` after every step, `d = min(decay, (1 + t) / (10 + t))`.
#[derive(Debug)]
struct Average {
    decay: f64,
    updates: u64,
    /// `None` for a parameter that was never updated: its EMA is its value.
    values: Vec<Option<Values>>,
}

/// One number per element of a parameter, on the parameter's device.
#[derive(Clone, Debug)]
enum Values {
    Host(Vec<f32>),
    Device(Box<Tensor<1>>),
}

impl Values {
    fn device(tensor: Tensor<1>) -> Self {
        Self::Device(Box::new(tensor))
    }

    fn zeros(n: usize, device: &Device) -> Self {
        if on_host(device) {
            Self::Host(vec![0.0; n])
        } else {
            Self::device(Tensor::zeros([n], &device.clone().inner()))
        }
    }

    fn from_vec(values: Vec<f32>, device: &Device) -> Self {
        if on_host(device) {
            return Self::Host(values);
        }
        let n = values.len();
        Self::device(Tensor::from_data(
            TensorData::new(values, [n]),
            &device.clone().inner(),
        ))
    }

    fn to_vec(&self) -> Vec<f32> {
        match self {
            Self::Host(values) => values.clone(),
            Self::Device(tensor) => floats((**tensor).clone()),
        }
    }
}

impl AdamW {
    /// An optimiser for this module's parameters, before its first step. With `decay`, it keeps an EMA of the weights.
    pub fn new<M: Module>(module: &M, settings: OptimiserConfig, decay: Option<f64>) -> Self {
        let names: Vec<String> = emu_model::weights::parameters(module)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let average = decay.map(|decay| Average {
            decay,
            updates: 0,
            values: names.iter().map(|_| None).collect(),
        });
        Self {
            settings,
            states: names.iter().map(|_| None).collect(),
            names,
            average,
        }
    }

    /// Names of the parameters, in the order of the module's fields.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Updates every parameter that has a gradient. `scale` multiplies the gradients ([`AdamW::clip_scale`]). `rates`
    /// has one learning rate per parameter, in the order of [`AdamW::names`].
    pub fn step<M: Module>(
        &mut self,
        module: M,
        gradients: GradientSum,
        scale: f64,
        rates: &[f64],
    ) -> M {
        let follow = self.average.as_mut().map_or(0.0, |average| {
            let t = average.updates as f64;
            average.updates += 1;
            1.0 - average.decay.min((1.0 + t) / (10.0 + t))
        });
        module.map(&mut Stepper {
            optimiser: self,
            gradients,
            scale,
            follow,
            rates,
            index: 0,
        })
    }

    /// Scale for gradients of this norm: `clip / (norm + 1e-6)`, at most 1, as in PyTorch's `clip_grad_norm_`.
    pub fn clip_scale(&self, norm: f64) -> f64 {
        if self.settings.clip > 0.0 {
            (self.settings.clip / (norm + 1e-6)).min(1.0)
        } else {
            1.0
        }
    }

    /// The module with EMA weights, if an EMA is kept.
    pub fn averaged<M: Module>(&self, module: &M) -> Option<M> {
        let average = self.average.as_ref()?;
        Some(module.clone().map(&mut Replacer {
            values: &average.values,
            index: 0,
        }))
    }

    fn update(
        &self,
        state_updates: u64,
        vector: bool,
        scale: f64,
        lr: f64,
        follow: f64,
    ) -> AdamWUpdate {
        let s = &self.settings;
        let t = state_updates as f64;
        let decays = !vector || s.decay_vectors;
        AdamWUpdate {
            scale,
            decay: if decays {
                1.0 - lr * s.weight_decay
            } else {
                1.0
            },
            beta1: s.betas.0,
            beta2: s.betas.1,
            root: 1.0 / (1.0 - s.betas.1.powf(t)).sqrt(),
            rate: lr / (1.0 - s.betas.0.powf(t)),
            eps: s.eps,
            follow,
        }
    }

    /// The optimiser state as tensors: `<name>.m`, `<name>.v`, `<name>.updates`, and `average.updates`.
    pub(crate) fn export(&self) -> Result<Vec<Stored>, PackError> {
        let mut list = Vec::new();
        let count =
            |name: String, n: u64| Stored::new(name, Dtype::I64, vec![1], n.to_le_bytes().to_vec());
        for (name, state) in self.names.iter().zip(&self.states) {
            let Some(state) = state else { continue };
            let (m, v) = (state.m.to_vec(), state.v.to_vec());
            list.push(Stored::from_f32(format!("{name}.m"), vec![m.len()], &m)?);
            list.push(Stored::from_f32(format!("{name}.v"), vec![v.len()], &v)?);
            list.push(count(format!("{name}.updates"), state.updates)?);
        }
        if let Some(average) = &self.average {
            list.push(count("average.updates".into(), average.updates)?);
        }
        Ok(list)
    }

    /// The EMA weights as tensors, without those of parameters that were never updated.
    pub(crate) fn export_average(&self) -> Result<Option<Vec<Stored>>, PackError> {
        let Some(average) = &self.average else {
            return Ok(None);
        };
        let mut list = Vec::new();
        for (name, values) in self.names.iter().zip(&average.values) {
            if let Some(values) = values {
                let values = values.to_vec();
                list.push(Stored::from_f32(name, vec![values.len()], &values)?);
            }
        }
        Ok(Some(list))
    }

    /// Restores the state from [`AdamW::export`] and [`AdamW::export_average`].
    ///
    /// # Errors
    /// The name of the tensor that is missing or does not match the module.
    pub(crate) fn import<M: Module>(
        &mut self,
        module: &M,
        moments: Vec<Stored>,
        average: Option<Vec<Stored>>,
    ) -> Result<(), String> {
        let by_name = |list: Vec<Stored>| {
            list.into_iter()
                .map(|t| (t.info.name.clone(), t))
                .collect::<BTreeMap<_, _>>()
        };
        let mut moments = by_name(moments);
        let mut averaged = average.map(by_name);
        let mut places = Places::default();
        module.visit(&mut places);
        let read = |stored: &Stored, n: usize| -> Result<Vec<f32>, String> {
            let values = stored.to_f32().map_err(|e| e.to_string())?;
            if values.len() == n {
                Ok(values)
            } else {
                Err(format!("`{}` has another size", stored.info.name))
            }
        };
        let count = |stored: &Stored| -> Result<u64, String> {
            let values = stored.to_i64().map_err(|e| e.to_string())?;
            values
                .first()
                .map(|&n| n as u64)
                .ok_or_else(|| format!("`{}` is empty", stored.info.name))
        };
        for ((name, (n, device)), state) in
            self.names.iter().zip(&places.list).zip(&mut self.states)
        {
            let Some(updates) = moments.remove(&format!("{name}.updates")) else {
                continue;
            };
            let mut take = |part: &str| {
                let name = format!("{name}.{part}");
                let stored = moments
                    .remove(&name)
                    .ok_or(format!("`{name}` is missing"))?;
                Ok::<_, String>(Values::from_vec(read(&stored, *n)?, device))
            };
            *state = Some(State {
                updates: count(&updates)?,
                m: take("m")?,
                v: take("v")?,
            });
        }
        if let Some(average) = &mut self.average {
            let updates = moments
                .remove("average.updates")
                .ok_or("`average.updates` is missing")?;
            average.updates = count(&updates)?;
            let mut stored = averaged.take().ok_or("the averaged weights are missing")?;
            for ((name, (n, device)), values) in
                self.names.iter().zip(&places.list).zip(&mut average.values)
            {
                if let Some(found) = stored.remove(name) {
                    *values = Some(Values::from_vec(read(&found, *n)?, device));
                }
            }
            if let Some(name) = stored.keys().next() {
                return Err(format!(
                    "the averaged `{name}` is no parameter of the model"
                ));
            }
        }
        match moments.keys().next() {
            Some(name) => Err(format!("`{name}` belongs to no parameter of the model")),
            None => Ok(()),
        }
    }
}

/// Sizes and devices of the parameters.
#[derive(Default)]
struct Places {
    list: Vec<(usize, Device)>,
}

impl ModuleVisitor for Places {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.list
            .push((param.lazy_shape().num_elements(), param.lazy_device()));
    }
}

struct Stepper<'a> {
    optimiser: &'a mut AdamW,
    gradients: GradientSum,
    scale: f64,
    follow: f64,
    rates: &'a [f64],
    index: usize,
}

impl ModuleMapper for Stepper<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let index = self.index;
        self.index += 1;
        let Some(gradient) = self.gradients.take(index) else {
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        let device = tensor.device();
        let n = tensor.shape().num_elements();
        let mut state = self.optimiser.states[index]
            .take()
            .unwrap_or_else(|| State {
                updates: 0,
                m: Values::zeros(n, &device),
                v: Values::zeros(n, &device),
            });
        state.updates += 1;
        let update = self.optimiser.update(
            state.updates,
            D == 1,
            self.scale,
            self.rates[index],
            self.follow,
        );
        let average = self
            .optimiser
            .average
            .as_mut()
            .map(|average| &mut average.values[index]);
        let tensor = match (gradient, &mut state.m, &mut state.v) {
            (gradients::Gradient::Host(gradient), Values::Host(m), Values::Host(v)) => {
                let mut data = tensor.inner().into_data();
                host::step(
                    &mut data,
                    &gradient,
                    m,
                    v,
                    average.map(host_average),
                    &update,
                );
                Tensor::from_data(data, &device)
            }
            (gradient, m, v) => composed(
                tensor,
                gradient.into_tensor(&device),
                m,
                v,
                average,
                &update,
            ),
        };
        self.optimiser.states[index] = Some(state);
        Param::from_mapped_value(id, tensor.require_grad(), mapper)
    }
}

/// The EMA slot, initialised for host memory.
fn host_average(slot: &mut Option<Values>) -> &mut Vec<f32> {
    if !matches!(slot, Some(Values::Host(_))) {
        *slot = Some(Values::Host(vec![]));
    }
    match slot {
        Some(Values::Host(values)) => values,
        _ => unreachable!("it was just put there"),
    }
}

/// The update composed of Burn's operations.
fn composed<const D: usize>(
    tensor: Tensor<D>,
    gradient: Tensor<1>,
    m: &mut Values,
    v: &mut Values,
    average: Option<&mut Option<Values>>,
    u: &AdamWUpdate,
) -> Tensor<D> {
    let device = tensor.device();
    let strategy = tensor.gradient_checkpointing_strategy();
    let shape = tensor.dims();
    let p = tensor.inner().flatten::<1>(0, D - 1);
    let moment = |values: &Values| match values {
        Values::Device(tensor) => (**tensor).clone(),
        Values::Host(values) => Tensor::from_data(
            TensorData::new(values.clone(), [values.len()]),
            &device.clone().inner(),
        ),
    };
    let g = if u.scale == 1.0 {
        gradient
    } else {
        gradient.mul_scalar(u.scale)
    };
    let new_m = moment(m).mul_scalar(u.beta1) + g.clone().mul_scalar(1.0 - u.beta1);
    let new_v = moment(v).mul_scalar(u.beta2) + g.square().mul_scalar(1.0 - u.beta2);
    let moved = new_m.clone().mul_scalar(u.rate)
        / new_v.clone().sqrt().mul_scalar(u.root).add_scalar(u.eps);
    let new_p = if u.decay == 1.0 {
        p.clone()
    } else {
        p.clone().mul_scalar(u.decay)
    } - moved;
    if let Some(slot) = average {
        let old = slot.as_ref().map_or_else(|| p, moment);
        *slot = Some(Values::device(
            old.clone() + (new_p.clone() - old).mul_scalar(u.follow),
        ));
    }
    *m = Values::device(new_m);
    *v = Values::device(new_v);
    let tensor = new_p.reshape(shape).autodiff();
    match strategy {
        Some(strategy) => tensor.with_gradient_checkpointing_strategy(strategy),
        None => tensor,
    }
}

struct Replacer<'a> {
    values: &'a [Option<Values>],
    index: usize,
}

impl ModuleMapper for Replacer<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let index = self.index;
        self.index += 1;
        let Some(Some(values)) = self.values.get(index) else {
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        let (device, shape) = (tensor.device().inner(), tensor.dims());
        let tensor = match values {
            Values::Host(values) => {
                Tensor::from_data(TensorData::new(values.clone(), shape), &device)
            }
            Values::Device(values) => (**values).clone().reshape(shape),
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}

#[cfg(test)]
mod tests;
