use std::io::Write;

use super::*;
use crate::build::{Choice, Output};
use crate::testing::{fixture, jpeg, lines, put, read_back, reasons, tar_of};

const TEXTS: [&str; 3] = [
    "a red picture with a white square",
    "a green picture, with \"quotes\"",
    "ein blaues Bild, größer",
];

fn options(source: impl Into<PathBuf>, folder: &Path) -> Options {
    Options::new(source, folder.join("out"))
}

fn built(options: &Options) -> Report {
    build(options, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

fn captions(options: &Options) -> Vec<String> {
    lines(&options.out.folder)
        .into_iter()
        .map(|mut lines| lines.swap_remove(0))
        .collect()
}

#[test]
fn tables_of_every_form() {
    for (name, expected) in [
        ("captions.csv", TEXTS),
        ("captions.tsv", TEXTS),
        ("captions.jsonl", TEXTS),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let options = options(fixture("pairs_table").join(name), folder.path());
        let report = built(&options);
        assert_eq!((report.tally.kept, report.tally.pictures), (3, 3), "{name}");
        assert_eq!(captions(&options), expected, "{name}");
        let first = &read_back(&options.out.folder, "train")[0];
        assert_eq!((first.images[0].width, first.images[0].height), (32, 24));
        assert_eq!(
            first.json["source"],
            format!(
                "{name} line {}",
                if name.ends_with("jsonl") { 1 } else { 2 }
            )
        );
    }
}

#[test]
fn lavis_lists_and_the_choice_of_captions() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = options(fixture("pairs_table/lavis_style.json"), folder.path());
    options.captions.choice = Choice::Every;
    assert_eq!(built(&options).tally.kept, 6);
    let all = captions(&options);
    assert_eq!(all[..2], [TEXTS[0], "a second caption"]);

    let mut sets = vec![];
    for seed in 0..8 {
        options.captions.choice = Choice::One;
        options.out.seed = seed;
        options.out.overwrite = true;
        assert_eq!(built(&options).tally.kept, 3);
        sets.push(captions(&options));
    }
    sets.sort();
    sets.dedup();
    assert!(sets.len() > 1, "the seed chooses");
}

#[test]
fn coco_and_karpathy() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut coco = options(
        fixture("coco/annotations/captions_val2014.json"),
        folder.path(),
    );
    coco.captions.choice = Choice::Every;
    assert_eq!(built(&coco).tally.kept, 4);
    assert_eq!(captions(&coco)[..2], [TEXTS[0], "a picture with a square"]);

    let folder = tempfile::tempdir().expect("a folder");
    let mut karpathy = options(fixture("coco/dataset_coco_karpathy.json"), folder.path());
    karpathy.split = Some("test".into());
    assert_eq!(built(&karpathy).tally.kept, 1);
    assert_eq!(captions(&karpathy), [TEXTS[0]]);
    karpathy.split = Some("train".into());
    karpathy.out.folder = folder.path().join("none");
    let error = build(&karpathy, &mut |_| {}).expect_err("nothing");
    assert!(error.to_string().contains("no sample"), "{error}");
}

#[test]
fn img2dataset_in_its_three_formats() {
    let mut found = vec![];
    for name in ["webdataset", "files", "parquet"] {
        let folder = tempfile::tempdir().expect("a folder");
        let options = options(fixture(&format!("img2dataset_{name}")), folder.path());
        let report = built(&options);
        let mut texts = captions(&options);
        texts.sort();
        found.push(texts);
        let skipped = reasons(&report);
        assert!(
            skipped
                .iter()
                .any(|(reason, _)| *reason == "caption is empty" || *reason == "no caption"),
            "{name}: {skipped:?}"
        );
        if name == "parquet" {
            let missing = skipped.iter().find(|(reason, _)| *reason == "no picture");
            assert!(missing.is_some(), "{skipped:?}");
            let example = &report.tally.skipped["no picture"].examples[0];
            assert!(example.contains("failed_to"), "{example}");
        }
    }
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0], found[2]);
    assert!(found[0].len() >= 4, "{:?}", found[0]);
}

#[test]
fn huggings_face_folders_and_parquet() {
    for (name, expected) in [
        ("imagefolder", &TEXTS[..2]),
        ("hf_parquet/data", &TEXTS[..]),
        ("hf_parquet/plain_binary.parquet", &TEXTS[..]),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let options = options(fixture(name), folder.path());
        built(&options);
        assert_eq!(captions(&options), expected, "{name}");
    }
    // paths only: the pictures are named, and lie elsewhere
    let folder = tempfile::tempdir().expect("a folder");
    let mut paths = options(fixture("hf_parquet/path_only.parquet"), folder.path());
    paths.images = Some(fixture("pairs_table"));
    built(&paths);
    assert_eq!(captions(&paths), TEXTS);

    let folder = tempfile::tempdir().expect("a folder");
    let mut classes = options(fixture("imagefolder_classes"), folder.path());
    classes.class_caption = "a photo of a {}".into();
    built(&classes);
    assert_eq!(captions(&classes), ["a photo of a cat", "a photo of a dog"]);
}

