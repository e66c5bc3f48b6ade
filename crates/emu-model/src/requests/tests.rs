use burn::tensor::read_sync;
use emu_kernels::init;

use super::*;
use crate::config::EmuConfig;
use crate::generate::{
    ImageEmbedder, LastTurn, PrefixCache, Prompt, TextEvent, TextMachine, TextOptions,
};
use crate::namer::NamerConfig;
use crate::{Emu, diffusion::decoder::Normalisation};

fn word(word: &str, tokens: &[u32]) -> Word {
    Word {
        word: word.into(),
        tokens: tokens.to_vec(),
    }
}

fn vocabulary() -> Vocabulary {
    Vocabulary {
        names: vec![
            word("dog", &[20]),
            word("hot dog", &[21, 20]),
            word("polar bear cub", &[22, 23, 24]),
        ],
        layouts: vec![word("left", &[30]), word("above", &[31])],
        colours: vec![word("red", &[40]), word("blue", &[41])],
    }
}

const SPELLING: SpellingConfig = SpellingConfig {
    objects: 2,
    tokens: 2,
};

fn config() -> EmuConfig {
    let mut config = EmuConfig::tiny();
    let outputs = Normalisation {
        mean: vec![0.01; config.lm.width],
        std: vec![0.5; config.lm.width],
    };
    config.causal = None;
    config.namer = Some(NamerConfig {
        names: 3,
        spelling: SPELLING,
        temperature: 1.0,
        colours: 2,
        colour_spread: 0.1,
        roots: true,
        photos: None,
    });
    config.requests = Some(RequestsConfig {
        reader: ReaderConfig {
            layers: vec![1],
            window: 6,
            width: 16,
            heads: 2,
            depth: 1,
            spelling: SPELLING,
            inputs: None,
            outputs: Some(outputs),
        },
        trigger: TriggerConfig { tokens: vec![0] },
        alone: Some(TriggerConfig { tokens: vec![1] }),
        vocabulary: vocabulary(),
    });
    config
}

/// Distances of 0 to the rows of these tokens and 1 to all others.
fn nearest(slots: [Option<u32>; 6]) -> Nearest {
    let tokens = vocabulary().tokens();
    let rows = [None].into_iter().chain(tokens.iter().copied().map(Some));
    let rows: Vec<Option<u32>> = rows.collect();
    let distances = slots
        .iter()
        .flat_map(|slot| rows.iter().map(move |row| f32::from(u8::from(row != slot))));
    Nearest {
        spelling: SPELLING,
        distances: distances.collect(),
        tokens,
    }
}

#[test]
fn the_nearest_words_are_drawn_and_said() {
    let vocabulary = vocabulary();
    let said = |slots| nearest(slots).picture(&vocabulary).described();
    let [dog, hot, left, above, red] = [20, 21, 30, 31, 40].map(Some);
    assert_eq!(
        said([dog, None, None, None, None, red]),
        "a dog on a red background"
    );
    assert_eq!(said([hot, dog, None, None, None, None]), "a hot dog");
    // A long name keeps its last token.
    assert_eq!(
        said([Some(22), Some(24), None, None, left, None]),
        "a polar bear cub"
    );
    assert_eq!(
        said([dog, None, hot, dog, above, red]),
        "a dog above a hot dog on a red background"
    );
    // Two objects without a layout stand side by side; an image always shows something.
    assert_eq!(
        said([dog, None, dog, None, None, None]),
        "a dog to the left of a dog"
    );
    assert_eq!(said([None; 6]), "a dog");
}

fn model(config: &EmuConfig) -> Emu {
    let _sequence = init::seed(5);
    config.init(&Device::flex()).expect("a model")
}

fn bias(bias: f32) -> burn::module::Param<Tensor<1>> {
    burn::module::Param::from_data([bias], &Device::flex())
}

fn fires(emu: &mut Emu, score: f32) {
    if let Some(requests) = &mut emu.requests {
        requests.trigger.bias = bias(score);
    }
}

fn set_alone(emu: &mut Emu, score: f32) {
    if let Some(Trigger { bias: own, .. }) = emu
        .requests
        .as_mut()
        .and_then(|requests| requests.alone.as_mut())
    {
        *own = bias(score);
    }
}

