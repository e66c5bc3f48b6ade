//! `emu assemble`: a small language model, an EfficientNet-Lite2 with random weights and a head for three names become a
//! model with vision.

mod common;

use std::path::{Path, PathBuf};

use common::gguf::{TEMPLATE, WIDTH, model_with};
use common::{cat, emu, fails, json_of, text};
use emu_kernels::burn::module::Module;
use emu_kernels::burn::tensor::Device;
use emu_kernels::random::Philox;
use emu_model::config::{EmuConfig, LmConfig, VisionConfig};
use emu_model::diffusion::DecoderConfig;
use emu_model::diffusion::decoder::Normalisation;
use emu_model::efficientnet::efficientnet_lite;
use emu_model::persona::SoftPrompt;
use emu_model::reader::{ReaderConfig, TriggerConfig};
use emu_model::spelling::SpellingConfig;
use emu_model::weights;
use emu_pack::convert::{Elsewhere, GgufFile};
use emu_pack::{PackReader, SafetensorsFile, TensorData, TensorSource, write_safetensors};
use serde_json::{Value, json};
use tempfile::TempDir;

const MARKS: [&str; 5] = ["<repo>", "<file>", "<code>", "<more>", "<rest>"];

/// A tensor of noise around `middle`.
fn noise(
    random: &mut Philox,
    name: String,
    shape: &[usize],
    middle: f32,
    spread: f32,
) -> TensorData {
    let n = shape.iter().product();
    let values: Vec<f32> = { random.normals(n).into_iter() }
        .map(|v| middle + spread * v)
        .collect();
    TensorData::from_f32(name, shape.to_vec(), &values).expect("a tensor")
}

fn write(path: &Path, tensors: &[TensorData]) {
    let mut bytes = vec![];
    write_safetensors(&mut bytes, tensors).expect("bytes");
    std::fs::write(path, bytes).expect("written");
}

/// A checkpoint with the keys and shapes of the published encoder.
fn encoder(path: &Path) {
    let vision = VisionConfig::efficientnet_lite2();
    let net = vision.efficientnet.expect("sizes");
    let net = net.init(vision.image_size, &Device::flex());
    let map = efficientnet_lite().expect("a map");
    let key = |name: &str| map.to_checkpoint(name).expect("a key");
    let mut random = Philox::with_stream(11, 1, 0);
    let mut tensors = vec![];
    for (name, shape) in weights::parameters(&net) {
        let (layer, part) = name.rsplit_once('.').expect("a layer");
        if part == "bias" && layer != "classifier" {
            for (norm, middle) in [("weight", 1.0), ("bias", 0.1), ("running_mean", 0.0)] {
                let key = key(&format!("{layer}.norm.{norm}"));
                tensors.push(noise(&mut random, key, &shape, middle, 0.01));
            }
            let key = key(&format!("{layer}.norm.running_var"));
            tensors.push(noise(&mut random, key, &shape, 1.0, 0.0));
            continue;
        }
        let inputs: usize = shape.iter().skip(1).product();
        let spread = (2.0 / inputs.max(1) as f32).sqrt();
        tensors.push(noise(&mut random, key(&name), &shape, 0.0, spread));
    }
    write(path, &tensors);
}

/// Components of a model and its recipe.
fn parts() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let lm = model_with(Some(TEMPLATE), 400, &MARKS);
    std::fs::write(at("lm.gguf"), lm).expect("written");
    encoder(&at("encoder.safetensors"));
    std::fs::create_dir(at("heads")).expect("a folder");
    let mut random = Philox::with_stream(12, 1, 0);
    let head = [
        noise(&mut random, "names.weight".into(), &[3, 1280], 0.0, 0.1),
        noise(&mut random, "names.bias".into(), &[3], 0.0, 0.1),
    ];
    write(&at("heads/heads.safetensors"), &head);
    let names = r#"{"names": ["cat", "hot dog", "ox"]}"#;
    std::fs::write(at("heads/model.json"), names).expect("written");
    let colours = "canonical_set = 'noto'\ncolours = [{ name = 'red', rgb = [222, 78, 70] }, { name = 'gray', rgb = [146, 148, 152] }]\n\
         read = [{ name = 'cat', hexcode = '1f431', drawn = true }, { name = 'hot dog', hexcode = '1f32d', drawn = true }, { name = 'ox', hexcode = '1f402' }]\nunseen = []\n";
    std::fs::write(at("concepts.toml"), colours).expect("written");
    std::fs::write(at("CARD.md"), "# A card\n").expect("written");
    let path = |name: &str| text(&at(name));
    let recipe = format!(
        "name = 'tiny'\nlicense = 'none'\nattribution = 'nobody'\nlm = '{}'\nencoder = '{}'\nheads = '{}'\nconcepts = '{}'\nprecision = 'q8'\nfiles = ['{}']\n\
         [namer]\nobjects = 2\ntokens = 2\ntemperature = 0.5\ncolour_spread = 0.05\n\
         [prompts]\npicture = 'A<image><image> on<image>. '\ncaption = 'What?'\n\
         [generation]\nrepetition_penalty = 1.3\n",
        path("lm.gguf"),
        path("encoder.safetensors"),
        path("heads"),
        path("concepts.toml"),
        path("CARD.md"),
    );
    let file = at("recipe.toml");
    std::fs::write(&file, recipe).expect("written");
    (folder, file)
}

