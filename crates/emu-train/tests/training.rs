//! Runs of a toy stage: exact resume, kills, damaged folders, values that are not finite.

mod toy;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use burn::tensor::Device;
use emu_train::checkpoint::Checkpoint;
use emu_train::stage::Source;
use emu_train::{RunOptions, Stage, StepContext, StopFlag, TrainEvent};
use toy::*;

const WITH_EVERYTHING: &str = "accumulate = 2\nema = { decay = 0.9 }\nschedule = { warmup = 3, floor = 0.1 }\n\
    rates = [{ part = 'head', lr = 5e-3 }]\nlog = { eval_every = 4, sample_every = 8, curve_every = 10, every = 5 }";

fn resume() -> RunOptions<'static> {
    RunOptions {
        resume: true,
        ..Default::default()
    }
}

/// Trains until `steps` steps are made, then asks the run to stop.
fn train_to(config: &emu_train::TrainConfig, steps: u64, resume: bool) -> emu_train::Outcome<Toy> {
    let stop = StopFlag::new();
    let raised = stop.clone();
    let mut on_event = move |event: TrainEvent| {
        if matches!(event, TrainEvent::Step(metrics) if metrics.step + 1 == steps) {
            raised.stop();
        }
    };
    train(
        config,
        RunOptions {
            resume,
            stop,
            on_event: Some(&mut on_event),
            ..Default::default()
        },
    )
    .unwrap()
}

#[test]
fn twenty_steps_are_ten_and_ten_more() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let whole = train(
        &config(&folder.path().join("whole"), WITH_EVERYTHING),
        Default::default(),
    )
    .unwrap();
    assert!(!whole.stopped && whole.step == 20);

    let out = folder.path().join("parts");
    let parts = config(&out, WITH_EVERYTHING);
    let first = train_to(&parts, 10, false);
    assert!(first.stopped && first.step == 10);
    // Output of a killed process after its last checkpoint.
    let metrics = out.join("metrics.jsonl");
    let text = fs::read_to_string(&metrics).unwrap();
    let line = text
        .lines()
        .last()
        .unwrap()
        .replace("\"step\":9", "\"step\":10");
    fs::write(&metrics, format!("{text}{line}\n{{\"step\":11,")).unwrap();
    let second = train(&parts, resume()).unwrap();

    assert_eq!(bits(&second.model), bits(&whole.model));
    assert_eq!(
        bits(&second.averaged.unwrap()),
        bits(whole.averaged.as_ref().unwrap())
    );
    assert_ne!(bits(&second.model), bits(&first.model));
    assert_eq!(steps_in(metrics), (0..20).collect::<Vec<_>>());
    assert_eq!(
        fs::read_to_string(out.join("samples/00000016/toy.txt")).unwrap(),
        "16"
    );
    assert!(fs::metadata(out.join("loss.png")).unwrap().len() > 1000);

    // Loading the run gives the EMA weights.
    let weights = Checkpoint::find(&out).unwrap().weights().unwrap();
    let stored = emu_pack::TensorSource::read(&weights, "head.weight").unwrap();
    let averaged = bits(whole.averaged.as_ref().unwrap());
    assert_eq!(
        stored.bytes,
        averaged
            .iter()
            .find(|(name, _)| name == "head.weight")
            .unwrap()
            .1
    );
}

#[test]
fn a_run_learns() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "").clone();
    let config = emu_train::TrainConfig {
        steps: 150,
        batch: 16,
        ..config
    };
    let mut losses = Vec::new();
    let mut on_event = |event: TrainEvent| {
        if let TrainEvent::Step(metrics) = event {
            losses.push(metrics.loss);
            assert_eq!(metrics.terms[1], ("two".to_string(), 2.0));
        }
    };
    let options = RunOptions {
        on_event: Some(&mut on_event),
        ..Default::default()
    };
    train_stage(&config, &mut ToyStage::new(&config), 0.0, options).unwrap();
    let mean = |part: &[f32]| part.iter().sum::<f32>() / part.len() as f32;
    assert!(
        mean(&losses[140..]) < 0.5 * mean(&losses[..10]),
        "{:?}",
        &losses
    );
}

