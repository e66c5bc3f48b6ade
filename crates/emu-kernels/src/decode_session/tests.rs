//! A model of one attention layer, decoded with and without recordings.

use burn::tensor::{Device, read_sync};

use super::*;
use crate::init::{self, Init, param};
use crate::ops;
use crate::random::{Philox, Stream};
use crate::sample::{Processors, Sampling};

const VOCAB: usize = 40;
const WIDTH: usize = 16;
const HEADS: usize = 2;
const CAPACITY: usize = 16;
const TOKENS: usize = 12;

struct Toy {
    table: Tensor<2>,
    qkv: Tensor<2>,
}

impl Toy {
    fn new(device: &Device) -> Self {
        let _sequence = init::seed(8);
        let matrix = |rows| param([rows, WIDTH], Init::Normal(0.6), device).val();
        Self {
            table: matrix(VOCAB),
            qkv: matrix(3 * WIDTH),
        }
    }

    fn session(&self) -> DecodeSession<'_, Self> {
        let device = self.table.device();
        let dims = [1, HEADS, CAPACITY, WIDTH / HEADS];
        let mut cache = KvCache::new(1, dims, 10_000.0, &device);
        let sampling = Sampling {
            temperature: 1.0,
            ..Default::default()
        };
        let processors = Processors {
            repetition_penalty: 1.2,
            ..Default::default()
        };
        let mut random = Philox::new(5, Stream::Tokens, 0);
        let sampler = Sampler::new(processors, sampling, 0, &[1], TOKENS, &mut random, &device);
        let hidden = self.decode(sampler.token(), &mut cache).expect("room");
        DecodeSession::new(self, cache, sampler, hidden)
    }
}

impl DecodeModel for Toy {
    fn decode(&self, token: Tensor<1, Int>, cache: &mut KvCache) -> Result<Tensor<3>, CacheFull> {
        let x = self.table.clone().select(0, token).unsqueeze_dim::<3>(0); // [1, 1, D]
        cache.extend(1)?;
        let qkv = ops::linear(x.clone(), self.qkv.clone(), None);
        let q = ops::rope_append(qkv, &cache.rope, &mut cache.layers[0])?;
        Ok(x + ops::decode_attention(q, &cache.layers[0], None))
    }

    fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        ops::linear(hidden, self.table.clone(), None)
    }
}

/// Takes all tokens that `TOKENS` allows. After each, checks that the cache holds the positions read so far.
fn run(mut session: DecodeSession<'_, Toy>) -> Vec<u32> {
    let mut tokens = vec![];
    while let Some(decoded) =
        read_sync(session.take(TOKENS - tokens.len(), |_| None)).expect("works")
    {
        tokens.push(decoded.token);
        let read = tokens.len() - 1 + session.steps_in_flight();
        assert_eq!(session.cache().len(), 1 + read);
        let ahead = session.steps_in_flight() > 0;
        assert_eq!(
            decoded.after.is_some(),
            ahead,
            "a state for each token that was read"
        );
    }
    tokens
}

