//! A run that is killed and started again ends in the same files.

use std::fs;
use std::path::Path;

use emu_eval::tasks::{EvalError, Task, evaluate};

use crate::end_to_end::{evaluated, options};
use crate::fake::Fake;
use crate::fixtures;

const KNOWN: [(&str, &str); 3] = [
    ("1000", "mauve"),
    ("VizWiz_val_00000001.jpg", "teal"),
    ("1003", "no\nline"),
];

fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(root.join("out"))
        .expect("folder")
        .map(|entry| entry.expect("entry").path())
        .map(|path| {
            (
                path.file_name()
                    .expect("name")
                    .to_string_lossy()
                    .into_owned(),
                fs::read(&path).expect("file"),
            )
        })
        .collect();
    files.sort();
    files
}

/// Runs in which each file of every stage is cut after any line or inside of it, and in which the model dies at every call.
#[test]
fn after_a_kill_at_every_line_and_call() {
    for (task, preset, k) in [
        (Task::Vqav2, "emu", 2),
        (Task::Vizwiz, "emu-i", 0),
        (Task::Visdial, "emu-i", 0),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path();
        fixtures::data(task, &root.join("data"));
        let choice = options(preset, k, false);
        let mut model = Fake::knowing(&KNOWN);
        evaluated(task, root, &choice, &mut model).expect("evaluated");
        let (whole, calls) = (files(root), model.calls);
        assert!(calls > 1);

        // Nothing is asked again.
        let mut model = Fake::knowing(&KNOWN);
        evaluated(task, root, &choice, &mut model).expect("again");
        assert_eq!((model.calls, files(root)), (0, whole.clone()));

        for last in 0..calls {
            fs::remove_dir_all(root.join("out")).expect("empty");
            let mut model = Fake {
                dies_after: Some(last),
                ..Fake::knowing(&KNOWN)
            };
            let error = evaluated(task, root, &choice, &mut model).expect_err("killed");
            assert!(matches!(error, EvalError::Model { .. }), "{error}");
            let mut model = Fake::knowing(&KNOWN);
            evaluated(task, root, &choice, &mut model).expect("continued");
            assert_eq!(
                files(root),
                whole,
                "{}, killed after {last} calls",
                task.name()
            );
            // Candidates are ranked one question at a time, and stored by whole batches.
            let again = if task == Task::Visdial { last % 3 } else { 0 };
            assert_eq!(
                model.calls,
                calls - last + again,
                "what is there is not asked again"
            );
        }

        for (name, bytes) in whole
            .iter()
            .filter(|(name, _)| name.ends_with(".jsonl") && name != "scores.jsonl")
        {
            let ends = bytes
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == b'\n')
                .map(|(at, _)| at + 1);
            for end in ends.flat_map(|end| [end, end.saturating_sub(5)]) {
                fs::write(root.join("out").join(name), &bytes[..end]).expect("cut");
                evaluated(task, root, &choice, &mut Fake::knowing(&KNOWN)).expect("continued");
                assert_eq!(files(root), whole, "{}: {name} cut at {end}", task.name());
            }
        }
    }
}

#[test]
fn changed_settings_data_and_models_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path();
    fixtures::data(Task::Vqav2, &root.join("data"));
    let choice = options("emu-i", 0, false);
    evaluated(Task::Vqav2, root, &choice, &mut Fake::knowing(&KNOWN)).expect("evaluated");
    let refused = |change: &dyn Fn(&mut emu_eval::tasks::EvaluateOptions, &mut Fake),
                   words: &str| {
        let (mut choice, mut model) = (choice.clone(), Fake::knowing(&KNOWN));
        change(&mut choice, &mut model);
        let error = evaluated(Task::Vqav2, root, &choice, &mut model)
            .expect_err(words)
            .to_string();
        assert!(
            error.contains(words) && error.contains("answers.jsonl"),
            "{error}"
        );
        assert_eq!(model.calls, 0);
    };
    refused(&|choice, _| choice.run.seed = 1, "seed = 0; now it is 1");
    refused(
        &|choice, _| choice.run.limit = Some(2),
        "limit = null; now it is 2",
    );
    refused(&|choice, _| choice.run.batch = 1, "batch = 3; now it is 1");
    refused(
        &|choice, _| {
            choice.preset.ask[1]
                .decoding
                .as_mut()
                .expect("decoding")
                .beams = 1
        },
        "decoding.beams = 5; now it is 1",
    );
    refused(
        &|choice, _| choice.open.split = Some("train".into()),
        "split = \"val\"; now it is \"train\"",
    );
    refused(
        &|_, model| model.name = "other".into(),
        "model = \"fake\"; now it is \"other\"",
    );
    // Clean-up is no setting of the answers: they are stored as the model wrote them.
    let mut tidy = choice.clone();
    tidy.preset.ask[1].clean = emu_eval::tasks::Clean::None;
    let done =
        evaluated(Task::Vqav2, root, &tidy, &mut Fake::knowing(&KNOWN)).expect("scored again");
    assert_eq!(done.result.questions.scored, 4);
    fs::remove_file(root.join("data/val2014/COCO_val2014_000000000002.jpg")).expect("remove");
    refused(&|_, _| {}, "data_sha256");
}

#[test]
fn the_caller_can_stop_and_continue() {
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path();
    fixtures::data(Task::Msvdqa, &root.join("data"));
    let choice = options("emu-i", 0, false);
    let mut seen = vec![];
    let mut once = |progress: emu_eval::tasks::Progress| {
        seen.push((progress.done, progress.total));
        progress.done == 0
    };
    let (data, out) = (root.join("data"), root.join("out"));
    let error = evaluate(
        Task::Msvdqa,
        &data,
        &out,
        &choice,
        &mut Fake::knowing(&KNOWN),
        &mut once,
        &mut |_| None,
    );
    assert!(matches!(error, Err(EvalError::Stopped)));
    assert_eq!(seen, [(0, 4), (3, 4)]);
    let mut model = Fake::knowing(&KNOWN);
    evaluated(Task::Msvdqa, root, &choice, &mut model).expect("continued");
    assert_eq!(model.batches, [1]);
}