#[test]
fn lists_without_a_header_packed_lists_and_urls() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    put(&root.join("images/a.jpg"), jpeg(8, 8, [9; 3]));
    put(
        &root.join("cc3m.tsv"),
        "a caption\timages/a.jpg\n\"in \"\"quotes\"\"\"\timages/a.jpg\n",
    );
    let mut plain = options(root.join("cc3m.tsv"), root);
    let error = build(&plain, &mut |_| {})
        .expect_err("no header")
        .to_string();
    assert!(
        error.contains("no known column") && error.contains("--image-field 2"),
        "{error}"
    );
    plain.out.folder = root.join("numbered");
    plain.image_field = Some("2".into());
    plain.captions.field = Some("1".into());
    built(&plain);
    assert_eq!(captions(&plain), ["a caption", "in \"quotes\""]);

    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    packed
        .write_all("\u{feff}image;text\r\nimages\\a.jpg;\"of\r\ntwo lines\"\r\n".as_bytes())
        .expect("in memory");
    let packed = packed.finish().expect("in memory");
    put(&root.join("list.csv.gz"), &packed);
    let windows = Options {
        out: Output::new(root.join("windows"), 10),
        ..options(root.join("list.csv.gz"), root)
    };
    built(&windows);
    assert_eq!(captions(&windows), ["of two lines"]);

    // cut short: the rows before are used
    put(&root.join("cut.csv.gz"), &packed[..packed.len() - 9]);
    let cut = Options {
        out: Output::new(root.join("cut"), 10),
        ..options(root.join("cut.csv.gz"), root)
    };
    match build(&cut, &mut |_| {}) {
        Ok(report) => assert!(
            report
                .tally
                .skipped
                .contains_key("file is damaged or cut short")
        ),
        Err(error) => assert!(error.to_string().contains("cut short"), "{error}"),
    }

    let urls = "url,caption\nhttp://example.org/none.jpg,a\n";
    put(&root.join("urls.csv"), urls);
    let urls = Options {
        out: Output::new(root.join("urls"), 10),
        ..options(root.join("urls.csv"), root)
    };
    let error = build(&urls, &mut |_| {})
        .expect_err("not downloaded")
        .to_string();
    assert!(error.contains("img2dataset"), "{error}");
}

#[test]
fn filters_and_the_chosen_field() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let picture = jpeg(40, 10, [1, 2, 3]);
    let json = |text: &str| text.as_bytes().to_vec();
    let samples = [
        (
            "0",
            json(
                r#"{"caption": "alt", "top_caption": "a made one", "similarity": 0.35, "punsafe": 0.0, "LANGUAGE": "en"}"#,
            ),
        ),
        (
            "1",
            json(
                r#"{"caption": "alt", "top_caption": "another", "similarity": 0.2, "punsafe": 0.0, "LANGUAGE": "en"}"#,
            ),
        ),
        (
            "2",
            json(
                r#"{"caption": "alt", "top_caption": "unsafe one", "similarity": 0.4, "punsafe": 0.9, "LANGUAGE": "en"}"#,
            ),
        ),
        (
            "3",
            json(
                r#"{"caption": "alt", "top_caption": "ein drittes", "similarity": 0.4, "punsafe": 0.0, "LANGUAGE": "de"}"#,
            ),
        ),
        (
            "4",
            json(r#"{"caption": "alt", "similarity": 0.4, "punsafe": 0.0, "LANGUAGE": "en"}"#),
        ),
        (
            "5",
            json(
                r#"{"caption": "alt", "top_caption": null, "similarity": 0.4, "punsafe": 0.0, "LANGUAGE": "en"}"#,
            ),
        ),
    ];
    let names: Vec<[String; 2]> = samples
        .iter()
        .map(|(key, _)| [format!("{key}.jpg"), format!("{key}.json")])
        .collect();
    let members: Vec<(&str, &[u8])> = samples
        .iter()
        .zip(&names)
        .flat_map(|((_, json), [a, b])| {
            [
                (a.as_str(), picture.as_slice()),
                (b.as_str(), json.as_slice()),
            ]
        })
        .collect();
    put(&root.join("laion/0.tar"), tar_of(&members));
    let mut laion = options(root.join("laion"), root);
    laion.captions.field = Some("top_caption".into());
    laion.filters.at_least.insert("similarity".into(), 0.3);
    laion.filters.at_most.insert("punsafe".into(), 0.5);
    laion.filters.equal.insert("LANGUAGE".into(), "en".into());
    let report = built(&laion);
    assert_eq!(captions(&laion), ["a made one"]);
    let expected = [
        ("field \"LANGUAGE\" is not \"en\"", 1),
        ("field \"punsafe\" is above 0.5", 1),
        ("field \"similarity\" is below 0.3", 1),
        ("no caption", 1),
        ("no field \"top_caption\"", 1),
    ];
    assert_eq!(reasons(&report), expected);

    let long = Options {
        out: Output {
            max_aspect: Some(3.0),
            ..Output::new(root.join("long"), 10)
        },
        ..options(root.join("laion"), root)
    };
    let error = build(&long, &mut |_| {})
        .expect_err("all too long")
        .to_string();
    assert!(error.contains("picture is too long or too tall"), "{error}");
}

