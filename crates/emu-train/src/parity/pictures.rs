//! Compares decoding, Pillow's resize and normalisation with the goldens.

use std::path::Path;

use emu_media::image::{
    CLIP_MEAN, CLIP_STD, ClipFeatureExtractor, Limits, RgbImage, decode, normalize, process_img,
    resize_bicubic,
};
use emu_model::parity::{Bound, Row, exact};
use emu_pack::{SafetensorsFile, TensorSource, hex};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::folder::{FolderError, Report, read, read_json};

/// Tolerance of normalised pixels: the two libraries behind the goldens differ by this much.
const NORMALISED: Bound = Bound::Absolute(1e-6);

/// Compares every picture that the JSON lists.
pub(super) fn compare(folder: &Path, report: &mut Report) {
    let folder = folder.join("images");
    let json = folder.join("preprocess-golden.json");
    if !json.is_file() {
        report
            .skipped
            .push(("preprocessing", "images/preprocess-golden.json".into()));
        return;
    }
    let tensors = folder.join("preprocess-golden.safetensors");
    let source = tensors.is_file().then(|| SafetensorsFile::open(&tensors));
    if source.is_none() {
        report.skipped.push((
            "resized pictures",
            "images/preprocess-golden.safetensors".into(),
        ));
    }
    let files = match (read_json(&json), source.transpose()) {
        (Ok(json), Ok(source)) => (json, source),
        (Err(error), _) => return report.rows.push(Row::failed("images", error)),
        (_, Err(error)) => return report.rows.push(Row::failed("images", error)),
    };
    let (json, source) = files;
    let listed = json.get("files").and_then(Value::as_object);
    for (file, facts) in listed.into_iter().flatten() {
        report.take(
            file,
            picture(&folder.join(file), file, facts, source.as_ref()),
        );
    }
}

fn picture(
    path: &Path,
    file: &str,
    facts: &Value,
    goldens: Option<&SafetensorsFile>,
) -> Result<Vec<Row>, FolderError> {
    let unusable = |reason: String| FolderError::File {
        path: path.into(),
        reason,
    };
    let picture = decode(&read(path)?, &Limits::default()).map_err(|e| unusable(e.to_string()))?;
    let mut rows = vec![];
    if let Some(want) = facts.get("rgb_sha256").and_then(Value::as_str) {
        let got = hex(Sha256::digest(picture.as_raw()).as_slice());
        rows.push(exact(
            &format!("{file} rgb_sha256"),
            &[got.as_str()],
            &[want],
        ));
    }
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let Some(goldens) = goldens else {
        return Ok(rows);
    };
    let parts = goldens.tensors().iter().filter_map(|info| {
        let part = info.name.strip_prefix(stem)?.strip_prefix('.')?;
        Some((info, part))
    });
    for (info, part) in parts {
        let want = goldens.read(&info.name)?;
        let side = info.shape.get(1).copied().unwrap_or(0) as u32;
        let made = made(&picture, part, side).map_err(unusable)?;
        rows.push(match made {
            Made::Bytes(got) => exact(&info.name, &got, &want.bytes),
            Made::Floats(got) => {
                emu_model::parity::compare(&info.name, &got, &want.to_f32()?, NORMALISED)
            }
            Made::Unknown => Row::failed(&info.name, "no such preprocessing is known"),
        });
    }
    Ok(rows)
}

enum Made {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
    Unknown,
}

/// What the golden of this name should hold, at its size.
fn made(picture: &RgbImage, part: &str, side: u32) -> Result<Made, String> {
    let words = |e: emu_media::image::ImageError| e.to_string();
    Ok(match part {
        "resized_u8" => Made::Bytes(
            resize_bicubic(picture, side, side)
                .map_err(words)?
                .into_raw(),
        ),
        "process_img" => Made::Floats(process_img(picture, side).map_err(words)?),
        "pipeline_transform" => {
            let resized = resize_bicubic(picture, side, side).map_err(words)?;
            Made::Floats(normalize(&resized, &CLIP_MEAN, &CLIP_STD))
        }
        "clip_feature_extractor" => {
            let extractor = ClipFeatureExtractor {
                shortest_edge: Some(side),
                crop: Some((side, side)),
                ..Default::default()
            };
            Made::Floats(extractor.apply(picture).map_err(words)?.0)
        }
        _ => Made::Unknown,
    })
}
