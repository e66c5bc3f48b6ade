//! PyTorch checkpoints: the reference files, layouts built here, and invalid files of every kind.

mod common;

use std::io::Cursor;

use common::{Dice, Fake, Pickle, archive, archive_with, fixture, floats};
use emu_pack::{
    Dtype, PackError, SafetensorsFile, TensorSource,
    convert::{LegacyPyTorchFile, ModelFolder, PyTorchFile, open_weights, read_pickle},
    fuzzing,
};
use proptest::prelude::*;

fn open(bytes: Vec<u8>) -> Result<PyTorchFile, PackError> {
    PyTorchFile::from_reader("test.pt", Cursor::new(bytes))
}

fn code<T: std::fmt::Debug>(result: Result<T, PackError>) -> &'static str {
    result.unwrap_err().code()
}

/// A file with one storage `0` that holds the floats 0, 1, 2, ..
fn one_storage(pickle: Vec<u8>, numel: usize) -> Vec<u8> {
    let data = floats(&(0..numel).map(|i| i as f32).collect::<Vec<_>>());
    archive(&[
        ("m/data.pkl", &pickle),
        ("m/data/0", &data),
        ("m/version", b"3\n"),
    ])
}

fn of_tensor(tensor: Fake) -> Vec<u8> {
    one_storage(Pickle::start().state_dict(&[tensor]).stop(), 12)
}

/// Names and bits of all tensors as f32.
fn bits(
    source: &impl TensorSource,
    change: impl Fn(&str, f32) -> f32,
) -> Vec<(String, Vec<usize>, Vec<u32>)> {
    let mut all = vec![];
    for info in source.tensors() {
        let tensor = source.read(&info.name).unwrap();
        tensor.check_finite().unwrap();
        let values = tensor.to_f32().unwrap();
        let values = values
            .iter()
            .map(|&value| change(&info.name, value).to_bits())
            .collect();
        all.push((info.name.clone(), info.shape.clone(), values));
    }
    all.sort();
    all
}

#[test]
fn reference_files_equal_their_safetensors() {
    let same = |_: &str, value: f32| value;
    for name in ["tiny-emu", "tiny-emu-instruct"] {
        let expected = SafetensorsFile::open(fixture(&format!("{name}.safetensors"))).unwrap();
        let found = PyTorchFile::open(fixture(&format!("{name}.pt"))).unwrap();
        assert!(!found.tensors().is_empty());
        assert_eq!(bits(&found, same), bits(&expected, same), "{name}");
    }
}

#[test]
fn mixed_dtypes_equal_the_rounded_weights() {
    let expected = SafetensorsFile::open(fixture("tiny-emu.safetensors")).unwrap();
    let found = PyTorchFile::open(fixture("tiny-emu-bf16mixed.pt")).unwrap();
    let is_bf16 = |name: &str| name.starts_with("decoder.") || name.starts_with("cformer.cformer.");
    for info in found.tensors() {
        assert_eq!(
            info.dtype,
            if is_bf16(&info.name) {
                Dtype::BF16
            } else {
                Dtype::F32
            },
            "{}",
            info.name
        );
    }
    let rounded = |name: &str, value| {
        if is_bf16(name) {
            half::bf16::from_f32(value).to_f32()
        } else {
            value
        }
    };
    assert_eq!(bits(&found, |_, value| value), bits(&expected, rounded));
}

