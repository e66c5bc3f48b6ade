//! Chats: what is answered, and what is refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::fake::{Fake, PNG};
use crate::http::{Answered, Running, local, start, start_with};

const CHAT: &str = "/v1/chat/completions";

fn data_url() -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(PNG))
}

/// A chat of one message with these additional fields.
fn chat(words: &str, more: Value) -> Value {
    let mut body = json!({"model": "fake", "messages": [{"role": "user", "content": words}]});
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body
}

fn say(server: &Running, words: &str, more: Value) -> Answered {
    server.post(CHAT, &chat(words, more))
}

fn content(answered: &Answered) -> String {
    let json = answered.json();
    json["choices"][0]["message"]["content"]
        .as_str()
        .expect("a text")
        .to_owned()
}

#[test]
fn a_chat_of_several_turns_with_pictures_is_answered() {
    let server = start(local());
    let picture = json!({"type": "image_url", "image_url": {"url": data_url()}});
    let answered = server.post(CHAT, &json!({
        "model": "fake",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [picture, {"type": "text", "text": "what is it?"}]},
            {"role": "assistant", "content": "a dog"},
            {"role": "user", "content": [{"type": "text", "text": "and "}, picture, picture, {"type": "text", "text": "?"}]},
        ],
    }));
    let json = answered.json();
    assert_eq!(json["object"], "chat.completion");
    assert_eq!(json["model"], "fake");
    assert!(
        json["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("chatcmpl-"))
    );
    assert!(
        json["created"]
            .as_u64()
            .is_some_and(|created| created > 1_700_000_000)
    );
    let choice = &json["choices"][0];
    assert_eq!(
        choice["message"],
        json!({"role": "assistant", "content": "[be brief] 2: and **?", "refusal": null})
    );
    assert_eq!(
        (
            &choice["finish_reason"],
            &choice["index"],
            &choice["logprobs"]
        ),
        (&json!("stop"), &json!(0), &json!(null))
    );
    assert_eq!(
        json["usage"],
        json!({
            "prompt_tokens": 19, "completion_tokens": 7, "total_tokens": 26,
            "prompt_tokens_details": {"cached_tokens": 9},
        })
    );
}

#[test]
fn times_of_both_phases_are_told() {
    let server = start(local());
    let whole = say(&server, "count to 5", json!({"n": 2})).json();
    let options = json!({"n": 2, "stream": true, "stream_options": {"include_usage": true}});
    let events = say(&server, "count to 5", options).events();
    let streamed = events.last().expect("the usage");
    for timings in [&whole["timings"], &streamed["timings"]] {
        // Half of the prompt is cached. The other half is computed for each choice.
        assert_eq!(timings["cache_n"], 5);
        assert_eq!(timings["prompt_n"], 10);
        assert_eq!(timings["predicted_n"], 8);
        let number = |name: &str| timings[name].as_f64().expect("a number");
        let rate = 10.0 * 1e3 / number("prompt_ms");
        assert!((number("prompt_per_second") / rate - 1.0).abs() < 1e-6);
        // The first token of each choice belongs to its prefill.
        let rate = 6.0 * 1e3 / number("predicted_ms");
        assert!((number("predicted_per_second") / rate - 1.0).abs() < 1e-6);
    }
    assert!(
        events
            .iter()
            .rev()
            .skip(1)
            .all(|event| event.get("timings").is_none())
    );
}

#[test]
fn a_stream_gives_the_same_text_in_chunks() {
    let server = start(local());
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let events = say(&server, "count to 5", options).events();
    let last = events.last().expect("the usage");
    assert_eq!(
        last["usage"],
        json!({
            "prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 5},
        })
    );
    assert_eq!(last["choices"], json!([]));
    let first = &events[0]["choices"][0];
    assert_eq!(
        first["delta"],
        json!({"role": "assistant", "content": "", "refusal": null})
    );
    let chunks = &events[1..events.len() - 2];
    let text: String = chunks
        .iter()
        .map(|e| {
            e["choices"][0]["delta"]["content"]
                .as_str()
                .expect("a text")
        })
        .collect();
    assert_eq!(text, "1 2 3 4 5 ");
    assert!(chunks.len() >= 3, "several chunks: {chunks:?}");
    let end = &events[events.len() - 2]["choices"][0];
    assert_eq!(
        (&end["delta"], &end["finish_reason"]),
        (&json!({}), &json!("stop"))
    );
    for event in &events {
        assert_eq!(
            (&event["object"], &event["id"]),
            (&json!("chat.completion.chunk"), &events[0]["id"])
        );
        assert!(event.get("usage").is_some());
    }
    let events = say(&server, "count to 5", json!({"stream": true})).events();
    assert!(events.iter().all(|event| event.get("usage").is_none()));
}

