//! Faulty records of each layout: left out, named and counted.

use std::fs;
use std::path::Path;

use emu_eval::tasks::{OpenOptions, ProblemKind, Task, TaskData, open};
use serde_json::{Value, json};

use crate::fixtures::{self, write, write_json};

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("file")).expect("JSON")
}

/// Opens fixtures in which a JSON file was changed.
fn changed(task: Task, file: &str, change: impl FnOnce(&mut Value)) -> TaskData {
    let folder = tempfile::tempdir().expect("folder");
    fixtures::data(task, folder.path());
    let path = folder.path().join(file);
    let mut value = read(&path);
    change(&mut value);
    write_json(&path, &value);
    open(task, folder.path(), &OpenOptions::default()).expect("open")
}

/// All problems as `kind count first-name`.
fn problems(data: &TaskData) -> Vec<(ProblemKind, usize, String)> {
    let each = data.problems.iter();
    each.map(|(kind, records)| (kind, records.count, records.named[0].clone()))
        .collect()
}

fn ids(data: &TaskData) -> Vec<&str> {
    data.questions
        .iter()
        .map(|question| question.id.as_str())
        .collect()
}

#[test]
fn vqa_records() {
    let questions = "v2_OpenEnded_mscoco_val2014_questions.json";
    let annotations = "v2_mscoco_val2014_annotations.json";
    let list = |value: &mut Value, name: &str| value[name].as_array_mut().expect("list").clone();
    // A question twice, and another with the id of a different one.
    let data = changed(Task::Vqav2, questions, |value| {
        let mut all = list(value, "questions");
        all.push(all[0].clone());
        let mut other = all[1].clone();
        other["question"] = json!("Another?");
        all.push(other);
        value["questions"] = json!(all);
    });
    assert_eq!(
        problems(&data),
        [
            (ProblemKind::Duplicate, 1, "question 1000".into()),
            (ProblemKind::Conflict, 1, "question 1001".into())
        ]
    );
    assert_eq!(ids(&data), ["1000", "1002", "1003"]);
    assert_eq!(data.ids, ["1000", "1001", "1002", "1003"]);
    // Nulls.
    let data = changed(Task::Vqav2, questions, |value| {
        value["questions"][0]["question"] = Value::Null;
        value["questions"][1]["image_id"] = Value::Null;
        value["questions"][2]["question"] = json!(" ");
        value["questions"]
            .as_array_mut()
            .expect("list")
            .push(json!({"question_id": null, "image_id": 1, "question": "?"}));
    });
    assert_eq!(
        (
            data.problems.count(ProblemKind::Null),
            data.problems.count(ProblemKind::Blank)
        ),
        (3, 1)
    );
    assert_eq!(ids(&data), ["1003"]);
    // Annotations: unknown id, none, a null answer, two that differ, another picture.
    let data = changed(Task::Vqav2, annotations, |value| {
        let mut all = list(value, "annotations");
        let mut unknown = all[0].clone();
        unknown["question_id"] = json!(77);
        let mut other = all[3].clone();
        other["answers"][0]["answer"] = json!("else");
        all[1]["answers"][4]["answer"] = Value::Null;
        all.remove(2);
        all.extend([unknown, other]);
        value["annotations"] = json!(all);
    });
    let count = |kind| data.problems.count(kind);
    assert_eq!(count(ProblemKind::UnknownId), 1);
    assert_eq!(count(ProblemKind::Null), 1);
    assert_eq!(count(ProblemKind::NoReference), 3);
    assert_eq!(count(ProblemKind::Conflict), 1);
    assert_eq!(ids(&data), ["1000"]);
    let data = changed(Task::Vqav2, annotations, |value| {
        value["annotations"][0]["image_id"] = json!(3)
    });
    assert_eq!(
        problems(&data),
        [(
            ProblemKind::Conflict,
            1,
            "picture of question 1000: 0 or 3".into()
        )]
    );
}

