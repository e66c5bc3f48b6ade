//! What the cases of the golden JSON leave open: which images belong to a prompt. Also helpers for lists.

use burn::tensor::{Int, Tensor, TensorData};
use emu_tokenizer::names;
use serde_json::Value;

use super::generator::Generator;
use super::{Goldens, ParityError, Row};
use crate::generate::Prompt;

/// Keeps the rows of the first assignment of images, or of the one that fits; returns whether it fits.
pub(super) fn settled(kept: &mut Vec<Row>, rows: Vec<Row>) -> bool {
    let fits = rows.iter().all(Row::passes);
    if fits || kept.is_empty() {
        *kept = rows;
    }
    fits
}

impl Generator<'_> {
    /// Candidate assignments of images, as lists of image numbers for all prompts in order.
    ///
    /// A case lists its images or states only their number. In the latter case the goldens' `texts` decide: a prompt
    /// that is the start of one of them has its images. Otherwise the candidates are the first or the last images; the
    /// numerical comparison then identifies the right one unambiguously.
    pub(super) fn assignments(
        &self,
        goldens: &Goldens<'_>,
        prompts: &[&str],
        ids: &[Vec<u32>],
        case: &Value,
    ) -> Vec<Vec<usize>> {
        let rows = case.get("image_rows").unwrap_or(&Value::Null);
        if let Some(listed) = rows.as_array() {
            let listed = listed.iter().filter_map(Value::as_u64);
            return vec![listed.map(|i| i as usize).collect()];
        }
        let wanted: Vec<usize> = ids.iter().map(|row| self.pictures_in(row)).collect();
        let n: usize = wanted.iter().sum();
        let [held, ..] = self.visual.dims();
        if n == 0 || n > held {
            return vec![(0..n).collect()];
        }
        let mut found: Vec<Vec<usize>> = vec![];
        found.extend(by_texts(goldens, prompts, &wanted));
        found.push((0..n).collect());
        found.push((held - n..held).collect());
        // One image for several prompts, or any other single one.
        if n == 1 {
            found.extend((0..held).map(|i| vec![i]));
        }
        let mut distinct: Vec<Vec<usize>> = vec![];
        for list in found {
            if !distinct.contains(&list) {
                distinct.push(list);
            }
        }
        distinct
    }

    fn pictures_in(&self, ids: &[u32]) -> usize {
        let config = self.subject.config;
        let marks = ids.iter().filter(|&&id| id == config.special.image).count();
        marks / config.queries().max(1)
    }

    /// Prompts with their images, assigned in order.
    pub(super) fn prompts(
        &self,
        ids: &[Vec<u32>],
        pictures: &[usize],
    ) -> Result<Vec<Prompt>, ParityError> {
        let [held, ..] = self.visual.dims();
        if let Some(&absent) = pictures.iter().find(|&&i| i >= held) {
            return Err(ParityError::Json(format!(
                "image_rows: there is no picture {absent}"
            )));
        }
        let mut rest = pictures.iter();
        let prompt = |ids: &Vec<u32>| {
            let own = rest.by_ref().take(self.pictures_in(ids));
            let own: Vec<i32> = own.map(|&i| i as i32).collect();
            let visual = (!own.is_empty()).then(|| {
                let n = own.len();
                let index = TensorData::new(own, [n]);
                let index: Tensor<1, Int> = Tensor::from_data(index, self.subject.device);
                self.visual.clone().select(0, index)
            });
            Prompt {
                visual,
                ..Prompt::text(ids.clone())
            }
        };
        Ok(ids.iter().map(prompt).collect())
    }
}

/// Images of the texts that start with the prompts, if each prompt with images is the start of one.
fn by_texts(goldens: &Goldens<'_>, prompts: &[&str], wanted: &[usize]) -> Option<Vec<usize>> {
    let texts = list(goldens.json.get("texts")?);
    let mut starts = vec![];
    let mut next = 0;
    for text in texts {
        let text = text.as_str()?;
        starts.push((text, next));
        next += text.matches(names::END_IMG).count();
    }
    let mut pictures = vec![];
    for (prompt, &n) in prompts.iter().zip(wanted).filter(|(_, n)| **n > 0) {
        let (_, start) = starts.iter().find(|(text, _)| text.starts_with(prompt))?;
        pictures.extend(*start..start + n);
    }
    Some(pictures)
}

/// Elements of a list; empty for anything else.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Leaves of nested lists, in order.
pub(super) fn flat(value: &Value) -> Vec<&Value> {
    match value.as_array() {
        Some(values) => values.iter().flat_map(flat).collect(),
        None => vec![value],
    }
}

pub(super) fn numbers(value: &Value) -> Vec<f32> {
    let leaves = flat(value).into_iter();
    leaves
        .map(|v| v.as_f64().map_or(f32::NAN, |n| n as f32))
        .collect()
}

pub(super) fn json_rows(value: Option<&Value>) -> Option<Vec<Vec<u32>>> {
    serde_json::from_value(value?.clone()).ok()
}

pub(super) fn strings<'a>(value: &'a Value, key: &str) -> Result<Vec<&'a str>, ParityError> {
    let texts = value.get(key).and_then(Value::as_array);
    let texts = texts.and_then(|texts| texts.iter().map(Value::as_str).collect());
    texts.ok_or_else(|| ParityError::Json(format!("list of texts {key}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_assignment_is_kept_only_until_one_fits() {
        let (bad, good) = (Row::new("a", 2.0, 1.0), Row::new("a", 0.0, 1.0));
        let mut kept = vec![];
        assert!(!settled(&mut kept, vec![bad.clone()]));
        assert_eq!(kept, [bad]);
        assert!(settled(&mut kept, vec![good.clone()]));
        assert_eq!(kept, [good]);
    }
}
