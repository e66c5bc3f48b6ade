//! Captions, questions and requests: all lower case, a fixed wording per meaning, objects in reading order.

use super::concepts::{Concept, article};
use crate::record::{Layout, Place, Qa};
use crate::rng::Rng;

/// Contents of a picture, for captions and questions.
#[derive(Debug, Clone)]
pub struct Shown<'a> {
    /// Objects in reading order.
    pub objects: Vec<(&'a Concept, Place)>,
    /// Arrangement of the objects.
    pub layout: Layout,
    /// Background colour.
    pub colour: &'a str,
}

const NUMBERS: [&str; 4] = ["no", "one", "two", "three"];

/// A number as a word: "one", "two", "three".
pub fn number(count: usize) -> &'static str {
    NUMBERS.get(count).copied().unwrap_or("many")
}

/// Name with indefinite article: "a dog", "an owl".
pub fn indefinite(concept: &Concept) -> String {
    format!("{} {}", concept.article(), concept.name)
}

/// Phrase for a position: "on the left", "at the top".
pub fn place_phrase(place: Place) -> &'static str {
    match place {
        Place::Center | Place::Middle => "in the middle",
        Place::Left => "on the left",
        Place::Right => "on the right",
        Place::Top => "at the top",
        Place::Bottom => "at the bottom",
    }
}

/// The positions of a layout of `count` objects, in reading order.
pub fn places(layout: Layout, count: usize) -> &'static [Place] {
    match (layout, count) {
        (Layout::Single, _) | (_, 0 | 1) => &[Place::Center],
        (Layout::Row, 2) => &[Place::Left, Place::Right],
        (Layout::Row, _) => &[Place::Left, Place::Middle, Place::Right],
        (Layout::Column, 2) => &[Place::Top, Place::Bottom],
        (Layout::Column, _) => &[Place::Top, Place::Middle, Place::Bottom],
    }
}

/// A question like "is the dog left or right of the owl?" with its answer; in a column "above or below". `first` says
/// whether `x` precedes `y` in reading order.
pub fn either(layout: Layout, x: &str, y: &str, first: bool) -> (String, &'static str) {
    let (before, after, of) = match layout {
        Layout::Row => ("left", "right", " of"),
        _ => ("above", "below", ""),
    };
    let question = format!("is the {x} {before} or {after}{of} the {y}?");
    (question, if first { before } else { after })
}

