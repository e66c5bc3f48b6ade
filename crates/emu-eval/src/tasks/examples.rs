//! Few-shot examples: which of the training split stand in front of a question.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};

use super::error::EvalError;
use super::features::FeatureIndex;
use super::preset::Choice;
use super::question::Question;

/// Chooses examples for questions.
pub struct Chooser<'p, 'v> {
    pool: &'p [Question],
    k: usize,
    choice: Choice,
    one_per_picture: bool,
    seed: u64,
    /// Media of the pool in the order of their first question, with the questions about each.
    media: Vec<(&'p str, Vec<usize>)>,
    /// For [`Choice::Rices`]: vectors of the pool's media and of the questions' media.
    vectors: Option<(&'v FeatureIndex, &'v FeatureIndex)>,
    /// Nearest media of the pool, by medium of a question.
    nearest: HashMap<String, Vec<usize>>,
}

impl<'p, 'v> Chooser<'p, 'v> {
    /// A chooser of `k` examples from `pool`; `vectors` are those of the pool and of the questions.
    ///
    /// # Errors
    /// If the pool is too small, or vectors are needed and not there.
    pub fn new(
        pool: &'p [Question],
        k: usize,
        choice: Choice,
        one_per_picture: bool,
        seed: u64,
        vectors: Option<(&'v FeatureIndex, &'v FeatureIndex)>,
    ) -> Result<Self, EvalError> {
        let mut media: Vec<(&str, Vec<usize>)> = vec![];
        let mut place = HashMap::new();
        for (i, question) in pool.iter().enumerate() {
            let Some(first) = question.media.first() else {
                continue;
            };
            let at = *place.entry(first.name.as_str()).or_insert(media.len());
            match media.get_mut(at) {
                Some((_, questions)) => questions.push(i),
                None => media.push((first.name.as_str(), vec![i])),
            }
        }
        let room = if one_per_picture {
            media.len()
        } else {
            pool.len()
        };
        if room < k {
            return Err(EvalError::Examples(format!(
                "{k} are wanted, but the training split has only {room}"
            )));
        }
        if choice == Choice::Rices && vectors.is_none() {
            return Err(EvalError::Examples(
                "retrieval needs features. Have them computed, or give an index".to_owned(),
            ));
        }
        Ok(Self {
            pool,
            k,
            choice,
            one_per_picture,
            seed,
            media,
            vectors,
            nearest: HashMap::new(),
        })
    }

    /// The examples for a question, in the order of the prompt; with retrieval the most similar is last. A picture
    /// never is an example for itself.
    ///
    /// # Errors
    /// If the question's picture has no vector: a sentence.
    pub fn choose(&mut self, question: &Question) -> Result<Vec<&'p Question>, String> {
        let own = question
            .media
            .first()
            .map_or("", |media| media.name.as_str());
        let chosen = match self.choice {
            Choice::Fixed => self.drawn("", own),
            Choice::Random => self.drawn(&question.id, own),
            Choice::Rices => self.retrieved(own)?,
        };
        match chosen.len() == self.k {
            true => Ok(chosen
                .into_iter()
                .filter_map(|at| self.pool.get(at))
                .collect()),
            false => Err(format!(
                "only {} of {} examples have another picture with features",
                chosen.len(),
                self.k
            )),
        }
    }

    /// Questions drawn by the seed and `key`.
    fn drawn(&self, key: &str, own: &str) -> Vec<usize> {
        let picture = |at: usize| {
            self.pool
                .get(at)
                .and_then(|question| question.media.first())
                .map(|media| &media.name)
        };
        let mut random = Random::new(self.seed, key);
        let mut seen = HashSet::new();
        let mut chosen: Vec<usize> = vec![];
        while chosen.len() < self.k && seen.len() < self.pool.len() {
            let at = random.below(self.pool.len());
            let shown = picture(at);
            let again = self.one_per_picture && chosen.iter().any(|other| picture(*other) == shown);
            if seen.insert(at) && !again && shown.is_some_and(|name| name != own) {
                chosen.push(at);
            }
        }
        chosen
    }

    /// Questions about the most similar pictures; the most similar last.
    fn retrieved(&mut self, own: &str) -> Result<Vec<usize>, String> {
        let each = if self.one_per_picture { 1 } else { self.k };
        let mut chosen = vec![];
        for at in self.similar(own)? {
            let questions = self
                .media
                .get(at)
                .map_or(&[][..], |(_, questions)| questions.as_slice());
            chosen.extend(questions.iter().take(each.min(self.k - chosen.len())));
        }
        chosen.reverse();
        Ok(chosen)
    }

    /// Media by falling similarity; of equals the first in the file.
    fn similar(&mut self, own: &str) -> Result<Vec<usize>, String> {
        if let Some(known) = self.nearest.get(own) {
            return Ok(known.clone());
        }
        let (pool, questions) = self.vectors.ok_or("there are no features")?;
        let query = questions
            .vector(own)
            .ok_or_else(|| format!("no features of {own}"))?;
        let mut best: Vec<(f32, usize)> = vec![];
        for (at, (name, _)) in self.media.iter().enumerate() {
            let Some(vector) = pool.vector(name).filter(|_| *name != own) else {
                continue;
            };
            let similarity = dot(query, vector)?;
            let place = best.partition_point(|(better, _)| *better >= similarity);
            if place < self.k {
                best.insert(place, (similarity, at));
                best.truncate(self.k);
            }
        }
        let order: Vec<_> = best.into_iter().map(|(_, at)| at).collect();
        self.nearest.insert(own.to_owned(), order.clone());
        Ok(order)
    }
}

