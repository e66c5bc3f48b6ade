//! Every task, zero-shot and few-shot, from its files to its report.

use std::fs;
use std::path::Path;

use emu_eval::tasks::{
    EvalError, EvaluateOptions, Evaluated, MediaKind, OpenOptions, Preset, ProblemKind, Rounds,
    RunOptions, Shots, Task, Thumbnail, evaluate,
};
use serde_json::Value;

use crate::fake::Fake;
use crate::fixtures;

pub fn options(preset: &str, k: usize, text_only: bool) -> EvaluateOptions {
    EvaluateOptions {
        open: OpenOptions::default(),
        preset: Preset::named(preset).expect("preset"),
        run: RunOptions {
            shots: Shots { k, text_only },
            batch: 3,
            ..RunOptions::default()
        },
        resamples: 200,
        meteor: None,
        judge: None,
        wordnet: None,
    }
}

pub fn evaluated(
    task: Task,
    root: &Path,
    options: &EvaluateOptions,
    model: &mut Fake,
) -> Result<Evaluated, EvalError> {
    let mut thumbnail = |media: &emu_eval::tasks::Media| match media.kind {
        MediaKind::Picture => Some(Thumbnail {
            mime: "image/bmp",
            bytes: fs::read(&media.path).ok()?,
        }),
        MediaKind::Video => None,
    };
    evaluate(
        task,
        &root.join("data"),
        &root.join("out"),
        options,
        model,
        &mut |_| true,
        &mut thumbnail,
    )
}

/// Evaluates on fresh fixtures.
pub fn fresh(
    task: Task,
    options: &EvaluateOptions,
    model: &mut Fake,
) -> (tempfile::TempDir, Evaluated) {
    let folder = tempfile::tempdir().expect("folder");
    fixtures::data(task, &folder.path().join("data"));
    let done = evaluated(task, folder.path(), options, model)
        .unwrap_or_else(|error| panic!("{}: {error}", task.name()));
    (folder, done)
}

fn main_metric(done: &Evaluated) -> (String, f64) {
    let first = done.result.metrics.first().expect("metric");
    (first.name.clone(), first.value)
}

fn metric(done: &Evaluated, name: &str) -> f64 {
    done.result
        .metrics
        .iter()
        .find(|metric| metric.name == name)
        .expect(name)
        .value
}

