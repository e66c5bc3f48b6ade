//! KV cache: fixed capacity, written in place, rolled back by resetting its length.
//!
//! Beams do not move their keys and values. Each beam owns a row of the cache, and the beam table gives for every position
//! the row that holds it; a beam that continues another one copies that beam's table row.

use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::count;
use crate::ops::decode::DecodeBackend;
use crate::rope::{Rope, RopeTables};

/// The cache has no room for the positions. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "The cache of {capacity} positions holds {length}, so that {steps} more do not fit. Make it larger, or give it fewer."
)]
pub struct CacheFull {
    /// Positions written so far.
    pub length: usize,
    /// Positions to be written.
    pub steps: usize,
    /// Capacity in positions.
    pub capacity: usize,
}

impl CacheFull {
    fn check(length: usize, steps: usize, capacity: usize) -> Result<(), Self> {
        match steps <= capacity.saturating_sub(length) {
            true => Ok(()),
            false => Err(Self {
                length,
                steps,
                capacity,
            }),
        }
    }
}

/// Keys and values of one layer: `[B, G, C, E]`, C being the capacity.
// No `Clone`: kernels write in place even if the buffers are shared.
#[derive(Debug)]
pub struct LayerCache {
    keys: Option<Tensor<4>>,
    values: Option<Tensor<4>>,
    length: usize,
    ancestry: Option<Tensor<2, Int>>,
    appending: Option<Append>,
}

/// Where new positions are written: on the host, and in a device tensor that kernels read.
#[derive(Clone, Debug)]
struct Append {
    /// Offset: positions before the new ones.
    length: usize,
    /// Number of new positions.
    steps: usize,
    /// `[2]`: offset and number.
    on_device: Tensor<1, Int>,
}

impl Append {
    fn new(length: usize, steps: usize, device: &Device) -> Self {
        count::flushed();
        let data = TensorData::new(vec![length as i32, steps as i32], [2]);
        let on_device = Tensor::from_data(data, (device, DType::I32));
        Self {
            length,
            steps,
            on_device,
        }
    }

    /// The append after a single new position: incremented on the device, which saves an upload.
    fn next(self) -> Self {
        let on_device = Dispatch::emu_advance(self.on_device.into_dispatch());
        Self {
            length: self.length + 1,
            steps: 1,
            on_device: Tensor::from_dispatch(on_device),
        }
    }
}

impl LayerCache {
    /// An empty cache.
    pub fn new(
        batch: usize,
        heads: usize,
        capacity: usize,
        head_size: usize,
        device: &Device,
    ) -> Self {
        let zeros = || Some(Tensor::zeros([batch, heads, capacity, head_size], device));
        Self {
            keys: zeros(),
            values: zeros(),
            length: 0,
            ancestry: None,
            appending: None,
        }
    }

    /// `[B, G, C, E]`
    pub fn dims(&self) -> [usize; 4] {
        self.keys.as_ref().map_or([0; 4], Tensor::dims)
    }

    /// Capacity in positions.
    fn capacity(&self) -> usize {
        let [_, _, capacity, _] = self.dims();
        capacity
    }

    /// Passes the buffers to a kernel that writes the keys and values of `steps` positions. Kernels do not check positions:
    /// beyond the capacity, the CPU would overwrite the next head and a GPU would write nothing.
    ///
    /// # Errors
    /// No room for the positions; `write` is then not called.
    pub(crate) fn write<T>(
        &mut self,
        steps: usize,
        write: impl FnOnce(Tensor<4>, Tensor<4>, Tensor<1, Int>) -> (T, Tensor<4>, Tensor<4>),
    ) -> Result<Option<T>, CacheFull> {
        CacheFull::check(self.length, steps, self.capacity())?;
        // Taken, so that the kernel is the only owner and writes in place.
        let (Some(keys), Some(values)) = (self.keys.take(), self.values.take()) else {
            return Ok(None);
        };
        let append = match self.appending.take() {
            Some(append) if (append.length, append.steps) == (self.length, steps) => append,
            _ => Append::new(self.length, steps, &keys.device()),
        };
        let (made, keys, values) = write(keys, values, append.on_device.clone());
        (self.keys, self.values) = (Some(keys), Some(values));
        self.appending = Some(append);
        self.length += steps;
        Ok(Some(made))
    }