#[test]
fn caption_records() {
    let data = changed(Task::Nocaps, "nocaps_val_4500_captions.json", |value| {
        value["annotations"][0]["caption"] = Value::Null;
        value["annotations"][2]["caption"] = json!("  ");
        value["annotations"][3]["caption"] = json!("\n");
        let captions = value["annotations"].as_array_mut().expect("list");
        captions.push(json!({"id": 99, "image_id": 77, "caption": "a stray"}));
        captions.push(captions[6].clone());
        captions.push(json!({"id": 100, "image_id": null, "caption": "lost"}));
        let images = value["images"].as_array_mut().expect("list");
        images.push(images[3].clone());
    });
    assert_eq!(
        problems(&data),
        [
            (ProblemKind::Duplicate, 2, "caption 30".into()),
            (ProblemKind::UnknownId, 1, "caption 99 (picture 77)".into()),
            (ProblemKind::NoReference, 1, "picture 1".into()),
            (ProblemKind::Null, 2, "caption 100".into()),
            (ProblemKind::Blank, 2, "caption 1 of picture 1".into()),
        ]
    );
    assert_eq!(ids(&data), ["0", "2", "3"]);
    let emu_eval::tasks::Truth::Captions(captions) = &data.questions[2].truth else {
        panic!("captions")
    };
    assert_eq!(
        captions.len(),
        2,
        "a repeated picture does not repeat its captions"
    );
    let data = changed(Task::Coco, "dataset_coco.json", |value| {
        value["images"][0]["sentences"] = json!([]);
        value["images"][1]["split"] = Value::Null;
        value["images"][2]["sentences"][0]["raw"] = Value::Null;
    });
    assert_eq!(ids(&data), ["2", "3"]);
    assert_eq!(
        (
            data.problems.count(ProblemKind::NoReference),
            data.problems.count(ProblemKind::Null)
        ),
        (1, 2)
    );
}

#[test]
fn vizwiz_records() {
    let data = changed(Task::Vizwiz, "val.json", |value| {
        value[0]["answers"][3]["answer"] = Value::Null;
        value[1]["answers"] = Value::Null;
        let entries = value.as_array_mut().expect("list");
        entries.push(entries[2].clone());
        entries.push(json!({"image": null, "question": "?", "answers": []}));
        entries.push(json!({"image": "VizWiz_val_00000009.jpg", "question": "gone?", "answers": [{"answer": "x", "answer_confidence": "no"}]}));
    });
    assert_eq!(
        problems(&data),
        [
            (
                ProblemKind::MissingMedia,
                1,
                "VizWiz_val_00000009.jpg (question VizWiz_val_00000009.jpg)".into()
            ),
            (
                ProblemKind::Duplicate,
                1,
                "question VizWiz_val_00000002.jpg".into()
            ),
            (
                ProblemKind::NoReference,
                1,
                "VizWiz_val_00000001.jpg".into()
            ),
            (
                ProblemKind::Null,
                2,
                "VizWiz_val_00000000.jpg: an answer".into()
            ),
        ]
    );
    assert_eq!(
        ids(&data),
        ["VizWiz_val_00000002.jpg", "VizWiz_val_00000003.jpg"]
    );
}

#[test]
fn dialog_records() {
    let file = "visdial_1.0_val.json";
    let dialog = |change: &dyn Fn(&mut Value)| {
        changed(Task::Visdial, file, |value| change(&mut value["data"]))
    };
    let data = dialog(&|data| data["dialogs"][0]["dialog"][0]["answer_options"][2] = json!(99));
    assert_eq!(
        (problems(&data)[0].0, ids(&data)),
        (ProblemKind::BadIndex, vec!["0:2", "1:1", "1:2"])
    );
    let data = dialog(&|data| data["dialogs"][0]["dialog"][1]["gt_index"] = json!(6));
    assert_eq!(
        (problems(&data)[0].0, ids(&data)),
        (ProblemKind::BadIndex, vec!["0:1", "1:1", "1:2"])
    );
    let data = dialog(&|data| data["dialogs"][0]["dialog"][1]["gt_index"] = Value::Null);
    assert_eq!(problems(&data)[0].0, ProblemKind::Null);
    let data = dialog(&|data| data["dialogs"][0]["dialog"][0]["question"] = json!(6));
    let kinds: Vec<ProblemKind> = problems(&data).iter().map(|problem| problem.0).collect();
    assert!(kinds.contains(&ProblemKind::BadIndex), "{kinds:?}");
    assert_eq!(
        ids(&data),
        ["1:1", "1:2"],
        "a round without the history before it is left out"
    );
    let data = dialog(&|data| data["dialogs"][0]["dialog"][0]["answer"] = Value::Null);
    assert_eq!(ids(&data), ["0:1", "1:1", "1:2"]);
    assert_eq!(data.ids.len(), 4);
    let data = changed(
        Task::Visdial,
        "visdial_1.0_val_dense_annotations.json",
        |value| {
            value[0]["round_id"] = json!(3);
            value[1]["gt_relevance"] = json!([1.0]);
            value
                .as_array_mut()
                .expect("list")
                .push(json!({"image_id": null}));
        },
    );
    assert_eq!(data.problems.count(ProblemKind::UnknownId), 1);
    assert_eq!(data.problems.count(ProblemKind::BadIndex), 1);
    assert_eq!(data.problems.count(ProblemKind::Null), 1);
    assert_eq!(ids(&data), ["0:1", "0:2", "1:1"]);
}

