//! Tiny data sets in the official layouts; words and questions are invented.

use std::fs;
use std::path::Path;

use emu_eval::tasks::Task;
use serde_json::{Value, json};

pub fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("parent")).expect("folder");
    fs::write(path, bytes).expect("file");
}

pub fn write_json(path: &Path, value: &Value) {
    write(path, value.to_string());
}

/// A picture as a BMP of 16 x 12, which browsers show under any name.
pub fn picture(path: &Path, color: [u8; 3]) {
    let (width, height) = (16u32, 12u32);
    let mut bytes = b"BM".to_vec();
    for number in [54 + width * height * 3, 0, 54, 40, width, height] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend([1, 0, 24, 0]);
    bytes.extend([0; 24]);
    for y in 0..height {
        for x in 0..width {
            let dot = (4..9).contains(&x) && (3..8).contains(&y);
            bytes.extend(if dot { [255; 3] } else { color });
        }
    }
    write(path, bytes);
}

fn color(i: usize) -> [u8; 3] {
    [
        (i * 67 % 200) as u8 + 30,
        (i * 131 % 200) as u8 + 30,
        (i * 29 % 200) as u8 + 30,
    ]
}

/// What stands for a picture's content in captions.
const THINGS: [&str; 6] = ["kite", "boat", "lamp", "goat", "wheel", "cloud"];
const COLORS: [&str; 6] = ["mauve", "teal", "ochre", "azure", "sand", "plum"];

pub fn captions(i: usize) -> [String; 2] {
    let (thing, color) = (THINGS[i % 6], COLORS[i % 6]);
    [
        format!("A {color} {thing} over the quiet hill."),
        format!("one {thing} that is {color}, seen from far away"),
    ]
}

/// Ten answers, of which `agree` are the color of picture `i`.
pub fn ten(i: usize, agree: usize) -> Vec<String> {
    let answer = |k: usize| {
        if k < agree {
            COLORS[i % 6].to_owned()
        } else {
            format!("unlike {k}")
        }
    };
    (0..10).map(answer).collect()
}

/// Writes the data of a task. Evaluated questions are about the pictures 0 to 3, training questions about 4 to 9.
pub fn data(task: Task, root: &Path) {
    match task {
        Task::Coco => karpathy(root, "coco", "dataset_coco.json"),
        Task::Flickr30k => karpathy(root, "flickr30k", "dataset_flickr30k.json"),
        Task::Nocaps => nocaps(root),
        Task::Vqav2 => vqa(root, "v2_OpenEnded_mscoco", "v2_mscoco"),
        Task::Okvqa => vqa(root, "OpenEnded_mscoco", "mscoco"),
        Task::Vizwiz => vizwiz(root),
        Task::Visdial => visdial(root),
        Task::Mmvet => mmvet(root),
        Task::Msvdqa => video_qa(root, "vid"),
        Task::Msrvttqa => video_qa(root, "video"),
        Task::Nextqa => nextqa(root),
        Task::Easyvqa => easy_vqa(root),
        Task::Own => own(root),
    }
}

fn karpathy(root: &Path, name: &str, file: &str) {
    let image = |i: usize| {
        let split = match i {
            0..4 => "test",
            4..7 => "train",
            _ => "restval",
        };
        let filename = format!(
            "{}{i:012}.jpg",
            if name == "coco" { "COCO_val2014_" } else { "" }
        );
        let folder = if name == "coco" { "val2014" } else { "" };
        picture(&root.join("images").join(folder).join(&filename), color(i));
        let sentences: Vec<_> = captions(i)
            .iter()
            .enumerate()
            .map(|(k, raw)| json!({"sentid": 10 * i + k, "imgid": i, "raw": raw}))
            .collect();
        let mut image =
            json!({"filename": filename, "imgid": i, "split": split, "sentences": sentences});
        if name == "coco" {
            image["filepath"] = json!(folder);
            image["cocoid"] = json!(i);
        }
        image
    };
    write_json(
        &root.join(file),
        &json!({"dataset": name, "images": (0..10).map(image).collect::<Vec<_>>()}),
    );
}

