//! The layouts that other projects give to the official files.

use emu_eval::tasks::{OpenOptions, ProblemKind, Task, TaskData, open};
use serde_json::json;

use crate::fixtures::{write, write_json};

fn ids(data: &TaskData) -> Vec<&str> {
    data.questions
        .iter()
        .map(|question| question.id.as_str())
        .collect()
}

#[test]
fn the_other_layouts_of_captions_and_questions() {
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path();
    let captions = json!([
        {"image": "val2014/COCO_val2014_000000000101.jpg", "caption": ["one hill", "a hill"]},
        {"image": "val2014/COCO_val2014_000000000102.jpg", "caption": ["a lamp"]},
        {"image": "val2014/COCO_val2014_000000000102.jpg", "caption": ["no lamp"]},
        {"image": null, "caption": ["lost"]},
    ]);
    write_json(
        &root.join("coco/annotations/coco_karpathy_test.json"),
        &captions,
    );
    for i in [101, 102] {
        write(
            &root.join(format!("coco/images/val2014/COCO_val2014_{i:012}.jpg")),
            "x",
        );
    }
    let data = open(Task::Coco, root, &OpenOptions::default()).expect("LAVIS' list");
    assert_eq!(ids(&data), ["101"]);
    assert_eq!(
        (
            data.problems.count(ProblemKind::Conflict),
            data.problems.count(ProblemKind::Null)
        ),
        (1, 1)
    );
    // Pictures alone, captions in the file of the ground truth.
    write_json(
        &root.join("coco/annotations/coco_karpathy_test.json"),
        &json!([{"image": "val2014/COCO_val2014_000000000102.jpg"}]),
    );
    let truth = json!({"images": [{"id": 102}], "annotations": [{"id": 1, "image_id": 102, "caption": "a lamp"}, {"id": 2, "image_id": 9, "caption": "?"}]});
    write_json(
        &root.join("coco/annotations/coco_karpathy_test_gt.json"),
        &truth,
    );
    let data = open(Task::Coco, root, &OpenOptions::default()).expect("with ground truth");
    assert_eq!(
        (ids(&data), data.problems.count(ProblemKind::UnknownId)),
        (vec!["102"], 1)
    );
    // COCO's own file, with the full split.
    let own = json!({"images": [{"id": 101, "file_name": "COCO_val2014_000000000101.jpg"}], "annotations": [{"id": 5, "image_id": 101, "caption": "a hill"}]});
    write_json(&root.join("coco/annotations/captions_val2014.json"), &own);
    let split = OpenOptions {
        split: Some("val2014".into()),
        ..OpenOptions::default()
    };
    assert_eq!(ids(&open(Task::Coco, root, &split).expect("COCO")), ["101"]);

    let list = json!([
        {"question_id": 7, "image": "val2014/COCO_val2014_000000000101.jpg", "question": "What?", "answer": vec!["hill"; 10], "dataset": "vqa"},
        {"question_id": 8, "image": "val2014/COCO_val2014_000000000101.jpg", "question": "Why?", "dataset": "vqa"},
        {"question_id": 9, "image": "val2014/COCO_val2014_000000000101.jpg", "question": null, "answer": vec!["hill"; 10]},
    ]);
    write_json(&root.join("coco/annotations/vqa_val_eval.json"), &list);
    write_json(
        &root.join("okvqa/annotations/vqa_val_eval.json"),
        &json!([list[0]]),
    );
    let data = open(Task::Vqav2, root, &OpenOptions::default()).expect("LAVIS' list");
    assert_eq!((ids(&data), data.ids.len()), (vec!["7"], 3));
    let data = open(Task::Okvqa, root, &OpenOptions::default()).expect("LAVIS' list of OK-VQA");
    assert_eq!(data.ids, ["7"], "not the list of VQAv2");

    let videos = json!([{"question_id": "q1", "video": "clip_a.mp4", "question": "who", "answer": "goat"}, {"question_id": "q1", "video": "clip_a.mp4", "question": "who", "answer": "boat"}]);
    write_json(&root.join("msvd/annotations/qa_test.json"), &videos);
    write(&root.join("msvd/videos/clip_a.avi"), "x");
    assert!(
        open(Task::Msvdqa, root, &OpenOptions::default())
            .expect_err("a contradiction")
            .to_string()
            .contains("same id")
    );
    write_json(
        &root.join("msvd/annotations/qa_test.json"),
        &json!([{"id": 3, "video_id": 12, "question": "who", "answer": "goat"}]),
    );
    write(
        &root.join("msvd/youtube_mapping.txt"),
        "clip_a vid12\n\nclip_b vid13\n",
    );
    let data = open(Task::Msvdqa, root, &OpenOptions::default()).expect("by the mapping");
    assert_eq!(data.questions[0].media[0].name, "msvd/videos/clip_a.avi");
    write(&root.join("msvd/youtube_mapping.txt"), "clip_a\n");
    assert!(
        open(Task::Msvdqa, root, &OpenOptions::default())
            .expect_err("mapping")
            .to_string()
            .contains("line 1")
    );
}
