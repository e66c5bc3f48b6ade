//! The address as judge, against a server on this machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use super::super::{Judge, Who, grades};
use super::*;

/// What a server got: the first line, the headers in lower case, and the body.
struct Got {
    first: String,
    headers: String,
    body: Value,
}

/// A server that gives these answers in turn, each a status line with headers and a body, and then stops. Its address, and what it got.
fn server(answers: Vec<(&'static str, String)>) -> (String, Receiver<Got>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    let url = format!("http://{}/v1", listener.local_addr().expect("address"));
    let (send, got) = channel();
    thread::spawn(move || {
        for (head, body) in answers {
            let (mut stream, _) = listener.accept().expect("connection");
            let mut reader = BufReader::new(stream.try_clone().expect("stream"));
            let mut first = String::new();
            reader.read_line(&mut first).expect("first line");
            let (mut headers, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("header");
                let line = line.to_lowercase();
                if let Some(n) = line.strip_prefix("content-length:") {
                    length = n.trim().parse().expect("length");
                }
                if line.trim().is_empty() {
                    break;
                }
                headers.push_str(&line);
            }
            let mut bytes = vec![0; length];
            reader.read_exact(&mut bytes).expect("body");
            let body_of = serde_json::from_slice(&bytes).expect("JSON");
            let _ = send.send(Got {
                first,
                headers,
                body: body_of,
            });
            let text = format!(
                "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            // A client that has seen enough may have hung up.
            let _ = stream.write_all(text.as_bytes());
        }
    });
    (url, got)
}

fn says(text: &str) -> (&'static str, String) {
    let body = json!({"choices": [{"message": {"role": "assistant", "content": text}}]});
    ("200 OK", body.to_string())
}

fn address(url: &str) -> Address {
    Address {
        limit: Duration::from_secs(20),
        pause: Duration::from_millis(5),
        retries: 2,
        ..Address::new(url, "gpt-4-0613")
    }
}

fn ask(address: &Address, attempt: usize) -> Result<String, String> {
    let mut client = address.client().map_err(|error| error.to_string())?;
    let case = Case {
        id: "v1_0",
        question: "how many?",
        answer: "2",
        prediction: "two",
        attempt,
    };
    client.reply(&case).map_err(|error| error.to_string())
}

#[test]
fn a_request_has_the_shape_of_openai() {
    let (url, got) = server(vec![says("0.5")]);
    let with_key = Address {
        key: Some(Secret::new("sesame\n")),
        ..address(&url)
    };
    assert_eq!(ask(&with_key, 0).expect("reply"), "0.5");
    let got = got.recv().expect("request");
    assert!(
        got.first.starts_with("POST /v1/chat/completions HTTP/1.1"),
        "{}",
        got.first
    );
    assert!(
        got.headers.contains("authorization: bearer sesame\r\n"),
        "{}",
        got.headers
    );
    assert_eq!(got.body["model"], "gpt-4-0613");
    assert_eq!(got.body["temperature"], 0.0);
    assert_eq!(got.body["max_tokens"], 16);
    let prompt = got.body["messages"][0]["content"].as_str().expect("prompt");
    assert!(prompt.ends_with("how many? | 2 | two |"), "{prompt}");
    assert!(!with_key.name().contains("sesame"), "{}", with_key.name());
}

#[test]
fn a_second_attempt_is_warmer_and_ends_in_a_cue() {
    let (url, got) = server(vec![says("1")]);
    ask(&address(&format!("{url}/chat/completions/")), 2).expect("reply");
    let got = got.recv().expect("request");
    assert!(
        got.first.starts_with("POST /v1/chat/completions HTTP"),
        "{}",
        got.first
    );
    assert!(!got.headers.contains("authorization"), "{}", got.headers);
    assert_eq!(got.body["temperature"], 1.0);
    let prompt = got.body["messages"][0]["content"].as_str().expect("prompt");
    assert!(prompt.ends_with("is:"), "{prompt}");
}

#[test]
fn an_overloaded_server_is_asked_again_and_then_given_up() {
    let busy = || {
        let body = json!({"error": {"message": "Rate limit reached."}});
        ("429 Too Many Requests\r\nRetry-After: 0", body.to_string())
    };
    let (url, _got) = server(vec![
        busy(),
        ("502 Bad Gateway", String::new()),
        says("0.25"),
    ]);
    assert_eq!(ask(&address(&url), 0).expect("reply"), "0.25");
    let (url, _got) = server(vec![busy(), busy(), busy()]);
    let error = ask(&address(&url), 0).expect_err("three times");
    assert!(
        error.contains("status 429: Rate limit reached. Wait, and run again"),
        "{error}"
    );
}

#[test]
fn a_refusal_is_an_error_at_once() {
    for (head, words) in [
        ("401 Unauthorized", "Check the key"),
        ("404 Not Found", "ends in /v1"),
        ("302 Found\r\nLocation: http://127.0.0.1:1/", "redirects to"),
        ("400 Bad Request", "what it accepts"),
    ] {
        let (url, got) = server(vec![(head, "no such thing".to_owned())]);
        let error = ask(&address(&url), 0).expect_err(head);
        assert!(
            error.contains(words) && error.contains(": no such thing"),
            "{error}"
        );
        assert_eq!(got.iter().count(), 1);
    }
}

#[test]
fn answers_that_are_too_long_or_in_another_shape() {
    let long = format!("{{\"choices\": [], \"pad\": \"{}\"}}", "x".repeat(2 << 20));
    for (body, words) in [
        ("<html>", "shape of OpenAI's API"),
        ("{\"choices\": []}", "no choices"),
        (long.as_str(), "longer than"),
    ] {
        let (url, _got) = server(vec![("200 OK", body.to_owned())]);
        let error = ask(&address(&url), 0).expect_err(words);
        assert!(error.contains(words), "{error}");
    }
    let empty = json!({"choices": [{"message": {"content": null}}]});
    let (url, _got) = server(vec![("200 OK", empty.to_string())]);
    assert_eq!(ask(&address(&url), 0).expect("empty"), "");
}

#[test]
fn a_server_that_is_silent_or_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let silent = Address {
        limit: Duration::from_millis(200),
        retries: 1,
        ..address(&url)
    };
    let error = ask(&silent, 0).expect_err("silent");
    assert!(error.contains("does not answer"), "{error}");
    drop(listener);
    let error = ask(&address(&url), 0).expect_err("gone");
    assert!(error.contains("does not answer"), "{error}");
}

#[test]
fn addresses_that_are_refused_before_anything_is_sent() {
    let key = Some(Secret::new("sesame"));
    for (url, with_key, words) in [
        ("api.example.org/v1", false, "does not begin with http"),
        ("ftp://api.example.org", false, "does not begin with http"),
        ("https://me:word@api.example.org/v1", false, "password"),
        ("https://api.example.org/v1?key=1", false, "query"),
        ("http://api.example.org/v1", true, "without encryption"),
        (
            "http://127.0.0.1.example.org/v1",
            true,
            "without encryption",
        ),
    ] {
        let address = Address {
            key: key.clone().filter(|_| with_key),
            ..address(url)
        };
        let error = address.client().err().expect(url).to_string();
        assert!(
            error.contains(words) && !error.contains("sesame"),
            "{error}"
        );
    }
    for url in [
        "http://localhost:1/v1",
        "http://[::1]:1",
        "https://api.example.org",
    ] {
        let address = Address {
            key: key.clone(),
            ..address(url)
        };
        assert!(address.client().is_ok(), "{url}");
    }
}

#[test]
fn a_reply_without_a_grade_is_asked_for_five_times_and_counts_as_zero() {
    let folder = tempfile::tempdir().expect("folder");
    let mut answers: Vec<_> = (0..5).map(|_| says("I cannot tell")).collect();
    answers.push(says("0.5"));
    let (url, got) = server(answers);
    let judge = Judge {
        who: Who::Address(address(&url)),
        runs: 1,
    };
    let case = |id| Case {
        id,
        question: "how many?",
        answer: "2",
        prediction: "two",
        attempt: 0,
    };
    let cases = [case("v1_0"), case("v1_1")];
    let graded = grades(&judge, &cases, folder.path(), &mut |_| true).expect("graded");
    assert_eq!(
        (graded.runs.clone(), graded.without),
        (vec![vec![0.0, 0.5]], 1)
    );
    let warmth: Vec<_> = got
        .iter()
        .map(|got| got.body["temperature"].as_f64())
        .collect();
    assert_eq!(warmth, [0.0, 0.5, 1.0, 1.5, 2.0, 0.0].map(Some));
    // The server has stopped: nothing is asked again.
    let again = grades(&judge, &cases, folder.path(), &mut |_| true).expect("stored");
    assert_eq!(again, graded);
    let stored = std::fs::read_to_string(folder.path().join("judged-1.jsonl")).expect("file");
    assert!(
        stored.contains("I cannot tell") && stored.contains("gpt-4-0613"),
        "{stored}"
    );
}
