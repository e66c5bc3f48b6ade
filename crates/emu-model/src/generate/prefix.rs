//! Prefix cache: keys and values of earlier sequences. A prompt that begins as one of them does is prefilled from the first
//! position that differs.

use emu_kernels::cache::KvCache;

use crate::pictures::PictureHash;

/// Size above which sequences are dropped before a call that does not continue them, in bytes.
const ROOM: u64 = 64 << 20;

/// Identity of a visual embedding. Under one model, equal keys mean equal embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VisualKey {
    /// A row of a picture's embeddings.
    Picture(PictureHash, u32),
    /// A row of the soft prompt.
    SoftPrompt(u32),
}

/// Input of the language model at a position.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Position {
    /// A token's embedding.
    Token(u32),
    /// A visual embedding.
    Visual(VisualKey),
    /// An embedding without identity, which equals no other.
    Unknown,
}

impl Position {
    /// Whether both certainly have the same input.
    fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Token(a), Self::Token(b)) => a == b,
            (Self::Visual(a), Self::Visual(b)) => a == b,
            _ => false,
        }
    }
}

/// Positions of a prompt.
///
/// # Arguments
/// - `keys`: identities of the visual embeddings at the `image` tokens, in order; without one for each, none is used
pub(crate) fn positions(ids: &[u32], keys: &[VisualKey], image: u32) -> Vec<Position> {
    let marks = ids.iter().filter(|id| **id == image).count();
    let mut keys = keys.iter().filter(|_| keys.len() == marks);
    let position = |&id: &u32| match id == image {
        true => keys
            .next()
            .map_or(Position::Unknown, |key| Position::Visual(*key)),
        false => Position::Token(id),
    };
    ids.iter().map(position).collect()
}

/// A sequence with its keys and values.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Input of each position in the cache.
    positions: Vec<Position>,
    cache: KvCache,
}

impl Sequence {
    /// The positions that are both known and in the cache.
    pub fn new(mut positions: Vec<Position>, mut cache: KvCache) -> Self {
        positions.truncate(cache.len());
        cache.truncate(positions.len());
        Self { positions, cache }
    }

    /// Length of the common prefix with other positions.
    pub fn common(&self, positions: &[Position]) -> usize {
        let both = self.positions.iter().zip(positions);
        both.take_while(|(a, b)| a.is_same(**b)).count()
    }

    /// Its KV cache.
    pub fn into_cache(self) -> KvCache {
        self.cache
    }
}

/// Which prompt of a call a sequence continues. A model with a soft prompt reads a conversation in up to three ways, whose
/// prefixes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The whole conversation.
    Conversation,
    /// Its last turn by itself.
    LastTurn,
    /// The conversation without the soft prompt.
    Alone,
}

/// Sequences of earlier calls, at most one of each kind of prompt, which later prompts continue from their longest common
/// prefix.
///
/// It belongs to the model that filled it: use it with no other. Results are those without it, up to the rounding of sums
/// that are computed in another order. Where activations are quantized, such rounding is amplified: an activation near the
/// middle of two bytes becomes the other byte, and log-probabilities of emu-smol moved by up to 0.4. There, generated tokens
/// are not kept, and prompts are computed in the same order with and without a kept prefix.
#[derive(Debug, Default)]
pub struct PrefixCache {
    conversation: Option<Sequence>,
    last_turn: Option<Sequence>,
    alone: Option<Sequence>,
}

impl PrefixCache {
    /// The sequence of a kind.
    pub(crate) fn slot(&mut self, kind: Kind) -> &mut Option<Sequence> {
        match kind {
            Kind::Conversation => &mut self.conversation,
            Kind::LastTurn => &mut self.last_turn,
            Kind::Alone => &mut self.alone,
        }
    }

    fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        let all = [&self.conversation, &self.last_turn, &self.alone];
        all.into_iter().flatten()
    }

    /// Whether it has no sequence.
    pub fn is_empty(&self) -> bool {
        self.sequences().next().is_none()
    }

    /// Bytes of the keys and values, unused capacity included.
    pub fn bytes(&self) -> u64 {
        self.sequences()
            .map(|sequence| sequence.cache.bytes())
            .sum()
    }

    /// Drops the sequences if they take more than 64 MiB. Call it before work that does not continue them and needs memory
    /// itself.
    pub fn make_room(&mut self) {
        if self.bytes() > ROOM {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests;
