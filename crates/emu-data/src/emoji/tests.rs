//! Tests the whole builder on drawings made in code, without source packages.

use std::path::Path;

use super::*;
use crate::record::{Document, Layout, Part, Record, Scene};
use crate::{DataError, ShardDataset};

const SHAPES: [&str; 14] = [
    "dog", "cat", "owl", "ant", "fox", "bee", "cow", "pig", "hen", "bat", "emu", "yak", "eel",
    "gnu",
];

/// Fourteen concepts of one shape each, drawn by six sets in different colours; the last two are unseen.
fn catalogue() -> Catalogue {
    let mut list = ConceptList::parse(
        "canonical_set = 'noto'\n\
         colours = [{name='red',rgb=[220,70,60]},{name='blue',rgb=[60,90,220]},{name='gray',rgb=[140,140,140]},\
         {name='green',rgb=[80,180,90]},{name='white',rgb=[250,250,250]},{name='orange',rgb=[240,150,60]}]\n\
         read = [{name='dog',hexcode='0'},{name='cat',hexcode='1'}]\n\
         unseen = []",
        "test",
    )
    .expect("valid");
    let concepts: Vec<Concept> = SHAPES
        .iter()
        .enumerate()
        .map(|(i, name)| Concept::new(name, &format!("{i:x}"), i < 8))
        .collect();
    (list.read, list.unseen) = (concepts[..12].to_vec(), concepts[12..].to_vec());
    let entries = concepts
        .iter()
        .enumerate()
        .map(|(i, concept)| {
            let drawings = ["noto", "noto-v1", "twemoji", "fluent-emoji", "fluent-emoji-3d", "openmoji"]
                .iter()
                .enumerate()
                .map(|(s, set)| {
                    let (w, h, hue) = (10 + 2 * i, 36 - 2 * i, 40 * s);
                    let svg = format!(
                        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40"><rect x="2" y="2" width="{w}" height="{h}" fill="rgb({hue},200,90)"/></svg>"#
                    );
                    SourceDrawing {
                        set: set_by_id(set).expect("known"),
                        cutout: Cutout::from_svg(&svg, CUTOUT_SIDE).expect("renders"),
                    }
                })
                .collect();
            Entry {
                concept: concept.clone(),
                unseen: i >= 12,
                group: if i % 2 == 0 { "even" } else { "odd" }.into(),
                synonyms: vec![],
                drawings,
            }
        })
        .collect();
    Catalogue::new(list, entries)
}

fn tiny() -> BuildOptions {
    BuildOptions {
        seed: 3,
        size: 32,
        cutout: CUTOUT_SIDE,
        tokenizer: true,
        shard: 100,
        train_scenes: 250,
        train_draw: 40,
        train_fewshot: 12,
        train_blend: 6,
        train_story: 6,
        train_drawings: 30,
        val_scenes: 20,
        val_drawings: 10,
        t1_drawings: 9,
        t1_scenes: 20,
        t2_scenes: 20,
        t3_scenes: 30,
        test_fewshot: 8,
        test_draw: 56,
    }
}

fn build_tiny(folder: &Path) -> Index {
    build(&catalogue(), &tiny(), folder, false, &mut |_| {}).expect("builds")
}

fn scenes(folder: &Path, split: &str) -> Vec<Scene> {
    let shards = ShardDataset::open_kind(folder.join(split), "scenes").expect("opens");
    (0..shards.len())
        .map(|i| match shards.record(i).expect("typed") {
            Record::Scene(scene) => scene,
            other => panic!("not a scene: {other:?}"),
        })
        .collect()
}

fn documents(folder: &Path, split: &str, kind: &str) -> Vec<Document> {
    let shards = ShardDataset::open_kind(folder.join(split), kind).expect("opens");
    (0..shards.len())
        .map(|i| {
            let sample = shards.get(i).expect("reads");
            let Record::Document(document) = sample.record().expect("typed") else {
                panic!("not a document");
            };
            let images = document
                .parts
                .iter()
                .filter(|part| matches!(part, Part::Image(_)));
            assert_eq!(images.count(), sample.images.len());
            assert!(
                sample
                    .images
                    .iter()
                    .all(|image| (image.width, image.height) == (32, 32))
            );
            document
        })
        .collect()
}

