//! Asynchronous read-backs: each has the values at the time of its start, awaited or not.

use emu_kernels::burn::tensor::{Device, Int, Tensor, TensorData, read_sync};
use emu_kernels::device::{self, DeviceChoice};
use emu_kernels::readback::{self, Readback};

fn numbers(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

fn arrived(late: Readback) -> Vec<i32> {
    read_sync(late).expect("a device that works")
}

fn everything(device: &Device) {
    let start = numbers(&[7, -3], device);
    let first = readback::start(start.clone());
    let second = readback::start(start.clone() * 2);
    let (forgotten, waiting) = (
        readback::start(start.clone() * 3),
        readback::start(start.clone() * 4),
    );
    drop(forgotten);
    // Buffers of dropped read-backs are reused while others are still pending.
    for round in 1..20 {
        drop(readback::start(start.clone() * round));
        let kept = readback::start(start.clone() + round);
        drop(readback::start(start.clone() - round));
        assert_eq!(arrived(kept), [7 + round, round - 3]);
    }
    let floats = Tensor::<2>::ones([64, 64], device);
    let product = floats.clone().matmul(floats);
    read_sync(readback::done(&product)).expect("a device that works");
    assert_eq!(arrived(waiting), [28, -12]);
    assert_eq!(arrived(second), [14, -6]);
    assert_eq!(arrived(first), [7, -3]);
}

#[test]
fn results_that_nobody_waits_for_disturb_nothing() {
    everything(&Device::flex());
}

#[test]
fn results_that_nobody_waits_for_disturb_nothing_on_wgpu() {
    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP late-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    let opened = device::open(DeviceChoice::Gpu).expect("EMU_TEST_GPU asks for an adapter");
    everything(&opened.device);
}