    /// The whole buffers, the append of the newest position, if that was [written](Self::write) alone, and the beam table.
    pub(crate) fn newest(&self) -> Option<Newest> {
        let append = self.appending.clone()?;
        (append.length + 1 == self.length && append.steps == 1).then_some(())?;
        Some(Newest {
            keys: self.keys.clone()?,
            values: self.values.clone()?,
            kv_len: append.on_device,
            table: self.ancestry.clone(),
        })
    }

    /// Positions written so far.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Drops all positions from `length` on.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Moves the positions to buffers of this capacity.
    fn grow(&mut self, capacity: usize) {
        let length = self.length;
        let grown = |buffer: Tensor<4>| {
            let [b, g, _, e] = buffer.dims();
            let larger = Tensor::<4>::zeros([b, g, capacity, e], &buffer.device());
            match length {
                0 => larger,
                _ => {
                    larger.slice_assign([0..b, 0..g, 0..length, 0..e], buffer.narrow(2, 0, length))
                }
            }
        };
        self.keys = self.keys.take().map(grown);
        self.values = self.values.take().map(grown);
    }

    /// Appends `[B, G, T, E]`, in place if this is the only owner of the buffers.
    ///
    /// # Errors
    /// No room for the positions.
    pub fn append(&mut self, k: Tensor<4>, v: Tensor<4>) -> Result<(), CacheFull> {
        let [b, g, t, e] = k.dims();
        CacheFull::check(self.length, t, self.capacity())?;
        let at = [0..b, 0..g, self.length..self.length + t, 0..e];
        // Taken, so that the assignment is the only owner and reuses the buffer.
        self.keys = self
            .keys
            .take()
            .map(|keys| keys.slice_assign(at.clone(), k));
        self.values = self.values.take().map(|values| values.slice_assign(at, v));
        self.length += t;
        Ok(())
    }

    /// Keys and values up to the capacity, `[B, G, C, E]`; `None` with a beam table, where rows are shared.
    pub(crate) fn whole(&self) -> Option<(Tensor<4>, Tensor<4>)> {
        self.ancestry.is_none().then_some(())?;
        Some((self.keys.clone()?, self.values.clone()?))
    }

    /// Keys and values visible to each sequence or beam, both `[B, G, length, E]`.
    pub fn visible(&self) -> (Tensor<4>, Tensor<4>) {
        let view = |x: &Option<Tensor<4>>| {
            let x = x
                .clone()
                .expect("the buffers are absent only inside `append`")
                .narrow(2, 0, self.length);
            match &self.ancestry {
                None => x,
                Some(rows) => {
                    let [b, g, s, e] = x.dims();
                    let rows = rows.clone().reshape([b, 1, s, 1]).expand([b, g, s, e]);
                    x.gather(0, rows)
                }
            }
        };
        (view(&self.keys), view(&self.values))
    }

    fn repeat(&self, times: usize) -> Self {
        let repeat = |x: &Option<Tensor<4>>| x.clone().map(|x| x.repeat_dim(0, times));
        Self {
            keys: repeat(&self.keys),
            values: repeat(&self.values),
            length: self.length,
            ancestry: None,
            appending: None,
        }
    }
}

/// Inputs of attention at the newest position.
pub(crate) struct Newest {
    /// `[B, G, C, E]`
    pub keys: Tensor<4>,
    /// `[B, G, C, E]`
    pub values: Tensor<4>,
    /// `[2]`: positions before the newest, and 1.
    pub kv_len: Tensor<1, Int>,
    /// `[B, positions]`
    pub table: Option<Tensor<2, Int>>,
}

/// The caches of all layers, and the beam table.
#[derive(Debug)]
pub struct KvCache {
    /// One per layer.
    pub layers: Vec<LayerCache>,
    /// Rotary tables of all positions up to the capacity.
    pub rope: RopeTables,
    appending: Option<Append>,
    capacity: usize,
    /// `table[beam][position]`: the row that holds it.
    table: Vec<Vec<i32>>,
    device: Device,
}

impl KvCache {
    /// Empty caches for `layers` layers, with rotary tables of these frequencies.
    pub fn new(
        layers: usize,
        [batch, heads, capacity, head_size]: [usize; 4],
        rope: impl Into<Rope>,
        device: &Device,
    ) -> Self {
        let layer = || LayerCache::new(batch, heads, capacity, head_size, device);
        Self {
            layers: (0..layers).map(|_| layer()).collect(),
            rope: RopeTables::upto(capacity, head_size, rope, device),
            appending: None,
            capacity,
            table: vec![],
            device: device.clone(),
        }
    }

