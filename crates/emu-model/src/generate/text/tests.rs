//! Generation with recorded decode steps, and the fallback when recording fails.

use burn::tensor::{Device, read_sync};

use super::*;
use crate::config::EmuConfig;

const PROMPT: [u32; 5] = [1, 17, 40, 5, 230];
const TOKENS: usize = 12;

fn model(device: &Device) -> (EmuConfig, Emu) {
    let config = EmuConfig::tiny();
    emu_kernels::init::seed(3);
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