#[test]
fn wrapped_layouts_give_the_same_tensors() {
    // The plain file's pickle nested in `{wrapper: sd, "global_steps": 7}`; the storages stay the same.
    let file = std::fs::File::open(fixture("tiny-emu.pt")).unwrap();
    let mut zip = zip::ZipArchive::new(file).unwrap();
    let mut entries: Vec<(String, Vec<u8>)> = vec![];
    for i in 0..zip.len() {
        let mut entry = zip.by_index(i).unwrap();
        let (name, mut bytes) = (
            String::from_utf8(entry.name_raw().to_vec()).unwrap(),
            vec![],
        );
        std::io::copy(&mut entry, &mut bytes).unwrap();
        if name.ends_with("data.pkl") {
            let inner = &bytes[2..bytes.len() - 1];
            let outer = Pickle::start().raw(b"}(").text("module").raw(inner);
            bytes = outer
                .text("global_steps")
                .int(7)
                .text("lr")
                .raw(b"G01234567u")
                .stop();
        }
        entries.push((name, bytes));
    }
    let entries: Vec<(&str, &[u8])> = entries
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    let found = open(archive(&entries)).unwrap();
    let expected = SafetensorsFile::open(fixture("tiny-emu.safetensors")).unwrap();
    assert_eq!(
        bits(&found, |_, value| value),
        bits(&expected, |_, value| value)
    );
}

#[test]
fn wrappers_nest_and_scalars_are_skipped() {
    let sd = |p: Pickle| p.state_dict(&[Fake::f32("w", "0", &[12])]);
    let wrapped = |names: &[&str]| {
        let start = names
            .iter()
            .fold(Pickle::start(), |p, name| p.raw(b"}").text(name));
        names.iter().fold(sd(start), |p, _| p.raw(b"s")).stop()
    };
    for names in [&["state_dict"][..], &["model"], &["module", "model"]] {
        assert_eq!(
            open(one_storage(wrapped(names), 12))
                .unwrap()
                .tensors()
                .len(),
            1,
            "{names:?}"
        );
    }
    assert_eq!(
        code(open(one_storage(wrapped(&["optimizer"]), 12))),
        "bad-pickle"
    );
    assert_eq!(
        code(open(one_storage(wrapped(&["model"; 4]), 12))),
        "bad-pickle"
    );
    let both = sd(Pickle::start().raw(b"}(").text("module")).text("model");
    assert_eq!(
        code(open(one_storage(sd(both).raw(b"u").stop(), 12))),
        "bad-pickle"
    );

    let beside = Pickle::start()
        .raw(b"}(")
        .text("step")
        .int(3)
        .text("w")
        .tensor(&Fake::f32("w", "0", &[12]));
    let file = open(one_storage(beside.raw(b"u").stop(), 12)).unwrap();
    assert_eq!(
        (file.skipped(), file.tensors().len()),
        (&["step".to_owned()][..], 1)
    );
}

#[test]
fn views_of_one_storage() {
    let view = |name, offset, shape: &[i64], strides: &[i64]| Fake {
        numel: 12,
        offset,
        strides: strides.to_vec(),
        ..Fake::f32(name, "0", shape)
    };
    let tensors = [
        view("whole", 0, &[3, 4], &[4, 1]),
        view("transposed", 0, &[4, 3], &[1, 4]),
        view("column", 2, &[3], &[4]),
        view("broadcast", 5, &[2, 3], &[0, 1]),
        view("scalar", 7, &[], &[]),
        view("empty", 0, &[0, 4], &[4, 1]),
        view("one", 11, &[1, 1], &[i64::MAX, i64::MAX]),
        view("rows", 4, &[2, 4], &[4, 1]),
    ];
    let file = open(one_storage(Pickle::start().state_dict(&tensors).stop(), 12)).unwrap();
    let read = |name| file.read(name).unwrap().to_f32().unwrap();
    assert_eq!(read("whole"), (0..12).map(|i| i as f32).collect::<Vec<_>>());
    assert_eq!(
        read("transposed"),
        [0., 4., 8., 1., 5., 9., 2., 6., 10., 3., 7., 11.]
    );
    assert_eq!(read("column"), [2., 6., 10.]);
    assert_eq!(read("broadcast"), [5., 6., 7., 5., 6., 7.]);
    assert_eq!(read("scalar"), [7.]);
    assert_eq!(read("empty"), [0f32; 0]);
    assert_eq!(read("one"), [11.]);
    assert_eq!(read("rows"), [4., 5., 6., 7., 8., 9., 10., 11.]);
    assert_eq!(code(file.read("gone")), "missing-tensor");
}

