use super::*;
use crate::testing::{fixture, jpeg, lines, put, read_back, reasons, tar_of};

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

const MP4: &str = "webvid/videos/000001_000050/1001.mp4";

#[test]
fn webvid_and_its_frames() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = options(fixture("webvid"), folder.path());
    let report = built(&options);
    assert_eq!((report.tally.kept, report.tally.pictures), (2, 32));
    let expected = [
        "White square moves over a red, green and blue ground",
        "Abstract background",
    ];
    assert_eq!(captions(&options), expected);
    let sample = &read_back(&options.out.folder, "train")[0];
    let Record::Video(video) = sample.record().expect("a record") else {
        panic!("a video")
    };
    // 20 frames: step 19 / 16, from floor(19 / 32)
    assert_eq!(
        video.offsets,
        [0, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 17, 18]
    );
    assert_eq!(video.total, 20);
    let colour = |frame: usize| {
        let picture = &sample.images[frame];
        let at = (picture.height as usize / 2 * picture.width as usize + 50) * 3;
        let rgb = &picture.rgb[at..at + 3];
        (0..3)
            .max_by_key(|channel| rgb[*channel])
            .expect("a channel")
    };
    assert_eq!(
        [colour(0), colour(8), colour(15)],
        [0, 1, 2],
        "red, green, blue in time"
    );

    options.clean = false;
    options.frames = 4;
    options.out.folder = folder.path().join("raw");
    assert_eq!(built(&options).tally.pictures, 8);
    assert!(captions(&options)[0].ends_with("4k footage"));
}

#[test]
fn video2dataset_tables_and_folders() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let tars = options(fixture("video2dataset"), root);
    built(&tars);
    assert_eq!(captions(&tars), ["White square moves"]);

    let mp4 = std::fs::read(fixture(MP4)).expect("a video");
    put(&root.join("own/a.mp4"), &mp4);
    put(&root.join("own/a.txt"), "a video with <image> in its text");
    for i in 0..5_u8 {
        put(
            &root.join(format!("own/b/{i}.jpg")),
            jpeg(8, 8, [40 * i; 3]),
        );
    }
    put(&root.join("own/b.txt"), "a folder of five frames");
    put(&root.join("own/c.webm"), b"\x1a\x45\xdf\xa3 matroska");
    put(&root.join("own/c.txt"), "a format that is not read");
    put(&root.join("own/d.mp4"), &mp4[..mp4.len() / 2]);
    put(&root.join("own/d.txt"), "cut short");
    put(&root.join("own/e.mp4"), &mp4);
    let own = Options {
        out: Output::new(root.join("own-out"), 10),
        ..options(root.join("own"), root)
    };
    let report = built(&own);
    assert_eq!(
        captions(&own),
        [
            "a video with <image> in its text",
            "a folder of five frames"
        ]
    );
    let samples = read_back(&root.join("own-out"), "train");
    assert_eq!(
        samples[1].json["offsets"],
        serde_json::json!([0, 1, 2, 3, 4])
    );
    let skipped = reasons(&report);
    assert_eq!(
        skipped,
        [
            ("no caption", 1),
            ("unusable video (video-format)", 1),
            ("unusable video (video-truncated)", 1),
        ]
    );
    assert!(report.tally.skipped["unusable video (video-format)"].examples[0].contains("Matroska"));

    put(
        &root.join("list.jsonl"),
        "{\"video\": \"own/a.mp4\", \"caption\": \"x\"}\n{\"video\": \"own/b\", \"caption\": \"y\"}\n{\"video\": \"gone.mp4\", \"caption\": \"z\"}\n",
    );
    let list = Options {
        out: Output::new(root.join("list-out"), 10),
        ..options(root.join("list.jsonl"), root)
    };
    assert_eq!(reasons(&built(&list)), [("video file not found", 1)]);
    assert_eq!(captions(&list), ["x", "y"]);
}

#[test]
fn few_frames_and_odd_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    for i in 0..20_u8 {
        put(
            &root.join(format!("frames/v/{i:02}.jpg")),
            jpeg(8, 8, [i; 3]),
        );
    }
    put(&root.join("frames/v.txt"), "twenty frames");
    let mut frames = options(root.join("frames"), root);
    frames.frames = 3;
    built(&frames);
    let sample = &read_back(&root.join("out"), "train")[0];
    assert_eq!(sample.json["offsets"], serde_json::json!([3, 9, 16]));

    let rows = "videoid,name,page_idx,page_dir,duration,contentUrl\n1001,\"Gone\",1,nan,PT,https://x\n,\"No id\",1,,PT,https://x\n1001,,1,000001_000050,PT,https://x\n1001,4k,1,000001_000050,PT,https://x\n";
    put(&root.join("web/results.csv"), rows);
    let mut web = options(root.join("web"), root);
    web.out.folder = root.join("web-out");
    web.videos = Some(fixture("webvid/videos"));
    let error = build(&web, &mut |_| {}).expect_err("none").to_string();
    assert!(
        error.contains("caption is empty") && error.contains("video file not found"),
        "{error}"
    );

    put(&root.join("empty/0.tar"), tar_of(&[("a.txt", b"x")]));
    let mut none = options(root.join("empty"), root);
    none.out.folder = root.join("none");
    let error = build(&none, &mut |_| {}).expect_err("none").to_string();
    assert!(error.contains("no video"), "{error}");
    none.frames = 0;
    let error = build(&none, &mut |_| {}).expect_err("no frames");
    assert!(matches!(error, DataError::Options(_)));
}
