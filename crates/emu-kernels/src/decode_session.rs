//! Autoregressive decoding of one sequence: recording and replay of the decode step, and read-back of tokens while the
//! device computes the next ones.
//!
//! On an asynchronous device, the model reads each token from the tensor that the sampler wrote. A decode step is the same
//! launches every time, so it is recorded once, after a warm-up, and replayed. [`DecodeSession`] owns every tensor that a
//! recording writes and borrows the model whose weights it reads; anything that may replace one of them drops the recording
//! first.

use std::collections::VecDeque;

use burn::tensor::{Int, Tensor};

use crate::cache::{CacheFull, KvCache};
use crate::device::runs_behind;
use crate::readback::{self, Readback, RecordError, Recorded};
use crate::sample::Sampler;

/// Language model interface of a decode session.
///
/// Both methods launch work and return; they neither read from the device nor upload to it, and keep the model's weights in
/// their buffers.
pub trait DecodeModel {
    /// Runs the model over one token that is on the device, `[1]`, and appends it to the cache. Returns the final hidden
    /// state, `[1, 1, D]`.
    ///
    /// # Errors
    /// The cache is full.
    fn decode(&self, token: Tensor<1, Int>, cache: &mut KvCache) -> Result<Tensor<3>, CacheFull>;

    /// Next-token logits of a final hidden state: `[1, 1, D]` to `[1, 1, vocab]`.
    fn logits(&self, hidden: Tensor<3>) -> Tensor<3>;
}

/// Error of decoding.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The KV cache is full.
    #[error(transparent)]
    Cache(#[from] CacheFull),
    /// The device failed.
    #[error("{0}")]
    Device(String),
    /// A logit is NaN.
    #[error("the logits are not finite")]
    NotFinite,
}

/// A token that has been read back.
#[derive(Debug)]
pub struct Decoded {
    /// The token.
    pub token: u32,
    /// Whether a decode step produced it; the first token comes from the prompt.
    pub stepped: bool,
    /// The state after the model read this token, if it has done so already.
    pub after: Option<Checkpoint>,
}

/// A state to rewind to.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The final hidden state, `[1, 1, D]`.
    pub hidden: Tensor<3>,
    /// Positions in the KV cache.
    pub kv_len: usize,
}

/// Tokens in flight on an asynchronous device: while one is read back, the next is computed.
const DEPTH: usize = 2;
// Replays write one hidden state. A [`Checkpoint`] holds that of the newest token; a third token in flight would overwrite it.
const _: () = assert!(DEPTH <= 2, "replays share one hidden state");
/// Warm-up: decode steps before one is recorded. They compile the kernels and grow the memory pools to their final size.
const WARM_UP: usize = 2;

/// Source of the next token.
// One per session: its size does not matter.
#[allow(clippy::large_enum_variant)]
enum Next {
    /// The logits of this hidden state.
    Sample(Tensor<3>),
    /// A decode step over the token that was sampled last.
    Step,
    /// No next token.
    Nothing,
}

/// A token in flight.
struct Pending {
    token: Readback,
    stepped: bool,
}

/// A recorded decode step.
struct RecordedStep {
    recorded: Recorded,
    /// Output: the hidden state after the token that the step reads.
    hidden: Tensor<3>,
    /// The banned token.
    banned: Option<u32>,
}

/// Decodes one sequence.
pub struct DecodeSession<'m, M> {
    /// Declared first: dropped before the buffers it was recorded with.
    recorded: Option<RecordedStep>,
    /// Warm-up steps so far; `None` if the device does not record.
    warm_up: Option<usize>,
    model: &'m M,
    cache: KvCache,
    sampler: Sampler,
    /// Oldest first.
    pending: VecDeque<Pending>,
    /// States after tokens that the model read before their read-back completed, oldest first.
    read_ahead: VecDeque<Checkpoint>,
    next: Next,
    depth: usize,
}

impl<'m, M: DecodeModel> DecodeSession<'m, M> {
    /// Continues a prompt.
    ///
    /// # Arguments
    /// - `cache`: holds the prompt
    /// - `hidden`: the final hidden state at the prompt's last position, `[1, 1, D]`
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

