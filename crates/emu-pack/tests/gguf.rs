//! GGUF: every block type against its definition, and invalid files of every kind.

mod common;

use std::io::Cursor;

use common::Dice;
use emu_pack::{
    Dtype, PackError, Scheme, TensorSource,
    convert::{GgufFile, open_weights},
};
use half::{bf16, f16};
use proptest::prelude::*;

const F32: u32 = 0;
const F16: u32 = 1;
const Q4_0: u32 = 2;
const Q4_1: u32 = 3;
const Q8_0: u32 = 8;
const BF16: u32 = 30;

/// A GGUF file builder.
#[derive(Clone)]
struct Gguf {
    version: u32,
    alignment: u64,
    values: Vec<(String, Vec<u8>)>,
    /// Name, shape (innermost dimension first), type, data.
    tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl Gguf {
    fn new() -> Self {
        Self {
            version: 3,
            alignment: 32,
            values: vec![],
            tensors: vec![],
        }
    }

    /// Adds a metadata value: its type and bytes.
    fn value(mut self, key: &str, kind: u32, bytes: &[u8]) -> Self {
        let typed = [&kind.to_le_bytes()[..], bytes].concat();
        self.values.push((key.into(), typed));
        self
    }

    fn tensor(mut self, name: &str, dims: &[u64], kind: u32, data: Vec<u8>) -> Self {
        self.tensors.push((name.into(), dims.to_vec(), kind, data));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes_at(|offset| offset)
    }

    /// The file with modified tensor offsets.
    fn bytes_at(&self, change: impl Fn(u64) -> u64) -> Vec<u8> {
        let mut head = b"GGUF".to_vec();
        head.extend(self.version.to_le_bytes());
        head.extend((self.tensors.len() as u64).to_le_bytes());
        head.extend((self.values.len() as u64).to_le_bytes());
        for (key, value) in &self.values {
            head.extend(text(key));
            head.extend(value);
        }
        let pad = |bytes: &mut Vec<u8>| {
            bytes.resize(bytes.len().next_multiple_of(self.alignment as usize), 0);
        };
        let mut data = vec![];
        for (name, dims, kind, bytes) in &self.tensors {
            pad(&mut data);
            head.extend(text(name));
            head.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|d| head.extend(d.to_le_bytes()));
            head.extend(kind.to_le_bytes());
            head.extend(change(data.len() as u64).to_le_bytes());
            data.extend(bytes);
        }
        pad(&mut head);
        head.extend(data);
        head
    }

    fn open(&self) -> Result<GgufFile, PackError> {
        open(self.bytes())
    }
}

fn open(bytes: Vec<u8>) -> Result<GgufFile, PackError> {
    GgufFile::from_reader("test.gguf", Cursor::new(bytes))
}

fn code<T: std::fmt::Debug>(result: Result<T, PackError>) -> &'static str {
    result.unwrap_err().code()
}

/// Blocks of random bits with small scales and minima, and their values by ggml's definitions.
fn blocks(kind: u32, count: usize, dice: &mut Dice) -> (Vec<u8>, Vec<f32>) {
    let (mut bytes, mut values) = (vec![], vec![]);
    for _ in 0..count {
        let mut half = || f16::from_f32(dice.roll(4001) as f32 / 1000.0 - 2.0);
        let (d, m) = (half(), half());
        bytes.extend(d.to_le_bytes());
        if kind == Q4_1 {
            bytes.extend(m.to_le_bytes());
        }
        let (d, m) = (d.to_f32(), m.to_f32());
        let stored = if kind == Q8_0 { 32 } else { 16 };
        let q: Vec<u8> = (0..stored).map(|_| dice.roll(256) as u8).collect();
        match kind {
            Q8_0 => values.extend(q.iter().map(|&q| f32::from(q as i8) * d)),
            Q4_0 => {
                values.extend(q.iter().map(|q| (f32::from(q & 15) - 8.0) * d));
                values.extend(q.iter().map(|q| (f32::from(q >> 4) - 8.0) * d));
            }
            _ => {
                values.extend(q.iter().map(|q| f32::from(q & 15) * d + m));
                values.extend(q.iter().map(|q| f32::from(q >> 4) * d + m));
            }
        }
        bytes.extend(q);
    }
    (bytes, values)
}