#[test]
fn accumulation_equals_a_large_batch() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let trained = |name: &str, batch: usize, accumulate: usize| {
        let config = config(&folder.path().join(name), "");
        let config = emu_train::TrainConfig {
            steps: 3,
            batch,
            accumulate,
            ..config
        };
        let outcome = train_stage(
            &config,
            &mut ToyStage::new(&config),
            0.0,
            Default::default(),
        )
        .unwrap();
        emu_model::weights::to_map(&outcome.model)
    };
    let large = trained("large", 12, 1);
    for (name, tensor) in trained("small", 4, 3) {
        let (small, large) = (tensor.to_f32().unwrap(), large[&name].to_f32().unwrap());
        let error = small
            .iter()
            .zip(&large)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(error < 2e-5, "{name}: {error}");
    }
}

#[test]
fn frozen_parts_stay_and_get_no_gradient() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let config = config(
        folder.path(),
        "rates = [{ part = 'stem', freeze = true }, { part = 'norm', lr = 0.0 }]",
    );
    let before = bits(&Toy::new(0.2, &Device::flex()));
    let outcome = train(&config, Default::default()).unwrap();
    assert!(!outcome.model.stem.weight.is_require_grad());
    assert!(outcome.model.norm.weight.is_require_grad());
    for ((name, before), (_, after)) in before.iter().zip(bits(&outcome.model)) {
        assert_eq!(*before == after, !name.starts_with("head"), "{name}");
    }
    let state = fs::read_to_string(outcome.checkpoint.join("state.json")).unwrap();
    assert!(state.contains("\"step\": 20"), "{state}");
}

#[test]
fn a_folder_is_protected() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let base = config(folder.path(), "");
    train(&base, Default::default()).unwrap();

    let error = train(&base, Default::default()).unwrap_err();
    assert_eq!(error.code(), "run-exists");
    assert!(
        error.to_string().contains("step 20") && error.to_string().contains("--resume"),
        "{error}"
    );

    let other = config(folder.path(), "schedule = { warmup = 3 }");
    let error = train(&other, resume()).unwrap_err();
    assert_eq!(error.code(), "config-changed");
    assert!(
        error.to_string().contains("`schedule.warmup` was 0, is 3"),
        "{error}"
    );

    // A longer run still counts as the same run.
    let longer = emu_train::TrainConfig {
        steps: 22,
        ..base.clone()
    };
    assert_eq!(train(&longer, resume()).unwrap().step, 22);

    let lock = fs::File::options()
        .write(true)
        .open(folder.path().join("lock"))
        .unwrap();
    lock.lock().unwrap();
    assert_eq!(train(&longer, resume()).unwrap_err().code(), "locked");
}

#[test]
fn damaged_checkpoints_are_passed_over() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let base = config(
        folder.path(),
        "checkpoint = { steps = 8, minutes = 0.0, keep = 5 }",
    );
    let whole = train(&base, Default::default()).unwrap();
    fs::write(
        folder.path().join("step-00000020/model.safetensors"),
        "half",
    )
    .unwrap();
    fs::remove_file(folder.path().join("step-00000016/state.json")).unwrap();
    let mut skipped = Vec::new();
    let mut on_event = |event: TrainEvent| {
        if let TrainEvent::Skipped(found) = event {
            skipped.push(
                found
                    .path
                    .file_name()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned(),
            );
        }
    };
    let again = train(
        &base,
        RunOptions {
            resume: true,
            on_event: Some(&mut on_event),
            ..Default::default()
        },
    )
    .unwrap();
    assert_eq!(skipped, ["step-00000020", "step-00000016"]);
    assert_eq!(bits(&again.model), bits(&whole.model));
    assert_eq!(
        steps_in(folder.path().join("metrics.jsonl")),
        (0..20).collect::<Vec<_>>()
    );
}

#[test]
fn numbers_that_are_not_finite_stop_the_run() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let base = config(
        folder.path(),
        "checkpoint = { steps = 5, minutes = 0.0, keep = 2 }",
    );
    let mut stage = ToyStage::new(&base);
    stage.poison = Some(7);
    let error = train_stage(&base, &mut stage, 0.2, Default::default()).unwrap_err();
    assert_eq!(error.code(), "not-finite");
    let text = error.to_string();
    assert!(
        text.contains("Step 7") && text.contains("a loss") && text.contains("sample-28, sample-29"),
        "{text}"
    );
    let (found, skipped) = Checkpoint::newest(folder.path()).unwrap();
    assert_eq!(found.unwrap().state.step, 5);
    assert!(skipped.is_empty());
    // The run resumes without the bad batch.
    assert_eq!(train(&base, resume()).unwrap().step, 20);
}

