//! A database of ten meanings, made for these tests.

use super::*;

/// Nouns: thing > animal > dog, goose; thing > stone. Verbs: move > walk, and the second root rest. Adjectives: red, tall.
const NOUN_DATA: &str = "  1 A line of the licence.
00000010 03 n 01 thing 0 000 | all there is
00000020 05 n 02 animal 0 beast 1 001 @ 00000010 n 0000 | it moves
00000030 05 n 01 dog 0 002 @ 00000020 n 0000 ! 00000040 n 0101 | it barks | loudly
00000040 05 n 01 goose 0 001 @ 00000020 n 0000 | it hisses
00000050 17 n 01 stone 0 001 @i 00000010 n 0000 | it lies
00000060 03 n 01 walk 0 001 @ 00000010 n 0000 | an act
";
const NOUN_INDEX: &str = "  1 A line of the licence.
animal n 1 1 @ 1 0 00000020
beast n 1 1 @ 1 0 00000020
dog n 1 2 @ ! 1 0 00000030
goose n 1 1 @ 1 0 00000040
stone n 1 1 @i 1 0 00000050
thing n 1 0 1 0 00000010
walk n 1 1 @ 1 0 00000060
";
const VERB_DATA: &str = "00000010 38 v 01 move 0 000 01 + 02 00 | to change place
00000020 38 v 01 walk 0 001 @ 00000010 v 0000 01 + 02 00 | step by step
00000030 31 v 01 rest 0 000 01 + 02 00 | not to move
00000040 38 v 01 run 0 001 @ 00000010 v 0000 01 + 02 00 | fast
";
const VERB_INDEX: &str = "move v 1 0 1 0 00000010
rest v 1 0 1 0 00000030
run v 1 1 @ 1 0 00000040
walk v 1 1 @ 1 0 00000020
";
const ADJ_DATA: &str = "00000010 00 a 01 red 0 000 | like blood
00000020 00 s 01 tall(p) 0 001 & 00000010 a 0000 | not short
";
const ADJ_INDEX: &str = "red a 1 0 1 0 00000010
tall a 1 1 & 1 0 00000020
";

fn files<'a>(noun_index: &'a str, noun_data: &'a str) -> [Files<'a>; 4] {
    let file = |index, data, exceptions| Files {
        index,
        data,
        exceptions,
    };
    [
        file(noun_index, noun_data, "geese goose\n"),
        file(VERB_INDEX, VERB_DATA, "ran run\n"),
        file(ADJ_INDEX, ADJ_DATA, ""),
        file("", "", ""),
    ]
}

pub fn small() -> WordNet {
    WordNet::new(files(NOUN_INDEX, NOUN_DATA)).expect("database")
}

#[test]
fn base_forms_follow_rules_and_exceptions() {
    let wordnet = small();
    let forms = |word, pos| wordnet.forms(word, pos);
    assert_eq!(forms("dogs", Pos::Noun), ["dog"]);
    assert!(
        forms("dogses", Pos::Noun).is_empty(),
        "endings are cut once"
    );
    assert_eq!(forms("geese", Pos::Noun), ["goose"]);
    assert_eq!(forms("gooses", Pos::Noun), ["goose"]);
    assert_eq!(forms("moved", Pos::Verb), ["move"]);
    assert_eq!(forms("ran", Pos::Verb), ["run"]);
    assert_eq!(forms("taller", Pos::Adjective), ["tall"]);
    assert!(forms("dogs", Pos::Verb).is_empty() && forms("", Pos::Noun).is_empty());
    // The noun is looked for first.
    assert_eq!(
        wordnet.first("Walks").map(|one| wordnet.name(one)),
        Some("walk.n.01")
    );
    assert_eq!(
        wordnet.first("rested").map(|one| wordnet.name(one)),
        Some("rest.v.01")
    );
    assert_eq!(
        wordnet.first("Beasts").map(|one| wordnet.name(one)),
        Some("animal.n.01")
    );
    assert_eq!(wordnet.first("glorp"), None);
}

#[test]
fn nearness_counts_steps_through_the_deepest_common_meaning() {
    let wordnet = small();
    let near = |a: &str, b: &str| {
        let one = |word: &str| wordnet.first(word).expect("known");
        wordnet.similarity(one(a), one(b))
    };
    assert_eq!(near("dog", "dog"), Some(1.0));
    // animal is at depth 2, with one step to each.
    assert_eq!(near("dog", "goose"), Some(2.0 * 2.0 / 6.0));
    assert_eq!(near("dog", "animal"), Some(2.0 * 2.0 / 5.0));
    assert_eq!(near("animal", "dog"), Some(2.0 * 2.0 / 5.0));
    assert_eq!(near("dog", "stone"), Some(2.0 / 5.0));
    // Nouns and verbs have only the imagined root in common.
    assert_eq!(near("dog", "rest"), Some(2.0 / (1.0 + 3.0 + 2.0)));
    assert_eq!(near("rest", "dog"), Some(2.0 / (1.0 + 3.0 + 2.0)));
    // move and rest are roots: the imagined one is above both.
    assert_eq!(near("move", "rest"), Some(0.5));
    // move is above run, but the imagined root is taken where the first is not the common meaning itself.
    assert_eq!(near("move", "run"), Some(2.0 / 3.0));
    assert_eq!(near("run", "move"), Some(2.0 / 5.0));
    assert_eq!(near("red", "tall"), Some(0.5));
}

#[test]
fn damaged_files_are_named_by_line() {
    let error = |index: &str, data: &str| WordNet::new(files(index, data)).err().expect("damage");
    let index = NOUN_INDEX.replace("goose n 1 1", "goose n 2 1");
    assert_eq!(error(&index, NOUN_DATA), "index.noun, line 5");
    let index = NOUN_INDEX.replace("00000040", "00000041");
    assert_eq!(error(&index, NOUN_DATA), "index.noun, line 5");
    let data = NOUN_DATA.replace("dog 0 002", "dog 0 009");
    assert_eq!(error(NOUN_INDEX, &data), "data.noun, line 4");
    let data = NOUN_DATA.replace("thing 0 000", "thing 0 001 @ 00000030 n 0000");
    assert!(error(NOUN_INDEX, &data).contains("itself"));
    let data = NOUN_DATA.replace("n 01 stone", "n zz stone");
    assert_eq!(error(NOUN_INDEX, &data), "data.noun, line 6");
}
