//! Keys, limits, clients that leave or dawdle, and the end of the server.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use emu_serve::Config;
use serde_json::{Value, json};

use crate::http::{Connection, Running, local, start, until};

const CHAT: &str = "/v1/chat/completions";
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn body(words: &str, stream: bool) -> Vec<u8> {
    let message = json!({"role": "user", "content": words});
    json!({"messages": [message], "stream": stream})
        .to_string()
        .into_bytes()
}

/// A connection on which this call was sent.
fn calling(server: &Running, words: &str, stream: bool) -> Connection {
    let mut connection = server.connect();
    connection.request("POST", CHAT, &[JSON], &body(words, stream));
    connection
}

fn waiting(server: &Running) -> u64 {
    server.get("/health").json()["waiting"]
        .as_u64()
        .expect("a number")
}

#[test]
fn a_key_is_needed_where_one_is_set() {
    let server = start(Config {
        api_keys: vec!["one-key".into(), "another-key".into()],
        ..local()
    });
    let large = vec![b' '; 5 << 20];
    for path in ["/v1/models", "/metrics"] {
        assert_eq!(server.get(path).error().0, 401, "{path}");
    }
    let send =
        |key: &str, body: &[u8]| server.send("POST", CHAT, &[JSON, ("Authorization", key)], body);
    for wrong in ["Bearer wrong-key", "Bearer", "Basic one-key", "one-key"] {
        let answered = send(wrong, &large);
        assert_eq!(
            answered.error(),
            (401, "invalid_api_key".into(), None),
            "{wrong}"
        );
        assert_eq!(answered.header("www-authenticate"), Some("Bearer"));
    }
    assert_eq!(send("Bearer another-key", &body("a", false)).status, 200);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn without_a_key_pages_of_other_sites_are_refused() {
    let server = start(local());
    let send = |headers: &[(&str, &str)]| {
        let headers = [&[JSON][..], headers].concat();
        server.send("POST", CHAT, &headers, &body("a", false))
    };
    assert_eq!(
        send(&[("Host", "evil.test")]).error(),
        (403, "forbidden_origin".into(), None)
    );
    assert_eq!(send(&[("Origin", "http://evil.test")]).error().0, 403);
    assert_eq!(
        server
            .send("GET", "/health", &[("Host", "evil.test")], b"")
            .error()
            .0,
        403
    );
    let own = format!("http://{}", server.address);
    assert_eq!(send(&[("Origin", &own)]).status, 200);
    assert_eq!(send(&[("Host", "localhost")]).status, 200);
}

#[test]
fn a_full_queue_refuses_with_the_time_to_wait() {
    let server = start(Config {
        queue: 2,
        ..local()
    });
    server.pace(20);
    let mut running = calling(&server, "count to 2000", false);
    server.until("a call runs", |counts| {
        counts.begun.load(Ordering::SeqCst) == 1
    });
    let mut first = calling(&server, "first", false);
    let second = calling(&server, "second", false);
    until("two calls wait", || waiting(&server) == 2);
    let refused = server.send("POST", CHAT, &[JSON], &body("third", false));
    assert_eq!(refused.error(), (429, "queue_full".into(), None));
    let seconds: u64 = refused
        .header("retry-after")
        .expect("a time")
        .parse()
        .expect("seconds");
    assert!((1..=120).contains(&seconds));
    // A client that leaves the queue makes room, and its call never begins.
    drop(second);
    until("one call waits", || waiting(&server) == 1);
    let mut fourth = calling(&server, "fourth", false);
    until("two calls wait", || waiting(&server) == 2);
    server.pace(0);
    for connection in [&mut running, &mut first, &mut fourth] {
        assert_eq!(connection.answer().status, 200);
    }
    assert_eq!(server.counts.begun.load(Ordering::SeqCst), 3);
}

#[test]
fn the_bytes_of_waiting_requests_are_limited() {
    let server = start(Config {
        queue_bytes: 3 << 20,
        max_body: 2 << 20,
        ..local()
    });
    server.pace(20);
    let words = "x".repeat(1 << 20);
    let _one = calling(&server, &format!("count to 500{words}"), false);
    let _two = calling(&server, &words, false);
    until("one call waits", || waiting(&server) == 1);
    let refused = server.send("POST", CHAT, &[JSON], &body(&words, false));
    assert_eq!(refused.error().0, 429);
    assert_eq!(waiting(&server), 1);
}

#[test]
fn a_call_ends_when_its_client_leaves() {
    let server = start(local());
    server.pace(10);
    for stream in [true, false] {
        let stopped = server.counts.stopped.load(Ordering::SeqCst);
        let begun = server.counts.begun.load(Ordering::SeqCst);
        let mut connection = calling(&server, "count to 100000", stream);
        if stream {
            assert_eq!(connection.status().0, 200);
            connection.chunk();
        } else {
            server.until("the call runs", |counts| {
                counts.begun.load(Ordering::SeqCst) > begun
            });
        }
        drop(connection);
        server.until("the engine is told", |counts| {
            counts.stopped.load(Ordering::SeqCst) > stopped
        });
        assert_eq!(calling(&server, "a", false).answer().status, 200);
    }
    let metrics = server.get("/metrics").text();
    assert!(
        metrics.contains("emu_calls_abandoned_total 2\n"),
        "{metrics}"
    );
}

#[test]
fn a_drawing_ends_when_its_client_leaves() {
    let server = start(local());
    server.pace(10);
    let mut connection = server.connect();
    let drawing = json!({"prompt": "a dog", "steps": 100_000}).to_string();
    connection.request(
        "POST",
        "/v1/images/generations",
        &[JSON],
        drawing.as_bytes(),
    );
    server.until("it draws", |counts| counts.steps.load(Ordering::SeqCst) > 2);
    drop(connection);
    server.until("the engine is told", |counts| {
        counts.stopped.load(Ordering::SeqCst) == 1
    });
}

#[test]
fn a_client_that_reads_nothing_is_dropped() {
    let server = start(Config {
        write_timeout: Duration::from_millis(300),
        ..local()
    });
    // Pieces are large, because the system may buffer tens of megabytes for a connection.
    let _connection = calling(&server, "flood", true);
    server.until("the call ends", |counts| {
        counts.stopped.load(Ordering::SeqCst) == 1
    });
    until("the connection ends", || {
        server
            .get("/metrics")
            .text()
            .contains("emu_connections 1\n")
    });
}

#[test]
fn slow_bodies_and_heads_are_cut_off() {
    let server = start(Config {
        header_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        ..local()
    });
    let mut slow = server.connect();
    let head = slow.head("POST", CHAT, &[JSON], 1000);
    slow.write(head.as_bytes());
    let clock = Instant::now();
    // Byte by byte: each in time, all together not.
    for _ in 0..10 {
        if slow.try_write(b" ").is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let answered = slow.answer();
    assert_eq!(answered.error(), (408, "request_timeout".into(), None));
    assert_eq!(answered.header("connection"), Some("close"));
    assert!(clock.elapsed() < Duration::from_secs(10));
    // A client that goes on sending gets the answer too.
    let mut late = server.connect();
    let head = late.head("POST", CHAT, &[JSON], 1000);
    late.write(head.as_bytes());
    for _ in 0..40 {
        late.write(b" ");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(late.answer().status, 408);

    let mut silent = server.connect();
    silent.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-");
    assert!(silent.ended(), "a head that does not come");
    let mut idle = server.connect();
    idle.request("GET", "/health", &[], b"");
    assert_eq!(idle.answer().status, 200);
    assert!(idle.ended(), "an idle connection");
    assert_eq!(server.counts.begun.load(Ordering::SeqCst), 0);
}

#[test]
fn large_requests_are_refused() {
    let server = start(Config {
        max_body: 100_000,
        ..local()
    });
    let large = body(&"x".repeat(3_000_000), false);
    let answered = server.send("POST", CHAT, &[JSON], &large);
    assert_eq!(answered.error(), (413, "request_too_large".into(), None));
    // Of undeclared length.
    let mut connection = server.connect();
    connection.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in large.chunks(50_000).take(4) {
        let _ = connection.try_write(format!("{:x}\r\n", chunk.len()).as_bytes());
        let _ = connection.try_write(chunk);
        let _ = connection.try_write(b"\r\n");
    }
    assert_eq!(connection.answer().error().0, 413);
    let fits = body(&"x".repeat(90_000), false);
    assert_eq!(server.send("POST", CHAT, &[JSON], &fits).status, 200);
}

#[test]
fn bodies_that_break_off_do_no_harm() {
    let server = start(local());
    for sent in [0, 10, 1000] {
        let mut connection = server.connect();
        let head = connection.head("POST", CHAT, &[JSON], 2000);
        connection.write(head.as_bytes());
        connection.write(&vec![b' '; sent]);
        drop(connection);
    }
    for garbage in [
        &b"\0\0\0\0"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        &[b'a'; 100_000],
    ] {
        let mut connection = server.connect();
        let _ = connection.try_write(garbage);
        drop(connection);
    }
    assert_eq!(calling(&server, "a", false).answer().status, 200);
    assert_eq!(server.counts.begun.load(Ordering::SeqCst), 1);
}

#[test]
fn connections_beyond_the_limit_wait() {
    let server = start(Config {
        max_connections: 1,
        ..local()
    });
    let mut first = server.connect();
    first.request("GET", "/health", &[], b"");
    assert_eq!(first.answer().status, 200);
    let address = server.address;
    let second = thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).expect("a connection");
        let request =
            format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).expect("written");
        std::io::read_to_string(stream).expect("an answer")
    });
    thread::sleep(Duration::from_millis(200));
    assert!(!second.is_finished());
    drop(first);
    assert!(second.join().expect("no panic").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_stopping_server_ends_what_it_has_accepted() {
    let mut server = start(local());
    server.pace(20);
    let mut running = calling(&server, "count to 300", true);
    server.until("a call runs", |counts| {
        counts.begun.load(Ordering::SeqCst) == 1
    });
    let mut queued = calling(&server, "queued", false);
    let mut idle = server.connect();
    idle.request("GET", "/health", &[], b"");
    assert_eq!(idle.answer().status, 200);
    until("one call waits", || waiting(&server) == 1);
    server.stop();
    assert!(idle.ended(), "idle connections are closed");
    server.pace(0);
    let events = running.answer().events();
    let text: String = events
        .iter()
        .filter_map(|e| e["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert!(text.ends_with(" 300 "), "{text}");
    let answered = queued.answer();
    assert_eq!(
        answered.json()["choices"][0]["message"]["content"],
        "[-] 1: queued"
    );
    assert_eq!(answered.header("connection"), Some("close"));
    assert!(server.end() < Duration::from_secs(10));
    assert!(std::net::TcpStream::connect(server.address).is_err());
}

#[test]
fn a_stopping_server_does_not_wait_for_ever() {
    let mut server = start(Config {
        grace: Duration::from_millis(200),
        ..local()
    });
    server.pace(10);
    let mut streaming = calling(&server, "count to 100000", true);
    assert_eq!(streaming.status().0, 200);
    let mut queued = calling(&server, "queued", false);
    until("one call waits", || waiting(&server) == 1);
    let time = server.end();
    assert!(time < Duration::from_secs(5), "{time:?}");
    assert_eq!(
        queued.answer().error(),
        (503, "server_stopping".into(), None)
    );
    let mut last = vec![];
    loop {
        let chunk = streaming.chunk();
        if chunk.is_empty() {
            break;
        }
        last = chunk;
    }
    let last = String::from_utf8(last).expect("text");
    let error: Value =
        serde_json::from_str(last.trim_start_matches("data: ").trim()).expect("JSON");
    assert_eq!(error["error"]["code"], "server_stopping");
    assert_eq!(server.counts.begun.load(Ordering::SeqCst), 1);
}

#[test]
fn a_taken_address_is_an_error() {
    let server = start(local());
    let config = Config {
        address: server.address,
        ..local()
    };
    let error = emu_serve::Server::bind(config).expect_err("taken");
    assert_eq!(error.code(), "serve-address");
}
