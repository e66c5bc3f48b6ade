//! Calls of one engine, one after the other, compared with those of a new one.

use emu_kernels::device::DeviceChoice;
use emu_serve::engine::Conversation as Wanted;

use super::*;
use crate::runtime::open_pack;

fn engine() -> PackEngine {
    let reader = open_pack(None).expect("the pack inside");
    PackEngine {
        runtime: Runtime::from_reader(reader, DeviceChoice::Cpu).expect("a model"),
        id: "mini".into(),
        prefix: RefCell::default(),
    }
}

/// A conversation about a picture. `turns`: what the user says and what is answered.
fn chat(shade: u8, turns: &[(&str, &str)]) -> Chat {
    let picture = RgbImage::from_pixel(64, 64, [shade, 60, 90].into());
    let turns = turns.iter().enumerate().map(|(i, (said, answer))| {
        let file = encode_png(&picture).expect("a file");
        let shown = (i == 0).then(|| Part::Picture(file.into()));
        emu_serve::engine::Turn {
            user: { shown.into_iter() }
                .chain([Part::Text((*said).into())])
                .collect(),
            answer: (*answer).into(),
        }
    });
    Chat {
        conversation: Wanted {
            system: None,
            turns: turns.collect(),
        },
        text: TextOptions {
            max_new_tokens: Some(8),
            ..TextOptions::default()
        },
        draw: None,
    }
}

/// The text of an answer that is stopped after some events, and its counts.
fn answer(engine: &mut PackEngine, chat: &Chat, events: usize) -> (String, Answer) {
    let (mut text, mut seen) = (String::new(), 0);
    let answer = engine.chat(chat, &mut |event| {
        if let Event::Text(piece) = event {
            text += &piece.text;
        }
        seen += 1;
        match seen < events {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    (text, answer.expect("an answer"))
}

#[test]
fn calls_continue_the_call_before_and_answer_as_a_new_engine_does() {
    let mut kept = engine();
    let ask = |kept: &mut PackEngine, chat: &Chat, events: usize| {
        let (text, told) = answer(kept, chat, events);
        let (expected, anew) = answer(&mut engine(), chat, events);
        assert_eq!((&text, told.tokens), (&expected, anew.tokens));
        assert_eq!(anew.cached_tokens, 0);
        told
    };
    let one = [("what is this?", "")];
    let two = [("what is this?", "a box"), ("which colour?", "")];
    let first = ask(&mut kept, &chat(10, &one), 99);
    assert_eq!(first.cached_tokens, 0);
    let second = ask(&mut kept, &chat(10, &two), 99);
    assert!(second.cached_tokens >= first.prompt_tokens, "{second:?}");
    // A stopped answer is kept as far as it came.
    ask(&mut kept, &chat(10, &one), 1);
    let again = ask(&mut kept, &chat(10, &two), 99);
    assert!(again.cached_tokens >= first.prompt_tokens, "{again:?}");
    // Behind another picture nothing is shared.
    let other = ask(&mut kept, &chat(200, &two), 99);
    assert!(other.cached_tokens < 4, "{other:?}");
    // A refused call leaves what is kept.
    let long = "what is this? ".repeat(300);
    let refused = kept.chat(&chat(200, &[(&long, "")]), &mut |_| {
        ControlFlow::Continue(())
    });
    assert!(
        matches!(&refused, Err(EngineError::Request { code, .. }) if code == "context_length_exceeded"),
        "{refused:?}"
    );
    let told = ask(&mut kept, &chat(200, &two), 99);
    assert_eq!(told.cached_tokens, told.prompt_tokens - 1);
    // A text without a template is another sequence.
    let mut count = |text: &str| {
        let told = kept.complete(text, &TextOptions::default(), &mut |_| {
            ControlFlow::Break(())
        });
        told.expect("an answer").cached_tokens
    };
    assert!(count("a panda above a target") < 4);
    assert!(count("a panda above a target on") >= 4);
}

#[test]
fn a_picture_without_words_is_captioned() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../models/emu-mini/demo/panda-target.png"
    );
    let file = std::fs::read(file).expect("a picture");
    let shown = |more: &[Part]| {
        let mut chat = chat(0, &[("", "")]);
        chat.text.max_new_tokens = Some(20);
        let user = std::iter::once(Part::Picture(file.clone().into()));
        chat.conversation.turns[0].user = user.chain(more.iter().cloned()).collect();
        chat
    };
    let mut engine = engine();
    let expected = "a panda above a target on a red background";
    // The same behind what the call before has left.
    for more in [vec![], vec![], vec![Part::Text(" \n".into())]] {
        assert_eq!(answer(&mut engine, &shown(&more), 99).0, expected);
    }
    let asked = shown(&[Part::Text("what is above?".into())]);
    assert_ne!(answer(&mut engine, &asked, 99).0, expected);
}

#[test]
fn a_picture_much_larger_than_the_models_own_is_refused() {
    let drawing = |size| Drawing {
        prompt: vec![Part::Text("a panda".into())],
        options: DrawOptions {
            size: Some(size),
            steps: Some(1),
            ..DrawOptions::default()
        },
    };
    let mut engine = engine();
    let mut draw = |size| engine.draw(&drawing(size), &mut |_| ControlFlow::Continue(()));
    assert!(draw((128, 64)).is_ok());
    for large in [(64, 136), (1024, 1024)] {
        let refused = draw(large).expect_err("too large");
        assert!(
            matches!(&refused, EngineError::Request { code, .. } if code == "picture-size"),
            "{refused:?}"
        );
    }
}
