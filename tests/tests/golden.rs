//! Golden outputs of the reference implementation, compared with the same functions as `emu parity`.

use std::path::Path;

use emu_kernels::device::{DeviceChoice, open};
use emu_tests::compare::assert_rows;
use emu_tests::files::{change_weight, copy_folder, reference_folder};
use emu_tests::reference::fixtures;
use emu_train::parity;

fn all_pass(name: &str, folder: &Path, choice: DeviceChoice) {
    let device = open(choice).expect("a device").device;
    let report = parity::run(folder, &device, |_| {}).expect("a folder of goldens");
    for (part, file) in &report.skipped {
        println!("{name}: no {part}, because {file} is absent");
    }
    assert_rows(name, &report.rows);
    assert!(report.passes());
    let none: [String; 0] = [];
    assert_eq!(
        report.uncompared, none,
        "goldens that nothing was compared with"
    );
}

#[test]
fn golden_on_flex() {
    all_pass("golden-flex", &fixtures(), DeviceChoice::Cpu);
}

#[test]
fn golden_on_wgpu() {
    if std::env::var("EMU_TEST_GPU").as_deref() == Ok("1") {
        all_pass("golden-wgpu", &fixtures(), DeviceChoice::Gpu);
    } else {
        println!("SKIP golden-wgpu: EMU_TEST_GPU is not 1");
    }
}

/// Includes the data that the checkout lacks: the LLaMA tokenizer, resized pictures, the UNet.
#[test]
fn golden_of_the_whole_reference() {
    match reference_folder() {
        Some(folder) => all_pass("golden-reference", &folder, DeviceChoice::Cpu),
        None => println!("SKIP golden-reference: EMU_REFERENCE names no folder"),
    }
}

#[test]
fn a_wrong_weight_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    copy_folder(&fixtures(), folder.path());
    let weights = folder.path().join("tiny-emu.safetensors");
    change_weight(&weights, "ln_visual.weight", |w| w + 1.0);
    let device = open(DeviceChoice::Cpu).expect("a device").device;
    let report = parity::run(folder.path(), &device, |_| {}).expect("a folder of goldens");
    assert!(!report.passes());
    let failed: Vec<&str> = report.failures().map(|row| row.tensor.as_str()).collect();
    for name in ["ln_visual", "tiny-emu.pt", "right.logits", "loss.cls"] {
        assert!(failed.contains(&name), "{name} is not among {failed:?}");
    }
    // Tensors computed before the changed weight still pass.
    assert!(!failed.contains(&"eva.embed"));
}

#[test]
fn a_folder_without_goldens_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let device = open(DeviceChoice::Cpu).expect("a device").device;
    let error = parity::run(folder.path(), &device, |_| {}).expect_err("nothing there");
    assert!(error.to_string().contains("laid out like the reference"));
}