fn said(lines: &[Value]) -> String {
    let texts = lines.iter().filter(|line| line["type"] == "text");
    texts.filter_map(|line| line["text"].as_str()).collect()
}

/// Captions a picture with a pack.
fn captions(pack: &str) {
    let base = ["caption", "--device", "cpu", "--json", "--model", pack];
    let captions = json_of(&[&base[..], &["--max-new-tokens", "6", &cat()]].concat());
    assert!(captions[0]["caption"].is_string(), "{captions:?}");
}

#[test]
fn parts_become_a_model_that_sees() {
    let (folder, recipe) = parts();
    let pack = text(&folder.path().join("pack"));
    let lines = json_of(&["assemble", &text(&recipe), "-o", &pack, "--json"]);
    let made = lines.last().expect("a line");
    assert_eq!(made["name"], "tiny");
    assert!(made["components"]["vision"].as_u64() > Some(4_000_000));
    assert!(made["components"]["lm"].as_u64() > Some(10_000));
    assert!(folder.path().join("pack/CARD.md").is_file());

    // Without the fetched file the error says so. Fetching it restores the same bytes.
    let manifest = PackReader::open(&pack).expect("a pack").manifest().clone();
    let shard = folder
        .path()
        .join("pack")
        .join(&manifest.components["lm"].shards[0]);
    let whole = std::fs::read(&shard).expect("a shard");
    std::fs::remove_file(&shard).expect("removed");
    fails(
        &["chat", "--device", "cpu", "--model", &pack, "hi"],
        &["lm.gguf", "cargo xtask model smol"],
    );
    let list = Elsewhere::read(Path::new(&pack)).expect("a list");
    let source = GgufFile::open(folder.path().join("lm.gguf")).expect("a file");
    list.complete(Path::new(&pack), &source).expect("completed");
    assert_eq!(std::fs::read(&shard).expect("a shard"), whole);

    let lines = json_of(&["inspect", "--verify", "--json", "--device", "cpu", &pack]);
    let model = &lines[0]["model"];
    assert_eq!(
        (&model["names"], &model["embeddings"]),
        (&3.into(), &3.into())
    );
    assert_eq!(model["causal"], Value::Null);

    // Text only: the same answer as the language model alone, with the pack's repetition penalty.
    let lm = text(&folder.path().join("lm.gguf"));
    let ask = |model: &str, more: &[&str]| {
        let base = [
            "chat",
            "--device",
            "cpu",
            "--json",
            "--max-new-tokens",
            "12",
            "--model",
        ];
        json_of(&[&base[..], &[model], more].concat())
    };
    for prompt in ["hi", "who <|im_end|> are [IMG] you"] {
        let alone = ask(&lm, &["--repetition-penalty", "1.3", prompt]);
        let lines = ask(&pack, &[prompt]);
        assert_eq!(said(&lines), said(&alone), "{prompt}");
        let tokens = |lines: &[Value]| lines.last().map(|usage| usage["prompt_tokens"].clone());
        assert_eq!(tokens(&lines), tokens(&alone));
    }
    let told = ask(&pack, &["--system", "Be kind", "hi"]);
    let alone = ask(
        &lm,
        &["--repetition-penalty", "1.3", "--system", "Be kind", "hi"],
    );
    assert_eq!(said(&told), said(&alone));

    // With a picture.
    let (words, seen) = (ask(&pack, &["hi"]), ask(&pack, &["--image", &cat(), "hi"]));
    let tokens = |lines: &[Value]| {
        lines
            .last()
            .and_then(|usage| usage["prompt_tokens"].as_u64())
    };
    // "A", three embeddings, " on", ". "
    assert_eq!(tokens(&seen), tokens(&words).map(|n| n + 1 + 3 + 3 + 2));
    captions(&pack);
    let out = text(&folder.path().join("never.png"));
    fails(
        &[
            "imagine", "--device", "cpu", "--model", &pack, "-o", &out, "a cat",
        ],
        &["no decoder"],
    );
}

