//! Rankings and features: `visdial.json`, `frechet.json`.

use serde::Deserialize;

use super::compare::Comparison;
use super::layout::{Layout, parse};
use crate::score::frechet::{Statistics, distance};
use crate::score::retrieval::Retrieval;
use crate::score::visdial::{ndcg, ndcg_bounds, ranks, sparse};

/// Error of a ranking's scores: the original computes in 32 bits.
const RANKING: f64 = 2e-6;
/// Error of a Frechet distance, relative above 1.
const DISTANCE: f64 = 1e-5;
/// Error of a mean or covariance.
const STATISTICS: f64 = 1e-9;

#[derive(Deserialize)]
struct Rounds {
    cases: Vec<Round>,
    expected_set: RecordedSet,
}

#[derive(Deserialize)]
struct Round {
    name: String,
    image_id: u64,
    scores: Vec<f64>,
    gt_index: usize,
    gt_relevance: Vec<f64>,
    #[serde(default)]
    ties: bool,
    expected: Expected,
}

/// What the original made of a round: a ranking, or bounds where scores are equal.
#[derive(Deserialize)]
struct Expected {
    ranks: Option<Vec<usize>>,
    gt_rank: Option<usize>,
    sparse: Option<Sparse>,
    ndcg: Option<f64>,
    ndcg_min: Option<f64>,
    ndcg_max: Option<f64>,
}

#[derive(Deserialize)]
struct Sparse {
    #[serde(rename = "r@1")]
    recall_1: f64,
    #[serde(rename = "r@5")]
    recall_5: f64,
    #[serde(rename = "r@10")]
    recall_10: f64,
    mean: f64,
    mrr: f64,
}

#[derive(Deserialize)]
struct RecordedSet {
    image_ids: Vec<u64>,
    #[serde(flatten)]
    sparse: Sparse,
    ndcg: f64,
}

/// Ranks, and the scores of rounds and of a set of them.
pub fn visdial(text: &str, comparison: &mut Comparison) -> Result<(), Layout> {
    let file: Rounds = parse(text)?;
    let mut of_set = Vec::new();
    for round in &file.cases {
        let wrong =
            |error: &dyn std::fmt::Display| Layout(format!("case {:?}: {error}", round.name));
        let ranks = ranks(&round.scores).map_err(|error| wrong(&error))?;
        let rank = *ranks
            .get(round.gt_index)
            .ok_or_else(|| wrong(&"gt_index is out of range"))?;
        let gain = ndcg(&ranks, &round.gt_relevance).map_err(|error| wrong(&error))?;
        let label = |what: &str| format!("{}: {what}", round.name);
        if file.expected_set.image_ids.contains(&round.image_id) {
            of_set.push((rank, gain));
        }
        if round.ties {
            let bounds =
                ndcg_bounds(&round.scores, &round.gt_relevance).map_err(|error| wrong(&error))?;
            let (least, most) = bounds.unwrap_or((f64::NAN, f64::NAN));
            let recorded = |bound: Option<f64>| bound.ok_or_else(|| wrong(&"ties without bounds"));
            let (low, high) = (
                recorded(round.expected.ndcg_min)?,
                recorded(round.expected.ndcg_max)?,
            );
            comparison.absolute(label("least NDCG"), least, low, RANKING);
            comparison.absolute(label("greatest NDCG"), most, high, RANKING);
            let gain = gain.unwrap_or(f64::NAN);
            comparison.absolute(label("NDCG"), gain, gain.clamp(low, high), RANKING);
            continue;
        }
        let expected = &round.expected;
        let (Some(recorded_ranks), Some(recorded_rank), Some(recorded)) =
            (&expected.ranks, expected.gt_rank, &expected.sparse)
        else {
            return Err(wrong(&"ranks, gt_rank or sparse is missing"));
        };
        comparison.equal(label("ranks"), &ranks, recorded_ranks);
        comparison.equal(label("rank of the true answer"), rank, recorded_rank);
        let found = sparse(&[rank]).map_err(|error| wrong(&error))?;
        compare_sparse(&round.name, &found, recorded, comparison);
        match (gain, expected.ndcg) {
            (Some(found), Some(recorded)) => {
                comparison.absolute(label("NDCG"), found, recorded, RANKING)
            }
            (found, recorded) => comparison.equal(label("NDCG"), found, recorded),
        }
    }

    if of_set.len() != file.expected_set.image_ids.len() {
        return Err(Layout(
            "expected_set names a picture that is not among the cases".into(),
        ));
    }
    let ranks: Vec<usize> = of_set.iter().map(|(rank, _)| *rank).collect();
    let found = sparse(&ranks).map_err(|error| Layout(error.to_string()))?;
    compare_sparse("set", &found, &file.expected_set.sparse, comparison);
    let gains: Vec<f64> = of_set.iter().filter_map(|(_, gain)| *gain).collect();
    let mean = gains.iter().sum::<f64>() / gains.len() as f64;
    comparison.absolute("set: NDCG", mean, file.expected_set.ndcg, RANKING);
    Ok(())
}

fn compare_sparse(name: &str, found: &Retrieval, recorded: &Sparse, comparison: &mut Comparison) {
    for (what, found, recorded) in [
        ("R@1", found.recall_1, recorded.recall_1),
        ("R@5", found.recall_5, recorded.recall_5),
        ("R@10", found.recall_10, recorded.recall_10),
        ("mean rank", found.mean_rank, recorded.mean),
        ("MRR", found.mean_reciprocal_rank, recorded.mrr),
    ] {
        comparison.relative(format!("{name}: {what}"), found, recorded, RANKING);
    }
}

#[derive(Deserialize)]
struct FeatureSets {
    cases: Vec<FeatureSet>,
}

#[derive(Deserialize)]
struct FeatureSet {
    name: String,
    features_a: Vec<Vec<f64>>,
    features_b: Vec<Vec<f64>>,
    #[serde(default)]
    mean_a: Option<Vec<f64>>,
    #[serde(default)]
    cov_a: Option<Vec<Vec<f64>>>,
    expected: f64,
}

/// Statistics and distances of features.
pub fn frechet(text: &str, comparison: &mut Comparison) -> Result<(), Layout> {
    for case in parse::<FeatureSets>(text)?.cases {
        let wrong =
            |error: &dyn std::fmt::Display| Layout(format!("case {:?}: {error}", case.name));
        let a = Statistics::of(&case.features_a).map_err(|error| wrong(&error))?;
        let b = Statistics::of(&case.features_b).map_err(|error| wrong(&error))?;
        let found = distance(&a, &b).map_err(|error| wrong(&error))?;
        for (what, found, recorded) in [
            ("mean", &a.mean, case.mean_a.clone()),
            (
                "covariance",
                &a.covariance,
                case.cov_a.as_ref().map(|rows| rows.concat()),
            ),
        ] {
            if let Some(recorded) = recorded {
                let name = format!("{}: {what}", case.name);
                comparison.absolute(name, greatest_difference(found, &recorded), 0.0, STATISTICS);
            }
        }
        let name = format!("{}: distance", case.name);
        if case.expected.abs() > 1.0 {
            comparison.relative(name, found, case.expected, DISTANCE);
        } else {
            comparison.absolute(name, found, case.expected, DISTANCE);
        }
    }
    Ok(())
}

/// NaN if the lengths differ.
fn greatest_difference(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() {
        return f64::NAN;
    }
    a.iter()
        .zip(b)
        .map(|(x, y)| (x - y).abs())
        .fold(0.0, f64::max)
}