/// The cases of odd archives: each sample is used or told by name.
#[test]
fn odd_archives_survive() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let picture = jpeg(8, 8, [200, 0, 0]);
    let half = &picture[..picture.len() / 2];
    let whole = tar_of(&[
        ("./a/", b""),
        ("./a/upper.JPEG", &picture),
        ("./a/upper.TXT", b"upper case"),
        ("b\\windows.jpg", &picture),
        ("apart.jpg", &picture),
        ("b\\windows.txt", b"a windows path"),
        ("apart.txt", b"apart"),
        ("special.jpg", &picture),
        ("special.txt", b"<image> and [IMG] and </s>"),
        ("empty.jpg", &picture),
        ("empty.txt", b""),
        ("half.jpg", half),
        ("half.txt", b"half a picture"),
        ("none.txt", b"no picture"),
        ("nil.jpg", b""),
        ("nil.txt", b"an empty picture"),
        ("latin.jpg", &picture),
        ("latin.txt", b"gr\xf6\xdfer"),
        ("broken.jpg", &picture),
        ("broken.json", b"{"),
        ("._special.jpg", b"macOS"),
        ("last.jpg", &picture),
    ]);
    put(&root.join("src/0.tar"), &whole);
    put(
        &root.join("src/1.tar"),
        tar_of(&[("last.txt", b"split over two archives")]),
    );
    // cut within the picture of the second sample
    let cut = tar_of(&[
        ("x.jpg", &picture),
        ("x.txt", b"before the cut"),
        ("y.jpg", &[9; 2000]),
    ]);
    put(&root.join("src/2.tar"), &cut[..cut.len() - 1024 - 1000]);
    put(&root.join("src/3.tar"), b"no archive at all, but a text that is somewhat longer than a block of the format, which has five hundred and twelve bytes".repeat(9));
    put(&root.join("src/4.tar"), b"");

    let options = options(root.join("src"), root);
    let report = built(&options);
    let mut texts = captions(&options);
    texts.sort();
    assert_eq!(
        texts,
        [
            "<image> and [IMG] and </s>",
            "a windows path",
            "apart",
            "before the cut",
            "upper case"
        ]
    );
    let skipped = &report.tally.skipped;
    let named = |reason: &str, name: &str| {
        let count = skipped
            .get(reason)
            .unwrap_or_else(|| panic!("{reason}: {skipped:#?}"));
        assert!(
            count.examples.iter().any(|example| example.contains(name)),
            "{count:?}"
        );
    };
    named("caption is empty", "0.tar/empty");
    let damaged = skipped.keys().find(|reason| {
        let half = skipped[*reason]
            .examples
            .iter()
            .any(|example| example.contains("0.tar/half"));
        half && reason.starts_with("unusable picture")
    });
    assert!(damaged.is_some(), "{skipped:#?}");
    named("no picture", "0.tar/none");
    named("no picture", "1.tar/last");
    named("no caption", "0.tar/last");
    named("unusable picture (image-empty)", "0.tar/nil");
    named("caption is not UTF-8", "0.tar/latin");
    named("JSON beside the picture is damaged", "0.tar/broken");
    named("archive is damaged or cut short", "2.tar");
    named("archive is damaged or cut short", "3.tar");
}

