//! Transfers from a server that answers as the hub does, and as it should not.

mod common;

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::files::{LARGE, WANTED, below, blobs, checkpoint, code, contents, quiet};
use common::{Fault, Hub, address, bytes, git, sha256};
use emu_hub::{HubError, Progress, fetch};

#[test]
fn what_a_conversion_needs_comes_into_the_hubs_cache_once() {
    let files = checkpoint();
    let hub = Hub::new(&files);
    let options = hub.with_token("hf_secret");
    let mut events = vec![];
    let folder = fetch(&address(""), &options, &mut |progress| match progress {
        Progress::Chosen {
            files,
            bytes,
            present,
        } => events.push((files as u64, bytes, present)),
        Progress::Bytes { done, total } => events.push((0, done, total)),
        _ => {}
    });
    let folder = folder.expect("fetched");
    contents(&folder, &files);
    assert_eq!(below(&folder), WANTED);

    let total: u64 = { files.iter().filter(|(path, _)| WANTED.contains(path)) }
        .map(|(_, bytes)| bytes.len() as u64)
        .sum();
    assert_eq!(events.first(), Some(&(6, total, 0)));
    assert_eq!(events.last(), Some(&(0, total, total)));
    assert!(events[1..].is_sorted(), "bytes only grow: {events:?}");

    // The layout is that of `hf-hub`.
    let cache = hf_hub::Cache::new(options.cache.clone());
    let found = cache
        .model("Test-Org/model_1.0".into())
        .get(LARGE)
        .expect("found by hf-hub");
    assert_eq!(found, folder.join(LARGE));
    let link = fs::read_link(&found).expect("a link");
    assert_eq!(link, Path::new("../../blobs").join(sha256(&files[3].1)));
    let deep = fs::read_link(folder.join("unet/a b#1.json")).expect("a link");
    assert_eq!(deep, Path::new("../../../blobs").join(git(&files[6].1)));
    assert_eq!(blobs(&options).len(), 6);

    // The token went to the hub and nowhere else.
    let log = hub.log();
    assert!(log.iter().any(|request| request.content));
    for request in &log {
        let expected = (!request.content).then_some("Bearer hf_secret");
        assert_eq!(request.token.as_deref(), expected, "{request:?}");
    }

    // Nothing is transferred again.
    assert_eq!(quiet(&options, "").expect("fetched"), folder);
    let log = hub.log();
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].path.starts_with("/api/models/"));
}

#[test]
fn a_broken_transfer_continues_at_the_byte_where_it_broke() {
    let files = checkpoint();
    let hub = Hub::new(&files);
    let options = hub.options();
    hub.fault(LARGE, Fault::Break(100_000));
    hub.fault(LARGE, Fault::Break(200_000));
    hub.fault("tokenizer.json", Fault::Break(1_000));
    let mut again = vec![];
    let folder = fetch(&address(""), &options, &mut |progress| {
        if let Progress::Again { path, .. } = progress {
            again.push(path.to_owned());
        }
    });
    contents(&folder.expect("fetched"), &files);
    assert_eq!(again, [LARGE, LARGE, "tokenizer.json"]);
    let log = hub.log();
    let ranges: Vec<&str> = { log.iter().filter(|request| request.content) }
        .filter(|request| request.path.contains(LARGE))
        .map(|request| request.range.as_deref().unwrap_or("all"))
        .collect();
    assert_eq!(ranges, ["all", "bytes=100000-", "bytes=300000-"]);
    assert_eq!(blobs(&options).len(), 6, "nothing unfinished is left");
}

#[test]
fn a_transfer_that_ended_in_an_error_continues_at_the_next_call() {
    let files = checkpoint();
    let hub = Hub::new(&files);
    let mut options = hub.options();
    options.retries = 0;
    hub.fault(LARGE, Fault::Break(400_000));
    let error = quiet(&options, "").expect_err("it broke");
    match &error {
        HubError::Interrupted {
            file, done, bytes, ..
        } => {
            assert_eq!((file.as_str(), *done, *bytes), (LARGE, 400_000, 700_000));
        }
        other => panic!("{other}"),
    }
    assert!(error.to_string().contains("continues from there"));
    hub.log();
    let mut events = vec![];
    let folder = fetch(&address(""), &options, &mut |progress| match progress {
        Progress::Chosen { bytes, present, .. } => events.push(("chosen", bytes - present)),
        Progress::Checking { bytes, .. } => events.push(("checking", bytes)),
        _ => {}
    });
    contents(&folder.expect("fetched"), &files);
    // All but `config.json` and the first part of the weights.
    assert_eq!(
        events,
        [
            ("chosen", 300_000 + 5_000 + 8 + 300_000),
            ("checking", 400_000)
        ]
    );
    let log = hub.log();
    let sent = log
        .iter()
        .find(|request| request.content)
        .expect("a transfer")
        .sent;
    assert_eq!(sent, 300_000);
}