fn nocaps(root: &Path) {
    let images: Vec<_> = (0..4)
        .map(|i| {
            let file = format!("{i:04x}.jpg");
            picture(&root.join("val").join(&file), color(i));
            let domain = ["in-domain", "near-domain", "near-domain", "out-domain"][i];
            json!({"id": i, "file_name": file, "open_images_id": format!("{i:04x}"), "domain": domain, "width": 16, "height": 12})
        })
        .collect();
    let annotations: Vec<_> = (0..4)
        .flat_map(|i| {
            captions(i)
                .into_iter()
                .enumerate()
                .map(move |(k, text)| json!({"id": 10 * i + k, "image_id": i, "caption": text}))
        })
        .collect();
    write_json(
        &root.join("nocaps_val_4500_captions.json"),
        &json!({"images": images, "annotations": annotations}),
    );
}

fn vqa(root: &Path, questions: &str, annotations: &str) {
    for (set, pictures) in [("val2014", 0..4), ("train2014", 4..10), ("test2015", 0..4)] {
        let asked: Vec<_> = pictures
            .clone()
            .map(|i| {
                picture(&root.join(format!("{set}/COCO_{set}_{i:012}.jpg")), color(i));
                json!({"question_id": 1000 + i, "image_id": i, "question": format!("What color is the {}?", THINGS[i % 6])})
            })
            .collect();
        write_json(
            &root.join(format!("{questions}_{set}_questions.json")),
            &json!({"data_subtype": set, "questions": asked}),
        );
        let answered: Vec<_> = pictures
            .map(|i| {
                let answers = ten(i, if i == 1 { 3 } else { 9 });
                let answers: Vec<_> = (1..).zip(answers).map(|(k, answer)| json!({"answer_id": k, "answer": answer, "raw_answer": answer, "answer_confidence": "yes"})).collect();
                json!({"question_id": 1000 + i, "image_id": i, "question_type": "what color", "answer_type": if i % 2 == 0 { "other" } else { "number" },
                       "multiple_choice_answer": COLORS[i % 6], "answers": answers})
            })
            .collect();
        if set != "test2015" {
            write_json(
                &root.join(format!("{annotations}_{set}_annotations.json")),
                &json!({"annotations": answered}),
            );
        }
    }
}

fn vizwiz(root: &Path) {
    for (split, pictures) in [("val", 0..4), ("train", 4..10), ("test", 0..4)] {
        let entries: Vec<_> = pictures
            .map(|i| {
                let image = format!("VizWiz_{split}_{i:08}.jpg");
                picture(&root.join(split).join(&image), color(i));
                let mut entry = json!({"image": image, "question": format!("Which color has this {}?", THINGS[i % 6])});
                if split != "test" {
                    let answers = if i == 3 { vec!["unanswerable".to_owned(); 10] } else { ten(i, 9) };
                    let answers: Vec<_> = answers.iter().map(|answer| json!({"answer": answer, "answer_confidence": "maybe"})).collect();
                    entry["answers"] = json!(answers);
                    entry["answer_type"] = json!(if i == 3 { "unanswerable" } else { "other" });
                    entry["answerable"] = json!(u8::from(i != 3));
                }
                entry
            })
            .collect();
        write_json(&root.join(format!("{split}.json")), &json!(entries));
    }
}

fn visdial(root: &Path) {
    let answers: Vec<_> = COLORS
        .iter()
        .map(|color| format!("it is {color}"))
        .collect();
    let questions: Vec<_> = THINGS
        .iter()
        .map(|thing| format!("what color is the {thing}"))
        .collect();
    for (split, pictures) in [("val", 0..2), ("train", 4..10)] {
        let dialogs: Vec<_> = pictures
            .clone()
            .map(|i| {
                let path = match split {
                    "val" => format!("VisualDialog_val2018/VisualDialog_val2018_{i:012}.jpg"),
                    _ => format!("train2014/COCO_train2014_{i:012}.jpg"),
                };
                picture(&root.join(path), color(i));
                let rounds: Vec<_> = (0..2)
                    .map(|r| json!({"question": (i + r) % 6, "answer": (i + r) % 6, "answer_options": [5, 4, 3, 2, 1, 0], "gt_index": 5 - (i + r) % 6}))
                    .collect();
                json!({"image_id": i, "caption": "not used", "dialog": rounds})
            })
            .collect();
        let file = json!({"version": "1.0", "split": split, "data": {"questions": questions, "answers": answers, "dialogs": dialogs}});
        write_json(&root.join(format!("visdial_1.0_{split}.json")), &file);
    }
    let dense: Vec<_> = (0..2)
        .map(|i| {
            let mut relevance = [0.0; 6];
            relevance[5 - (i + 1)] = 1.0;
            relevance[0] = 0.5;
            json!({"image_id": i, "round_id": 2, "gt_relevance": relevance})
        })
        .collect();
    write_json(
        &root.join("visdial_1.0_val_dense_annotations.json"),
        &json!(dense),
    );
}