#[test]
fn parameters_and_newer_protocols() {
    let parameter = Pickle::start()
        .raw(b"}")
        .text("w")
        .global("torch._utils", "_rebuild_parameter")
        .raw(b"(");
    let parameter = parameter
        .tensor(&Fake::f32("w", "0", &[12]))
        .raw(b"\x88")
        .ordered_dict()
        .raw(b"tRs")
        .stop();
    assert_eq!(open(one_storage(parameter, 12)).unwrap().tensors().len(), 1);

    // Protocol 4: a frame, MEMOIZE, STACK_GLOBAL and short strings.
    let short = |text: &str| [&[0x8c, text.len() as u8], text.as_bytes()].concat();
    let p4 = Pickle::start().raw(&[0x80, 4, 0x95, 9, 0, 0, 0, 0, 0, 0, 0]);
    let p4 = p4
        .raw(&short("collections"))
        .raw(b"\x94")
        .raw(&short("OrderedDict"))
        .raw(b"\x94\x93)R\x94");
    let p4 = p4
        .raw(&short("w"))
        .tensor(&Fake::f32("w", "0", &[12]))
        .raw(b"sh\x020")
        .stop();
    assert_eq!(open(one_storage(p4, 12)).unwrap().tensors().len(), 1);
}

#[test]
fn calls_off_the_list_are_named() {
    for (module, name) in [
        ("os", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch.nn", "FloatStorage"),
        ("torch", "xStorage\u{e9}Storage"),
    ] {
        let pickle = Pickle::start()
            .global(module, name)
            .raw(b"(")
            .text("rm -rf")
            .raw(b"tR")
            .stop();
        let error = read_pickle("evil.pt", &pickle).unwrap_err();
        assert_eq!(error.code(), "forbidden-global");
        assert!(
            error.to_string().contains(&format!("{module}.{name}")),
            "{error}"
        );
    }
    let error = open(of_tensor(Fake {
        storage_type: "ShortStorage",
        ..Fake::f32("w", "0", &[12])
    }))
    .unwrap_err();
    assert_eq!(error.code(), "unsupported-dtype");
    assert!(
        error.to_string().contains("`w`") && error.to_string().contains("ShortStorage"),
        "{error}"
    );
}

#[test]
fn tensors_outside_of_their_storage() {
    let base = Fake::f32("w", "0", &[12]);
    let cases = [
        (
            Fake {
                offset: 1,
                ..base.clone()
            },
            "bad-archive",
        ),
        (
            Fake {
                offset: -1,
                ..base.clone()
            },
            "bad-pickle",
        ),
        (
            Fake {
                shape: vec![13],
                ..base.clone()
            },
            "bad-archive",
        ),
        (
            Fake {
                shape: vec![-12],
                ..base.clone()
            },
            "bad-pickle",
        ),
        (
            Fake {
                strides: vec![-1],
                ..base.clone()
            },
            "bad-pickle",
        ),
        (
            Fake {
                strides: vec![2],
                ..base.clone()
            },
            "bad-archive",
        ),
        (
            Fake {
                strides: vec![i64::MAX],
                ..base.clone()
            },
            "bad-archive",
        ),
        (
            Fake {
                strides: vec![],
                ..base.clone()
            },
            "bad-pickle",
        ),
        (
            Fake {
                numel: 13,
                ..base.clone()
            },
            "bad-archive",
        ),
        (
            Fake {
                numel: i64::MAX,
                ..base.clone()
            },
            "bad-archive",
        ),
        (
            Fake {
                numel: -12,
                ..base.clone()
            },
            "bad-pickle",
        ),
        (
            Fake {
                storage_type: "HalfStorage",
                ..base.clone()
            },
            "bad-archive",
        ),
        (
            Fake {
                storage: "1",
                ..base.clone()
            },
            "bad-archive",
        ),
        (
            Fake {
                storage: "../version",
                ..base.clone()
            },
            "bad-archive",
        ),
        (
            Fake {
                shape: vec![i64::MAX, i64::MAX],
                strides: vec![0, 0],
                ..base.clone()
            },
            "too-large",
        ),
        (
            Fake {
                shape: vec![1 << 40],
                strides: vec![0],
                ..base.clone()
            },
            "too-large",
        ),
        (
            Fake {
                shape: vec![1; 17],
                strides: vec![1; 17],
                ..base.clone()
            },
            "bad-pickle",
        ),
    ];
    for (i, (tensor, expected)) in cases.into_iter().enumerate() {
        assert_eq!(code(open(of_tensor(tensor))), expected, "case {i}");
    }
    let twice = Pickle::start().state_dict(&[base.clone(), base]).stop();
    assert_eq!(code(open(one_storage(twice, 12))), "duplicate-tensor");
}

#[test]
fn pickles_that_make_no_sense() {
    let cases: [(&str, &[u8]); 20] = [
        ("empty", b""),
        ("only a protocol", b"\x80\x02"),
        ("old protocol", b"\x80\x01N."),
        ("nothing left", b"\x80\x02."),
        ("none", b"\x80\x02N."),
        ("empty dictionary", b"\x80\x02}."),
        ("pop below a mark", b"\x80\x02N(0."),
        ("tuple without mark", b"\x80\x02t."),
        ("tuple of too few", b"\x80\x02N\x87."),
        ("memo not stored", b"\x80\x02h\x07."),
        ("list as a dictionary", b"\x80\x02]NNs."),
        ("dictionary as a list", b"\x80\x02}Na."),
        ("odd items", b"\x80\x02}(NNNu."),
        ("call of a number", b"\x80\x02K\x01)R."),
        (
            "call without tuple",
            b"\x80\x02ccollections\nOrderedDict\nNR.",
        ),
        ("state of a list", b"\x80\x02]}b."),
        ("storage that is none", b"\x80\x02NQ."),
        ("endless name", b"\x80\x02ccollections"),
        ("integer of 9 bytes", b"\x80\x02\x8a\x09aaaaaaaaa."),
        ("NEWOBJ", b"\x80\x02)\x81."),
    ];
    for (what, pickle) in cases {
        assert_eq!(code(read_pickle("x", pickle)), "bad-pickle", "{what}");
    }
    for width in [
        b"X\xff\xff\xff\xff".as_slice(),
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
        b"B\xff\xff\xff\x7f",
        b"\x8c\xff",
    ] {
        assert_eq!(
            code(read_pickle("x", &[b"\x80\x02", width, b"abc."].concat())),
            "bad-pickle"
        );
    }
    // Keys that are not strings, and values that are not tensors.
    let odd = Pickle::start()
        .raw(b"}(K\x01")
        .tensor(&Fake::f32("w", "0", &[1]))
        .raw(b"u")
        .stop();
    assert_eq!(code(read_pickle("x", &odd)), "bad-pickle");
    let list = Pickle::start()
        .raw(b"}(")
        .text("w")
        .tensor(&Fake::f32("w", "0", &[1]))
        .text("v")
        .raw(b"]u")
        .stop();
    assert!(
        read_pickle("x", &list)
            .unwrap_err()
            .to_string()
            .contains("`v` is a list")
    );
}

#[test]
fn bombs_are_bounded() {
    // Nesting 400,000 deep, a list inside itself, and more values than any model needs.
    let deep = [
        b"\x80\x02".as_slice(),
        &b"]".repeat(400_000),
        &b"a".repeat(399_999),
        b".",
    ]
    .concat();
    assert_eq!(code(read_pickle("x", &deep)), "bad-pickle");
    let tuples = [b"\x80\x02)".as_slice(), &b"\x85".repeat(400_000), b"."].concat();
    assert_eq!(code(read_pickle("x", &tuples)), "bad-pickle");
    assert_eq!(
        code(read_pickle("x", b"\x80\x02]q\x00h\x00a.")),
        "bad-pickle"
    );
    let own = Pickle::start()
        .raw(b"}q\x00")
        .text("module")
        .raw(b"h\x00s")
        .stop();
    assert_eq!(code(read_pickle("x", &own)), "bad-pickle");
    for op in [b"]", b"N", b"(", b"K"] {
        let flood = [b"\x80\x02".as_slice(), &op.repeat(3_000_000)].concat();
        assert_eq!(code(read_pickle("x", &flood)), "too-large");
    }
    let memos = [b"\x80\x02N".as_slice(), &b"\x94".repeat(3_000_000)].concat();
    assert!(read_pickle("x", &memos).is_err());
    let copies = [b"\x80\x02Nq\x00".as_slice(), &b"h\x00".repeat(3_000_000)].concat();
    assert_eq!(code(read_pickle("x", &copies)), "too-large");
}

#[test]
fn archives_that_cannot_be_read() {
    let pickle = Pickle::start()
        .state_dict(&[Fake::f32("w", "0", &[2])])
        .stop();
    let data = floats(&[1.0, 2.0]);
    let good: [(&str, &[u8]); 2] = [("m/data.pkl", &pickle), ("m/data/0", &data)];
    assert_eq!(
        open(archive(&good))
            .unwrap()
            .read("w")
            .unwrap()
            .to_f32()
            .unwrap(),
        [1.0, 2.0]
    );
    assert!(open(archive(&[("data.pkl", &pickle), ("data/0", &data)])).is_ok());
    assert!(open(archive(&[good[0], good[1], ("m/byteorder", b"little")])).is_ok());
    assert_eq!(
        code(open(archive(&[good[0], good[1], ("m/byteorder", b"big")]))),
        "big-endian"
    );
    assert_eq!(
        code(open(archive(&[
            good[0],
            good[1],
            ("m/byteorder", b"middle")
        ]))),
        "bad-archive"
    );
    assert_eq!(
        code(open(archive(&[
            good[0],
            good[1],
            ("m/byteorder", &[b'x'; 99])
        ]))),
        "too-large"
    );
    assert_eq!(code(open(archive(&[good[1]]))), "bad-archive");
    assert_eq!(
        code(open(archive(&[good[0], good[1], ("n/data.pkl", &pickle)]))),
        "bad-archive"
    );
    assert_eq!(code(open(archive(&[good[0]]))), "bad-archive");
    assert_eq!(code(open(vec![])), "wrong-file");
    assert_eq!(code(open(b"PK\x03\x04 and so on".to_vec())), "bad-archive");
    let legacy = [
        0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.',
    ];
    assert!(
        open(legacy.to_vec())
            .unwrap_err()
            .to_string()
            .contains("before 1.6")
    );

    // ZIP64 entries, as PyTorch writes them for storages above 4 GB
    assert!(open(archive_with(&good, |options| options.large_file(true))).is_ok());

    // The checksum detects a flipped bit in a tensor.
    let mut corrupt = archive(&good);
    let at = corrupt
        .windows(8)
        .position(|window| window == data)
        .unwrap();
    corrupt[at] ^= 1;
    let file = open(corrupt).unwrap();
    let error = file.read("w").unwrap_err();
    assert!(
        error.code() == "io" && error.to_string().contains("`w`"),
        "{error}"
    );
}

#[test]
fn truncated_anywhere() {
    let pickle = Pickle::start()
        .state_dict(&[Fake::f32("w", "0", &[12])])
        .stop();
    for end in 0..pickle.len() {
        assert_eq!(
            code(read_pickle("x", &pickle[..end])),
            "bad-pickle",
            "{end}"
        );
    }
    let bytes = one_storage(pickle, 12);
    for end in 0..bytes.len() {
        let result = open(bytes[..end].to_vec()).and_then(|file| file.read("w"));
        assert!(result.is_err(), "{end} of {}", bytes.len());
    }
    let real = std::fs::read(fixture("tiny-emu.pt")).unwrap();
    for parts in 1..20 {
        assert!(open(real[..real.len() * parts / 20].to_vec()).is_err());
    }
}

#[test]
fn mutated_files_never_panic() {
    let small = one_storage(
        Pickle::start()
            .state_dict(&[Fake::f32("w", "0", &[3, 4])])
            .stop(),
        12,
    );
    let pickle = Pickle::start()
        .state_dict(&[Fake::f32("w", "0", &[3, 4]), Fake::f32("v", "1", &[2])])
        .stop();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..4000 {
        fuzzing::pytorch(&dice.mutate(&small));
        fuzzing::pickle(&dice.mutate(&pickle));
    }
    for _ in 0..2000 {
        let noise: Vec<u8> = (0..dice.roll(60)).map(|_| dice.roll(256) as u8).collect();
        fuzzing::pickle(&[b"\x80\x02".as_slice(), &noise].concat());
        fuzzing::pytorch(&[b"PK\x03\x04".as_slice(), &noise].concat());
    }
}

#[test]
fn folders_of_diffusers_and_transformers() {
    let vae = ModelFolder::open(fixture("tiny-vae")).unwrap();
    assert_eq!(vae.config["_class_name"], "AutoencoderKL");
    assert!(vae.file.ends_with("diffusion_pytorch_model.safetensors") && !vae.tensors().is_empty());
    let checker = ModelFolder::open(fixture("tiny-safety-checker")).unwrap();
    assert!(
        checker.file.ends_with("model.safetensors")
            && checker.info(&checker.tensors()[0].name).is_some()
    );

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    assert_eq!(code(ModelFolder::open(path)), "io");
    std::fs::write(path.join("config.json"), "{").unwrap();
    assert_eq!(code(ModelFolder::open(path)), "no-weights");
    std::fs::write(path.join("config.json"), "{}").unwrap();
    assert_eq!(code(ModelFolder::open(path)), "no-weights");
    std::fs::copy(fixture("tiny-emu.pt"), path.join("part.bin")).unwrap();
    let index = path.join("pytorch_model.bin.index.json");
    std::fs::write(
        &index,
        r#"{"weight_map": {"ln_visual.weight": "part.bin"}}"#,
    )
    .unwrap();
    assert_eq!(ModelFolder::open(path).unwrap().tensors().len(), 92);
    assert_eq!(open_weights(&index).unwrap().tensors().len(), 92);
    std::fs::write(path.join("pytorch_model.bin"), [0x80, 2, 0x8a, 10]).unwrap();
    assert_eq!(code(ModelFolder::open(path)), "wrong-file");
    std::fs::write(path.join("pytorch_model.bin"), "").unwrap();
    assert_eq!(code(ModelFolder::open(path)), "no-weights");
    std::fs::copy(
        fixture("tiny-emu.safetensors"),
        path.join("pytorch_model.bin"),
    )
    .unwrap();
    assert_eq!(
        ModelFolder::open(path).unwrap().tensors().len(),
        92,
        "told by content"
    );
    assert_eq!(
        open_weights(fixture("tiny-emu.pt"))
            .unwrap()
            .tensors()
            .len(),
        92
    );
    assert_eq!(code(open_weights(path.join("gone")).map(drop)), "io");
}

proptest! {
    /// Supported opcodes in any order, with short arguments.
    #[test]
    fn any_instructions_give_an_answer(ops in prop::collection::vec(
        (prop::sample::select(&b"(.012NJKMGX\x8cUC)t\x85\x86\x87]ae}suq\x94hcQRb\x88\x93\x8a\x80"[..]), any::<[u8; 3]>()),
        0..60,
    )) {
        let mut pickle = vec![0x80, 2];
        for (op, argument) in ops {
            pickle.push(op);
            match op {
                b'J' | b'X' | b'G' => pickle.extend([argument[0] % 4, 0, 0, 0]),
                b'K' | b'q' | b'h' | b'U' | b'C' | 0x8c | 0x8a => pickle.push(argument[0] % 4),
                b'M' => pickle.extend(&argument[..2]),
                b'c' => pickle.extend(b"collections\nOrderedDict\n"),
                _ => {}
            }
        }
        fuzzing::pickle(&pickle);
    }

    /// Any strided view within a storage is gathered as by indexing.
    #[test]
    fn any_view_is_gathered(
        offset in 0i64..4,
        dims in prop::collection::vec((0i64..4, 0i64..5), 0..4),
    ) {
        let (shape, strides): (Vec<i64>, Vec<i64>) = dims.iter().copied().unzip();
        let view = Fake { numel: 60, offset, strides, ..Fake::f32("w", "0", &shape) };
        let file = open(one_storage(Pickle::start().state_dict(&[view]).stop(), 60)).unwrap();
        let mut expected = vec![offset];
        for (size, stride) in dims {
            expected = expected.iter().flat_map(|at| (0..size).map(move |i| at + i * stride)).collect();
        }
        let expected: Vec<f32> = expected.into_iter().map(|at| at as f32).collect();
        prop_assert_eq!(file.read("w").unwrap().to_f32().unwrap(), expected);
    }
}

/// A legacy file (PyTorch before 1.6) written by PyTorch itself (`tests/peers/efficientnet.py`).
fn old() -> Vec<u8> {
    std::fs::read(fixture("../efficientnet/tiny.pth")).unwrap()
}

fn open_old(bytes: Vec<u8>) -> Result<LegacyPyTorchFile, PackError> {
    LegacyPyTorchFile::from_reader("old.pth", Cursor::new(bytes))
}

#[test]
fn files_of_old_pytorch_are_read() {
    let file = open_weights(fixture("../efficientnet/tiny.pth")).unwrap();
    let stem = file.read("_conv_stem.weight").unwrap();
    assert_eq!(stem.info.shape, [8, 3, 3, 3]);
    // Every value is at its place: variances were created above 0.1.
    for info in file.tensors() {
        let tensor = file.read(&info.name).unwrap();
        if info.name.ends_with("running_var") {
            let values = tensor.to_f32().unwrap();
            assert!(
                values.iter().all(|v| (0.1..2.1).contains(v)),
                "{}",
                info.name
            );
        }
        if info.name.ends_with("num_batches_tracked") {
            assert_eq!(tensor.to_i64().unwrap(), [0], "{}", info.name);
        }
    }
    assert_eq!(code(file.read("no_such")), "missing-tensor");
}

#[test]
fn damaged_files_of_old_pytorch_are_refused() {
    let good = old();
    assert!(open_old(good.clone()).is_ok());
    // truncated anywhere: in the pickles, between storages, within one
    for share in 0..40 {
        let mut cut = good.clone();
        cut.truncate(good.len() * share / 40);
        assert!(open_old(cut).is_err(), "{share}");
    }
    let mut long = good.clone();
    long.push(0);
    assert_eq!(code(open_old(long)), "long-file");
    // the element count of the last storage, eight bytes before its values
    let mut wrong = good.clone();
    let last = good.len() - 10 * 4 - 8;
    assert_eq!(wrong[last], 10, "the biases of ten classes come last");
    wrong[last] = 11;
    assert_eq!(code(open_old(wrong)), "bad-archive");
    let mut version = good;
    version[18] ^= 1;
    assert_eq!(code(open_old(version)), "bad-pickle");
}
