//! Every training stage on a few synthetic pictures: the loss falls, resuming is exact, and a GPU agrees with the CPU.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use emu_model::diffusion::DecoderConfig;
use emu_tests::sizes::small_emu;
use emu_train::data::record::{Document, Drawing, Layout, Object, Part, Place, Qa, Record, Scene};
use emu_train::data::{Member, Picture, SampleFiles, write_shard};
use emu_train::stages::corpus::Words;
use emu_train::{RunOptions, StopFlag, TrainConfig, TrainEvent, stages};

const NAMES: [&str; 4] = ["dog", "cat", "apple", "star"];
const COLOURS: [(&str, [u8; 3]); 3] = [
    ("red", [222, 78, 70]),
    ("blue", [88, 140, 218]),
    ("white", [250, 250, 250]),
];
const SIDE: usize = 64;

fn tokenizer() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/stages/tokenizer.json")
}

/// A plain picture with a square whose shade and size encode the object.
fn picture(name: usize, colour: usize) -> Picture {
    let mut rgb = COLOURS[colour].1.repeat(SIDE * SIDE);
    let reach = 8 + 4 * name;
    for y in 32 - reach..32 + reach {
        for x in 32 - reach..32 + reach {
            let at = (y * SIDE + x) * 3;
            rgb[at..at + 3].copy_from_slice(&[(60 * name) as u8, (200 - 40 * name) as u8, 30]);
        }
    }
    Picture::new(SIDE as u32, SIDE as u32, rgb).expect("the size is right")
}

fn object(name: usize) -> Object {
    let size = (16 + 8 * name) as f64 / SIDE as f64;
    Object {
        name: NAMES[name].into(),
        hexcode: "0".into(),
        set: "test".into(),
        place: Place::Center,
        cx: 0.5,
        cy: 0.5,
        size,
    }
}

fn sample(key: usize, record: &Record, pictures: &[Picture]) -> SampleFiles {
    let mut members: Vec<Member> = vec![("json".into(), serde_json::to_vec(record).expect("json"))];
    for (i, picture) in pictures.iter().enumerate() {
        let extension = if matches!(record, Record::Document(_)) {
            format!("{i}.png")
        } else {
            "png".into()
        };
        members.push((extension, picture.to_png().expect("png")));
    }
    SampleFiles {
        key: format!("{key:06}"),
        members,
    }
}

/// Writes scenes, drawing requests, few-shot documents and drawings to `dir`.
fn write_data(dir: &Path) {
    let all: Vec<(usize, usize)> = (0..12).map(|i| (i % 4, i % 3)).collect();
    let scenes = all.iter().map(|&(name, colour)| {
        let scene = Scene {
            split: "train".into(),
            background: COLOURS[colour].0.into(),
            layout: Layout::Single,
            objects: vec![object(name)],
            caption: format!("a {} on a {} background", NAMES[name], COLOURS[colour].0),
            qa: vec![Qa {
                kind: "name".into(),
                form: None,
                question: "what is this?".into(),
                answer: format!("a {}", NAMES[name]),
            }],
            unseen: None,
        };
        (Record::Scene(scene), vec![picture(name, colour)])
    });
    let draws = all.iter().map(|&(name, colour)| {
        let document = Document {
            split: "train".into(),
            task: "draw".into(),
            parts: vec![
                Part::Text(format!(
                    "draw a {} on a {} background",
                    NAMES[name], COLOURS[colour].0
                )),
                Part::Image("0".into()),
            ],
            answer: Some(1),
            pattern: None,
            background: Some(COLOURS[colour].0.into()),
            layout: Some(Layout::Single),
            objects: vec![object(name)],
            unseen: vec![],
        };
        (Record::Document(document), vec![picture(name, colour)])
    });
    let fewshot = (0..4).map(|i| {
        let text = |n: usize| Part::Text(NAMES[n % 4].into());
        let document = Document {
            split: "train".into(),
            task: "fewshot".into(),
            parts: vec![
                Part::Image("0".into()),
                text(i),
                Part::Image("1".into()),
                text(i + 1),
            ],
            answer: Some(3),
            pattern: Some("name".into()),
            background: None,
            layout: None,
            objects: vec![],
            unseen: vec![],
        };
        (
            Record::Document(document),
            vec![picture(i % 4, 0), picture((i + 1) % 4, 1)],
        )
    });
    let drawings = all.iter().map(|&(name, colour)| {
        let drawing = Drawing {
            split: "train".into(),
            background: COLOURS[colour].0.into(),
            object: object(name),
        };
        (Record::Drawing(drawing), vec![picture(name, colour)])
    });
    let write = |kind: &str, samples: Vec<(Record, Vec<Picture>)>| {
        let files: Vec<SampleFiles> = samples
            .iter()
            .enumerate()
            .map(|(i, (record, pictures))| sample(i, record, pictures))
            .collect();
        write_shard(&dir.join(format!("train/{kind}-00000.tar")), &files).expect("shard");
    };
    std::fs::create_dir_all(dir.join("train")).expect("folder");
    write("scenes", scenes.collect());
    write("draw", draws.collect());
    write("fewshot", fewshot.collect());
    write("drawings", drawings.collect());
    let concepts = serde_json::json!({
        "concepts": NAMES.map(|name| serde_json::json!({ "name": name })),
        "colours": COLOURS.map(|(name, rgb)| serde_json::json!({ "name": name, "rgb": rgb })),
    });
    std::fs::write(dir.join("concepts.json"), concepts.to_string()).expect("concepts");

    // Sizes small enough for a software GPU.
    let words = Words::open(&tokenizer()).expect("tokenizer");
    let emu = small_emu(&words, 2);
    std::fs::write(
        dir.join("emu.json"),
        serde_json::to_string(&emu).expect("json"),
    )
    .expect("emu.json");
    let mut decoder = DecoderConfig::emu_mini(emu.queries(), emu.lm.width);
    decoder.unet.channels = vec![16, 16, 32];
    decoder.unet.heads = vec![1, 2, 2];
    decoder.unet.norm_groups = 8;
    decoder.vae.channels = vec![8, 16];
    decoder.validate().expect("sizes");
    std::fs::write(
        dir.join("decoder.json"),
        serde_json::to_string(&decoder).expect("json"),
    )
    .expect("decoder.json");
    std::fs::write(
        dir.join("vae.json"),
        serde_json::to_string(&decoder.vae).expect("json"),
    )
    .expect("vae.json");
}