#[test]
fn odd_lists_survive() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    put(&root.join("a.jpg"), jpeg(8, 8, [0; 3]));
    let list = "{\"image\": \"a.jpg\", \"caption\": \"one\"}\n\n{\"image\": \"a.jpg\", \"caption\": null}\nnot json\n{\"image\": \"gone.jpg\", \"caption\": \"two\"}\n{\"image\": null, \"caption\": \"three\"}\n{\"caption\": \"four\"}\n[1]\n{\"image\": \"a.jpg\"}\n{\"image\": \"a.jpg\", \"caption\": \"last\"}";
    put(&root.join("list.jsonl"), list);
    let lines = options(root.join("list.jsonl"), root);
    let report = built(&lines);
    assert_eq!(captions(&lines), ["one", "last"]);
    let expected = [
        ("line is no JSON", 1),
        ("no caption", 1),
        ("no caption field", 2),
        ("no picture", 1),
        ("no picture field", 1),
        ("picture file not found", 1),
    ];
    assert_eq!(reasons(&report), expected);

    // a list that is cut short: what is before the cut is used
    put(
        &root.join("cut.json"),
        "[{\"image\": \"a.jpg\", \"caption\": \"one\"}, {\"image\": \"a.j",
    );
    let cut = Options {
        out: Output::new(root.join("cut"), 10),
        ..options(root.join("cut.json"), root)
    };
    let report = built(&cut);
    assert_eq!(report.tally.kept, 1);
    assert_eq!(reasons(&report), [("JSON is damaged or cut short", 1)]);

    put(
        &root.join("wide.csv"),
        "image,caption\na.jpg,one\na.jpg,two, with a comma\na.jpg\na.jpg,gr\u{f6}\n".as_bytes(),
    );
    let wide = Options {
        out: Output::new(root.join("wide"), 10),
        ..options(root.join("wide.csv"), root)
    };
    let report = built(&wide);
    assert_eq!(captions(&wide), ["one", "grö"]);
    assert_eq!(
        reasons(&report),
        [
            ("line has more columns than the header", 1),
            ("no caption field", 1)
        ]
    );
    put(&root.join("utf16.csv"), b"\xff\xfei\0m\0");
    let utf16 = Options {
        out: Output::new(root.join("utf16"), 10),
        ..options(root.join("utf16.csv"), root)
    };
    let error = build(&utf16, &mut |_| {}).expect_err("UTF-16").to_string();
    assert!(error.contains("UTF-16"), "{error}");
}

#[test]
fn damaged_parquet_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let bytes =
        std::fs::read(fixture("hf_parquet/data/train-00000-of-00001.parquet")).expect("readable");
    for (i, damaged) in [&bytes[..bytes.len() - 20], &bytes[..100], b""]
        .into_iter()
        .enumerate()
    {
        put(&root.join("bad.parquet"), damaged);
        let bad = Options {
            out: Output::new(root.join(i.to_string()), 10),
            ..options(root.join("bad.parquet"), root)
        };
        let error = build(&bad, &mut |_| {}).expect_err("damaged").to_string();
        assert!(
            error.contains("bad.parquet") && error.contains("malformed"),
            "{error}"
        );
    }
    // bytes within the pages changed: no panic, whatever comes out
    for at in (4..bytes.len()).step_by(97) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x55;
        put(&root.join("bad.parquet"), &changed);
        let bad = Options {
            out: Output {
                overwrite: true,
                ..Output::new(root.join("changed"), 10)
            },
            ..options(root.join("bad.parquet"), root)
        };
        let _ = build(&bad, &mut |_| {});
    }
}

#[test]
fn sources_of_no_layout_say_what_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    put(&root.join("bare/a.jpg"), jpeg(8, 8, [0; 3]));
    put(&root.join("list/list.csv"), "image,caption\n");
    put(&root.join("list/images/a.jpg"), jpeg(8, 8, [0; 3]));
    put(&root.join("empty/readme.md"), "nothing");
    put(&root.join("odd.xyz"), "nothing");
    for (name, words) in [
        ("bare", "a.txt is missing"),
        ("list", "--images"),
        ("empty", "Name another folder"),
        ("odd.xyz", "none of tar"),
        ("gone", "Check that the path exists"),
    ] {
        let error = build(&options(root.join(name), root), &mut |_| {})
            .expect_err(name)
            .to_string();
        assert!(error.contains(words), "{name}: {error}");
    }
}

#[test]
fn pictures_of_other_formats_are_told_one_by_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";
    put(&root.join("photos/1.jpg"), jpeg(8, 8, [0; 3]));
    put(&root.join("photos/1.txt"), "a dog");
    put(&root.join("photos/2.HEIC"), heic);
    put(&root.join("photos/2.txt"), "a cat");
    put(&root.join("photos/3.avif"), heic);
    let report = built(&options(root.join("photos"), root));
    assert_eq!(report.tally.kept, 1);
    let unread = report.tally.skipped.iter().find(|(_, count)| {
        let example = &count.examples[0];
        example.starts_with("2.HEIC: ") && example.contains("HEIC picture")
    });
    let (reason, count) = unread.expect("the picture is named");
    assert!(reason.starts_with("unusable picture"), "{reason}");
    assert_eq!(count.count, 1);
    assert_eq!(report.tally.skipped["no caption"].examples, ["3.avif"]);
    // a folder of nothing else is no folder without pictures
    put(&root.join("phone/2.heic"), heic);
    put(&root.join("phone/2.txt"), "a cat");
    let error = build(
        &options(root.join("phone"), &root.join("other")),
        &mut |_| {},
    )
    .expect_err("nothing is usable")
    .to_string();
    assert!(error.contains("HEIC"), "{error}");
}
