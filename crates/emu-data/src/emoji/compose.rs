//! Plans the contents of pictures and renders them.

use std::collections::BTreeSet;

use super::catalogue::{Catalogue, Entry};
use super::concepts::Concept;
use super::cutout::{Canvas, Placement};
use super::holdout::{Holdout, Unseen, val_drawings};
use super::language::{Shown, places};
use super::sources::Role;
use crate::record::{Layout, Object, Place};
use crate::rng::Rng;
use crate::{DataError, Picture};

/// Pools of drawings for pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// Drawings of the training sets that are not held out for val.
    Train,
    /// Held-out drawings.
    Val,
    /// Drawings of the evaluation sets.
    Style,
}

/// Plan of a picture: colour, layout, and the (concept, drawing) of each object in reading order.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Index of the colour.
    pub colour: usize,
    /// Arrangement of the objects.
    pub layout: Layout,
    /// Indices of the concept and of its drawing, per object.
    pub objects: Vec<(usize, usize)>,
}

/// A rendered plan.
#[derive(Debug, Clone)]
pub struct Painted {
    /// The pixels.
    pub picture: Picture,
    /// The objects with their positions.
    pub objects: Vec<Object>,
}

/// The catalogue with indices for composing pictures.
pub struct Composer<'a> {
    pub(super) catalogue: &'a Catalogue,
    pub(super) holdout: Holdout,
    pub(super) seed: u64,
    pub(super) side: u32,
    /// Indices of the concepts in `read`, of the drawable ones, and of the unseen ones.
    pub(super) known: Vec<usize>,
    pub(super) drawn: Vec<usize>,
    pub(super) unseen: Vec<usize>,
    /// Index of the canonical drawing of each concept.
    canonical: Vec<Option<usize>>,
    /// Indices of each concept's drawings, per pool.
    train: Vec<Vec<usize>>,
    val: Vec<Vec<usize>>,
    style: Vec<Vec<usize>>,
}

/// Maximum rotation of an augmented drawing, in radians.
const MAX_ANGLE: f64 = 12.0 * std::f64::consts::PI / 180.0;
/// Maximum deviation of an augmented background from its colour, per channel.
const COLOUR_JITTER: f64 = 8.0;

impl<'a> Composer<'a> {
    /// Assigns the catalogue's drawings to pools.
    ///
    /// # Errors
    /// If a drawable concept has no canonical drawing, or a concept in `read` has no drawing left for training.
    pub fn new(catalogue: &'a Catalogue, seed: u64, side: u32) -> Result<Self, DataError> {
        let canonical_set = catalogue.list.canonical_set.as_str();
        let mut composer = Self {
            catalogue,
            holdout: Holdout::new(seed),
            seed,
            side,
            known: Vec::new(),
            drawn: Vec::new(),
            unseen: Vec::new(),
            canonical: Vec::new(),
            train: Vec::new(),
            val: Vec::new(),
            style: Vec::new(),
        };
        for (index, entry) in catalogue.entries.iter().enumerate() {
            let name = &entry.concept.name;
            let held = val_drawings(entry, canonical_set, seed);
            let pick = |wanted: &dyn Fn(usize) -> bool| -> Vec<usize> {
                (0..entry.drawings.len()).filter(|&i| wanted(i)).collect()
            };
            let trains = |i: usize| entry.drawings[i].set.role == Role::Train;
            let canonical = entry
                .drawings
                .iter()
                .position(|d| d.set.id == canonical_set);
            if entry.concept.drawn && canonical.is_none() {
                return Err(DataError::Concepts(format!(
                    "{name} is to be drawn, but {canonical_set} does not draw it"
                )));
            }
            // Nothing is held out for unseen concepts: all of their drawings are unseen.
            let train = pick(&|i| trains(i) && (entry.unseen || !held[i]));
            if train.is_empty() {
                return Err(DataError::Concepts(format!(
                    "{name} has no drawing to train on"
                )));
            }
            composer.canonical.push(canonical);
            composer.train.push(train);
            composer
                .val
                .push(pick(&|i| trains(i) && !entry.unseen && held[i]));
            composer.style.push(pick(&|i| !trains(i)));
            if entry.unseen {
                composer.unseen.push(index);
            } else {
                composer.known.push(index);
                if entry.concept.drawn {
                    composer.drawn.push(index);
                }
            }
        }
        Ok(composer)
    }

