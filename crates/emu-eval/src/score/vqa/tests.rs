use super::*;
use proptest::prelude::*;
use serde_json::json;

fn answers(texts: &[&str]) -> Vec<Answer> {
    let answer = |(id, text): (usize, &&str)| Answer {
        answer: text.to_string(),
        other: [("answer_id".to_string(), json!(id + 1))]
            .into_iter()
            .collect(),
    };
    texts.iter().enumerate().map(answer).collect()
}

fn of(variant: Variant, prediction: &str, texts: &[&str]) -> f64 {
    let percent = 100.0 * accuracy(variant, prediction, &answers(texts)).expect("answers");
    round2(percent)
}

#[test]
fn the_share_grows_with_the_matches() {
    for (matches, expected) in [
        (0, 0.0),
        (1, 30.0),
        (2, 60.0),
        (3, 90.0),
        (4, 100.0),
        (10, 100.0),
    ] {
        let mut texts = vec!["red"; matches];
        texts.resize(10, "blue");
        for variant in [
            Variant::Official,
            Variant::Emu,
            Variant::OkVqa,
            Variant::VizWiz,
        ] {
            assert_eq!(
                of(variant, "red", &texts),
                expected,
                "{variant:?} {matches}"
            );
        }
    }
}

#[test]
fn variants_differ_where_the_programs_do() {
    let same = ["yes"; 10];
    assert_eq!(of(Variant::Official, "Yes", &same), 0.0);
    assert_eq!(of(Variant::Emu, "Yes", &same), 100.0);

    let mut articles = vec!["the dog"; 5];
    articles.resize(10, "cat");
    assert_eq!(of(Variant::Official, "dog", &articles), 100.0);
    assert_eq!(of(Variant::Emu, "dog", &articles), 0.0);

    let mut plural = vec!["dog"; 5];
    plural.resize(10, "cat");
    assert_eq!(of(Variant::OkVqa, "Dogs.", &plural), 100.0);
    assert_eq!(of(Variant::Emu, "Dogs.", &plural), 0.0);
}

#[test]
fn without_ids_only_positions_are_right() {
    let equal: Vec<Answer> = answers(&["no"; 10])
        .into_iter()
        .map(|answer| Answer {
            other: Map::new(),
            ..answer
        })
        .collect();
    assert_eq!(accuracy(Variant::Official, "no", &equal), Ok(0.0));
    assert_eq!(accuracy(Variant::VizWiz, "no", &equal), Ok(1.0));
}

#[test]
fn python_2_knows_the_digits_of_ascii_only() {
    let full_width = "１,０００ red/blue";
    assert_eq!(Variant::Emu.normalize(full_width).text, "１０００ redblue");
    assert_eq!(
        Variant::Official.normalize(full_width).text,
        "１ ０００ red blue"
    );
    assert_eq!(Variant::Emu.normalize("a.٣").marks, "a.٣");
    assert_eq!(Variant::Official.normalize("a.٣").marks, "a٣");
}

#[test]
fn at_most_32_periods_are_removed() {
    let removed = 40
        - Variant::Emu
            .normalize(&"a.".repeat(40))
            .marks
            .matches('.')
            .count();
    assert_eq!(removed, 32);
    assert_eq!(
        Variant::Emu.normalize("3.5 u.s. .5 x.").marks,
        "3.5 us .5 x"
    );
}

#[test]
fn words_and_contractions() {
    for (text, expected) in [
        ("The two dogs", "2 dogs"),
        ("dont", "don't"),
        ("somebody'd", "somebodyd"),
        ("its Im", "its im"),
        ("none\u{a0}of them", "0 of them"),
        ("a an the", ""),
        ("red, white", "red white"),
        ("yes!", "yes"),
        ("2:30", "2:30"),
    ] {
        assert_eq!(Variant::Emu.normalize(text).text, expected, "{text}");
    }
    assert!(CONTRACTIONS.is_sorted_by_key(|(key, _)| *key));
    assert_eq!(CONTRACTIONS.len(), 114);
}

#[test]
fn sets_are_averaged_by_kind() {
    let question = |prediction: &str, question_type: &str, answer_type: &str| Question {
        prediction: prediction.into(),
        answers: answers(&["red", "red", "blue"]),
        question_type: question_type.into(),
        answer_type: answer_type.into(),
    };
    let set = [
        question("red", "what", "other"),
        question("blue", "what", "other"),
        question("green", "is", "yes/no"),
    ];
    let found = score(Variant::Official, &set).expect("scores");
    // Two of three: 1/3, 1/3, 2/3; one of three: 1/3, 1/3, 0.
    assert_eq!(found.overall, 22.22);
    assert_eq!(found.per_question_type["what"], 33.33);
    assert_eq!(found.per_answer_type["yes/no"], 0.0);
    assert_eq!(found.questions[2], 0.0);

    assert_eq!(score(Variant::Emu, &[]), Err(ScoreError::Empty));
    let mut set = set.to_vec();
    set[1].answers.clear();
    assert_eq!(
        score(Variant::Emu, &set),
        Err(ScoreError::NoReference { item: 1 })
    );
}

proptest! {
    #[test]
    fn any_text_has_a_normal_form_and_it_is_clean(text in "\\PC{0,20}") {
        for variant in [Variant::Official, Variant::Emu, Variant::OkVqa, Variant::VizWiz] {
            let found = variant.normalize(&text).text;
            prop_assert_eq!(found.trim(), &found);
            prop_assert!(!found.contains("  "));
            prop_assert!(!found.contains([';', '/', '"', '!', '?', '\\', '`']), "{}", found);
        }
    }
}
