use super::*;
use crate::build::Halt;
use crate::testing::{put, tar_of};
use proptest::prelude::*;

/// The rows of a table, each as its place and its value or the reason it has none.
/// A name and its value, or why there is none.
type Row = (String, Result<Value, String>);

fn all(path: &std::path::Path) -> Result<Vec<Row>, String> {
    let mut found = vec![];
    let read = rows(path, false, &mut |row| {
        found.push((row.place, row.value.map_err(|skip| skip.reason.to_string())));
        Ok(())
    });
    match read {
        Ok(()) | Err(Halt::Enough) => Ok(found),
        Err(Halt::Error(error)) => Err(error.to_string()),
    }
}

#[test]
fn a_reader_that_has_enough_stops() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [
        ("a.json", "[1, 2, 3, 4]"),
        ("a.jsonl", "1\n2\n3\n4\n"),
        ("a.csv", "x\n1\n2\n3\n4\n"),
        ("a.tsv", "x\n1\n2\n3\n4\n"),
    ] {
        let path = folder.path().join(name);
        put(&path, text);
        let mut seen = 0;
        let read = rows(&path, false, &mut |_| {
            seen += 1;
            if seen == 2 { Err(Halt::Enough) } else { Ok(()) }
        });
        assert!(matches!(read, Err(Halt::Enough)), "{name}");
        assert_eq!(seen, 2, "{name}");
    }
}

#[test]
fn json_files_of_lines_and_of_objects() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.json");
    for text in [
        "{\"a\": 1}\n{\"a\": 2}\n\n",
        " [{\"a\": 1}, {\"a\": 2}]",
        "\u{feff}{\"a\": 1} {\"a\": 2}",
    ] {
        put(&path, text);
        let values: Vec<Option<f64>> = all(&path)
            .expect("readable")
            .into_iter()
            .map(|(_, value)| value.expect("a value").field("a")?.number())
            .collect();
        assert_eq!(values, [Some(1.0), Some(2.0)], "{text:?}");
    }
    put(&path, "");
    assert!(all(&path).expect("readable").is_empty());
    assert_eq!(first_object(&path).expect("readable"), None);
    put(&path, "{\"images\": [1], \"annotations\": [");
    let names = first_object(&path).expect("readable").expect("an object");
    assert_eq!(names, ["images", "annotations"]);
}

#[test]
fn the_files_of_one_sample_may_lie_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.tar");
    put(
        &path,
        tar_of(&[
            ("a.jpg", b"1"),
            ("b.jpg", b"2"),
            ("a.TXT", b"3"),
            ("a.jpg", b"44"),
            ("b", b""),
            ("a.0.png", b"5"),
        ]),
    );
    let (samples, damage) = tar_samples(&path).expect("readable");
    assert_eq!(damage, None);
    let names = |sample: &TarSample| -> Vec<String> {
        sample
            .members
            .iter()
            .map(|(name, _)| name.clone())
            .collect()
    };
    assert_eq!(
        samples.iter().map(|s| s.key.as_str()).collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(names(&samples[0]), ["txt", "jpg", "0.png"]);
    let jpg = samples[0].member("jpg").expect("a member");
    assert_eq!(
        &*jpg.read().expect("readable"),
        b"44",
        "a repeated name replaces the earlier file"
    );
}

#[test]
fn texts_in_other_encodings() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.srt");
    for (bytes, text) in [
        (&b"gr\xf6\xdfer"[..], "größer"),
        ("\u{feff}größer".as_bytes(), "größer"),
        (b"", ""),
    ] {
        put(&path, bytes);
        assert_eq!(read_text(&path).expect("readable"), text);
    }
}

#[test]
fn named_files_are_found_around_a_list() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    put(&root.join("lists/a.json"), "");
    put(&root.join("images/train2017/x.jpg"), "1");
    put(&root.join("lists/y.jpg"), "2");
    let bases = Bases::new(None, &root.join("lists/a.json"));
    for name in [
        "x.jpg",
        "train2017/x.jpg",
        "images\\train2017\\x.jpg",
        " y.jpg ",
    ] {
        assert!(bases.blob(name).is_some(), "{name}");
    }
    for name in ["", "gone.jpg", "images"] {
        assert!(bases.blob(name).is_none(), "{name}");
    }
    let chosen = Bases::new(
        Some(&root.join("images/train2017")),
        &root.join("lists/a.json"),
    );
    assert!(chosen.blob("x.jpg").is_some() && chosen.blob("y.jpg").is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A quoted CSV cell gives the text that was put in.
    #[test]
    fn csv_cells_survive(cells in proptest::collection::vec("[^\u{0}]{0,12}", 1..8)) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.csv");
        let quoted = |cell: &String| format!("\"{}\",\"k\"\r\n", cell.replace('"', "\"\""));
        let lines: String = cells.iter().map(quoted).collect();
        put(&path, format!("x,key\r\n{lines}"));
        let read: Vec<Option<String>> = all(&path)
            .expect("readable")
            .into_iter()
            .map(|(_, value)| value.expect("a row").field("x")?.text())
            .collect();
        prop_assert_eq!(read, cells.into_iter().map(Some).collect::<Vec<_>>());
    }

    /// No table makes a reader panic or run on.
    #[test]
    fn tables_of_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), name in "a\\.(csv|tsv|json|jsonl|parquet|csv\\.gz)") {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        put(&path, &bytes);
        let _ = all(&path);
        let _ = columns(&path);
        let _ = first_object(&path);
    }

    /// An archive that is cut anywhere gives the whole files before the cut, and says so.
    #[test]
    fn archives_cut_anywhere(cut in 0_usize..5000) {
        let whole = tar_of(&[("a.txt", b"one"), ("b.txt", &[7; 700]), ("c.txt", b"three")]);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.tar");
        let cut = cut.min(whole.len());
        put(&path, &whole[..cut]);
        let (samples, damage) = tar_samples(&path).expect("readable");
        // headers and padded contents: 1024, 1536, 1024
        let complete = [1024, 2560, 3584].iter().filter(|end| **end <= cut).count();
        prop_assert!(samples.len() >= complete && samples.len() <= complete + 1, "{} of {}", samples.len(), complete);
        if [0, 1024, 2560, 3584].contains(&cut) || cut >= 4096 {
            prop_assert_eq!(damage, None);
        } else if cut < 3584 {
            prop_assert!(damage.is_some(), "cut at {}", cut);
        }
        for sample in &samples {
            prop_assert!(sample.members[0].1.read().is_ok());
        }
    }
}