fn events(emu: &Emu, config: &EmuConfig, prompt: &Prompt, images: bool) -> Vec<TextEvent> {
    let options = TextOptions {
        images,
        max_new_tokens: 3,
        ignore_ends: true,
        ..TextOptions::default()
    };
    let mut machine = TextMachine::new(emu, config, prompt, options).expect("it fits");
    let mut events = vec![];
    loop {
        let event = read_sync(machine.step()).expect("a step");
        let done = matches!(event, TextEvent::Done(_));
        events.push(event);
        if done {
            return events;
        }
    }
}

fn numbers(x: &Tensor<3>) -> Vec<f32> {
    x.clone().into_data().iter::<f32>().collect()
}

#[test]
fn a_request_is_answered_with_a_picture_and_what_it_shows() {
    let config = config();
    config.validate().expect("a configuration");
    let mut emu = model(&config);
    let prompt = Prompt {
        opening: 2,
        ..Prompt::text(vec![1, 20, 21, 22, 23])
    };
    fires(&mut emu, 1e6);
    let found = events(&emu, &config, &prompt, true);
    let [
        TextEvent::Image(condition),
        TextEvent::Words(said),
        TextEvent::Done(_),
    ] = &found[..]
    else {
        panic!("{found:?}");
    };
    assert_eq!(condition.dims(), [1, 6, 64]);
    assert!(said.starts_with("I drew a"), "{said}");
    // A direct request finds the same image, whatever the trigger's score.
    fires(&mut emu, -1e6);
    let embedder = ImageEmbedder::new(&emu, &config, &prompt, 0).expect("it fits");
    let (direct, _) = read_sync(embedder.run()).expect("embeddings");
    assert_eq!(numbers(&direct), numbers(condition));
    // With images off, or no request: text, and the same text.
    let text = |emu: &Emu, images| -> Vec<u32> {
        let found = events(emu, &config, &prompt, images);
        let tokens = found.iter().map(|event| match event {
            TextEvent::Token(token) => Some(*token),
            TextEvent::Done(_) => None,
            other => panic!("{other:?}"),
        });
        tokens.flatten().collect()
    };
    let plain = text(&emu, false);
    assert_eq!(plain.len(), 3);
    assert_eq!(text(&emu, true), plain);
    fires(&mut emu, 1e6);
    assert_eq!(text(&emu, false), plain);
    // NaN is an error.
    fires(&mut emu, f32::NAN);
    let options = TextOptions {
        images: true,
        ..TextOptions::default()
    };
    let mut machine = TextMachine::new(&emu, &config, &prompt, options).expect("it fits");
    let error = read_sync(machine.step()).expect_err("not a number");
    assert!(matches!(error, GenerateError::NotFinite), "{error}");
}

#[test]
fn the_language_model_answers_alone_what_is_not_about_pictures() {
    let config = config();
    let mut emu = model(&config);
    let tokens = |emu: &Emu, prompt: &Prompt, images| -> Vec<u32> {
        let found = events(emu, &config, prompt, images);
        let tokens = found.iter().map(|event| match event {
            TextEvent::Token(token) => Some(*token),
            TextEvent::Done(_) => None,
            other => panic!("{other:?}"),
        });
        tokens.flatten().collect()
    };
    let turns = vec![1, 40, 41, 22];
    let behind = Prompt {
        opening: 3,
        alone: Some(turns.clone()),
        ..Prompt::text(vec![1, 30, 31, 40, 41, 22])
    };
    let (apart, together) = (
        tokens(&emu, &Prompt::text(turns), false),
        tokens(&emu, &Prompt::text(behind.ids.clone()), false),
    );
    assert_ne!(apart, together, "the prompts are told apart");
    let decide = |emu: &mut Emu, alone: f32, picture: f32| {
        fires(emu, picture);
        set_alone(emu, alone);
    };
    for images in [false, true] {
        decide(&mut emu, 1e6, -1e6);
        assert_eq!(tokens(&emu, &behind, images), apart);
        decide(&mut emu, -1e6, -1e6);
        assert_eq!(tokens(&emu, &behind, images), together);
        // Without a prompt for the LM alone, the prompt stays as it is.
        decide(&mut emu, 1e6, -1e6);
        let bound = Prompt {
            alone: None,
            ..behind.clone()
        };
        assert_eq!(tokens(&emu, &bound, images), together);
    }
    // A request for an image takes precedence.
    decide(&mut emu, 1e6, 1e6);
    let found = events(&emu, &config, &behind, true);
    assert!(matches!(found[0], TextEvent::Image(_)), "{found:?}");
    // The cost includes both prompts.
    decide(&mut emu, 1e6, -1e6);
    let mut machine =
        TextMachine::new(&emu, &config, &behind, TextOptions::default()).expect("it fits");
    read_sync(machine.step()).expect("a step");
    let cost = machine.cost();
    assert_eq!((cost.prefills, cost.prefill_tokens), (2, 10));
    decide(&mut emu, f32::NAN, -1e6);
    let mut machine =
        TextMachine::new(&emu, &config, &behind, TextOptions::default()).expect("it fits");
    let error = read_sync(machine.step()).expect_err("not a number");
    assert!(matches!(error, GenerateError::NotFinite), "{error}");
}

