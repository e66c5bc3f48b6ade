//! Evaluates drawings of a model with a classifier.

use burn::tensor::{Device, Tensor};
use emu_kernels::random::{Philox, Stream};
use emu_model::diffusion::pipeline::{Denoise, DrawOptions};
use emu_model::diffusion::{Decoder, DecoderConfig};
use emu_model::generate::{ImageEmbedder, Prompt};
use image::RgbImage;

use super::text::{Subject, request_of};
use super::{Item, Score, Scores};
use crate::TrainError;
use crate::data::ShardDataset;
use crate::data::record::{Document, Layout, Object, Record};
use crate::judge::Judge;
use crate::stages::sequence::Composer;

/// A model that draws.
pub struct Artist<'a> {
    /// Encoder and LM, which read the request.
    pub subject: Subject<'a>,
    /// The diffusion decoder.
    pub decoder: &'a Decoder,
    /// Sizes of the decoder.
    pub config: &'a DecoderConfig,
}

impl Artist<'_> {
    /// Draws a request.
    ///
    /// # Errors
    /// If the model fails.
    pub fn draw(&self, text: &str, seed: u64) -> Result<RgbImage, TrainError> {
        let config = self.subject.config;
        let composer = Composer::new(self.subject.words, config.queries(), config.lm.context);
        let prompt = Prompt::text(composer.request(text)?);
        let embedder = ImageEmbedder::new(self.subject.emu, config, &prompt, seed)
            .map_err(|e| TrainError::other(e.code(), e))?;
        let run = burn::tensor::read_sync(embedder.run());
        let (embeddings, _) = run.map_err(|e| TrainError::other(e.code(), e))?;
        self.render(embeddings, seed)
    }

    fn render(&self, embeddings: Tensor<3>, seed: u64) -> Result<RgbImage, TrainError> {
        let options = DrawOptions::new(self.config, seed);
        let drawing = Denoise::new(self.decoder, self.config, embeddings, None, &options)
            .map_err(|e| TrainError::other(e.code(), e))?;
        let pictures =
            burn::tensor::read_sync(drawing.run()).map_err(|e| TrainError::other(e.code(), e))?;
        pictures
            .into_iter()
            .next()
            .ok_or_else(|| TrainError::Stage("Nothing was drawn.".into()))
    }

    /// Draws the first requests of a set and evaluates them: `background`, `one` (single objects), `two` (both objects
    /// of a pair), `each` (single objects of pairs). The data's own pictures of these requests are scored as `data.one`
    /// and so on, which is the upper bound of the judge. Returns the pictures in order.
    ///
    /// # Errors
    /// If the data cannot be read or the model fails.
    pub fn judged(
        &self,
        set: &ShardDataset,
        limit: usize,
        judge: &Judge,
        device: &Device,
    ) -> Result<(Scores, Vec<RgbImage>), TrainError> {
        let mut scores = Scores::default();
        let mut pictures = vec![];
        for found in set.samples(limit) {
            let (i, sample) = found?;
            let Ok(Record::Document(document)) = sample.record() else {
                continue;
            };
            let Some(text) = request_of(&document) else {
                continue;
            };
            let seed = u64::from(Philox::new(0, Stream::Latents, i as u64).next_u32());
            let picture = self.draw(text, seed)?;
            let (given, mut kinds) = verdict("", &picture, &document, judge, device)?;
            let right = sample
                .images
                .last()
                .and_then(|p| RgbImage::from_raw(p.width, p.height, p.rgb.clone()));
            if let Some(right) = right {
                kinds.extend(verdict("data.", &right, &document, judge, device)?.1);
            }
            let names: Vec<&str> = { document.objects.iter() }
                .map(|object| object.name.as_str())
                .collect();
            scores.add(Item {
                sample: i,
                picture: Some(pictures.len()),
                question: text.to_owned(),
                wanted: described(&names, document.background.as_deref()),
                given,
                scores: kinds,
            });
            pictures.push(picture);
        }
        Ok((scores, pictures))
    }
}

/// What the judge sees in a picture for a document's request, in words, and its scores, under names that begin with
/// `prefix`. The first score is that of the objects.
fn verdict(
    prefix: &str,
    picture: &RgbImage,
    document: &Document,
    judge: &Judge,
    device: &Device,
) -> Result<(String, Vec<(String, Score)>), TrainError> {
    let name = |kind: &str| format!("{prefix}{kind}");
    let mut seen = vec![];
    let mut each = Score::default();
    for object in &document.objects {
        let part = crop(picture, object, document.layout);
        let found = judge.name(&part, device)?;
        each.count(found.as_deref() == Some(object.name.as_str()));
        seen.push(found.unwrap_or_default());
    }
    let mut kinds = match each.total {
        0 => vec![],
        1 => vec![(name("one"), each)],
        all => vec![
            (name("two"), (each.right == all).into()),
            (name("each"), each),
        ],
    };
    let background = judge.background(picture);
    if let Some(wanted) = &document.background {
        let right = background == Some(wanted.as_str());
        kinds.push((name("background"), right.into()));
    }
    let names: Vec<&str> = seen.iter().map(String::as_str).collect();
    Ok((described(&names, background), kinds))
}

/// Objects and background in words.
fn described(objects: &[&str], background: Option<&str>) -> String {
    let objects = objects.join(", ");
    match background {
        Some(color) => format!("{objects} on {color}"),
        None => objects,
    }
}

/// The square of a picture that should hold the requested object.
fn crop(picture: &RgbImage, object: &Object, layout: Option<Layout>) -> RgbImage {
    if !matches!(layout, Some(Layout::Row | Layout::Column)) {
        return picture.clone();
    }
    let side = f64::from(picture.width().min(picture.height()));
    let reach = (object.size * 1.15).min(1.0) * side;
    let from = |centre: f64| (centre * side - reach / 2.0).clamp(0.0, side - reach) as u32;
    image::imageops::crop_imm(
        picture,
        from(object.cx),
        from(object.cy),
        reach as u32,
        reach as u32,
    )
    .to_image()
}