fn mmvet(root: &Path) {
    let mut file = json!({});
    let rows = [
        ("How many wheels?", "three <OR> 3", vec!["rec", "math"]),
        ("Which two colors?", "mauve <AND> teal", vec!["rec"]),
        ("What is written?", "quiet hill", vec!["ocr"]),
        (
            "Tell a story.",
            "a long story about a goat that sails over the sea with a lamp",
            vec!["gen", "rec"],
        ),
    ];
    for (i, (question, answer, capability)) in rows.into_iter().enumerate() {
        picture(&root.join(format!("images/v1_{i}.png")), color(i));
        file[format!("v1_{i}")] = json!({"imagename": format!("v1_{i}.png"), "question": question, "answer": answer, "imagesource": "own", "capability": capability});
    }
    write_json(&root.join("mm-vet.json"), &file);
}

fn video_qa(root: &Path, clip: &str) {
    for (split, clips) in [("test", 0..4), ("train", 4..10)] {
        let entries: Vec<_> = clips
            .map(|i| {
                write(&root.join(format!("videos/{clip}{i}.mp4")), "frames");
                json!({"id": i, "video_id": i, "question": format!("what moves in number {i}?"), "answer": THINGS[i % 6]})
            })
            .collect();
        write_json(&root.join(format!("{split}_qa.json")), &json!(entries));
    }
}

fn nextqa(root: &Path) {
    let mut map = json!({});
    for (split, clips) in [("test", 0..4), ("train", 4..10)] {
        let mut csv = "video,frame_count,width,height,question,answer,qid,type\n".to_owned();
        for i in clips {
            write(&root.join(format!("videos/11{i}/77{i}.mp4")), "frames");
            map[format!("77{i}")] = json!(format!("11{i}/77{i}"));
            csv += &format!(
                "77{i},100,640,480,\"why does it move, number {i}\",{},{i},{}\n",
                THINGS[i % 6],
                ["CW", "DB"][i % 2]
            );
        }
        write(&root.join(format!("{split}.csv")), csv);
    }
    write_json(&root.join("map_vid_vidorID.json"), &map);
    write_json(
        &root.join("add_reference_answer_test.json"),
        &json!({"771": {"1": "ship"}}),
    );
}

fn easy_vqa(root: &Path) {
    for (split, pictures) in [("test", 0..4), ("train", 4..10)] {
        let entries: Vec<_> = pictures
            .map(|i| {
                picture(&root.join(format!("{split}/images/{i}.png")), color(i));
                json!([
                    format!("what color is shape {i}?"),
                    if i == 2 { "yes" } else { COLORS[i % 6] },
                    i
                ])
            })
            .collect();
        write_json(
            &root.join(format!("{split}/questions.json")),
            &json!(entries),
        );
    }
}

fn own(root: &Path) {
    for (name, pictures) in [("questions", 0..4), ("examples", 4..10)] {
        let mut csv = "picture,question,answer,kind\n".to_owned();
        for i in pictures {
            picture(&root.join(format!("p{i}.bmp")), color(i));
            csv += &format!(
                "p{i}.bmp,\"Which color, if \"\"any\"\"?\",A {} | very {},{}\n",
                COLORS[i % 6],
                COLORS[i % 6],
                ["name", "color", ""][i % 3]
            );
        }
        write(&root.join(format!("{name}.csv")), csv);
    }
}