#[test]
fn the_same_options_give_the_same_bytes() {
    let (a, b) = (
        tempfile::tempdir().expect("a"),
        tempfile::tempdir().expect("b"),
    );
    let (first, second) = (build_tiny(a.path()), build_tiny(b.path()));
    assert_eq!(first, second, "every shard's SHA-256 is in the index");
    assert_eq!(first.counts["train/scenes"], 250);
    assert_eq!(
        first
            .shards
            .iter()
            .filter(|s| s.file.starts_with("train/scenes"))
            .count(),
        3
    );
    for file in [
        "index.json",
        "concepts.json",
        "tokenizer.json",
        "corpus.txt",
        "ATTRIBUTION.md",
    ] {
        let read = |folder: &Path| std::fs::read(folder.join(file)).expect(file);
        assert_eq!(read(a.path()), read(b.path()), "{file}");
    }
    let other = BuildOptions { seed: 4, ..tiny() };
    let again = build(&catalogue(), &other, a.path(), true, &mut |_| {}).expect("overwrites");
    assert_ne!(again.shards, second.shards, "another seed, other bytes");
}

#[test]
fn splits_keep_apart_what_they_must() {
    let folder = tempfile::tempdir().expect("a folder");
    let index = build_tiny(folder.path());
    let catalogue = catalogue();
    let composer = Composer::new(&catalogue, 3, 32).expect("valid");
    let holdout = Holdout::new(3);
    let unseen = |scene: &Scene| {
        let names: Vec<&str> = scene
            .objects
            .iter()
            .map(|object| object.name.as_str())
            .collect();
        holdout.unseen(&names, scene.layout, &scene.background)
    };
    let pool_of = |name: &str, set: &str| {
        let concept = SHAPES
            .iter()
            .position(|shape| *shape == name)
            .expect("known");
        let drawing = catalogue.entries[concept]
            .drawings
            .iter()
            .position(|drawing| drawing.set.id == set)
            .expect("drawn");
        [Pool::Train, Pool::Val, Pool::Style]
            .into_iter()
            .find(|&pool| composer.drawings(concept, pool).contains(&drawing))
            .expect("in a pool")
    };
    assert!(index.catalogue["drawings val"] > 0);

    for scene in scenes(folder.path(), "train") {
        assert!(unseen(&scene).is_empty(), "{}", scene.caption);
        for object in &scene.objects {
            assert_eq!(pool_of(&object.name, &object.set), Pool::Train);
            assert!(!["eel", "gnu"].contains(&object.name.as_str()));
        }
    }
    for (i, scene) in scenes(folder.path(), "val").iter().enumerate() {
        assert!(unseen(scene).is_empty());
        assert_eq!(scene.objects.len(), 1 + i % 2);
        let held = |object: &crate::record::Object| pool_of(&object.name, &object.set);
        assert!(scene.objects.iter().any(|object| held(object) == Pool::Val));
    }
    for scene in scenes(folder.path(), "t1") {
        assert!(scene.objects.iter().all(|object| object.set == "openmoji"));
    }
    for scene in scenes(folder.path(), "t2") {
        assert!(
            scene
                .objects
                .iter()
                .any(|o| ["eel", "gnu"].contains(&o.name.as_str()))
        );
    }
    for scene in scenes(folder.path(), "t3") {
        let kinds: Vec<&str> = unseen(&scene).iter().map(|kind| kind.name()).collect();
        assert_eq!(kinds, [scene.unseen.as_deref().expect("said")]);
    }
    for kind in ["draw", "blend"] {
        for document in documents(folder.path(), "train", kind) {
            let names: Vec<&str> = document.objects.iter().map(|o| o.name.as_str()).collect();
            let layout = document.layout.expect("said");
            let background = document.background.as_deref().expect("said");
            assert!(holdout.unseen(&names, layout, background).is_empty());
        }
    }
    let corpus = std::fs::read_to_string(folder.path().join("corpus.txt")).expect("text");
    let words = ["eel", "eels", "gnu", "gnus"];
    assert!(
        !corpus
            .split(|c: char| !c.is_alphanumeric())
            .any(|word| words.contains(&word))
    );
}

#[test]
fn finishes_of_one_design_are_held_out_together() {
    let mut catalogue = catalogue();
    for seed in 0..40 {
        for entry in &mut catalogue.entries {
            let held = super::holdout::val_drawings(entry, "noto", seed);
            assert_eq!(held[3], held[4], "fluent-emoji and fluent-emoji-3d");
            assert!(!held[5], "evaluation sets are no val drawings");
            assert!(
                !(entry.concept.drawn && held[0]),
                "the canonical drawing of a drawn concept"
            );
        }
    }
}

#[test]
fn objects_lie_apart_inside_and_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    build_tiny(folder.path());
    for scene in scenes(folder.path(), "train") {
        for object in &scene.objects {
            assert!((0.0..=1.0).contains(&object.cx) && (0.0..=1.0).contains(&object.cy));
            assert!(object.size > 0.1 && object.size < 1.0);
        }
        for pair in scene.objects.windows(2) {
            match scene.layout {
                Layout::Row => assert!(pair[0].cx < pair[1].cx),
                Layout::Column => assert!(pair[0].cy < pair[1].cy),
                Layout::Single => panic!("one object"),
            }
        }
        assert!(scene.qa.len() >= 5, "{:?}", scene.qa);
    }
}