#[test]
fn the_last_turn_is_read_by_itself_where_the_conversation_asks_for_nothing() {
    let config = config();
    let mut emu = model(&config);
    let tokens = |emu: &Emu, prompt: &Prompt| -> Vec<u32> {
        let found = events(emu, &config, prompt, true);
        let tokens = found.iter().map(|event| match event {
            TextEvent::Token(token) => Some(*token),
            TextEvent::Done(_) => None,
            other => panic!("{other:?}"),
        });
        tokens.flatten().collect()
    };
    let last = Prompt {
        opening: 2,
        ..Prompt::text(vec![1, 30, 50, 51, 22])
    };
    let conversation = |after_talk| Prompt {
        opening: 2,
        alone: Some(vec![1, 40, 41, 50, 51, 22]),
        last: Some(Box::new(LastTurn {
            prompt: last.clone(),
            after_talk,
        })),
        ..Prompt::text(vec![1, 30, 40, 41, 50, 51, 22])
    };
    let plain = Prompt {
        alone: None,
        last: None,
        ..conversation(false)
    };
    fires(&mut emu, -1e6);
    set_alone(&mut emu, -1e6);
    let (by_itself, together) = (tokens(&emu, &last), tokens(&emu, &plain));
    assert_ne!(by_itself, together, "the prompts are told apart");
    // After talk the last turn is answered by itself, after images the conversation is.
    assert_eq!(tokens(&emu, &conversation(true)), by_itself);
    assert_eq!(tokens(&emu, &conversation(false)), together);
    // Each prompt is prefilled once.
    let options = TextOptions {
        images: true,
        ..TextOptions::default()
    };
    let spoken = conversation(true);
    let mut machine = TextMachine::new(&emu, &config, &spoken, options).expect("it fits");
    read_sync(machine.step()).expect("a step");
    let cost = machine.cost();
    assert_eq!((cost.prefills, cost.prefill_tokens), (2, 12));
    // A bias between the two scores: only the last turn asks for an image.
    if let Some(requests) = &mut emu.requests {
        let [_, width] = requests.trigger.weight.dims();
        let alternating = |i| if i % 2 == 0 { -1.0 } else { 0.5 };
        let weights: Vec<f32> = (0..width).map(alternating).collect();
        let weights = TensorData::new(weights, [1, width]);
        requests.trigger.weight = burn::module::Param::from_data(weights, &Device::flex());
    }
    let score = |emu: &Emu, prompt: &Prompt| {
        // The score is linear in the bias: bisect where the route changes.
        let (mut low, mut high) = (-1e3f32, 1e3f32);
        let mut emu = emu.clone();
        for _ in 0..40 {
            let middle = (low + high) / 2.0;
            fires(&mut emu, middle);
            let asks = matches!(events(&emu, &config, prompt, true)[0], TextEvent::Image(_));
            (low, high) = if asks { (low, middle) } else { (middle, high) };
        }
        -high
    };
    let (of_last, of_all) = (score(&emu, &last), score(&emu, &plain));
    assert!(of_last > of_all, "{of_last} {of_all}");
    fires(&mut emu, -(of_last + of_all) / 2.0);
    let found = events(&emu, &config, &conversation(false), true);
    let draws = matches!(found[0], TextEvent::Image(_));
    assert!(draws, "{of_last} {of_all}: {found:?}");
}

