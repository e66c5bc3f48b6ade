use std::fs;
use std::path::Path;

use super::*;
use crate::pairs::{self, Options};
use crate::testing::{jpeg, put, read_back, snapshot};
use crate::{ShardDataset, writer::sha256_hex};

/// A folder of `n` pictures with captions.
fn source(folder: &Path, n: u8) {
    for i in 0..n {
        put(
            &folder.join(format!("{i:03}.jpg")),
            jpeg(40, 30, [i, 0, 255 - i]),
        );
        put(
            &folder.join(format!("{i:03}.txt")),
            format!("picture number {i}"),
        );
    }
}

fn options(root: &Path, out: &str) -> Options {
    let mut options = Options::new(root.join("src"), root.join(out));
    options.out.shard_samples = 4;
    options.out.resize = Resize::Shorter(16);
    options
}

#[test]
fn the_same_input_gives_the_same_bytes_on_any_number_of_threads() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    source(&root.join("src"), 14);
    let mut first = options(root, "a");
    first.out.held_out = 0.3;
    let report = pairs::build(&first, &mut |_| {}).expect("builds");
    let mut second = first.clone();
    second.out.folder = root.join("b");
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("a pool");
    let other = pool
        .install(|| pairs::build(&second, &mut |_| {}))
        .expect("builds");
    assert_eq!(report, other);
    assert_eq!(snapshot(&root.join("a")), snapshot(&root.join("b")));

    // the splits, the index, the sheet
    let (train, val) = (report.splits["train"], report.splits["val"]);
    assert!(train + val == 14 && val > 0 && train > val, "{train} {val}");
    let index = fs::read(root.join("a/index.json")).expect("an index");
    let index: Index = serde_json::from_slice(&index).expect("an index");
    assert_eq!((index.samples, index.shards.len()), (14, report.shards));
    for shard in &index.shards {
        let bytes = fs::read(root.join("a").join(&shard.file)).expect("a shard");
        assert_eq!(
            (bytes.len() as u64, sha256_hex(&bytes)),
            (shard.bytes, shard.sha256.clone())
        );
    }
    let sheet = fs::read(root.join("a/contact.png")).expect("a sheet");
    let limits = emu_media::image::Limits::default();
    let sheet = emu_media::image::dimensions(&sheet, &limits).expect("a picture");
    assert_eq!(sheet, (8 * 104 + 4, 2 * 104 + 4));
    let samples = read_back(&root.join("a"), "train");
    assert_eq!(
        (samples[0].images[0].width, samples[0].images[0].height),
        (21, 16)
    );
    assert!(!root.join("a/.build").exists());
}

#[test]
fn a_killed_build_continues_after_its_last_shard() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    source(&root.join("src"), 14);
    let whole = pairs::build(&options(root, "whole"), &mut |_| {}).expect("builds");

    // killed in the middle of the third shard: a panic unwinds as a kill ends
    let killed = options(root, "killed");
    let build = std::panic::AssertUnwindSafe(|| {
        let mut shards = 0;
        pairs::build(&killed, &mut |_| {
            shards += 1;
            assert!(shards < 3, "killed");
        })
    });
    assert!(std::panic::catch_unwind(build).is_err());
    fs::write(root.join("killed/train/pairs-00003.tar.part"), "half").expect("writable");
    assert!(!root.join("killed/index.json").exists());

    let mut resumed = vec![];
    let report =
        pairs::build(&killed, &mut |progress| resumed.push(progress.resumed)).expect("continues");
    assert_eq!(resumed, [true, true, true, false]);
    assert_eq!(report, whole);
    fs::remove_file(root.join("killed/train/pairs-00003.tar.part")).ok();
    assert_eq!(
        snapshot(&root.join("killed")),
        snapshot(&root.join("whole"))
    );
}

#[test]
fn changed_options_and_sources_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    source(&root.join("src"), 10);
    let begun = options(root, "out");
    let stop = std::panic::AssertUnwindSafe(|| pairs::build(&begun, &mut |_| panic!("killed")));
    assert!(std::panic::catch_unwind(stop).is_err());

    let mut other = begun.clone();
    other.out.quality = 50;
    other.captions.min_words = 2;
    let error = pairs::build(&other, &mut |_| {})
        .expect_err("refused")
        .to_string();
    assert!(error.contains("out.quality: 90 then, 50 now"), "{error}");
    assert!(
        error.contains("captions.min_words: 1 then, 2 now"),
        "{error}"
    );

    put(&root.join("src/001.txt"), "another caption");
    let error = pairs::build(&begun, &mut |_| {})
        .expect_err("refused")
        .to_string();
    assert!(error.contains("train/pairs-00000.tar"), "{error}");
    put(&root.join("src/001.txt"), "picture number 1");
    put(&root.join("src/002.jpg"), jpeg(41, 30, [0; 3]));
    let error = pairs::build(&begun, &mut |_| {})
        .expect_err("refused")
        .to_string();
    assert!(error.contains("the source is not the one"), "{error}");

    // overwriting begins anew; a finished data set is kept unless that is asked for
    let mut anew = begun.clone();
    anew.out.overwrite = true;
    assert_eq!(
        pairs::build(&anew, &mut |_| {}).expect("builds").tally.kept,
        10
    );
    let error = pairs::build(&begun, &mut |_| {}).expect_err("exists");
    assert!(matches!(error, DataError::Exists(_)), "{error}");
    anew.out.shard_samples = 100;
    pairs::build(&anew, &mut |_| {}).expect("builds");
    let shards = fs::read_dir(root.join("out/train"))
        .expect("a folder")
        .count();
    assert_eq!(shards, 1, "the shards of the earlier build are removed");
}

#[test]
fn two_builds_in_one_folder_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    source(&root.join("src"), 6);
    let options = options(root, "out");
    let inner = options.clone();
    let mut refused = 0;
    pairs::build(&options, &mut |_| {
        let error = pairs::build(&inner, &mut |_| {}).expect_err("busy");
        assert!(matches!(error, DataError::Busy(_)), "{error}");
        refused += 1;
    })
    .expect("builds");
    assert_eq!(refused, 2);
}

#[test]
fn a_limit_ends_the_build_and_bad_options_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    source(&root.join("src"), 9);
    let mut options = options(root, "out");
    options.out.limit = Some(5);
    let report = pairs::build(&options, &mut |_| {}).expect("builds");
    assert_eq!((report.tally.kept, report.shards), (5, 2));
    assert_eq!(
        ShardDataset::open(root.join("out/train"))
            .expect("shards")
            .len(),
        5
    );
    for change in [
        |out: &mut Output| out.shard_samples = 0,
        |out: &mut Output| out.held_out = 1.0,
        |out: &mut Output| out.resize = Resize::Square(0),
        |out: &mut Output| out.resize = Resize::Shorter(9000),
        |out: &mut Output| out.quality = 0,
        |out: &mut Output| out.max_aspect = Some(f64::NAN),
    ] {
        let mut wrong = options.clone();
        change(&mut wrong.out);
        let error = pairs::build(&wrong, &mut |_| {}).expect_err("refused");
        assert!(matches!(error, DataError::Options(_)), "{error}");
    }
}