#[test]
fn a_request_determines_its_picture() {
    let catalogue = catalogue();
    let composer = Composer::new(&catalogue, 3, 32).expect("valid");
    let mut pictures = std::collections::BTreeMap::new();
    for i in 0..300 {
        let made = composer.draw(false, i).expect("drawn");
        let Record::Document(document) = made.record else {
            panic!("not a document");
        };
        let what = (
            document.layout,
            document.background,
            format!("{:?}", document.objects),
        );
        let known = pictures
            .entry(format!("{what:?}"))
            .or_insert_with(|| made.pictures.clone());
        assert_eq!(*known, made.pictures);
        assert!(document.objects.iter().all(|object| object.set == "noto"));
    }
}

#[test]
fn test_requests_are_new() {
    let folder = tempfile::tempdir().expect("a folder");
    build_tiny(folder.path());
    let text = |document: &Document| match &document.parts[0] {
        Part::Text(text) => text.clone(),
        Part::Image(_) => panic!("a request comes first"),
    };
    let train: Vec<String> = documents(folder.path(), "train", "draw")
        .iter()
        .map(text)
        .collect();
    let test = documents(folder.path(), "draw-test", "draw");
    assert!(test.iter().all(|document| !train.contains(&text(document))));
    assert!(test.iter().all(|document| document.unseen[0] == "template"));
    assert!(test.iter().any(|document| document.unseen.len() > 1));
    let sheet = &test[..(SHEET_SINGLES + SHEET_PAIRS) as usize];
    assert!(
        sheet[..28]
            .iter()
            .all(|document| document.objects.len() == 1)
    );
    assert!(
        sheet[28..]
            .iter()
            .all(|document| document.objects.len() == 2)
    );
}

#[test]
fn documents_have_their_forms() {
    let folder = tempfile::tempdir().expect("a folder");
    build_tiny(folder.path());
    for document in documents(folder.path(), "fewshot-test", "fewshot") {
        let answer = document.answer.expect("said");
        assert_eq!(answer + 1, document.parts.len());
        assert!(matches!(&document.parts[answer], Part::Text(_)));
        assert!(document.pattern.is_some());
    }
    for document in documents(folder.path(), "train", "blend") {
        assert_eq!(document.layout, Some(Layout::Row));
        assert!(matches!(
            document.parts[document.answer.expect("said")],
            Part::Image(_)
        ));
    }
    for document in documents(folder.path(), "train", "story") {
        let text = |i: usize| matches!(document.parts[i], Part::Text(_));
        assert!((0..document.parts.len()).all(|i| text(i) == (i % 2 == 0)));
    }
}

#[test]
fn refuses_what_it_cannot_build() {
    let folder = tempfile::tempdir().expect("a folder");
    let attempt = |catalogue: &Catalogue, options: &BuildOptions| {
        build(catalogue, options, folder.path(), false, &mut |_| {}).expect_err("unusable")
    };
    for options in [
        BuildOptions { size: 8, ..tiny() },
        BuildOptions { shard: 0, ..tiny() },
        BuildOptions {
            train_scenes: 0,
            ..tiny()
        },
    ] {
        assert!(matches!(
            attempt(&catalogue(), &options),
            DataError::Options(_)
        ));
    }
    let mut bare = catalogue();
    bare.entries[0]
        .drawings
        .retain(|drawing| drawing.set.id != "noto");
    assert!(
        attempt(&bare, &tiny()).to_string().contains("dog"),
        "no canonical drawing"
    );
    bare.entries[0].concept.drawn = false;
    bare.entries[0]
        .drawings
        .retain(|drawing| drawing.set.role == Role::Evaluation);
    assert!(
        attempt(&bare, &tiny()).to_string().contains("dog"),
        "nothing to train on"
    );
    let mut few = catalogue();
    few.entries.truncate(1);
    assert!(matches!(
        attempt(&few, &tiny()),
        DataError::Impossible { .. }
    ));

    std::fs::write(folder.path().join("index.json"), "{}").expect("writable");
    assert!(matches!(
        attempt(&catalogue(), &tiny()),
        DataError::Exists(_)
    ));
    let missing = Catalogue::load(
        folder.path(),
        ConceptList::shipped().expect("valid"),
        CUTOUT_SIDE,
    );
    assert!(matches!(missing, Err(DataError::Package { .. })));
}
