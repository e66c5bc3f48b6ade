//! Where files come from and go to: the cache, a named folder, other revisions.

mod common;

use std::fs;

use common::files::{LARGE, WANTED, below, checkpoint, code, contents, quiet};
use common::{Hub, address, bytes, nobody, sha256};
use emu_hub::{HubError, Options, Progress, fetch, listing};

#[test]
fn without_a_network_the_cache_serves_what_it_has() {
    let files = checkpoint();
    let hub = Hub::new(&files);
    let options = hub.options();
    let offline = Options {
        offline: true,
        ..options.clone()
    };
    let away = Options {
        endpoint: nobody(),
        ..options.clone()
    };
    assert_eq!(code(quiet(&offline, "")), "hub-offline");
    assert_eq!(code(quiet(&away, "")), "hub-unreachable");

    let folder = quiet(&options, "").expect("fetched");
    hub.log();
    assert_eq!(quiet(&offline, "").expect("from the cache"), folder);
    assert_eq!(
        listing(&address(""), &offline)
            .expect("a list")
            .entries
            .len(),
        6
    );
    let commit = folder
        .file_name()
        .expect("a commit")
        .to_string_lossy()
        .into_owned();
    assert_eq!(
        quiet(&offline, &format!("@{commit}/config.json")).expect("one"),
        folder.join("config.json")
    );
    assert_eq!(code(quiet(&offline, "@v2")), "hub-offline");
    assert_eq!(code(quiet(&offline, "/pytorch_model.bin")), "hub-offline");
    assert_eq!(hub.log().len(), 0);

    let mut cached = false;
    let found = fetch(&address(""), &away, &mut |progress| {
        cached |= matches!(progress, Progress::Cached { .. });
    });
    assert_eq!(found.expect("from the cache"), folder);
    assert!(cached);
    assert_eq!(code(quiet(&away, "/pytorch_model.bin")), "hub-unreachable");
}

#[test]
fn a_gap_in_the_cache_is_noticed_without_a_network() {
    let index = br#"{"weight_map": {"a": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"}}"#;
    let manifest =
        br#"{"shards": [{"file": "lm.safetensors"}], "files": [{"file": "tokenizer.json"}]}"#;
    let hub = Hub::new(&[
        ("pack/emu.json", manifest.to_vec()),
        ("pack/lm.safetensors", bytes(7, 10)),
        ("pack/tokenizer.json", b"{}".to_vec()),
        ("x/m-00001-of-00002.safetensors", bytes(5, 10)),
        ("x/m-00002-of-00002.safetensors", bytes(6, 10)),
        ("x/m.safetensors.index.json", index.to_vec()),
    ]);
    let options = hub.options();
    let folder = quiet(&options, "").expect("fetched");
    let offline = Options {
        offline: true,
        ..options
    };
    quiet(&offline, "").expect("complete");
    for path in ["x/m-00002-of-00002.safetensors", "pack/lm.safetensors"] {
        fs::remove_file(folder.join(path)).expect("removed");
        let error = quiet(&offline, "").expect_err("incomplete");
        assert!(error.to_string().contains(path), "{error}");
        quiet(&hub.options(), "").expect("complete again");
        quiet(&offline, "").expect("complete");
    }
}

#[test]
fn a_named_folder_gets_files_of_its_own() {
    let files = checkpoint();
    let hub = Hub::new(&files);
    let mut options = hub.options();
    options.out = Some(hub.folder().join("out/a"));
    let folder = quiet(&options, "").expect("fetched");
    assert_eq!(Some(&folder), options.out.as_ref());
    contents(&folder, &files);
    assert_eq!(below(&folder), WANTED);
    assert!(!folder.join(LARGE).is_symlink());
    // Again: nothing changes. A changed file is in the way.
    assert_eq!(quiet(&options, "").expect("fetched"), folder);
    fs::write(folder.join("config.json"), "[]").expect("written");
    assert_eq!(code(quiet(&options, "")), "hub-exists");
    assert_eq!(fs::read(folder.join("config.json")).expect("read"), b"[]");
    // Small files are copies: the cache is as before.
    options.out = None;
    contents(&quiet(&options, "").expect("fetched"), &files);

    // A folder and a file of the repository.
    options.out = Some(hub.folder().join("out/b"));
    let unet = quiet(&options, "/unet").expect("fetched");
    let deep = ["a b#1.json", "diffusion_pytorch_model.bin", "empty.json"];
    assert_eq!(below(&unet), deep);
    options.out = Some(hub.folder().join("out/c"));
    let file = quiet(&options, "/unet/diffusion_pytorch_model.bin").expect("fetched");
    assert_eq!(file, hub.folder().join("out/c/diffusion_pytorch_model.bin"));
    assert_eq!(below(&hub.folder().join("out/c")), deep);
    options.out = None;
    let file = quiet(&options, "/unet/diffusion_pytorch_model.bin").expect("fetched");
    assert_eq!(fs::read(file).expect("read"), files[7].1);
}

