use super::*;
use crate::data::record::{Layout, Object, Place};

fn scene(layout: Layout, names: &[&str]) -> Scene {
    let object = |name: &&str| Object {
        name: (*name).into(),
        hexcode: String::new(),
        set: String::new(),
        place: Place::Left,
        cx: 0.0,
        cy: 0.0,
        size: 0.0,
    };
    Scene {
        split: "train".into(),
        background: "red".into(),
        layout,
        objects: names.iter().map(object).collect(),
        caption: String::new(),
        qa: vec![],
        unseen: None,
    }
}

#[test]
fn relations_name_either_object_first() {
    let asked = |layout, n| -> Vec<(String, String)> {
        let qa = relations(&scene(layout, &["dog", "owl"]), n);
        qa.into_iter().map(|qa| (qa.question, qa.answer)).collect()
    };
    let expected = [
        ("is the dog left or right of the owl?", "left"),
        ("is the owl left or right of the dog?", "right"),
        ("is the dog left or right of the owl?", "left"),
    ]
    .map(|(q, a)| (q.to_string(), a.to_string()));
    assert_eq!(asked(Layout::Row, 3), expected);
    let column = asked(Layout::Column, 2);
    assert_eq!(column[1].0, "is the owl above or below the dog?");
    assert_eq!(column[1].1, "below");
    assert!(asked(Layout::Row, 0).is_empty());
}

#[test]
fn relations_need_two_different_objects() {
    for names in [&["dog"][..], &["dog", "dog"], &["dog", "owl", "fox"]] {
        assert!(relations(&scene(Layout::Row, names), 4).is_empty());
    }
}
