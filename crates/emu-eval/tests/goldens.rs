//! The goldens of the original programs, and that a wrong result in them is found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use emu_eval::goldens::{FILES, GoldenError, Report, compare, run};
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/scorers")
}

fn texts() -> BTreeMap<String, String> {
    let read = |file: &&str| {
        (
            file.to_string(),
            std::fs::read_to_string(folder().join(file)).expect("fixture"),
        )
    };
    FILES.iter().map(read).collect()
}

/// The report with a value in a file replaced.
fn with(file: &str, pointer: &str, value: Value) -> Result<Report, GoldenError> {
    let mut texts = texts();
    let text = texts.get_mut(file).expect("known file");
    let mut json: Value = serde_json::from_str(text).expect("JSON");
    *json
        .pointer_mut(pointer)
        .unwrap_or_else(|| panic!("{file} has no {pointer}")) = value;
    *text = json.to_string();
    compare(&texts)
}

#[test]
fn all_goldens_pass() {
    let report = run(&folder()).expect("goldens");
    println!("{report}");
    assert_eq!(report.failed(), 0, "{report}");
    assert_eq!(report.skipped, []);
    assert!(report.compared() > 1000, "{}", report.compared());
    for file in FILES {
        assert!(report.cases.iter().any(|case| case.file == file), "{file}");
    }
    // Not only enough of them: all.
    assert!(
        report.cases.iter().all(|case| case.detail.is_none()),
        "{report}"
    );
    let last = format!("{} compared, 0 failed", report.compared());
    assert_eq!(report.to_string().lines().last(), Some(last.as_str()));
}

#[test]
fn a_wrong_result_of_each_kind_is_found() {
    for (file, pointer, value) in [
        (
            "captions.json",
            "/items/1/hypothesis_tokens",
            json!("a man riding a wave"),
        ),
        (
            "captions.json",
            "/items/1/references_tokens/2",
            json!("a man surfing"),
        ),
        (
            "captions.json",
            "/items/1/expected/Bleu_3",
            json!(0.941_036_03),
        ),
        (
            "captions.json",
            "/items/0/expected/ROUGE_L",
            json!(0.999_999_99),
        ),
        (
            "captions.json",
            "/items/0/expected/CIDEr",
            json!(3.230_744_69),
        ),
        (
            "captions.json",
            "/expected_corpus/CIDEr",
            json!(1.697_313_48),
        ),
        (
            "captions_pretokenized.json",
            "/corpora/2/items/0/expected/Bleu_4",
            json!(7.59835e-05),
        ),
        (
            "captions_pretokenized.json",
            "/corpora/1/expected_corpus/Bleu_2",
            json!(0.904_837),
        ),
        (
            "vqa.json",
            "/cases/1/expected/official/accuracy",
            json!(30.01),
        ),
        (
            "vqa.json",
            "/cases/7/expected/emu/normalized",
            json!("the dog"),
        ),
        (
            "vqa.json",
            "/cases/7/expected/official/normalized_punctuation",
            json!("dog"),
        ),
        (
            "vqa.json",
            "/cases/7/expected/emu_after_short_answer/short_answer",
            json!("the dog"),
        ),
        (
            "vqa.json",
            "/cases_without_answer_id/1/expected/official/accuracy",
            json!(100.0),
        ),
        (
            "vqa.json",
            "/okvqa_cases/2/expected/okvqa_emu/normalized",
            json!("fire hydrant"),
        ),
        ("vqa.json", "/short_answer/0/expected", json!("a red ball")),
        ("vqa.json", "/expected_set/emu/overall", json!(73.9)),
        (
            "vqa.json",
            "/expected_set/official/perAnswerType/number",
            json!(80.1),
        ),
        (
            "vqa.json",
            "/expected_set/official/perQuestionType/whose",
            json!(0.0),
        ),
        ("vqa.json", "/expected_set_okvqa_emu/overall", json!(83.3)),
        (
            "vqa_contractions.json",
            "/lowercase_keys/dont",
            json!("do not"),
        ),
        ("visdial.json", "/cases/0/expected/ranks/0", json!(82)),
        ("visdial.json", "/cases/0/expected/gt_rank", json!(2)),
        ("visdial.json", "/cases/1/expected/sparse/mrr", json!(0.21)),
        ("visdial.json", "/cases/2/expected/ndcg", json!(0.121_29)),
        ("visdial.json", "/cases/8/expected/ndcg_max", json!(0.08)),
        ("visdial.json", "/cases/9/expected/ndcg", json!(0.0)),
        ("visdial.json", "/expected_set/ndcg", json!(0.3716)),
        ("visdial.json", "/expected_set/r@5", json!(0.4)),
        ("frechet.json", "/cases/1/expected", json!(3.0105)),
        ("frechet.json", "/cases/0/expected", json!(0.001)),
        ("frechet.json", "/cases/1/mean_a/0", json!(-0.67391)),
        ("frechet.json", "/cases/1/cov_a/1/0", json!(0.034_083)),
    ] {
        let report = with(file, pointer, value).expect("the layout is the same");
        assert!(report.failed() >= 1, "{file}{pointer}: {report}");
        let failed = report.cases.iter().filter(|case| !case.passed);
        assert!(
            failed
                .clone()
                .all(|case| case.file == file && case.detail.is_some()),
            "{report}"
        );
        assert!(report.to_string().contains("FAILED"), "{report}");
    }
}

