//! Parts of a model, selected by prefixes of parameter names: learning rates, freezing, initial weights.

use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData as BurnData};
use emu_pack::{PackReader, TensorData, TensorSource};

use crate::TrainError;
use crate::checkpoint::Checkpoint;
use crate::config::TrainConfig;
use crate::published::{Published, reads_condition};
use crate::schedule::Schedule;

/// Whether a parameter belongs to a part: its name is `part`, or starts with `part` and a dot. The part `""` matches
/// every name. `*.lora` matches every name with the element `lora`.
pub fn belongs(name: &str, part: &str) -> bool {
    if let Some(element) = part.strip_prefix("*.") {
        return name.split('.').any(|e| e == element);
    }
    part.is_empty()
        || name
            .strip_prefix(part)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The learning rate of every parameter, by part.
#[derive(Clone, Debug)]
pub struct Rates {
    /// Name and peak learning rate of each part. The last, `""`, is the rest.
    parts: Vec<(String, f64)>,
    frozen: Vec<bool>,
    /// Index into `parts` for each parameter.
    of: Vec<usize>,
}

impl Rates {
    /// Assigns each parameter to a part.
    ///
    /// # Errors
    /// [`TrainError::Config`] if a part has no parameters, or nothing is left to train.
    pub fn new(config: &TrainConfig, names: &[String]) -> Result<Self, TrainError> {
        let mut parts: Vec<(String, f64)> = config
            .rates
            .iter()
            .map(|rate| (rate.part.clone(), rate.lr.unwrap_or(config.optimiser.lr)))
            .collect();
        let mut frozen: Vec<bool> = config.rates.iter().map(|rate| rate.freeze).collect();
        for (i, (part, _)) in parts.iter().enumerate() {
            if !names.iter().any(|name| belongs(name, part)) {
                let examples = names.iter().filter_map(|name| name.split('.').next());
                let known = examples
                    .collect::<std::collections::BTreeSet<_>>()
                    .into_iter()
                    .collect::<Vec<_>>()
                    .join(", ");
                let message = format!("the model has no part `{part}` (it has {known})");
                return Err(TrainError::config(format!("rates[{i}].part"), message));
            }
        }
        if !parts.iter().any(|(part, _)| part.is_empty()) {
            parts.push((String::new(), config.optimiser.lr));
            frozen.push(false);
        }
        let of: Vec<usize> = names
            .iter()
            .map(|name| {
                let fitting = (0..parts.len()).filter(|&i| belongs(name, &parts[i].0));
                fitting
                    .max_by_key(|&i| parts[i].0.len())
                    .unwrap_or(parts.len() - 1)
            })
            .collect();
        if of.iter().all(|&part| frozen[part]) {
            return Err(TrainError::config(
                "rates",
                "every part is frozen, there is nothing to train",
            ));
        }
        Ok(Self { parts, frozen, of })
    }

    /// The learning rate of each parameter at this factor of the schedule.
    pub fn at(&self, factor: f64) -> Vec<f64> {
        self.of
            .iter()
            .map(|&part| self.parts[part].1 * factor)
            .collect()
    }

    /// Whether nothing is trained, because the learning rate is 0 in each of `steps` steps.
    pub fn idle(&self, schedule: &Schedule, steps: u64) -> bool {
        self.by_part(1.0).iter().all(|(_, rate)| *rate == 0.0)
            || (0..steps).all(|step| schedule.factor(step) == 0.0)
    }

    /// The learning rate of each trainable part, for the log.
    pub fn by_part(&self, factor: f64) -> Vec<(String, f64)> {
        let used =
            (0..self.parts.len()).filter(|part| !self.frozen[*part] && self.of.contains(part));
        used.map(|part| (self.parts[part].0.clone(), self.parts[part].1 * factor))
            .collect()
    }

    /// Whether each parameter is frozen.
    pub fn frozen(&self) -> Vec<bool> {
        self.of.iter().map(|&part| self.frozen[part]).collect()
    }

    /// The module on an autodiff device, with the frozen parameters detached from the graph.
    pub fn prepare<M: Module>(&self, module: M, device: &Device) -> M {
        module.map(&mut Prepare {
            frozen: &self.frozen(),
            device,
            index: 0,
        })
    }
}

struct Prepare<'a> {
    frozen: &'a [bool],
    device: &'a Device,
    index: usize,
}

impl ModuleMapper for Prepare<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let frozen = self.frozen.get(self.index).copied().unwrap_or(false);
        self.index += 1;
        let id = param.id;
        // Built from its values, so that it is a leaf of this device's graph, wherever it was created.
        let data = param.val().inner().into_data();
        Param::initialized(
            id,
            Tensor::from_data(data, self.device).set_require_grad(!frozen),
        )
    }
}