#[test]
fn large_files_in_a_named_folder_share_the_caches_bytes() {
    let hub = Hub::new(&[(LARGE, bytes(1, 3_000_000))]);
    let mut options = hub.options();
    options.out = Some(hub.folder().join("out"));
    let file = quiet(&options, "").expect("fetched").join(LARGE);
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let blob = options
            .cache
            .join("models--Test-Org--model_1.0/blobs")
            .join(sha256(&bytes(1, 3_000_000)));
        assert_eq!(
            fs::metadata(&file).expect("a file").ino(),
            fs::metadata(blob).expect("a file").ino()
        );
    }
    assert_eq!(fs::read(file).expect("read"), bytes(1, 3_000_000));
}

#[test]
fn a_pack_is_fetched_whole_and_used_as_a_folder() {
    let files = [
        ("README.md", b"# A pack".to_vec()),
        (
            "emu.json",
            b"{\"shards\": [{\"file\": \"lm-00001-of-00001.safetensors\"}]}".to_vec(),
        ),
        ("lm-00001-of-00001.safetensors", bytes(1, 90_000)),
        ("samples/photo.png", bytes(2, 900)),
        ("tokenizer.json", b"{}".to_vec()),
    ];
    let hub = Hub::new(&files);
    let folder = quiet(&hub.options(), "").expect("fetched");
    assert_eq!(
        below(&folder),
        [
            "emu.json",
            "lm-00001-of-00001.safetensors",
            "tokenizer.json"
        ]
    );
    for (path, bytes) in &files[1..3] {
        assert_eq!(fs::read(folder.join(path)).expect("read"), *bytes);
    }
}

#[test]
fn too_little_space_is_told_before_anything_is_fetched() {
    let hub = Hub::new(&checkpoint());
    hub.behave(|server| server.stated_size = Some(1 << 60));
    let options = hub.options();
    let error = quiet(&options, "").expect_err("no disk has that");
    assert_eq!(error.code(), "hub-space");
    let HubError::Space { needed, free, .. } = error else {
        panic!("{error}")
    };
    assert!(needed > free);
    assert_eq!(hub.log().len(), 1);
    assert!(!options.cache.exists());
}

#[test]
fn a_new_commit_brings_only_what_changed() {
    let mut files = checkpoint();
    let hub = Hub::new(&files);
    let options = hub.options();
    let old = quiet(&options, "").expect("fetched");
    let first = old
        .file_name()
        .expect("a commit")
        .to_string_lossy()
        .into_owned();
    files[2].1 = b"{\"new\": true}".to_vec();
    let second = hub.commit(&files);
    hub.name("refs/pr/1", &second);
    hub.name("my/branch", &first);
    hub.log();
    let new = quiet(&options, "").expect("fetched");
    assert!(new.ends_with(&second));
    contents(&new, &files);
    let sent: Vec<String> = hub
        .log()
        .iter()
        .skip(1)
        .map(|request| request.path.clone())
        .collect();
    assert_eq!(
        sent,
        [format!("/Test-Org/model_1.0/resolve/{second}/config.json")]
    );
    // Every kind of revision.
    for (end, wanted) in [
        (format!("@{first}"), &old),
        ("@refs/pr/1".into(), &new),
        ("@my%2Fbranch".into(), &old),
        ("@main".into(), &new),
    ] {
        assert_eq!(quiet(&options, &end).expect("fetched"), *wanted, "{end}");
        let offline = Options {
            offline: true,
            ..options.clone()
        };
        assert_eq!(quiet(&offline, &end).expect("fetched"), *wanted, "{end}");
    }
}

#[test]
fn two_at_once_fetch_each_file_once() {
    let files = checkpoint();
    let hub = Hub::new(&files);
    let options = hub.options();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| contents(&quiet(&options, "").expect("fetched"), &files));
        }
    });
    let log = hub.log();
    let transfers = log
        .iter()
        .filter(|request| !request.path.starts_with("/api/"));
    let mut paths: Vec<&str> = transfers.map(|request| request.path.as_str()).collect();
    let count = paths.len();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), count, "{paths:?}");
}