fn submitted(done: &Evaluated) -> Value {
    let submission = done.submission.as_ref().expect("submission");
    assert_eq!(submission.missing, 0);
    let text = fs::read_to_string(&submission.path).expect("file");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn captions_are_scored_and_submitted() {
    for (task, preset) in [
        (Task::Coco, "emu-i"),
        (Task::Coco, "emu"),
        (Task::Nocaps, "emu-i"),
        (Task::Flickr30k, "pack"),
    ] {
        let [first, second] = [0, 1].map(|i| fixtures::captions(i)[0].clone());
        let answers = [
            ("0", first.as_str()),
            ("1", second.as_str()),
            ("2", "Fog. And more"),
            ("caption", ""),
        ];
        let (_folder, done) = fresh(
            task,
            &options(preset, 0, false),
            &mut Fake::knowing(&answers),
        );
        let (name, value) = main_metric(&done);
        assert_eq!(name, "CIDEr");
        assert!(value > 100.0, "{value}");
        assert!(metric(&done, "BLEU-4") > 30.0 && metric(&done, "ROUGE-L") > 40.0);
        assert!(done.result.complete);
        let submitted = submitted(&done);
        assert_eq!(submitted.as_array().expect("list").len(), 4);
        assert_eq!(
            submitted[2],
            serde_json::json!({"image_id": 2, "caption": "fog"})
        );
    }
}

#[test]
fn nocaps_is_also_scored_by_domain() {
    let (_folder, done) = fresh(
        Task::Nocaps,
        &options("emu-i", 0, false),
        &mut Fake::knowing(&[]),
    );
    let groups: Vec<_> = done
        .result
        .groups
        .iter()
        .map(|group| (group.name.as_str(), group.questions))
        .collect();
    assert_eq!(
        groups,
        [("near-domain", 2), ("in-domain", 1), ("out-domain", 1)]
    );
    let error = evaluated(
        Task::Nocaps,
        _folder.path(),
        &options("emu-i", 2, false),
        &mut Fake::knowing(&[]),
    );
    assert!(
        error
            .expect_err("no training split")
            .to_string()
            .contains("--shots 0")
    );
}

#[test]
fn questions_about_pictures() {
    // 9 of 10 people, 3 of 10, nobody, 9 of 10.
    let known = [
        ("1000", "Mauve."),
        ("1001", "it is teal, maybe"),
        ("1002", "fog"),
        ("1003", "Azure"),
    ];
    for (task, preset) in [
        (Task::Vqav2, "emu-i"),
        (Task::Okvqa, "emu-i"),
        (Task::Vqav2, "emu"),
        (Task::Okvqa, "pack"),
    ] {
        let mut model = Fake::knowing(&known);
        let (_folder, done) = fresh(task, &options(preset, 0, false), &mut model);
        let (name, value) = main_metric(&done);
        assert!(name.contains("Emu's scorer"), "{name}");
        assert!(
            (value - (100.0 + 90.0 + 0.0 + 100.0) / 4.0).abs() < 1e-9,
            "{name} {value}"
        );
        assert!(done.result.metrics[1].name.contains("original"));
        let interval = done.result.metrics[0].interval.expect("interval");
        assert!(
            interval.low < value && value < interval.high && interval.low >= 0.0,
            "{interval:?}"
        );
        let answers = submitted(&done);
        assert_eq!(
            answers[1],
            serde_json::json!({"question_id": 1001, "answer": "teal"})
        );
        let groups: Vec<_> = done
            .result
            .groups
            .iter()
            .map(|group| (group.name.as_str(), group.value.round()))
            .collect();
        assert!(
            groups.contains(&("number", 95.0)) && groups.contains(&("other", 50.0)),
            "{groups:?}"
        );
        match preset {
            "emu" => {
                assert_eq!(model.batches, [3, 1, 3, 1]);
                assert_eq!(
                    model.prompts[4],
                    "a picture of \"a hill by the sea\". based on the picture, \"What color is the kite?\" short answer:"
                );
            }
            _ => assert_eq!(model.batches, [3, 1]),
        }
    }
}

#[test]
fn a_split_that_a_server_scores_gives_a_submission_only() {
    let mut choice = options("emu-i", 0, false);
    choice.open.split = Some("test".into());
    let (folder, done) = fresh(
        Task::Vqav2,
        &choice,
        &mut Fake::knowing(&[("1002", "Ochre")]),
    );
    assert!(done.result.metrics.is_empty() && done.result.complete);
    let answers = submitted(&done);
    let ids: Vec<_> = answers
        .as_array()
        .expect("list")
        .iter()
        .map(|answer| answer["question_id"].as_u64())
        .collect();
    assert_eq!(ids, [Some(1000), Some(1001), Some(1002), Some(1003)]);
    let report = fs::read_to_string(folder.path().join("out/report.md")).expect("report");
    assert!(
        report.contains("scored by a server")
            && report.contains("All 4 questions of the split were answered")
    );

    choice.run.limit = Some(2);
    let (_folder, done) = fresh(Task::Vizwiz, &choice, &mut Fake::knowing(&[]));
    let submission = done.submission.expect("submission");
    assert_eq!(submission.missing, 2);
    assert!(
        submission
            .path
            .ends_with("partial-vizwiz-test-results.json"),
        "{:?}",
        submission.path
    );
}

#[test]
fn vizwiz_asks_first_whether_the_answer_is_known() {
    let known = ["VizWiz_val_00000000.jpg", "VizWiz_val_00000001.jpg"];
    let answers = [(known[0], "mauve"), (known[1], "sand")];
    let mut model = Fake::knowing(&answers);
    let (_folder, done) = fresh(Task::Vizwiz, &options("emu-i", 0, false), &mut model);
    // Right, wrong, unanswerable though it is answerable, and rightly unanswerable.
    assert_eq!(main_metric(&done).1, (100.0 + 0.0 + 0.0 + 100.0) / 4.0);
    assert!(
        model.prompts[0]
            .ends_with("phrase, \"Which color has this kite?\", is the answer known? [ASSISTANT]:")
    );
    let answers = submitted(&done);
    assert_eq!(
        answers[3],
        serde_json::json!({"image": "VizWiz_val_00000003.jpg", "answer": "unanswerable"})
    );
    assert_eq!(answers[0]["answer"], "mauve");
}

#[test]
fn dialogs_are_ranked() {
    let mut model = Fake::knowing(&[]);
    // Candidates are listed backwards: that of color c has index 5 - c.
    model.preferred = [("0:1", 5), ("0:2", 0), ("1:1", 4), ("1:2", 3)]
        .map(|(id, at)| (id.to_owned(), at))
        .into();
    let (_folder, done) = fresh(Task::Visdial, &options("emu-i", 0, false), &mut model);
    let (name, ndcg) = main_metric(&done);
    assert_eq!(
        (name.as_str(), done.result.metrics[0].questions),
        ("NDCG", 2)
    );
    // 0:2 prefers index 0 (0.5), then 1, ..., so that index 4 (1.0) is beyond the two relevant; 1:2 prefers index 3 (1.0), then 0.
    let ideal = 1.0 + 0.5 / 3f64.log2();
    assert!(
        (ndcg - 100.0 * (0.5 / ideal + 1.0) / 2.0).abs() < 1e-4,
        "{ndcg}"
    );
    assert!((metric(&done, "MRR") - 100.0 * (1.0 + 1.0 / 5.0 + 1.0 + 1.0) / 4.0).abs() < 1e-9);
    assert_eq!(
        (
            metric(&done, "R@1"),
            metric(&done, "R@5"),
            metric(&done, "mean rank")
        ),
        (75.0, 100.0, 2.0)
    );
    assert!(model.prompts[1].ends_with(
        "[USER]: <VisualDialog_val2018/VisualDialog_val2018_000000000000.jpg></s> [USER]: \"what color is the kite\"? [ASSISTANT]: \"it is mauve\".</s> \
         [USER]: \"what color is the boat\"? [ASSISTANT]:"
    ), "{}", model.prompts[1]);
    let ranks = submitted(&done);
    assert_eq!(
        ranks[1],
        serde_json::json!({"image_id": 0, "round_id": 2, "ranks": [1, 2, 3, 4, 5, 6]})
    );
    assert_eq!(ranks[3]["ranks"], serde_json::json!([2, 3, 4, 1, 5, 6]));
}

#[test]
fn only_the_dense_rounds_of_dialogs() {
    let mut choice = options("emu", 2, true);
    choice.open.rounds = Rounds::Dense;
    let mut model = Fake::knowing(&[]);
    let (_folder, done) = fresh(Task::Visdial, &choice, &mut model);
    assert_eq!(
        (done.result.questions.scored, done.result.complete),
        (2, true)
    );
    assert!(
        !model.prompts[0].contains("train2014"),
        "text-only: {}",
        model.prompts[0]
    );
    assert_eq!(
        model.prompts[0].matches("short answer:").count(),
        4,
        "{}",
        model.prompts[0]
    );
}

#[test]
fn mm_vet_writes_predictions_and_a_score_of_another_name() {
    let known = [
        ("v1_0", "There are 3 of them."),
        ("v1_1", "Mauve and blue"),
        ("v1_2", "QUIET HILL"),
        ("v1_3", "once"),
    ];
    let (_folder, done) = fresh(
        Task::Mmvet,
        &options("emu-i", 0, false),
        &mut Fake::knowing(&known),
    );
    let (name, value) = main_metric(&done);
    assert!(name.contains("not the MM-Vet score"), "{name}");
    assert!(
        (value - (100.0 + 50.0 + 100.0) / 3.0).abs() < 1e-9,
        "{value}"
    );
    assert_eq!(done.result.questions.scored, 3);
    assert_eq!(done.result.paper_metric.as_deref(), Some("judged by GPT-4"));
    assert_eq!(submitted(&done)["v1_2"], "QUIET HILL");
    let rec = done
        .result
        .groups
        .iter()
        .find(|group| group.by == "capability" && group.name == "rec")
        .expect("rec");
    assert_eq!((rec.questions, rec.value), (2, 75.0));
}

#[test]
fn questions_about_videos() {
    for task in [Task::Msvdqa, Task::Msrvttqa] {
        let known = [
            ("0", "The kite."),
            ("1", "a Boat, small"),
            ("2", "nothing"),
            ("3", "goats"),
        ];
        let mut model = Fake::knowing(&known);
        let (_folder, done) = fresh(task, &options("emu-i", 0, false), &mut model);
        assert_eq!(main_metric(&done), ("exact match".to_owned(), 50.0));
        assert!(
            model.prompts[0].contains("presented with a video")
                && model.prompts[0].contains("0.mp4>"),
            "{}",
            model.prompts[0]
        );
        assert!(done.submission.is_none());
    }
    let known = [("770_0", "kite"), ("771_1", "Ship."), ("772_2", "boat")];
    let (_folder, done) = fresh(
        Task::Nextqa,
        &options("emu", 0, false),
        &mut Fake::knowing(&known),
    );
    // 771_1 has a second reference.
    assert_eq!(main_metric(&done), ("exact match".to_owned(), 50.0));
    assert_eq!(
        done.result.paper_metric.as_deref(),
        Some("by their size WUPS")
    );
    assert_eq!(submitted(&done)["771"]["1"], "ship");
    assert!(
        done.result
            .notes
            .join(" ")
            .contains("WUPS was not computed")
    );
}

/// A database of WordNet with two kinds of vehicle: of the words of the answers it has kite, boat and lamp.
fn wordnet(folder: &Path) {
    let data = "00000010 03 n 01 thing 0 000 | all\n00000020 06 n 01 vehicle 0 001 @ 00000010 n 0000 | it carries\n\
                00000030 06 n 01 boat 0 001 @ 00000020 n 0000 | on water\n00000040 06 n 01 kite 0 001 @ 00000020 n 0000 | in the air\n\
                00000050 06 n 01 lamp 0 001 @ 00000010 n 0000 | it shines\n";
    let index = "thing n 1 0 1 0 00000010\nvehicle n 1 1 @ 1 0 00000020\nboat n 1 1 @ 1 0 00000030\n\
                 kite n 1 1 @ 1 0 00000040\nlamp n 1 1 @ 1 0 00000050\n";
    fixtures::write(&folder.join("data.noun"), data);
    fixtures::write(&folder.join("index.noun"), index);
    for pos in ["verb", "adj", "adv"] {
        fixtures::write(&folder.join(format!("data.{pos}")), "");
        fixtures::write(&folder.join(format!("index.{pos}")), "");
        fixtures::write(&folder.join(format!("{pos}.exc")), "");
    }
}

#[test]
fn next_qa_is_scored_by_the_nearness_of_words() {
    let folder = tempfile::tempdir().expect("folder");
    fixtures::data(Task::Nextqa, &folder.path().join("data"));
    let mut choice = options("emu-i", 0, false);
    choice.wordnet = Some(folder.path().join("wordnet"));
    wordnet(&folder.path().join("wordnet"));
    // The references are kite, boat or ship (a question of yes or no), lamp, goat.
    let known = [
        ("770_0", "the boats"),
        ("771_1", "kite"),
        ("772_2", "lamps"),
        ("773_3", "lamp"),
    ];
    let score = || {
        evaluated(
            Task::Nextqa,
            folder.path(),
            &choice,
            &mut Fake::knowing(&known),
        )
    };
    let error = score();
    let error = error.expect_err("no exceptions").to_string();
    assert!(
        error.contains("noun.exc") && error.contains("wordnet"),
        "{error}"
    );
    fixtures::write(&folder.path().join("wordnet/noun.exc"), "");
    let done = score();
    let done = done.expect("evaluated");
    let (name, value) = main_metric(&done);
    assert_eq!(name, "WUPS at 0 (own base forms)");
    // Boat and kite meet in vehicle: 4 / 6. A question of yes or no is right or wrong. A goat is in no index.
    assert!(
        (value - 100.0 * (4.0 / 6.0 + 0.0 + 1.0 + 0.0) / 4.0).abs() < 1e-9,
        "{value}"
    );
    assert_eq!(metric(&done, "exact match"), 0.0);
    assert!(
        done.result
            .notes
            .join(" ")
            .contains("stop words of our own")
    );
    assert!(
        done.result.paper_metric.is_some(),
        "it is not the original's number"
    );
    fixtures::write(&folder.path().join("data/stopwords.txt"), "the\nboat\n");
    let done = score();
    let done = done.expect("evaluated");
    assert!((main_metric(&done).1 - 25.0).abs() < 1e-9);
    assert!(done.result.notes.join(" ").contains("with its stop words"));
}

#[test]
fn multiple_choice_of_next_qa_is_ranked() {
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path().join("data");
    let mut csv =
        "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n".to_owned();
    for i in 0..3 {
        fixtures::write(&root.join(format!("8{i}.mp4")), "frames");
        csv += &format!("8{i},9,6,4,how many,{i},0,TN,one,two,three,four,five\n");
    }
    csv += "80,9,6,4,how few,7,1,TN,one,two,three,four,five\n";
    fixtures::write(&root.join("test.csv"), csv);
    let mut model = Fake::knowing(&[]);
    model.preferred = [("80_0", 0), ("81_0", 3), ("82_0", 2)]
        .map(|(id, at)| (id.to_owned(), at))
        .into();
    let done = evaluated(
        Task::Nextqa,
        folder.path(),
        &options("emu-i", 0, false),
        &mut model,
    )
    .expect("evaluated");
    let (name, value) = main_metric(&done);
    assert_eq!(name, "accuracy (multiple choice)");
    assert!((value - 200.0 / 3.0).abs() < 1e-9);
    assert_eq!(done.result.problems.count(ProblemKind::BadIndex), 1);
    assert_eq!(done.result.published, []);
    assert!(!done.result.complete);
}

#[test]
fn tables_of_ones_own() {
    let known = [
        ("1", "mauve"),
        ("2", "Very teal."),
        ("3", "fog"),
        ("4", "It is more azure than plum"),
    ];
    let (_folder, done) = fresh(
        Task::Own,
        &options("pack", 2, false),
        &mut Fake::knowing(&known),
    );
    assert_eq!(main_metric(&done), ("exact match".to_owned(), 50.0));
    assert_eq!(metric(&done, "reference found in the answer"), 75.0);
    let groups: Vec<_> = { done.result.groups.iter() }
        .map(|group| (group.name.as_str(), group.value, group.questions))
        .collect();
    assert_eq!(groups, [("name", 50.0, 2), ("color", 100.0, 1)]);
}

#[test]
fn easy_vqa_zero_shot_and_few_shot() {
    let known = [("0", "mauve"), ("1", "teal"), ("2", "Yes."), ("3", "no")];
    for (preset, k, text_only) in [("pack", 0, false), ("pack", 2, false), ("emu-i", 2, true)] {
        let mut model = Fake::knowing(&known);
        let (_folder, done) = fresh(Task::Easyvqa, &options(preset, k, text_only), &mut model);
        assert_eq!(main_metric(&done), ("exact match".to_owned(), 75.0));
        assert!(done.result.complete);
        let yes = { done.result.groups.iter() }
            .find(|group| group.name == "yes/no")
            .expect("group");
        assert_eq!((yes.value, yes.questions), (100.0, 1));
        let prompt = model.prompts.last().expect("prompt");
        assert_eq!(
            prompt.matches("what color is shape").count(),
            k + 1,
            "{prompt}"
        );
        let pictures = if text_only { 1 } else { k + 1 };
        assert_eq!(prompt.matches("/images/").count(), pictures, "{prompt}");
        // Examples come from the training pictures 4 to 9.
        assert_eq!(prompt.matches("<train/").count(), pictures - 1, "{prompt}");
    }
}

#[test]
fn easy_vqa_as_the_package_unpacks() {
    let folder = tempfile::tempdir().expect("folder");
    let unpacked = folder.path().join("data/easy_vqa/data");
    fixtures::data(Task::Easyvqa, &unpacked);
    let model = &mut Fake::knowing(&[]);
    let done = evaluated(
        Task::Easyvqa,
        folder.path(),
        &options("pack", 2, false),
        model,
    );
    let done = done.expect("evaluated");
    assert_eq!(done.result.questions.scored, 4);
    assert!(done.result.problems.is_empty());
}
