//! Image generation.

use emu_kernels::burn::tensor::Tensor;
use emu_model::diffusion::{Decoder, DecoderConfig, Denoise, Preview};
use emu_model::generate::ImageEmbedder;
use emu_model::pack;
use emu_model::prompt::{Marked, Prompter};
use emu_model::safety::{black_out, blur};
use wasm_bindgen::JsValue;

use crate::engine::Engine;
use crate::error::Failure;
use crate::events::{Listener, event, picture};
use crate::object::object;
use crate::request::Draw;

/// Draws a picture from a prompt.
pub async fn imagine(
    engine: &Engine,
    listener: &Listener<'_>,
    prompter: &Prompter<'_>,
    wanted: &Marked,
    draw: &Draw,
    seed: u64,
) -> Result<(), JsValue> {
    let condition = regress(listener, prompter, wanted, seed).await?;
    let negative = match &draw.negative {
        None => None,
        Some(text) => {
            let unwanted = Marked::words(text);
            Some(regress(listener, prompter, &unwanted, seed).await?)
        }
    };
    walk(engine, listener, condition, negative, draw, seed).await
}

/// Generates the embeddings of the picture for a prompt, `[1, Q, D]`.
async fn regress(
    listener: &Listener<'_>,
    prompter: &Prompter<'_>,
    wanted: &Marked,
    seed: u64,
) -> Result<Tensor<3>, JsValue> {
    let prompt = prompter.picture(wanted).map_err(Failure::from)?;
    let tokens = prompt.ids.len();
    let mut embedder =
        ImageEmbedder::new(prompter.emu, prompter.config, &prompt, seed).map_err(Failure::from)?;
    listener
        .tell(&event("prefill", &[("tokens", tokens.into())]))
        .await?;
    loop {
        if let Some(embeddings) = embedder.step().await.map_err(Failure::from)? {
            return Ok(embeddings);
        }
        listener
            .tell(&event("decode", &[("tokens", embedder.done().into())]))
            .await?;
    }
}

/// Runs the diffusion decoder on embeddings and sends the picture.
pub async fn walk(
    engine: &Engine,
    listener: &Listener<'_>,
    condition: Tensor<3>,
    negative: Option<Tensor<3>>,
    draw: &Draw,
    seed: u64,
) -> Result<(), JsValue> {
    let checks = engine.model().config().safety.is_some();
    if checks {
        engine.ensure_loaded(listener, pack::SAFETY).await?;
    }
    let (decoder, config) = decoder(engine)?;
    let options = draw.options(&config, seed)?;
    let every = draw.preview_every()?;
    let mut walk =
        Denoise::new(&decoder, &config, condition, negative, &options).map_err(Failure::from)?;
    while !walk.is_done() {
        let (step, total) = walk.progress();
        let due = every > 0 && (step + 1).is_multiple_of(every) && step + 1 < total;
        let preview = if due { Preview::Rough } else { Preview::None };
        let progress = walk.step(preview).await.map_err(Failure::from)?;
        let mut fields = vec![
            ("step", progress.step.into()),
            ("steps", progress.total.into()),
        ];
        if let Some(image) = progress.previews.first() {
            // Previews are blurred until the picture has passed the safety checker.
            let shown = match checks {
                true => picture(&blur(image)),
                false => picture(image),
            };
            fields.push(("preview", object(&shown)));
        }
        listener.tell(&event("denoise", &fields)).await?;
    }
    listener.tell(&event("decode-image", &[])).await?;
    let pictures = walk.pictures().await.map_err(Failure::from)?;
    let Some(mut image) = pictures.into_iter().next() else {
        return Err(Failure::new("device", "No picture came out. Try again.").into());
    };
    let flagged = check(engine, &image).await?;
    black_out([image.as_mut()], &[flagged == Some(true)]);
    let mut fields = picture(&image);
    fields.push(("seed", (seed as f64).into()));
    fields.push(("flagged", flagged.map_or(JsValue::NULL, JsValue::from)));
    listener.tell(&event("image", &fields)).await
}

fn decoder(engine: &Engine) -> Result<(Decoder, DecoderConfig), Failure> {
    let model = engine.model();
    let (decoder, config) = model.decoder()?;
    Ok((decoder.clone(), config.clone()))
}

async fn check(
    engine: &Engine,
    image: &emu_media::image::RgbImage,
) -> Result<Option<bool>, Failure> {
    let checker = {
        let model = engine.model();
        model
            .safety()?
            .map(|(checker, config)| (checker.clone(), config.clone()))
    };
    match checker {
        None => Ok(None),
        Some((checker, config)) => Ok(Some(checker.check(image, &config, engine.device()).await?)),
    }
}
