//! `emu bench`, and the limits on the cost of a token: counts, which are the same on any machine.

mod common;

use common::{emu, fails, json_of, text};
use serde_json::Value;

fn number(found: &Value, what: &str) -> f64 {
    found[what]
        .as_f64()
        .unwrap_or_else(|| panic!("{what} in {found}"))
}

#[test]
fn every_part_is_measured_on_the_cpu() {
    let lm = &json_of(&["bench", "--device", "cpu", "--json", "--tokens", "4"])[0]["lm"];
    assert_eq!(lm["layers"], 4);
    assert_eq!(number(lm, "launches_per_token"), 0.0);
    for what in [
        "prefill_tokens_per_s",
        "decode_tokens_per_s",
        "weight_bytes_per_token",
    ] {
        assert!(number(lm, what) > 0.0, "{what}");
    }
    assert!(number(&lm["beam_search"], "seconds_per_step") > 0.0);
    let none = &json_of(&[
        "bench", "--device", "cpu", "--json", "--tokens", "2", "--beams", "0",
    ])[0]["lm"];
    assert!(none["beam_search"].is_null());
    let vision = &json_of(&["bench", "vision", "--device", "cpu", "--json"])[0]["vision"];
    assert!(number(vision, "seconds_per_picture") > 0.0);
    let image = json_of(&[
        "bench", "image", "--device", "cpu", "--json", "--steps", "2",
    ]);
    assert_eq!(number(&image[0]["image"], "readbacks_per_step"), 0.0);
    // Human-readable output.
    let said = emu(&["bench", "--device", "cpu", "--tokens", "2"]);
    assert!(said.out.contains("decode tokens per s"), "{}", said.out);
    fails(&["bench", "--model", "/nowhere"], &["no pack"]);
}

#[test]
fn a_token_on_wgpu_costs_no_more_than_it_may() {
    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP bench-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let pack = text(&folder.path().join("q4"));
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emu-mini");
    let said = emu(&["convert", models, "-o", &pack, "--quantize", "q4"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    // For f16 and for four-bit weights.
    let bench = |pack: &str, device: &str| {
        let line = json_of(&[
            "bench", "--model", pack, "--device", device, "--json", "--tokens", "16",
        ]);
        line[0]["lm"].clone()
    };
    within_the_limits(&bench(&pack, "gpu"));
    let halves = bench(models, "gpu");
    within_the_limits(&halves);
    // The CPU keeps f32. Norms are f32 on both.
    let share = number(&halves, "weight_bytes") / number(&bench(models, "cpu"), "weight_bytes");
    assert!(share > 0.5 && share < 0.51, "{share} of the bytes of f32");

    let image = json_of(&[
        "bench", "image", "--model", models, "--device", "gpu", "--json", "--steps", "2",
    ]);
    let launches = number(&image[0]["image"], "launches_per_step");
    assert!(
        launches <= 230.0 && launches > 100.0,
        "{launches} launches a step"
    );
    // The step is submitted in pieces of about 50 milliseconds, each of at least four launches.
    let submits = number(&image[0]["image"], "submits_per_step");
    let seconds = number(&image[0]["image"], "seconds_per_step");
    assert!(
        submits >= 1.0 && submits <= launches / 4.0 + 4.0 && submits >= seconds / 0.4,
        "{submits} submits in a step of {seconds} s"
    );
    within_its_memory(&image[0]["image"]);
    let vision = json_of(&[
        "bench", "vision", "--model", models, "--device", "gpu", "--json",
    ]);
    within_its_memory(&vision[0]["vision"]);
}

/// Compares the runtime's reserved memory with the peak live bytes: weights, cache and the largest intermediate results.
fn within_its_memory(part: &Value) {
    let [peak, live] = ["peak_bytes", "live_bytes"].map(|what| number(part, what));
    let (resting, weights) = (number(part, "resting_bytes"), number(part, "weight_bytes"));
    assert!(
        resting >= weights && live > resting,
        "{live} bytes at most, {resting} resting, {weights} of weights"
    );
    assert!(
        peak >= live && peak <= 1.15 * live,
        "{peak} bytes reserved for {live}"
    );
}

/// Limits on the counts per token.
fn within_the_limits(lm: &Value) {
    let layers = number(lm, "layers");
    let launches = number(lm, "launches_per_token");
    assert!(
        launches <= 8.0 * layers + 12.0 && launches > layers,
        "{launches} launches a token"
    );
    // The next token is requested while the previous one is read back.
    assert_eq!(number(lm, "readbacks_per_token"), 1.0);
    assert!(number(lm, "readback_bytes_per_token") <= 64.0);
    let submits = number(lm, "submits_per_token");
    // One submission for the launches, one for the copy of the token.
    assert!(submits <= 2.5, "{submits} submits a token");
    let moved = number(lm, "weight_bytes_per_token");
    let there = number(lm, "weight_bytes");
    assert!(
        moved <= 1.02 * there && moved > 0.9 * there,
        "{moved} bytes of weights of {there}"
    );
    within_its_memory(lm);
    // Beam search reads back no logits: the best two continuations of each beam, eight bytes each.
    let search = &lm["beam_search"];
    assert_eq!(number(search, "beams"), 5.0);
    assert!(number(search, "steps") >= 16.0, "{search}");
    assert_eq!(number(search, "readbacks_per_step"), 1.0);
    assert_eq!(number(search, "readback_bytes_per_step"), 5.0 * 16.0);
    let launches = number(search, "launches_per_step");
    assert!(
        launches <= 8.0 * layers + 12.0 && launches > layers,
        "{launches} launches of a step of beams"
    );
}

#[test]
fn every_kernel_is_timed_on_wgpu() {
    // The CPU has no GPU kernels to time.
    fails(
        &["bench", "kernels", "--device", "cpu"],
        &["the kernels of GPUs", "--device"],
    );
    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP bench-kernels-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    let found = &json_of(&["bench", "kernels", "--quick", "--json"])[0]["kernels"];
    for what in [
        "copy_bandwidth_bytes_per_s",
        "product_operations_per_s",
        "product_size",
    ] {
        assert!(number(found, what) > 0.0, "{what}");
    }
    let cases = found["cases"].as_array().expect("cases");
    for case in cases {
        for what in [
            "seconds",
            "bytes_per_s",
            "copy_bandwidth_share",
            "operations_per_s",
            "product_share",
        ] {
            let value = number(case, what);
            assert!(value.is_finite() && value > 0.0, "{what} of {case}");
        }
        // A case is a single launch without surrounding copies.
        assert_eq!(case["launches"], 1, "{case}");
        assert!(number(case, "batches") >= 3.0, "{case}");
        assert!(number(case, "seconds") < 60.0, "{case}");
    }
    // Software adapters use one kernel for products of few rows and of many.
    let few = match found["software"].as_bool() {
        Some(true) => "packed_matrix",
        _ => "packed_vector",
    };
    for kernel in [
        few,
        "packed_matrix",
        "packed_rows",
        "decode_attention",
        "attention",
        "conv",
        "group_norm",
        "layer_norm",
        "rms_norm",
        "silu_pair",
        "gelu",
        "sample",
    ] {
        let timed = cases.iter().filter(|case| case["kernel"] == kernel);
        assert!(timed.count() > 0, "no {kernel}");
    }
}
