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
    assert_eq!(differences(&then.fingerprint(), &now.fingerprint()), None);
    now.optimiser.lr = 0.002;
    now.rates.push(RateConfig {
        part: "lm".into(),
        lr: None,
        freeze: true,
    });
    let text = differences(&then.fingerprint(), &now.fingerprint()).unwrap();
    assert!(
        text.contains("`optimiser.lr` was 0.001, is 0.002"),
        "{text}"
    );
    assert!(
        text.contains("`rates[0].freeze` was nothing, is true"),
        "{text}"
    );
}
