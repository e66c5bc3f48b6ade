//! Convolution weights quantized as matrices.

use std::path::Path;

use emu_pack::{
    Dtype, MANIFEST_FILE, Manifest, PackReader, Scheme, TensorData,
    convert::{PackMeta, PackWriter, Policy, WriteOptions},
};

/// `[6, 32, 3, 3]`
fn values() -> Vec<f32> {
    let value = |i: usize| ((i * 7919 % 2003) as f32 - 1000.0) * 1e-3;
    (0..6 * 32 * 9).map(value).collect()
}

/// A pack of a convolution, a convolution without whole blocks, and a matrix; in shards of at most 1500 bytes.
fn write(folder: &Path) -> Manifest {
    let options = WriteOptions {
        policy: Policy::from_argument("q8").unwrap(),
        max_shard_bytes: 1500,
        resume: None,
    };
    let mut writer = PackWriter::create(folder, PackMeta::default(), options).unwrap();
    let add = |writer: &mut PackWriter, name: &str, shape: &[usize], values: &[f32]| {
        let tensor = TensorData::from_f32(name, shape.into(), values).unwrap();
        writer.add("decoder", tensor).unwrap();
    };
    add(&mut writer, "conv", &[6, 32, 3, 3], &values());
    add(&mut writer, "first", &[2, 3, 3, 3], &values()[..54]);
    add(&mut writer, "linear", &[2, 32], &values()[..64]);
    writer.finish().unwrap()
}

#[test]
fn shapes_come_back_as_the_model_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    let manifest = write(&path);
    let entry = |name: &str| manifest.tensors.iter().find(|t| t.name == name).unwrap();
    let conv = entry("conv");
    assert_eq!(
        (conv.dtype, conv.shape.as_slice()),
        (Dtype::U32, [6usize, 72].as_slice())
    );
    assert_eq!(conv.logical.as_deref(), Some([6usize, 32, 3, 3].as_slice()));
    assert!(conv.parts.len() > 1, "no rows were cut");
    assert_eq!(manifest.quantization["conv"], Scheme::Q8);
    assert_eq!(entry("conv.scales").logical, None);
    assert_eq!(
        (entry("first").dtype, &entry("first").logical),
        (Dtype::F16, &None)
    );
    // A matrix has no `logical` entry, so manifests without convolutions are unchanged.
    assert_eq!(entry("linear").logical, None);
    let json = String::from_utf8(manifest.to_json()).unwrap();
    assert_eq!(json.matches("\"logical\"").count(), 1);

    let shapes: Vec<Vec<usize>> = { manifest.logical_tensors().into_iter() }
        .map(|tensor| tensor.shape)
        .collect();
    assert_eq!(shapes, [vec![6, 32, 3, 3], vec![2, 3, 3, 3], vec![2, 32]]);
    let pack = PackReader::open(&path).unwrap();
    let read = pack.read_logical("conv").unwrap();
    assert_eq!(read.info.shape, [6, 32, 3, 3]);
    for (a, b) in read.to_f32().unwrap().iter().zip(values()) {
        assert!((a - b).abs() <= 1.01 / 127.0, "{a} {b}");
    }
    // Shard by shard, as in a page.
    let mut rows = 0;
    for shard in &manifest.shards {
        let bytes = std::fs::read(path.join(&shard.file)).unwrap();
        let parts = manifest.open_shard(&shard.file, &bytes).unwrap();
        let here = parts.iter().filter(|part| part.tensor.name == "conv");
        rows += here.map(|part| part.rows.len()).sum::<usize>();
    }
    assert_eq!(rows, 6);
}

#[test]
fn shapes_that_contradict_the_words_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    let good = write(&path);
    assert_eq!(
        Manifest::parse(MANIFEST_FILE, &good.to_json()).unwrap(),
        good
    );
    let code = |name: &str, shape: &[usize]| {
        let mut manifest = good.clone();
        let entry = manifest
            .tensors
            .iter_mut()
            .find(|t| t.name == name)
            .unwrap();
        entry.logical = Some(shape.into());
        let parsed = Manifest::parse(MANIFEST_FILE, &manifest.to_json());
        parsed.map_or_else(|error| error.code(), |_| "ok")
    };
    assert_eq!(code("conv", &[6, 32, 9, 1]), "ok");
    for wrong in [
        [6usize, 32, 3, 2].as_slice(),
        &[5, 32, 3, 3],
        &[6, 32, 9],
        &[],
        &[6, usize::MAX, 3, 3],
    ] {
        assert_eq!(code("conv", wrong), "misshapen", "{wrong:?}");
    }
    assert_eq!(code("first", &[2, 27]), "bad-manifest");
    assert_eq!(code("conv.scales", &[6, 9]), "bad-manifest");
}
