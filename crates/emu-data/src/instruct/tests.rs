use super::*;
use crate::testing::{fixture, jpeg, lines, put, read_back, reasons};

fn options(source: impl Into<PathBuf>, folder: &Path) -> Options {
    Options::new(source, folder.join("out"))
}

fn built(options: &Options) -> Report {
    build(options, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn llava_and_its_order_of_pictures() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut llava = options(fixture("llava/llava_instruct.json"), folder.path());
    let report = built(&llava);
    assert_eq!((report.tally.kept, report.tally.pictures), (3, 2));
    let mut expected = [
        vec![
            "user: <picture 0> What colour is the ground?",
            "assistant: It is red.",
            "user: And the square?",
            "assistant: White.",
        ],
        vec![
            "user: Describe the picture. <picture 0>",
            "assistant: A white square on a green ground.",
        ],
        vec!["user: Say hello.", "assistant: Hello!"],
    ];
    assert_eq!(lines(&llava.out.folder), expected);
    let sample = &read_back(&llava.out.folder, "train")[0];
    let record = sample.record().expect("a record");
    assert_eq!(sample.pictures(&record).expect("pictures").len(), 1);

    llava.place = Place::First;
    llava.out.overwrite = true;
    built(&llava);
    expected[1][0] = "user: <picture 0> Describe the picture.";
    assert_eq!(lines(&llava.out.folder), expected);
}

#[test]
fn the_other_forms() {
    for (name, expected) in [
        (
            "alpaca.json",
            vec![
                vec!["user: Add the numbers.\n2 and 3", "assistant: 5"],
                vec!["user: Name a colour.", "assistant: Red"],
            ],
        ),
        ("sharegpt.json", vec![vec!["user: Hi", "assistant: Hello."]]),
        (
            "messages.jsonl",
            vec![vec!["user: <picture 0> What colour?", "assistant: Red."]],
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let options = options(fixture("llava").join(name), folder.path());
        built(&options);
        assert_eq!(lines(&options.out.folder), expected, "{name}");
    }
    // ShareGPT4V names pictures through several data sets
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let mut sharegpt4v = options(fixture("llava/sharegpt4v.json"), root);
    let error = build(&sharegpt4v, &mut |_| {})
        .expect_err("no picture")
        .to_string();
    assert!(
        error.contains("picture file not found") && error.contains("coco/train2017"),
        "{error}"
    );
    put(
        &root.join("all/coco/train2017/000000000007.jpg"),
        jpeg(8, 8, [255, 0, 0]),
    );
    sharegpt4v.images = Some(root.join("all"));
    built(&sharegpt4v);
    assert_eq!(
        lines(&sharegpt4v.out.folder)[0][0],
        "user: What do you see happening in this image? <picture 0>"
    );
}

#[test]
fn videos_become_frames() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let mp4 = std::fs::read(fixture("webvid/videos/000001_000050/1001.mp4")).expect("a video");
    put(&root.join("v/v_1001.mp4"), mp4);
    let mut chat = options(fixture("llava/video_chatgpt.json"), root);
    chat.videos = Some(root.join("v"));
    chat.frames = 2;
    built(&chat);
    let expected = [
        "user: <picture 0> <picture 1> What moves?",
        "assistant: A white square.",
    ];
    assert_eq!(lines(&chat.out.folder), [expected]);
    assert_eq!(read_back(&chat.out.folder, "train")[0].json["video"], true);

    put(
        &root.join("list.json"),
        r#"[{"video": "v/v_1001.mp4", "QA": [{"q": "What?", "a": "A square."}, {"q": "Where?", "a": "Left."}]},
        {"video": "v/v_1001.mp4", "conversations": [{"from": "human", "value": "What moves?\n<video>"}, {"from": "gpt", "value": "It."}]},
        {"video": "gone", "q": "x", "a": "y"}]"#,
    );
    let mut list = options(root.join("list.json"), root);
    list.frames = 1;
    list.out.folder = root.join("list-out");
    let report = built(&list);
    assert_eq!(
        lines(&list.out.folder),
        [
            vec![
                "user: <picture 0> What?",
                "assistant: A square.",
                "user: Where?",
                "assistant: Left."
            ],
            vec!["user: What moves? <picture 0>", "assistant: It."],
        ]
    );
    assert_eq!(reasons(&report), [("video file not found", 1)]);
}

