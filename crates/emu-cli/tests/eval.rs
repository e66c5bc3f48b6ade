//! `emu eval` on splits of this project and on features: one result, one report, whatever is measured.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{emu, fails, json_of, text, tiny_pack};
use emu_data::{SampleFiles, write_shard};
use emu_eval::tasks::{FeatureIndex, Figure, Measured, TaskResult};
use serde_json::{Value, json};

fn mini() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/emu-mini")
}

/// A split with two scenes: a picture of the demo, once with its caption and once with another one.
fn split(folder: &Path) -> String {
    let out = folder.join("t3");
    fs::create_dir_all(&out).expect("a folder");
    let picture = fs::read(mini().join("demo/chick-telescope.png")).expect("a picture");
    let scene = |key: &str, caption: &str, left: &str| {
        let record = json!({
            "kind": "scene", "split": "t3", "background": "gray", "layout": "row", "objects": [], "caption": caption,
            "qa": [{"kind": "name", "question": "what is on the left?", "answer": left}],
        });
        SampleFiles {
            key: key.to_owned(),
            members: vec![
                ("json".to_owned(), record.to_string().into_bytes()),
                ("png".to_owned(), picture.clone()),
            ],
        }
    };
    let samples = [
        scene("000000", "nothing at all", "a chick"),
        scene("000001", "nothing either", "a teapot"),
    ];
    write_shard(&out.join("scenes-00000.tar"), &samples).expect("a shard");
    text(&out)
}

fn result(folder: &Path) -> TaskResult {
    let json = fs::read_to_string(folder.join("result.json")).expect("a result");
    serde_json::from_str(&json).expect("the schema")
}

fn metric(result: &TaskResult, name: &str) -> (f64, usize) {
    let metric = result.metrics.iter().find(|metric| metric.name == name);
    metric
        .map(|metric| (metric.value, metric.questions))
        .unwrap_or_else(|| panic!("no {name} in {:?}", result.metrics))
}

#[test]
fn a_split_ends_in_the_result_and_the_report_of_a_task() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, mini) = (split(folder.path()), text(&mini()));
    let out = folder.path().join("out");
    let arguments = [
        "eval", "vqa", "--model", &mini, "--device", "cpu", "--data", &data,
    ];
    let folder_name = text(&out);
    let mut written = arguments.to_vec();
    written.extend(["-o", &folder_name]);
    let said = emu(&written);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let found = result(&out);
    assert_eq!(found.task, Figure::Vqa.into());
    assert_eq!(
        (found.split.as_str(), found.metrics[0].name.as_str()),
        ("t3", "answers")
    );
    // It sees the chick, and no teapot. Neither caption is right.
    assert_eq!(metric(&found, "answers"), (50.0, 2));
    assert_eq!(metric(&found, "caption"), (0.0, 2));
    assert!(found.complete);
    let scores = fs::read_to_string(out.join("scores.jsonl")).expect("scores");
    assert_eq!(scores.lines().count(), 4);
    let html = fs::read_to_string(out.join("report.html")).expect("a report");
    assert!(html.contains("data:image/jpeg;base64,") && html.contains("a teapot"));

    // The same numbers without files.
    let mut printed = arguments.to_vec();
    printed.push("--json");
    let lines = json_of(&printed);
    assert_eq!(lines.len(), 1);
    let again: TaskResult = serde_json::from_value(lines[0]["result"].clone()).expect("the schema");
    assert_eq!(again.metrics, found.metrics);
    assert_eq!(lines[0]["files"], json!([]));
}