#[test]
fn an_answer_that_claims_a_drawing_is_a_request() {
    let config = config();
    let mut emu = model(&config);
    let prompt = Prompt {
        opening: 2,
        ..Prompt::text(vec![1, 20, 21, 22, 23])
    };
    let told = |emu: &Emu, prompt: &Prompt, images| {
        let found = events(emu, &config, prompt, images);
        let tokens = found.iter().filter_map(|event| match event {
            TextEvent::Token(token) => Some(*token),
            _ => None,
        });
        (tokens.collect::<Vec<u32>>(), found)
    };
    set_alone(&mut emu, -1e6);
    fires(&mut emu, -1e6);
    let (plain, _) = told(&emu, &prompt, true);
    let claims = |tokens: &[u32]| Prompt {
        claim: Some(tokens.to_vec()),
        ..prompt.clone()
    };
    let other = |token: u32| if token == 7 { 8 } else { 7 };
    let (claimed, half) = (claims(&plain[..2]), claims(&[plain[0], other(plain[1])]));
    let none = claims(&[other(plain[0]), 9]);
    // Close to a request, an answer with these first tokens is replaced by the image.
    fires(&mut emu, -1.0);
    let (tokens, found) = told(&emu, &claimed, true);
    assert!(tokens.is_empty(), "{found:?}");
    assert!(matches!(
        found[..],
        [TextEvent::Image(_), TextEvent::Words(_), TextEvent::Done(_)]
    ));
    // Other answers are as without the claim, in every token.
    for prompt in [&half, &none] {
        assert_eq!(told(&emu, prompt, true).0, plain);
    }
    // Not with images off, and not far from a request.
    assert_eq!(told(&emu, &claimed, false).0, plain);
    fires(&mut emu, -1e6);
    assert_eq!(told(&emu, &claimed, true).0, plain);
}

/// What happens in an answer.
fn told(mut machine: TextMachine<'_>) -> (Vec<String>, TextMachine<'_>) {
    let mut told = vec![];
    loop {
        match read_sync(machine.step()).expect("a step") {
            TextEvent::Token(token) => told.push(format!("{token}")),
            TextEvent::Words(words) => told.push(words),
            TextEvent::Image(condition) => told.push(format!("{:?}", condition.dims())),
            TextEvent::Embedding(..) => told.push("embedding".into()),
            TextEvent::Done(finish) => {
                told.push(format!("{finish:?}"));
                return (told, machine);
            }
        }
    }
}

