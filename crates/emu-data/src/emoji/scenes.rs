//! Scenes and single drawings of all splits.

use super::compose::{Composer, Plan, Pool};
use super::holdout::Unseen;
use crate::record::{Drawing, Layout, Record, Scene};
use crate::rng::Rng;
use crate::{DataError, Picture};

/// A split of the scenes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Training data.
    Train,
    /// Known concepts, held-out drawings.
    Val,
    /// Known concepts in unseen drawing styles.
    T1,
    /// Unseen concepts.
    T2,
    /// Unseen combinations of known drawings.
    T3,
}

impl Split {
    /// Its name in folders and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::T1 => "t1",
            Self::T2 => "t2",
            Self::T3 => "t3",
        }
    }
}

/// A sample before it is written: its record and pictures.
#[derive(Debug, Clone)]
pub struct Made {
    /// The JSON member.
    pub record: Record,
    /// The pictures in order.
    pub pictures: Vec<Picture>,
}

/// Maximum number of random plans per scene.
const ATTEMPTS: usize = 10_000;

impl Composer<'_> {
    /// Generates random plans until one is accepted.
    pub(super) fn search(
        &self,
        what: impl Fn() -> String,
        rng: &mut Rng,
        mut draw: impl FnMut(&mut Rng) -> Option<Plan>,
    ) -> Result<Plan, DataError> {
        (0..ATTEMPTS)
            .find_map(|_| draw(rng))
            .ok_or_else(|| DataError::Impossible {
                what: what(),
                attempts: ATTEMPTS,
            })
    }

    /// A random plan of `count` different concepts, or copies of one concept, without held-out combinations.
    pub(super) fn train_plan(&self, count: usize, copies: bool, rng: &mut Rng) -> Option<Plan> {
        let plan = if copies {
            let concept = *rng.choose(&self.known)?;
            // Copies of one drawing or of several drawings: both are "two dogs".
            let same = rng.chance(0.5);
            let first = self.random_drawing(concept, Pool::Train, rng)?;
            let objects = (0..count)
                .map(|_| match same {
                    true => Some((concept, first)),
                    false => Some((concept, self.random_drawing(concept, Pool::Train, rng)?)),
                })
                .collect::<Option<_>>()?;
            Plan {
                colour: self.random_colour(rng),
                layout: random_layout(count, rng),
                objects,
            }
        } else {
            self.different_known(count, rng)?
        };
        self.unseen_in(&plan).is_empty().then_some(plan)
    }

    /// Scene `index` of a split.
    ///
    /// # Errors
    /// If no picture meets the split's constraints, or the split has no drawings.
    pub fn scene(&self, split: Split, index: u64) -> Result<Made, DataError> {
        let mut rng = Rng::new(self.seed, &format!("scene/{}", split.name()), index);
        let rng = &mut rng;
        let what = || format!("scene of {}", split.name());
        let (plan, unseen) = match split {
            Split::Train => {
                let kind = rng.unit();
                let (count, chance) = match kind {
                    k if k < 0.4 => (1, 0.0),
                    k if k < 0.9 => (2, 0.08),
                    _ => (3, 0.2),
                };
                let copies = rng.chance(chance);
                let plan = self.search(what, rng, |rng| self.train_plan(count, copies, rng))?;
                (plan, None)
            }
            Split::Val | Split::T1 => (self.drawing_plan(split, index, rng)?, None),
            Split::T2 => (self.concept_plan(index, rng)?, None),
            Split::T3 => {
                let kind = [Unseen::Pair, Unseen::Relation, Unseen::Colour][(index % 3) as usize];
                let plan = self.search(what, rng, |rng| {
                    let alone = kind == Unseen::Colour && index.is_multiple_of(2);
                    self.combination_plan(kind, if alone { 1 } else { 2 }, rng)
                })?;
                (plan, Some(kind.name().to_string()))
            }
        };
        if matches!(split, Split::Train | Split::Val) && !self.unseen_in(&plan).is_empty() {
            return Err(DataError::Concepts(format!(
                "a held-out combination reached {}",
                split.name()
            )));
        }
        let painted = self.paint(&plan, split == Split::Train, rng);
        let shown = self.shown(&plan);
        let colours = self.catalogue.list.colours.iter();
        let colours: Vec<&str> = colours.map(|colour| colour.name.as_str()).collect();
        let absent = self.absent(&plan, rng);
        Ok(Made {
            record: Record::Scene(Scene {
                split: split.name().into(),
                background: shown.colour.into(),
                layout: plan.layout,
                objects: painted.objects,
                caption: shown.caption(),
                qa: shown.questions(&absent, &colours, rng),
                unseen,
            }),
            pictures: vec![painted.picture],
        })
    }

    /// Known concepts: in val, a held-out drawing alone or with any other; in T1, drawings of the evaluation sets.
    fn drawing_plan(&self, split: Split, index: u64, rng: &mut Rng) -> Result<Plan, DataError> {
        let pool = if split == Split::Val {
            Pool::Val
        } else {
            Pool::Style
        };
        let concepts = self.known_in(pool);
        self.search(
            || format!("scene of {} from {} concepts", split.name(), concepts.len()),
            rng,
            |rng| {
                let concept = *rng.choose(&concepts)?;
                let first = (concept, self.random_drawing(concept, pool, rng)?);
                let others = match (split, rng.chance(0.5)) {
                    (Split::Val, true) => Pool::Train,
                    _ => pool,
                };
                self.pair_or_single(first, others, index, rng)
                    .filter(|plan| self.unseen_in(plan).is_empty())
            },
        )
    }

    /// An unseen concept alone, with a known one, or with another unseen one.
    fn concept_plan(&self, index: u64, rng: &mut Rng) -> Result<Plan, DataError> {
        let count = self.unseen.len();
        self.search(
            || format!("scene of t2 from {count} concepts"),
            rng,
            |rng| {
                let concept = *rng.choose(&self.unseen)?;
                let first = (concept, self.random_drawing(concept, Pool::Train, rng)?);
                self.pair_or_single(first, Pool::Train, index, rng)
            },
        )
    }

    /// Even indices give one object, odd ones two in random order.
    fn pair_or_single(
        &self,
        first: (usize, usize),
        others: Pool,
        index: u64,
        rng: &mut Rng,
    ) -> Option<Plan> {
        let mut objects = vec![first];
        if !index.is_multiple_of(2) {
            let unseen = self.entry(first.0).unseen && rng.chance(0.3);
            let concept = *rng.choose(if unseen { &self.unseen } else { &self.known })?;
            if concept == first.0 {
                return None;
            }
            objects.push((concept, self.random_drawing(concept, others, rng)?));
            if rng.chance(0.5) {
                objects.swap(0, 1);
            }
        }
        Some(Plan {
            colour: self.random_colour(rng),
            layout: random_layout(objects.len(), rng),
            objects,
        })
    }

    /// Known drawings in a combination that is held out in exactly this way.
    fn combination_plan(&self, kind: Unseen, count: usize, rng: &mut Rng) -> Option<Plan> {
        let plan = self.different_known(count, rng)?;
        (self.unseen_in(&plan) == [kind]).then_some(plan)
    }

    /// A random plan of `count` different known concepts; `None` if one was drawn twice.
    fn different_known(&self, count: usize, rng: &mut Rng) -> Option<Plan> {
        let mut objects: Vec<(usize, usize)> = Vec::with_capacity(count);
        for _ in 0..count {
            let concept = *rng.choose(&self.known)?;
            if objects.iter().any(|object| object.0 == concept) {
                return None;
            }
            objects.push((concept, self.random_drawing(concept, Pool::Train, rng)?));
        }
        Some(Plan {
            colour: self.random_colour(rng),
            layout: random_layout(count, rng),
            objects,
        })
    }

    /// Sample `index` of the judge's pictures, which cycle through all drawings of the split.
    ///
    /// # Errors
    /// If the split has no drawings.
    pub fn drawing(&self, split: Split, index: u64) -> Result<Made, DataError> {
        let pool = match split {
            Split::Train => Pool::Train,
            Split::T1 => Pool::Style,
            _ => Pool::Val,
        };
        let all: Vec<(usize, usize)> = self
            .known_in(pool)
            .into_iter()
            .flat_map(|concept| {
                self.drawings(concept, pool)
                    .iter()
                    .map(move |&d| (concept, d))
            })
            .collect();
        let mut rng = Rng::new(self.seed, &format!("drawing/{}", split.name()), index);
        let plan = self.search(
            || format!("drawing of {}", split.name()),
            &mut rng,
            |rng| {
                let object = *all.get((index % all.len().max(1) as u64) as usize)?;
                let plan = Plan {
                    colour: self.random_colour(rng),
                    layout: Layout::Single,
                    objects: vec![object],
                };
                self.unseen_in(&plan).is_empty().then_some(plan)
            },
        )?;
        let painted = self.paint(&plan, true, &mut rng);
        let object =
            painted.objects.into_iter().next().ok_or_else(|| {
                DataError::Concepts("a drawing without an object was planned".into())
            })?;
        Ok(Made {
            record: Record::Drawing(Drawing {
                split: split.name().into(),
                background: self.colour_name(plan.colour).into(),
                object,
            }),
            pictures: vec![painted.picture],
        })
    }
}

/// A random row or column for several objects.
pub(super) fn random_layout(count: usize, rng: &mut Rng) -> Layout {
    match count {
        0 | 1 => Layout::Single,
        _ if rng.chance(0.5) => Layout::Row,
        _ => Layout::Column,
    }
}
