//! The gradient of a step, averaged over its micro-batches.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};

use super::host;
use super::values::{floats, on_host};

/// Gradients of a module's parameters, as a weighted mean over micro-batches. They equal the gradients of one large
/// batch.
#[derive(Debug, Default)]
pub struct GradientSum {
    list: Vec<Option<Gradient>>,
    weight: f64,
}

/// A flattened gradient.
#[derive(Debug)]
pub(super) enum Gradient {
    Host(TensorData),
    Device(Box<Tensor<1>>),
}

impl Gradient {
    fn device(tensor: Tensor<1>) -> Self {
        Self::Device(Box::new(tensor))
    }

    pub(super) fn into_tensor(self, device: &Device) -> Tensor<1> {
        match self {
            Self::Device(tensor) => *tensor,
            Self::Host(data) => {
                let n = data.num_elements();
                let values: Vec<f32> = data.iter::<f32>().collect();
                Tensor::from_data(TensorData::new(values, [n]), &device.clone().inner())
            }
        }
    }
}

impl GradientSum {
    /// An empty sum.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the gradients of a micro-batch with this weight (its number of samples).
    pub fn add<M: Module>(&mut self, module: &M, gradients: Gradients, weight: f64) {
        self.weight += weight;
        let share = if self.weight > 0.0 {
            weight / self.weight
        } else {
            1.0
        };
        module.visit(&mut Collector {
            sum: self,
            gradients,
            share,
            index: 0,
        });
    }

    /// Whether no parameter has a gradient.
    pub fn is_empty(&self) -> bool {
        self.list.iter().all(Option::is_none)
    }

    /// Sum of squares over all gradients: the part known on the host, and a `[1]` tensor for gradients on the device.
    pub fn square_sum(&self) -> (f64, Option<Tensor<1>>) {
        let mut known = 0.0;
        let mut tensors = Vec::new();
        for gradient in self.list.iter().flatten() {
            match gradient {
                Gradient::Host(data) => known += host::square_sum(data),
                Gradient::Device(tensor) => tensors.push((**tensor).clone().square().sum()),
            }
        }
        (
            known,
            (!tensors.is_empty()).then(|| Tensor::cat(tensors, 0).sum()),
        )
    }

    /// The global gradient norm, in one read-back.
    pub fn norm(&self) -> f64 {
        let (known, tensor) = self.square_sum();
        (known + tensor.map_or(0.0, |t| floats(t).iter().map(|&x| f64::from(x)).sum())).sqrt()
    }

    /// Index of the first parameter whose gradient holds a NaN or an infinity.
    pub fn first_not_finite(&self) -> Option<usize> {
        self.list.iter().position(|gradient| match gradient {
            None => false,
            Some(Gradient::Host(data)) => data.iter::<f32>().any(|x| !x.is_finite()),
            Some(Gradient::Device(tensor)) => {
                floats((**tensor).clone()).iter().any(|x| !x.is_finite())
            }
        })
    }

    /// Gradients that stay tensors, on any device.
    #[cfg(test)]
    pub(super) fn of_tensors(tensors: Vec<Tensor<1>>) -> Self {
        Self {
            list: tensors
                .into_iter()
                .map(|t| Some(Gradient::device(t)))
                .collect(),
            weight: 1.0,
        }
    }

    pub(super) fn take(&mut self, index: usize) -> Option<Gradient> {
        self.list.get_mut(index).and_then(Option::take)
    }
}

struct Collector<'a> {
    sum: &'a mut GradientSum,
    gradients: Gradients,
    /// Weight of the new gradients, relative to the total so far.
    share: f64,
    index: usize,
}

impl ModuleVisitor for Collector<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let index = self.index;
        self.index += 1;
        if self.sum.list.len() <= index {
            self.sum.list.resize_with(index + 1, || None);
        }
        let slot = &mut self.sum.list[index];
        let new = param
            .is_require_grad()
            .then(|| param.val().grad_remove(&mut self.gradients))
            .flatten();
        let new = new.map(|tensor| match on_host(&tensor.device()) {
            true => Gradient::Host(tensor.into_data()),
            false => Gradient::device(tensor.flatten::<1>(0, D - 1)),
        });
        *slot = match (slot.take(), new) {
            (None, None) => None,
            (None, Some(Gradient::Host(mut new))) => {
                host::scale(&mut new, self.share);
                Some(Gradient::Host(new))
            }
            (None, Some(Gradient::Device(new))) if self.share == 1.0 => Some(Gradient::Device(new)),
            (None, Some(Gradient::Device(new))) => {
                Some(Gradient::device(new.mul_scalar(self.share)))
            }
            (Some(Gradient::Host(mut old)), None) => {
                host::scale(&mut old, 1.0 - self.share);
                Some(Gradient::Host(old))
            }
            (Some(Gradient::Device(old)), None) => {
                Some(Gradient::device(old.mul_scalar(1.0 - self.share)))
            }
            (Some(Gradient::Host(mut old)), Some(Gradient::Host(new))) => {
                host::mix(&mut old, &new, self.share);
                Some(Gradient::Host(old))
            }
            (Some(old), Some(new)) => {
                let device = param.lazy_device();
                let old = old.into_tensor(&device).mul_scalar(1.0 - self.share);
                Some(Gradient::device(
                    old + new.into_tensor(&device).mul_scalar(self.share),
                ))
            }
        };
    }
}
