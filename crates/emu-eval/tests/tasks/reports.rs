//! Results and reports.

use std::fs;

use emu_eval::tasks::Task;

use crate::end_to_end::{evaluated, fresh, options};
use crate::fake::Fake;

#[test]
fn the_same_seed_gives_the_same_files() {
    let files = [
        "answers.jsonl",
        "result.json",
        "scores.jsonl",
        "report.md",
        "report.html",
    ];
    let read = |folder: &tempfile::TempDir| {
        files.map(|name| fs::read_to_string(folder.path().join("out").join(name)).expect(name))
    };
    let mut choice = options("emu", 4, false);
    choice.run.limit = Some(3);
    let (one, _) = fresh(
        Task::Vqav2,
        &choice,
        &mut Fake::knowing(&[("1001", "teal")]),
    );
    let (two, _) = fresh(
        Task::Vqav2,
        &choice,
        &mut Fake::knowing(&[("1001", "teal")]),
    );
    assert_eq!(read(&one), read(&two));
    let asked = |folder: &tempfile::TempDir| {
        read(folder)[2]
            .lines()
            .map(|line| line[..12].to_owned())
            .collect::<Vec<_>>()
    };
    let different = (1..9).any(|seed| {
        choice.run.seed = seed;
        let (three, _) = fresh(
            Task::Vqav2,
            &choice,
            &mut Fake::knowing(&[("1001", "teal")]),
        );
        asked(&one) != asked(&three)
    });
    assert!(different, "the limit always takes the same questions");
}

#[test]
fn the_reports_show_questions_answers_and_the_papers_numbers() {
    let known = [
        ("1000", "Mauve <b>."),
        ("1001", "teal"),
        ("1002", "fog"),
        ("1003", "Azure"),
    ];
    let (folder, done) = fresh(
        Task::Vqav2,
        &options("emu-i", 2, true),
        &mut Fake::knowing(&known),
    );
    let markdown = fs::read_to_string(folder.path().join("out/report.md")).expect("report");
    for words in [
        "Paper: Emu-I\\* (same setting) | 62.00 | ",
        "| S+ |",
        "measured here",
        "This run: fake, preset emu-i, 2 text-only examples",
        "## Worst",
        "## Best",
    ] {
        assert!(markdown.contains(words), "{words}\n{markdown}");
    }
    let html = fs::read_to_string(folder.path().join("out/report.html")).expect("report");
    for words in [
        "data:image/bmp;base64,Qk",
        "class=\"same\"",
        "What color is the kite?",
        "mauve &lt;b&gt;",
        "unlike 9",
        "S+: second-hand",
    ] {
        assert!(html.contains(words), "{words}");
    }
    assert!(!html.contains("<script") && !html.contains("<b>.") && !html.contains("src=\"http"));
    let text = fs::read_to_string(folder.path().join("out/result.json")).expect("result");
    let again: emu_eval::tasks::TaskResult = serde_json::from_str(&text).expect("schema");
    assert_eq!((again.format, again.task), (1, Task::Vqav2.into()));
    assert_eq!(again.questions, done.result.questions);
    assert_eq!(again.published, done.result.published);
    assert!((again.metrics[0].value - done.result.metrics[0].value).abs() < 1e-9);
    assert_eq!(done.files.len(), 4);
}

#[test]
fn a_preset_without_the_task_is_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().expect("folder");
    let error = evaluated(
        Task::Mmvet,
        folder.path(),
        &options("emu", 0, false),
        &mut Fake::knowing(&[]),
    );
    assert!(
        error
            .expect_err("no prompt")
            .to_string()
            .contains("has no prompt for mmvet")
    );
    assert!(!folder.path().join("out").exists());
}
