//! Faulty files: named and counted, never a wrong score.

use std::fs;

use emu_eval::tasks::{OpenOptions, ProblemKind, Task, open};

use crate::end_to_end::{evaluated, options};
use crate::fake::Fake;
use crate::fixtures::{self, write};

#[test]
fn the_fixtures_have_no_problem() {
    for task in Task::ALL {
        let folder = tempfile::tempdir().expect("folder");
        fixtures::data(task, folder.path());
        for split in task
            .splits()
            .iter()
            .filter(|split| !split.contains("2014") && !split.contains("test-dev"))
        {
            let options = OpenOptions {
                split: Some((*split).into()),
                ..OpenOptions::default()
            };
            let Ok(data) = open(task, folder.path(), &options) else {
                continue;
            };
            assert!(
                data.problems.is_empty(),
                "{} {split}: {}",
                task.name(),
                data.problems
            );
            let ids: Vec<_> = data.questions.iter().map(|question| &question.id).collect();
            assert_eq!(
                data.ids.iter().collect::<Vec<_>>(),
                ids,
                "{} {split}",
                task.name()
            );
        }
    }
}

#[test]
fn a_missing_picture_leaves_its_questions_out() {
    for (task, file) in [
        (Task::Coco, "images/val2014/COCO_val2014_000000000002.jpg"),
        (Task::Nocaps, "val/0002.jpg"),
        (Task::Flickr30k, "images/000000000002.jpg"),
        (Task::Vqav2, "val2014/COCO_val2014_000000000002.jpg"),
        (Task::Okvqa, "val2014/COCO_val2014_000000000002.jpg"),
        (Task::Vizwiz, "val/VizWiz_val_00000002.jpg"),
        (
            Task::Visdial,
            "VisualDialog_val2018/VisualDialog_val2018_000000000001.jpg",
        ),
        (Task::Mmvet, "images/v1_2.png"),
        (Task::Msvdqa, "videos/vid2.mp4"),
        (Task::Msrvttqa, "videos/video2.mp4"),
        (Task::Nextqa, "videos/112/772.mp4"),
        (Task::Easyvqa, "test/images/2.png"),
        (Task::Own, "p2.bmp"),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path();
        fixtures::data(task, &root.join("data"));
        fs::remove_file(root.join("data").join(file)).expect(file);
        let data = open(task, &root.join("data"), &OpenOptions::default()).expect("open");
        let missing = if task == Task::Visdial { 2 } else { 1 };
        assert_eq!(
            data.problems.count(ProblemKind::MissingMedia),
            missing,
            "{}",
            task.name()
        );
        assert_eq!(
            (data.ids.len(), data.questions.len()),
            (4, 4 - missing),
            "{}",
            task.name()
        );
        let done = evaluated(
            task,
            root,
            &options("emu-i", 0, false),
            &mut Fake::knowing(&[]),
        )
        .expect("evaluated");
        assert!(!done.result.complete);
        assert_eq!(done.result.questions.official, 4);
        if let Some(submission) = done.submission {
            assert_eq!(submission.missing, missing);
            assert!(
                submission
                    .path
                    .file_name()
                    .expect("name")
                    .to_string_lossy()
                    .starts_with("partial-")
            );
        }
        let report = fs::read_to_string(root.join("out/report.md")).expect("report");
        assert!(
            report.contains("not comparable") && report.contains("picture or video not found"),
            "{report}"
        );
    }
}

#[test]
fn all_pictures_missing_is_an_error() {
    let folder = tempfile::tempdir().expect("folder");
    fixtures::data(Task::Vqav2, folder.path());
    fs::remove_dir_all(folder.path().join("val2014")).expect("remove");
    let error = open(Task::Vqav2, folder.path(), &OpenOptions::default())
        .expect_err("nothing left")
        .to_string();
    assert!(
        error.contains("no usable question") && error.contains("4 x picture or video not found"),
        "{error}"
    );
}

#[test]
fn an_unreadable_picture_is_not_scored() {
    for (task, k) in [(Task::Vqav2, 0), (Task::Vqav2, 2), (Task::Visdial, 0)] {
        let folder = tempfile::tempdir().expect("folder");
        fixtures::data(task, &folder.path().join("data"));
        let mut model = Fake::knowing(&[
            ("1000", "mauve"),
            ("1001", "teal"),
            ("1002", "ochre"),
            ("1003", "azure"),
        ]);
        model.unreadable = vec![
            "val2014/COCO_val2014_000000000001.jpg".into(),
            "VisualDialog_val2018/VisualDialog_val2018_000000000001.jpg".into(),
        ];
        for preset in ["emu-i", "emu"] {
            let mut choice = options(preset, k, false);
            choice.run.index = Some(folder.path().join("index"));
            let done = evaluated(task, folder.path(), &choice, &mut model).expect("evaluated");
            let lost = if task == Task::Visdial { 2 } else { 1 };
            assert_eq!(
                done.result.problems.count(ProblemKind::UnreadableMedia),
                lost,
                "{} {preset} {k}",
                task.name()
            );
            assert_eq!(
                (done.result.questions.asked, done.result.questions.scored),
                (4, 4 - lost)
            );
            if task == Task::Vqav2 {
                assert_eq!(
                    done.result.metrics[0].value, 100.0,
                    "the others are scored as they are"
                );
            }
            fs::remove_dir_all(folder.path().join("out")).expect("empty");
        }
    }
}

/// A file that is cut off anywhere, or is not what its name says, gives an error that names it; it never panics.
#[test]
fn cut_and_foreign_files_are_errors() {
    for (task, file) in [
        (Task::Coco, "dataset_coco.json"),
        (Task::Nocaps, "nocaps_val_4500_captions.json"),
        (Task::Vqav2, "v2_mscoco_val2014_annotations.json"),
        (Task::Vizwiz, "val.json"),
        (Task::Visdial, "visdial_1.0_val.json"),
        (Task::Mmvet, "mm-vet.json"),
        (Task::Msvdqa, "test_qa.json"),
        (Task::Easyvqa, "test/questions.json"),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        fixtures::data(task, folder.path());
        let path = folder.path().join(file);
        let bytes = fs::read(&path).expect("file");
        for length in (0..bytes.len()).step_by(37) {
            write(&path, &bytes[..length]);
            let error = open(task, folder.path(), &OpenOptions::default())
                .expect_err("cut off")
                .to_string();
            assert!(
                error.contains(file.rsplit('/').next().expect("name")),
                "{error}"
            );
        }
        for other in [
            "[]",
            "{}",
            "7",
            "null",
            "{\"images\": 3}",
            "[[1, 2, 3]]",
            "\u{0}",
            "<html>not found</html>",
        ] {
            write(&path, other);
            assert!(
                open(task, folder.path(), &OpenOptions::default()).is_err(),
                "{}: {other}",
                task.name()
            );
        }
    }
}
