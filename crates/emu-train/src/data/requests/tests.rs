use std::collections::BTreeSet;
use std::path::Path;

use super::*;

const AT: &str = "list.toml";

fn shipped() -> Conversations {
    let text = |text: &str| text.to_owned();
    let concepts = text(include_str!("../../../../../configs/data/smol.toml"));
    let concepts = ConceptList::parse(&concepts, AT).expect("valid");
    let drawn: Vec<&str> = concepts
        .read
        .iter()
        .filter(|c| c.drawn)
        .map(|c| c.name.as_str())
        .collect();
    let at = Path::new(AT);
    let lists = Lists {
        wordings: Wordings::parse(
            include_str!("../../../../../configs/data/smol-requests.toml"),
            at,
        )
        .expect("valid"),
        synonyms: Synonyms::parse(
            include_str!("../../../../../configs/data/smol-synonyms.toml"),
            at,
            &drawn,
        )
        .expect("valid"),
        changes: Changes::parse(
            include_str!("../../../../../configs/data/smol-changes.toml"),
            at,
        )
        .expect("valid"),
        persona: Persona::parse(
            include_str!("../../../../../configs/data/smol-persona.toml"),
            at,
        )
        .expect("valid"),
        ordinary: Some(
            Ordinary::parse(
                include_str!("../../../../../configs/data/smol-ordinary.toml"),
                at,
            )
            .expect("valid"),
        ),
    };
    Conversations::new(lists, &concepts, 1, 24).expect("drawn")
}

fn last(asked: &Asked) -> String {
    asked.messages.last().expect("a turn").text.to_lowercase()
}

#[test]
fn the_same_index_says_the_same() {
    let made = shipped();
    for set in [
        Set::Train,
        Set::HeldOut,
        Set::Synonyms,
        Set::Changes,
        Set::Others,
        Set::OthersHeldOut,
        Set::Ordinary,
        Set::OrdinaryHeldOut,
        Set::Own,
        Set::OwnHeldOut,
    ] {
        let one = made.get(set, 7).expect("made");
        assert_eq!(one, made.get(set, 7).expect("made"));
        assert_ne!(one, made.get(set, 8).expect("made"), "{set:?}");
        assert_eq!(
            one.shown.is_some(),
            matches!(
                set,
                Set::Train | Set::HeldOut | Set::Synonyms | Set::Changes
            )
        );
        assert!(
            one.messages
                .last()
                .is_some_and(|m| m.speaker == Speaker::User)
        );
    }
    assert_eq!(made.once(Set::HeldOut), 200);
    assert_eq!(made.once(Set::Synonyms), 207);
    assert_eq!(made.once(Set::OthersHeldOut), 300);
}

#[test]
fn training_sees_nothing_that_is_held_out() {
    let made = shipped();
    let lists = &made.lists;
    let held_out: BTreeSet<&String> = { lists.synonyms.synonyms.values() }
        .flat_map(|w| &w.held_out)
        .collect();
    let trained: BTreeSet<&String> = { lists.synonyms.synonyms.values() }
        .flat_map(|w| &w.train)
        .collect();
    let mut synonyms = 0;
    for i in 0..2000 {
        let asked = made.get(Set::Train, i).expect("made");
        let shown = asked.shown.clone().expect("a request");
        assert!(!made.unseen(&shown), "{asked:?}");
        let text = last(&asked);
        // Whole words only: "coco" is a part of "coconut".
        let words: Vec<&str> = text
            .split(|c: char| !c.is_alphanumeric() && c != '\'')
            .collect();
        let said = |word: &String| {
            let parts: Vec<&str> = word.split([' ', '-']).collect();
            words.windows(parts.len()).any(|w| w == parts)
        };
        synonyms += usize::from(trained.iter().any(|word| said(word)));
        // Some held-out words are common words that occur in wordings.
        let plain = [
            "surprise", "auto", "world", "seat", "mail", "prize", "moth", "coach",
        ];
        let found = held_out
            .iter()
            .find(|word| said(word) && !plain.contains(&word.as_str()));
        assert_eq!(found, None, "{text}");
    }
    assert!(synonyms > 300, "{synonyms}");
    let kept: Vec<String> = lists
        .wordings
        .other_held_out
        .iter()
        .map(|p| lists::plain(p))
        .collect();
    assert!(made.others.iter().all(|p| !kept.contains(&lists::plain(p))));
    assert!(made.others.len() > 200, "{}", made.others.len());
}

#[test]
fn held_out_requests_are_new_in_both() {
    let made = shipped();
    for i in 0..200 {
        let asked = made.get(Set::HeldOut, i).expect("made");
        let shown = asked.shown.clone().expect("a request");
        assert!(made.unseen(&shown) && asked.messages.len() == 1);
        let text = last(&asked);
        assert!(shown.names.iter().all(|name| text.contains(name)), "{text}");
        assert!(
            shown.colour.iter().all(|colour| text.contains(colour)),
            "{text}"
        );
    }
}

#[test]
fn synonyms_stand_for_their_concept() {
    let made = shipped();
    let mut seen = BTreeSet::new();
    for i in 0..207 {
        let asked = made.get(Set::Synonyms, i).expect("made");
        let shown = asked.shown.clone().expect("a request");
        let [name] = shown.names.as_slice() else {
            panic!("{shown:?}")
        };
        let words = &made.lists.synonyms.synonyms[name].held_out;
        let text = last(&asked);
        assert!(words.iter().any(|word| text.contains(word)), "{text}");
        seen.insert(name.clone());
    }
    assert_eq!(seen.len(), 160);
}

#[test]
fn changes_keep_what_is_not_named() {
    let made = shipped();
    let (mut colours, mut objects) = (0, 0);
    for i in 0..40 {
        let asked = made.get(Set::Changes, i).expect("made");
        let new = asked.shown.clone().expect("a request");
        let [_, answer, change] = asked.messages.as_slice() else {
            panic!("{asked:?}")
        };
        assert!(answer.text.starts_with("I drew a"));
        let kept = |word: &str| answer.text.contains(word) && !change.text.contains(word);
        match new.names.iter().all(|name| kept(name)) {
            true => {
                colours += 1;
                assert!(
                    change
                        .text
                        .contains(new.colour.as_deref().expect("a colour"))
                );
            }
            false => {
                objects += 1;
                assert!(change.text.contains(&new.names[0]) && new.names.len() == 1);
                assert!(new.colour.iter().all(|colour| kept(colour)), "{asked:?}");
            }
        }
    }
    assert_eq!((colours, objects), (20, 20));
}

#[test]
fn lists_too_small_to_hold_out_are_refused() {
    let concepts = "canonical_set='a'\ncolours=[{name='red',rgb=[1,2,3]},{name='blue',rgb=[1,2,3]}]\nunseen=[]\n\
        read=[{name='dog',hexcode='1'},{name='cat',hexcode='2'}]";
    let concepts = ConceptList::parse(concepts, AT).expect("valid");
    let error = Conversations::new(shipped().lists, &concepts, 1, 1).expect_err("nothing");
    assert!(error.to_string().contains("nothing is drawn"));
}