/// Bit patterns that are equal for equal values: zeros lose their sign.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| (v + 0.0).to_bits()).collect()
}

#[test]
fn blocks_keep_their_values_dequantized_and_packed() {
    let mut dice = Dice(7);
    for (kind, scheme) in [(Q4_0, Scheme::Q4), (Q4_1, Scheme::Q4_1), (Q8_0, Scheme::Q8)] {
        // [out 3, in 64]
        let (data, values) = blocks(kind, 6, &mut dice);
        let file = Gguf::new()
            .tensor("w", &[64, 3], kind, data)
            .open()
            .unwrap();
        let tensor = file.read("w").unwrap();
        assert_eq!(tensor.info.shape, [3, 64]);
        assert_eq!(bits(&tensor.to_f32().unwrap()), bits(&values), "{scheme:?}");

        let packed = file.read_packed("w").unwrap().unwrap();
        assert_eq!(packed.scheme, scheme);
        let stored = scheme.stored("w", 3, 64).unwrap();
        let parts = [
            Some(&packed.words),
            Some(&packed.scales),
            packed.mins.as_ref(),
        ];
        let parts: Vec<_> = parts
            .into_iter()
            .flatten()
            .map(|t| t.info.clone())
            .collect();
        assert_eq!(parts, stored);
        let back = packed.dequantize().unwrap().to_f32().unwrap();
        assert_eq!(bits(&back), bits(&values));
    }
}

#[test]
fn nibbles_lie_where_the_pack_wants_them() {
    // Elements 0, 1, .. 15, 15, 14, .. 0 as Q4_1.
    let halves = (0..16u8).map(|i| i | (15 - i) << 4);
    let block: Vec<u8> = [0, 0x3c, 0, 0].into_iter().chain(halves.clone()).collect();
    let file = Gguf::new()
        .tensor("w", &[32, 1], Q4_1, block)
        .open()
        .unwrap();
    let packed = file.read_packed("w").unwrap().unwrap();
    let words = packed.words.to_u32().unwrap();
    assert_eq!(words, [0x7654_3210, 0xfedc_ba98, 0x89ab_cdef, 0x0123_4567]);
    // As Q4_0, the same bits are smaller by 8: 0 becomes -8, whose two's complement is 8.
    let block: Vec<u8> = [0, 0x3c].into_iter().chain(halves).collect();
    let file = Gguf::new()
        .tensor("w", &[32, 1], Q4_0, block)
        .open()
        .unwrap();
    let packed = file.read_packed("w").unwrap().unwrap();
    let words = packed.words.to_u32().unwrap();
    assert_eq!(words, [0xfedc_ba98, 0x7654_3210, 0x0123_4567, 0x89ab_cdef]);
}

