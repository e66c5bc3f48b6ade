//! Visual embeddings of the images of a prompt.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};
use emu_media::image::{RgbImage, process_img_with};

use super::{PromptError, Prompter, Seen, views};
use crate::generate::VisualKey;
use crate::pictures::PictureHash;

/// Batch size of the vision encoder.
const BATCH: usize = 8;

impl Prompter<'_> {
    /// Embeddings of images that are read as a whole, `[N, Q, D]`, and the key of each.
    pub(super) fn embed_whole(&self, pictures: &[RgbImage]) -> Result<Embedded, PromptError> {
        let hashes = hashes(pictures);
        let embedded = self.embed_hashed(pictures, &hashes)?;
        let queries = embedded.as_ref().map_or(0, |rows| rows.dims()[1]);
        let keys = hashes.iter().flat_map(|hash| rows(*hash, 0..queries));
        let keys = keys.collect();
        Ok((embedded, keys))
    }

    /// Embeddings of images of which some are read object by object, `[1, N, D]`, and the key of each: for each image the
    /// name embeddings of each object, then the background embedding.
    pub(super) fn embed_things(
        &self,
        pictures: &[RgbImage],
        seen: &[Seen<'_>],
    ) -> Result<Embedded, PromptError> {
        let views: Vec<Vec<RgbImage>> = { pictures.iter().zip(seen) }
            .map(|(picture, seen)| views(picture, seen))
            .collect();
        let all = views.concat();
        let hashes = hashes(&all);
        let Some(embedded) = self.embed_hashed(&all, &hashes)? else {
            return Ok((None, vec![]));
        };
        let [_, q, _] = embedded.dims();
        let (mut parts, mut keys, mut next) = (vec![], vec![], 0);
        let mut add = |view: usize, from: usize, count: usize| {
            let row = embedded.clone().narrow(0, view, 1);
            parts.push(row.narrow(1, from, count));
            keys.extend(rows(hashes[view], from..from + count));
        };
        for views in &views {
            (next..next + views.len()).for_each(|view| add(view, 0, q - 1));
            add(next, q - 1, 1);
            next += views.len();
        }
        Ok((Some(Tensor::cat(parts, 1)), keys))
    }

    /// Visual embeddings of images, `[N, Q, D]`; `None` without images.
    ///
    /// # Errors
    /// If an image cannot be resized.
    pub fn embed(&self, pictures: &[RgbImage]) -> Result<Option<Tensor<3>>, PromptError> {
        match self.pictures {
            Some(_) => self.embed_hashed(pictures, &hashes(pictures)),
            None => self.embed_hashed(pictures, &[]),
        }
    }

    /// As [`Prompter::embed`], with the hash of each image if there is a cache of pictures.
    fn embed_hashed(
        &self,
        pictures: &[RgbImage],
        hashes: &[PictureHash],
    ) -> Result<Option<Tensor<3>>, PromptError> {
        if pictures.is_empty() {
            return Ok(None);
        }
        let Some(cache) = self.pictures else {
            return self.encode(pictures.iter()).map(Some);
        };
        // Each image once, however often it is given.
        let mut known: Vec<(PictureHash, Tensor<3>)> = vec![];
        let mut missing: Vec<(PictureHash, &RgbImage)> = vec![];
        for (hash, picture) in hashes.iter().zip(pictures) {
            let is_known = known.iter().any(|(other, _)| other == hash);
            if is_known || missing.iter().any(|(other, _)| other == hash) {
                continue;
            }
            match cache.get(*hash) {
                Some(rows) => known.push((*hash, rows)),
                None => missing.push((*hash, picture)),
            }
        }
        if !missing.is_empty() {
            let embedded = self.encode(missing.iter().map(|(_, picture)| *picture))?;
            for (i, (hash, _)) in missing.iter().enumerate() {
                let rows = match missing.len() {
                    1 => embedded.clone(),
                    _ => embedded.clone().narrow(0, i, 1),
                };
                cache.insert(*hash, rows.clone());
                known.push((*hash, rows));
            }
            if missing.len() == pictures.len() {
                return Ok(Some(embedded));
            }
        }
        let rows = |hash: &PictureHash| {
            let found = known.iter().find(|(other, _)| other == hash);
            found.map(|(_, rows)| rows.clone())
        };
        Ok(Some(Tensor::cat(
            hashes.iter().filter_map(rows).collect(),
            0,
        )))
    }

    /// Visual embeddings of at least one image, `[N, Q, D]`.
    fn encode<'p>(
        &self,
        pictures: impl Iterator<Item = &'p RgbImage>,
    ) -> Result<Tensor<3>, PromptError> {
        let side = self.config.vision.image_size;
        let wide = |values: [f32; 3]| values.map(f64::from);
        let (mean, std) = (wide(self.config.image.mean), wide(self.config.image.std));
        let pictures: Vec<&RgbImage> = pictures.collect();
        let mut embedded = vec![];
        for batch in pictures.chunks(BATCH) {
            let mut values = Vec::with_capacity(batch.len() * 3 * side * side);
            for picture in batch {
                values.extend(process_img_with(picture, side as u32, &mean, &std)?);
            }
            let data = TensorData::new(values, [batch.len(), 3, side, side]);
            embedded.push(
                self.emu
                    .embed_images(Tensor::<4>::from_data(data, self.device)),
            );
        }
        Ok(Tensor::cat(embedded, 0))
    }
}

/// Visual embeddings, and the key of each.
pub(super) type Embedded = (Option<Tensor<3>>, Vec<VisualKey>);

fn hashes(pictures: &[RgbImage]) -> Vec<PictureHash> {
    pictures.iter().map(PictureHash::of).collect()
}

/// Keys of rows of a picture's embeddings.
fn rows(hash: PictureHash, rows: Range<usize>) -> impl Iterator<Item = VisualKey> {
    rows.map(move |row| VisualKey::Picture(hash, row as u32))
}
