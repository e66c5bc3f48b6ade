//! Reading parts of files on a server that answers as the hub does.

mod common;

use std::io::{Read, Seek, SeekFrom};

use common::{Fault, Hub, address, bytes};
use emu_hub::{HubError, Options, Remote, RemoteFile, fetch, headers, listing};
use serde_json::json;

/// A safetensors file of one matrix of `rows` x 1000 f32.
fn weights(name: &str, rows: usize) -> Vec<u8> {
    let size = rows * 4000;
    let header =
        json!({ name: {"dtype": "F32", "shape": [rows, 1000], "data_offsets": [0, size]} });
    let header = header.to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&bytes(rows as u64, size));
    file
}

#[test]
fn tensors_are_known_without_their_values() {
    let hub = Hub::new(&[
        ("a.safetensors", weights("a", 2_000)),
        ("b/config.json", b"{}".to_vec()),
        ("b/model.safetensors", weights("b", 3_000)),
        ("c.pt", bytes(3, 1_000)),
    ]);
    let options = hub.options();
    let listed = listing(&address(""), &options).expect("a list");
    let sizes: Vec<_> = { listed.entries.iter() }
        .map(|entry| (entry.path.as_str(), entry.size))
        .collect();
    let [a, b] = [2_000, 3_000].map(|rows| weights("x", rows).len() as u64);
    let expected = [
        ("a.safetensors", Some(a)),
        ("b/config.json", Some(2)),
        ("b/model.safetensors", Some(b)),
        ("c.pt", Some(1_000)),
    ];
    assert_eq!(sizes, expected);
    assert!(!options.cache.exists());

    for ranges in [true, false] {
        hub.behave(|server| server.ranges = ranges);
        hub.log();
        let found = headers(&address(""), &options).expect("headers");
        let found: Vec<_> = { found.iter() }
            .map(|file| {
                (
                    file.path.as_str(),
                    file.bytes,
                    file.tensors[0].name.as_str(),
                    file.tensors[0].bytes,
                )
            })
            .collect();
        let expected = [
            ("a.safetensors", a, "a", 8_000_000),
            ("b/model.safetensors", b, "b", 12_000_000),
        ];
        assert_eq!(found, expected);
        if ranges {
            let sent: usize = hub.log().iter().map(|request| request.sent).sum();
            assert!(sent < 600_000, "{sent} of 20 MB");
        }
    }
    assert!(!options.cache.exists());

    // From the cache, what it has.
    fetch(&address(""), &options, &mut |_| {}).expect("fetched");
    hub.log();
    assert_eq!(headers(&address(""), &options).expect("headers").len(), 2);
    assert_eq!(hub.log().len(), 1);
    let offline = Options {
        offline: true,
        ..options
    };
    assert_eq!(headers(&address("/b"), &offline).expect("headers").len(), 1);
}

#[test]
fn a_file_that_is_no_safetensors_file_is_named() {
    let hub = Hub::new(&[("x/model.safetensors", bytes(1, 1_000))]);
    let error = headers(&address(""), &hub.options()).expect_err("no header");
    assert_eq!(error.code(), "hub-bad-header");
    assert!(
        error
            .to_string()
            .starts_with("x/model.safetensors has no valid"),
        "{error}"
    );
    for short in [0, 5] {
        let hub = Hub::new(&[("model.safetensors", bytes(1, short))]);
        let error = headers(&address(""), &hub.options()).expect_err("no header");
        assert_eq!(error.code(), "hub-bad-header");
    }
}

fn open(hub: &Hub, path: &str) -> Result<RemoteFile, HubError> {
    let (address, options) = (address(""), hub.options());
    let commit = listing(&address, &options)?.commit;
    RemoteFile::open(&address, &commit, path, &options)
}

#[test]
fn a_remote_file_reads_as_one_on_disk() {
    let contents = bytes(4, 3_000_001);
    let hub = Hub::new(&[
        ("m.bin", contents.clone()),
        ("empty.bin", vec![]),
        ("one.bin", vec![7]),
    ]);
    let mut file = open(&hub, "m.bin").expect("open");
    assert_eq!(file.size(), 3_000_001);
    let mut random = bytes(5, 4_000).into_iter();
    for _ in 0..300 {
        let mut draw = || {
            usize::from(random.next().unwrap_or(0)) << 8 | usize::from(random.next().unwrap_or(0))
        };
        let (at, count) = (draw() * 46, draw());
        let at = at.min(contents.len());
        let end = (at + count).min(contents.len());
        assert_eq!(
            file.seek(SeekFrom::Start(at as u64)).expect("there"),
            at as u64
        );
        let mut read = vec![];
        file.by_ref()
            .take(count as u64)
            .read_to_end(&mut read)
            .expect("read");
        assert!(read == contents[at..end]);
    }
    // Each block was fetched once.
    let ranged = hub.log().iter().filter(|request| request.content).count();
    assert!(ranged <= 3_000_001_usize.div_ceil(1 << 18), "{ranged}");
    assert_eq!(file.seek(SeekFrom::End(-1)).expect("there"), 3_000_000);
    assert_eq!(file.seek(SeekFrom::Current(5)).expect("beyond"), 3_000_005);
    assert_eq!(file.read(&mut [0]).expect("the end"), 0);
    assert!(file.seek(SeekFrom::Current(-9_000_000)).is_err());

    for (path, expected) in [("empty.bin", vec![]), ("one.bin", vec![7])] {
        let mut read = vec![];
        open(&hub, path)
            .expect("open")
            .read_to_end(&mut read)
            .expect("read");
        assert_eq!(read, expected, "{path}");
    }
    assert_eq!(
        open(&hub, "gone.bin").expect_err("no such").code(),
        "hub-no-file"
    );
}

