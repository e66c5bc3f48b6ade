use super::*;
use crate::testing::{fixture, jpeg, lines, put, read_back, reasons, tar_of};

fn options(source: impl Into<PathBuf>, folder: &Path) -> Options {
    Options::new(source, folder.join("out"))
}

fn built(options: &Options) -> Report {
    build(options, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

/// Texts of the fixture's five frames, 10 s apart.
const EXPECTED: [&str; 8] = [
    "<picture 0>",
    "hello and welcome today we paint",
    "<picture 1>",
    "a green wall",
    "<picture 2>",
    "<picture 3>",
    "and a blue one",
    "<picture 4>",
];

#[test]
fn sheets_and_the_forks_own_archive_agree() {
    let folder = tempfile::tempdir().expect("a folder");
    let sheets = options(fixture("storyboard"), folder.path());
    let report = built(&sheets);
    assert_eq!((report.tally.kept, report.tally.pictures), (1, 5));
    assert_eq!(lines(&sheets.out.folder), [EXPECTED]);

    let mut tars = options(fixture("storyboard/wds"), folder.path());
    tars.out.folder = folder.path().join("tars");
    built(&tars);
    assert_eq!(lines(&tars.out.folder), [EXPECTED]);
    let (a, b) = (
        read_back(&sheets.out.folder, "train"),
        read_back(&tars.out.folder, "train"),
    );
    for (a, b) in a[0].images.iter().zip(&b[0].images) {
        assert_eq!((a.width, a.height), (32, 24));
        let difference = a.rgb.iter().zip(&b.rgb).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(difference.expect("pixels") < 3, "the same frame");
    }
}

#[test]
fn long_videos_become_several_documents() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut short = options(fixture("storyboard"), folder.path());
    short.frames = 2;
    let report = built(&short);
    assert_eq!((report.tally.kept, report.tally.pictures), (3, 5));
    let documents = lines(&short.out.folder);
    assert_eq!(documents[1], ["a green wall", "<picture 0>", "<picture 1>"]);
    assert_eq!(documents[2], ["and a blue one", "<picture 0>"]);
    let samples = read_back(&short.out.folder, "train");
    assert_eq!(samples[2].json["source"], "00000/000000000.json #2");
    assert_eq!(samples[2].key, "000000000-0002");

    short.every = 2;
    short.out.overwrite = true;
    built(&short);
    assert_eq!(
        lines(&short.out.folder)[0],
        [
            "<picture 0>",
            "hello and welcome today we paint a green wall",
            "<picture 1>"
        ]
    );

    short.every = 1;
    short.min_words = 4;
    let report = built(&short);
    assert_eq!(report.tally.kept, 2);
    assert_eq!(
        report.tally.dropped["part of a video with too few words"].count,
        1
    );
}

#[test]
fn frames_and_videos_with_subtitles() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let mut frames = options(fixture("frames_dir"), root);
    frames.subtitles = Some(fixture("storyboard/subtitle"));
    built(&frames);
    // frames at 0, 10 and 20 s; what comes after stays at the end
    let mut expected = EXPECTED[..5].to_vec();
    expected.push("and a blue one");
    assert_eq!(lines(&frames.out.folder), [expected]);

    // a video of 2 s with frames every 0.5 s
    let mp4 = std::fs::read(fixture("webvid/videos/000001_000050/1001.mp4")).expect("a video");
    put(&root.join("own/v.mp4"), &mp4);
    let srt = "1\n00:00:00,000 --> 00:00:00,400\nred\n\n2\n00:00:00,800 --> 00:00:01,000\nthen green\n\n3\n00:00:09,000 --> 00:00:09,500\nlate\n";
    put(&root.join("own/v.srt"), srt);
    put(&root.join("own/silent.mp4"), &mp4);
    put(&root.join("own/untimed/0.jpg"), jpeg(8, 8, [0; 3]));
    put(
        &root.join("own/untimed.vtt"),
        "WEBVTT\n\n00:00.000 --> 00:01.000\nx\n",
    );
    put(&root.join("own/cut.mp4"), &mp4[..500]);
    put(&root.join("own/cut.srt"), srt);
    put(&root.join("own/odd.mp4"), &mp4);
    put(&root.join("own/odd.srt"), "no subtitles at all");
    let mut own = options(root.join("own"), root);
    own.out.folder = root.join("own-out");
    own.interval = Some(0.5);
    let report = built(&own);
    let documents = lines(&own.out.folder);
    // 20 frames of 0.1 s, of which four are taken: at 0.2, 0.7, 1.2 and 1.6 s
    let expected = [
        "red",
        "<picture 0>",
        "<picture 1>",
        "then green",
        "<picture 2>",
        "<picture 3>",
        "late",
    ];
    assert_eq!(documents[1], expected);
    // with an interval the frames of the folder have times too
    assert_eq!(documents[0], ["<picture 0>", "x"]);
    let expected = [
        ("no subtitles", 1),
        ("subtitles are empty or of no known form", 1),
        ("unusable video (video-truncated)", 1),
    ];
    assert_eq!(reasons(&report), expected);
    assert!(report.tally.skipped["no subtitles"].examples[0].starts_with("silent.mp4"));

    own.interval = None;
    own.out.folder = root.join("without");
    let report = built(&own);
    assert_eq!(
        report.tally.skipped["times of the frames are not known"].count,
        1
    );
}

