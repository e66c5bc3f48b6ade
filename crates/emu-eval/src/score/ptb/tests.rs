use super::*;
use proptest::prelude::*;

/// Compares texts with their tokens, separated by spaces.
fn check(cases: &[(&str, &str)]) {
    let mut tokenizer = Tokenizer::new();
    for (caption, expected) in cases {
        assert_eq!(tokenizer.tokenize(caption), *expected, "{caption:?}");
    }
}

#[test]
fn captions() {
    check(&[
        ("", ""),
        (" \t ", ""),
        ("A man rides a bike.", "a man rides a bike"),
        ("\"Stop!\" (in red)", "stop -lrb- in red -rrb-"),
        (
            "what?! no way... a giraffe!!",
            "what ?! no way a giraffe !!",
        ),
        (
            "a dog, a cat; and a bird: all in black-and-white",
            "a dog a cat and a bird all in black-and-white",
        ),
        (
            "the dogs' bones aren't the cat's",
            "the dogs bones are n't the cat 's",
        ),
    ]);
}

#[test]
fn contractions() {
    check(&[
        (
            "can't CANNOT won't gonna I'd've",
            "ca n't can not wo n't gon na i 'd 've",
        ),
        ("it’s don’t it&apos;s", "it 's do n't it 's"),
        (
            "o'clock ma'am rock 'n' roll y'all 'em 'tis",
            "o'clock ma'am rock 'n' roll y' all 'em 't is",
        ),
        ("cann't", "cann t"),
        ("O'Brien’s l'été", "o'brien 's l'été"),
    ]);
}

#[test]
fn numbers_and_marks() {
    check(&[
        (
            "1,000.50 10:30 3-4 +4 1990s '90s 2x4 10.30am",
            "1,000.50 10:30 3-4 +4 1990s '90s 2x4 10.30 am",
        ),
        ("3 1/2 2½ ⅓", "3\u{a0}1/2 2 1/2 1/3"),
        (
            "$5 US$10 £3 €4 ¥5 5¢ 50%",
            "$ 5 us$ 10 # 3 $ 4 ¥ 5 5 cents 50 %",
        ),
        ("(650) 723-0293", "-lrb-650-rrb-\u{a0}723-0293"),
        ("#1 #tag @user a+b=c", "# 1 #tag @user a + b = c"),
    ]);
}

#[test]
fn abbreviations_keep_their_period() {
    check(&[
        (
            "Mr. Smith of St. Louis, U.S.A. at 5 p.m.",
            "mr. smith of st. louis u.s.a. at 5 p.m.",
        ),
        ("No. 5 but no. Five", "no. 5 but no five"),
        ("so ill. Ill. is a state", "so ill ill. is a state"),
        ("x. bus. etc., can., can.", "x. bus etc. can. can"),
    ]);
}

#[test]
fn addresses_markup_and_faces() {
    check(&[
        (
            "see http://a.b/c?d=e, www.x.org or a@b.com",
            "see http://a.b/c?d=e www.x.org or a@b.com",
        ),
        (
            "<b>bold</b> <a b=\"c d\"> a &amp; b&nbsp;c AT&amp;T",
            "<b> bold </b> <a\u{a0}b=\"c\u{a0}d\"> a & b c at&t",
        ),
        (":) :-( ^_^ <3", ":-rrb- :--lrb- ^_^ < 3"),
    ]);
}

#[test]
fn other_scripts() {
    check(&[
        ("猫 が 寝て いる", "猫 が 寝て いる"),
        ("Café ÉTÉ İstanbul ΣΑΣ", "café été i\u{307}stanbul σας"),
        (
            "a😀b 🍎 ❤\u{fe0f} soft\u{ad}hyphen zero\u{200b}width",
            "a b ❤ softhyphen zero width",
        ),
        ("हिन्दी עברית", "हिन्दी עברית"),
    ]);
}

#[test]
fn no_character_ends_the_caption() {
    for end in [
        '\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}', '\0',
    ] {
        check(&[(&format!("one{end}two"), "one two")]);
    }
}

/// 600 strings, most of them random pieces of words, marks, addresses, numbers and markup, with the tokens of the original
/// program (Stanford CoreNLP 3.4.1, recorded in one run), before it drops punctuation.
#[test]
fn recorded_strings() {
    let recorded: Vec<(String, String)> =
        serde_json::from_str(include_str!("recorded.json")).expect("JSON");
    let mut tokenizer = Tokenizer::new();
    for (text, java) in &recorded {
        let tokens = java
            .split(' ')
            .filter(|token| !token.is_empty() && !PUNCTUATION.contains(token));
        let expected: Vec<&str> = tokens.collect();
        assert_eq!(
            tokenizer.tokens(text),
            expected,
            "{text:?}, recorded {java:?}"
        );
    }
    assert_eq!(recorded.len(), 600);
}

proptest! {
    #[test]
    fn any_text_has_tokens_without_spaces(text in "(\\PC|[a-z' .,\\-\u{a0}&<>/#@\n\u{ad}]){0,30}") {
        let mut tokenizer = Tokenizer::new();
        let tokens = tokenizer.tokens(&text);
        for token in &tokens {
            prop_assert!(!token.is_empty() && !token.contains([' ', '\n', '\t']), "{token:?}");
            prop_assert!(!PUNCTUATION.contains(&token.as_str()));
        }
        // A tokenizer keeps nothing of the texts before.
        prop_assert_eq!(tokenizer.tokens(&text), tokens);
    }
}
