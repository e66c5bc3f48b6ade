//! Loads a pack shard by shard, in any order, as a web page does, which has no file system to read tensors by name.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use burn::tensor::Device;
use emu_pack::{MANIFEST_FILE, Manifest, PackError, PartView, Stored as Value, TensorData, quant};

use crate::config::EmuConfig;
use crate::diffusion::{Decoder, DecoderConfig};
use crate::emu::Emu;
use crate::pack::{self, LoadError, ModelConfig};
use crate::safety::{SafetyChecker, SafetyConfig};
use crate::weights;

/// A model whose weights arrive shard by shard. A component can be used after [`Streamed::finish`] found it complete.
#[derive(Debug)]
pub struct Streamed {
    manifest: Manifest,
    config: ModelConfig,
    device: Device,
    emu: Emu,
    decoder: Option<Decoder>,
    safety: Option<SafetyChecker>,
    /// Tensors that are incomplete, or wait for their scales.
    waiting: HashMap<String, Stored>,
    /// Parameters with loaded values.
    filled: HashSet<String>,
    finished: BTreeSet<String>,
}

/// A partly received tensor.
#[derive(Debug)]
struct Stored {
    tensor: TensorData,
    /// Received row ranges, disjoint.
    rows: Vec<Range<usize>>,
}

impl Stored {
    fn is_whole(&self) -> bool {
        let wanted = self.tensor.info.shape.first().copied().unwrap_or(1);
        self.rows.iter().map(Range::len).sum::<usize>() == wanted
    }

    fn has_some_of(&self, rows: &Range<usize>) -> bool {
        let common = |there: &Range<usize>| rows.start.max(there.start) < rows.end.min(there.end);
        self.rows.iter().any(common)
    }
}

impl Streamed {
    /// Creates a model without weights from the bytes of an `emu.json`.
    ///
    /// # Errors
    /// If the manifest or its configuration is invalid.
    pub fn new(manifest: &[u8], device: &Device) -> Result<Self, LoadError> {
        let manifest = Manifest::parse(MANIFEST_FILE, manifest)?;
        let config = ModelConfig::from_value(&manifest.config)?;
        Ok(Self {
            emu: config.emu.init(device)?,
            decoder: config
                .decoder
                .as_ref()
                .map(|d| d.init(device))
                .transpose()?,
            safety: config.safety.as_ref().map(|s| s.init(device)).transpose()?,
            manifest,
            config,
            device: device.clone(),
            waiting: HashMap::new(),
            filled: HashSet::new(),
            finished: BTreeSet::new(),
        })
    }

    /// Manifest of the pack.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Configuration of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Verifies a shard and uploads the tensors that it completes. Parts of incomplete tensors are kept until the rest
    /// arrives.
    ///
    /// # Errors
    /// A wrong hash or length; the shard can be retried. Rows that were received before; these stay unchanged. A
    /// damaged, misshapen or unknown tensor; the component must then be unloaded.
    pub fn shard(&mut self, file: &str, bytes: &[u8]) -> Result<(), LoadError> {
        let mut touched = BTreeSet::new();
        let parts = self.manifest.open_shard(file, bytes)?;
        // Checked before any part of it is kept.
        for part in &parts {
            let waiting = self.waiting.get(&part.tensor.name);
            if self.filled.contains(logical(&part.tensor.name))
                || waiting.is_some_and(|stored| stored.has_some_of(&part.rows))
            {
                return Err(twice(file, part).into());
            }
        }
        for part in &parts {
            touched.insert(logical(&part.tensor.name).to_owned());
            keep(&mut self.waiting, file, part)?;
        }
        let mut ready = BTreeMap::new();
        for name in touched {
            if let Some(stored) = self.take(&name) {
                ready.insert(name, stored);
            }
        }
        self.fill(ready)
    }

    /// Takes the stored tensors of a parameter once all of them are complete: words, scales, minimums.
    fn take(&mut self, name: &str) -> Option<Vec<TensorData>> {
        let mut names = vec![name.to_owned()];
        if let Some(scheme) = self.manifest.quantization.get(name) {
            names.push(quant::scales_name(name));
            if scheme.has_mins() {
                names.push(quant::mins_name(name));
            }
        }
        let whole = |name: &String| {
            let stored = self.waiting.get(name);
            stored.is_some_and(Stored::is_whole)
        };
        if !names.iter().all(whole) {
            return None;
        }
        let taken = names.iter().filter_map(|name| self.waiting.remove(name));
        Some(taken.map(|stored| stored.tensor).collect())
    }

