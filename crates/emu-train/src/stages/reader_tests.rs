use std::fs;
use std::path::Path;

use emu_model::weights;
use emu_pack::convert::open_weights;
use emu_pack::{TensorData as Stored, TensorSource, write_safetensors};

use super::super::states::tests::tiny;
use super::super::trigger::{MISSED, TRIGGER};
use super::*;
use crate::checkpoint::Checkpoint;

/// Writes small lists into a folder. Returns a configuration that uses them.
fn config(folder: &Path, out: &str, steps: u64) -> TrainConfig {
    let names = [
        "dog", "cat", "owl", "cow", "bee", "hat", "cup", "key", "bus", "sun",
    ];
    let concepts: Vec<String> = { names.iter().enumerate() }
        .map(|(i, name)| format!("{{name='{name}',hexcode='{i}',drawn=true}}"))
        .collect();
    let files = [
        (
            "concepts",
            format!(
                "canonical_set='a'\nunseen=[]\ncolours=[{{name='red',rgb=[1,2,3]}},{{name='blue',rgb=[1,2,3]}}]\n\
                 read=[{}]",
                concepts.join(",")
            ),
        ),
        (
            "wordings",
            "train=['draw {}','paint {}','a picture of {}','sketch {}','make {}','show {}']\n\
             held_out=['doodle {}','depict {}']\n\
             other_train=['what is {}?','hello','i saw {}','thanks','why?','tell me more']\n\
             other_held_out=['bye','who has {}?']"
                .into(),
        ),
        (
            "synonyms",
            "[synonyms]\ndog={train=['hound'],held_out=['puppy']}".into(),
        ),
        (
            "changes",
            "[colour]\ntrain=['make it {}']\nheld_out=['in {}']\n[object]\ntrain=['now {}']\nheld_out=['rather {}']".into(),
        ),
        (
            "persona",
            "[[topic]]\ntrain=['who are you?']\nheld_out=['your name?']\nanswers=['Emu.']".into(),
        ),
        (
            "prompts",
            "[ordinary]\ntrain=['why?','how {}','where','when','who has {}','which']\nheld_out=['what {}?']\n\
             [own]\ntrain=['hi','hey','you','your {}','thanks','bye']\nheld_out=['yours?']"
                .into(),
        ),
    ];
    let mut paths = String::new();
    for (name, text) in files {
        let path = folder.join(format!("{name}.toml"));
        fs::write(&path, text).expect("writes");
        if name != "prompts" {
            paths += &format!("{name} = '{}'\n", path.display());
        }
    }
    let text = format!(
        "stage='reader'\nout='{}'\nseed=3\nsteps={steps}\nbatch=8\n[optimiser]\nlr=3e-3\n[log]\neval_every=10\n\
         [options]\nlm='none'\npictures_seed=1\nrequests=60\nothers=30\nevaluate=4\nlayers=[0,1]\nwindow=24\nwidth=32\n\
         heads=2\ndepth=1\ndropout=0.1\n{paths}\
         [options.spelling]\nobjects=2\ntokens=2\n[options.trigger]\ntokens=[0,4]\npenalties=[1e-3,1e-1]\nfalse_alarms=0.05\n\
         [options.ordinary]\nprompts='{}'\ncount=12\n\
         [options.ordinary.rule]\ntokens=[0]\npenalties=[1e-2]\nfalse_alarms=0.1",
        folder.join(out).display(),
        folder.join("prompts.toml").display(),
    );
    TrainConfig::parse(&text, Path::new("reader.toml")).expect("a configuration")
}

/// Figures of an evaluation, by name.
type Figures = Vec<(String, f32)>;

/// Runs the stage on the tiny language model. Returns its figures by step.
fn train(
    config: &TrainConfig,
    stop_at: Option<u64>,
    resume: bool,
) -> (crate::Outcome<Reader>, Vec<(u64, Figures)>) {
    let mut figures = vec![];
    let stop = crate::StopFlag::new();
    let raised = stop.clone();
    let mut on_event = |event: TrainEvent| match event {
        TrainEvent::Step(metrics) if stop_at == Some(metrics.step + 1) => raised.stop(),
        TrainEvent::Evaluated {
            step,
            figures: found,
        } => figures.push((step, found.to_vec())),
        _ => {}
    };
    let mut options = RunOptions {
        resume,
        stop,
        on_event: Some(&mut on_event),
        ..RunOptions::default()
    };
    let model = tiny();
    let own: Options = config.options().expect("options");
    let _sequence = emu_kernels::init::seed(config.seed);
    let mut stage = ReaderStage::over(&own, &model, config, &mut options).expect("a stage");
    let device = config.training_device(&Device::flex());
    let net = stage.init(&device);
    let outcome = crate::run(config, &mut stage, net, &device, options).expect("trains");
    (outcome, figures)
}

fn bits(model: &Reader) -> Vec<u8> {
    let mut all = vec![];
    weights::export(model, |tensor| {
        all.extend(tensor.bytes);
        Ok::<_, TrainError>(())
    })
    .expect("numbers");
    all
}