#[test]
fn floats_and_other_ranks_are_read_as_they_are() {
    let mut dice = Dice(3);
    let (row, values) = blocks(Q8_0, 1, &mut dice);
    let half = [f16::from_f32(1.5), f16::from_f32(-2.0)];
    let brain = bf16::from_f32(3.0);
    let file = Gguf::new()
        .tensor(
            "f",
            &[2, 1],
            F32,
            [1f32, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
        .tensor(
            "h",
            &[2],
            F16,
            half.iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
        .tensor("b", &[], BF16, brain.to_le_bytes().to_vec())
        .tensor("row", &[32], Q8_0, row)
        .open()
        .unwrap();
    let shapes: Vec<_> = file
        .tensors()
        .iter()
        .map(|t| (t.dtype, &t.shape[..]))
        .collect();
    assert_eq!(
        shapes,
        [
            (Dtype::F32, &[1, 2][..]),
            (Dtype::F16, &[2]),
            (Dtype::BF16, &[]),
            (Dtype::F32, &[32])
        ]
    );
    let read = |name: &str| file.read(name).unwrap().to_f32().unwrap();
    assert_eq!(read("f"), [1.0, 2.0]);
    assert_eq!(read("h"), [1.5, -2.0]);
    assert_eq!(read("b"), [3.0]);
    assert_eq!(bits(&read("row")), bits(&values));
    // Neither tensor is a quantized matrix.
    assert_eq!(file.read_packed("f").unwrap(), None);
    assert_eq!(file.read_packed("row").unwrap(), None);
    assert_eq!(code(file.read("g")), "missing-tensor");
    assert_eq!(code(file.read_packed("g")), "missing-tensor");
}

#[test]
fn metadata_becomes_json() {
    let list = [
        &8u32.to_le_bytes()[..],
        &2u64.to_le_bytes(),
        &text("a"),
        &text("\u{120}b"),
    ]
    .concat();
    let file = Gguf::new()
        .value("u8", 0, &[255])
        .value("i8", 1, &[255])
        .value("u16", 2, &[1, 1])
        .value("i16", 3, &[255, 255])
        .value("u32", 4, &7u32.to_le_bytes())
        .value("i32", 5, &(-7i32).to_le_bytes())
        .value("f32", 6, &0.5f32.to_le_bytes())
        .value("nan", 6, &f32::NAN.to_le_bytes())
        .value("yes", 7, &[1])
        .value("text", 8, &text("llama"))
        .value("list", 9, &list)
        .value("u64", 10, &u64::MAX.to_le_bytes())
        .value("i64", 11, &i64::MIN.to_le_bytes())
        .value("f64", 12, &1e300f64.to_le_bytes())
        .open()
        .unwrap();
    let want = serde_json::json!({
        "u8": 255, "i8": -1, "u16": 257, "i16": -1, "u32": 7, "i32": -7, "f32": 0.5, "nan": null, "yes": true,
        "text": "llama", "list": ["a", "\u{120}b"], "u64": u64::MAX, "i64": i64::MIN, "f64": 1e300,
    });
    assert_eq!(serde_json::Value::from(file.metadata().clone()), want);
}

#[test]
fn versions_and_alignments() {
    let one = |version, alignment: u32| {
        let mut file = Gguf::new()
            .value("general.alignment", 4, &alignment.to_le_bytes())
            .tensor("a", &[1], F32, 1f32.to_le_bytes().to_vec())
            .tensor("b", &[1], F32, 2f32.to_le_bytes().to_vec());
        file.version = version;
        file.alignment = alignment.into();
        file
    };
    for alignment in [8, 32, 4096] {
        let file = one(2, alignment).open().unwrap();
        assert_eq!(file.read("b").unwrap().to_f32().unwrap(), [2.0]);
    }
    assert_eq!(code(one(1, 32).open()), "bad-gguf");
    assert_eq!(code(one(4, 32).open()), "bad-gguf");
    assert_eq!(code(one(3 << 24, 32).open()), "big-endian");
    assert_eq!(code(open(one(3, 32).bytes_at(|at| at + 4))), "bad-gguf");
    let mut odd = one(3, 24);
    odd.alignment = 8;
    assert_eq!(code(odd.open()), "bad-gguf");
    odd.values = one(3, 0).values;
    assert_eq!(code(odd.open()), "bad-gguf");
}

#[test]
fn unsupported_types_are_named() {
    for (kind, name) in [
        (16, "IQ2_XXS"),
        (29, "IQ1_M"),
        (4, "number 4"),
        (999, "number 999"),
    ] {
        let error = Gguf::new()
            .tensor("blk.0.ffn_up.weight", &[256, 1], kind, vec![0; 256])
            .open()
            .unwrap_err();
        assert_eq!(error.code(), "unsupported-blocks");
        let message = error.to_string();
        assert!(
            message.contains(name) && message.contains("blk.0.ffn_up.weight"),
            "{message}"
        );
    }
}

#[test]
fn lies_are_refused_before_anything_is_allocated() {
    let huge = u64::MAX.to_le_bytes();
    let whole = Gguf::new().tensor("w", &[32, 2], Q8_0, vec![0; 68]);
    // Truncated at every length.
    let bytes = whole.bytes();
    for len in 0..bytes.len() {
        let error = open(bytes[..len].to_vec()).unwrap_err();
        assert_eq!(error.code(), "short-file", "{len} of {}", bytes.len());
    }
    // Huge counts of tensors and of metadata values.
    for at in [8, 16] {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&huge);
        assert!(open(bytes).is_err());
    }
    let one = |kind, bytes: &[u8]| Gguf::new().value("k", kind, bytes).open();
    let list = |kind: u32, count: &[u8]| [&kind.to_le_bytes()[..], count].concat();
    assert_eq!(code(one(8, &huge)), "short-file");
    assert_eq!(code(one(8, &(1u64 << 40).to_le_bytes())), "short-file");
    assert_eq!(code(one(9, &list(0, &huge))), "short-file");
    assert_eq!(
        code(one(9, &list(9, &(1u64 << 33).to_le_bytes()))),
        "short-file"
    );
    assert_eq!(code(one(13, &[])), "bad-gguf");
    assert_eq!(code(one(7, &[2])), "bad-gguf");
    assert_eq!(code(one(8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff])), "bad-gguf");
    let nested: Vec<u8> = (0..9).flat_map(|_| list(9, &1u64.to_le_bytes())).collect();
    assert_eq!(code(one(9, &nested)), "bad-gguf");
    // More values than any model has, all present.
    let many = [list(0, &(5u64 << 20).to_le_bytes()), vec![0; 5 << 20]].concat();
    assert_eq!(code(one(9, &many)), "too-large");
    let twice = Gguf::new().value("k", 0, &[1]).value("k", 0, &[2]);
    assert_eq!(code(twice.open()), "bad-gguf");

    // Shapes.
    let shaped = |dims: &[u64], kind| Gguf::new().tensor("w", dims, kind, vec![0; 68]).open();
    assert_eq!(code(shaped(&[32, 3], Q8_0)), "short-file");
    assert_eq!(code(shaped(&[33, 2], Q8_0)), "bad-gguf");
    assert_eq!(code(shaped(&[0, 2], Q4_0)), "bad-gguf");
    assert_eq!(code(shaped(&[1; 5], F32)), "bad-gguf");
    assert_eq!(code(shaped(&[1 << 40, 1 << 40], F32)), "too-large");
    assert_eq!(code(shaped(&[u64::MAX], F16)), "too-large");
    let empty = shaped(&[0, u64::MAX], F32).unwrap();
    assert!(empty.read("w").unwrap().bytes.is_empty());

    // Offsets.
    assert_eq!(code(open(whole.bytes_at(|_| !31))), "short-file");
    assert_eq!(code(open(whole.bytes_at(|_| 1 << 20))), "short-file");
    let two = whole.clone().tensor("v", &[32, 2], Q8_0, vec![0; 68]);
    assert_eq!(code(open(two.bytes_at(|_| 0))), "bad-gguf");
    let named_alike = whole.clone().tensor("w", &[1], F32, vec![0; 4]);
    assert_eq!(code(named_alike.open()), "duplicate-tensor");
    assert_eq!(
        code(open(b"\x01GGU___________________".to_vec())),
        "bad-gguf"
    );
    assert_eq!(
        code(open(b"tjgg\x03\0\0\0____________".to_vec())),
        "wrong-file"
    );
}

#[test]
fn weights_are_told_by_their_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    let file = Gguf::new().tensor("w", &[1], F32, 2f32.to_le_bytes().to_vec());
    std::fs::write(&path, file.bytes()).unwrap();
    assert!(GgufFile::is_one(&path));
    let weights = open_weights(&path).unwrap();
    assert_eq!(weights.read("w").unwrap().to_f32().unwrap(), [2.0]);
    std::fs::write(&path, b"GG").unwrap();
    assert!(!GgufFile::is_one(&path));
    assert!(!GgufFile::is_one(folder.path().join("none")));
}

