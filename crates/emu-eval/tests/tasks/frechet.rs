//! The Frechet distance from files of features and from folders of pictures.

use std::fs;
use std::path::Path;

use emu_eval::tasks::{EvalError, Evaluated, FeatureIndex, FeatureSource, ProblemKind, frechet};

use crate::fake::Fake;
use crate::fixtures::{picture, write};

fn features(path: &Path, model: &str, rows: &[[f32; 2]]) {
    let rows: Vec<_> = { rows.iter().enumerate() }
        .map(|(i, row)| (format!("{i}.png"), row.to_vec()))
        .collect();
    FeatureIndex::write(path, model, &rows).expect("features");
}

fn compared(a: &Path, b: &Path, out: &Path, model: &mut Fake) -> Result<Evaluated, EvalError> {
    let sources = [a, b].map(FeatureSource::at);
    frechet([&sources[0], &sources[1]], model, out, &mut |_| true)
}

#[test]
fn files_of_features_are_compared_as_they_are() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    // Variances 2 and 8 along the first feature, means 2 and 5; the second feature is constant.
    features(&at("a"), "inception", &[[1.0, 7.0], [3.0, 7.0]]);
    features(&at("b"), "inception", &[[3.0, 7.0], [7.0, 7.0]]);
    let model = &mut Fake::knowing(&[]);
    let done = compared(&at("a"), &at("b"), &at("out"), model).expect("compared");
    let metric = &done.result.metrics[0];
    // (2 - 5)^2 + 2 + 8 - 2 * sqrt(2 * 8)
    assert!((metric.value - 11.0).abs() < 1e-9, "{}", metric.value);
    assert_eq!(metric.name, "Frechet distance (features of inception)");
    assert!(done.result.complete && metric.interval.is_none());
    let markdown = fs::read_to_string(at("out/report.md")).expect("report");
    assert!(
        markdown.contains("no FID") && markdown.contains("Frechet distance (a against b)"),
        "{markdown}"
    );
    assert_eq!(model.calls, 0);
    let same = compared(&at("a"), &at("a"), &at("same"), model).expect("compared");
    assert!(same.result.metrics[0].value.abs() < 1e-9);
}

#[test]
fn folders_of_pictures_get_the_features_of_the_model() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    for name in [
        "drawn/1.bmp",
        "drawn/more/3.bmp",
        "data/3.bmp",
        "data/7.bmp",
        "data/torn.bmp",
    ] {
        picture(&at(name), [0, 0, 0]);
    }
    write(&at("data/notes.txt"), "no picture");
    let mut model = Fake::knowing(&[]);
    model.unreadable = vec!["torn.bmp".to_owned()];
    let done = compared(&at("drawn"), &at("data"), &at("out"), &mut model).expect("compared");
    // The features of the fake are (digit, 3).
    assert!((done.result.metrics[0].value - 11.0).abs() < 1e-9);
    assert!(!done.result.complete);
    assert_eq!(done.result.problems.count(ProblemKind::UnreadableMedia), 1);
    assert_eq!(done.result.questions.official, 5);
    let calls = model.calls;
    compared(&at("drawn"), &at("data"), &at("out"), &mut model).expect("again");
    assert_eq!(model.calls, calls, "features are computed once");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    features(&at("a"), "inception", &[[1.0, 7.0], [3.0, 7.0]]);
    features(&at("b"), "clip", &[[1.0, 7.0], [3.0, 7.0]]);
    features(&at("one"), "inception", &[[1.0, 7.0]]);
    fs::create_dir(at("empty")).expect("folder");
    let model = &mut Fake::knowing(&[]);
    for (other, words) in [
        ("b", "different networks: inception and clip"),
        ("one", "needs two samples"),
        ("empty", "*.png"),
        ("nothing", "nothing"),
    ] {
        let error = compared(&at("a"), &at(other), &at("out"), model).expect_err(other);
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(!at("out/result.json").exists());
}