#[test]
fn languages_and_odd_sheets() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let sheet = jpeg(30, 20, [0; 3]);
    let json = |board: &str| {
        format!(
            r#"{{"url": "https://youtu.be/id-_0?t=3", "yt_meta_dict": {{"info": {{"duration": 40}}, "sb": {board}}}}}"#
        )
    };
    put(
        &root.join("s/subtitle/id-_0.de.vtt"),
        "WEBVTT\n\n00:01.000 --> 00:02.000\ndeutsch\n",
    );
    put(
        &root.join("s/subtitle/id-_0.en.vtt"),
        "WEBVTT\n\n00:01.000 --> 00:02.000\nenglish\n",
    );
    for (name, board) in [
        ("good", r#"{"0": [30, 20, 3, 2, 4, "jpg"]}"#),
        ("uneven", r#"{"0": [30, 20, 7, 2, 4, "jpg"]}"#),
        ("zero", r#"{"0": [30, 20, 0, 2, 4, "jpg"]}"#),
        ("few", r#"{"1": [30, 20, 3, 2, 4, "jpg"]}"#),
        ("nothing", r#"{"0": [30, 20, 3, 2, 0, "jpg"]}"#),
    ] {
        put(&root.join(format!("s/{name}.json")), json(board));
        put(&root.join(format!("s/{name}_0.jpg")), &sheet);
    }
    put(
        &root.join("s/timeless.json"),
        r#"{"url": "https://youtu.be/id-_0", "yt_meta_dict": {"sb": {"0": [30, 20, 3, 2, 4, "jpg"]}}}"#,
    );
    put(&root.join("s/timeless_0.jpg"), &sheet);
    put(
        &root.join("s/boardless.json"),
        r#"{"url": "https://youtu.be/id-_0", "yt_meta_dict": null}"#,
    );
    put(&root.join("s/boardless_0.jpg"), &sheet);
    put(&root.join("s/broken.json"), "{");
    put(&root.join("s/broken_0.jpg"), &sheet);
    put(
        &root.join("s/silent.json"),
        r#"{"url": "https://www.youtube.com/watch?v=other"}"#,
    );
    put(&root.join("s/silent_0.jpg"), &sheet);
    let mut options = options(root.join("s"), root);
    options.language = Some("en".into());
    let report = built(&options);
    assert_eq!(
        lines(&options.out.folder)[0][..2],
        ["<picture 0>", "english"]
    );
    assert_eq!(read_back(&options.out.folder, "train")[0].images.len(), 4);
    assert_eq!(
        reasons(&report),
        [
            ("JSON beside the picture is damaged", 1),
            ("no duration of the video", 1),
            ("no sizes of a sheet", 1),
            ("no subtitles", 1),
            ("no yt_meta_dict.sb", 1),
            ("sheet cannot be divided into its frames", 2),
            ("video has no frames", 1),
        ]
    );
    options.language = None;
    options.out.overwrite = true;
    built(&options);
    assert_eq!(lines(&options.out.folder)[0][1], "deutsch");
}

#[test]
fn odd_archives() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let picture = jpeg(8, 8, [0; 3]);
    let tar = tar_of(&[
        ("a-b_c.0.txt", b""),
        ("a-b_c.0.png", &picture),
        ("a-b_c.10.jpg", &picture),
        ("a-b_c.10.txt", b"the eleventh"),
        ("a-b_c.2.jpg", &picture),
        ("a-b_c.2.txt", b"the third"),
        ("a-b_c.11.txt", b"the end"),
        ("none.0.txt", b"no picture"),
        ("mute.0.png", &picture),
    ]);
    put(&root.join("t/0.tar"), tar);
    put(&root.join("t/1.tar"), b"x");
    let options = options(root.join("t"), root);
    let report = built(&options);
    assert_eq!(
        lines(&options.out.folder),
        [[
            "<picture 0>",
            "the third",
            "<picture 1>",
            "the eleventh",
            "<picture 2>",
            "the end"
        ]]
    );
    let skipped = reasons(&report);
    assert!(
        skipped.contains(&("no numbered pictures (ID.0.png, ID.1.png, ...)", 1)),
        "{skipped:?}"
    );
    assert!(
        skipped.contains(&("video has too few words", 1)),
        "{skipped:?}"
    );
    let error = build(
        &Options::new(root.join("gone"), root.join("x")),
        &mut |_| {},
    )
    .expect_err("no source");
    assert!(error.to_string().contains("gone"), "{error}");
}
