use emu_kernels::device::DeviceChoice;

use super::*;

const MINIMAL: &str =
    "stage = 'vae'\nout = 'runs/vae'\nsteps = 100\nbatch = 4\n[optimiser]\nlr = 1e-3\n";

fn parse(text: &str) -> Result<TrainConfig, TrainError> {
    TrainConfig::parse(text, Path::new("test.toml"))
}

#[test]
fn defaults_are_filled_in() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(
        (
            config.accumulate,
            config.optimiser.clip,
            config.checkpoint.keep
        ),
        (1, 1.0, 2)
    );
    let again = parse(&toml::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
}

#[test]
fn devices_are_those_of_the_command_line() {
    let device = |name: &str| parse(&format!("device = '{name}'\n{MINIMAL}"));
    let called = DeviceChoice::Called("gpu:1".into());
    assert_eq!(device("gpu:1").expect("a device").device, called);
    assert_eq!(device("cpu").expect("a device").device, DeviceChoice::Cpu);
    let message = device("").expect_err("no name").to_string();
    assert!(message.contains("emu devices"), "{message}");
}

#[test]
fn wrong_values_name_their_key() {
    for (line, key) in [
        ("steps = 0", "steps"),
        ("batch = 0", "batch"),
        ("accumulate = 0", "accumulate"),
        ("threads = 0", "threads"),
        ("stage = ''", "stage"),
        ("init = { equal_query_key = 4.0 }", "init.equal_query_key"),
        ("out = ''", "out"),
        ("optimiser = { lr = -1.0 }", "optimiser.lr"),
        ("optimiser = { lr = nan }", "optimiser.lr"),
        (
            "optimiser = { lr = 1.0, betas = [0.9, 1.0] }",
            "optimiser.betas",
        ),
        ("optimiser = { lr = 1.0, eps = 0.0 }", "optimiser.eps"),
        ("optimiser = { lr = 1.0, clip = -1.0 }", "optimiser.clip"),
        ("schedule = { floor = 2.0 }", "schedule.floor"),
        ("ema = { decay = 1.0 }", "ema.decay"),
        ("checkpoint = { keep = 0 }", "checkpoint.keep"),
        (
            "rates = [{ part = 'lm', lr = 1e-3, freeze = true }]",
            "rates[0].lr",
        ),
        (
            "rates = [{ part = 'lm' }, { part = 'lm' }]",
            "rates[1].part",
        ),
        ("data = [{ path = 'x', weight = 0.0 }]", "data[0].weight"),
        ("data = [{ path = 'x', weight = inf }]", "data[0].weight"),
        ("data = [{ path = 'x', batch = 0 }]", "data[0].batch"),
        ("data = [{ path = 'x', tokens = 0 }]", "data[0].tokens"),
        ("max_bad_share = 1.5", "max_bad_share"),
        ("max_bad_share = nan", "max_bad_share"),
    ] {
        let mut table: toml::Table = toml::from_str(MINIMAL).unwrap();
        table.extend(toml::from_str::<toml::Table>(line).unwrap());
        let error = parse(&toml::to_string(&table).unwrap()).unwrap_err();
        assert_eq!(error.code(), "config");
        assert!(
            error.to_string().contains(&format!("`{key}`")),
            "{line}: {error}"
        );
    }
}

#[test]
fn unknown_and_mistyped_keys_are_errors() {
    for (text, word) in [
        (format!("stpes = 3\n{MINIMAL}"), "stpes"),
        (format!("{MINIMAL}\nmomentum = 3"), "momentum"),
        (MINIMAL.replace("steps = 100", "steps = 'many'"), "steps"),
        (MINIMAL.replace("stage = 'vae'", ""), "stage"),
        (MINIMAL.replace("steps = 100", "steps = "), "steps"),
    ] {
        let error = parse(&text).unwrap_err();
        assert_eq!(error.code(), "config-syntax");
        assert!(error.to_string().contains(word), "{error}");
    }
    assert_eq!(
        TrainConfig::read("/nowhere/at/all.toml")
            .unwrap_err()
            .code(),
        "io"
    );
}

#[test]
fn options_belong_to_the_stage() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Options {
        kl: f64,
    }
    let config = parse(&format!("{MINIMAL}\n[options]\nkl = 0.5")).unwrap();
    assert_eq!(config.options::<Options>().unwrap().kl, 0.5);
    let error = parse(&format!("{MINIMAL}\n[options]\nlk = 0.5"))
        .unwrap()
        .options::<Options>()
        .unwrap_err();
    assert!(error.to_string().contains("lk"), "{error}");
}