/// Trains with a different learning rate. Returns the steps and texts of its warnings.
fn warnings(config: &emu_train::TrainConfig, until: u64, resume: bool) -> Vec<(u64, String)> {
    let stop = StopFlag::new();
    let mut told = Vec::new();
    let mut on_event = |event: TrainEvent| match event {
        TrainEvent::Warning { step, message } => told.push((step, message.to_string())),
        TrainEvent::Step(metrics) if metrics.step + 1 == until => stop.stop(),
        _ => {}
    };
    let options = RunOptions {
        resume,
        stop: stop.clone(),
        on_event: Some(&mut on_event),
        ..Default::default()
    };
    train(config, options).unwrap();
    told
}

#[test]
fn divergence_is_told_and_noted() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let diverging = |name: &str| {
        let mut config = config(&folder.path().join(name), "");
        config.optimiser.lr = 9.9;
        config
    };
    let whole = diverging("whole");
    let told = warnings(&whole, 20, false);
    assert_eq!(told.len(), 1, "{told:?}");
    let (step, message) = &told[0];
    assert!(
        message.contains("diverges") && message.contains("learning rate"),
        "{message}"
    );
    let noted = |config: &emu_train::TrainConfig| -> Vec<u64> {
        let text = fs::read_to_string(config.out.join("metrics.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines
            .filter(|line: &serde_json::Value| line["warning"].is_string())
            .map(|line| line["step"].as_u64().unwrap() + 1)
            .collect()
    };
    assert_eq!(noted(&whole), [*step]);

    // A resumed run knows the best loss and warns once.
    let parts = diverging("parts");
    assert!(warnings(&parts, step - 1, false).is_empty());
    assert_eq!(warnings(&parts, 20, true), told);
    assert_eq!(noted(&parts), [*step]);
    assert!(warnings(&config(&folder.path().join("calm"), ""), 20, false).is_empty());
}

#[test]
fn a_rate_of_nothing_is_told() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let mut idle = config(folder.path(), "");
    idle.optimiser.lr = 0.0;
    let told = warnings(&idle, 20, false);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].0 == 0 && told[0].1.contains("Nothing learns"),
        "{told:?}"
    );
}

#[test]
fn nothing_to_train_is_an_error() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    for (extra, word) in [
        ("rates = [{ part = '', freeze = true }]", "nothing to train"),
        ("rates = [{ part = 'tail' }]", "`tail`"),
        ("init = { parts = { head = '/nowhere' } }", "checkpoint"),
    ] {
        let config = config(folder.path(), extra);
        let device = config.training_device(&Device::flex());
        let loaded = emu_train::parts::load_parts(Toy::new(0.0, &device), &config, &device);
        let error = loaded
            .and_then(|_| train(&config, Default::default()).map(|_| ()))
            .unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn parts_start_from_another_run() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let first = train(
        &config(&folder.path().join("first"), ""),
        Default::default(),
    )
    .unwrap();
    let path = folder.path().join("first").display().to_string();
    let second = config(
        &folder.path().join("second"),
        &format!("init = {{ parts = {{ head = {path:?} }} }}"),
    );
    let device = second.training_device(&Device::flex());
    let model = emu_train::parts::load_parts(Toy::new(0.0, &device), &second, &device).unwrap();
    let (trained, fresh) = (bits(&first.model), bits(&Toy::new(0.0, &device)));
    for (i, (name, now)) in bits(&model).into_iter().enumerate() {
        let expected = if name.starts_with("head") {
            &trained
        } else {
            &fresh
        };
        assert_eq!(now, expected[i].1, "{name}");
    }
}

#[test]
fn activation_checkpointing_changes_nothing() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let plain = train(
        &config(&folder.path().join("plain"), ""),
        Default::default(),
    )
    .unwrap();
    let other = config(
        &folder.path().join("other"),
        "activation_checkpointing = true",
    );
    assert_eq!(
        bits(&train(&other, Default::default()).unwrap().model),
        bits(&plain.model)
    );
}

#[test]
fn contexts_give_every_micro_batch_its_own_numbers() {
    let context = |step, micro_step| StepContext {
        seed: 3,
        step,
        micro_step,
        accumulate: 4,
        steps: 10,
        source: Source::Training,
        device: Device::flex(),
        train: true,
    };
    let draw = |step, micro| {
        context(step, micro)
            .random(emu_kernels::random::Stream::Training)
            .next_u32()
    };
    assert_eq!(context(2, 3).batch_index(), 11);
    assert_eq!(draw(2, 3), draw(2, 3));
    assert_ne!(draw(2, 3), draw(2, 2));
    assert_eq!(ToyStage::new(&config(Path::new("x"), "")).name(), "toy");
}