/// Pieces of random bits of every type with a fixture, and their values by the Python package `gguf`.
fn fixtures() -> Vec<(String, u32, Vec<u8>, Vec<f32>)> {
    #[derive(serde::Deserialize)]
    struct Entry {
        r#type: String,
        code: u32,
        bytes: usize,
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/gguf");
    let read = |name: &str| std::fs::read(format!("{folder}/{name}")).unwrap();
    let entries: Vec<Entry> = serde_json::from_slice(&read("blocks.json")).unwrap();
    let all = read("blocks.bin");
    let mut rest = all.as_slice();
    let mut take = |len: usize| {
        let (taken, after) = rest.split_at(len);
        rest = after;
        taken.to_vec()
    };
    let made = entries.into_iter().map(|entry| {
        let pieces = take(entry.bytes);
        let values = take(512 * 4);
        let values = values.as_chunks().0.iter().map(|v| f32::from_le_bytes(*v));
        (entry.r#type, entry.code, pieces, values.collect())
    });
    made.collect()
}

#[test]
fn every_type_of_blocks_has_the_values_of_ggml() {
    let fixtures = fixtures();
    assert_eq!(fixtures.len(), 9);
    for (name, kind, pieces, values) in fixtures {
        let file = Gguf::new()
            .tensor("w", &[256, 2], kind, pieces.clone())
            .open()
            .unwrap();
        let read = file.read("w").unwrap().to_f32().unwrap();
        assert_eq!(bits(&read), bits(&values), "{name}");
        // Rows shorter than a super-block.
        let narrow = Gguf::new()
            .tensor("w", &[32, 16], kind, pieces.clone())
            .open()
            .unwrap();
        let read = narrow.read("w").unwrap().to_f32().unwrap();
        assert_eq!(bits(&read), bits(&values), "{name}");
        let (wide, narrow) = (
            file.read_packed("w").unwrap(),
            narrow.read_packed("w").unwrap(),
        );
        assert_eq!(
            wide.unwrap().words.bytes,
            narrow.unwrap().words.bytes,
            "{name}"
        );
        for dims in [[16, 32], [32, 15]] {
            let odd = Gguf::new().tensor("w", &dims, kind, pieces.clone()).open();
            let fits = dims == [32, 15] && name.ends_with(['0', '1', 'L']);
            assert_eq!(odd.is_ok(), fits, "{name} {dims:?}");
        }

        // Repacked: exact, or up to the rounding of scales to f16, or to 1/254 of a block's largest value.
        let packed = file.read_packed("w").unwrap().unwrap();
        let exact = ["Q5_0", "IQ4_NL"].contains(&name.as_str());
        let scheme = match name.as_str() {
            "Q4_K" => Scheme::Q4_1,
            _ => Scheme::Q8,
        };
        assert_eq!(packed.scheme, scheme, "{name}");
        let back = packed.dequantize().unwrap().to_f32().unwrap();
        for (block, (values, back)) in values.chunks(32).zip(back.chunks(32)).enumerate() {
            let largest = values.iter().fold(0f32, |largest, v| largest.max(v.abs()));
            let allowed = match (exact, scheme) {
                (true, _) => 0.0,
                // A scale and a minimum, each rounded to f16's 11 significant bits.
                (_, Scheme::Q4_1) => 4.0 * largest / 2048.0,
                _ => 0.51 * largest / 127.0 + largest / 2048.0,
            };
            for (value, back) in values.iter().zip(back) {
                let error = (value - back).abs();
                assert!(error <= allowed, "{name} {block}: {value} became {back}");
            }
        }
    }
}

#[test]
fn scales_that_are_no_numbers_are_told() {
    for (name, kind, mut pieces, _) in fixtures() {
        let at = match name.as_str() {
            "Q2_K" => 80,
            "Q3_K" => 108,
            "Q6_K" => 208,
            _ => 0,
        };
        pieces[at..at + 2].copy_from_slice(&f16::NAN.to_le_bytes());
        let file = Gguf::new()
            .tensor("w", &[256, 2], kind, pieces)
            .open()
            .unwrap();
        assert!(file.read("w").unwrap().check_finite().is_err(), "{name}");
        let packed = file.read_packed("w").unwrap().unwrap();
        assert!(packed.check_finite().is_err(), "{name}");
    }
}

/// Three parts of a model whose tensors a, b and c hold 1, 2 and 3.
fn parts(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let part = |number: u16| {
        let mut file = Gguf::new();
        if number == 0 {
            file = file.value("general.architecture", 8, &text("llama"));
        }
        let name = ["a", "b", "c"][usize::from(number)];
        let value = f32::from(number) + 1.0;
        file.value("split.no", 2, &number.to_le_bytes())
            .value("split.count", 2, &3u16.to_le_bytes())
            .value("split.tensors.count", 5, &3i32.to_le_bytes())
            .tensor(name, &[1], F32, value.to_le_bytes().to_vec())
    };
    let write = |number: u16| {
        let path = folder.join(format!("m-{:05}-of-00003.gguf", number + 1));
        std::fs::write(&path, part(number).bytes()).unwrap();
        path
    };
    (0..3).map(write).collect()
}

#[test]
fn models_in_parts_are_read_from_any_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let paths = parts(folder.path());
    for path in &paths {
        let file = GgufFile::open(path).unwrap();
        assert_eq!(file.metadata()["general.architecture"], "llama");
        let read = |name: &str| file.read(name).unwrap().to_f32().unwrap();
        assert_eq!(
            (read("a"), read("b"), read("c")),
            (vec![1.0], vec![2.0], vec![3.0])
        );
        assert_eq!(file.tensors().len(), 3);
    }
    // A part alone, of another model, with a wrong part number, under another name.
    let first = std::fs::read(&paths[0]).unwrap();
    let alone = open(first.clone()).unwrap_err();
    assert_eq!(alone.code(), "part-of-model");
    assert!(alone.to_string().contains("part 1 of 3"), "{alone}");
    std::fs::write(&paths[1], &first).unwrap();
    assert_eq!(code(GgufFile::open(&paths[0])), "bad-gguf");
    std::fs::remove_file(&paths[1]).unwrap();
    let missing = GgufFile::open(&paths[2]).unwrap_err();
    assert_eq!(missing.code(), "part-of-model");
    let message = missing.to_string();
    assert!(
        message.contains("part 3 of 3") && message.contains("`m-00002-of-00003.gguf`"),
        "{message}"
    );
    let renamed = folder.path().join("model.gguf");
    std::fs::write(&renamed, &first).unwrap();
    assert_eq!(code(GgufFile::open(&renamed)), "part-of-model");
    let wrong = Gguf::new().value("split.no", 4, &7u32.to_le_bytes());
    assert_eq!(code(wrong.open()), "bad-gguf");
    // An LFS pointer in place of a part is reported as such.
    std::fs::write(&paths[1], b"version https://git-lfs.github.com/spec/v1\n").unwrap();
    assert_eq!(code(GgufFile::open(&paths[0])), "lfs-pointer");
}

proptest! {
    #[test]
    fn any_file_of_blocks_reads_back(
        seed in any::<u64>(),
        kind in prop::sample::select(vec![Q4_0, Q4_1, Q8_0]),
        (out, width) in (1usize..5, 1usize..5),
    ) {
        let mut dice = Dice(seed | 1);
        let (data, values) = blocks(kind, out * width, &mut dice);
        let dims = [32 * width as u64, out as u64];
        let file = Gguf::new()
            .tensor("first", &[1], F16, vec![0; 2])
            .tensor("w", &dims, kind, data)
            .open()
            .unwrap();
        let read = file.read("w").unwrap();
        prop_assert_eq!(&read.info.shape, &[out, 32 * width]);
        prop_assert_eq!(bits(&read.to_f32().unwrap()), bits(&values));
        let packed = file.read_packed("w").unwrap().unwrap();
        let back = packed.dequantize().unwrap();
        prop_assert_eq!(&back.info, &read.info);
        prop_assert_eq!(bits(&back.to_f32().unwrap()), bits(&values));
    }

    #[test]
    fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300), sound in any::<bool>()) {
        let start = if sound { &b"GGUF\x03\0\0\0"[..] } else { b"" };
        emu_pack::fuzzing::gguf(&[start, &bytes].concat());
    }
}
