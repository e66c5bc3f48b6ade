//! Generation with recorded decode steps, and the fallback when recording fails; log-probabilities.

use burn::tensor::{Device, read_sync};

use super::*;
use crate::config::EmuConfig;

const PROMPT: [u32; 5] = [1, 17, 40, 5, 230];
const TOKENS: usize = 12;

fn model(device: &Device) -> (EmuConfig, Emu) {
    let config = EmuConfig::tiny();
    let _sequence = emu_kernels::init::seed(3);
    let emu = config.init(device).expect("a model");
    (config, emu)
}

fn machine<'a>(emu: &'a Emu, config: &'a EmuConfig) -> TextMachine<'a> {
    let options = TextOptions {
        max_new_tokens: TOKENS,
        // Each token depends on all before it.
        sampling: Sampling {
            temperature: 1.0,
            ..Default::default()
        },
        seed: 4,
        ignore_ends: true,
        ..Default::default()
    };
    let prompt = Prompt::text(PROMPT.to_vec());
    TextMachine::new(emu, config, &prompt, options).expect("it fits")
}

/// Runs to the end. After each token, the cache holds the positions read so far.
fn run(mut machine: TextMachine<'_>) -> Vec<u32> {
    while !matches!(
        read_sync(machine.step()).expect("a step"),
        TextEvent::Done(_)
    ) {
        let read = machine.history.len() - 2 + machine.decode.steps_in_flight();
        assert_eq!(machine.decode.cache().len(), PROMPT.len() + read);
    }
    machine.history
}

/// Tokens of an answer, and their log-probabilities.
fn told(emu: &Emu, config: &EmuConfig, options: TextOptions) -> (Vec<u32>, Vec<Logprobs>) {
    let prompt = Prompt::text(PROMPT.to_vec());
    let mut machine = TextMachine::new(emu, config, &prompt, options).expect("it fits");
    let (mut tokens, mut logprobs) = (vec![], vec![]);
    loop {
        match read_sync(machine.step()).expect("a step") {
            TextEvent::Token(token) => {
                tokens.push(token);
                logprobs.extend(machine.next_logprobs());
            }
            TextEvent::Done(_) => return (tokens, logprobs),
            _ => {}
        }
    }
}

#[test]
fn log_probabilities_change_no_token() {
    let (config, emu) = model(&Device::flex());
    let options = |logprobs| TextOptions {
        max_new_tokens: TOKENS,
        processors: Processors {
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            logit_bias: vec![(7, 2.0), (40, -1.0)],
            ..Default::default()
        },
        sampling: Sampling {
            temperature: 1.5,
            min_p: 0.02,
            ..Default::default()
        },
        seed: 4,
        ignore_ends: true,
        logprobs,
        ..Default::default()
    };
    let (plain, none) = told(&emu, &config, options(None));
    let (tokens, logprobs) = told(&emu, &config, options(Some(3)));
    assert_eq!(tokens, plain);
    assert_eq!((tokens.len(), none.len()), (TOKENS, 0));
    let chosen: Vec<u32> = logprobs.iter().map(|of| of.token).collect();
    assert_eq!(chosen, tokens);
    assert!(logprobs.iter().all(|of| of.top.len() == 3));
    // Without bias and penalties other tokens are drawn, so these options have an effect.
    let free = TextOptions {
        processors: Processors::default(),
        ..options(None)
    };
    assert_ne!(told(&emu, &config, free).0, plain);
}

#[test]
fn log_probabilities_are_those_of_the_raw_logits() {
    let (config, emu) = model(&Device::flex());
    let options = TextOptions {
        max_new_tokens: TOKENS,
        keep_logits: true,
        ban_images: false,
        ignore_ends: true,
        logprobs: Some(2),
        ..Default::default()
    };
    let prompt = Prompt::text(PROMPT.to_vec());
    let mut machine = TextMachine::new(&emu, &config, &prompt, options.clone()).expect("it fits");
    let mut seen = vec![];
    while let TextEvent::Token(token) = read_sync(machine.step()).expect("a step") {
        // Nothing processes them here.
        let raw = machine.processed().expect("kept").to_vec();
        let log_sum = raw.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
        let found = machine.next_logprobs().expect("asked for");
        let want = f64::from(raw[token as usize]) - log_sum;
        assert!((f64::from(found.logprob) - want).abs() < 1e-4);
        // Greedy: the most likely token.
        assert_eq!(found.top[0], (token, found.logprob));
        seen.push(found);
    }
    assert_eq!(seen.len(), TOKENS);
    // A bias changes the tokens and not the distribution at the first of them.
    let favoured = seen[0].top[1].0;
    let biased = TextOptions {
        processors: Processors {
            logit_bias: vec![(favoured, 100.0)],
            ..Default::default()
        },
        ..options
    };
    let (tokens, logprobs) = told(&emu, &config, biased);
    assert_eq!(tokens, [favoured; TOKENS]);
    assert_eq!(logprobs[0].top, seen[0].top);
}

#[test]
fn a_biased_token_outside_the_vocabulary_is_refused() {
    let (config, emu) = model(&Device::flex());
    let mut options = TextOptions::default();
    options.processors.logit_bias = vec![(config.lm.vocab as u32, 1.0)];
    let prompt = Prompt::text(PROMPT.to_vec());
    let refused = TextMachine::new(&emu, &config, &prompt, options).err();
    assert!(matches!(
        refused,
        Some(GenerateError::Option {
            option: "logit-bias",
            ..
        })
    ));
}

#[cfg(feature = "wgpu")]
#[test]
fn a_recording_that_is_refused_on_wgpu_changes_no_word() {
    use emu_kernels::burn::backend::{Backend, Dispatch};
    use emu_kernels::device::{self, DeviceChoice};

    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP text-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    let opened = device::open(DeviceChoice::Gpu).expect("EMU_TEST_GPU asks for an adapter");
    let (config, emu) = model(&opened.device);
    let recorded = run(machine(&emu, &config));
    // Another recording is already prepared, so no second one can start.
    let dispatch = opened.device.as_dispatch();
    Dispatch::graph_prepare(dispatch).expect("nobody records");
    let refused = run(machine(&emu, &config));
    assert!(
        Dispatch::graph_stop_capture(dispatch).is_err(),
        "nothing was recorded"
    );
    assert_eq!(refused, recorded);
    // The refusal left no trace: the next machine records again.
    let mut again = machine(&emu, &config);
    for _ in 0..TOKENS {
        read_sync(again.step()).expect("a step");
    }
    assert!(again.decode.is_recorded());
}