/// Configuration of a stage with data in `dir` and its run in `dir/out`.
fn config(dir: &Path, stage: &str, out: &str, device: &str, steps: usize) -> TrainConfig {
    let d = dir.display();
    let data = |kinds: &[&str]| -> String {
        kinds
            .iter()
            .map(|kind| format!("[[data]]\npath = \"{d}/train\"\nkind = \"{kind}\"\n"))
            .collect()
    };
    let words = format!("tokenizer = \"{}\"\n", tokenizer().display());
    let concepts = format!("concepts = \"{d}/concepts.json\"\n");
    let preset = format!("[init]\npreset = \"{d}/emu.json\"\n");
    let (init, data, options) = match stage {
        "vae" => (
            String::new(),
            data(&["scenes"]),
            format!("sizes = \"{d}/vae.json\"\n"),
        ),
        "vision" => (preset, data(&["scenes", "drawings"]), words + &concepts),
        "pretrain" => (
            preset + "equal_query_key = 4.0\n",
            data(&["scenes", "draw", "fewshot"]),
            words + &concepts + "input_noise = 0.3\ncontrast_weight = 0.3\n",
        ),
        "instruct" => {
            // Dropout uses the device's random generator, which differs between devices.
            let dropout = if dir.join("exact").exists() { 0.1 } else { 0.0 };
            (
                format!("{preset}[init.parts]\n\"\" = \"{d}/{device}-pretrain\"\n"),
                data(&["scenes", "draw"]),
                format!(
                    "{words}answers_only = true\nadapter = {{ rank = 4, alpha = 8.0, dropout = {dropout:?} }}\n"
                ),
            )
        }
        "judge" => (String::new(), data(&["drawings"]), concepts),
        _ => (
            format!("[init.parts]\nvae = \"{d}/{device}-vae\"\n"),
            data(&["draw"]),
            format!(
                "{words}emu = \"{d}/{device}-pretrain\"\nsizes = \"{d}/decoder.json\"\nregressed = 0.5\nmeasure = 16\n"
            ),
        ),
    };
    let freeze = |part: &str| format!("[[rates]]\npart = \"{part}\"\nfreeze = true\n");
    let frozen = match stage {
        "decoder" => freeze("vae") + &freeze("null_prompt"),
        "instruct" => {
            ["visual", "ln_visual", "cformer", "lm"]
                .map(freeze)
                .concat()
                + "[[rates]]\npart = \"*.lora\"\nlr = 3e-3\n"
        }
        _ => String::new(),
    };
    let kind = match stage {
        "judge" => "drawings",
        "decoder" => "draw",
        _ => "scenes",
    };
    let validation = format!(
        "[[validation]]\npath = \"{d}/train\"\nkind = \"{kind}\"\nname = \"held\"\nbatches = 2\n"
    );
    let text = format!(
        "stage = \"{stage}\"\nout = \"{d}/{out}\"\nseed = 3\nsteps = {steps}\nbatch = 4\ndevice = \"{device}\"\n\
         {init}{data}{validation}[log]\neval_every = 10\n[optimiser]\nlr = 1e-3\n{frozen}[checkpoint]\nsteps = 10\n[options]\n{options}"
    );
    TrainConfig::parse(&text, &dir.join("config.toml")).expect("configuration")
}