/// Reads one record, and places `images` pictures.
fn common(json: serde_json::Value, images: usize) -> Result<Vec<String>, Skip> {
    let (mut spoken, media) = schema::read(&json.into())?;
    assert_eq!(media.images.len(), images);
    spoken.place(images, false, Place::AsWritten)?;
    spoken.alternate()?;
    spoken.shorten(12)?;
    let system = spoken.system.iter().map(|text| format!("system {text}"));
    let turns = spoken.turns.iter().map(|(role, pieces)| {
        let pieces: Vec<String> = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Image(at) => format!("[{at}]"),
                Piece::Video => "[video]".into(),
            })
            .collect();
        format!("{role:?} {}", pieces.join(" "))
    });
    Ok(system.chain(turns).collect())
}

#[test]
fn odd_turns_are_put_in_order() {
    use serde_json::json;
    let turns = |list: &[(&str, &str)]| {
        let turns: Vec<_> = list
            .iter()
            .map(|(from, value)| json!({"from": from, "value": value}))
            .collect();
        json!({ "conversations": turns })
    };
    // starts with gpt, two turns of one role, a question without an answer; marks are text without a picture
    let odd = turns(&[
        ("gpt", "Hi"),
        ("human", "a <image>"),
        ("human", "b </s>"),
        ("chatgpt", "c"),
        ("user", "left over"),
    ]);
    assert_eq!(
        common(odd, 0).expect("usable"),
        ["User a <image>", "Assistant c"].map(|s| s.replace("a <image>", "a <image> b </s>"))
    );
    let system = turns(&[("system", "Be kind."), ("human", "a"), ("gpt", "b")]);
    assert_eq!(
        common(system, 0).expect("usable"),
        ["system Be kind.", "User a", "Assistant b"]
    );
    let long = turns(&[
        ("human", "a b c"),
        ("gpt", "d e f"),
        ("human", "g h i j"),
        ("gpt", "k l m"),
    ]);
    assert_eq!(
        common(long, 0).expect("usable"),
        ["User a b c", "Assistant d e f"]
    );
    let reason = |json: serde_json::Value, images: usize| {
        common(json, images)
            .expect_err("skipped")
            .reason
            .to_string()
    };
    assert_eq!(
        reason(turns(&[("human", "a")]), 0),
        "no question with an answer"
    );
    assert_eq!(
        reason(turns(&[("tool", "a")]), 0),
        "turn of an unknown role"
    );
    assert_eq!(reason(turns(&[]), 0), "no question with an answer");
    assert_eq!(
        reason(
            turns(&[("human", "w ".repeat(20).as_str()), ("gpt", "x")]),
            0
        ),
        "conversation is too long"
    );
    assert_eq!(reason(json!({"id": 1}), 0), "record of an unknown form");
    assert_eq!(reason(json!([1]), 0), "record of an unknown form");
    let mut two = turns(&[("human", "<image> and <image>"), ("gpt", "x <image>")]);
    two["image"] = json!(["a.jpg", "b.jpg"]);
    assert_eq!(
        common(two.clone(), 2).expect("usable"),
        ["User [0] and [1]", "Assistant x <image>"]
    );
    two["image"] = json!(["a.jpg", "b.jpg", "c.jpg"]);
    assert_eq!(reason(two, 3), "marks and pictures differ in number");
}

#[test]
fn messages_with_lists_of_parts() {
    use serde_json::json;
    let message = json!({"messages": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.jpg"}}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
    ]});
    assert_eq!(
        common(message, 1).expect("usable"),
        ["User [0] What?", "Assistant A dog."]
    );
    let several = json!({"images": [{"bytes": null, "path": "a.jpg"}, {"path": "b.jpg"}], "texts": [{"user": "Which?", "assistant": "The left."}, {"user": "Sure?", "assistant": "Yes."}]});
    assert_eq!(
        common(several, 2).expect("usable"),
        [
            "User [0] [1] Which?",
            "Assistant The left.",
            "User Sure?",
            "Assistant Yes."
        ]
    );
    let audio = json!({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]});
    assert_eq!(
        common(audio, 0).expect_err("skipped").reason,
        "content of an unknown form"
    );
    // an empty name stands for no picture
    let text = json!({"image": "", "question": "a", "answer": "b"});
    assert_eq!(common(text, 0).expect("usable"), ["User a", "Assistant b"]);
}

#[test]
fn a_folder_without_lists_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    put(&folder.path().join("a/x.md"), "x");
    let error = build(
        &options(folder.path().join("a"), folder.path()),
        &mut |_| {},
    )
    .expect_err("no list");
    assert!(error.to_string().contains("no JSON"), "{error}");
}