impl Shown<'_> {
    /// Whether there are several objects, all of one concept.
    pub fn is_copies(&self) -> bool {
        self.objects.len() > 1
            && self
                .objects
                .windows(2)
                .all(|pair| pair[0].0.name == pair[1].0.name)
    }

    /// The caption: "a dog to the left of a rocket on a yellow background".
    pub fn caption(&self) -> String {
        format!(
            "{} on {} {} background",
            self.subject(),
            article(self.colour),
            self.colour
        )
    }

    /// The caption without the background.
    pub fn subject(&self) -> String {
        let names: Vec<String> = self.objects.iter().map(|(c, _)| indefinite(c)).collect();
        match (names.as_slice(), self.layout) {
            _ if self.is_copies() => {
                let plural = self.objects[0].0.plural();
                format!("{} {plural}", number(self.objects.len()))
            }
            ([a, b], Layout::Row) => format!("{a} to the left of {b}"),
            ([a, b], _) => format!("{a} above {b}"),
            ([first @ .., last], layout) if !first.is_empty() => {
                let axis = if layout == Layout::Row {
                    "row"
                } else {
                    "column"
                };
                format!("{} and {last} in a {axis}", first.join(", "))
            }
            _ => names.concat(),
        }
    }

    /// All questions that the picture can answer. `absent` are concepts that are not in it, `colours` all colours. Each
    /// form of yes/no question appears twice, once with either answer.
    pub fn questions(&self, absent: &[&Concept], colours: &[&str], rng: &mut Rng) -> Vec<Qa> {
        let mut qa = Vec::new();
        let mut ask = |kind: &str, form: Option<&str>, question: String, answer: &str| {
            qa.push(Qa {
                kind: kind.into(),
                form: form.map(str::to_string),
                question,
                answer: answer.into(),
            });
        };
        let distinct = self.objects.len() > 1 && !self.is_copies();

        // 1. names by position
        for (concept, place) in &self.objects {
            let question = match place {
                Place::Center => "what is this?".to_string(),
                place => format!("what is {}?", place_phrase(*place)),
            };
            ask("name", None, question, &indefinite(concept));
        }
        // 2. colour and count
        ask(
            "colour",
            None,
            "what colour is the background?".into(),
            self.colour,
        );
        ask(
            "count",
            None,
            "how many objects are there?".into(),
            number(self.objects.len()),
        );
        if self.is_copies() || (!distinct && rng.chance(0.25)) {
            let plural = self.objects[0].0.plural();
            let question = format!("how many {plural} are there?");
            ask("count", None, question, number(self.objects.len()));
        }
        // 3. relations in a pair
        if let [(a, place_a), (b, place_b)] = self.objects.as_slice()
            && distinct
        {
            let ((x, place), y) = match rng.chance(0.5) {
                true => ((a, place_a), b),
                false => ((b, place_b), a),
            };
            ask(
                "relation",
                None,
                format!("where is the {}?", x.name),
                place_phrase(*place),
            );
            let (question, answer) = either(self.layout, &x.name, &y.name, x.name == a.name);
            ask("relation", None, question, answer);
        }
        // 4. yes/no questions
        let form = Some("presence");
        if let (Some((here, _)), Some(gone)) = (rng.choose(&self.objects), rng.choose(absent)) {
            ask(
                "yesno",
                form,
                format!("is there {}?", indefinite(here)),
                "yes",
            );
            ask(
                "yesno",
                form,
                format!("is there {}?", indefinite(gone)),
                "no",
            );
        }
        if distinct {
            let form = Some("place");
            let i = rng.below(self.objects.len());
            let (concept, place) = self.objects[i];
            ask(
                "yesno",
                form,
                format!("is the {} {}?", concept.name, place_phrase(place)),
                "yes",
            );
            let i = rng.below(self.objects.len());
            let other = (i + 1 + rng.below(self.objects.len() - 1)) % self.objects.len();
            let (name, place) = (&self.objects[i].0.name, place_phrase(self.objects[other].1));
            ask("yesno", form, format!("is the {name} {place}?"), "no");
        }
        if let [(a, _), (b, _)] = self.objects.as_slice()
            && distinct
        {
            let form = Some("relation");
            let words = match self.layout {
                Layout::Row => ["left of", "right of"],
                _ => ["above", "below"],
            };
            for (answer, wrong) in [("yes", 0), ("no", 1)] {
                let swap = usize::from(rng.chance(0.5));
                let (x, y) = if swap == 1 { (b, a) } else { (a, b) };
                let question = format!("is the {} {} the {}?", x.name, words[swap ^ wrong], y.name);
                ask("yesno", form, question, answer);
            }
        }
        let form = Some("background");
        let others: Vec<&&str> = colours
            .iter()
            .filter(|&&colour| colour != self.colour)
            .collect();
        if let Some(other) = rng.choose(&others) {
            ask(
                "yesno",
                form,
                format!("is the background {}?", self.colour),
                "yes",
            );
            ask("yesno", form, format!("is the background {other}?"), "no");
        }
        qa
    }
}

/// Wordings of requests in training; `{}` is the placeholder for the caption.
pub const REQUESTS: [&str; 16] = [
    "{}",
    "draw {}",
    "please draw {}",
    "can you draw {}?",
    "paint {}",
    "please paint {}",
    "a picture of {}",
    "draw a picture of {}",
    "make a picture of {}",
    "show me {}",
    "please show me {}",
    "an image of {}",
    "create an image of {}",
    "make an image of {}",
    "a drawing of {}",
    "i want a drawing of {}",
];

/// Held-out wordings of requests, used only in the test.
pub const TEST_REQUESTS: [&str; 6] = [
    "can you paint {}?",
    "please make a drawing of {}",
    "show me a picture of {}",
    "i want an image of {}",
    "create a picture of {}",
    "draw me {}",
];