#[test]
fn few_odd_strings_may_differ_and_many_may_not() {
    let spoil = |count: usize| {
        let mut texts = texts();
        let text = texts.get_mut("ptb_tokens.json").expect("known file");
        let mut json: Value = serde_json::from_str(text).expect("JSON");
        let cases = json["cases"].as_array_mut().expect("cases");
        let share = count as f64 / cases.len() as f64;
        cases
            .iter_mut()
            .take(count)
            .for_each(|case| case["expected"] = json!("spoiled"));
        *text = json.to_string();
        (share, compare(&texts).expect("the layout is the same"))
    };
    let (share, few) = spoil(4);
    assert!(share < 0.05 && few.failed() == 0, "{few}");
    assert!(few.to_string().contains("allowed"), "{few}");
    let (share, many) = spoil(6);
    assert!(share > 0.05 && many.failed() == 6, "{many}");
}

#[test]
fn nan_never_passes() {
    let report =
        with("frechet.json", "/cases/1/mean_a", json!([1.0])).expect("the layout is the same");
    assert!(report.failed() == 1, "{report}");
    let json = serde_json::to_value(&report).expect("JSON");
    let failed = json["cases"]
        .as_array()
        .expect("cases")
        .iter()
        .find(|case| case["passed"] == json!(false));
    assert_eq!(failed.expect("failed case")["error"], json!("NaN"));
}

#[test]
fn missing_and_unknown_files_are_named() {
    let copy = tempfile::tempdir().expect("folder");
    for file in ["visdial.json", "frechet.json"] {
        std::fs::copy(folder().join(file), copy.path().join(file)).expect("copy");
    }
    std::fs::write(copy.path().join("spice.json"), "{}").expect("write");
    std::fs::write(copy.path().join("README.md"), "text").expect("write");
    let report = run(copy.path()).expect("goldens");
    assert_eq!(report.failed(), 0, "{report}");
    let skipped: Vec<&str> = report
        .skipped
        .iter()
        .map(|skipped| skipped.file.as_str())
        .collect();
    let expected = [
        "captions.json",
        "captions_pretokenized.json",
        "ptb_tokens.json",
        "vqa.json",
        "vqa_contractions.json",
        "spice.json",
    ];
    assert_eq!(skipped, expected);
}

#[test]
fn unknown_layouts_are_errors() {
    let empty = tempfile::tempdir().expect("folder");
    assert!(matches!(run(empty.path()), Err(GoldenError::Nothing)));
    assert!(matches!(
        run(&empty.path().join("absent")),
        Err(GoldenError::Read { .. })
    ));
    std::fs::write(empty.path().join("vqa.json"), [0xff, 0xfe]).expect("write");
    assert!(matches!(run(empty.path()), Err(GoldenError::Read { .. })));

    let layout = |result: Result<Report, GoldenError>| match result {
        Err(GoldenError::Layout { file, reason }) => format!("{file}: {reason}"),
        other => panic!("{other:?}"),
    };
    for text in ["", "[]", "{}", "{\"cases\": []}", "{\"cases\": 1}", "nul"] {
        for file in FILES {
            let one = BTreeMap::from([(file.to_string(), text.to_string())]);
            assert!(layout(compare(&one)).starts_with(file));
        }
    }
    for (file, pointer, value, word) in [
        (
            "captions.json",
            "/items/0/hypothesis",
            Value::Null,
            "hypothesis",
        ),
        (
            "captions.json",
            "/items/0/references",
            json!(["one"]),
            "references",
        ),
        (
            "captions_pretokenized.json",
            "/corpora/0/items/0/references_tokens",
            json!([]),
            "reference",
        ),
        (
            "vqa.json",
            "/cases/0/expected",
            json!({"other": {"accuracy": 0.0}}),
            "other",
        ),
        ("vqa.json", "/cases/0/answers", json!([]), "1000"),
        ("visdial.json", "/cases/0/gt_index", json!(100), "gt_index"),
        (
            "visdial.json",
            "/cases/0/gt_relevance",
            json!([1.0]),
            "relevances",
        ),
        (
            "visdial.json",
            "/cases/0/expected/ranks",
            Value::Null,
            "ranks",
        ),
        (
            "visdial.json",
            "/cases/8/expected/ndcg_min",
            Value::Null,
            "bounds",
        ),
        (
            "visdial.json",
            "/expected_set/image_ids/0",
            json!(7),
            "picture",
        ),
        (
            "frechet.json",
            "/cases/0/features_b",
            json!([[1.0]]),
            "samples",
        ),
        (
            "frechet.json",
            "/cases/0/features_b",
            json!([[1.0], [1.0, 2.0]]),
            "features",
        ),
    ] {
        let found = layout(with(file, pointer, value));
        assert!(found.contains(word), "{found}");
    }
}
