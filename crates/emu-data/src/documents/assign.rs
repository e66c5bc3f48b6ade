//! Which picture belongs to which sentence: linear assignment.

/// For each picture the sentence it is assigned to, so that the sum of similarities is largest: the Hungarian method with
/// potentials (Kuhn 1955, Munkres 1957; in the form of shortest augmenting paths), O(P² S) for P pictures and S sentences.
/// With more pictures than sentences, those that remain go to their most similar sentence, so that several pictures can
/// share one, as in MMC4; so do those for which only unknown similarities (no numbers) are left.
///
/// # Shapes
/// - `similarity`: `[P][S]`
/// - returns `[P]`; `None` for a picture without similarities
pub(super) fn assign(similarity: &[Vec<f64>]) -> Vec<Option<usize>> {
    let sentences = similarity.iter().map(Vec::len).max().unwrap_or(0);
    if sentences == 0 {
        return vec![None; similarity.len()];
    }
    let value = |picture: usize, sentence: usize| {
        let found = similarity[picture].get(sentence).copied();
        found.filter(|value| value.is_finite()).unwrap_or(-1.0)
    };
    let pictures = similarity.len();
    let mut assigned = vec![None; pictures];
    // The method needs at least as many columns as rows.
    if pictures <= sentences {
        let rows = hungarian(pictures, sentences, |p, s| -value(p, s));
        for (picture, sentence) in rows.into_iter().enumerate() {
            assigned[picture] = Some(sentence);
        }
    } else {
        let rows = hungarian(sentences, pictures, |s, p| -value(p, s));
        for (sentence, picture) in rows.into_iter().enumerate() {
            assigned[picture] = Some(sentence);
        }
    }
    for (picture, place) in assigned.iter_mut().enumerate() {
        let known = |sentence: usize| {
            similarity[picture]
                .get(sentence)
                .is_some_and(|v| v.is_finite())
        };
        if !place.is_some_and(known) {
            let best = (0..sentences).max_by(|a, b| {
                // of equal ones the first
                value(picture, *a)
                    .total_cmp(&value(picture, *b))
                    .then(b.cmp(a))
            });
            *place = best;
        }
    }
    assigned
}

/// The column of each row with the smallest sum of costs, for `rows <= columns`.
fn hungarian(rows: usize, columns: usize, cost: impl Fn(usize, usize) -> f64) -> Vec<usize> {
    // Row 0 and column 0 are the virtual start of every augmenting path.
    let mut row_potential = vec![0.0; rows + 1];
    let mut column_potential = vec![0.0; columns + 1];
    let mut row_of = vec![0; columns + 1];
    for row in 1..=rows {
        row_of[0] = row;
        let mut column = 0;
        let mut least = vec![f64::INFINITY; columns + 1];
        let mut before = vec![0; columns + 1];
        let mut visited = vec![false; columns + 1];
        // 1. shortest path from this row to a free column
        while row_of[column] != 0 {
            visited[column] = true;
            let current = row_of[column];
            let (mut step, mut next) = (f64::INFINITY, 0);
            for other in 1..=columns {
                if visited[other] {
                    continue;
                }
                let reduced =
                    cost(current - 1, other - 1) - row_potential[current] - column_potential[other];
                if reduced < least[other] {
                    least[other] = reduced;
                    before[other] = column;
                }
                if least[other] < step {
                    step = least[other];
                    next = other;
                }
            }
            for other in 0..=columns {
                if visited[other] {
                    row_potential[row_of[other]] += step;
                    column_potential[other] -= step;
                } else {
                    least[other] -= step;
                }
            }
            column = next;
        }
        // 2. flip the assignments along it
        while column != 0 {
            row_of[column] = row_of[before[column]];
            column = before[column];
        }
    }
    let mut column_of = vec![0; rows];
    for column in 1..=columns {
        if row_of[column] != 0 {
            column_of[row_of[column] - 1] = column - 1;
        }
    }
    column_of
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_best_sum_wins_over_the_best_picture() {
        // Both prefer sentence 0; the sum is larger if the first gives way.
        let similarity = vec![vec![0.9, 0.8, 0.1], vec![0.9, 0.1, 0.0]];
        assert_eq!(assign(&similarity), [Some(1), Some(0)]);
    }

    #[test]
    fn pictures_that_remain_share_a_sentence() {
        let similarity = vec![vec![0.2], vec![0.9], vec![0.3]];
        assert_eq!(assign(&similarity), [Some(0); 3]);
        let two = vec![vec![0.1, 0.4], vec![0.9, 0.3], vec![0.8, 0.2]];
        assert_eq!(assign(&two), [Some(1), Some(0), Some(0)]);
    }

    #[test]
    fn missing_and_broken_numbers() {
        assert_eq!(assign(&[]), []);
        assert_eq!(assign(&[vec![], vec![]]), [None, None]);
        let ragged = vec![vec![f64::NAN, 0.1], vec![0.5]];
        assert_eq!(assign(&ragged), [Some(1), Some(0)]);
    }

    /// The best sum by trying all assignments.
    fn best(similarity: &[Vec<f64>], picture: usize, used: &mut Vec<bool>) -> f64 {
        if picture == similarity.len() {
            return 0.0;
        }
        let mut found = f64::NEG_INFINITY;
        for sentence in 0..used.len() {
            if !used[sentence] {
                used[sentence] = true;
                let rest = best(similarity, picture + 1, used);
                found = found.max(similarity[picture][sentence] + rest);
                used[sentence] = false;
            }
        }
        found
    }

    proptest! {
        #[test]
        fn equals_the_best_of_all_assignments(
            values in proptest::collection::vec(proptest::collection::vec(-1.0..1.0f64, 5), 0..5)
        ) {
            let places = assign(&values);
            let mut used = [false; 5];
            let mut sum = 0.0;
            for (picture, place) in places.iter().enumerate() {
                let place = place.expect("assigned");
                prop_assert!(!used[place], "every sentence has one picture");
                used[place] = true;
                sum += values[picture][place];
            }
            prop_assert!((sum - best(&values, 0, &mut vec![false; 5])).abs() < 1e-9);
        }
    }
}
