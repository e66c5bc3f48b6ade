//! Interleaved documents: requests with pictures, few-shot patterns, blends and stories.

use super::compose::{Composer, Painted, Plan};
use super::holdout::Unseen;
use super::language::{REQUESTS, TEST_REQUESTS, indefinite, number, request};
use super::scenes::{Made, random_layout};
use crate::DataError;
use crate::record::{Document, Layout, Part, Record};
use crate::rng::Rng;

/// Number of single objects at the beginning of the drawing test. They appear on contact sheets.
pub const SHEET_SINGLES: u64 = 28;
/// Number of pairs after them. See [`SHEET_SINGLES`].
pub const SHEET_PAIRS: u64 = 20;

impl Composer<'_> {
    /// A request and the picture that it determines. In the test, the wording is always held out, and in every other
    /// document so is the combination.
    ///
    /// # Errors
    /// If no picture meets the constraints.
    pub fn draw(&self, test: bool, index: u64) -> Result<Made, DataError> {
        let mut rng = Rng::new(
            self.seed,
            if test { "draw/test" } else { "draw/train" },
            index,
        );
        let plan = match test {
            true => self.test_draw_plan(index, &mut rng)?,
            false => {
                let count = if rng.chance(0.4) { 1 } else { 2 };
                self.search(
                    || "picture to draw".into(),
                    &mut rng,
                    |rng| {
                        let plan = self.drawn_plan(count, rng)?;
                        self.unseen_in(&plan).is_empty().then_some(plan)
                    },
                )?
            }
        };
        let wordings: &[&str] = if test { &TEST_REQUESTS } else { &REQUESTS };
        let wording = rng.choose(wordings).copied().unwrap_or("{}");
        let text = request(wording, &self.shown(&plan).caption());
        let painted = self.paint_canonical(&plan);
        let mut unseen = Vec::new();
        if test {
            unseen.push("template".to_string());
            unseen.extend(
                self.unseen_in(&plan)
                    .iter()
                    .map(|kind| kind.name().to_string()),
            );
        }
        let document = Document {
            parts: vec![Part::Text(text), Part::Image("0".into())],
            answer: Some(1),
            unseen,
            ..self.document(
                if test { "test" } else { "train" },
                "draw",
                Some((&plan, &painted)),
            )
        };
        Ok(Made {
            record: Record::Document(document),
            pictures: vec![painted.picture],
        })
    }

    /// First the single objects and pairs of the contact sheet, then a mix.
    fn test_draw_plan(&self, index: u64, rng: &mut Rng) -> Result<Plan, DataError> {
        let single = match index {
            i if i < SHEET_SINGLES => true,
            i if i < SHEET_SINGLES + SHEET_PAIRS => false,
            _ => rng.chance(0.45),
        };
        // On the contact sheet, every single object is a different concept.
        let mut order = self.drawn.clone();
        Rng::new(self.seed, "draw/sheet", 0).shuffle(&mut order);
        let fixed = (index < SHEET_SINGLES && !order.is_empty())
            .then(|| order[(index % order.len() as u64) as usize]);
        let any_colour_held = |concept: usize| {
            let name = &self.concept(concept).name;
            (0..self.catalogue.list.colours.len())
                .any(|colour| self.holdout.colour(name, self.colour_name(colour)))
        };
        let mut wanted = index.is_multiple_of(2);
        if fixed.is_some_and(|concept| !any_colour_held(concept)) {
            wanted = false; // no colour of this concept is held out
        }
        let draw = |rng: &mut Rng| match (fixed, single) {
            (Some(concept), _) => {
                let colour = self.random_colour(rng);
                self.canonical_plan(&[concept], Layout::Single, colour)
            }
            (None, true) => self.drawn_plan(1, rng),
            (None, false) => self.drawn_plan(2, rng),
        };
        self.search(
            || "picture of the drawing test".into(),
            rng,
            |rng| {
                let plan = draw(rng)?;
                let unseen = self.unseen_in(&plan);
                let combination = match single {
                    true => unseen.contains(&Unseen::Colour),
                    false => unseen.iter().any(|&kind| kind != Unseen::Colour),
                };
                (if wanted {
                    combination
                } else {
                    unseen.is_empty()
                })
                .then_some(plan)
            },
        )
    }

    /// A random canonical plan of `count` different drawable concepts.
    fn drawn_plan(&self, count: usize, rng: &mut Rng) -> Option<Plan> {
        let mut concepts = Vec::with_capacity(count);
        for _ in 0..count {
            let concept = *rng.choose(&self.drawn)?;
            if concepts.contains(&concept) {
                return None;
            }
            concepts.push(concept);
        }
        let layout = random_layout(count, rng);
        let colour = self.random_colour(rng);
        self.canonical_plan(&concepts, layout, colour)
    }

    /// Two to four pictures with a text each, then another picture, whose text follows the same pattern.
    ///
    /// # Errors
    /// If no picture meets the constraints.
    pub fn few_shot(&self, test: bool, index: u64) -> Result<Made, DataError> {
        let stream = if test {
            "fewshot/test"
        } else {
            "fewshot/train"
        };
        let mut rng = Rng::new(self.seed, stream, index);
        let rng = &mut rng;
        let pattern = ["name", "colour", "count", "name+colour"][(index % 4) as usize];
        let shots = 2 + rng.below(3);
        let mut parts = Vec::new();
        let mut pictures = Vec::new();
        let mut texts: Vec<String> = Vec::new();
        for shot in 0..=shots {
            let count = if pattern == "count" {
                1 + rng.below(3)
            } else {
                1
            };
            let plan = self.search(
                || "few-shot picture".into(),
                rng,
                |rng| {
                    let copies = count > 1 && rng.chance(0.5);
                    let plan = self.train_plan(count, copies, rng)?;
                    let text = self.pattern_text(pattern, &plan);
                    // The answer must not repeat that of an example. Counts are exempt, because there are too few
                    // numbers.
                    let repeats = shot == shots && pattern != "count" && texts.contains(&text);
                    (!repeats).then_some(plan)
                },
            )?;
            let text = self.pattern_text(pattern, &plan);
            parts.push(Part::Image(shot.to_string()));
            parts.push(Part::Text(text.clone()));
            texts.push(text);
            pictures.push(self.paint(&plan, !test, rng).picture);
        }
        let document = Document {
            answer: Some(parts.len() - 1),
            parts,
            pattern: Some(pattern.into()),
            ..self.document(if test { "test" } else { "train" }, "fewshot", None)
        };
        Ok(Made {
            record: Record::Document(document),
            pictures,
        })
    }

    fn pattern_text(&self, pattern: &str, plan: &Plan) -> String {
        let colour = self.colour_name(plan.colour);
        let name = || {
            plan.objects
                .first()
                .map_or_else(String::new, |o| indefinite(self.concept(o.0)))
        };
        match pattern {
            "name" => name(),
            "colour" => colour.to_string(),
            "count" => number(plan.objects.len()).to_string(),
            _ => format!("{}, {colour}", name()),
        }
    }

    /// Two pictures, and a picture with both objects, the first on the left.
    ///
    /// # Errors
    /// If no picture meets the constraints.
    pub fn blend(&self, index: u64) -> Result<Made, DataError> {
        let mut rng = Rng::new(self.seed, "blend/train", index);
        let pair = self.search(
            || "blend".into(),
            &mut rng,
            |rng| {
                let plan = self.drawn_plan(2, rng)?;
                let unseen = self.unseen_in(&plan);
                (plan.layout == Layout::Row && unseen.is_empty()).then_some(plan)
            },
        )?;
        let mut pictures: Vec<_> = pair
            .objects
            .iter()
            .map(|&object| {
                let single = Plan {
                    colour: pair.colour,
                    layout: Layout::Single,
                    objects: vec![object],
                };
                self.paint_canonical(&single).picture
            })
            .collect();
        let painted = self.paint_canonical(&pair);
        let image = |number: &str| Part::Image(number.into());
        let parts = match rng.chance(0.5) {
            true => vec![image("0"), Part::Text("and".into()), image("1"), image("2")],
            false => vec![image("0"), image("1"), image("2")],
        };
        let document = Document {
            answer: Some(parts.len() - 1),
            parts,
            ..self.document("train", "blend", Some((&pair, &painted)))
        };
        pictures.push(painted.picture);
        Ok(Made {
            record: Record::Document(document),
            pictures,
        })
    }

    /// A picture, then the same object beside another one or on another colour; each picture after its text.
    ///
    /// # Errors
    /// If no picture meets the constraints.
    pub fn story(&self, index: u64) -> Result<Made, DataError> {
        let mut rng = Rng::new(self.seed, "story/train", index);
        let rng = &mut rng;
        let accept = |plan: Plan| self.unseen_in(&plan).is_empty().then_some(plan);
        let mut plans = vec![self.search(
            || "story".into(),
            rng,
            |rng| accept(self.drawn_plan(1, rng)?),
        )?];
        for _ in 0..1 + rng.below(2) {
            let last = &plans[plans.len() - 1];
            let (first, colour) = (last.objects[0].0, last.colour);
            let next = self.search(
                || "story".into(),
                rng,
                |rng| {
                    if rng.chance(0.3) {
                        let other = self.random_colour(rng);
                        let plan = self.canonical_plan(&[first], Layout::Single, other)?;
                        return accept(plan).filter(|plan| plan.colour != colour);
                    }
                    let second = *rng.choose(&self.drawn)?;
                    let layout = random_layout(2, rng);
                    let plan = self.canonical_plan(&[first, second], layout, colour)?;
                    accept(plan).filter(|_| second != first)
                },
            )?;
            plans.push(next);
        }
        let mut parts = Vec::new();
        let mut pictures = Vec::new();
        for (number, plan) in plans.iter().enumerate() {
            let caption = self.shown(plan).caption();
            let text = if number == 0 {
                caption
            } else {
                format!("then {caption}")
            };
            parts.push(Part::Text(text));
            parts.push(Part::Image(number.to_string()));
            pictures.push(self.paint_canonical(plan).picture);
        }
        let document = Document {
            parts,
            ..self.document("train", "story", None)
        };
        Ok(Made {
            record: Record::Document(document),
            pictures,
        })
    }

    /// A document without parts, with the description of the target picture, if there is one.
    fn document(&self, split: &str, task: &str, target: Option<(&Plan, &Painted)>) -> Document {
        Document {
            split: split.into(),
            task: task.into(),
            parts: Vec::new(),
            answer: None,
            pattern: None,
            background: target.map(|(plan, _)| self.colour_name(plan.colour).into()),
            layout: target.map(|(plan, _)| plan.layout),
            objects: target.map_or_else(Vec::new, |(_, painted)| painted.objects.clone()),
            unseen: Vec::new(),
        }
    }
}
