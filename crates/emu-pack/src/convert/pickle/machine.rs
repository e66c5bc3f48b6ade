//! The opcodes of the pickle machine: input, stack and memo.

use std::ops::Range;

use super::{Id, MAX_RANK, MAX_VALUES, Machine, Value};
use crate::PackError;

impl Machine<'_> {
    /// Runs to the STOP opcode and returns the value that it leaves.
    pub(super) fn run(&mut self) -> Result<Id, PackError> {
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
                // memo
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

    pub(super) fn take(&mut self, len: usize) -> Result<&[u8], PackError> {
        let end = self.at.checked_add(len);
        match end.and_then(|end| self.data.get(self.at..end)) {
            Some(bytes) => {
                self.at += len;
                Ok(bytes)
            }
            None => Err(self.bad("it ends in the middle of an instruction")),
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], PackError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, PackError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// Reads a length of 1, 4 or 8 bytes; returns the range of that many bytes after it.
    pub(super) fn sized(&mut self, width: usize) -> Result<Range<usize>, PackError> {
        let mut len = [0; 8];
        for (to, from) in len.iter_mut().zip(self.take(width)?) {
            *to = *from;
        }
        let len = usize::try_from(u64::from_le_bytes(len)).unwrap_or(usize::MAX);
        self.take(len)?;
        Ok(self.at - len..self.at)
    }

    pub(super) fn line(&mut self) -> Result<String, PackError> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let len = rest.iter().take(300).position(|&byte| byte == b'\n');
        let len = len.ok_or_else(|| self.bad("the name of something to call does not end"))?;
        let line = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.at += 1;
        Ok(line)
    }

    pub(super) fn text(&mut self, width: usize) -> Result<(), PackError> {
        let range = self.sized(width)?;
        self.push(Value::Text(range))
    }

    pub(super) fn bytes(&mut self, width: usize) -> Result<(), PackError> {
        self.sized(width)?;
        self.push(Value::Bytes)
    }

    /// An integer of up to 8 bytes, two's complement.
    pub(super) fn long(&mut self) -> Result<(), PackError> {
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

    // ---- values, stack and memo

    pub(super) fn limit(&self, count: usize) -> Result<(), PackError> {
        match count < MAX_VALUES {
            true => Ok(()),
            false => Err(PackError::TooLarge {
                what: format!("the pickle of {}", self.file),
                size: "too many values".into(),
                limit: MAX_VALUES.to_string(),
            }),
        }
    }

    pub(super) fn push(&mut self, value: Value) -> Result<(), PackError> {
        self.limit(self.values.len())?;
        let id = self.values.len() as Id;
        self.values.push(value);
        self.push_id(id)
    }

    pub(super) fn push_id(&mut self, id: Id) -> Result<(), PackError> {
        self.limit(self.stack.len())?;
        self.stack.push(id);
        Ok(())
    }

    /// The lowest height to which the stack may be popped: values below an open mark stay.
    pub(super) fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn pop(&mut self) -> Result<Id, PackError> {
        let popped = if self.stack.len() > self.floor() {
            self.stack.pop()
        } else {
            None
        };
        popped.ok_or_else(|| self.bad("it takes a value that is not there"))
    }

    pub(super) fn top(&self) -> Result<Id, PackError> {
        let top = if self.stack.len() > self.floor() {
            self.stack.last().copied()
        } else {
            None
        };
        top.ok_or_else(|| self.bad("it takes a value that is not there"))
    }

    pub(super) fn pop_mark(&mut self) -> Result<Vec<Id>, PackError> {
        let mark = self
            .marks
            .pop()
            .ok_or_else(|| self.bad("it ends a collection that it has not begun"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    pub(super) fn remember(&mut self, slot: u32) -> Result<(), PackError> {
        self.limit(self.memo.len())?;
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    pub(super) fn recall(&mut self, slot: u32) -> Result<(), PackError> {
        let id = self
            .memo
            .get(&slot)
            .copied()
            .ok_or_else(|| self.bad(format!("it recalls {slot}, which it has not stored")))?;
        self.push_id(id)
    }

    pub(super) fn value(&self, id: Id) -> Result<&Value, PackError> {
        self.values
            .get(id as usize)
            .ok_or_else(|| self.bad("it takes a value that is not there"))
    }

    pub(super) fn str(&self, id: Id) -> Result<&str, PackError> {
        match self.value(id)? {
            Value::Text(range) => {
                let bytes = self.data.get(range.clone()).unwrap_or_default();
                std::str::from_utf8(bytes).map_err(|_| self.bad("a text is not UTF-8"))
            }
            other => Err(self.bad(format!("a text is needed where it has {}", other.kind()))),
        }
    }

    pub(super) fn size(&self, id: Id) -> Result<u64, PackError> {
        match self.value(id)? {
            Value::Int(value) => u64::try_from(*value)
                .map_err(|_| self.bad(format!("a size or place is negative ({value})"))),
            other => Err(self.bad(format!("a size is needed where it has {}", other.kind()))),
        }
    }

    pub(super) fn sizes(&self, id: Id) -> Result<Vec<usize>, PackError> {
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

    pub(super) fn append(&mut self, items: &[Id]) -> Result<(), PackError> {
        let list = self.top()?;
        match self.values.get_mut(list as usize) {
            Some(Value::List(list)) => list.extend_from_slice(items),
            _ => return Err(self.bad("it appends to something that is no list")),
        }
        Ok(())
    }

    pub(super) fn set_items(&mut self, items: &[Id]) -> Result<(), PackError> {
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
}