#[test]
fn stop_strings_end_the_text_and_do_not_leak() {
    let server = start(local());
    for (stop, expected) in [
        (json!("4 5"), "1 2 3 "),
        (json!(["9", "3 4"]), "1 2 "),
        (json!("7 8 "), "1 2 3 4 5 6 7 "),
        (json!("nothing"), "1 2 3 4 5 6 7 "),
        // The text ends as a stop string begins: that is text.
        (json!("7 !"), "1 2 3 4 5 6 7 "),
    ] {
        let answered = say(&server, "count to 7", json!({"stop": stop}));
        assert_eq!(content(&answered), expected, "{stop}");
        assert_eq!(answered.json()["choices"][0]["finish_reason"], "stop");
        let events = say(&server, "count to 7", json!({"stop": stop, "stream": true})).events();
        let mut told = String::new();
        for event in events {
            told += event["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap_or_default();
            assert!(expected.starts_with(&told), "{told:?} of {expected:?}");
        }
        assert_eq!(told, expected);
    }
    let server = start(local());
    let answered = say(&server, "count to 1000", json!({"stop": "5"}));
    assert_eq!(content(&answered), "1 2 3 4 ");
    assert_eq!(
        server
            .counts
            .stopped
            .load(std::sync::atomic::Ordering::SeqCst),
        1,
        "the engine was told"
    );
    assert!(
        answered.json()["usage"]["completion_tokens"]
            .as_u64()
            .is_some_and(|tokens| tokens < 5)
    );
}

#[test]
fn options_reach_the_engine() {
    let server = start(local());
    let answered = say(&server, "count to 100", json!({"max_tokens": 2}));
    assert_eq!(content(&answered), "1 2 3 ");
    assert_eq!(answered.json()["choices"][0]["finish_reason"], "length");
    let answered = say(
        &server,
        "count to 100",
        json!({"max_tokens": 9, "max_completion_tokens": 1}),
    );
    assert_eq!(content(&answered), "1 2");
    let answered = say(&server, "a", json!({"temperature": 1, "seed": 7, "n": 3}));
    let json = answered.json();
    let texts: Vec<&str> = { json["choices"].as_array().expect("choices").iter() }
        .map(|choice| choice["message"]["content"].as_str().expect("a text"))
        .collect();
    assert_eq!(
        texts,
        ["[-] 1: a seed 7", "[-] 1: a seed 8", "[-] 1: a seed 9"]
    );
    assert_eq!(json["usage"]["prompt_tokens"], 1);
    assert_eq!(json["usage"]["completion_tokens"], 15);
    let penalties = json!({
        "min_p": 0.25, "presence_penalty": 0.5, "frequency_penalty": -1, "logit_bias": {"7": 1.5},
    });
    assert_eq!(
        content(&say(&server, "a", penalties)),
        "[-] 1: a min-p Some(0.25) penalties 0.5 -1 bias [(7, 1.5)]"
    );
    // Without a seed, each call has its own.
    let seed = || content(&say(&server, "a", json!({"temperature": 0.5})));
    assert_ne!(seed(), seed());
    let answered = server.post(
        CHAT,
        &json!({"messages": [{"role": "user", "content": "no model"}]}),
    );
    assert_eq!(content(&answered), "[-] 1: no model");
}

#[test]
fn log_probabilities_come_with_their_tokens() {
    let server = start(local());
    let json = say(
        &server,
        "count to 3",
        json!({"logprobs": true, "top_logprobs": 2, "stop": "3"}),
    )
    .json();
    assert_eq!(json["choices"][0]["message"]["content"], "1 2 ");
    let tokens = json["choices"][0]["logprobs"]["content"]
        .as_array()
        .expect("tokens");
    // The second token is `·3·`: its first character was delivered.
    let names: Vec<&str> = tokens
        .iter()
        .map(|token| token["token"].as_str().expect("a token"))
        .collect();
    assert_eq!(names, ["1 2", " 3 "]);
    assert_eq!(tokens[0]["logprob"], -0.5);
    assert_eq!(tokens[0]["bytes"], json!([49, 32, 50]));
    assert_eq!(
        tokens[0]["top_logprobs"][1],
        json!({"token": "t1", "logprob": -1.5, "bytes": [116, 49]})
    );
    let stream = json!({"logprobs": true, "stream": true});
    let events = say(&server, "count to 3", stream).events();
    let count = events
        .iter()
        .filter(|event| event["choices"][0]["logprobs"]["content"][0]["token"].is_string())
        .count();
    assert_eq!(count, 2);

    let plain = start_with(
        local(),
        Fake {
            plain: true,
            ..Fake::default()
        },
    );
    let refused = say(&plain, "a", json!({"logprobs": true})).error();
    assert_eq!(
        refused,
        (400, "unsupported_parameter".into(), Some("logprobs".into()))
    );
    assert_eq!(say(&plain, "a", json!({"logprobs": false})).status, 200);
}

#[test]
fn an_answer_with_pictures_has_parts() {
    let server = start(local());
    let json = say(
        &server,
        "draw",
        json!({"modalities": ["text", "image"], "seed": 5}),
    )
    .json();
    let picture =
        json!({"type": "image_url", "image_url": {"url": data_url()}, "seed": 5, "flagged": false});
    let parts =
        json!([{"type": "text", "text": "Here: "}, picture, {"type": "text", "text": " done."}]);
    assert_eq!(json["choices"][0]["message"]["content"], parts);

    let events = say(
        &server,
        "draw",
        json!({"modalities": ["image"], "drawing": {"seed": 6}, "stream": true}),
    )
    .events();
    let contents: Vec<&Value> = events
        .iter()
        .map(|event| &event["choices"][0]["delta"]["content"])
        .collect();
    let drawn: Vec<&&Value> = contents
        .iter()
        .filter(|content| content.is_array())
        .collect();
    assert_eq!(drawn.len(), 1);
    assert_eq!(
        (&drawn[0][0]["type"], &drawn[0][0]["seed"]),
        (&json!("image_url"), &json!(6))
    );
    // What was answered can be sent back.
    let answered = server.post(CHAT, &json!({"messages": [
        {"role": "user", "content": "draw"}, {"role": "assistant", "content": parts}, {"role": "user", "content": "again"},
    ]}));
    assert_eq!(content(&answered), "[-] 2: again");
    // Without the modality, the answer is text.
    assert_eq!(content(&say(&server, "draw", json!({}))), "[-] 1: draw");
}

#[test]
fn wrong_chats_get_errors_that_name_the_parameter() {
    let server = start(local());
    let bad = |more: Value| say(&server, "a", more).error();
    let of = |status, code: &str, param: &str| (status, code.to_owned(), Some(param.to_owned()));
    for (more, expected) in [
        (
            json!({"model": "gpt-4"}),
            of(404, "model_not_found", "model"),
        ),
        (
            json!({"messages": []}),
            of(400, "invalid_value", "messages"),
        ),
        (
            json!({"messages": "a"}),
            of(400, "invalid_type", "messages"),
        ),
        (
            json!({"messages": [{"role": "user", "content": 3}]}),
            of(400, "invalid_type", "messages[0].content"),
        ),
        (
            json!({"temperature": "hot"}),
            of(400, "invalid_type", "temperature"),
        ),
        (
            json!({"temperature": 3}),
            of(400, "invalid_value", "temperature"),
        ),
        (
            json!({"max_tokens": -1}),
            of(400, "invalid_type", "max_tokens"),
        ),
        (
            json!({"max_tokens": 0}),
            of(400, "invalid_value", "max_tokens"),
        ),
        (json!({"n": 0}), of(400, "invalid_value", "n")),
        (json!({"n": 9}), of(400, "invalid_value", "n")),
        (
            json!({"stop": ["a", "b", "c", "d", "e"]}),
            of(400, "invalid_value", "stop"),
        ),
        (json!({"stop": 3}), of(400, "invalid_type", "stop")),
        (
            json!({"top_logprobs": 3}),
            of(400, "invalid_value", "top_logprobs"),
        ),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            of(400, "invalid_value", "top_logprobs"),
        ),
        (
            json!({"logprobs": true, "beams": 2}),
            of(400, "unsupported_parameter", "logprobs"),
        ),
        (
            json!({"tools": [{"type": "function"}]}),
            of(400, "unsupported_parameter", "tools"),
        ),
        (
            json!({"response_format": {"type": "json_object"}}),
            of(400, "unsupported_parameter", "response_format"),
        ),
        (
            json!({"modalities": ["audio"]}),
            of(400, "unsupported_parameter", "modalities"),
        ),
        (
            json!({"modalities": ["image"], "beams": 2}),
            of(400, "unsupported_parameter", "beams"),
        ),
        (
            json!({"drawing": {"size": "big"}}),
            of(400, "invalid_value", "size"),
        ),
        (
            json!({"presence_penalty": 3}),
            of(400, "invalid_value", "presence_penalty"),
        ),
        (
            json!({"logit_bias": {"word": 1}}),
            of(400, "invalid_value", "logit_bias"),
        ),
        (
            json!({"beams": 2, "frequency_penalty": 1}),
            of(400, "unsupported_parameter", "frequency_penalty"),
        ),
    ] {
        assert_eq!(bad(more.clone()), expected, "{more}");
    }
    let json = [("Content-Type", "application/json")];
    for body in [&b""[..], b"{", b"[]", b"\xff\xfe", b"{\"messages\": [}"] {
        let (status, ..) = server.send("POST", CHAT, &json, body).error();
        assert_eq!(status, 400, "{}", String::from_utf8_lossy(body));
    }
    let (status, code, _) = server
        .send("POST", CHAT, &[("Content-Type", "text/plain")], b"{}")
        .error();
    assert_eq!((status, code.as_str()), (415, "unsupported_media_type"));
    assert_eq!(
        server
            .counts
            .begun
            .load(std::sync::atomic::Ordering::SeqCst),
        0,
        "none reached the engine"
    );
}