/// Loads parts of a module from packs, checkpoints, run folders or folders of diffusers, as configured in `init.parts`.
/// The longest part that matches a parameter's name selects the source. Other parameters keep their values, and so do the
/// keys and values of cross-attention if a published UNet has them for a condition of another width.
///
/// # Errors
/// [`TrainError::Config`] if a part has no parameters; otherwise those of the files.
pub fn load_parts<M: Module>(
    module: M,
    config: &TrainConfig,
    device: &Device,
) -> Result<M, TrainError> {
    if config.init.parts.is_empty() {
        return Ok(module);
    }
    let names: Vec<String> = emu_model::weights::parameters(&module)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let mut sources = Vec::new();
    for (part, path) in &config.init.parts {
        if !names.iter().any(|name| belongs(name, part)) {
            return Err(TrainError::config(
                format!("init.parts.{part}"),
                "the model has no such part",
            ));
        }
        sources.push((part.clone(), path.clone(), Source::open(path)?));
    }
    let mut loader = Loader {
        path: vec![],
        sources: &sources,
        device,
        failed: None,
    };
    let module = module.map(&mut loader);
    loader.failed.map_or(Ok(module), Err)
}

/// A source of initial weights.
enum Source {
    Pack(Box<PackReader>),
    Published(Box<Published>),
    Other(Box<dyn TensorSource>),
}

impl Source {
    fn open(path: &Path) -> Result<Self, TrainError> {
        if path.join(emu_pack::MANIFEST_FILE).is_file() {
            return Ok(Self::Pack(Box::new(PackReader::open(path)?)));
        }
        if Published::is_one(path) {
            return Ok(Self::Published(Box::new(Published::open(path)?)));
        }
        if path.is_file() {
            return Ok(Self::Other(Box::new(emu_pack::SafetensorsFile::open(
                path,
            )?)));
        }
        Ok(Self::Other(Box::new(Checkpoint::find(path)?.weights()?)))
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::Pack(pack) => pack
                .manifest()
                .logical_tensors()
                .iter()
                .any(|t| t.name == name),
            Self::Published(folder) => folder.has(name),
            Self::Other(source) => source.info(name).is_some(),
        }
    }

    fn read(&self, name: &str) -> Result<TensorData, TrainError> {
        Ok(match self {
            Self::Pack(pack) => pack.read_logical(name)?,
            Self::Published(folder) => folder.read(name)?,
            Self::Other(source) => source.read(name)?,
        })
    }
}

struct Loader<'a> {
    path: Vec<String>,
    sources: &'a [(String, PathBuf, Source)],
    device: &'a Device,
    failed: Option<TrainError>,
}

impl Loader<'_> {
    fn read<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
    ) -> Result<Option<Tensor<D>>, TrainError> {
        let fitting = self.sources.iter().filter(|(part, ..)| belongs(name, part));
        let Some((part, path, source)) = fitting.max_by_key(|(part, ..)| part.len()) else {
            return Ok(None);
        };
        // A model with LoRA adapters may start from one without.
        if belongs(name, "*.lora") && !source.has(name) {
            return Ok(None);
        }
        // A run of this part alone stores tensor names without the part's prefix.
        let alone = name
            .strip_prefix(part.as_str())
            .and_then(|n| n.strip_prefix('.'));
        let tensor = match alone {
            Some(alone) if !source.has(name) && source.has(alone) => source.read(alone)?,
            _ => source.read(name)?,
        };
        let tensor = with_new_tokens(tensor, &shape)?;
        if matches!(source, Source::Published(_))
            && reads_condition(name)
            && tensor.info.shape != shape
        {
            tracing::info!(
                "`{name}` is learned from the beginning: its condition has another width"
            );
            return Ok(None);
        }
        if tensor.info.shape != shape {
            let reason = format!(
                "`{name}` has the shape {:?} where the model needs {shape:?}",
                tensor.info.shape
            );
            return Err(TrainError::Checkpoint {
                path: path.clone(),
                reason,
            });
        }
        tensor.check_finite()?;
        Ok(Some(Tensor::from_data(
            BurnData::new(tensor.to_f32()?, shape),
            self.device,
        )))
    }
}

/// Most rows that a table of tokens may lack: Emu's special tokens.
const NEW_TOKENS: usize = 6;