/// A trained component: its sizes and random weights.
fn trained<M: Module>(folder: &Path, sizes: &Value, module: &M, more: Vec<TensorData>) {
    std::fs::create_dir(folder).expect("a folder");
    std::fs::write(folder.join("model.json"), sizes.to_string()).expect("written");
    let mut tensors = more;
    weights::export(module, |tensor| {
        tensors.push(tensor);
        Ok::<(), ()>(())
    })
    .expect("tensors");
    write(&folder.join("weights.safetensors"), &tensors);
}

/// Adds the components that draw to a recipe, for a language model of `WIDTH`.
fn drawing(folder: &Path, recipe: &Path) {
    let device = Device::flex();
    let lm = LmConfig {
        width: WIDTH,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_size: WIDTH / 4,
        ..EmuConfig::tiny().lm
    };
    let outputs = Normalisation {
        mean: vec![0.0; WIDTH],
        std: vec![1.0; WIDTH],
    };
    let reader = ReaderConfig {
        layers: vec![0, 1],
        window: 8,
        width: 16,
        heads: 2,
        depth: 1,
        spelling: SpellingConfig {
            objects: 2,
            tokens: 2,
        },
        inputs: None,
        outputs: Some(outputs),
    };
    let trigger = TriggerConfig { tokens: vec![0] };
    let mut decides = vec![];
    // The trigger fires on every message.
    let width = WIDTH + reader.inputs(&lm);
    decides.push(TensorData::from_f32(
        "trigger.weight",
        vec![1, width],
        &vec![0.0; width],
    ));
    decides.push(TensorData::from_f32("trigger.bias", vec![1], &[1.0]));
    let decides = decides
        .into_iter()
        .collect::<Result<_, _>>()
        .expect("tensors");
    let sizes = json!({"reader": reader, "trigger": trigger});
    trained(
        &folder.join("reader"),
        &sizes,
        &reader.init(&lm, &device),
        decides,
    );
    let decoder = DecoderConfig::emu_mini(6, WIDTH);
    let net = decoder.init(&device).expect("a decoder");
    trained(
        &folder.join("brush"),
        &json!({ "decoder": decoder }),
        &net,
        vec![],
    );
    let persona = SoftPrompt::new(5, WIDTH, &device);
    trained(
        &folder.join("persona"),
        &json!({ "persona": {} }),
        &persona,
        vec![],
    );

    let path = |name: &str| text(&folder.join(name));
    let parts = format!(
        "persona = '{}'\ndrawing = {{ reader = '{}', decoder = '{}' }}\n[namer]",
        path("persona"),
        path("reader"),
        path("brush"),
    );
    let whole = std::fs::read_to_string(recipe).expect("a recipe");
    let whole = whole
        .replace("[namer]", &parts)
        .replace("caption = 'What?'", "caption = 'What?'\ndraw = 'Draw {}'");
    std::fs::write(recipe, whole).expect("written");
}