#[test]
fn a_server_without_ranges_gives_the_beginning_only() {
    let hub = Hub::new(&[("m.bin", bytes(4, 20_000_000))]);
    hub.behave(|server| server.ranges = false);
    let mut file = open(&hub, "m.bin").expect("open");
    let mut read = [0; 10];
    file.seek(SeekFrom::Start(1_000_000)).expect("there");
    file.read_exact(&mut read).expect("read");
    assert_eq!(read, bytes(4, 20_000_000)[1_000_000..1_000_010]);
    file.seek(SeekFrom::End(-10)).expect("there");
    let error = file.read_exact(&mut read).expect_err("too far");
    let error = error.downcast::<HubError>().expect("an error of the hub");
    assert_eq!(error.code(), "hub-no-ranges");
}

#[test]
fn a_wrong_or_short_part_is_an_error() {
    let hub = Hub::new(&[("m.bin", bytes(4, 2_000_000))]);
    let mut file = open(&hub, "m.bin").expect("open");
    for (fault, code) in [
        (Fault::OtherRange, "hub-answer"),
        (Fault::Break(10), "hub-unreachable"),
        (Fault::Status(404, "0"), "hub-no-file"),
    ] {
        hub.fault("m.bin", fault);
        file.seek(SeekFrom::Start(1_000_000)).expect("there");
        let error = file.read_exact(&mut [0; 4]).expect_err("broken");
        let error = error.downcast::<HubError>().expect("an error of the hub");
        assert_eq!(error.code(), code);
    }
    file.read_exact(&mut [0; 4]).expect("a new attempt");
}

#[test]
fn what_a_fetch_would_take_is_read_in_place() {
    let settings = br#"{"layers": 2}"#.to_vec();
    let hub = Hub::new(&[
        ("README.md", b"# A model".to_vec()),
        ("config.json", settings.clone()),
        ("model.safetensors", weights("a", 2_000)),
        ("pytorch_model.bin", bytes(3, 1_000)),
    ]);
    let options = hub.options();
    let remote = Remote::open(&address(""), &options).expect("open");
    let read = |remote: &Remote, path: &str| remote.read(path, 1 << 20);
    let paths: Vec<&str> = { remote.entries().iter() }
        .map(|entry| entry.path.as_str())
        .collect();
    assert_eq!(paths, ["config.json", "model.safetensors"]);
    let all = (settings.len() + weights("a", 2_000).len()) as u64;
    assert_eq!((remote.bytes(), remote.missing()), (all, all));
    assert_eq!(read(&remote, "config.json").expect("read"), settings);
    // A file that is not chosen is not there.
    for path in ["README.md", "pytorch_model.bin", "gone.json"] {
        assert_eq!(read(&remote, path).expect_err(path).code(), "hub-no-file");
    }
    assert_eq!(remote.cache(), options.cache);
    assert!(!options.cache.exists());

    // What is in the cache is neither transferred nor asked for.
    fetch(&address("/config.json"), &options, &mut |_| {}).expect("fetched");
    let remote = Remote::open(&address(""), &options).expect("open");
    assert_eq!(remote.missing(), all - settings.len() as u64);
    hub.log();
    assert_eq!(read(&remote, "config.json").expect("read"), settings);
    assert!(hub.log().is_empty());

    let error = remote.read("config.json", 12).expect_err("too large");
    assert_eq!(error.code(), "hub-large");
    assert_eq!(remote.read("config.json", 13).expect("read"), settings);

    // Without a server, the cache.
    let away = Options {
        endpoint: common::nobody(),
        ..options
    };
    let remote = Remote::open(&address(""), &away).expect("open");
    assert_eq!(read(&remote, "config.json").expect("read"), settings);
    assert_eq!(remote.missing(), 0);
    let never = Options {
        cache: hub.folder().join("other"),
        ..away
    };
    let error = Remote::open(&address(""), &never).expect_err("nowhere");
    assert_eq!(error.code(), "hub-unreachable");
}