#[test]
fn scenes_are_also_asked_by_the_packs_own_template() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, mini) = (split(folder.path()), text(&mini()));
    let out = folder.path().join("out");
    let folder_name = text(&out);
    let arguments = [
        "eval",
        "own",
        "--model",
        &mini,
        "--device",
        "cpu",
        "--data",
        &data,
        "-o",
        &folder_name,
    ];
    for _ in 0..2 {
        let said = emu(&arguments);
        assert_eq!(said.code, Some(0), "{}", said.err);
        let found = result(&out);
        assert_eq!(metric(&found, "exact match"), (50.0, 2));
        assert_eq!(
            (found.groups[0].by.as_str(), found.groups[0].name.as_str()),
            ("kind", "name")
        );
        assert!(out.join("scenes/000001.png").is_file());
    }
}

#[test]
fn features_of_two_sets_are_compared() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    let at = |name: &str| folder.path().join(name);
    for (name, rows) in [("a", [1.0, 3.0]), ("b", [3.0, 7.0])] {
        let rows: Vec<_> = { rows.iter().enumerate() }
            .map(|(i, x)| (format!("{i}.png"), vec![*x, 7.0]))
            .collect();
        FeatureIndex::write(&at(name), "a network", &rows).expect("features");
    }
    let (a, b, out) = (text(&at("a")), text(&at("b")), text(&at("out")));
    let arguments = [
        "eval", "frechet", "--model", &pack, "--device", "cpu", "--data", &a,
    ];
    fails(&[&arguments[..], &["-o", &out]].concat(), &["--against"]);
    fails(&[&arguments[..], &["--against", &b]].concat(), &["-o"]);
    let all = [&arguments[..], &["--against", &b, "-o", &out]].concat();
    let said = emu(&all);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let found = result(&at("out"));
    assert_eq!(found.task, Measured::Frechet);
    let (value, pictures) = metric(&found, "Frechet distance (features of a network)");
    assert!((value - 11.0).abs() < 1e-9 && pictures == 4, "{value}");
}

#[test]
fn every_name_of_a_task_is_in_the_help_and_the_errors() {
    let help = emu(&["eval", "--help"]);
    assert_eq!(help.code, Some(0), "{}", help.err);
    let error = emu(&["eval", "sing", "--data", "x"]);
    assert_eq!(error.code, Some(2));
    for measured in Measured::all() {
        for said in [&help.out, &error.err] {
            assert!(
                said.contains(measured.name()),
                "{measured} is not in: {said}"
            );
        }
    }
    assert!(error.err.contains("score"), "{}", error.err);
}

#[test]
fn options_of_the_judge_that_cannot_be_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = tiny_pack(folder.path());
    let prompt = folder.path().join("prompt.txt");
    fs::write(&prompt, "{question} {prediction}").expect("written");
    let (prompt, out) = (text(&prompt), text(&folder.path().join("out")));
    let base = [
        "eval", "mmvet", "--model", &pack, "--device", "cpu", "--data", "nowhere", "-o", &out,
    ];
    let url = ["--judge-url", "api.example.org"];
    fails(
        &[&base[..], &url].concat(),
        &["api.example.org", "https://"],
    );
    let url = [
        "--judge-url",
        "https://api.example.org/v1",
        "--judge-prompt",
        &prompt,
    ];
    fails(&[&base[..], &url].concat(), &["{answer} 0 times"]);
    fails(&[&base[..], &["--judge-command", " "]].concat(), &["empty"]);
    let both = ["--judge-command", "x", "--judge-url", "https://y"];
    assert_eq!(emu(&[&base[..], &both].concat()).code, Some(2));
}

/// The results of `--json` are one object, so that a program can read any task with the same code.
#[test]
fn a_result_names_what_it_is_about() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, mini) = (split(folder.path()), text(&mini()));
    let lines = json_of(&[
        "eval", "caption", "--model", &mini, "--device", "cpu", "--data", &data, "--limit", "1",
        "--json",
    ]);
    let found: &Value = &lines[0]["result"];
    assert_eq!(found["task"], "caption");
    assert_eq!(found["questions"]["official"], 2);
    assert_eq!(found["questions"]["asked"], 1);
    assert_eq!(found["complete"], false);
}
