//! Autoregressive decoding of one sequence: recording and replay of the decode step, and read-back of tokens while the
//! device computes the next ones.
//!
//! On a device that runs behind the program, the model reads each token where the sampler left it. A decode step is the
//! same launches every time, so it is recorded once, after a warm-up, and replayed. [`DecodeSession`] owns every tensor
//! that a recording writes and borrows the model whose weights it reads; whatever would replace one of them drops the
//! recording first.

use std::collections::VecDeque;

use burn::tensor::{Int, Tensor};

use crate::cache::{CacheFull, KvCache};
use crate::device::runs_behind;
use crate::readback::{self, Readback, RecordError, Recorded};
use crate::sample::Sampler;

/// What decoding asks of a language model.
///
/// Both methods launch work and return; they neither read from the device nor upload to it, and leave the model's weights
/// where they are.
pub trait DecodeModel {
    /// Runs the model over one token that is on the device, `[1]`, and appends it to the cache. Returns the final hidden
    /// state, `[1, 1, D]`.
    ///
    /// # Errors
    /// Where the cache is full.
    fn decode(&self, token: Tensor<1, Int>, cache: &mut KvCache) -> Result<Tensor<3>, CacheFull>;

    /// Next-token logits of a final hidden state: `[1, 1, D]` to `[1, 1, vocab]`.
    fn logits(&self, hidden: Tensor<3>) -> Tensor<3>;
}

/// Why decoding failed.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The KV cache is full.
    #[error(transparent)]
    Cache(#[from] CacheFull),
    /// The device failed.
    #[error("{0}")]
    Device(String),
    /// The logits were not numbers.
    #[error("the logits are not finite")]
    NotFinite,
}

/// A token that came back.
#[derive(Debug)]
pub struct Decoded {
    /// The token.
    pub token: u32,
    /// Whether a decode step led to it; the first token comes from the prompt.
    pub stepped: bool,
    /// The state after the model read this token, where it has read it already.
    pub after: Option<Checkpoint>,
}

/// A state to go back to.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The final hidden state, `[1, 1, D]`.
    pub hidden: Tensor<3>,
    /// Positions in the KV cache.
    pub kv_len: usize,
}

/// Tokens in flight on a device that runs behind the program: while one comes back, the next is computed.
const DEPTH: usize = 2;
// Replays write one hidden state. A [`Checkpoint`] holds that of the newest token; a third token in flight would overwrite it.
const _: () = assert!(DEPTH <= 2, "replays share one hidden state");
/// Decode steps before one is recorded. They compile the kernels and bring the memory pools to their final size.
const WARM_UP: usize = 2;

/// Where the next token comes from.
// One per session: its size does not matter.
#[allow(clippy::large_enum_variant)]
enum Next {
    /// The logits of this hidden state.
    Sample(Tensor<3>),
    /// A decode step over the token that was sampled last.
    Step,
    /// Nothing follows.
    Nothing,
}

/// A token in flight.
struct Pending {
    token: Readback,
    stepped: bool,
}

/// A decode step that was recorded.
struct RecordedStep {
    recorded: Recorded,
    /// What it writes: the hidden state after the token that it reads.
    hidden: Tensor<3>,
    /// The token that it may not sample.
    banned: Option<u32>,
}

/// Decodes one sequence.
pub struct DecodeSession<'m, M> {
    /// Declared first: dropped before the buffers that it was recorded with.
    recorded: Option<RecordedStep>,
    /// Steps that ran without a recording so far; absent where the device does not record.
    warm_up: Option<usize>,
    model: &'m M,
    cache: KvCache,
    sampler: Sampler,
    /// Oldest first.
    pending: VecDeque<Pending>,
    /// States after tokens that the model read before they came back, oldest first.
    read_ahead: VecDeque<Checkpoint>,
    next: Next,
    depth: usize,
}

impl<'m, M: DecodeModel> DecodeSession<'m, M> {
    /// Continues a prompt.
    ///
    /// # Arguments
    /// - `cache`: of the prompt
    /// - `hidden`: the prompt's last final hidden state, `[1, 1, D]`
    pub fn new(model: &'m M, cache: KvCache, sampler: Sampler, hidden: Tensor<3>) -> Self {
        let behind = runs_behind(&hidden.device());
        Self {
            recorded: None,
            warm_up: behind.then_some(0),
            model,
            cache,
            sampler,
            pending: VecDeque::new(),
            read_ahead: VecDeque::new(),
            next: Next::Sample(hidden),
            depth: if behind { DEPTH } else { 1 },
        }
    }

    /// The KV cache.
    pub fn cache(&self) -> &KvCache {
        &self.cache
    }

    /// The KV cache, to run the model over it directly. Drops the recording.
    pub fn cache_mut(&mut self) -> &mut KvCache {
        self.recorded = None;
        &mut self.cache
    }

    /// Whether decode steps are replays of a recording.
    pub fn is_recorded(&self) -> bool {
        self.recorded.is_some()
    }

    /// Decode steps whose tokens are in flight. Their positions are in the cache.
    pub fn steps_in_flight(&self) -> usize {
        self.pending.iter().filter(|token| token.stepped).count()
    }

    /// The hidden state that the next token is sampled from, if no step has to run for it.
    pub fn hidden(&self) -> Option<&Tensor<3>> {
        match &self.next {
            Next::Sample(hidden) => Some(hidden),
            _ => None,
        }
    }