    pub(super) fn entry(&self, concept: usize) -> &'a Entry {
        &self.catalogue.entries[concept]
    }

    pub(super) fn concept(&self, concept: usize) -> &'a Concept {
        &self.entry(concept).concept
    }

    pub(super) fn colour_name(&self, colour: usize) -> &'a str {
        &self.catalogue.list.colours[colour].name
    }

    pub(super) fn random_colour(&self, rng: &mut Rng) -> usize {
        rng.below(self.catalogue.list.colours.len())
    }

    /// Indices of a concept's drawings in a pool.
    pub fn drawings(&self, concept: usize, pool: Pool) -> &[usize] {
        match pool {
            Pool::Train => &self.train[concept],
            Pool::Val => &self.val[concept],
            Pool::Style => &self.style[concept],
        }
    }

    /// Concepts in `read` with drawings in a pool.
    pub(super) fn known_in(&self, pool: Pool) -> Vec<usize> {
        let has = |concept: &usize| !self.drawings(*concept, pool).is_empty();
        self.known.iter().copied().filter(has).collect()
    }

    /// A random drawing of a concept from a pool, weighted by its set.
    pub(super) fn random_drawing(
        &self,
        concept: usize,
        pool: Pool,
        rng: &mut Rng,
    ) -> Option<usize> {
        let drawings = self.drawings(concept, pool);
        let weight = |drawing: usize| self.entry(concept).drawings[drawing].set.weight;
        let mut left = rng.unit() * drawings.iter().map(|&drawing| weight(drawing)).sum::<f64>();
        for &drawing in drawings {
            left -= weight(drawing);
            if left < 0.0 {
                return Some(drawing);
            }
        }
        drawings.last().copied()
    }

    /// A plan with the concepts' drawings in the canonical set.
    pub(super) fn canonical_plan(
        &self,
        concepts: &[usize],
        layout: Layout,
        colour: usize,
    ) -> Option<Plan> {
        let objects = concepts
            .iter()
            .map(|&concept| Some((concept, self.canonical[concept]?)))
            .collect::<Option<_>>()?;
        Some(Plan {
            colour,
            layout,
            objects,
        })
    }

    /// Contents of a plan, for captions and questions.
    pub(super) fn shown(&self, plan: &Plan) -> Shown<'a> {
        let places = places(plan.layout, plan.objects.len());
        let concepts = plan
            .objects
            .iter()
            .map(|&(concept, _)| self.concept(concept));
        Shown {
            objects: concepts.zip(places.iter().copied()).collect(),
            layout: plan.layout,
            colour: self.colour_name(plan.colour),
        }
    }

    /// Held-out combinations in a plan.
    pub(super) fn unseen_in(&self, plan: &Plan) -> Vec<Unseen> {
        let name = |&(concept, _): &(usize, usize)| self.concept(concept).name.as_str();
        let names: Vec<&str> = plan.objects.iter().map(name).collect();
        self.holdout
            .unseen(&names, plan.layout, self.colour_name(plan.colour))
    }

    /// At most one concept that is not in the plan, as a distractor. With probability 1/2 it is of the same group as one
    /// of the objects, which makes it harder.
    pub(super) fn absent(&self, plan: &Plan, rng: &mut Rng) -> Vec<&'a Concept> {
        let here: BTreeSet<usize> = plan.objects.iter().map(|object| object.0).collect();
        // In questions about unseen concepts, half of the distractors are unseen too.
        let shows_unseen = here.iter().any(|&concept| self.entry(concept).unseen);
        let candidates = match shows_unseen && rng.chance(0.5) {
            true => &self.unseen,
            false => &self.known,
        };
        let group = rng
            .choose(&plan.objects)
            .filter(|_| rng.chance(0.5))
            .map(|object| self.entry(object.0).group.as_str());
        let fits = |concept: &&usize| !here.contains(concept);
        let similar: Vec<usize> = candidates
            .iter()
            .filter(fits)
            .filter(|&&concept| group.is_none_or(|group| self.entry(concept).group == group))
            .copied()
            .collect();
        let any: Vec<usize> = self.known.iter().filter(fits).copied().collect();
        let chosen = rng.choose(&similar).or_else(|| rng.choose(&any));
        chosen
            .map(|&concept| self.concept(concept))
            .into_iter()
            .collect()
    }

    /// Renders a plan with random placement. `augment` adds rotation, mirroring and colour jitter.
    pub(super) fn paint(&self, plan: &Plan, augment: bool, rng: &mut Rng) -> Painted {
        let jitter = if augment { COLOUR_JITTER } else { 0.0 };
        let placements: Vec<Placement> = (0..plan.objects.len())
            .map(|i| self.random_placement(plan, i, augment, rng))
            .collect();
        let offset = std::array::from_fn(|_| rng.range(-jitter, jitter) as f32);
        self.render(plan, &placements, offset)
    }

    /// Renders a plan with the fixed placement used for requests.
    pub(super) fn paint_canonical(&self, plan: &Plan) -> Painted {
        let placements: Vec<Placement> = (0..plan.objects.len())
            .map(|i| {
                let along = if i == 0 { 0.27 } else { 0.73 };
                match plan.layout {
                    Layout::Single => Placement::plain(0.5, 0.5, 0.72),
                    Layout::Row => Placement::plain(along, 0.5, 0.44),
                    Layout::Column => Placement::plain(0.5, along, 0.44),
                }
            })
            .collect();
        self.render(plan, &placements, [0.0; 3])
    }

    fn random_placement(&self, plan: &Plan, i: usize, augment: bool, rng: &mut Rng) -> Placement {
        let (concept, drawing) = plan.objects[i];
        let cutout = &self.entry(concept).drawings[drawing].cutout;
        let (angle, flip, gain) = if augment {
            let bright = rng.range(0.92, 1.08);
            let gain = std::array::from_fn(|_| (bright * rng.range(0.96, 1.04)) as f32);
            (rng.range(-MAX_ANGLE, MAX_ANGLE), rng.chance(0.3), gain)
        } else {
            (0.0, false, [1.0; 3])
        };
        // 1. the object's cell, and the range of sizes for it
        let count = plan.objects.len() as f64;
        let (cell, sizes) = match (plan.layout, plan.objects.len()) {
            (Layout::Single, _) => (1.0, (0.40, 0.95)),
            (_, 2) => (0.5, (0.34, 0.48)),
            _ => (1.0 / count, (0.25, 0.32)),
        };
        let room = match plan.layout {
            Layout::Single => (1.0, 1.0),
            Layout::Row => (cell, 1.0),
            Layout::Column => (1.0, cell),
        };
        // 2. a size at which the rotated drawing fits into the cell
        let extent = cutout.extent(angle);
        let fit = (room.0 / extent.0).min(room.1 / extent.1) * 0.98;
        let size = rng.range(sizes.0, sizes.1).min(fit);
        // 3. the centre: anywhere in the cell along the layout, near the middle across it
        let slack = (
            (room.0 - size * extent.0) / 2.0,
            (room.1 - size * extent.1) / 2.0,
        );
        let spread = match plan.layout {
            Layout::Single if rng.chance(0.7) => 0.25,
            Layout::Single => 1.0,
            _ => 0.9,
        };
        let mut offset = |slack: f64, across: bool| {
            let limit = if across { 0.2 } else { 1.0 };
            (slack * spread).min(limit) * rng.range(-1.0, 1.0)
        };
        let dx = offset(slack.0, plan.layout == Layout::Column);
        let dy = offset(slack.1, plan.layout == Layout::Row);
        let along = cell * (i as f64 + 0.5);
        let (cx, cy) = match plan.layout {
            Layout::Single => (0.5, 0.5),
            Layout::Row => (along, 0.5),
            Layout::Column => (0.5, along),
        };
        Placement {
            cx: cx + dx,
            cy: cy + dy,
            size,
            angle,
            flip,
            gain,
        }
    }

    fn render(&self, plan: &Plan, placements: &[Placement], offset: [f32; 3]) -> Painted {
        let rgb = self.catalogue.list.colours[plan.colour].rgb;
        let colour = std::array::from_fn(|c| (f32::from(rgb[c]) + offset[c]).clamp(0.0, 255.0));
        let mut canvas = Canvas::new(self.side, colour);
        let places: &[Place] = places(plan.layout, plan.objects.len());
        let mut objects = Vec::with_capacity(plan.objects.len());
        for ((&(concept, drawing), placement), &place) in
            plan.objects.iter().zip(placements).zip(places)
        {
            let drawing = &self.entry(concept).drawings[drawing];
            canvas.lay(&drawing.cutout, placement);
            let short = |value: f64| (value * 1000.0).round() / 1000.0;
            objects.push(Object {
                name: self.concept(concept).name.clone(),
                hexcode: self.concept(concept).hexcode.clone(),
                set: drawing.set.id.into(),
                place,
                cx: short(placement.cx),
                cy: short(placement.cy),
                size: short(placement.size),
            });
        }
        Painted {
            picture: canvas.into_picture(),
            objects,
        }
    }
}