    /// Positions written so far.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, LayerCache::len)
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Capacity in positions.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Positions that can still be written.
    pub fn left(&self) -> usize {
        self.capacity.saturating_sub(self.len())
    }

    /// Drops all positions from `length` on.
    pub fn truncate(&mut self, length: usize) {
        self.layers
            .iter_mut()
            .for_each(|layer| layer.truncate(length));
        self.table.iter_mut().for_each(|row| row.truncate(length));
    }

    /// Makes the cache of one sequence ready for a continuation: drops all positions from `length` on, and makes room for at least
    /// `capacity` positions. Buffers that are too small are replaced by larger ones, layer by layer.
    ///
    /// # Arguments
    /// - `rope`: frequencies of the rotary tables, those that the cache was made with
    pub fn reuse(&mut self, length: usize, capacity: usize, rope: impl Into<Rope>) {
        self.truncate(length);
        // The next append is uploaded: steps in flight may have moved the one on the device beyond the length.
        self.appending = None;
        self.layers
            .iter_mut()
            .for_each(|layer| layer.appending = None);
        let head_size = self.layers.first().map(|layer| layer.dims()[3]);
        if let Some(head_size) = head_size.filter(|_| capacity > self.capacity) {
            self.layers
                .iter_mut()
                .for_each(|layer| layer.grow(capacity));
            self.rope = RopeTables::upto(capacity, head_size, rope, &self.device);
            self.capacity = capacity;
        }
    }

    /// Bytes of the keys and values up to the capacity.
    pub fn bytes(&self) -> u64 {
        let layers = self.layers.iter().map(|layer| {
            let elements = layer.dims().iter().product::<usize>();
            2 * size_of::<f32>() as u64 * elements as u64
        });
        layers.sum()
    }

    /// Notes the replay of a recorded one-position step: all lengths grow by one on the host, as they did on the device.
    pub(crate) fn replayed(&mut self) {
        if let Some(append) = &mut self.appending {
            append.length += 1;
        }
        for layer in &mut self.layers {
            layer.length += 1;
            layer.appending = self.appending.clone();
        }
    }

    /// Undoes a one-position step that was recorded but did not run: lengths on the host match the device again.
    pub(crate) fn unrecorded(&mut self) {
        if let Some(append) = &mut self.appending {
            append.length -= 1;
        }
        self.truncate(self.len().saturating_sub(1));
    }

    /// Turns the cache of one sequence into that of `beams` beams which all share it.
    pub fn into_beams(self, beams: usize) -> Self {
        let table = (0..beams)
            .map(|beam| vec![beam as i32; self.len()])
            .collect();
        Self {
            layers: self
                .layers
                .iter()
                .map(|layer| layer.repeat(beams))
                .collect(),
            table,
            ..self
        }
    }

    /// Beam `i` continues beam `parents[i]`. Only the table changes.
    pub fn reorder(&mut self, parents: &[usize]) {
        self.table = parents
            .iter()
            .map(|&parent| self.table[parent].clone())
            .collect();
    }

    /// Announces `steps` new positions, which each beam appends to its own row. Uploads the append and the table once for all
    /// layers.
    ///
    /// # Errors
    /// No room for the positions.
    pub fn extend(&mut self, steps: usize) -> Result<(), CacheFull> {
        let length = self.len();
        CacheFull::check(length, steps, self.capacity)?;
        let append = match self.appending.take() {
            Some(append) if (append.length, append.steps) == (length, steps) => append,
            Some(append) if (append.length + 1, append.steps, steps) == (length, 1, 1) => {
                append.next()
            }
            _ => Append::new(length, steps, &self.device),
        };
        self.appending = Some(append.clone());
        self.layers
            .iter_mut()
            .for_each(|layer| layer.appending = Some(append.clone()));
        if self.table.is_empty() {
            return Ok(());
        }
        for (beam, row) in self.table.iter_mut().enumerate() {
            row.extend(core::iter::repeat_n(beam as i32, steps));
        }
        let shape = [self.table.len(), self.table[0].len()];
        count::flushed();
        let rows = Tensor::from_data(TensorData::new(self.table.concat(), shape), &self.device);
        self.layers
            .iter_mut()
            .for_each(|layer| layer.ancestry = Some(rows.clone()));
        Ok(())
    }
}