#[test]
fn what_is_asked_for_is_learnt_and_measured() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path(), "run", 120);
    let (_, figures) = train(&config, None, false);
    let names: Vec<&str> = figures[0].1.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(figures[0].0, 0, "the trigger comes first");
    for name in [
        "trigger.held_out.recall",
        "trigger.synonyms.recall",
        "trigger.false_alarms",
        "alone.ordinary_held_out.recall",
        "alone.false_alarms",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    let figure = |step: usize, name: &str| {
        let found = figures[step].1.iter().find(|(n, _)| n == name);
        found
            .unwrap_or_else(|| panic!("{name} of {:?}", figures[step]))
            .1
    };
    assert_eq!(figure(0, "trigger.false_alarms.of"), 2.0);
    assert!(figure(1, "synonyms.spelled") <= 1.0);
    assert!(figures[1].1.iter().any(|(n, _)| n == "changes.colour"));
    // Losses of the first and last steps.
    let metrics = fs::read_to_string(folder.path().join("run/metrics.jsonl")).expect("metrics");
    let losses: Vec<f64> = { metrics.lines() }
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            line["loss"].as_f64().expect("a loss")
        })
        .collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (early, late) = (mean(&losses[..10]), mean(&losses[110..]));
    assert!(late < 0.75 * early, "{early} {late}");

    let missed = fs::read_to_string(folder.path().join("run").join(MISSED)).expect("a list");
    let count = |mark: &str| missed.lines().filter(|l| l.starts_with(mark)).count() as f32;
    let alarms = ["trigger", "alone"].map(|name| figure(0, &format!("{name}.false_alarms")));
    assert_eq!(count("+ "), alarms[0] + alarms[1]);
    let found = figure(0, "trigger.held_out.recall");
    assert_eq!(count("- held_out: "), (4.0 * (1.0 - found)).round());

    let trigger = open_weights(folder.path().join("run").join(TRIGGER)).expect("a file");
    assert_eq!(
        trigger.read("trigger.weight").expect("there").info.shape,
        [1, 64 + 2 * 64]
    );
    let alone = trigger.read("alone.weight").expect("there");
    assert_eq!(alone.info.shape, [1, 64 + 64]);
}

#[test]
fn twenty_steps_are_ten_and_ten_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, _) = train(&config(folder.path(), "whole", 20), None, false);
    let parts = config(folder.path(), "parts", 20);
    let (first, _) = train(&parts, Some(10), false);
    assert_eq!(first.step, 10);
    let states = folder.path().join("parts/states");
    let count = || fs::read_dir(&states).expect("a folder").count();
    let before = count();
    let (second, _) = train(&parts, None, true);
    assert_eq!(count(), before, "states are read, not computed again");
    assert_eq!(bits(&second.model), bits(&whole.model));
    assert_ne!(bits(&second.model), bits(&first.model));
    assert!(Checkpoint::find(&folder.path().join("parts")).is_ok());
}

#[test]
fn a_soft_prompt_stands_before_half_of_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = config(folder.path(), "plain", 1);
    let (_, figures) = train(&plain, None, false);
    let path = folder.path().join("persona.safetensors");
    let rows: Vec<f32> = (0..2 * 64).map(|i| (i as f32).sin()).collect();
    let tensor = Stored::from_f32("embeddings", vec![2, 64], &rows).expect("fits");
    let mut bytes = vec![];
    write_safetensors(&mut bytes, &[tensor]).expect("writes");
    fs::write(&path, bytes).expect("writes");
    let mut soft = config(folder.path(), "soft", 1);
    let value = toml::Value::String(path.display().to_string());
    soft.options.insert("soft_prompt".into(), value);
    let (_, other) = train(&soft, None, false);
    assert_ne!(figures[0], other[0]);
    let files = fs::read_dir(folder.path().join("soft/states")).expect("a folder");
    let requests = files.filter(|f| {
        let name = f.as_ref().expect("a file").file_name();
        name.to_string_lossy().starts_with("requests")
    });
    assert_eq!(requests.count(), 2, "one for each start");
}

#[test]
fn nothing_to_learn_from_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let refusal = |change: &dyn Fn(&mut toml::Table)| {
        let mut config = config(folder.path(), "run", 1);
        change(&mut config.options);
        let options: Options = config.options().expect("options");
        let stage = ReaderStage::over(&options, &tiny(), &config, &mut RunOptions::default());
        stage.err().map_or(String::new(), |e| e.to_string())
    };
    let none = || toml::Value::Integer(0);
    let error = refusal(&|options| {
        options.insert("others".into(), none());
    });
    assert!(error.contains("options.others"), "{error}");
    let error = refusal(&|options| {
        let ordinary = options.get_mut("ordinary").and_then(|o| o.as_table_mut());
        ordinary.expect("a table").insert("count".into(), none());
    });
    assert!(error.contains("options.ordinary.count"), "{error}");
}

#[test]
fn batches_are_of_like_length() {
    let sorted: Vec<usize> = (0..80).rev().collect();
    let mut random = Philox::with_stream(5, 1, 0);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let batch = of_like_length(&sorted, 6, &mut random);
        assert_eq!(batch.len(), 6);
        let (least, most) = (batch.iter().min(), batch.iter().max());
        assert!(
            most.zip(least)
                .is_some_and(|(most, least)| most - least < 10)
        );
        seen.extend(batch);
    }
    assert_eq!(seen.len(), 80);
    assert_eq!(of_like_length(&[7], 2, &mut random), [7, 7]);
}
