//! A restricted pickle interpreter that can only build dictionaries of tensors.
//!
//! It supports the opcodes that `torch.save` writes (protocols 2 to 5) and an allow list of callables; everything else is
//! an error that names it. No code is ever executed. Values live in one list and refer to each other by index, so that
//! deep nesting and cycles need no recursion, and strings stay in the input. The limits below bound memory to a small
//! multiple of the input.

mod calls;
mod machine;

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use crate::{Dtype, PackError, kind::LEGACY};

/// Maximum number of values in a pickle; the full-size model needs about 60 thousand.
const MAX_VALUES: usize = 500_000;
/// Maximum number of tensor dimensions.
const MAX_RANK: usize = 16;
/// Keys under which trainers nest a state dict.
const WRAPPERS: [&str; 3] = ["module", "state_dict", "model"];

/// A tensor described by the pickle; its values are elsewhere in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PickledTensor {
    /// Key in the state dict.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Key of the storage that holds its values; storages may be shared.
    pub storage: String,
    /// Number of elements of the whole storage.
    pub storage_elements: u64,
    /// Offset of the first element in the storage, in elements.
    pub offset: u64,
    /// Shape.
    pub shape: Vec<usize>,
    /// Stride of each dimension, in elements.
    pub strides: Vec<usize>,
}

/// The state dict of a pickle.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct StateDict {
    /// Tensors, in order.
    pub tensors: Vec<PickledTensor>,
    /// Keys of skipped non-tensor values (such as step counters).
    pub skipped: Vec<String>,
}

/// Reads the pickle of a state dict, possibly nested under `module`, `state_dict` or `model`.
pub fn read_pickle(file: &str, data: &[u8]) -> Result<StateDict, PackError> {
    let mut machine = Machine::new(file, data);
    let top = machine.run()?;
    machine.state_dict(top)
}

/// Protocol version of the legacy format.
const LEGACY_VERSION: u64 = 1001;

/// The parsed pickles of a legacy file (PyTorch before 1.6).
pub(super) struct LegacyState {
    pub state: StateDict,
    /// Storage keys, in file order.
    pub storages: Vec<String>,
    /// Offset of the end of the pickles.
    pub end: usize,
}

/// Runs the pickle at offset `end` and advances `end` past it.
fn next_pickle<'a>(
    file: &'a str,
    data: &'a [u8],
    end: &mut usize,
) -> Result<(Machine<'a>, Id), PackError> {
    let mut machine = Machine::new(file, data.get(*end..).unwrap_or_default());
    let top = machine.run()?;
    *end += machine.at;
    Ok((machine, top))
}

/// Reads the pickles at the beginning of a legacy file (PyTorch before 1.6).
pub(super) fn read_legacy(file: &str, data: &[u8]) -> Result<LegacyState, PackError> {
    let mut end = LEGACY.len() + 1;
    let bad = |offset, reason: &str| PackError::BadPickle {
        file: file.into(),
        offset,
        reason: reason.into(),
    };
    if !data.starts_with(&LEGACY) || data.get(end - 1) != Some(&b'.') {
        return Err(bad(0, "it does not begin as a file of PyTorch before 1.6"));
    }
    // 1. protocol version, and system information of the writer
    let (machine, version) = next_pickle(file, data, &mut end)?;
    if machine.size(version)? != LEGACY_VERSION {
        return Err(machine.bad("its version is not 1001"));
    }
    next_pickle(file, data, &mut end)?;
    // 2. the weights, then the storage keys
    let (machine, top) = next_pickle(file, data, &mut end)?;
    let state = machine.state_dict(top)?;
    let (machine, keys) = next_pickle(file, data, &mut end)?;
    let Value::List(keys) = machine.value(keys)? else {
        return Err(machine.bad("it has no list of storages"));
    };
    let keys = keys.iter().map(|&key| machine.str(key).map(str::to_owned));
    Ok(LegacyState {
        state,
        storages: keys.collect::<Result<_, _>>()?,
        end,
    })
}

/// Index of a value in the machine's list.
type Id = u32;

#[derive(Debug, Clone)]
enum Value {
    None,
    Bool,
    Float,
    Int(i64),
    Text(Range<usize>),
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Callable(Callable),
    Storage(Box<Storage>),
    Tensor(Box<Tensor>),
}

