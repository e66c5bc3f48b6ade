//! Captures intermediate tensors of a forward pass, for comparison with another implementation.

use std::collections::BTreeMap;
use std::fmt::Arguments;

use burn::tensor::{Tensor, TensorData};

/// Collects named tensors during a forward pass, or ignores them at no cost.
#[derive(Debug, Default)]
pub struct Probe {
    seen: Option<BTreeMap<String, TensorData>>,
    prefix: String,
}

impl Probe {
    /// A probe that ignores everything.
    pub fn off() -> Self {
        Self::default()
    }

    /// A probe that keeps everything under `prefix` + name.
    pub fn on(prefix: &str) -> Self {
        Self {
            seen: Some(BTreeMap::new()),
            prefix: prefix.into(),
        }
    }

    /// Whether tensors are kept.
    pub fn is_on(&self) -> bool {
        self.seen.is_some()
    }

    /// Keeps a tensor.
    pub fn see<const D: usize>(&mut self, name: Arguments<'_>, tensor: &Tensor<D>) {
        if let Some(seen) = &mut self.seen {
            // Copied at once: the read-back of a GPU that shares the CPU's memory may alias the tensor's buffer, which
            // a later operation may overwrite.
            let values: Vec<f32> = tensor.to_data().iter::<f32>().collect();
            let data = TensorData::new(values, tensor.dims());
            seen.insert(format!("{}{name}", self.prefix), data);
        }
    }

    /// The captured tensors, by name.
    pub fn into_seen(self) -> BTreeMap<String, TensorData> {
        self.seen.unwrap_or_default()
    }
}