#[test]
fn photographs_have_names_of_their_own() {
    let (folder, recipe) = parts();
    let at = |name: &str| text(&folder.path().join(name));
    let pack = at("pack");
    let classes: Vec<String> = (0..1000).map(|i| format!("thing {i}")).collect();
    let list = json!({"classes": classes, "kinds": [{"name": "stuff", "members": (0..1000).collect::<Vec<_>>()}]});
    std::fs::write(at("photos.json"), list.to_string()).expect("written");
    let whole = std::fs::read_to_string(&recipe).expect("a recipe");
    let photos = format!(
        "[namer.photos]\nlist = '{}'\nthreshold = 0.7\nfloor = 2e-4\nunknown = 'no idea'\nbackground = 'natural'\n[prompts]",
        at("photos.json")
    );
    let whole = whole.replace("[prompts]", &photos);
    std::fs::write(&recipe, &whole).expect("written");
    let refused = |words: &[&str]| fails(&["assemble", &text(&recipe), "-o", &pack], words);
    refused(&["do not tell photographs", "leave `namer.photos` out"]);

    // The gate takes every picture for a photograph.
    let heads = folder.path().join("heads/heads.safetensors");
    let file = SafetensorsFile::open(&heads).expect("heads");
    let mut tensors: Vec<TensorData> = { file.tensors().iter() }
        .map(|info| file.read(&info.name).expect("a tensor"))
        .collect();
    for (name, shape, value) in [
        ("gate.weight", vec![1, 1280], 0.0),
        ("gate.bias", vec![1], 1.0),
    ] {
        let values = vec![value; shape.iter().product()];
        tensors.push(TensorData::from_f32(name, shape, &values).expect("a tensor"));
    }
    write(&heads, &tensors);
    let lines = json_of(&["assemble", &text(&recipe), "-o", &pack, "--json"]);
    assert!(lines[0]["components"]["vision"].as_u64() > Some(4_000_000));
    captions(&pack);

    let short = list.to_string().replacen("\"thing 0\",", "", 1);
    std::fs::write(at("photos.json"), short.replace(",999]", "]")).expect("written");
    refused(&["999 classes, the encoder has 1000"]);
    std::fs::write(at("photos.json"), short).expect("written");
    refused(&["\"stuff\"", "no class that is there"]);
    std::fs::write(&recipe, whole.replace("threshold = 0.7", "threshold = 0.4")).expect("written");
    std::fs::write(at("photos.json"), list.to_string()).expect("written");
    refused(&["photos.threshold is 0.4"]);
}

#[test]
fn a_folder_of_clip_gives_eyes_too() {
    let (folder, recipe) = parts();
    let at = |name: &str| text(&folder.path().join(name));
    let clip = text(&common::fixtures().join("../clip"));
    let whole = std::fs::read_to_string(&recipe).expect("a recipe");
    let whole = whole.replace(&at("encoder.safetensors"), &clip);
    std::fs::write(&recipe, whole).expect("written");
    let pack = at("pack");
    let refused = |words: &[&str]| fails(&["assemble", &text(&recipe), "-o", &pack], words);
    refused(&["[3, 1280]", "features of 32"]);
    let mut random = Philox::with_stream(13, 1, 0);
    let head = [
        noise(&mut random, "names.weight".into(), &[3, 32], 0.0, 0.1),
        noise(&mut random, "names.bias".into(), &[3], 0.0, 0.1),
    ];
    write(&folder.path().join("heads/heads.safetensors"), &head);
    json_of(&["assemble", &text(&recipe), "-o", &pack, "--json"]);
    let lines = json_of(&["inspect", "--verify", "--json", "--device", "cpu", &pack]);
    assert_eq!(lines[0]["model"]["encoder"], json!([2, 32]));
    captions(&pack);
}