#[derive(Debug, Clone)]
enum Callable {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    StorageType(StorageType),
}

/// Storage type. An unsupported type is an error only if a tensor uses it, so that the error can name the tensor.
#[derive(Debug, Clone)]
enum StorageType {
    Known(Dtype),
    Unknown(String),
}

#[derive(Debug, Clone)]
struct Storage {
    kind: StorageType,
    key: Range<usize>,
    elements: u64,
}

#[derive(Debug, Clone)]
struct Tensor {
    storage: Storage,
    offset: u64,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

struct Machine<'a> {
    file: &'a str,
    data: &'a [u8],
    /// Offset of the next byte.
    at: usize,
    /// Offset of the current opcode, for error messages.
    op: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Stack heights at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn new(file: &'a str, data: &'a [u8]) -> Self {
        Self {
            file,
            data,
            at: 0,
            op: 0,
            values: vec![],
            stack: vec![],
            marks: vec![],
            memo: HashMap::new(),
        }
    }

    fn bad(&self, reason: impl Into<String>) -> PackError {
        PackError::BadPickle {
            file: self.file.into(),
            offset: self.op,
            reason: reason.into(),
        }
    }

    /// Finds the dictionary with the tensors, at the top level or inside known wrappers, and lists it.
    fn state_dict(&self, top: Id) -> Result<StateDict, PackError> {
        let mut at = top;
        for _ in 0..3 {
            let Value::Dict(items) = self.value(at)? else {
                return Err(self.bad(format!(
                    "it holds {}, not a dictionary of tensors",
                    self.value(at)?.kind()
                )));
            };
            if items
                .iter()
                .any(|(_, value)| matches!(self.value(*value), Ok(Value::Tensor(_))))
            {
                return self.list(items);
            }
            let mut inner = vec![];
            for &(key, value) in items {
                let wrapper = self.str(key).is_ok_and(|key| WRAPPERS.contains(&key));
                if wrapper && matches!(self.value(value)?, Value::Dict(_)) {
                    inner.push(value);
                }
            }
            at = match inner.as_slice() {
                [] => return Err(self.bad(
                    "it holds no tensors, neither at the top nor under module, state_dict or model",
                )),
                &[one] => one,
                _ => return Err(self.bad("more than one of module, state_dict and model is in it")),
            };
        }
        Err(self.bad("its dictionaries are nested too deeply"))
    }

    fn list(&self, items: &[(Id, Id)]) -> Result<StateDict, PackError> {
        let (mut state, mut seen) = (StateDict::default(), HashSet::new());
        for &(key, value) in items {
            let name = self.str(key)?;
            if !seen.insert(name) {
                return Err(PackError::DuplicateTensor {
                    file: self.file.into(),
                    tensor: name.into(),
                });
            }
            match self.value(value)? {
                Value::Tensor(tensor) => {
                    let dtype = match &tensor.storage.kind {
                        StorageType::Known(dtype) => *dtype,
                        StorageType::Unknown(kind) => {
                            let (file, tensor, dtype) =
                                (self.file.into(), name.into(), kind.clone());
                            return Err(PackError::UnsupportedDtype {
                                file,
                                tensor,
                                dtype,
                            });
                        }
                    };
                    let storage = self
                        .data
                        .get(tensor.storage.key.clone())
                        .unwrap_or_default();
                    state.tensors.push(PickledTensor {
                        name: name.into(),
                        dtype,
                        storage: String::from_utf8_lossy(storage).into_owned(),
                        storage_elements: tensor.storage.elements,
                        offset: tensor.offset,
                        shape: tensor.shape.clone(),
                        strides: tensor.strides.clone(),
                    });
                }
                Value::None | Value::Bool | Value::Float | Value::Int(_) | Value::Text(_) => {
                    state.skipped.push(name.into())
                }
                other => {
                    return Err(self.bad(format!("`{name}` is {}, not a tensor", other.kind())));
                }
            }
        }
        Ok(state)
    }
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool => "a bool",
            Self::Float => "a float",
            Self::Int(_) => "an integer",
            Self::Text(_) => "a text",
            Self::Bytes => "bytes",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dictionary",
            Self::Callable(_) => "something to call",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}
