//! Captions as COCO scores them: tokens, then BLEU, ROUGE-L and CIDEr.

use serde::{Deserialize, Serialize};

use crate::score::caption::{Caption, Scored};
use crate::score::error::ScoreError;
use crate::score::ptb::Tokenizer;
use crate::score::{bleu, cider, rouge};

/// The scores of one caption or of a set, as fractions: published numbers are 100 times these.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// BLEU-1 to BLEU-4.
    pub bleu: [f64; 4],
    /// ROUGE-L.
    pub rouge_l: f64,
    /// CIDEr, between 0 and 10. That of one caption depends on the references of the whole set.
    pub cider: f64,
}

/// The same captions with every text replaced by its tokens, separated by spaces.
pub fn tokenize(captions: &[Caption]) -> Vec<Caption> {
    let mut tokenizer = Tokenizer::new();
    captions
        .iter()
        .map(|caption| Caption {
            hypothesis: tokenizer.tokenize(&caption.hypothesis),
            references: caption
                .references
                .iter()
                .map(|text| tokenizer.tokenize(text))
                .collect(),
        })
        .collect()
}

/// Tokenizes captions and references, and scores them.
///
/// # Errors
/// No captions, or a caption without reference.
pub fn score(captions: &[Caption]) -> Result<Scored<Scores>, ScoreError> {
    score_tokens(&tokenize(captions))
}

/// Scores captions and references that are tokens separated by spaces.
///
/// # Errors
/// No captions, or a caption without reference.
pub fn score_tokens(captions: &[Caption]) -> Result<Scored<Scores>, ScoreError> {
    let bleu = bleu::score(captions)?;
    let rouge = rouge::score(captions)?;
    let cider = cider::score(captions)?;
    let scores = |bleu, rouge_l, cider| Scores {
        bleu,
        rouge_l,
        cider,
    };
    let items = bleu.items.iter().zip(&rouge.items).zip(&cider.items);
    Ok(Scored {
        corpus: scores(bleu.corpus, rouge.corpus, cider.corpus),
        items: items.map(|((b, r), c)| scores(*b, *r, *c)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caption(hypothesis: &str, references: &[&str]) -> Caption {
        Caption {
            hypothesis: hypothesis.into(),
            references: references.iter().map(|text| text.to_string()).collect(),
        }
    }

    #[test]
    fn texts_are_tokenized_before_they_are_compared() {
        let set = [
            caption("A dog's ball!", &["a dog 's ball", "the ball of a dog"]),
            caption("two cats", &["Two cats."]),
        ];
        let scores = score(&set).expect("scores");
        assert!(scores.items[0].bleu[3] > 0.999, "{scores:?}");
        assert!(scores.items[1].cider > 4.99, "{scores:?}");
        assert!(score_tokens(&set).expect("scores").items[0].bleu[3] < 0.1);
    }

    #[test]
    fn sets_without_score() {
        assert_eq!(score(&[]), Err(ScoreError::Empty));
        let set = [caption("a", &["a"]), caption("b", &[])];
        assert_eq!(score(&set), Err(ScoreError::NoReference { item: 1 }));
    }
}
