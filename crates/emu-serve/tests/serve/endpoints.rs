//! The other endpoints: what they answer, and what they refuse.

use std::sync::atomic::Ordering;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::fake::PNG;
use crate::http::{local, start};

fn data_url() -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(PNG))
}

#[test]
fn completions_continue_texts() {
    let server = start(local());
    let post = |more: Value| {
        let mut body = json!({"model": "fake", "prompt": "abc"});
        for (name, value) in more.as_object().expect("fields") {
            body[name] = value.clone();
        }
        server.post("/v1/completions", &body)
    };
    let json = post(json!({})).json();
    assert_eq!(json["object"], "text_completion");
    assert_eq!(
        json["choices"],
        json!([{"index": 0, "text": " and abc again", "logprobs": null, "finish_reason": "stop"}])
    );
    assert_eq!(
        json["usage"],
        json!({
            "prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 1},
        })
    );
    let json = post(json!({"prompt": ["a", "bc"], "n": 2, "echo": true, "max_tokens": 2})).json();
    let texts: Vec<&str> = { json["choices"].as_array().expect("choices").iter() }
        .map(|choice| choice["text"].as_str().expect("a text"))
        .collect();
    assert_eq!(texts, ["a and a", "a and a", "bc and b", "bc and b"]);
    assert_eq!(
        json["usage"],
        json!({
            "prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11,
            "prompt_tokens_details": {"cached_tokens": 1},
        })
    );
    let json = post(json!({"logprobs": 2, "stop": "again"})).json();
    assert_eq!(json["choices"][0]["text"], " and abc ");
    let logprobs = &json["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!([" an", "d a", "bc "]));
    assert_eq!(logprobs["text_offset"], json!([0, 3, 6]));
    assert_eq!(logprobs["token_logprobs"], json!([-0.5, -0.5, -0.5]));
    assert_eq!(logprobs["top_logprobs"][0], json!({"t0": -0.5, "t1": -1.5}));
    let events =
        post(json!({"stream": true, "echo": true, "stream_options": {"include_usage": true}}))
            .events();
    let text: String = events
        .iter()
        .filter_map(|event| event["choices"][0]["text"].as_str())
        .collect();
    assert_eq!(text, "abc and abc again");
    assert_eq!(
        events.last().expect("the usage")["usage"]["completion_tokens"],
        5
    );
    for (more, param) in [
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": [1, 2, 3]}), "prompt"),
        (json!({"prompt": ["a", 3]}), "prompt"),
        (json!({"prompt": vec!["a"; 9]}), "prompt"),
        (json!({"suffix": "z"}), "suffix"),
        (json!({"best_of": 3}), "best_of"),
        (json!({"logprobs": 6}), "logprobs"),
        (json!({"logprobs": 1, "echo": true}), "echo"),
    ] {
        let (status, _, named) = post(more.clone()).error();
        assert_eq!((status, named.as_deref()), (400, Some(param)), "{more}");
    }
}

#[test]
fn pictures_are_drawn() {
    let server = start(local());
    let post = |body: Value| server.post("/v1/images/generations", &body);
    let json = post(json!({"model": "fake", "prompt": "a dog", "n": 2, "size": "64x48", "seed": 3, "response_format": "b64_json"})).json();
    let data = json["data"].as_array().expect("pictures");
    assert_eq!(data.len(), 2);
    for (picture, seed) in data.iter().zip([3, 4]) {
        let png = STANDARD
            .decode(picture["b64_json"].as_str().expect("base64"))
            .expect("base64");
        assert_eq!(png, PNG);
        assert_eq!(picture["seed"], seed);
    }
    assert!(json["created"].is_u64());
    let steps = server.counts.steps.load(Ordering::SeqCst);
    post(json!({"prompt": "a dog", "steps": 9, "size": "auto", "guidance": 3, "negative_prompt": "a cat"})).json();
    assert_eq!(server.counts.steps.load(Ordering::SeqCst), steps + 9);
    for (body, code, param) in [
        (json!({}), "invalid_value", Some("prompt")),
        (json!({"prompt": " "}), "invalid_value", Some("prompt")),
        (json!({"prompt": "a", "n": 100}), "invalid_value", Some("n")),
        (
            json!({"prompt": "a", "size": "1"}),
            "invalid_value",
            Some("size"),
        ),
        (
            json!({"prompt": "a", "size": "63x64"}),
            "picture-size",
            None,
        ),
        (
            json!({"prompt": "a", "steps": 0}),
            "invalid_value",
            Some("steps"),
        ),
        (
            json!({"prompt": "a", "response_format": "url"}),
            "unsupported_parameter",
            Some("response_format"),
        ),
        (
            json!({"prompt": "a", "output_format": "webp"}),
            "unsupported_parameter",
            Some("output_format"),
        ),
        (
            json!({"prompt": "a", "background": "transparent"}),
            "unsupported_parameter",
            Some("background"),
        ),
        (
            json!({"prompt": "a", "stream": true}),
            "unsupported_parameter",
            Some("stream"),
        ),
    ] {
        let error = post(body.clone()).error();
        assert_eq!(
            error,
            (400, code.to_owned(), param.map(str::to_owned)),
            "{body}"
        );
    }
}

/// A form with text fields and files.
fn form(fields: &[(&str, &str)], files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = vec![];
    for (name, value) in fields {
        body.extend(
            format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
                .bytes(),
        );
    }
    for (name, bytes) in files {
        let head = "Content-Type: application/octet-stream";
        body.extend(format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a\"\r\n{head}\r\n\r\n").bytes());
        body.extend(*bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--B--\r\n");
    body
}

#[test]
fn pictures_are_blended() {
    let server = start(local());
    let headers = [("Content-Type", "multipart/form-data; boundary=B")];
    let post = |body: &[u8]| server.send("POST", "/v1/images/edits", &headers, body);
    let fields = [
        ("prompt", "<image> in the style of <image>"),
        ("n", "2"),
        ("seed", "8"),
        ("size", "64x64"),
        ("model", "fake"),
    ];
    let json = post(&form(&fields, &[("image[]", PNG), ("image[]", PNG)])).json();
    assert_eq!(
        (&json["data"][0]["seed"], &json["data"][1]["seed"]),
        (&json!(8), &json!(9))
    );
    assert_eq!(
        post(&form(&[("prompt", "12")], &[("image", PNG)])).status,
        200
    );
    for (body, param) in [
        (form(&[("prompt", "a")], &[]), Some("image")),
        (
            form(&[("prompt", "a")], &[("image", b"text")]),
            Some("image"),
        ),
        (
            form(&[("prompt", "a")], &[("image", PNG), ("mask", PNG)]),
            Some("mask"),
        ),
        (form(&[("prompt", "a")], &[("photo", PNG)]), Some("photo")),
        (
            form(&[("prompt", "<image>")], &[("image", PNG), ("image", PNG)]),
            Some("prompt"),
        ),
        (
            form(&[("prompt", "a"), ("n", "two")], &[("image", PNG)]),
            Some("n"),
        ),
        (
            form(&[("prompt", "a"), ("n", "-2")], &[("image", PNG)]),
            Some("n"),
        ),
        (form(&[("prompt", "a")], &[("image", &PNG[..8])]), None),
        (b"--B\r\nnothing".to_vec(), None),
        (b"".to_vec(), None),
    ] {
        let (status, _, named) = post(&body).error();
        assert_eq!(
            (status, named.as_deref()),
            (400, param),
            "{}",
            String::from_utf8_lossy(&body)
        );
    }
    let json = server
        .post("/v1/images/edits", &json!({"prompt": "a"}))
        .error();
    assert_eq!(json.0, 415);
    let no_boundary = [("Content-Type", "multipart/form-data")];
    assert_eq!(
        server
            .send("POST", "/v1/images/edits", &no_boundary, b"--B")
            .error()
            .0,
        400
    );
}

#[test]
fn pictures_are_embedded() {
    let server = start(local());
    let post = |body: Value| server.post("/v1/embeddings", &body);
    let n = PNG.len() as f64;
    let json = post(json!({"model": "fake", "input": data_url()})).json();
    assert_eq!(json["object"], "list");
    assert_eq!(
        json["data"],
        json!([{"object": "embedding", "index": 0, "embedding": [n, 1.0, 2.0]}])
    );
    assert_eq!(
        json["usage"],
        json!({"prompt_tokens": 2, "total_tokens": 2})
    );
    let part = json!({"type": "image_url", "image_url": {"url": data_url()}});
    let json = post(json!({"input": [data_url(), part], "pooling": "none"})).json();
    assert_eq!(
        json["data"][1],
        json!({"object": "embedding", "index": 1, "shape": [2, 3], "embedding": [n, 0.0, 1.0, n, 2.0, 3.0]})
    );
    let json = post(json!({"input": [data_url()], "encoding_format": "base64"})).json();
    let bytes = STANDARD
        .decode(json["data"][0]["embedding"].as_str().expect("base64"))
        .expect("base64");
    assert_eq!(bytes.len(), 12);
    assert_eq!(bytes[4..8], 1f32.to_le_bytes());
    for (body, param) in [
        (json!({"input": []}), "input"),
        (json!({"input": "a dog"}), "input[0]"),
        (
            json!({"input": [{"type": "text", "text": "a"}]}),
            "input[0]",
        ),
        (
            json!({"input": [data_url(), "file:///etc/passwd"]}),
            "input[1]",
        ),
        (json!({"input": [3]}), "input[0]"),
        (
            json!({"input": data_url(), "encoding_format": "int8"}),
            "encoding_format",
        ),
        (json!({"input": data_url(), "pooling": "max"}), "pooling"),
        (json!({"input": data_url(), "dimensions": 2}), "dimensions"),
    ] {
        let (status, _, named) = post(body.clone()).error();
        assert_eq!((status, named.as_deref()), (400, Some(param)), "{body}");
    }
}

#[test]
fn models_health_and_metrics_are_told() {
    let server = start(local());
    let model =
        json!({"id": "fake", "object": "model", "created": 1_700_000_000, "owned_by": "tests"});
    assert_eq!(
        server.get("/v1/models").json(),
        json!({"object": "list", "data": [model]})
    );
    assert_eq!(server.get("/v1/models/fake").json(), model);
    assert_eq!(server.get("/v1/models/gpt/4").error().0, 404);
    let health = server.get("/health").json();
    assert_eq!(
        health,
        json!({"status": "ok", "model": "fake", "waiting": 0, "running": false})
    );
    let message = json!({"role": "user", "content": "count to 3"});
    server
        .post("/v1/chat/completions", &json!({"messages": [message]}))
        .json();
    let metrics = server.get("/metrics");
    assert!(
        metrics
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4"))
    );
    for line in [
        "emu_http_requests_total{path=\"/health\",status=\"200\"} 1",
        "emu_http_requests_total{path=\"/v1/chat/completions\",status=\"200\"} 1",
        "emu_http_requests_total{path=\"/v1/models/{*id}\",status=\"404\"} 1",
        "emu_tokens_total{kind=\"completion\"} 2",
        "emu_call_seconds_count 1",
        "emu_queue_length 0",
    ] {
        assert!(
            metrics.text().lines().any(|l| l == line),
            "{line}\n{}",
            metrics.text()
        );
    }
}

#[test]
fn unknown_routes_and_methods_get_errors() {
    let server = start(local());
    assert_eq!(
        server.get("/v1/nothing").error(),
        (404, "unknown_url".into(), None)
    );
    assert_eq!(server.get("/").error().0, 404);
    assert_eq!(
        server.get("/v1/chat/completions").error(),
        (405, "method_not_allowed".into(), None)
    );
    assert_eq!(server.send("DELETE", "/v1/models", &[], b"").error().0, 405);
    assert_eq!(
        server.get("/v1/chat/completions").header("allow"),
        Some("POST")
    );
}
