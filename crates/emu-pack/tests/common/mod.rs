//! Checkpoint builders for tests: a pickler for the subset that `torch.save` writes, and the archive around it.

#![allow(dead_code, missing_docs)]

use std::{
    io::{Cursor, Write},
    path::PathBuf,
};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// A file of the reference fixtures.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/reference")
        .join(name)
}

/// A tensor as described by the pickle.
#[derive(Clone)]
pub struct Fake {
    pub name: &'static str,
    pub storage_type: &'static str,
    pub storage: &'static str,
    pub numel: i64,
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

impl Fake {
    pub fn f32(name: &'static str, storage: &'static str, shape: &[i64]) -> Self {
        let mut strides: Vec<i64> = vec![];
        for i in 0..shape.len() {
            strides.push(shape[i + 1..].iter().product());
        }
        let numel = shape.iter().product();
        Self {
            name,
            storage_type: "FloatStorage",
            storage,
            numel,
            offset: 0,
            shape: shape.to_vec(),
            strides,
        }
    }
}

#[derive(Default)]
pub struct Pickle(pub Vec<u8>);

impl Pickle {
    pub fn start() -> Self {
        Self(vec![0x80, 2])
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub fn text(self, text: &str) -> Self {
        self.raw(b"X")
            .raw(&(text.len() as u32).to_le_bytes())
            .raw(text.as_bytes())
    }

    pub fn int(self, value: i64) -> Self {
        self.raw(&[0x8a, 8]).raw(&value.to_le_bytes())
    }

    pub fn ints(self, values: &[i64]) -> Self {
        values
            .iter()
            .fold(self.raw(b"("), |pickle, &value| pickle.int(value))
            .raw(b"t")
    }

    pub fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    pub fn ordered_dict(self) -> Self {
        self.global("collections", "OrderedDict").raw(b")R")
    }

    pub fn tensor(self, t: &Fake) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .raw(b"((")
            .text("storage")
            .global("torch", t.storage_type)
            .text(t.storage)
            .text("cpu")
            .int(t.numel)
            .raw(b"tQ")
            .int(t.offset)
            .ints(&t.shape)
            .ints(&t.strides)
            .raw(b"\x89")
            .ordered_dict()
            .raw(b"tR")
    }

    /// An OrderedDict of tensors with the `_metadata` attribute that `state_dict()` adds.
    pub fn state_dict(self, tensors: &[Fake]) -> Self {
        let items = self.ordered_dict().raw(b"(");
        let items = tensors
            .iter()
            .fold(items, |pickle, t| pickle.text(t.name).tensor(t))
            .raw(b"u");
        items.raw(b"}").text("_metadata").ordered_dict().raw(b"sb")
    }

    pub fn stop(self) -> Vec<u8> {
        self.raw(b".").0
    }
}

/// A zip archive of these entries, uncompressed.
pub fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    archive_with(entries, |options| options)
}

pub fn archive_with(
    entries: &[(&str, &[u8])],
    change: impl Fn(SimpleFileOptions) -> SimpleFileOptions,
) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    for (name, bytes) in entries {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        zip.start_file(*name, change(options)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

pub fn floats(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// A small deterministic random number generator (xorshift) for mutations.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }

    /// Flips, overwrites, inserts, removes or truncates bytes, a few times.
    pub fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..1 + self.roll(4) {
            if bytes.is_empty() {
                break;
            }
            let at = self.roll(bytes.len());
            match self.roll(6) {
                0 => bytes[at] ^= 1 << self.roll(8),
                1 => bytes[at] = self.roll(256) as u8,
                2 => bytes[at] = [0, 0xff, 0x7f, 0x80][self.roll(4)],
                3 => bytes.insert(at, self.roll(256) as u8),
                4 => drop(bytes.remove(at)),
                _ if self.roll(4) == 0 => bytes.truncate(at),
                _ => {
                    let from = self.roll(bytes.len());
                    let len = self.roll(9).min(bytes.len() - from).min(bytes.len() - at);
                    bytes.copy_within(from..from + len, at);
                }
            }
        }
        bytes
    }
}
