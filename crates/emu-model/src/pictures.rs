//! Content of pictures, and the visual embeddings of those that were read last.

use std::cell::RefCell;
use std::collections::VecDeque;

use burn::tensor::Tensor;
use emu_media::image::RgbImage;
use sha2::{Digest, Sha256};

/// Largest number of pictures in a [`PictureCache`].
const MOST: usize = 64;
/// Largest size of a [`PictureCache`], in bytes of embeddings.
const MOST_BYTES: usize = 32 << 20;

/// Content of a picture: SHA-256 of its size and pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PictureHash([u8; 32]);

impl PictureHash {
    /// Hashes a decoded picture.
    pub fn of(picture: &RgbImage) -> Self {
        let mut hash = Sha256::new();
        hash.update(picture.width().to_le_bytes());
        hash.update(picture.height().to_le_bytes());
        hash.update(picture.as_raw());
        Self(hash.finalize().into())
    }
}

/// Visual embeddings of the pictures that a model read last, by content. Bounded in number and bytes; the least recently
/// used go first.
///
/// The embeddings are those of one model. Clear the cache when its weights are unloaded.
#[derive(Debug, Default)]
pub struct PictureCache(RefCell<VecDeque<(PictureHash, Tensor<3>)>>);

impl PictureCache {
    /// The embeddings of a picture, `[1, Q, D]`.
    pub fn get(&self, hash: PictureHash) -> Option<Tensor<3>> {
        let mut entries = self.0.borrow_mut();
        let at = entries.iter().position(|(other, _)| *other == hash)?;
        let entry = entries.remove(at)?;
        let embeddings = entry.1.clone();
        entries.push_back(entry);
        Some(embeddings)
    }

    /// Adds the embeddings of a picture, `[1, Q, D]`.
    pub fn insert(&self, hash: PictureHash, embeddings: Tensor<3>) {
        let mut entries = self.0.borrow_mut();
        entries.retain(|(other, _)| *other != hash);
        entries.push_back((hash, embeddings));
        while entries.len() > MOST || bytes(&entries) > MOST_BYTES {
            entries.pop_front();
        }
    }

    /// Drops all embeddings.
    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether it has no picture.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn bytes(entries: &VecDeque<(PictureHash, Tensor<3>)>) -> usize {
    let elements = entries
        .iter()
        .map(|(_, x)| x.dims().iter().product::<usize>());
    size_of::<f32>() * elements.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn hash(shade: u8) -> PictureHash {
        PictureHash::of(&RgbImage::from_pixel(2, 3, [shade; 3].into()))
    }

    fn embeddings(width: usize) -> Tensor<3> {
        Tensor::zeros([1, 2, width], &Device::flex())
    }

    #[test]
    fn pictures_differ_in_pixels_and_in_size() {
        assert_eq!(hash(1), hash(1));
        assert_ne!(hash(1), hash(2));
        let turned = RgbImage::from_pixel(3, 2, [1; 3].into());
        assert_ne!(hash(1), PictureHash::of(&turned), "the same bytes");
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let cache = PictureCache::default();
        for shade in 0..MOST as u8 {
            cache.insert(hash(shade), embeddings(1));
        }
        assert!(cache.get(hash(0)).is_some());
        cache.insert(hash(100), embeddings(1));
        cache.insert(hash(100), embeddings(1));
        assert_eq!(cache.len(), MOST);
        let held = [0, 1, 2, 100].map(|shade| cache.get(hash(shade)).is_some());
        assert_eq!(held, [true, false, true, true]);
        cache.clear();
        assert!(cache.is_empty() && cache.get(hash(2)).is_none());
    }

    #[test]
    fn bytes_are_bounded() {
        let cache = PictureCache::default();
        // Three of them exceed the bound.
        let width = MOST_BYTES / (2 * size_of::<f32>()) / 5 * 2;
        for shade in 0..3 {
            cache.insert(hash(shade), embeddings(width));
        }
        let held = [0, 1, 2].map(|shade| cache.get(hash(shade)).is_some());
        assert_eq!(held, [false, true, true]);
        cache.insert(hash(9), embeddings(4 * width));
        assert!(cache.is_empty(), "what exceeds the bound alone is not kept");
    }
}