const CHILD: &str = "EMU_TRAIN_TEST_CHILD";

fn long(out: &Path) -> emu_train::TrainConfig {
    let config = config(
        out,
        "ema = { decay = 0.9 }\ncheckpoint = { steps = 4, minutes = 0.0, keep = 2 }",
    );
    emu_train::TrainConfig {
        steps: 160,
        ..config
    }
}

/// Not a test in itself: the child process that [`killed_at_any_moment`] kills.
#[test]
fn child() {
    if let Some(out) = std::env::var_os(CHILD) {
        train(&long(&PathBuf::from(out)), resume()).unwrap();
    }
}

#[test]
fn killed_at_any_moment() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let mut quiet = long(&folder.path().join("whole"));
    quiet.checkpoint.steps = 0;
    let whole = train(&quiet, Default::default()).unwrap();
    let out = folder.path().join("killed");
    let mut random = emu_kernels::random::Philox::with_stream(u64::from(std::process::id()), 99, 0);
    let mut kills = 0;
    for _ in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child"])
            .env(CHILD, &out)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(40 + random.below(120) as u64));
        kills += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        if out.exists() {
            let (_, skipped) = Checkpoint::newest(&out).unwrap();
            assert!(skipped.is_empty(), "{skipped:?}");
        }
    }
    assert!(kills > 0, "every child was too quick to be killed");
    let resumed = train(&long(&out), resume()).unwrap();
    assert_eq!(resumed.step, 160);
    assert_eq!(bits(&resumed.model), bits(&whole.model));
    assert_eq!(
        bits(&resumed.averaged.unwrap()),
        bits(&whole.averaged.unwrap())
    );
    assert_eq!(
        steps_in(out.join("metrics.jsonl")),
        (0..160).collect::<Vec<_>>()
    );
    let hidden = fs::read_dir(&out).unwrap().filter(|e| {
        e.as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with('.')
    });
    assert_eq!(hidden.count(), 0);
}

/// On a GPU, including a software adapter: the losses match those of the CPU, and the run can be resumed. Slow with a
/// software adapter.
#[test]
#[ignore = "needs a graphics adapter"]
fn a_gpu_trains_and_resumes() {
    let _turn = turn();
    let opened = match emu_kernels::device::open(emu_kernels::device::DeviceChoice::Gpu) {
        Ok(opened) => opened,
        Err(error) => return println!("skipped: {error}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let losses = |name: &str, device: &Device, steps: &[u64]| {
        let config = config(
            &folder.path().join(name),
            "ema = { decay = 0.9 }\naccumulate = 2",
        );
        let device = config.training_device(device);
        let mut losses = Vec::new();
        for &until in steps {
            let stop = StopFlag::new();
            let raised = stop.clone();
            let mut on_event = |event: TrainEvent| {
                if let TrainEvent::Step(metrics) = event {
                    losses.push(metrics.loss);
                    if metrics.step + 1 == until {
                        raised.stop();
                    }
                }
            };
            let options = RunOptions {
                resume: true,
                stop: stop.clone(),
                on_event: Some(&mut on_event),
                ..Default::default()
            };
            let mut stage = ToyStage::new(&config);
            emu_train::run(
                &config,
                &mut stage,
                Toy::new(0.0, &device),
                &device,
                options,
            )
            .unwrap();
        }
        losses
    };
    let cpu = losses("cpu", &Device::flex(), &[20]);
    let gpu = losses("gpu", &opened.device, &[8, 20]);
    assert_eq!(gpu.len(), 20);
    for (a, b) in cpu.iter().zip(&gpu) {
        assert!((a - b).abs() < 1e-3, "{cpu:?} {gpu:?}");
    }
}

const HELD_OUT: &str = "validation = [{ path = 'val' }]\nlog = { eval_every = 2 }\n";

/// Steps made, and the figures.
type Evaluation = (u64, Vec<(String, f32)>);

/// The steps and evaluations of a run, by the number of steps made.
fn evaluations(config: &emu_train::TrainConfig) -> (u64, Vec<Evaluation>) {
    let mut found = vec![];
    let mut on_event = |event: TrainEvent| {
        if let TrainEvent::Evaluated { step, figures } = event {
            found.push((step, figures.to_vec()));
        }
    };
    let options = RunOptions {
        on_event: Some(&mut on_event),
        ..resume()
    };
    let step = train(config, options).expect("a run").step;
    (step, found)
}

#[test]
fn validation_measures_without_changing_the_run() {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("a folder");
    let plain = train(
        &config(&folder.path().join("plain"), ""),
        Default::default(),
    )
    .expect("a run");
    let with = config(&folder.path().join("with"), HELD_OUT);
    let (step, found) = evaluations(&with);
    assert_eq!((step, found.len()), (20, 10));
    let value = |at: usize, name: &str| {
        let figure = found[at].1.iter().find(|(figure, _)| figure == name);
        figure.unwrap_or_else(|| panic!("no {name}")).1
    };
    assert!(value(9, "val.loss") < value(0, "val.loss"));
    assert_eq!(value(3, "val.two"), 2.0);
    let with = Checkpoint::find(&folder.path().join("with")).expect("a checkpoint");
    let stored = emu_pack::TensorSource::read(&with.weights().expect("weights"), "head.weight");
    let expected = bits(&plain.model);
    let expected = expected.iter().find(|(name, _)| name == "head.weight");
    assert_eq!(
        Some(&stored.expect("a tensor").bytes),
        expected.map(|e| &e.1)
    );
}

#[test]
fn the_best_checkpoint_is_kept_and_named() {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("a folder");
    // The loss falls, so its largest value is the first.
    let more = format!(
        "{HELD_OUT}checkpoint = {{ steps = 5, keep = 1, best = {{ figure = 'val.loss', larger = true }} }}"
    );
    evaluations(&config(folder.path(), &more));
    let names = |start: &str| {
        let entries = fs::read_dir(folder.path()).expect("a folder");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into()
            })
            .filter(|name: &String| name.starts_with(start))
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("step-"), ["step-00000002", "step-00000020"]);
    let best = fs::read_to_string(folder.path().join("best")).expect("a file");
    assert_eq!(best, "step-00000002");
    assert_eq!(names("events.out.tfevents").len(), 1);
}

