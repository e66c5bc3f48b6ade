//! Conversion holds one tensor and one shard in memory, whatever the size of the model.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs::File,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use emu_pack::{
    PackReader, SafetensorsFile, TensorData, TensorSource,
    convert::{PackMeta, PackWriter, Policy, WriteOptions},
    write_safetensors,
};

/// An allocator that tracks the current and the peak number of allocated bytes.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is forwarded to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(
            NOW.fetch_add(layout.size(), Relaxed) + layout.size(),
            Relaxed,
        );
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Peak allocation during `work`, in addition to what was allocated before.
fn peak(work: impl FnOnce()) -> usize {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    work();
    PEAK.load(Relaxed) - before
}

#[test]
fn one_tensor_and_one_shard() {
    const TENSOR: usize = 8 << 20;
    const SHARD: usize = 2 << 20;
    const SLACK: usize = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    {
        let values = vec![0.5; TENSOR / 4];
        let tensor = |i: usize| {
            TensorData::from_f32(format!("t{i}"), vec![TENSOR / 4096, 1024], &values).unwrap()
        };
        write_safetensors(
            &mut File::create(&path).unwrap(),
            &[tensor(0), tensor(1), tensor(2)],
        )
        .unwrap();
    }
    for policy in ["none", "f16", "q8", "q4_1"] {
        let target = folder.path().join(policy);
        let options = WriteOptions {
            policy: Policy::from_argument(policy).unwrap(),
            max_shard_bytes: SHARD as u64,
            resume: None,
        };
        let converting = peak(|| {
            let source = SafetensorsFile::open(&path).unwrap();
            let mut writer = PackWriter::create(&target, PackMeta::default(), options).unwrap();
            for info in source.tensors() {
                writer.add("lm", source.read(&info.name).unwrap()).unwrap();
            }
            writer.finish().unwrap();
        });
        assert!(
            converting <= TENSOR + SHARD + SLACK,
            "{policy}: {converting} bytes"
        );
        let reading = peak(|| {
            let pack = PackReader::open(&target).unwrap();
            for info in pack.tensors() {
                pack.read(&info.name).unwrap();
            }
        });
        // Hashing a shard uses a chunk of one megabyte, which is freed before a tensor is read.
        assert!(reading <= TENSOR + SLACK, "{policy}: {reading} bytes");
        println!("{policy}: converting {converting}, reading {reading}");
    }
}