/// A request with this wording.
pub fn request(wording: &str, caption: &str) -> String {
    wording.replace("{}", caption)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concepts() -> [Concept; 3] {
        ["dog", "owl", "fox"].map(|name| Concept::new(name, name, false))
    }

    fn shown<'a>(concepts: &[&'a Concept], layout: Layout) -> Shown<'a> {
        let places = places(layout, concepts.len());
        Shown {
            objects: concepts
                .iter()
                .copied()
                .zip(places.iter().copied())
                .collect(),
            layout,
            colour: "orange",
        }
    }

    #[test]
    fn captions() {
        let [dog, owl, fox] = &concepts();
        let end = "on an orange background";
        for (objects, layout, expected) in [
            (vec![owl], Layout::Single, "an owl"),
            (vec![dog, owl], Layout::Row, "a dog to the left of an owl"),
            (vec![dog, owl], Layout::Column, "a dog above an owl"),
            (
                vec![dog, owl, fox],
                Layout::Row,
                "a dog, an owl and a fox in a row",
            ),
            (
                vec![dog, owl, fox],
                Layout::Column,
                "a dog, an owl and a fox in a column",
            ),
            (vec![fox, fox], Layout::Row, "two foxes"),
            (vec![dog, dog, dog], Layout::Column, "three dogs"),
        ] {
            assert_eq!(
                shown(&objects, layout).caption(),
                format!("{expected} {end}")
            );
        }
    }

    #[test]
    fn answers_are_true_and_balanced() {
        let [dog, owl, fox] = &concepts();
        for seed in 0..50 {
            for (objects, layout) in [
                (vec![dog], Layout::Single),
                (vec![dog, owl], Layout::Row),
                (vec![owl, dog], Layout::Column),
                (vec![dog, dog], Layout::Row),
            ] {
                let shown = shown(&objects, layout);
                let mut rng = Rng::new(seed, "test", 0);
                let qa = shown.questions(&[fox], &["red", "orange"], &mut rng);
                for form in ["presence", "place", "relation", "background"] {
                    let of = |answer: &str| {
                        qa.iter()
                            .filter(|q| q.form.as_deref() == Some(form) && q.answer == answer)
                            .count()
                    };
                    assert_eq!(of("yes"), of("no"), "{form}");
                }
                for q in &qa {
                    assert!(q.question.ends_with('?'));
                    if let Some(expected) = truth(&q.question, layout, &objects) {
                        assert_eq!(q.answer, expected, "{}", q.question);
                    }
                }
            }
        }
    }

    /// An independent implementation of the answers about a dog and an owl on orange.
    fn truth(question: &str, layout: Layout, objects: &[&Concept]) -> Option<&'static str> {
        let dog_first = objects[0].name == "dog";
        let yes = |is: bool| Some(if is { "yes" } else { "no" });
        match question {
            "is there a fox?" | "is the background red?" => Some("no"),
            "is there a dog?" | "is the background orange?" => Some("yes"),
            "is the dog left of the owl?" | "is the owl right of the dog?" => yes(dog_first),
            "is the dog right of the owl?" | "is the owl left of the dog?" => yes(!dog_first),
            "is the dog above the owl?" | "is the owl below the dog?" => yes(dog_first),
            "is the dog below the owl?" | "is the owl above the dog?" => yes(!dog_first),
            "is the dog on the left?" | "is the dog at the top?" => yes(dog_first),
            "is the owl on the right?" | "is the owl at the bottom?" => yes(dog_first),
            "is the dog on the right?" | "is the dog at the bottom?" => yes(!dog_first),
            "where is the dog?" => Some(match (layout, dog_first) {
                (Layout::Row, true) => "on the left",
                (Layout::Row, false) => "on the right",
                (_, true) => "at the top",
                (_, false) => "at the bottom",
            }),
            "what is on the left?" | "what is at the top?" | "what is this?" => {
                Some(if dog_first { "a dog" } else { "an owl" })
            }
            "how many objects are there?" => Some(number(objects.len())),
            "is the owl left or right of the dog?" => {
                Some(if dog_first { "right" } else { "left" })
            }
            "is the dog above or below the owl?" => Some(if dog_first { "above" } else { "below" }),
            _ => None,
        }
    }

    #[test]
    fn test_wordings_are_not_trained() {
        assert!(
            TEST_REQUESTS
                .iter()
                .all(|wording| !REQUESTS.contains(wording))
        );
        assert!(
            REQUESTS
                .iter()
                .chain(&TEST_REQUESTS)
                .all(|wording| wording.contains("{}"))
        );
        assert_eq!(request("draw {}", "a dog"), "draw a dog");
    }
}