#[test]
fn a_run_ends_when_a_figure_stops_improving() {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("a folder");
    let more =
        format!("{HELD_OUT}early_stop = {{ figure = 'val.loss', larger = true, patience = 3 }}");
    let whole = config(&folder.path().join("whole"), &more);
    assert_eq!(evaluations(&whole).0, 8);
    // It has ended: resuming makes no step.
    assert_eq!(evaluations(&whole), (8, vec![]));
    let parts = config(&folder.path().join("parts"), &more);
    assert_eq!(train_to(&parts, 5, false).step, 5);
    assert_eq!(evaluations(&parts).0, 8);
}

#[test]
fn a_check_saves_nothing() {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path(), WITH_EVERYTHING);
    let options = RunOptions {
        check: Some(3),
        ..Default::default()
    };
    let outcome = train(&config, options).expect("a run");
    assert_eq!(outcome.step, 3);
    assert!(Checkpoint::find(folder.path()).is_err());
    for name in ["samples", "loss.png", "latest"] {
        assert!(!folder.path().join(name).exists(), "{name}");
    }
}

#[test]
fn figures_that_do_not_exist_end_the_run_by_name() {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("a folder");
    let more = "log = { eval_every = 2 }\nearly_stop = { figure = 'accuracy', patience = 3 }";
    let error = train(&config(folder.path(), more), Default::default()).expect_err("no figure");
    let message = error.to_string();
    assert!(
        message.contains("early_stop.figure") && message.contains("mean"),
        "{message}"
    );
}

#[test]
fn a_resumed_run_may_change_its_batch_and_says_so() {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("a folder");
    let first = config(folder.path(), "");
    assert_eq!(train_to(&first, 10, false).step, 10);
    let larger = emu_train::TrainConfig {
        batch: 6,
        ..first.clone()
    };
    let told = warnings(&larger, 20, true);
    let changed = told.iter().find(|(step, _)| *step == 10);
    let (_, message) = changed.expect("a warning");
    assert!(message.contains("`batch` was 4, is 6"), "{message}");
    let listed = fs::read_to_string(folder.path().join("changes.jsonl")).expect("a file");
    assert!(listed.starts_with("{\"step\":10,"), "{listed}");

    let other = emu_train::TrainConfig { seed: 6, ..first };
    let error = train(&other, resume()).expect_err("another seed");
    assert!(error.to_string().contains("`seed` was 5, is 6"), "{error}");
}
