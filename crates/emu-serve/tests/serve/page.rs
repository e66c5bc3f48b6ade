//! A page and a pack from the same port.

use std::fs;

use crate::http::{local, start};
use emu_serve::{Config, Server};

fn site() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    };
    write("page/index.html", "<!doctype html>");
    write("page/dist/main.js", "export {};");
    write("page/dist/emu.wasm", "\0asm");
    write("page/_headers", "/dist/*.wasm\n  X-More: yes\n");
    write("page/.hidden", "secret");
    write("secret", "secret");
    write("pack/emu.json", "{}");
    write("pack/lm.safetensors", "0123456789");
    folder
}

#[test]
fn a_page_is_served_isolated_and_with_types() {
    let folder = site();
    let server = start(Config {
        page: Some(folder.path().join("page")),
        pack: Some(folder.path().join("pack")),
        api_keys: vec!["key".into()],
        ..local()
    });
    for (path, kind, text) in [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        (
            "/index.html?model=model/",
            "text/html; charset=utf-8",
            "<!doctype html>",
        ),
        (
            "/dist/main.js",
            "text/javascript; charset=utf-8",
            "export {};",
        ),
        ("/dist/emu%2ewasm", "application/wasm", "\0asm"),
        ("/model/emu.json", "application/json", "{}"),
        (
            "/model/lm.safetensors",
            "application/octet-stream",
            "0123456789",
        ),
    ] {
        let answered = server.get(path);
        assert_eq!(
            (answered.status, answered.text().as_str()),
            (200, text),
            "{path}"
        );
        assert_eq!(answered.header("content-type"), Some(kind), "{path}");
        assert_eq!(
            answered.header("cross-origin-opener-policy"),
            Some("same-origin")
        );
        assert_eq!(
            answered.header("cross-origin-embedder-policy"),
            Some("require-corp")
        );
    }
    assert_eq!(server.get("/dist/emu.wasm").header("x-more"), Some("yes"));
    assert_eq!(server.get("/dist/main.js").header("x-more"), None);
    let redirect = server.get("/dist");
    assert_eq!(
        (redirect.status, redirect.header("location")),
        (301, Some("/dist/"))
    );
    for path in [
        "/nothing",
        "/dist/",
        "/../secret",
        "/..%2fsecret",
        "/%2e%2e/secret",
        "/dist/../../secret",
        "/.hidden",
        "/_headers",
        "/index.html/",
        "/%00",
        "/%zz",
        "/model/nothing",
        "//etc/passwd",
    ] {
        assert_eq!(server.get(path).error().0, 404, "{path}");
    }
    assert_eq!(server.send("PUT", "/index.html", &[], b"x").error().0, 404);
    // The page needs no key; the endpoints do.
    assert_eq!(server.get("/v1/models").error().0, 401);
}

#[test]
fn parts_of_a_file_can_be_asked_for() {
    let folder = site();
    let server = start(Config {
        page: Some(folder.path().join("pack")),
        ..local()
    });
    let get = |headers: &[(&str, &str)]| server.send("GET", "/lm.safetensors", headers, b"");
    let whole = get(&[]);
    let tag = whole.header("etag").expect("a tag").to_owned();
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    let part = get(&[("Range", "bytes=2-4")]);
    assert_eq!((part.status, part.text().as_str()), (206, "234"));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    assert_eq!(get(&[("Range", "bytes=7-")]).text(), "789");
    assert_eq!(get(&[("Range", "bytes=-2")]).text(), "89");
    let outside = get(&[("Range", "bytes=10-")]);
    assert_eq!(
        (outside.status, outside.header("content-range")),
        (416, Some("bytes */10"))
    );
    assert_eq!(
        get(&[("Range", "bytes=2-4"), ("If-Range", &tag)]).status,
        206
    );
    assert_eq!(
        get(&[("Range", "bytes=2-4"), ("If-Range", "\"other\"")]).status,
        200
    );
    assert_eq!(get(&[("If-None-Match", &tag)]).status, 304);
    let mut head = server.connect();
    head.request("HEAD", "/lm.safetensors", &[], b"");
    let (status, headers) = head.status();
    assert_eq!(status, 200);
    assert!(headers.contains(&("content-length".into(), "10".into())));
}

#[test]
fn a_missing_folder_is_an_error_at_once() {
    let config = Config {
        page: Some("no/such/folder".into()),
        ..local()
    };
    let error = Server::bind(config).expect_err("no folder");
    assert_eq!(error.code(), "serve-folder");
}
