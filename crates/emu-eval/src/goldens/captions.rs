//! Captions: `captions.json`, `captions_pretokenized.json`, `ptb_tokens.json`.

use serde::Deserialize;

use super::compare::Comparison;
use super::layout::{Layout, parse};
use crate::score::captions::{Scores, score_tokens, tokenize};
use crate::score::ptb::Tokenizer;
use crate::score::{Caption, Scored};

/// Relative error of the scores of captions.
const BOUND: f64 = 1e-9;
/// Share of the odd strings of `ptb_tokens.json` that may have other tokens.
const ODD_STRINGS: f64 = 0.05;

#[derive(Deserialize)]
struct Corpus {
    #[serde(default)]
    name: Option<String>,
    items: Vec<Item>,
    expected_corpus: Expected,
}

#[derive(Deserialize)]
struct Item {
    id: String,
    #[serde(default)]
    hypothesis: Option<String>,
    #[serde(default)]
    references: Vec<String>,
    hypothesis_tokens: String,
    references_tokens: Vec<String>,
    expected: Expected,
}

#[derive(Deserialize)]
struct Expected {
    #[serde(rename = "Bleu_1")]
    bleu_1: f64,
    #[serde(rename = "Bleu_2")]
    bleu_2: f64,
    #[serde(rename = "Bleu_3")]
    bleu_3: f64,
    #[serde(rename = "Bleu_4")]
    bleu_4: f64,
    #[serde(rename = "ROUGE_L")]
    rouge_l: f64,
    #[serde(rename = "CIDEr")]
    cider: f64,
}

/// Tokens of captions and references, and the scores computed from the captions.
pub fn texts(text: &str, comparison: &mut Comparison) -> Result<(), Layout> {
    let corpus: Corpus = parse(text)?;
    let mut captions = Vec::new();
    for item in &corpus.items {
        let hypothesis = item.hypothesis.clone();
        captions.push(Caption {
            hypothesis: hypothesis
                .ok_or_else(|| Layout(format!("item {} has no hypothesis", item.id)))?,
            references: item.references.clone(),
        });
        if item.references.len() != item.references_tokens.len() {
            return Err(Layout(format!(
                "item {} has other numbers of references and of their tokens",
                item.id
            )));
        }
    }
    let tokens = tokenize(&captions);
    for (item, found) in corpus.items.iter().zip(&tokens) {
        comparison.equal(
            format!("{} hypothesis", item.id),
            &found.hypothesis,
            &item.hypothesis_tokens,
        );
        for (number, (found, recorded)) in found
            .references
            .iter()
            .zip(&item.references_tokens)
            .enumerate()
        {
            comparison.equal(
                format!("{} reference {}", item.id, number + 1),
                found,
                recorded,
            );
        }
    }
    scores(&corpus, &tokens, comparison)
}

/// Scores of tokens.
pub fn tokens(text: &str, comparison: &mut Comparison) -> Result<(), Layout> {
    #[derive(Deserialize)]
    struct File {
        corpora: Vec<Corpus>,
    }
    for corpus in parse::<File>(text)?.corpora {
        let captions: Vec<Caption> = corpus
            .items
            .iter()
            .map(|item| Caption {
                hypothesis: item.hypothesis_tokens.clone(),
                references: item.references_tokens.clone(),
            })
            .collect();
        scores(&corpus, &captions, comparison)?;
    }
    Ok(())
}

fn scores(corpus: &Corpus, tokens: &[Caption], comparison: &mut Comparison) -> Result<(), Layout> {
    let Scored {
        corpus: of_all,
        items,
    } = score_tokens(tokens).map_err(|error| Layout(error.to_string()))?;
    for (item, found) in corpus.items.iter().zip(&items) {
        one(&item.id, found, &item.expected, comparison);
    }
    let name = corpus.name.as_deref().unwrap_or("corpus");
    one(name, &of_all, &corpus.expected_corpus, comparison);
    Ok(())
}

fn one(name: &str, found: &Scores, recorded: &Expected, comparison: &mut Comparison) {
    for (metric, found, recorded) in [
        ("BLEU-1", found.bleu[0], recorded.bleu_1),
        ("BLEU-2", found.bleu[1], recorded.bleu_2),
        ("BLEU-3", found.bleu[2], recorded.bleu_3),
        ("BLEU-4", found.bleu[3], recorded.bleu_4),
        ("ROUGE-L", found.rouge_l, recorded.rouge_l),
        ("CIDEr", found.cider, recorded.cider),
    ] {
        comparison.relative(format!("{name} {metric}"), found, recorded, BOUND);
    }
}

/// Tokens of odd strings.
pub fn ptb(text: &str, comparison: &mut Comparison) -> Result<(), Layout> {
    #[derive(Deserialize)]
    struct File {
        cases: Vec<OddString>,
    }
    #[derive(Deserialize)]
    struct OddString {
        input: String,
        expected: String,
    }
    let mut tokenizer = Tokenizer::new();
    for case in parse::<File>(text)?.cases {
        comparison.equal(
            format!("{:?}", case.input),
            tokenizer.tokenize(&case.input),
            case.expected,
        );
    }
    comparison.allow(ODD_STRINGS);
    Ok(())
}