    /// The next token. Keeps the device busy with those behind it. None where nothing follows: `room` is 0, or the cache is
    /// full.
    ///
    /// # Arguments
    /// - `room`: tokens that may still be taken
    /// - `banned`: the token that may not be sampled where so many positions of the cache are left
    ///
    /// # Errors
    /// Where the device fails, or the logits are not finite.
    pub async fn take(
        &mut self,
        room: usize,
        banned: impl Fn(usize) -> Option<u32>,
    ) -> Result<Option<Decoded>, DecodeError> {
        while self.pending.len() < self.depth.min(room) {
            let left = self.cache.capacity().saturating_sub(self.cache.len());
            let stepped = match core::mem::replace(&mut self.next, Next::Nothing) {
                Next::Sample(hidden) => {
                    sample(self.model, &mut self.sampler, hidden, banned(left));
                    false
                }
                Next::Step if left > 0 => {
                    let hidden = self.step(banned(left - 1))?;
                    // The newest token is not gone back to.
                    if !self.pending.is_empty() {
                        let kv_len = self.cache.len();
                        self.read_ahead.push_back(Checkpoint { hidden, kv_len });
                    }
                    true
                }
                _ => break,
            };
            let token = readback::start(self.sampler.token());
            self.pending.push_back(Pending { token, stepped });
            self.next = Next::Step;
        }
        let Some(Pending { token, stepped }) = self.pending.pop_front() else {
            return Ok(None);
        };
        let token = token.await.map_err(DecodeError::Device)?;
        let token = token.first().and_then(|&token| u32::try_from(token).ok());
        Ok(Some(Decoded {
            token: token.ok_or(DecodeError::NotFinite)?,
            stepped,
            after: self.read_ahead.pop_front(),
        }))
    }

    /// One decode step: the model reads the token that was sampled last, and the next is sampled. Returns the hidden state in
    /// between.
    fn step(&mut self, banned: Option<u32>) -> Result<Tensor<3>, DecodeError> {
        self.recorded.take_if(|step| step.banned != banned);
        if self.recorded.is_none() {
            let (model, cache, sampler) = (self.model, &mut self.cache, &mut self.sampler);
            if self.warm_up != Some(WARM_UP) {
                self.warm_up = self.warm_up.map(|steps| steps + 1);
                return Ok(step(model, cache, sampler, banned)?);
            }
            let device = sampler.token().device();
            match Recorded::record(&device, || step(model, cache, sampler, banned)) {
                Ok((recorded, hidden)) => {
                    let hidden = hidden?;
                    // It was recorded and did not run; the replay below runs it.
                    cache.unrecorded();
                    self.recorded = Some(RecordedStep {
                        recorded,
                        hidden,
                        banned,
                    });
                }
                Err(failed) => {
                    if let RecordError::Discarded(_) = failed {
                        cache.unrecorded();
                    }
                    self.warm_up = None;
                    return Ok(step(model, cache, sampler, banned)?);
                }
            }
        }
        let Some(step) = &mut self.recorded else {
            return Err(DecodeError::Device("nothing was recorded".into()));
        };
        // Safety: the step reads the model, which is borrowed, and reads and writes cache and sampler, which are fields.
        // `cache_mut` and `rewind`, which may replace their tensors, drop the recording; so does dropping the session, in
        // whose declaration it comes first. What the step made in between belongs to the recording, its hidden state is kept
        // beside it.
        let replayed = unsafe { step.recorded.replay() };
        replayed.map_err(|e| DecodeError::Device(format!("{e:?}")))?;
        self.cache.replayed();
        Ok(step.hidden.clone())
    }

    /// The hidden state to sample the next token from on the host. None where the cache is full.
    ///
    /// # Arguments
    /// - `read`: runs the model over the token that was taken last
    ///
    /// # Errors
    /// Those of `read`.
    pub fn next_hidden<E>(
        &mut self,
        read: impl FnOnce(&M, &mut KvCache) -> Result<Tensor<3>, E>,
    ) -> Result<Option<Tensor<3>>, E> {
        self.recorded = None;
        let full = self.cache.len() >= self.cache.capacity();
        match core::mem::replace(&mut self.next, Next::Step) {
            Next::Sample(hidden) => Ok(Some(hidden)),
            Next::Step if !full => read(self.model, &mut self.cache).map(Some),
            _ => {
                self.next = Next::Nothing;
                Ok(None)
            }
        }
    }

    /// Goes back to the token that was taken last, dropping whatever was computed behind it. Nothing follows until
    /// [`resume`](Self::resume).
    ///
    /// # Arguments
    /// - `history`: the tokens so far, for the sampler's penalties
    /// - `kv_len`: positions that the cache keeps; all of them where absent
    pub fn rewind(&mut self, history: &[u32], kv_len: Option<usize>) {
        self.stop();
        self.recorded = None;
        self.warm_up = self.warm_up.map(|_| 0);
        if let Some(kv_len) = kv_len {
            self.cache.truncate(kv_len);
        }
        self.sampler.rewind(history);
    }

    /// Samples the next token from this hidden state, `[1, 1, D]`.
    pub fn resume(&mut self, hidden: Tensor<3>) {
        self.next = Next::Sample(hidden);
    }

    /// Takes nothing more.
    pub fn stop(&mut self) {
        self.pending.clear();
        self.read_ahead.clear();
        self.next = Next::Nothing;
    }
}

/// The model reads the token that was sampled last, and the next is sampled.
fn step<M: DecodeModel>(
    model: &M,
    cache: &mut KvCache,
    sampler: &mut Sampler,
    banned: Option<u32>,
) -> Result<Tensor<3>, CacheFull> {
    let hidden = model.decode(sampler.token(), cache)?;
    sample(model, sampler, hidden.clone(), banned);
    Ok(hidden)
}

/// Samples a token from the logits of a hidden state.
fn sample<M: DecodeModel>(
    model: &M,
    sampler: &mut Sampler,
    hidden: Tensor<3>,
    banned: Option<u32>,
) {
    let logits = model.logits(hidden);
    sampler.sample(logits, banned.map(|token| token as usize));
}

#[cfg(test)]
mod tests;
