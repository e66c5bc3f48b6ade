//! A pickle machine that can only build dictionaries of tensors.
//!
//! It knows the opcodes that `torch.save` writes (protocols 2 to 5) and an allow-list of what they may call;
//! everything else is an error that names it. Nothing is ever executed. Values live in one list and refer to each
//! other by number, so that deep nesting and cycles cost no stack, and strings stay in the input; the limits below
//! bound the memory to a small multiple of the input.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use crate::{Dtype, PackError};

/// Most values that a pickle may build; the full-size model needs about 60 thousand.
const MAX_VALUES: usize = 500_000;
/// Most dimensions of a tensor.
const MAX_RANK: usize = 16;
/// Keys under which trainers wrap a state dict.
const WRAPPERS: [&str; 3] = ["module", "state_dict", "model"];

/// A tensor as the pickle describes it; its values lie elsewhere in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PickledTensor {
    /// Its key in the state dict.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Name of the storage that holds its values, among others perhaps.
    pub storage: String,
    /// Elements of the whole storage.
    pub storage_elements: u64,
    /// First element within the storage.
    pub offset: u64,
    /// Sizes.
    pub shape: Vec<usize>,
    /// Distance, in elements, between neighbours along each dimension.
    pub strides: Vec<usize>,
}

/// What a pickle holds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct StateDict {
    /// Its tensors, in order.
    pub tensors: Vec<PickledTensor>,
    /// Keys of plain values (step counters and such) that were passed over.
    pub skipped: Vec<String>,
}

/// Reads the pickle of a state dict, or of a dictionary with a state dict under `module`, `state_dict` or `model`.
pub fn read_pickle(file: &str, data: &[u8]) -> Result<StateDict, PackError> {
    let mut machine = Machine {
        file,
        data,
        at: 0,
        op: 0,
        values: vec![],
        stack: vec![],
        marks: vec![],
        memo: HashMap::new(),
    };
    let top = machine.run()?;
    machine.state_dict(top)
}

/// Number of a value in the machine's list.
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