#[test]
fn differences_are_named() {
    let then = parse(MINIMAL).unwrap();
    let mut now = then.clone();
    now.steps = 200;
    now.log.every = 1;
    now.out = "elsewhere".into();
    now.max_bad_share = 0.5;
    let compare = |now: &TrainConfig| Differences::new(&then.fingerprint(), &now.fingerprint());
    assert_eq!(compare(&now), Differences::default());
    now.batch = 8;
    let found = compare(&now);
    assert_eq!(found.allowed, ["`batch` was 4, is 8"]);
    assert!(found.forbidden.is_empty(), "{found:?}");
    now.optimiser.lr = 0.002;
    now.rates.push(RateConfig {
        part: "lm".into(),
        lr: None,
        freeze: true,
    });
    let text = compare(&now).forbidden.join("; ");
    assert!(
        text.contains("`optimiser.lr` was 0.001, is 0.002"),
        "{text}"
    );
    assert!(
        text.contains("`rates[0].freeze` was nothing, is true"),
        "{text}"
    );
}

#[test]
fn moved_data_is_allowed_and_more_data_is_not() {
    let with = |paths: &[&str]| {
        let data: String = paths
            .iter()
            .map(|path| format!("[[data]]\npath = '{path}'\n"))
            .collect();
        parse(&format!("{MINIMAL}{data}"))
            .expect("a config")
            .fingerprint()
    };
    let found = Differences::new(&with(&["a", "b"]), &with(&["a", "c"]));
    assert_eq!(found.allowed, ["`data[1].path` was \"b\", is \"c\""]);
    assert!(found.forbidden.is_empty(), "{found:?}");
    let found = Differences::new(&with(&["a"]), &with(&["a", "c"]));
    assert!(!found.forbidden.is_empty(), "{found:?}");
}

#[test]
fn data_sets_have_batches_of_their_own() {
    let with = |data: &str| parse(&format!("{MINIMAL}{data}")).expect("a config");
    let one = "[[data]]\npath = 'a'\nweight = 3.0\n";
    let plain = with(one);
    assert_eq!((plain.batches(), plain.samples_per_step()), (None, 4.0));
    let own = with(&format!("{one}[[data]]\npath = 'b'\nbatch = 16\n"));
    assert_eq!(own.batches(), Some(vec![4, 16]));
    assert_eq!(own.samples_per_step(), 7.0, "(3 · 4 + 16) / 4");
    // A batch that changes is as one of the run: told, and not refused.
    let other = with(&format!("{one}[[data]]\npath = 'b'\nbatch = 8\n"));
    let found = Differences::new(&own.fingerprint(), &other.fingerprint());
    assert_eq!(found.allowed, ["`data[1].batch` was 16, is 8"]);
    assert!(found.forbidden.is_empty(), "{found:?}");
}

#[test]
fn settings_and_variables_are_applied_before_validation() {
    let path = Path::new("test.toml");
    let settings = ["steps=7", "out='${HOME_OF_RUNS}/x'", "log.eval_every=5"]
        .map(|text| text.parse().expect("a setting"));
    let variable = |name: &str| (name == "HOME_OF_RUNS").then(|| "there".to_string());
    let config = TrainConfig::parse_with(MINIMAL, path, &settings, &variable).expect("a config");
    assert_eq!((config.steps, config.log.eval_every), (7, 5));
    assert_eq!(config.out, Path::new("there/x"));
    let wrong = ["batch=0".parse().expect("a setting")];
    let error = TrainConfig::parse_with(MINIMAL, path, &wrong, &|_| None).expect_err("no batch");
    assert!(error.to_string().contains("`batch`"), "{error}");
    // The file is right: the message names what changed it.
    let unknown = ["optimizer.lr=1".parse().expect("a setting")];
    let error = TrainConfig::parse_with(MINIMAL, path, &unknown, &|_| None).expect_err("no field");
    let said = error.to_string();
    assert!(
        said.contains("unknown field `optimizer`") && said.contains("with --set optimizer.lr."),
        "{said}"
    );
}

#[test]
fn what_is_never_evaluated_is_refused() {
    for more in [
        "validation = [{ path = 'val' }]",
        "early_stop = { figure = 'val.loss', patience = 1 }",
        "checkpoint = { best = { figure = 'val.loss' } }",
    ] {
        let error = parse(&format!("{more}\n{MINIMAL}")).expect_err(more);
        assert!(error.to_string().contains("log.eval_every"), "{error}");
    }
    for (key, more) in [
        (
            "early_stop.figure",
            "early_stop = { figure = 'val.loss', patience = 1 }",
        ),
        (
            "checkpoint.best.figure",
            "checkpoint = { best = { figure = 'val.loss' } }",
        ),
    ] {
        let with = |held_out: &str| {
            let text = "log = { eval_every = 1 }";
            parse(&format!("{text}\n{more}\n{held_out}\n{MINIMAL}"))
        };
        let error = with("validation = [{ path = 'a/test' }]").expect_err(more);
        let said = error.to_string();
        assert!(said.contains(key) && said.contains("`val`"), "{said}");
        assert!(with("").is_err(), "{more}");
        assert!(with("validation = [{ path = 'a/val' }]").is_ok(), "{more}");
    }
    let twice = "log = { eval_every = 1 }\nvalidation = [{ path = 'a/val' }, { path = 'b/val' }]";
    let error = parse(&format!("{twice}\n{MINIMAL}")).expect_err("one name");
    assert!(error.to_string().contains("validation[1].name"), "{error}");
}