/// Adds rows for new special tokens to an embedding table or output head: a run may start from weights of a tokenizer
/// without them. The new rows are means of different old ones, so that they differ from each other. Other tensors are
/// returned unchanged.
fn with_new_tokens(tensor: TensorData, shape: &[usize]) -> Result<TensorData, TrainError> {
    let name = tensor.info.name.as_str();
    let is_table = name.ends_with("embed_tokens.weight") || name.ends_with("lm_head.weight");
    let (&[rows, width], &[wanted, same]) = (tensor.info.shape.as_slice(), shape) else {
        return Ok(tensor);
    };
    if !is_table || width != same || rows == 0 || !(rows + 1..=rows + NEW_TOKENS).contains(&wanted)
    {
        return Ok(tensor);
    }
    let new = wanted - rows;
    let mut values = tensor.to_f32()?;
    for first in 0..new.min(rows) {
        let chosen: Vec<usize> = (first..rows).step_by(new).collect();
        let mean = |column: usize| {
            let sum: f64 = { chosen.iter() }
                .map(|row| f64::from(values[row * width + column]))
                .sum();
            (sum / chosen.len() as f64) as f32
        };
        let row: Vec<f32> = (0..width).map(mean).collect();
        values.extend(row);
    }
    tracing::info!("`{name}` gets {new} rows for new tokens");
    values.resize(wanted * width, 0.0);
    Ok(TensorData::from_f32(name, vec![wanted, width], &values)?)
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failed.is_some() {
            return param;
        }
        match self.read(&self.path.join("."), param.lazy_shape().dims::<D>()) {
            Ok(None) => param,
            Ok(Some(tensor)) => {
                let tensor = if self.device.is_autodiff() {
                    tensor.require_grad()
                } else {
                    tensor
                };
                Param::initialized(param.id, tensor)
            }
            Err(error) => {
                self.failed = Some(error);
                param
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_end_at_dots() {
        assert!(belongs("lm.layers.0.weight", "lm"));
        assert!(belongs("lm", "lm"));
        assert!(belongs("anything", ""));
        assert!(!belongs("lmx.weight", "lm"));
        assert!(!belongs("visual.lm", "lm"));
    }

    fn rates(lines: &str) -> Result<Rates, TrainError> {
        let text = format!("stage='t'\nout='o'\nsteps=1\nbatch=1\n[optimiser]\nlr=1.0\n{lines}");
        let names = ["visual.a", "visual.b.c", "lm.w", "head"].map(String::from);
        Rates::new(
            &TrainConfig::parse(&text, Path::new("t.toml")).unwrap(),
            &names,
        )
    }

    #[test]
    fn the_longest_part_decides() {
        let found =
            rates("[[rates]]\npart='visual'\nlr=0.5\n[[rates]]\npart='visual.b'\nfreeze=true")
                .unwrap();
        assert_eq!(found.at(0.1), [0.05, 0.1, 0.1, 0.1]);
        assert_eq!(found.frozen(), [false, true, false, false]);
        assert_eq!(
            found.by_part(1.0),
            [("visual".to_string(), 0.5), (String::new(), 1.0)]
        );
    }

    #[test]
    fn rates_of_nothing_are_idle() {
        let constant = |text: &str| {
            let config: crate::schedule::ScheduleConfig = toml::from_str(text).unwrap();
            config.build(10).unwrap()
        };
        let always = constant("kind = 'constant'");
        let never = constant("kind = 'piecewise'\npoints = [[0, 0.0]]");
        let late = constant("kind = 'piecewise'\npoints = [[0, 0.0], [9, 0.1]]");
        let some = rates("[[rates]]\npart='visual'\nlr=0.0").unwrap();
        assert!(!some.idle(&always, 10) && some.idle(&never, 10) && !some.idle(&late, 10));
        let frozen = "[[rates]]\npart='visual'\nfreeze=true\n[[rates]]\npart=''\nlr=0.0";
        assert!(rates(frozen).unwrap().idle(&always, 10));
    }

    #[test]
    fn tables_of_tokens_grow_by_a_few_rows() {
        let table = |name: &str| {
            let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
            TensorData::from_f32(name, vec![4, 2], &values).unwrap()
        };
        let grown = with_new_tokens(table("lm.embed_tokens.weight"), &[6, 2]).unwrap();
        assert_eq!(grown.info.shape, [6, 2]);
        let values = grown.to_f32().unwrap();
        assert_eq!(values[..8], table("x").to_f32().unwrap());
        // The means of the even and of the odd rows.
        assert_eq!(values[8..], [3.0, 4.0, 5.0, 6.0]);
        for (name, shape) in [
            ("lm.layers.0.mlp.up_proj.weight", [6, 2]),
            ("lm.lm_head.weight", [6, 3]),
            ("lm.lm_head.weight", [3, 2]),
            ("lm.lm_head.weight", [4 + NEW_TOKENS + 1, 2]),
            ("lm.lm_head.weight", [4, 2]),
        ] {
            let same = with_new_tokens(table(name), &shape).unwrap();
            assert_eq!(same.info.shape, [4, 2], "{name} {shape:?}");
        }
    }

    #[test]
    fn useless_parts_are_errors() {
        let error = rates("[[rates]]\npart='vision'").unwrap_err().to_string();
        assert!(
            error.contains("`rates[0].part`") && error.contains("head, lm, visual"),
            "{error}"
        );
        let error = rates("[[rates]]\npart=''\nfreeze=true")
            .unwrap_err()
            .to_string();
        assert!(error.contains("nothing to train"), "{error}");
    }
}