/// Types which exist but are not supported are an error only where a tensor uses them, to name that tensor.
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
    /// Next byte.
    at: usize,
    /// Where the current instruction began, for error messages.
    op: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Machine<'_> {
    fn bad(&self, reason: impl Into<String>) -> PackError {
        PackError::BadPickle {
            file: self.file.into(),
            offset: self.op,
            reason: reason.into(),
        }
    }

    /// Runs to the STOP instruction and returns what it leaves.
    fn run(&mut self) -> Result<Id, PackError> {
        loop {
            self.op = self.at;
            let opcode = self.u8()?;
            match opcode {
                // protocol and framing
                0x80 => match self.u8()? {
                    2..=5 => {}
                    other => return Err(self.bad(format!("protocol {other} is not supported"))),
                },
                0x95 => drop(self.take(8)?),
                b'.' => return self.pop(),
                // marks and stack
                b'(' => {
                    self.limit(self.marks.len())?;
                    self.marks.push(self.stack.len());
                }
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_mark()?),
                b'2' => {
                    let top = self.top()?;
                    self.push_id(top)?;
                }
                // plain values
                b'N' => self.push(Value::None)?,
                0x88 | 0x89 => self.push(Value::Bool)?,
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(value.into()))?;
                }
                b'K' => {
                    let value = self.u8()?;
                    self.push(Value::Int(value.into()))?;
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.array()?);
                    self.push(Value::Int(value.into()))?;
                }
                0x8a => self.long()?,
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Float)?;
                }
                // text and bytes, by the width of their length
                b'X' => self.text(4)?,
                0x8c => self.text(1)?,
                0x8d => self.text(8)?,
                b'U' => self.text(1)?,
                b'T' => self.text(4)?,
                b'C' => self.bytes(1)?,
                b'B' => self.bytes(4)?,
                0x8e => self.bytes(8)?,
                // collections
                b')' => self.push(Value::Tuple(vec![]))?,
                b't' => {
                    let items = self.pop_mark()?;
                    self.push(Value::Tuple(items))?;
                }
                0x85..=0x87 => {
                    let mut items = vec![];
                    for _ in 0x84..opcode {
                        items.push(self.pop()?);
                    }
                    items.reverse();
                    self.push(Value::Tuple(items))?;
                }
                b']' => self.push(Value::List(vec![]))?,
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.append(&items)?;
                }
                b'}' => self.push(Value::Dict(vec![]))?,
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set_items(&[key, value])?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set_items(&items)?;
                }
                // memory
                b'q' => {
                    let slot = self.u8()?;
                    self.remember(slot.into())?;
                }
                b'r' => {
                    let slot = u32::from_le_bytes(self.array()?);
                    self.remember(slot)?;
                }
                0x94 => self.remember(self.memo.len() as u32)?,
                b'h' => {
                    let slot = self.u8()?;
                    self.recall(slot.into())?;
                }
                b'j' => {
                    let slot = u32::from_le_bytes(self.array()?);
                    self.recall(slot)?;
                }
                // calls
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(&module, &name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (module, name) = (self.str(module)?.to_owned(), self.str(name)?.to_owned());
                    self.global(&module, &name)?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(id)?;
                    self.push(Value::Storage(Box::new(storage)))?;
                }
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                other => {
                    return Err(self.bad(format!(
                        "the instruction 0x{other:02x} is not one that plain weights need"
                    )));
                }
            }
        }
    }

    // ---- reading the input

    fn take(&mut self, len: usize) -> Result<&[u8], PackError> {
        let end = self.at.checked_add(len);
        match end.and_then(|end| self.data.get(self.at..end)) {
            Some(bytes) => {
                self.at += len;
                Ok(bytes)
            }
            None => Err(self.bad("it ends in the middle of an instruction")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PackError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, PackError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// A length of 1, 4 or 8 bytes, and the range of as many bytes behind it.
    fn sized(&mut self, width: usize) -> Result<Range<usize>, PackError> {
        let mut len = [0; 8];
        for (to, from) in len.iter_mut().zip(self.take(width)?) {
            *to = *from;
        }
        let len = usize::try_from(u64::from_le_bytes(len)).unwrap_or(usize::MAX);
        self.take(len)?;
        Ok(self.at - len..self.at)
    }

    fn line(&mut self) -> Result<String, PackError> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let len = rest.iter().take(300).position(|&byte| byte == b'\n');
        let len = len.ok_or_else(|| self.bad("the name of something to call does not end"))?;
        let line = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.at += 1;
        Ok(line)
    }

    fn text(&mut self, width: usize) -> Result<(), PackError> {
        let range = self.sized(width)?;
        self.push(Value::Text(range))
    }

    fn bytes(&mut self, width: usize) -> Result<(), PackError> {
        self.sized(width)?;
        self.push(Value::Bytes)
    }

    /// An integer of up to 8 bytes, two's complement.
    fn long(&mut self) -> Result<(), PackError> {
        let range = self.sized(1)?;
        let digits = self.data.get(range).unwrap_or_default();
        if digits.len() > 8 {
            return Err(self.bad("an integer has more than 64 bits"));
        }
        let negative = digits.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        for (to, from) in all.iter_mut().zip(digits) {
            *to = *from;
        }
        self.push(Value::Int(i64::from_le_bytes(all)))
    }

    // ---- values, stack and memory

    fn limit(&self, count: usize) -> Result<(), PackError> {
        match count < MAX_VALUES {
            true => Ok(()),
            false => Err(PackError::TooLarge {
                what: format!("the pickle of {}", self.file),
                size: "too many values".into(),
                limit: MAX_VALUES.to_string(),
            }),
        }
    }

    fn push(&mut self, value: Value) -> Result<(), PackError> {
        self.limit(self.values.len())?;
        let id = self.values.len() as Id;
        self.values.push(value);
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Result<(), PackError> {
        self.limit(self.stack.len())?;
        self.stack.push(id);
        Ok(())
    }

    /// The lowest height that may be popped to: what lies below an open mark stays.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id, PackError> {
        let popped = if self.stack.len() > self.floor() {
            self.stack.pop()
        } else {
            None
        };
        popped.ok_or_else(|| self.bad("it takes a value that is not there"))
    }

    fn top(&self) -> Result<Id, PackError> {
        let top = if self.stack.len() > self.floor() {
            self.stack.last().copied()
        } else {
            None
        };
        top.ok_or_else(|| self.bad("it takes a value that is not there"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, PackError> {
        let mark = self
            .marks
            .pop()
            .ok_or_else(|| self.bad("it ends a collection that it has not begun"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn remember(&mut self, slot: u32) -> Result<(), PackError> {
        self.limit(self.memo.len())?;
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<(), PackError> {
        let id = self
            .memo
            .get(&slot)
            .copied()
            .ok_or_else(|| self.bad(format!("it recalls {slot}, which it has not stored")))?;
        self.push_id(id)
    }

    fn value(&self, id: Id) -> Result<&Value, PackError> {
        self.values
            .get(id as usize)
            .ok_or_else(|| self.bad("it takes a value that is not there"))
    }

    fn str(&self, id: Id) -> Result<&str, PackError> {
        match self.value(id)? {
            Value::Text(range) => {
                let bytes = self.data.get(range.clone()).unwrap_or_default();
                std::str::from_utf8(bytes).map_err(|_| self.bad("a text is not UTF-8"))
            }
            other => Err(self.bad(format!("a text is needed where it has {}", other.kind()))),
        }
    }

    fn size(&self, id: Id) -> Result<u64, PackError> {
        match self.value(id)? {
            Value::Int(value) => u64::try_from(*value)
                .map_err(|_| self.bad(format!("a size or place is negative ({value})"))),
            other => Err(self.bad(format!("a size is needed where it has {}", other.kind()))),
        }
    }

    fn sizes(&self, id: Id) -> Result<Vec<usize>, PackError> {
        match self.value(id)? {
            Value::Tuple(ids) if ids.len() > MAX_RANK => {
                Err(self.bad(format!("a tensor has more than {MAX_RANK} dimensions")))
            }
            Value::Tuple(ids) => {
                let fits = |size| {
                    usize::try_from(size)
                        .map_err(|_| self.bad(format!("the size {size} is too large")))
                };
                ids.iter().map(|&id| fits(self.size(id)?)).collect()
            }
            other => Err(self.bad(format!("sizes are needed where it has {}", other.kind()))),
        }
    }

    fn append(&mut self, items: &[Id]) -> Result<(), PackError> {
        let list = self.top()?;
        match self.values.get_mut(list as usize) {
            Some(Value::List(list)) => list.extend_from_slice(items),
            _ => return Err(self.bad("it appends to something that is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), PackError> {
        let dict = self.top()?;
        let (pairs, odd) = items.as_chunks::<2>();
        match self.values.get_mut(dict as usize) {
            Some(Value::Dict(dict)) if odd.is_empty() => {
                dict.extend(pairs.iter().map(|&[key, value]| (key, value)))
            }
            Some(Value::Dict(_)) => return Err(self.bad("a key has no value")),
            _ => return Err(self.bad("it sets an item of something that is no dictionary")),
        }
        Ok(())
    }

    // ---- calls

    fn global(&mut self, module: &str, name: &str) -> Result<(), PackError> {
        let callable = match (module, name) {
            ("collections", "OrderedDict") => Callable::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Callable::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Callable::RebuildParameter,
            ("torch", storage) if is_storage(storage) => {
                Callable::StorageType(storage_type(storage))
            }
            _ => {
                return Err(PackError::ForbiddenGlobal {
                    file: self.file.into(),
                    name: shortened(module, name),
                });
            }
        };
        self.push(Value::Callable(callable))
    }

    fn reduce(&mut self) -> Result<(), PackError> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let arguments = match self.value(arguments)? {
            // Copied, which is bounded: no call below takes more than seven.
            Value::Tuple(items) if items.len() <= 7 => items.clone(),
            _ => return Err(self.bad("a call has no fitting arguments")),
        };
        match (self.value(callable)?, arguments.as_slice()) {
            (Value::Callable(Callable::OrderedDict), []) => self.push(Value::Dict(vec![])),
            (
                Value::Callable(Callable::RebuildTensor),
                [storage, offset, shape, strides, _grad, _hooks, ..],
            ) => {
                let tensor = self.tensor(*storage, *offset, *shape, *strides)?;
                self.push(Value::Tensor(Box::new(tensor)))
            }
            (Value::Callable(Callable::RebuildParameter), [tensor, _grad, _hooks]) => {
                match self.value(*tensor)? {
                    Value::Tensor(_) => self.push_id(*tensor),
                    other => Err(self.bad(format!("a parameter is {}", other.kind()))),
                }
            }
            (Value::Callable(_), other) => {
                Err(self.bad(format!("a call has {} arguments", other.len())))
            }
            (other, _) => Err(self.bad(format!("it calls {}", other.kind()))),
        }
    }

    fn tensor(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Result<Tensor, PackError> {
        let Value::Storage(storage) = self.value(storage)? else {
            return Err(self.bad("a tensor has no storage"));
        };
        let (offset, shape, strides) =
            (self.size(offset)?, self.sizes(shape)?, self.sizes(strides)?);
        match shape.len() == strides.len() {
            true => Ok(Tensor {
                storage: (**storage).clone(),
                offset,
                shape,
                strides,
            }),
            false => Err(self.bad("a tensor has as many strides as dimensions, but not here")),
        }
    }

    /// `("storage", type, key, device, elements)`.
    fn storage(&self, id: Id) -> Result<Storage, PackError> {
        let Value::Tuple(items) = self.value(id)? else {
            return Err(self.bad("a storage is no tuple"));
        };
        let &[tag, kind, key, _device, elements] = items.as_slice() else {
            return Err(self.bad(format!(
                "a storage has {} properties in place of 5",
                items.len()
            )));
        };
        if self.str(tag)? != "storage" {
            return Err(self.bad("it refers to something outside that is no storage"));
        }
        let Value::Callable(Callable::StorageType(kind)) = self.value(kind)? else {
            return Err(self.bad("a storage has no type"));
        };
        match self.value(key)? {
            // Short, since every tensor that shares the storage carries a copy.
            Value::Text(key) if key.len() <= 100 => Ok(Storage {
                kind: kind.clone(),
                key: key.clone(),
                elements: self.size(elements)?,
            }),
            _ => Err(self.bad("a storage has no key")),
        }
    }

    /// Takes the state off the stack. Only dictionaries have one (`_metadata`), and it says nothing about weights.
    fn build(&mut self) -> Result<(), PackError> {
        self.pop()?;
        match self.value(self.top()?)? {
            Value::Dict(_) => Ok(()),
            other => Err(self.bad(format!("it changes the insides of {}", other.kind()))),
        }
    }

    // ---- the result

    /// Finds the dictionary that holds tensors, at the top or inside of known wrappers, and lists it.
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

fn shortened(module: &str, name: &str) -> String {
    module
        .chars()
        .take(100)
        .chain(['.'])
        .chain(name.chars().take(100))
        .collect()
}

fn is_storage(name: &str) -> bool {
    (8..=40).contains(&name.len())
        && name.ends_with("Storage")
        && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn storage_type(name: &str) -> StorageType {
    StorageType::Known(match name {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::Bool,
        other => return StorageType::Unknown(other.into()),
    })
}
