//! Few-shot examples: retrieved, drawn, without pictures, by given features.

use std::fs;

use emu_eval::tasks::{FeatureIndex, OpenOptions, Task, open};

use crate::end_to_end::{evaluated, fresh, options};
use crate::fake::Fake;
use crate::fixtures;

/// Every task with a training split: examples are retrieved, the most similar stands last, and text-only ones have no picture.
#[test]
fn few_shot_with_and_without_pictures() {
    for task in Task::ALL
        .into_iter()
        .filter(|task| task.example_split().is_some())
    {
        for k in [2, 4] {
            let mut model = Fake::knowing(&[]);
            let mut choice = options("emu-i", k, false);
            choice.run.limit = Some(1);
            let (folder, done) = fresh(task, &choice, &mut model);
            let prompt = model.prompts.last().expect("prompt");
            let media: Vec<_> = prompt
                .split('<')
                .skip(1)
                .filter_map(|rest| rest.split_once('>'))
                .map(|(name, _)| name)
                .collect();
            let media: Vec<_> = media.into_iter().filter(|name| *name != "/s").collect();
            assert_eq!(media.len(), k + 1, "{}: {prompt}", task.name());
            assert!(
                folder
                    .path()
                    .join(format!("out/{}-examples.features", task.name()))
                    .is_file()
            );
            // Features are (last digit, 3): the cosine grows as the digit comes nearer to the question's.
            let digit = |name: &str| {
                name.chars()
                    .rfind(char::is_ascii_digit)
                    .and_then(|c| c.to_digit(10))
                    .expect("digit")
            };
            let asked = f64::from(digit(media[k]));
            let cosine = |name: &str| {
                let x = f64::from(digit(name));
                (x * asked + 9.0) / (x * x + 9.0).sqrt()
            };
            if !matches!(task, Task::Msvdqa | Task::Msrvttqa) {
                assert!(
                    media[..k]
                        .windows(2)
                        .all(|pair| cosine(pair[0]) <= cosine(pair[1]) + 1e-6),
                    "{media:?}"
                );
            }
            assert_eq!(done.result.settings["few_shot"]["choice"], "rices");
        }
        let mut model = Fake::knowing(&[]);
        let (folder, done) = fresh(task, &options("emu-i", 2, true), &mut model);
        let prompt = model.prompts.last().expect("prompt");
        assert_eq!(
            prompt.matches(".jpg>").count()
                + prompt.matches(".png>").count()
                + prompt.matches(".mp4>").count()
                + prompt.matches(".bmp>").count(),
            1,
            "{prompt}"
        );
        assert!(!folder.path().join("out/questions.features").exists());
        assert_eq!(done.result.settings["text_only"], true);
    }
}

#[test]
fn given_features_take_the_place_of_the_models() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path().join("data");
    fixtures::data(Task::Vqav2, &data);
    let index = folder.path().join("clip.features");
    let split = |split: &str| {
        let options = OpenOptions {
            split: Some(split.into()),
            ..OpenOptions::default()
        };
        open(Task::Vqav2, &data, &options).expect("open").questions
    };
    let names: Vec<_> = split("val")
        .into_iter()
        .chain(split("train"))
        .map(|question| question.media[0].name.clone())
        .collect();
    // Only 4 and 6 of the training pictures point where the questions do.
    let row = |name: &String| {
        (
            name.clone(),
            if name.contains("val2014")
                || name.ends_with("4.jpg") && !name.ends_with("14.jpg")
                || name.ends_with("6.jpg")
            {
                vec![1.0, 0.0]
            } else {
                vec![0.0, 1.0]
            },
        )
    };
    let rows: Vec<_> = names.iter().map(row).collect();
    FeatureIndex::write(&index, "clip", &rows).expect("write");
    let mut choice = options("emu-i", 2, false);
    choice.run.features = Some(index.clone());
    let mut model = Fake::knowing(&[]);
    evaluated(Task::Vqav2, folder.path(), &choice, &mut model).expect("evaluated");
    let answers = fs::read_to_string(folder.path().join("out/answers.jsonl")).expect("answers");
    assert_eq!(
        answers.matches("\"examples\":[\"1006\",\"1004\"]").count(),
        4,
        "{answers}"
    );

    FeatureIndex::write(&index, "clip", &rows[..9]).expect("write");
    let error = evaluated(Task::Vqav2, folder.path(), &choice, &mut model)
        .expect_err("one is missing")
        .to_string();
    assert!(
        error.contains("lacks 1 of") && error.contains("000000000009"),
        "{error}"
    );
}