#[test]
fn mm_vet_keys_that_come_twice() {
    let folder = tempfile::tempdir().expect("folder");
    fixtures::data(Task::Mmvet, folder.path());
    let path = folder.path().join("mm-vet.json");
    let text = fs::read_to_string(&path).expect("file");
    let twice = text.replace("\"v1_1\":", "\"v1_0\":");
    assert_ne!(twice, text);
    write(&path, &twice);
    let data = open(Task::Mmvet, folder.path(), &OpenOptions::default()).expect("open");
    assert_eq!(
        problems(&data),
        [(ProblemKind::Conflict, 1, "question v1_0".into())]
    );
    assert_eq!(ids(&data), ["v1_2", "v1_3"]);
    let data = changed(Task::Mmvet, "mm-vet.json", |value| {
        value["v1_0"]["answer"] = Value::Null;
        value["v1_1"]["capability"] = json!([]);
    });
    assert_eq!(ids(&data), ["v1_2", "v1_3"]);
}

#[test]
fn video_records() {
    let data = changed(Task::Msrvttqa, "test_qa.json", |value| {
        value[1]["answer"] = Value::Null;
        value[2]["id"] = Value::Null;
        let mut other = value[3].clone();
        other["answer"] = json!("else");
        value.as_array_mut().expect("list").push(other);
    });
    assert_eq!(data.problems.count(ProblemKind::Null), 2);
    assert_eq!(data.problems.count(ProblemKind::Conflict), 1);
    assert_eq!(ids(&data), ["0"]);
}

#[test]
fn csv_records() {
    let folder = tempfile::tempdir().expect("folder");
    fixtures::data(Task::Nextqa, folder.path());
    let path = folder.path().join("test.csv");
    let text = fs::read_to_string(&path).expect("file");
    write(
        &path,
        text.replace(",kite,", ",,").replace("771,", ",")
            + &text
                .lines()
                .nth(3)
                .map(|line| format!("{line}\n"))
                .expect("line"),
    );
    let data = open(Task::Nextqa, folder.path(), &OpenOptions::default()).expect("open");
    assert_eq!(data.problems.count(ProblemKind::Blank), 2);
    assert_eq!(data.problems.count(ProblemKind::Duplicate), 1);
    assert_eq!(ids(&data), ["772_2", "773_3"]);
    write(&path, text.replace("qid", "number"));
    let error = open(Task::Nextqa, folder.path(), &OpenOptions::default())
        .expect_err("column")
        .to_string();
    assert!(error.contains("no column qid"), "{error}");
    fixtures::data(Task::Own, folder.path());
    write(
        &folder.path().join("questions.csv"),
        "picture,question,answer,id\np0.bmp,What?,a,x\np1.bmp,Why?, | ,y\np2.bmp,,b,z\n",
    );
    let data = open(Task::Own, folder.path(), &OpenOptions::default()).expect("open");
    assert_eq!(
        (ids(&data), data.problems.count(ProblemKind::Blank)),
        (vec!["x"], 2)
    );
}
