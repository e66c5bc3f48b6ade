//! Answers with a prefix cache, over random histories of a small random model, compared with answers without it.

use burn::tensor::{Device, Tensor, TensorData, read_sync};
use emu_kernels::random::Philox;
use emu_kernels::sample::Sampling;
use emu_media::image::RgbImage;

use super::*;
use crate::Emu;
use crate::config::EmuConfig;
use crate::generate::{Cost, GenerateError, Prompt, TextEvent, TextMachine, TextOptions};

/// Embeddings of a picture.
const QUERIES: usize = 4;

/// What a prompt is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Piece {
    Word(u32),
    Picture(u8),
}

use Piece::{Picture, Word};

struct Model {
    config: EmuConfig,
    emu: Emu,
    device: Device,
}

/// An answer.
#[derive(Debug)]
struct Told {
    tokens: Vec<u32>,
    /// Processed logits of the last token, if they were kept.
    logits: Option<Vec<f32>>,
    cost: Cost,
}

impl Model {
    fn new() -> Self {
        Self::on(&Device::flex())
    }

    fn on(device: &Device) -> Self {
        let config = EmuConfig::tiny();
        let _sequence = emu_kernels::init::seed(3);
        Self {
            emu: config.init(device).expect("a model"),
            config,
            device: device.clone(),
        }
    }

    fn prompt(&self, pieces: &[Piece]) -> Prompt {
        let special = &self.config.special;
        let (mut ids, mut rows, mut keys) = (vec![special.bos], vec![], vec![]);
        for piece in pieces {
            match *piece {
                Word(token) => ids.push(token),
                Picture(shade) => {
                    ids.push(special.img);
                    ids.extend([special.image; QUERIES]);
                    ids.push(special.end_img);
                    rows.push(self.embeddings(shade));
                    let hash = PictureHash::of(&RgbImage::from_pixel(1, 1, [shade; 3].into()));
                    keys.extend((0..QUERIES as u32).map(|row| VisualKey::Picture(hash, row)));
                }
            }
        }
        Prompt {
            visual: (!rows.is_empty()).then(|| Tensor::cat(rows, 0)),
            visual_keys: keys,
            ..Prompt::text(ids)
        }
    }

