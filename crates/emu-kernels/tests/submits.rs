//! Counted submissions, which are derived from their triggers, match wgpu's own numbers.

#![cfg(feature = "wgpu")]

use emu_kernels::burn::tensor::wgpu::wgpu::Queue;
use emu_kernels::burn::tensor::{Device, Int, Tensor, TensorData, read_sync};
use emu_kernels::count::{self, Launches, Meter};
use emu_kernels::device::LAUNCHES;
use emu_kernels::ops;
use emu_kernels::readback::{self, Recorded};

/// The index of an empty submission to the queue. wgpu shows it only in its `Debug` text: should that text change, only this
/// test fails.
fn number(queue: &Queue) -> u64 {
    let shown = format!("{:?}", queue.submit([]));
    let digits: String = shown.chars().filter(char::is_ascii_digit).collect();
    digits
        .parse()
        .expect("a number in the text of a submission")
}

/// Submissions of `work`: our count, and wgpu's. `waits` is how often `work` waits for the device, besides once at its end.
fn submitted(
    (device, queue, meter): (&Device, &Queue, &Meter),
    waits: u64,
    work: impl FnOnce(),
) -> (u64, u64) {
    device.sync().expect("a device that works");
    count::flushed();
    let (ours, reads, theirs) = (meter.submits(), meter.reads().0, number(queue));
    work();
    device.sync().expect("a device that works");
    count::flushed();
    // wgpu also numbers waits, the submission that queries the number, and each mapped read-back buffer.
    let others = waits + 2 + meter.reads().0 - reads;
    (meter.submits() - ours, number(queue) - theirs - others)
}

#[test]
fn submissions_are_counted_as_they_are_made_on_wgpu() {
    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP submits-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    // A process has one such device; its queue is accessible here.
    let options = Device::wgpu_options().tasks_max(LAUNCHES);
    let (device, setup) = options.init_with_setup().expect("an adapter");
    let queue = &setup.queue;
    let watching = Launches::watch();
    let x = Tensor::<3>::ones([1, 2, 64], &device);
    let gate = |n: usize| (0..n).for_each(|_| drop(ops::silu_pair(x.clone())));
    let token = Tensor::<1, Int>::from_data(TensorData::new(vec![3i32], [1]), &device);
    let read = |tensor: Tensor<1, Int>| read_sync(readback::start(tensor)).expect("numbers");
    gate(1);
    read(token.clone());

    let waiting = |what: &str, work: &dyn Fn(), waits: u64, wanted: u64| {
        let (ours, theirs) = submitted((&device, queue, watching.meter()), waits, work);
        assert_eq!((ours, theirs), (wanted, wanted), "{what}");
    };
    let same = |what: &str, work: &dyn Fn(), wanted: u64| waiting(what, work, 0, wanted);
    same("nothing", &|| {}, 0);
    same("a launch", &|| gate(1), 1);
    same("a batch", &|| gate(LAUNCHES), 1);
    same("more than two batches", &|| gate(2 * LAUNCHES + 1), 3);
    same("a copy", &|| drop(read(token.clone())), 1);
    let launched_and_read = || {
        gate(3);
        read(token.clone());
    };
    same("launches and a copy", &launched_and_read, 2);
    let waits = || {
        gate(3);
        read_sync(readback::done(&x)).expect("a device that works");
        gate(3);
    };
    waiting("a wait between launches", &waits, 1, 2);
    let upload = || {
        gate(3);
        count::flushed();
        drop(Tensor::<1>::from_data([1.0, 2.0], &device));
        gate(3);
    };
    same("an upload between launches", &upload, 2);

    // A recorded launch does not count until it is replayed.
    let record = || Recorded::record(&device, || ops::silu_pair(x.clone())).expect("a recording");
    let before = watching.total();
    let (mut turn, _kept) = record();
    assert_eq!(watching.total(), before);
    let replays = std::cell::RefCell::new(|n: usize| {
        for _ in 0..n {
            // SAFETY: `x` and the results of the recording still exist.
            unsafe { turn.replay() }.expect("a replay");
        }
    });
    same("a replay", &|| (replays.borrow_mut())(1), 1);
    let launched_and_replayed = || {
        gate(3);
        (replays.borrow_mut())(5);
    };
    same("launches and replays", &launched_and_replayed, 6);
    assert_eq!(watching.total() - before, 1 + 3 + 5);
}