#[test]
fn with_a_brush_it_draws() {
    let (folder, recipe) = parts();
    drawing(folder.path(), &recipe);
    let at = |name: &str| text(&folder.path().join(name));
    let lines = json_of(&["assemble", &text(&recipe), "-o", &at("pack"), "--json"]);
    assert!(lines[0]["components"]["decoder"].as_u64() > Some(1_000_000));

    let ask = |command: &str, more: &[&str]| {
        let (pack, out) = (at("pack"), at(command));
        let base = [
            command, "--device", "cpu", "--json", "--model", &pack, "-o", &out,
        ];
        json_of(&[&base[..], more].concat())
    };
    // The answer is a picture, and words that say what it shows.
    let lines = ask("chat", &["Some cat, please"]);
    assert_eq!(lines[0]["type"], "image", "{lines:?}");
    assert!(Path::new(lines[0]["image"].as_str().expect("a path")).is_file());
    assert!(said(&lines).starts_with("I drew a"), "{lines:?}");
    // Pictures of earlier runs stay. As text, the path of a picture is set apart from the words by a space.
    let again = ask("chat", &["Some cat, please"]);
    assert_ne!(again[0]["image"], lines[0]["image"]);
    let plain = emu(&[
        "chat",
        "--device",
        "cpu",
        "--model",
        &at("pack"),
        "-o",
        &at("chat"),
        "Some cat, please",
    ]);
    assert!(
        plain.out.starts_with('[') && plain.out.contains(".png] I drew a"),
        "{}",
        plain.out
    );
    // The soft prompt adds five tokens.
    let tokens = lines.last().expect("usage")["prompt_tokens"].clone();
    let lines = ask("chat", &["--system", "", "Some cat, please"]);
    let bare = lines.last().expect("usage")["prompt_tokens"].as_u64();
    assert_eq!(tokens.as_u64(), bare.map(|n| n + 5));
    // Without --out the program says where pictures can go.
    let nowhere = emu(&[
        "chat",
        "--device",
        "cpu",
        "--model",
        &at("pack"),
        "Some cat",
    ]);
    assert_eq!((nowhere.code, nowhere.out.trim()), (Some(0), ""));
    assert!(nowhere.err.contains("--out"), "{}", nowhere.err);
    ask("imagine", &["--steps", "2", "a cat"]);
    assert!(folder.path().join("imagine").is_file());

    // A part exported with `emu part` equals its run.
    json_of(&["part", &at("reader"), "-o", &at("reader2"), "--json"]);
    let whole = std::fs::read_to_string(&recipe).expect("a recipe");
    std::fs::write(&recipe, whole.replace(&at("reader"), &at("reader2"))).expect("written");
    json_of(&["assemble", &text(&recipe), "-o", &at("pack"), "--json"]);

    // Components that do not fit.
    let refused = |from: &str, to: &str, words: &[&str]| {
        std::fs::write(&recipe, whole.replace(from, to)).expect("written");
        fails(&["assemble", &text(&recipe), "-o", &at("pack")], words);
    };
    refused(
        &at("brush"),
        &at("gone"),
        &["gone is not there", "brush.toml"],
    );
    refused(&at("brush"), &at("persona"), &["decoder"]);
    refused(&at("persona"), &at("brush"), &["no soft prompt"]);
}

#[test]
fn what_is_missing_or_does_not_fit_is_told() {
    let (folder, recipe) = parts();
    let at = |name: &str| folder.path().join(name);
    let pack = text(&at("pack"));
    let refused = |words: &[&str]| fails(&["assemble", &text(&recipe), "-o", &pack], words);
    let whole = std::fs::read_to_string(&recipe).expect("a recipe");
    let change = |from: &str, to: &str| {
        assert!(whole.contains(from), "{from}");
        std::fs::write(&recipe, whole.replace(from, to)).expect("written");
    };
    change("<image><image> on", "<image> on");
    refused(&["2 <image> for 3 embeddings"]);
    change("tokens = 2", "tokens = 0");
    refused(&["spelling.tokens is 0"]);
    change("name = 'tiny'", "name = 'tiny'\ncolour = 1");
    refused(&["recipe.toml", "colour"]);
    change("lm.gguf", "gone.gguf");
    refused(&["gone.gguf is not there", "cargo xtask parts"]);
    change("CARD.md", "gone.md");
    refused(&["gone.md is not there"]);
    change("'q8'", "'q7'");
    refused(&["q7"]);
    std::fs::write(&recipe, &whole).expect("written");

    std::fs::write(at("heads/model.json"), r#"{"names": ["cat"]}"#).expect("written");
    refused(&["[3, 1280]", "1 names", "heads.toml"]);
    std::fs::write(at("heads/model.json"), "{}").expect("written");
    refused(&["model.json", "names"]);
    std::fs::remove_dir_all(at("heads")).expect("removed");
    refused(&["heads is not there", "emu train"]);
    assert!(!at("pack").exists(), "nothing is left");
}

#[test]
fn a_model_that_is_not_there_is_told_how_to_get() {
    let folder = tempfile::tempdir().expect("a folder");
    // Both the current directory and the program are outside the checkout.
    let program = folder.path().join("emu");
    std::fs::copy(env!("CARGO_BIN_EXE_emu"), &program).expect("copied");
    let output = std::process::Command::new(&program)
        .args(["chat", "--device", "cpu", "--model", "smol", "hi"])
        .current_dir(folder.path())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("emu-smol is not here"), "{said}");
    let other = emu(&["chat", "--device", "cpu", "--model", "smoll", "hi"]);
    assert!(other.err.contains("no pack at smoll"), "{}", other.err);
}
