//! What the tests of the builders share: fixtures, small archives, shards read back.

use std::fs;
use std::path::{Path, PathBuf};

use emu_media::image::RgbImage;

use crate::build::{Output, encode};
use crate::{Report, Sample, ShardDataset, show};

/// A file or folder of `tests/fixtures/formats`, which its `make.py` has written.
pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/formats")
        .join(name)
}

/// A JPEG of one colour.
pub(crate) fn jpeg(width: u32, height: u32, colour: [u8; 3]) -> Vec<u8> {
    let picture = RgbImage::from_pixel(width, height, image::Rgb(colour));
    encode(&picture, &Output::new("unused", 1))
        .expect("encodes")
        .bytes
}

/// Writes a file and the folders around it.
pub(crate) fn put(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
    fs::write(path, bytes).expect("writable");
}

/// The bytes of a tar with these members.
pub(crate) fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, name, *bytes)
            .expect("a name that fits");
    }
    builder.into_inner().expect("in memory")
}

/// The samples of a split of a built data set, in order.
pub(crate) fn read_back(folder: &Path, split: &str) -> Vec<Sample> {
    let set = ShardDataset::open(folder.join(split)).expect("shards");
    assert!(set.bad().is_empty(), "{:?}", set.bad());
    (0..set.len())
        .map(|index| set.get(index).expect("a sample"))
        .collect()
}

/// The printable lines of each sample of `train`.
pub(crate) fn lines(folder: &Path) -> Vec<Vec<String>> {
    show::samples(&folder.join("train"))
        .expect("shards")
        .map(|shown| shown.expect("a sample").lines)
        .collect()
}

/// The reasons of a report with their counts.
pub(crate) fn reasons(report: &Report) -> Vec<(&str, usize)> {
    let skipped = report.tally.skipped.iter();
    skipped
        .map(|(reason, count)| (reason.as_str(), count.count))
        .collect()
}

/// All files of a folder with their bytes.
pub(crate) fn snapshot(folder: &Path) -> Vec<(String, Vec<u8>)> {
    crate::input::walk(folder)
        .expect("a folder")
        .into_iter()
        .map(|path| {
            let name = crate::input::name_in(folder, &path);
            (name, fs::read(path).expect("readable"))
        })
        .collect()
}