    /// The KV cache, for running the model over it directly. Drops the recording.
    pub fn cache_mut(&mut self) -> &mut KvCache {
        self.recorded = None;
        &mut self.cache
    }

    /// Ends the session. Returns the cache, which holds the positions read so far, those of tokens in flight included.
    pub fn into_cache(self) -> KvCache {
        let Self {
            recorded,
            pending,
            cache,
            ..
        } = self;
        drop(recorded);
        drop(pending);
        cache
    }

    /// Whether decode steps are replays of a recording.
    pub fn is_recorded(&self) -> bool {
        self.recorded.is_some()
    }

    /// Decode steps whose tokens are in flight. Their positions are in the cache.
    pub fn steps_in_flight(&self) -> usize {
        self.pending.iter().filter(|token| token.stepped).count()
    }

    /// The hidden state to sample the next token from, if no decode step has to run first.
    pub fn hidden(&self) -> Option<&Tensor<3>> {
        match &self.next {
            Next::Sample(hidden) => Some(hidden),
            _ => None,
        }
    }

    /// The next token. Keeps the device busy with the following ones. `None` if there is no next token: `room` is 0, or the
    /// cache is full.
    ///
    /// # Arguments
    /// - `room`: number of tokens that may still be taken
    /// - `banned`: the banned token, given the number of positions left in the cache
    ///
    /// # Errors
    /// The device fails, or a logit is NaN.
    pub async fn take(
        &mut self,
        room: usize,
        banned: impl Fn(usize) -> Option<u32>,
    ) -> Result<Option<Decoded>, DecodeError> {
        while self.pending.len() < self.depth.min(room) {
            let left = self.cache.left();
            let stepped = match core::mem::replace(&mut self.next, Next::Nothing) {
                Next::Sample(hidden) => {
                    sample(self.model, &mut self.sampler, hidden, banned(left));
                    false
                }
                Next::Step if left > 0 => {
                    let hidden = self.step(banned(left - 1))?;
                    // The newest token is never rewound to.
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

    /// One decode step: the model reads the token sampled last, and the next is sampled. Returns the hidden state in between.
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
                    // Recorded but not run; the replay below runs it.
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
        // SAFETY: the step reads the model, which is borrowed, and reads and writes cache and sampler, which are fields.
        // `cache_mut` and `rewind`, which may replace their tensors, drop the recording; so does dropping the session, where
        // it is the first field. Intermediate tensors belong to the recording, and its hidden state is kept with it.
        let replayed = unsafe { step.recorded.replay() };
        replayed.map_err(|e| DecodeError::Device(format!("{e:?}")))?;
        self.cache.replayed();
        Ok(step.hidden.clone())
    }

    /// The hidden state to sample the next token from on the host. `None` if the cache is full.
    ///
    /// # Arguments
    /// - `read`: runs the model over the token taken last
    ///
    /// # Errors
    /// Those of `read`.
    pub fn next_hidden<E>(
        &mut self,
        read: impl FnOnce(&M, &mut KvCache) -> Result<Tensor<3>, E>,
    ) -> Result<Option<Tensor<3>>, E> {
        self.recorded = None;
        match core::mem::replace(&mut self.next, Next::Step) {
            Next::Sample(hidden) => Ok(Some(hidden)),
            Next::Step if self.cache.left() > 0 => read(self.model, &mut self.cache).map(Some),
            _ => {
                self.next = Next::Nothing;
                Ok(None)
            }
        }
    }

    /// Rewinds to the token taken last, and drops everything computed after it. There is no next token until
    /// [`resume`](Self::resume).
    ///
    /// # Arguments
    /// - `history`: the tokens so far, for the sampler's penalties
    /// - `kv_len`: positions to keep in the cache; all if absent
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

    /// Drops the tokens in flight; there is no next token.
    pub fn stop(&mut self) {
        self.pending.clear();
        self.read_ahead.clear();
        self.next = Next::Nothing;
    }
}

/// One decode step: the model reads the token sampled last, and the next is sampled.
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
