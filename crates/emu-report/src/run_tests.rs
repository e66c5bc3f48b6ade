use super::*;

use proptest::prelude::*;

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    fs::write(path, bytes).expect("written");
}

fn steps(range: std::ops::Range<u64>) -> String {
    range
        .map(|step| {
            format!(
                "{{\"step\":{step},\"loss\":{},\"terms\":{{\"text\":1.5}},\"grad_norm\":2,\"lr\":{{\"\":1e-3,\"lm\":1e-4}},\
                 \"samples_per_s\":10,\"seconds\":{step}.5}}\n",
                10 - step
            )
        })
        .collect()
}

fn opened(text: impl AsRef<[u8]>) -> Run {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "metrics.jsonl", text);
    Run::open(folder.path()).expect("a run")
}

#[test]
fn a_run_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write(root, "metrics.jsonl", steps(0..3));
    let state = r#"{"stage":"decoder","config":{"seed":"3","optimiser.lr":"0.001","batch":4}}"#;
    write(root, "step-00000002/state.json", state);
    write(root, "step-00000001/state.json", "{}");
    write(root, "latest", "step-00000002\n");
    write(root, "best", "step-00000001");
    write(
        root,
        "changes.jsonl",
        "{\"step\":2,\"changes\":\"batch: 2, now 4\"}\n{\"st",
    );
    write(root, "samples/00000001/drawings.png", "PNG");
    write(root, "samples/00000001/said.txt", "a fox");
    write(root, "samples/00000001/weights.bin", "?");
    write(root, "samples/notes/x.txt", "not of a step");

    let run = Run::open(root).expect("a run");
    assert_eq!((run.steps, run.seconds), (3, 2.5));
    assert_eq!(
        (&*run.stage, run.best.as_deref()),
        ("decoder", Some("step-00000001"))
    );
    assert_eq!(run.checkpoints, [1, 2]);
    let names: Vec<&str> = run.curves.iter().map(|(name, _)| name.as_str()).collect();
    let want = [
        "loss",
        "gradient norm",
        "samples/s",
        "loss: text",
        "rate: rest",
        "rate: lm",
    ];
    assert_eq!(names, want);
    let loss = run.curve("loss").expect("a curve");
    assert_eq!(loss.points, [(0, 10.0), (1, 9.0), (2, 8.0)]);
    assert_eq!(run.settings["batch"], "4");
    assert_eq!(run.notes, [(2, "resumed with batch: 2, now 4".into())]);
    let [(1, samples)] = &*run.samples else {
        panic!("samples of one step: {:?}", run.samples)
    };
    assert_eq!(
        samples[0].shown,
        Shown::Picture("image/png", b"PNG".to_vec())
    );
    assert_eq!(samples[1].shown, Shown::Text("a fox".into()));
    assert!(matches!(samples[2].shown, Shown::Nothing(_)));
}

#[test]
fn odd_lines_are_counted_and_a_torn_one_is_left_out() {
    let odd = "{\"step\":3,\"loss\":null,\"eval\":{\"held.loss\":null}}\n";
    let long = format!(
        "{{\"step\":4,\"x\":\"{}\"}}\n",
        "y".repeat(MAX_LINE as usize)
    );
    let run = opened(format!(
        "{}{odd}nonsense\n{long}{}{{\"step\":6,\"lo",
        steps(0..3),
        steps(5..6)
    ));
    assert_eq!((run.steps, run.unreadable), (6, 2));
    let loss = run.curve("loss").expect("a curve");
    assert_eq!((loss.points.len(), loss.not_finite), (4, 1));
    let held = run.curve("held.loss").expect("a curve");
    assert_eq!(
        *held,
        Curve {
            points: vec![],
            not_finite: 1
        }
    );
}

#[test]
fn a_repeated_step_replaces_what_followed() {
    let warned = "{\"step\":3,\"loss\":99,\"warning\":\"it diverges\"}\n";
    let run = opened(steps(0..3) + warned + &steps(2..4));
    let loss = run.curve("loss").expect("a curve");
    assert_eq!(loss.points, [(0, 10.0), (1, 9.0), (2, 8.0), (3, 7.0)]);
    assert_eq!(run.notes, []);
}

#[test]
fn a_folder_without_metrics_is_no_run() {
    let folder = tempfile::tempdir().expect("a folder");
    for path in [folder.path().to_path_buf(), folder.path().join("missing")] {
        let error = Run::open(&path).expect_err("no run").to_string();
        assert!(
            error.contains("metrics.jsonl") && error.contains("Name the folder"),
            "{error}"
        );
    }
    let empty = opened("");
    assert_eq!((empty.steps, empty.curves.len()), (0, 0));
}

#[test]
fn samples_are_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write(root, "metrics.jsonl", "");
    for step in 0..30 {
        write(root, &format!("samples/{step:08}/a.txt"), "text");
    }
    write(
        root,
        "samples/00000029/b.png",
        vec![0; MAX_SAMPLE as usize + 1],
    );
    // A name that leads out of the folder is no checkpoint.
    write(root, "latest", "../elsewhere");
    let run = Run::open(root).expect("a run");
    let shown: Vec<u64> = run.samples.iter().map(|(step, _)| *step).collect();
    assert_eq!((shown.len(), run.unshown), (MAX_SAMPLED, 30 - MAX_SAMPLED));
    assert_eq!((shown.first(), shown.last()), (Some(&0), Some(&29)));
    let last = &run.samples.last().expect("samples").1;
    assert_eq!(last[1].shown, Shown::Nothing("it is too large"));
    assert_eq!(run.stage, "");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Whatever the file holds, it is read to its end.
    #[test]
    fn any_metrics_are_read(bytes in "([{}\":,0-9a-z \\n]|\"step\":|null|\\PC){0,200}") {
        let run = opened(bytes);
        for (_, curve) in &run.curves {
            prop_assert!(curve.points.iter().all(|(step, value)| *step < run.steps && value.is_finite()));
        }
    }
}