#[test]
fn errors_of_the_engine_have_their_status() {
    let server = start(local());
    for stream in [false, true] {
        let error = |words: &str| say(&server, words, json!({"stream": stream})).error();
        assert_eq!(
            error("too long"),
            (400, "context_length_exceeded".into(), None)
        );
        assert_eq!(error("fail"), (500, "device".into(), None));
        assert_eq!(error("panic"), (500, "engine_failed".into(), None));
        // The next call works.
        assert_eq!(say(&server, "a", json!({"stream": stream})).status, 200);
    }
    assert!(
        server
            .get("/metrics")
            .text()
            .contains("emu_engine_failures_total 4\n")
    );
}

#[test]
fn a_model_without_pictures_says_so() {
    let server = start_with(
        local(),
        Fake {
            plain: true,
            ..Fake::default()
        },
    );
    let picture = json!([{"type": "image_url", "image_url": {"url": data_url()}}]);
    let answered = say(
        &server,
        "",
        json!({"messages": [{"role": "user", "content": picture}]}),
    );
    assert_eq!(answered.error().1, "unsupported_parameter");
    assert_eq!(
        say(&server, "a", json!({"modalities": ["image"]}))
            .error()
            .0,
        400
    );
    assert_eq!(
        server
            .post("/v1/images/generations", &json!({"prompt": "a"}))
            .error()
            .1,
        "unsupported_endpoint"
    );
    assert_eq!(
        server
            .post("/v1/embeddings", &json!({"input": data_url()}))
            .error()
            .1,
        "unsupported_endpoint"
    );
}