#[test]
fn kept_sequences_change_no_answer_and_no_route() {
    let config = config();
    let mut emu = model(&config);
    let mut random = Philox::with_stream(4, 41, 0);
    let mut prefix = PrefixCache::default();
    let mut turns: Vec<Vec<u32>> = vec![];
    let (mut with, mut without, mut pictures, mut routes) = (0, 0, 0, [0; 4]);
    for round in 0..80 {
        match random.below(8) {
            0 => turns.clear(),
            1 => turns.truncate(random.below(turns.len() + 1)),
            2 if !turns.is_empty() => {
                let turn = random.below(turns.len());
                turns[turn][0] = 50 + random.below(3) as u32;
            }
            _ => {}
        }
        let length = 2 + random.below(4);
        turns.push((0..length).map(|_| 50 + random.below(9) as u32).collect());
        let after = |opening: &[u32], turns: &[Vec<u32>]| [opening, &turns.concat()].concat();
        let (opening, last) = ([1, 30, 31], turns.len() - 1);
        let prompt = Prompt {
            opening: 3,
            alone: Some(after(&[1], &turns)),
            last: (last > 0).then(|| {
                Box::new(LastTurn {
                    prompt: Prompt {
                        opening: 3,
                        ..Prompt::text(after(&opening, &turns[last..]))
                    },
                    after_talk: random.below(2) == 0,
                })
            }),
            ..Prompt::text(after(&opening, &turns))
        };
        // A picture, the model alone, the conversation or its last turn.
        let route = random.below(4);
        routes[route] += 1;
        fires(&mut emu, if route == 0 { 1e6 } else { -1e6 });
        set_alone(&mut emu, if route == 1 { 1e6 } else { -1e6 });
        let options = TextOptions {
            images: true,
            max_new_tokens: 1 + random.below(4),
            ignore_ends: true,
            ..TextOptions::default()
        };
        let plain = TextMachine::new(&emu, &config, &prompt, options.clone()).expect("fits");
        let machine = TextMachine::with_prefix(&emu, &config, &prompt, options, &mut prefix);
        let (expected, plain) = told(plain);
        let (found, machine) = told(machine.expect("fits"));
        assert_eq!(found, expected, "{round}");
        let (cost, full) = (machine.cost(), plain.cost());
        assert_eq!(cost.prefills, full.prefills, "{round}");
        assert_eq!(cost.steps, full.steps, "{round}");
        assert!(cost.cached_tokens + cost.prefill_tokens <= full.prefill_tokens);
        with += cost.prefill_tokens;
        without += full.prefill_tokens;
        pictures += usize::from(found.len() == 3 && found[1].starts_with("I drew"));
        if let Some(turn) = turns.last_mut() {
            // A prompt has no `<image>` without a picture.
            let tokens = machine.sequence().iter().skip(1);
            turn.extend(tokens.map(|token| (*token).min(299)));
        }
        prefix = machine.into_prefix();
        if turns.len() > 6 {
            turns.clear();
        }
    }
    assert!(4 * with < 3 * without, "{with} {without}");
    assert!(pictures > 5 && routes.iter().all(|taken| *taken > 5));
}

#[test]
fn what_opens_a_conversation_is_not_read() {
    let config = config();
    let emu = model(&config);
    let requests = config.requests.as_ref().expect("requests");
    let values = |length: usize, opening| {
        let mut cache = emu.lm.cache(1, length);
        let embeds = emu.splice(&[vec![20; length]], None, config.special.image);
        emu.lm
            .step(embeds.expect("embeddings"), &mut cache)
            .expect("room");
        let heard = Heard {
            lm: &emu.lm,
            cache: &cache,
            opening,
        };
        heard.values(&requests.reader).dims()[1]
    };
    assert_eq!(values(9, 0), 6);
    assert_eq!(values(9, 5), 4);
    assert_eq!(values(4, 0), 4);
    assert_eq!(values(4, 4), 1);
    assert_eq!(values(4, 9), 1);
}

#[test]
fn the_background_is_the_seeds_where_none_is_asked_for() {
    let vocabulary = vocabulary();
    let picture = nearest([Some(20), None, None, None, None, None]);
    assert_eq!(picture.picture(&vocabulary).colour, None);
    let colours = |seed| Philox::new(seed, Stream::Tokens, 0).below(2);
    let all: std::collections::BTreeSet<usize> = (0..20).map(colours).collect();
    assert_eq!(all.len(), 2);
}

#[test]
fn configurations_that_cannot_be_are_named() {
    let wrong = |change: &dyn Fn(&mut RequestsConfig), words: &str| {
        let mut config = config();
        change(config.requests.as_mut().expect("requests"));
        let error = config.validate().expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    };
    wrong(&|r| r.vocabulary.names.clear(), "vocabulary.names has 0");
    wrong(
        &|r| r.vocabulary.colours[0].tokens = vec![1 << 30],
        "vocabulary.colours spells \"red\"",
    );
    wrong(
        &|r| r.vocabulary.layouts[0].tokens.clear(),
        "layouts spells",
    );
    wrong(&|r| r.reader.outputs = None, "reader.outputs");
    wrong(&|r| r.trigger.tokens = vec![1000], "trigger.tokens");
    wrong(
        &|r| r.alone = Some(TriggerConfig { tokens: vec![65] }),
        "alone.tokens",
    );
    wrong(&|r| r.reader.layers = vec![99], "reader.layers");
    let mut both = EmuConfig::tiny();
    both.requests = config().requests;
    let error = both.validate().expect_err("both").to_string();
    assert!(error.contains("beside a namer"), "{error}");
    let mut long = config();
    long.persona = Some(1 << 20);
    assert!(long.validate().is_err());
}