    /// `[1, Q, D]`
    fn embeddings(&self, shade: u8) -> Tensor<3> {
        let shape = [1, QUERIES, self.config.lm.width];
        let values = Philox::with_stream(u64::from(shade), 77, 0).normals(shape.iter().product());
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    /// Takes at most `steps` steps of an answer. With `prefix`, the sequences are kept in it.
    fn answer(
        &self,
        prompt: &Prompt,
        options: &TextOptions,
        steps: usize,
        prefix: Option<&mut PrefixCache>,
    ) -> Result<Told, GenerateError> {
        let (emu, config, options) = (&self.emu, &self.config, options.clone());
        let (mut machine, prefix) = match prefix {
            None => (TextMachine::new(emu, config, prompt, options)?, None),
            Some(prefix) => {
                let machine = TextMachine::with_prefix(emu, config, prompt, options, prefix)?;
                assert!(prefix.is_empty(), "the machine has it");
                (machine, Some(prefix))
            }
        };
        let mut failed = None;
        for _ in 0..steps {
            match read_sync(machine.step()) {
                Ok(TextEvent::Done(_)) => break,
                Ok(_) => {}
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let told = Told {
            tokens: machine.sequence()[1..].to_vec(),
            logits: machine.processed().map(<[f32]>::to_vec),
            cost: machine.cost(),
        };
        if let Some(prefix) = prefix {
            *prefix = machine.into_prefix();
        }
        failed.map_or(Ok(told), Err)
    }
}

fn options(max_new_tokens: usize) -> TextOptions {
    TextOptions {
        max_new_tokens,
        ignore_ends: true,
        ..Default::default()
    }
}

/// Whether two answers are the same, up to rounding.
fn alike(a: &Told, b: &Told) -> bool {
    let near = |(a, b): (&f32, &f32)| a == b || (a - b).abs() < 1e-3;
    let logits = match (&a.logits, &b.logits) {
        (None, None) => true,
        (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(near),
        _ => false,
    };
    a.tokens == b.tokens && logits
}

/// Inputs of the model at the positions of a prompt: tokens, and the rows of pictures.
fn inputs(pieces: &[Piece]) -> Vec<(u32, Option<u8>)> {
    let mut inputs = vec![(1, None)];
    for piece in pieces {
        match *piece {
            Word(token) => inputs.push((token, None)),
            Picture(shade) => {
                inputs.push((301, None));
                inputs.extend((0..QUERIES as u32).map(|row| (row, Some(shade))));
                inputs.push((302, None));
            }
        }
    }
    inputs
}

fn words(random: &mut Philox, count: usize) -> Vec<Piece> {
    // A small vocabulary, so that prompts agree by chance too.
    let word = |_| Word(10 + random.below(5) as u32);
    (0..count).map(word).collect()
}

/// Compares answers with and without the cache. On a device that computes ahead, an answer that was ended early may have read
/// its last token.
fn compare(model: &Model, rounds: usize, ahead: bool) {
    let mut random = Philox::with_stream(6, 40, 0);
    let mut prefix = PrefixCache::default();
    let mut history: Vec<Piece> = vec![];
    // What the cache holds.
    let mut held: Vec<(u32, Option<u8>)> = vec![];
    let (mut cached, mut computed, mut swapped) = (0, 0, 0);
    for round in 0..rounds {
        let pictures: Vec<usize> = { history.iter().enumerate() }
            .filter_map(|(i, piece)| matches!(piece, Picture(_)).then_some(i))
            .collect();
        let at = random.below(history.len().max(1));
        match random.below(10) {
            // An edit in the middle.
            0 if !history.is_empty() => history[at] = Word(10 + random.below(5) as u32),
            // Another picture at the same place, or the first again.
            1 | 2 if !pictures.is_empty() => {
                history[pictures[random.below(pictures.len())]] = Picture(random.below(2) as u8);
                swapped += 1;
            }
            // A branch.
            3 | 4 => history.truncate(at),
            // The same prompt again.
            5 => {}
            // Another conversation.
            6 => history.clear(),
            // The conversation goes on.
            _ => {
                if random.below(2) == 0 {
                    history.push(Picture(random.below(3) as u8));
                }
                let count = 1 + random.below(6);
                history.extend(words(&mut random, count));
            }
        }
        if history.len() > 50 {
            history.drain(..30);
        }
        let prompt = model.prompt(&history);
        let options = TextOptions {
            keep_logits: round.is_multiple_of(3),
            ..options(1 + random.below(6))
        };
        // Some answers are ended early, even before the first token.
        let steps = match random.below(3) {
            0 => random.below(4),
            _ => usize::MAX,
        };
        let expected = model.answer(&prompt, &options, steps, None).expect("fits");
        let told = model.answer(&prompt, &options, steps, Some(&mut prefix));
        let told = told.expect("fits");
        assert!(alike(&told, &expected), "{round}: {told:?} {expected:?}");

        let wanted = inputs(&history);
        let common = held.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
        let common = common.min(wanted.len() - 1);
        let length = prompt.ids.len();
        let shared = told.cost.cached_tokens;
        assert!(shared == common || ahead && shared == common + 1, "{round}");
        assert_eq!(told.cost.prefill_tokens, length - shared, "{round}");
        assert_eq!(expected.cost.cached_tokens, 0);
        cached += common;
        computed += length - common;
        // The last token was generated but not read.
        held = wanted;
        let read = told.tokens.len().saturating_sub(1);
        held.extend(told.tokens[..read].iter().map(|token| (*token, None)));
        // A prompt has no `<image>` without a picture.
        history.extend(told.tokens.iter().map(|token| Word((*token).min(299))));
    }
    let exercised = cached > 5 * rounds && computed > rounds && swapped > rounds / 40;
    assert!(exercised, "{cached} {computed} {swapped}");
}

#[test]
fn answers_over_random_histories_are_those_without_the_cache() {
    compare(&Model::new(), 120, false);
}

#[cfg(feature = "wgpu")]
#[test]
fn answers_over_random_histories_are_those_without_the_cache_on_wgpu() {
    use emu_kernels::device::{self, DeviceChoice};

    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP prefix-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    let opened = device::open(DeviceChoice::Gpu).expect("EMU_TEST_GPU asks for an adapter");
    compare(&Model::on(&opened.device), 40, true);
}

#[test]
fn a_turn_after_a_thousand_tokens_and_a_picture_costs_what_is_new() {
    let model = Model::new();
    let mut random = Philox::with_stream(8, 40, 0);
    let mut history = vec![Picture(1)];
    history.extend(words(&mut random, 1000));
    let mut prefix = PrefixCache::default();
    let first = model.prompt(&history);
    let told = model.answer(&first, &options(9), 99, Some(&mut prefix));
    let told = told.expect("fits");
    assert_eq!(told.cost.prefill_tokens, 1 + 6 + 1000);
    // A prompt has no `<image>` without a picture.
    let image = model.config.special.image;
    let answer = told.tokens.iter().take_while(|token| **token != image);
    let answer: Vec<Piece> = answer.map(|token| Word(*token)).collect();
    // The last token was not read.
    let shared = first.ids.len() + answer.len().min(8);
    history.extend(answer);
    history.extend(words(&mut random, 5));
    let prompt = model.prompt(&history);
    let more = model.answer(&prompt, &options(9), 99, Some(&mut prefix));
    let more = more.expect("fits");
    assert_eq!(more.cost.cached_tokens, shared);
    assert!(more.cost.prefill_tokens <= 1 + 5, "{:?}", more.cost);
    let expected = model.answer(&prompt, &options(9), 99, None);
    assert!(alike(&more, &expected.expect("fits")));
}

#[test]
fn a_prefix_that_is_wrongly_shared_shows() {
    let model = Model::new();
    let history = [Picture(1), Word(10), Word(11), Word(12)];
    let options = TextOptions {
        keep_logits: true,
        ..options(1)
    };
    let mut prefix = PrefixCache::default();
    let prompt = model.prompt(&history);
    model
        .answer(&prompt, &options, 1, Some(&mut prefix))
        .expect("fits");
    // Other embeddings with the keys of the first.
    let wrong = Prompt {
        visual: Some(model.embeddings(2)),
        ..prompt.clone()
    };
    let told = model.answer(&wrong, &options, 1, Some(&mut prefix));
    let told = told.expect("fits");
    let expected = model.answer(&wrong, &options, 1, None).expect("fits");
    assert_eq!(told.cost.prefill_tokens, 1);
    assert!(!alike(&told, &expected));
}

#[test]
fn embeddings_without_keys_are_never_shared() {
    let model = Model::new();
    let keyed = model.prompt(&[Word(10), Picture(1), Word(11)]);
    for keys in [vec![], keyed.visual_keys[1..].to_vec()] {
        let prompt = Prompt {
            visual_keys: keys,
            ..keyed.clone()
        };
        let mut prefix = PrefixCache::default();
        for round in 0..2 {
            let told = model.answer(&prompt, &options(2), 9, Some(&mut prefix));
            // `<s>`, the word and [IMG] come before the embeddings.
            let cached = told.expect("fits").cost.cached_tokens;
            assert_eq!(cached, if round == 0 { 0 } else { 3 });
        }
    }
}

#[test]
fn sequences_end_before_a_picture_in_an_answer() {
    let model = Model::new();
    let special = &model.config.special;
    let prompt = model.prompt(&[Word(10), Word(11)]);
    let drawing = |seed| TextOptions {
        images: true,
        // Every token is about as likely as any other.
        sampling: Sampling {
            temperature: 1e3,
            ..Default::default()
        },
        seed,
        ..options(40)
    };
    let mut compared = 0;
    for seed in 0..60 {
        let mut prefix = PrefixCache::default();
        let told = model.answer(&prompt, &drawing(seed), usize::MAX, Some(&mut prefix));
        let told = told.expect("fits");
        let first = { told.tokens.iter() }.position(|token| *token == special.img);
        // A prompt has no `<image>` without a picture.
        let Some(first) = first.filter(|_| !told.tokens.contains(&special.image)) else {
            continue;
        };
        // The embeddings that followed are not part of the next prompt.
        let ids = prompt.ids.iter().chain(&told.tokens).copied().collect();
        let next = Prompt::text(ids);
        let expected = model.answer(&next, &options(3), 9, None).expect("fits");
        let told = model.answer(&next, &options(3), 9, Some(&mut prefix));
        let told = told.expect("fits");
        assert!(alike(&told, &expected));
        // Up to [IMG], or to the last token, which is computed again.
        let shared = (prompt.ids.len() + first + 1).min(next.ids.len() - 1);
        assert_eq!(told.cost.cached_tokens, shared);
        compared += 1;
    }
    assert!(compared > 0, "no answer had a picture");
}

#[test]
fn a_refused_prompt_leaves_the_sequences_and_a_failed_call_drops_them() {
    let model = Model::new();
    let mut prefix = PrefixCache::default();
    let history = [Word(10), Word(11), Word(12)];
    let prompt = model.prompt(&history);
    let mut ask = |prompt: &Prompt, options: &TextOptions| {
        let told = model.answer(prompt, options, 9, Some(&mut prefix));
        (told.map(|told| told.cost.cached_tokens), prefix.is_empty())
    };
    assert!(matches!(ask(&prompt, &options(2)), (Ok(0), false)));
    let refused = [
        (Prompt::text(vec![7; 3000]), options(2)),
        (Prompt::text(vec![]), options(2)),
        (prompt.clone(), options(0)),
        (
            Prompt {
                visual: None,
                ..model.prompt(&[Word(10), Picture(1)])
            },
            options(2),
        ),
    ];
    for (prompt, options) in &refused {
        let (told, is_empty) = ask(prompt, options);
        assert!(told.is_err() && !is_empty);
    }
    // A repeated prompt is cached but for its last token.
    assert!(matches!(ask(&prompt, &options(2)), (Ok(3), false)));
    let broken = model.prompt(&[Word(10), Picture(1)]);
    let broken = Prompt {
        visual: broken.visual.map(|visual| visual * f32::NAN),
        ..broken
    };
    let (told, is_empty) = ask(&broken, &options(2));
    assert!(matches!(told, Err(GenerateError::NotFinite)) && is_empty);
    assert!(matches!(ask(&prompt, &options(2)), (Ok(0), false)));
}

#[test]
fn other_work_gets_the_room_of_large_sequences() {
    let model = Model::new();
    let mut prefix = PrefixCache::default();
    let prompt = model.prompt(&[Word(10)]);
    model
        .answer(&prompt, &options(2), 9, Some(&mut prefix))
        .expect("fits");
    // Two layers of keys and values: `<s>`, a word and two tokens, four heads of 16.
    assert_eq!(prefix.bytes(), 2 * 2 * 4 * 4 * 16 * 4);
    prefix.make_room();
    assert!(!prefix.is_empty());
    let positions = (ROOM / (2 * 2 * 4 * 16 * 4)) as usize + 1;
    let cache = model.emu.lm.cache(1, positions);
    *prefix.slot(Kind::Alone) = Some(Sequence::new(vec![], cache));
    prefix.make_room();
    assert!(prefix.is_empty() && prefix.bytes() == 0);
}