#[test]
fn a_server_without_ranges_starts_the_file_again() {
    let files = checkpoint();
    let hub = Hub::new(&files);
    hub.behave(|server| server.ranges = false);
    hub.fault(LARGE, Fault::Break(500_000));
    hub.fault(LARGE, Fault::Break(400_000));
    contents(&quiet(&hub.options(), "").expect("fetched"), &files);

    // It gives up where every attempt ends no later than the one before.
    let hub = Hub::new(&files);
    hub.behave(|server| server.ranges = false);
    for _ in 0..10 {
        hub.fault(LARGE, Fault::Break(500_000));
    }
    assert_eq!(code(quiet(&hub.options(), "")), "hub-interrupted");
    let attempts = hub.log().iter().filter(|request| request.content).count();
    assert_eq!(attempts, 3);
}

#[test]
fn a_wrong_byte_is_found_and_nothing_of_it_is_kept() {
    for (path, at) in [(LARGE, 699_999), ("tokenizer.json", 0)] {
        let files = checkpoint();
        let hub = Hub::new(&files);
        let options = hub.options();
        hub.fault(path, Fault::WrongByte(at));
        let error = quiet(&options, "").expect_err("a wrong byte");
        match &error {
            HubError::WrongHash {
                file,
                expected,
                found,
            } => {
                assert_eq!(file, path);
                assert_ne!(expected, found);
            }
            other => panic!("{other}"),
        }
        let wanted = files
            .iter()
            .find(|(name, _)| *name == path)
            .expect("a file");
        let hash = if path == LARGE {
            sha256(&wanted.1)
        } else {
            git(&wanted.1)
        };
        assert!(blobs(&options).iter().all(|name| !name.starts_with(&hash)));
        contents(&quiet(&options, "").expect("fetched"), &files);
    }
}

#[test]
fn a_beginning_from_elsewhere_is_replaced() {
    let files = checkpoint();
    let hub = Hub::new(&files);
    let options = hub.options();
    let folder = options.cache.join("models--Test-Org--model_1.0/blobs");
    let unfinished = folder.join(format!("{}.incomplete", sha256(&files[3].1)));
    fs::create_dir_all(&folder).expect("a folder");
    for wrong in [bytes(9, 1_000), bytes(9, 700_000), bytes(9, 800_000)] {
        fs::write(&unfinished, wrong).expect("written");
        contents(&quiet(&options, "").expect("fetched"), &files);
        assert!(!unfinished.exists());
        fs::remove_file(folder.join(sha256(&files[3].1))).expect("removed");
    }
}

#[test]
fn a_length_other_than_stated_is_an_error() {
    let hub = Hub::new(&checkpoint());
    hub.fault(LARGE, Fault::Longer(1));
    assert_eq!(code(quiet(&hub.options(), "")), "hub-wrong-size");
    hub.fault(LARGE, Fault::Break(100));
    hub.fault(LARGE, Fault::OtherRange);
    assert_eq!(code(quiet(&hub.options(), "")), "hub-answer");
}

#[test]
fn a_server_that_is_overloaded_is_asked_again() {
    let files = checkpoint();
    let hub = Hub::new(&files);
    hub.behave(|server| server.overloaded = Some((503, 2)));
    hub.fault(LARGE, Fault::Status(429, "0"));
    hub.fault(LARGE, Fault::Status(500, "nonsense"));
    contents(&quiet(&hub.options(), "").expect("fetched"), &files);

    hub.behave(|server| server.overloaded = Some((503, 9)));
    assert_eq!(code(quiet(&hub.options(), "")), "hub-status");
}

#[test]
fn a_connection_that_stalls_counts_as_broken() {
    let files = checkpoint();
    let hub = Hub::new(&files);
    let mut options = hub.options();
    options.stall = Duration::from_millis(200);
    hub.fault(LARGE, Fault::Stall(300_000));
    let begun = Instant::now();
    contents(&quiet(&options, "").expect("fetched"), &files);
    assert!(begun.elapsed() < Duration::from_secs(4));
    let log = hub.log();
    let ranges = log.iter().filter_map(|request| request.range.as_deref());
    assert!(ranges.into_iter().any(|range| range == "bytes=300000-"));
}