    fn fill(&mut self, mut ready: BTreeMap<String, Vec<TensorData>>) -> Result<(), LoadError> {
        let manifest = &self.manifest;
        let filled = &mut self.filled;
        let mut take = |name: &str| {
            let stored = ready.remove(name)?;
            filled.insert(name.to_owned());
            let mut stored = stored.into_iter();
            Some(match (stored.next(), stored.next(), stored.next()) {
                (Some(words), Some(scales), mins) => manifest
                    .quantized(words, scales, mins)
                    .map(Value::Quantized),
                (Some(tensor), ..) => Ok(Value::Dense(tensor)),
                (None, ..) => Err(missing(name)),
            })
        };
        self.emu = weights::fill(self.emu.clone(), &self.device, &mut take)?;
        if let Some(decoder) = self.decoder.clone() {
            self.decoder = Some(weights::fill(decoder, &self.device, &mut take)?);
        }
        if let Some(safety) = self.safety.clone() {
            let take = |name: &str| take(&format!("safety.{name}"));
            self.safety = Some(weights::fill(safety, &self.device, take)?);
        }
        match ready.into_keys().next() {
            None => Ok(()),
            Some(tensor) => Err(LoadError::Pack(PackError::UnknownTensor {
                file: MANIFEST_FILE.into(),
                tensor,
            })),
        }
    }

    /// Checks that a component is complete, and precomputes what it derives from its weights, so that no request is the
    /// first to do so.
    ///
    /// # Errors
    /// Names the first parameter without a value, or reports that the pack has no such component.
    pub fn finish(&mut self, component: &str) -> Result<(), LoadError> {
        let wanted = self.parameters(component)?;
        if let Some(name) = wanted.iter().find(|name| !self.filled.contains(*name)) {
            return Err(LoadError::Pack(missing(name)));
        }
        if component == pack::LM {
            // Moved out, so that each layer's parts are freed when they are fused.
            let config = &self.config.emu;
            let empty = config.init(&self.device)?.lm;
            let lm = std::mem::replace(&mut self.emu.lm, empty);
            self.emu.lm = lm.fuse().with_activations(config.lm_activations());
        }
        if let Some(safety) = self.safety.as_ref().filter(|_| component == pack::SAFETY) {
            safety.dequantize_once();
        }
        self.finished.insert(component.to_owned());
        Ok(())
    }

    /// Unloads the weights of a component.
    ///
    /// # Errors
    /// If the pack has no such component.
    pub fn unload(&mut self, component: &str) -> Result<(), LoadError> {
        let names = self.parameters(component)?;
        self.finished.remove(component);
        self.filled.retain(|name| !names.contains(name));
        self.waiting
            .retain(|name, _| pack::component(name) != component);
        let device = &self.device;
        match component {
            pack::DECODER => {
                let config = self.config.decoder.as_ref();
                self.decoder = config.map(|c| c.init(device)).transpose()?;
            }
            pack::SAFETY => {
                let config = self.config.safety.as_ref();
                self.safety = config.map(|c| c.init(device)).transpose()?;
            }
            part => {
                let new = self.config.emu.init(device)?;
                match part {
                    pack::LM => {
                        self.emu.lm = new.lm;
                        (self.emu.persona, self.emu.requests) = (new.persona, new.requests);
                    }
                    _ => {
                        (self.emu.visual, self.emu.ln_visual) = (new.visual, new.ln_visual);
                        (self.emu.cformer, self.emu.namer) = (new.cformer, new.namer);
                    }
                }
            }
        }
        self.device.memory_cleanup();
        Ok(())
    }

    /// Whether a component is ready for use.
    pub fn is_loaded(&self, component: &str) -> bool {
        self.finished.contains(component)
    }