/// Metrics per step, as JSON.
fn metrics(dir: &Path, out: &str) -> BTreeMap<u64, serde_json::Value> {
    let text = std::fs::read_to_string(dir.join(out).join("metrics.jsonl")).expect("metrics");
    text.lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            (value["step"].as_u64().expect("step"), value)
        })
        .collect()
}

/// Loss per step, from the run's metrics.
fn losses(dir: &Path, out: &str) -> BTreeMap<u64, f64> {
    let loss = |value: serde_json::Value| value["loss"].as_f64().expect("loss");
    (metrics(dir, out).into_iter())
        .map(|(step, value)| (step, loss(value)))
        .collect()
}

/// Loss on the validation set, after ten steps and at the end.
fn held_out(dir: &Path, out: &str) -> [f64; 2] {
    let metrics = metrics(dir, out);
    [9, 19].map(|step| {
        metrics[&step]["eval"]["held.loss"]
            .as_f64()
            .expect("a figure")
    })
}

/// Runs a stage of twenty steps up to `until`; `resume` continues from the checkpoint.
fn run(dir: &Path, stage: &str, out: &str, device: &str, until: u64, resume: bool) {
    let config = config(dir, stage, out, device, 20);
    let stop = StopFlag::default();
    let mut leave = |event: TrainEvent| {
        if let TrainEvent::Step(metrics) = event
            && metrics.step + 1 == until
            && until < 20
        {
            stop.stop();
        }
    };
    let options = RunOptions {
        resume,
        stop: stop.clone(),
        on_event: Some(&mut leave),
        ..RunOptions::default()
    };
    let done = stages::run(&config, options).unwrap_or_else(|e| panic!("{stage} on {device}: {e}"));
    assert_eq!((done.step, done.stopped), (until, until < 20), "{stage}");
}

/// In dependency order: later stages load the results of earlier ones.
const STAGES: [&str; 6] = ["vae", "vision", "pretrain", "instruct", "decoder", "judge"];

#[test]
fn every_stage_learns_and_resumes_exactly() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    write_data(dir);
    std::fs::write(dir.join("exact"), "").expect("mark");
    for stage in STAGES {
        let out = format!("cpu-{stage}");
        run(dir, stage, &out, "cpu", 20, false);
        let whole = losses(dir, &out);
        let mean = |range: std::ops::Range<u64>| {
            let n = range.end - range.start;
            range.map(|i| whole[&i]).sum::<f64>() / n as f64
        };
        assert!(
            mean(15..20) < mean(0..5),
            "{stage} does not learn: {whole:?}"
        );

        // Ten steps, then ten more after a resume, give bit-identical weights.
        let halves = format!("cpu-{stage}-halves");
        run(dir, stage, &halves, "cpu", 10, false);
        run(dir, stage, &halves, "cpu", 20, true);
        assert_eq!(losses(dir, &halves), whole, "{stage}");
        let held = held_out(dir, &out);
        assert_eq!(held_out(dir, &halves), held, "{stage}");
        assert!(
            held.iter().all(|loss| loss.is_finite()),
            "{stage}: {held:?}"
        );
        let weights = |out: &str| {
            std::fs::read(
                dir.join(out)
                    .join("step-00000020")
                    .join("model.safetensors"),
            )
            .expect("weights")
        };
        assert!(
            weights(&halves) == weights(&out),
            "{stage}: the weights differ after a resume"
        );
    }
}

#[test]
fn every_stage_agrees_on_wgpu() {
    if std::env::var_os("EMU_TEST_GPU").is_none() {
        println!("SKIP gpu: no Vulkan driver (EMU_TEST_GPU is not set)");
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    write_data(dir);
    // A step on a software GPU takes up to a second.
    let steps = 6;
    for stage in STAGES {
        for device in ["cpu", "gpu"] {
            let out = format!("{device}-{stage}");
            run(dir, stage, &out, device, steps, false);
        }
        let (cpu, gpu) = (
            losses(dir, &format!("cpu-{stage}")),
            losses(dir, &format!("gpu-{stage}")),
        );
        for (step, loss) in &cpu {
            let difference = (loss - gpu[step]).abs();
            assert!(
                difference < 1e-3 * loss.abs().max(1.0),
                "{stage}, step {step}: {loss} and {}",
                gpu[step]
            );
        }
        // A stopped run resumes on the GPU too.
        let halves = format!("gpu-{stage}-halves");
        run(dir, stage, &halves, "gpu", steps / 2, false);
        run(dir, stage, &halves, "gpu", steps, true);
    }
}
