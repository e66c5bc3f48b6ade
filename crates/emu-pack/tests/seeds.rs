//! Runs the fuzz targets' bodies over their seeds and mutations of them, since fuzzing itself needs a nightly compiler.

mod common;

use std::path::PathBuf;

use common::Dice;
use emu_pack::fuzzing;

/// Runs one body over its seed folder; each seed is mutated `rounds` times.
fn run(target: &str, rounds: usize, body: impl Fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(target);
    let mut seeds: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "no seeds for {target}");
    let mut dice = Dice(0xd1b5_4a32_d192_ed03);
    for seed in seeds {
        let bytes = std::fs::read(&seed).unwrap();
        body(&bytes);
        for _ in 0..rounds {
            body(&dice.mutate(&bytes));
        }
    }
}

#[test]
fn pickle() {
    run("pickle", 2000, fuzzing::pickle);
}

#[test]
fn pytorch() {
    run("pytorch", 500, fuzzing::pytorch);
}

#[test]
fn pack() {
    run("pack", 500, fuzzing::pack);
}

#[test]
fn safetensors() {
    run("safetensors", 1000, fuzzing::safetensors);
}

#[test]
fn key_map() {
    run("key_map", 1000, fuzzing::key_map);
}

#[test]
fn gguf() {
    run("gguf", 1000, fuzzing::gguf);
}