    /// Parameter names of a component.
    fn parameters(&self, component: &str) -> Result<BTreeSet<String>, LoadError> {
        let names =
            |list: Vec<(String, _)>| list.into_iter().map(|(name, _): (String, Vec<usize>)| name);
        let found: BTreeSet<String> = match component {
            pack::DECODER => self
                .decoder
                .iter()
                .flat_map(|d| names(weights::parameters(d)))
                .collect(),
            pack::SAFETY => {
                let all = self
                    .safety
                    .iter()
                    .flat_map(|s| names(weights::parameters(s)));
                all.map(|name| format!("safety.{name}")).collect()
            }
            _ => names(weights::parameters(&self.emu))
                .filter(|name| pack::component(name) == component)
                .collect(),
        };
        if found.is_empty() {
            return Err(LoadError::NoComponent {
                component: component.into(),
            });
        }
        Ok(found)
    }

    /// Vision encoder and language model.
    ///
    /// # Errors
    /// If one of them is not loaded.
    pub fn emu(&self) -> Result<(&Emu, &EmuConfig), LoadError> {
        self.loaded(pack::VISION)?;
        self.loaded(pack::LM)?;
        Ok((&self.emu, &self.config.emu))
    }

    /// Vision encoder and causal former; the language model need not be loaded.
    ///
    /// # Errors
    /// If they are not loaded.
    pub fn vision(&self) -> Result<(&Emu, &EmuConfig), LoadError> {
        self.loaded(pack::VISION)?;
        Ok((&self.emu, &self.config.emu))
    }

    /// The diffusion decoder.
    ///
    /// # Errors
    /// If it is not loaded.
    pub fn decoder(&self) -> Result<(&Decoder, &DecoderConfig), LoadError> {
        self.loaded(pack::DECODER)?;
        let both = self.decoder.as_ref().zip(self.config.decoder.as_ref());
        both.ok_or_else(|| LoadError::NoComponent {
            component: pack::DECODER.into(),
        })
    }

    /// The safety checker, if the pack has one.
    ///
    /// # Errors
    /// If the pack has one that is not loaded.
    pub fn safety(&self) -> Result<Option<(&SafetyChecker, &SafetyConfig)>, LoadError> {
        if self.config.safety.is_some() {
            self.loaded(pack::SAFETY)?;
        }
        Ok(self.safety.as_ref().zip(self.config.safety.as_ref()))
    }

    fn loaded(&self, component: &str) -> Result<(), LoadError> {
        match self.is_loaded(component) {
            true => Ok(()),
            false => Err(LoadError::NotLoaded {
                component: component.into(),
            }),
        }
    }
}

/// Name of the parameter that a stored tensor belongs to.
fn logical(stored: &str) -> &str {
    let base = stored.strip_suffix(".scales");
    base.or_else(|| stored.strip_suffix(".mins"))
        .unwrap_or(stored)
}

/// Copies a part to its rows of the tensor.
fn keep(
    waiting: &mut HashMap<String, Stored>,
    file: &str,
    part: &PartView<'_>,
) -> Result<(), PackError> {
    let info = part.tensor.info();
    let name = info.name.clone();
    let rows = part.tensor.rows().max(1);
    let stored = match waiting.entry(name) {
        std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::hash_map::Entry::Vacant(entry) => {
            let bytes = vec![0; info.byte_len()?];
            entry.insert(Stored {
                tensor: TensorData { info, bytes },
                rows: vec![],
            })
        }
    };
    if stored.has_some_of(&part.rows) {
        return Err(twice(file, part));
    }
    let width = stored.tensor.bytes.len() / rows;
    let expected = part.rows.len() * width;
    let place = part.rows.start * width..part.rows.end * width;
    let into = stored.tensor.bytes.get_mut(place);
    match into.filter(|into| into.len() == part.bytes.len()) {
        Some(into) => into.copy_from_slice(part.bytes),
        None => {
            return Err(PackError::WrongLength {
                tensor: part.tensor.name.clone(),
                expected: expected as u64,
                found: part.bytes.len() as u64,
            });
        }
    }
    stored.rows.push(part.rows.clone());
    Ok(())
}

fn twice(file: &str, part: &PartView<'_>) -> PackError {
    PackError::RowsTwice {
        file: file.into(),
        tensor: part.tensor.name.clone(),
        begin: part.rows.start,
        end: part.rows.end,
    }
}

fn missing(tensor: &str) -> PackError {
    PackError::MissingTensor {
        file: MANIFEST_FILE.into(),
        tensor: tensor.into(),
    }
}