#[test]
fn refusals_say_what_to_do() {
    let hub = Hub::new(&checkpoint());
    for (end, wanted, words) in [
        ("@v9", "hub-no-revision", "no revision v9"),
        ("/gone.pt", "hub-no-file", "no gone.pt"),
    ] {
        let error = quiet(&hub.options(), end).expect_err("refused");
        assert_eq!(error.code(), wanted);
        assert!(error.to_string().contains(words), "{error}");
    }
    let elsewhere = emu_hub::parse("hf://Test-Org/gone").expect("an address");
    let error = fetch(&elsewhere, &hub.options(), &mut |_| {}).expect_err("no such");
    assert_eq!(error.code(), "hub-no-repository");

    hub.behave(|server| server.token = Some("hf_right"));
    let error = quiet(&hub.options(), "").expect_err("private");
    assert_eq!(error.code(), "hub-no-repository");
    assert!(
        error
            .to_string()
            .contains("without a token. Check the name; for a private one set HF_TOKEN"),
        "{error}"
    );
    let error = quiet(&hub.with_token("hf_wrong"), "").expect_err("a wrong token");
    assert_eq!(error.code(), "hub-unauthorized");
    let text = error.to_string();
    assert!(
        text.contains("Invalid credentials") && text.contains("HF_TOKEN"),
        "{text}"
    );
    assert!(!text.contains("hf_wrong"), "{text}");

    hub.behave(|server| server.gated = true);
    let error = quiet(&hub.with_token("hf_right"), "").expect_err("gated");
    assert_eq!(error.code(), "hub-gated");
    let page = format!("{}/Test-Org/model_1.0", hub.endpoint);
    assert!(error.to_string().contains(&page), "{error}");

    hub.behave(|server| server.gated = false);
    quiet(&hub.with_token("hf_right"), "").expect("fetched");
}

#[test]
fn a_raised_flag_stops_the_transfer_and_keeps_what_came() {
    let files = checkpoint();
    let hub = Hub::new(&files);
    let options = hub.options();
    let cancel = options.cancel.clone();
    let stopped = fetch(&address(""), &options, &mut |progress| {
        if matches!(progress, Progress::Bytes { done, .. } if done > 100_000) {
            cancel.store(true, Ordering::Relaxed);
        }
    });
    assert_eq!(code(stopped), "cancelled");
    let kept = blobs(&options);
    assert_eq!(
        kept.iter()
            .filter(|name| name.ends_with(".incomplete"))
            .count(),
        1
    );
    hub.log();
    cancel.store(false, Ordering::Relaxed);
    contents(&quiet(&options, "").expect("fetched"), &files);
    let log = hub.log();
    assert!(
        log.iter()
            .any(|request| request.content && request.range.is_some())
    );
}

#[test]
fn a_server_that_lists_names_only_is_asked_for_each_file() {
    for linked in [true, false] {
        let files = checkpoint();
        let hub = Hub::new(&files);
        hub.behave(|server| (server.details, server.linked) = (false, linked));
        let options = hub.options();
        contents(&quiet(&options, "").expect("fetched"), &files);
        hub.log();
        contents(&quiet(&options, "").expect("fetched"), &files);
        assert!(
            hub.log().iter().all(|request| request.sent < 1_000),
            "only asked again"
        );
        // With the hub's hashes a wrong byte is found as well.
        if linked {
            let hub = Hub::new(&files);
            hub.behave(|server| server.details = false);
            // The first answer is that to the question for length and hash.
            hub.fault(LARGE, Fault::WrongByte(0));
            hub.fault(LARGE, Fault::WrongByte(0));
            assert_eq!(code(quiet(&hub.options(), "")), "hub-wrong-hash");
        }
    }
}

#[test]
fn redirects_are_followed_but_not_for_ever() {
    let files = checkpoint();
    let hub = Hub::new(&files);
    let mut options = hub.options();
    options.endpoint = format!("{}/loop", hub.endpoint);
    assert_eq!(code(quiet(&options, "")), "hub-answer");
    options.endpoint = "http://127.0.0.1:1/ bad".into();
    assert!(quiet(&options, "").is_err());
}