/// Dot product, in eight sums so that it vectorizes; the same on every machine.
fn dot(a: &[f32], b: &[f32]) -> Result<f32, String> {
    if a.len() != b.len() {
        return Err(format!(
            "features of questions have {} numbers, those of examples {}",
            a.len(),
            b.len()
        ));
    }
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    Ok(sums.iter().sum::<f32>() + rest)
}

/// Random numbers from a seed and a key (SplitMix64).
pub struct Random(u64);

impl Random {
    /// The stream of a seed and a key.
    pub fn new(seed: u64, key: &str) -> Self {
        Self(key_of(seed, key))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which must not be 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

/// First eight bytes of the SHA-256 of a seed and a key.
pub fn key_of(seed: u64, key: &str) -> u64 {
    let hash = Sha256::new()
        .chain_update(seed.to_le_bytes())
        .chain_update(key.as_bytes())
        .finalize();
    hash.iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::{Media, MediaKind, Truth};

    fn question(id: &str, picture: &str) -> Question {
        let media = Media {
            kind: MediaKind::Picture,
            name: picture.to_owned(),
            path: picture.into(),
        };
        Question::new(
            id.to_owned(),
            vec![media],
            "?".into(),
            Truth::Exact(vec!["!".into()]),
        )
    }

    fn index(folder: &tempfile::TempDir, name: &str, rows: &[(&str, [f32; 2])]) -> FeatureIndex {
        let path = folder.path().join(name);
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, row)| ((*name).to_owned(), row.to_vec()))
            .collect();
        FeatureIndex::write(&path, "test", &rows).expect("write");
        FeatureIndex::read(&path).expect("read")
    }

    fn ids(chosen: &[&Question]) -> Vec<String> {
        chosen.iter().map(|question| question.id.clone()).collect()
    }

    #[test]
    fn retrieval_puts_the_most_similar_last() {
        let folder = tempfile::tempdir().expect("folder");
        let pool: Vec<_> = [
            ("1", "far"),
            ("2", "near"),
            ("3", "nearest"),
            ("4", "near"),
            ("5", "twin"),
        ]
        .map(|(id, picture)| question(id, picture))
        .into();
        let rows = [
            ("far", [0.0, 1.0]),
            ("near", [1.0, 0.3]),
            ("nearest", [2.0, 0.0]),
            ("twin", [3.0, 0.0]),
        ];
        let vectors = index(&folder, "pool", &rows);
        let asked = index(
            &folder,
            "asked",
            &[("q", [1.0, 0.0]), ("nearest", [1.0, 0.0])],
        );
        let mut chooser = Chooser::new(&pool, 4, Choice::Rices, false, 0, Some((&vectors, &asked)))
            .expect("chooser");
        // Of the equally similar 3 and 5 the earlier one counts as more similar.
        assert_eq!(
            ids(&chooser.choose(&question("q", "q")).expect("examples")),
            ["4", "2", "5", "3"]
        );
        let mut one = Chooser::new(&pool, 3, Choice::Rices, true, 0, Some((&vectors, &asked)))
            .expect("chooser");
        assert_eq!(
            ids(&one.choose(&question("q", "q")).expect("examples")),
            ["2", "5", "3"]
        );
        // Not itself.
        assert_eq!(
            ids(&one.choose(&question("q", "nearest")).expect("examples")),
            ["1", "2", "5"]
        );
        let error = one.choose(&question("q", "unseen")).expect_err("no vector");
        assert!(error.contains("unseen"), "{error}");
    }

    #[test]
    fn drawn_examples_depend_on_seed_and_question_only() {
        let pool: Vec<_> = (0..40)
            .map(|i| question(&i.to_string(), &format!("p{i}")))
            .collect();
        let draw = |choice, seed, id: &str| {
            let mut chooser = Chooser::new(&pool, 4, choice, false, seed, None).expect("chooser");
            ids(&chooser.choose(&question(id, "q")).expect("examples"))
        };
        assert_eq!(draw(Choice::Fixed, 1, "a"), draw(Choice::Fixed, 1, "b"));
        assert_ne!(draw(Choice::Fixed, 1, "a"), draw(Choice::Fixed, 2, "a"));
        assert_eq!(draw(Choice::Random, 1, "a"), draw(Choice::Random, 1, "a"));
        assert_ne!(draw(Choice::Random, 1, "a"), draw(Choice::Random, 1, "b"));
        for i in 0..40 {
            let mut chooser =
                Chooser::new(&pool, 39, Choice::Fixed, false, 3, None).expect("chooser");
            let chosen = ids(&chooser
                .choose(&question("x", &format!("p{i}")))
                .expect("examples"));
            assert!(chosen.len() == 39 && !chosen.contains(&i.to_string()));
        }
    }

    #[test]
    fn too_few_examples_or_no_features_are_errors() {
        let pool = [question("1", "a"), question("2", "a")];
        let error = |k, choice, one| {
            Chooser::new(&pool, k, choice, one, 0, None)
                .err()
                .expect("error")
                .to_string()
        };
        assert!(error(3, Choice::Fixed, false).contains("only 2"));
        assert!(error(2, Choice::Fixed, true).contains("only 1"));
        assert!(error(1, Choice::Rices, false).contains("retrieval needs features"));
        assert!(dot(&[1.0], &[1.0, 2.0]).is_err());
        let long: Vec<f32> = (0..19).map(|i| i as f32).collect();
        assert_eq!(dot(&long, &long).expect("dot"), 2109.0);
    }
}