/// All checks of a device. Returns the tokens.
fn everything(device: &Device) -> Vec<u32> {
    let toy = Toy::new(device);
    let tokens = run(toy.session());
    assert_eq!(tokens.len(), TOKENS);

    // `room` runs out early; the cache fills up early.
    let mut short = toy.session();
    let first = read_sync(short.take(1, |_| None))
        .expect("works")
        .expect("one");
    assert_eq!((first.token, first.stepped), (tokens[0], false));
    assert!(read_sync(short.take(0, |_| None)).expect("works").is_none());
    let mut long = toy.session();
    let mut taken = 0;
    while read_sync(long.take(99, |_| None)).expect("works").is_some() {
        taken += 1;
    }
    assert_eq!((taken, long.cache().len()), (CAPACITY, CAPACITY));

    // A ban at one position takes effect there, and `banned` is given the number of positions left.
    let mut banned = toy.session();
    let mut other = vec![];
    while other.len() < TOKENS {
        let room = TOKENS - other.len();
        let ban = |left| (left == CAPACITY - 4).then_some(tokens[3]);
        let decoded = read_sync(banned.take(room, ban)).expect("works");
        other.push(decoded.expect("room").token);
    }
    assert_eq!(other[..3], tokens[..3]);
    assert_ne!(other[3], tokens[3]);

    // Rewind to the fifth token, whatever was computed after it.
    let mut back = toy.session();
    let mut after = None;
    for token in &tokens[..5] {
        let decoded = read_sync(back.take(TOKENS, |_| None))
            .expect("works")
            .expect("room");
        assert_eq!(decoded.token, *token);
        after = decoded.after;
    }
    let mut history = vec![1];
    history.extend(&tokens[..5]);
    let hidden = match after {
        Some(Checkpoint { hidden, kv_len }) => {
            back.rewind(&history, Some(kv_len));
            hidden
        }
        None => {
            back.rewind(&history, None);
            let token = Tensor::from_data([tokens[4] as i32], device);
            toy.decode(token, back.cache_mut()).expect("room")
        }
    };
    assert!(!back.is_recorded() && back.cache().len() == 6);
    assert!(read_sync(back.take(3, |_| None)).expect("works").is_none());
    back.resume(hidden);
    for token in &tokens[5..] {
        let decoded = read_sync(back.take(TOKENS, |_| None)).expect("works");
        assert_eq!(decoded.expect("room").token, *token);
    }

    // The cache is reused after the tokens taken, or fewer, and grows if it is too small.
    let numbers = |logits: Tensor<3>| logits.into_data().iter::<f32>().collect::<Vec<f32>>();
    for (taken, kept, capacity) in [(6, 6, CAPACITY + 9), (9, 4, CAPACITY + 1), (6, 5, 3)] {
        let mut begun = toy.session();
        for _ in 0..taken {
            let decoded = read_sync(begun.take(TOKENS, |_| None)).expect("works");
            assert!(decoded.is_some());
        }
        let mut cache = begun.into_cache();
        cache.reuse(kept, capacity, 10_000.0);
        assert_eq!(
            (cache.len(), cache.capacity()),
            (kept, capacity.max(CAPACITY))
        );
        assert_eq!(cache.bytes(), (2 * 4 * cache.capacity() * WIDTH) as u64);
        // The first position is that of the sampler's token before any was drawn.
        let last = Tensor::from_data([tokens[kept - 1] as i32], device);
        let reused = toy.decode(last, &mut cache).expect("room");
        let dims = [1, HEADS, CAPACITY, WIDTH / HEADS];
        let mut fresh = KvCache::new(1, dims, 10_000.0, device);
        let mut hidden = None;
        for token in core::iter::once(&0).chain(&tokens[..kept]) {
            let token = Tensor::from_data([*token as i32], device);
            hidden = Some(toy.decode(token, &mut fresh).expect("room"));
        }
        let found = numbers(toy.logits(reused));
        let expected = numbers(toy.logits(hidden.expect("a state")));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
        assert_eq!(found.len(), VOCAB);
    }

    // Sampling on the host, one hidden state at a time.
    let mut host = toy.session();
    let read = |last: u32| {
        move |toy: &Toy, cache: &mut KvCache| {
            toy.decode(Tensor::from_data([last as i32], device), cache)
        }
    };
    for last in 0..CAPACITY as u32 {
        assert!(host.next_hidden(read(last)).expect("room").is_some());
    }
    assert!(host.next_hidden(read(0)).expect("full").is_none());
    tokens
}

#[test]
fn tokens_follow_each_other() {
    let device = Device::flex();
    let tokens = everything(&device);
    // A synchronous device refuses to record, before the recorded step runs.
    let toy = Toy::new(&device);
    let mut tried = toy.session();
    tried.warm_up = Some(0);
    assert_eq!(run(tried), tokens);
}

#[cfg(feature = "wgpu")]
#[test]
fn tokens_follow_each_other_on_wgpu() {
    use burn::backend::{Backend, Dispatch};

    use crate::device::{self, DeviceChoice};

    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP decode-session-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    let opened = device::open(DeviceChoice::Gpu).expect("EMU_TEST_GPU asks for an adapter");
    let tokens = everything(&opened.device);
    let toy = Toy::new(&opened.device);
    let mut session = toy.session();
    for token in &tokens[..6] {
        let decoded = read_sync(session.take(TOKENS, |_| None)).expect("works");
        assert_eq!(decoded.expect("room").token, *token);
    }
    assert!(session.is_recorded());
    session.cache_mut();
    assert!(
        !session.is_recorded(),
        "whoever may replace its buffers drops it"
    );
    // Two sessions at once: each has its recording.
    let mut both = [toy.session(), toy.session()];
    for token in &tokens {
        for session in &mut both {
            let decoded = read_sync(session.take(TOKENS, |_| None)).expect("works");
            assert_eq!(decoded.expect("room").token, *token);
        }
    }
    // Another capture is prepared, so that no recording can start.
    let dispatch = opened.device.as_dispatch();
    Dispatch::graph_prepare(dispatch).expect("nobody records");
    let refused = run(toy.session());
    assert!(Dispatch::graph_stop_capture(dispatch).is_err());
    assert_eq!(refused, tokens);
}
