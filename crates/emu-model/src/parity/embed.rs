//! Regressed embeddings against the goldens.

use burn::tensor::Tensor;
use emu_tokenizer::{RELEASED_MARK, expand_pictures, names};
use serde_json::Value;

use super::cases::{list, settled, strings};
use super::core::Subject;
use super::generator::Generator;
use super::{Bound, Goldens, ParityError, Row, exact};
use crate::generate::ImageEmbedder;

/// Embeddings regressed for a prompt and, if the case has one, for the empty prompt of the guidance.
pub(super) async fn image(
    generator: Generator<'_>,
    goldens: &Goldens<'_>,
    name: &str,
    case: &Value,
) -> Result<Vec<Row>, ParityError> {
    let Subject {
        emu,
        config,
        device,
    } = generator.subject;
    let q = config.queries();
    let mut texts = vec![];
    for text in strings(case, "text")? {
        let marks = text.matches(RELEASED_MARK).count();
        texts.push(expand_pictures(text, marks, q)?);
    }
    // White space before [IMG] is dropped, so [IMG] must be present when the text is encoded.
    let asks: Vec<String> = texts
        .iter()
        .map(|text| format!("{text}{}", names::IMG))
        .collect();
    let mut ids: Vec<Vec<u32>> = asks
        .iter()
        .map(|text| generator.tokenizer.encode(text))
        .collect::<Result<_, _>>()?;
    for row in &mut ids {
        row.pop();
    }

    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut kept = vec![];
    for pictures in generator.assignments(goldens, &refs, &ids, case) {
        let mut made = vec![];
        for prompt in generator.prompts(&ids, &pictures)? {
            let embedder = ImageEmbedder::new(emu, config, &prompt, 0)?;
            made.push(embedder.run().await?.0);
        }
        let embeds = match made.is_empty() {
            true => Tensor::zeros([0, q, config.lm.width], device),
            false => Tensor::cat(made, 0), // [B, Q, D]
        };
        let mut rows = vec![];
        for key in goldens.names() {
            let Some(part) = key.strip_prefix(&format!("genimg.{name}.")) else {
                continue;
            };
            let step = part
                .strip_prefix("step")
                .and_then(|k| k.parse::<usize>().ok());
            match step {
                Some(k) if k < q => {
                    let so_far = embeds.clone().narrow(1, 0, k + 1);
                    rows.push(goldens.compare(key, &so_far, Bound::Forward));
                }
                None if part == "embeds" => {
                    rows.push(goldens.compare(key, &embeds, Bound::Forward));
                }
                _ => {}
            }
        }
        if settled(&mut kept, rows) {
            break;
        }
    }
    kept.extend(final_prompts(generator, goldens, name, case, &texts, &ids)?);
    Ok(kept)
}

/// Input of the original's last pass: the prompt, [IMG], all embeddings but the last; right-padded.
fn final_prompts(
    generator: Generator<'_>,
    goldens: &Goldens<'_>,
    name: &str,
    case: &Value,
    texts: &[String],
    ids: &[Vec<u32>],
) -> Result<Vec<Row>, ParityError> {
    let config = generator.subject.config;
    let (special, fed) = (&config.special, config.queries().saturating_sub(1));
    let mut rows = vec![];
    let full: Vec<Vec<u32>> = ids
        .iter()
        .map(|row| {
            let tail = std::iter::once(special.img).chain(std::iter::repeat_n(special.image, fed));
            row.iter().copied().chain(tail).collect()
        })
        .collect();
    let width = full.iter().map(Vec::len).max().unwrap_or(0);
    let padded = |fill: u32, value: &dyn Fn(u32) -> u32| -> Vec<u32> {
        let row = |row: &Vec<u32>| {
            let mut row: Vec<u32> = row.iter().map(|&id| value(id)).collect();
            row.resize(width, fill);
            row
        };
        full.iter().flat_map(row).collect()
    };
    for (part, got) in [
        ("final_input_ids", padded(special.pad, &|id| id)),
        ("final_attention_mask", padded(0, &|_| 1)),
    ] {
        let key = format!("genimg.{name}.{part}");
        if goldens.has(&key) {
            rows.push(exact(&key, &got, &goldens.token_rows(&key)?.concat()));
        }
    }
    if let Some(want) = case.get("final_text") {
        let got: Vec<String> = texts
            .iter()
            .map(|text| format!("{text}{}{}", names::IMG, names::IMAGE.repeat(fed)))
            .collect();
        let want: Vec<&str> = list(want).iter().filter_map(Value::as_str).collect();
        let got: Vec<&str> = got.iter().map(String::as_str).collect();
        rows.push(exact(&format!("genimg.{name}.final_text"), &got, &want));
    }
    Ok(rows)
}
