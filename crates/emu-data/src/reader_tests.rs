use super::*;
use crate::{SampleFiles, write_shard};

fn png(side: u32) -> Vec<u8> {
    Picture::new(side, side, vec![9; (side * side * 3) as usize])
        .and_then(|picture| picture.to_png())
        .expect("a small picture")
}

fn sample(key: &str, members: &[(&str, &[u8])]) -> SampleFiles {
    SampleFiles {
        key: key.into(),
        members: members
            .iter()
            .map(|(extension, bytes)| (extension.to_string(), bytes.to_vec()))
            .collect(),
    }
}

fn shard(folder: &Path, name: &str, samples: &[SampleFiles]) -> PathBuf {
    let path = folder.join(name);
    write_shard(&path, samples).expect("writable");
    path
}

#[test]
fn reads_documents_pairs_and_captions() {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (png(2), png(3));
    let document = br#"{"kind":"document","split":"train","task":"story","parts":[{"text":"x"},{"image":"0"}]}"#;
    shard(
        folder.path(),
        "a-00000.tar",
        &[
            sample("0001", &[("json", document), ("1.png", &b), ("0.png", &a)]),
            sample(
                "0002",
                &[("txt", b" a cat\n"), ("webp.meta", b"?"), ("PNG", &a)],
            ),
        ],
    );
    shard(
        folder.path(),
        "b-00000.tar",
        &[sample(
            "0002",
            &[("json", br#"{"caption":"a dog"}"#), ("png", &b)],
        )],
    );
    let all = ShardDataset::open(folder.path()).expect("two shards");
    assert_eq!((all.len(), all.is_empty()), (3, false));

    let first = all.get(0).expect("a document");
    assert_eq!(first.key, "0001");
    let sides: Vec<u32> = first.images.iter().map(|image| image.width).collect();
    assert_eq!(sides, [2, 3], "pictures are ordered by number");
    assert!(matches!(first.record().expect("typed"), Record::Document(d) if d.parts.len() == 2));

    let captions = [1, 2].map(|i| match all.record(i).expect("typed") {
        Record::Pair(pair) => pair.caption,
        other => panic!("not a pair: {other:?}"),
    });
    assert_eq!(captions, ["a cat", "a dog"]);
    assert_eq!(all.get(1).expect("a pair").images.len(), 1);

    let only_b = ShardDataset::open_kind(folder.path(), "b").expect("one shard");
    assert_eq!(only_b.len(), 1);
    assert!(
        ShardDataset::open_kind(folder.path(), "b-0").is_err(),
        "a kind is a whole name"
    );
    assert!(matches!(
        all.get(3),
        Err(DataError::OutOfRange { index: 3, len: 3 })
    ));
}

#[test]
fn refuses_truncated_shards() {
    let folder = tempfile::tempdir().expect("a folder");
    let picture = png(64);
    let path = shard(
        folder.path(),
        "s.tar",
        &[sample("k", &[("json", b"{}"), ("png", &picture)])],
    );
    let bytes = fs::read(&path).expect("written");
    fs::write(&path, &bytes[..512 * 3 + 40]).expect("writable");
    assert!(matches!(
        ShardDataset::open(&path),
        Err(DataError::Shard { .. })
    ));
    fs::write(&path, &bytes[..512 * 2 + 100]).expect("writable");
    assert!(ShardDataset::open(&path).is_err(), "cut within a header");
    let text = shard(folder.path(), "t.tar", &[sample("k", &[("txt", b"a dog")])]);
    let whole = fs::read(&text).expect("written");
    // A missing end-of-archive marker is accepted. Missing padding means that the file was cut.
    fs::write(&text, &whole[..1024]).expect("writable");
    assert_eq!(ShardDataset::open(&text).expect("whole").len(), 1);
    fs::write(&text, &whole[..700]).expect("writable");
    assert!(
        matches!(ShardDataset::open(&text), Err(DataError::Shard { .. })),
        "cut within padding"
    );
    fs::write(&path, vec![0x41; 2048]).expect("writable");
    assert!(
        matches!(ShardDataset::open(&path), Err(DataError::Shard { .. })),
        "no tar"
    );
}

#[test]
fn refuses_bad_samples_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let picture = png(4);
    type Members<'a> = &'a [(&'a str, &'a [u8])];
    let cases: [(&str, Members<'_>, bool); 6] = [
        ("no-text", &[("png", &picture)], false),
        ("bad-json", &[("json", b"{"), ("png", &picture)], true),
        ("array", &[("json", b"[1]"), ("png", &picture)], true),
        (
            "not-utf8",
            &[("txt", &[0xff, 0xfe]), ("png", &picture)],
            true,
        ),
        (
            "bad-png",
            &[("json", b"{}"), ("png", b"\x89PNG\r\n\x1a\nxx")],
            true,
        ),
        ("cut-png", &[("json", b"{}"), ("png", &picture[..30])], true),
    ];
    for (key, members, opens) in cases {
        let path = shard(folder.path(), "s.tar", &[sample(key, members)]);
        let error = match ShardDataset::open(&path) {
            Ok(dataset) if opens => dataset.get(0).expect_err("bad sample"),
            Ok(_) => panic!("{key} was accepted"),
            Err(error) => error,
        };
        assert!(error.to_string().contains(key), "{error}");
    }
}

#[test]
fn keeps_to_its_limits() {
    let folder = tempfile::tempdir().expect("a folder");
    let picture = png(16);
    let path = shard(
        folder.path(),
        "s.tar",
        &[sample(
            "k",
            &[("json", b"{}"), ("0.png", &picture), ("1.png", &picture)],
        )],
    );
    let open = |limits| ShardDataset::open_list(&[&path], limits);
    let limits = Limits::default();
    assert!(open(limits).is_ok());
    for (refused, reason) in [
        (
            Limits {
                member_bytes: 20,
                ..limits
            },
            "k.0.png has",
        ),
        (
            Limits {
                text_bytes: 1,
                ..limits
            },
            "k.json has 2 bytes",
        ),
        (
            Limits {
                pictures: 1,
                ..limits
            },
            "2 pictures",
        ),
    ] {
        let error = open(refused).expect_err("over the limit").to_string();
        assert!(error.contains(reason), "{error}");
    }
    let mut narrow = limits;
    narrow.picture.max_pixels = 10;
    let narrow = open(narrow).expect("opens");
    assert!(matches!(narrow.get(0), Err(DataError::Sample { .. })));
}

#[test]
fn large_files_that_are_not_read_do_no_harm() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = Limits {
        text_bytes: 8,
        ..Limits::default()
    };
    let members: &[(&str, &[u8])] = &[("txt", b"a dog"), ("png", &png(2)), ("npy", &[0; 100])];
    let path = shard(folder.path(), "s.tar", &[sample("k", members)]);
    let dataset = ShardDataset::open_list(&[&path], limits).expect("opens");
    assert!(dataset.get(0).is_ok());
}

#[test]
fn unusable_samples_are_left_out_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let picture = png(4);
    let good: &[(&str, &[u8])] = &[("txt", b"a dog"), ("png", &picture)];
    let path = shard(
        folder.path(),
        "s.tar",
        &[
            sample("first", good),
            sample("bare", &[("png", &picture)]),
            sample("cut", &[("txt", b"x"), ("png", &picture[..30])]),
            sample("last", good),
        ],
    );
    let dataset = ShardDataset::open(&path).expect("opens");
    assert_eq!(dataset.len(), 3);
    let bad = dataset.bad();
    assert_eq!((bad.len(), bad[0].key.as_str()), (1, "bare"));
    assert_eq!(bad[0].shard, path);
    let keys: Vec<(usize, String)> = dataset
        .samples(10)
        .map(|found| found.map(|(i, sample)| (i, sample.key)).expect("usable"))
        .collect();
    assert_eq!(keys, [(0, "first".to_string()), (2, "last".to_string())]);
    // Errors of a typed record name shard and key.
    let json: &[(&str, &[u8])] = &[("json", b"{}"), ("png", &picture)];
    let path = shard(folder.path(), "t.tar", &[sample("empty", json)]);
    let sample = ShardDataset::open(&path).and_then(|set| set.get(0));
    let error = sample.expect("an object").record().expect_err("no record");
    let text = error.to_string();
    assert!(
        text.contains("t.tar") && text.contains("\"empty\""),
        "{text}"
    );
}

#[test]
fn refuses_folders_without_shards() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(matches!(
        ShardDataset::open(folder.path()),
        Err(DataError::NoShards(_))
    ));
    assert!(matches!(
        ShardDataset::open(folder.path().join("none")),
        Err(DataError::Io { .. })
    ));
    let none: [&Path; 0] = [];
    assert!(ShardDataset::open_list(&none, Limits::default()).is_err());
    let empty = shard(folder.path(), "empty.tar", &[]);
    assert!(matches!(
        ShardDataset::open(empty),
        Err(DataError::NoShards(_))
    ));
}
