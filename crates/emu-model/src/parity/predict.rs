//! Ranked candidates against the goldens.

use serde_json::Value;

use super::cases::{flat, list, numbers, settled};
use super::core::Subject;
use super::generate::Generator;
use super::{Bound, Goldens, ParityError, Row, compare, exact};
use crate::generate::rank_losses;

/// Candidates by loss. The original evaluates them in segments and compares losses across segments, although each
/// segment divides by its own length.
pub(super) async fn predict(
    generator: Generator<'_>,
    goldens: &Goldens<'_>,
    name: &str,
    case: &Value,
) -> Result<Vec<Row>, ParityError> {
    let lacks = |what: &str| ParityError::Json(format!("predict.{name}.{what}"));
    let losses = case.get("losses").ok_or_else(|| lacks("losses"))?;
    let ranks = case.get("ranks").ok_or_else(|| lacks("ranks"))?;
    let candidates = case.get("candidates").ok_or_else(|| lacks("candidates"))?;
    let segments = case
        .get("n_segments")
        .and_then(Value::as_u64)
        .unwrap_or(1)
        .max(1) as usize;
    let listed: Vec<&str> = match case.get("prompt").ok_or_else(|| lacks("prompt"))? {
        Value::String(one) => vec![one.as_str(); list(ranks).len().max(1)],
        many => list(many).iter().filter_map(Value::as_str).collect(),
    };
    let own_candidates = list(candidates).iter().all(Value::is_array);
    let ids: Vec<Vec<u32>> = listed
        .iter()
        .map(|prompt| generator.tokenizer.encode(prompt))
        .collect::<Result<_, _>>()?;

    let mut kept = vec![];
    for pictures in generator.assignments(goldens, &listed, &ids, case) {
        let prompts = generator.prompts(&ids, &pictures)?;
        let mut found = vec![vec![]; prompts.len()];
        for (i, prompt) in prompts.iter().enumerate() {
            let texts = match own_candidates {
                true => list(candidates).get(i).map_or(&[][..], |own| list(own)),
                false => list(candidates),
            };
            for segment in split(texts, segments) {
                let tokens: Vec<Vec<u32>> = segment
                    .iter()
                    .map(|text| {
                        let text = text.as_str().unwrap_or_default();
                        generator.tokenizer.encode_without_bos(text)
                    })
                    .collect::<Result<_, _>>()?;
                let Subject { emu, config, .. } = generator.subject;
                found[i].extend(rank_losses(emu, config, prompt, &tokens).await?);
            }
        }
        let order: Vec<u64> = found.iter().flat_map(|losses| ascending(losses)).collect();
        let want: Vec<u64> = flat(ranks).into_iter().filter_map(Value::as_u64).collect();
        let rows = vec![
            exact(&format!("predict.{name}.ranks"), &order, &want),
            compare(
                &format!("predict.{name}.losses"),
                &found.concat(),
                &numbers(losses),
                Bound::Forward,
            ),
        ];
        if settled(&mut kept, rows) {
            break;
        }
    }
    Ok(kept)
}

/// Splits into equal parts; the last one takes the remainder.
fn split<T>(all: &[T], parts: usize) -> Vec<&[T]> {
    let size = all.len() / parts;
    (0..parts)
        .map(|i| match i + 1 == parts {
            true => &all[i * size..],
            false => &all[i * size..(i + 1) * size],
        })
        .collect()
}

fn ascending(losses: &[f32]) -> Vec<u64> {
    let mut order: Vec<u64> = (0..losses.len() as u64).collect();
    order.sort_by(|&a, &b| losses[a as usize].total_cmp(&losses[b as usize]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_take_what_is_left() {
        assert_eq!(split(&[1, 2, 3, 4, 5], 2), [&[1, 2][..], &[3, 4, 5]]);
        assert_eq!(split(&[1, 2], 1), [&[1, 2]]);
    }
}
