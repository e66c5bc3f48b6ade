//! Pictures of requests: addresses, formats, limits.

use std::io::{Read, Write};
use std::net::TcpListener;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use emu_serve::Config;
use serde_json::json;

use crate::fake::PNG;
use crate::http::{Answered, Running, local, start};

/// A chat about pictures at these addresses.
fn show(server: &Running, addresses: &[&str]) -> Answered {
    let parts: Vec<_> = { addresses.iter() }
        .map(|address| json!({"type": "image_url", "image_url": {"url": address}}))
        .collect();
    server.post(
        "/v1/chat/completions",
        &json!({"messages": [{"role": "user", "content": parts}]}),
    )
}

fn data_url(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(bytes))
}

/// Serves a picture at every path. Returns its address.
fn pictures() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PNG.len());
            let _ = stream.write_all(&[head.as_bytes(), PNG].concat());
        }
    });
    format!("http://{address}/a.png")
}

#[test]
fn every_known_format_is_taken() {
    let server = start(local());
    for head in [
        &b"\x89PNG\r\n\x1a\n"[..],
        b"\xff\xd8\xff\xe0",
        b"GIF87a",
        b"GIF89a",
        b"RIFF\0\0\0\0WEBP",
        b"BM",
        b"II*\0",
        b"MM\0*",
    ] {
        let picture = [head, &[0; 20]].concat();
        assert_eq!(
            show(&server, &[&data_url(&picture)]).status,
            200,
            "{head:?}"
        );
    }
}

#[test]
fn wrong_pictures_are_named() {
    let server = start(local());
    let good = data_url(PNG);
    let large = data_url(&[PNG, &vec![0; 17 << 20]].concat());
    for (address, status, code) in [
        ("data:image/png;base64,!!!", 400, "invalid_image_url"),
        ("data:image/png,abc", 400, "invalid_image_url"),
        ("data:", 400, "invalid_image_url"),
        ("", 400, "invalid_image_url"),
        ("a.png", 400, "invalid_image_url"),
        ("file:///etc/passwd", 400, "invalid_image_url"),
        ("http://example.com/a.png", 400, "image_fetch_disabled"),
        ("data:image/png;base64,", 400, "invalid_image_format"),
        (
            "data:image/png;base64,dGV4dA==",
            400,
            "invalid_image_format",
        ),
        (
            "data:image/svg+xml;base64,PHN2Zy8+",
            400,
            "invalid_image_format",
        ),
        (&large, 413, "image_too_large"),
    ] {
        let error = show(&server, &[&good, address]).error();
        let param = Some("messages[0].content[1].image_url.url".to_owned());
        let short: String = address.chars().take(40).collect();
        assert_eq!(error, (status, code.to_owned(), param), "{short}");
    }
    // Found only by decoding.
    let damaged = data_url(&PNG[..8]);
    assert_eq!(
        show(&server, &[&damaged]).error(),
        (400, "bad-image".into(), None)
    );
    let many = vec![good.as_str(); 17];
    assert_eq!(show(&server, &many).error().1, "too_many_images");
    assert_eq!(show(&server, &many[..16]).status, 200);
}

#[test]
fn pictures_are_fetched_where_it_is_allowed() {
    let address = pictures();
    let server = start(Config {
        fetch_private: true,
        ..local()
    });
    let json = show(&server, &[&address, &address]).json();
    assert_eq!(json["choices"][0]["message"]["content"], "[-] 1: **");
    let embedded = server
        .post("/v1/embeddings", &json!({"input": address}))
        .json();
    assert_eq!(embedded["data"][0]["embedding"][0], PNG.len() as f64);
}

#[test]
fn no_address_of_a_private_network_is_fetched() {
    let address = pictures();
    let server = start(Config {
        fetch: true,
        ..local()
    });
    let port = address
        .trim_end_matches("/a.png")
        .rsplit(':')
        .next()
        .expect("a port")
        .to_owned();
    for address in [
        address.as_str(),
        &format!("http://localhost:{port}/a.png"),
        &format!("http://[::1]:{port}/a.png"),
        &format!("http://[::ffff:127.0.0.1]:{port}/a.png"),
        "http://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/a.png",
    ] {
        let error = show(&server, &[address]).error();
        assert_eq!(
            (error.0, error.1.as_str()),
            (400, "image_address_refused"),
            "{address}"
        );
    }
}

#[test]
fn slow_servers_of_pictures_are_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}/", listener.local_addr().expect("an address"));
    let server = start(Config {
        fetch_private: true,
        fetch_timeout: std::time::Duration::from_millis(200),
        ..local()
    });
    let error = show(&server, &[&address]).error();
    assert_eq!((error.0, error.1.as_str()), (400, "image_fetch_failed"));
}
