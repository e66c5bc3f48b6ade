//! Conversations in free English: requests for pictures, each with the requested picture, and other prompts.
//!
//! A seed and an index determine each conversation. Training uses only the training wordings, synonyms and
//! combinations. The held-out combinations are those of the pictures ([`Holdout`]).
//!
//! A request without a background has no colour: the colour slot is trained as empty, and the colour is chosen when the
//! picture is drawn. A picture drawn earlier appears in the history as the sentence of [`emu_model::spelling::drawn`],
//! which inference can produce too.

mod lists;
mod phrases;
mod seen;
mod shown;

use emu_data::emoji::{Concept, ConceptList, Holdout, Unseen};
use emu_model::spelling::{article, drawn};
use emu_model::text::{Message, Speaker};

pub use lists::{Changes, HOLE, Ordinary, Parted, Persona, Synonyms, Topic, Wordings};
use phrases::fill_colour;
pub use seen::{Kind, Seen, Shows};
pub use shown::Shown;

use super::DataError;
use super::record::Layout;
use super::rng::Rng;

/// A conversation that is to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Turns; the last one is the user's.
    pub messages: Vec<Message>,
    /// The requested picture; `None` if this is not a request.
    pub shown: Option<Shown>,
    /// Index of the last turn's wording in its list. Conversations of one wording are in the same fold of
    /// cross-validation.
    pub wording: usize,
}

/// A set of conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// Requests for training.
    Train,
    /// Requests with held-out wordings and held-out combinations. Number `i` uses wording `i` modulo their number.
    HeldOut,
    /// Requests with training wordings and held-out synonyms. Number `i` uses synonym `i` modulo their number.
    Synonyms,
    /// Changes to a picture, in held-out wordings.
    Changes,
    /// Other prompts for training.
    Others,
    /// Other prompts, held out.
    OthersHeldOut,
    /// Prompts that the language model answers without the soft prompt.
    Ordinary,
    /// Held-out prompts of that kind.
    OrdinaryHeldOut,
    /// Prompts addressed to the model itself, or about it.
    Own,
    /// Held-out prompts of that kind.
    OwnHeldOut,
}

/// The lists behind the conversations.
#[derive(Clone, Debug)]
pub struct Lists {
    /// Wordings of requests.
    pub wordings: Wordings,
    /// Synonyms of the concepts' names.
    pub synonyms: Synonyms,
    /// Wordings of changes to a picture.
    pub changes: Changes,
    /// Other topics, with answers.
    pub persona: Persona,
    /// Prompts that the language model answers without the soft prompt.
    pub ordinary: Option<Ordinary>,
}

/// Generates conversations.
#[derive(Clone, Debug)]
pub struct Conversations {
    lists: Lists,
    concepts: Vec<Concept>,
    colours: Vec<String>,
    holdout: Holdout,
    seed: u64,
    /// Held-out synonyms, each with the index of its concept.
    held_out: Vec<(usize, String)>,
    /// Training prompts that do not request a picture.
    others: Vec<String>,
    /// Prompts of [`Set::Ordinary`] and [`Set::Own`].
    talk: [Parted; 2],
}

/// Maximum number of attempts to find a picture with the combinations of its set.
const ATTEMPTS: usize = 1000;

impl Conversations {
    /// Conversations from these lists about the drawable concepts of `concepts`. `pictures` is the seed of the
    /// pictures' data set, so that the same combinations are held out.
    ///
    /// # Errors
    /// If no concept is drawable.
    pub fn new(
        lists: Lists,
        concepts: &ConceptList,
        pictures: u64,
        seed: u64,
    ) -> Result<Self, DataError> {
        let drawn: Vec<Concept> = concepts.read.iter().filter(|c| c.drawn).cloned().collect();
        if drawn.is_empty() {
            return Err(DataError::Concepts("nothing is drawn".into()));
        }
        let held_out = drawn.iter().enumerate().flat_map(|(i, concept)| {
            let words = lists.synonyms.synonyms.get(&concept.name);
            let words = words.map_or(&[][..], |words| &words.held_out);
            words.iter().map(move |word| (i, word.clone()))
        });
        let held_out: Vec<_> = held_out.collect();
        // Some questions about the model are held-out prompts here.
        let kept_out: Vec<String> = lists
            .wordings
            .other_held_out
            .iter()
            .map(|p| lists::plain(p))
            .collect();
        let more = lists
            .persona
            .questions()
            .filter(|q| !kept_out.contains(&lists::plain(q)));
        let others = lists
            .wordings
            .other_train
            .iter()
            .map(String::as_str)
            .chain(more);
        Ok(Self {
            others: others.map(str::to_owned).collect(),
            talk: talk(&lists),
            concepts: drawn,
            colours: concepts.colours.iter().map(|c| c.name.clone()).collect(),
            holdout: Holdout::new(pictures),
            seed,
            held_out,
            lists,
        })
    }

    /// Number of conversations of a set before wordings repeat. Any number can be generated.
    pub fn once(&self, set: Set) -> usize {
        let lists = &self.lists;
        match set {
            Set::Train => lists.wordings.train.len(),
            Set::HeldOut => lists.wordings.held_out.len(),
            Set::Synonyms => self.held_out.len(),
            Set::Changes => {
                lists.changes.colour.held_out.len() + lists.changes.object.held_out.len()
            }
            Set::Others => self.others.len(),
            Set::OthersHeldOut => lists.wordings.other_held_out.len(),
            Set::Ordinary => self.talk[0].train.len(),
            Set::OrdinaryHeldOut => self.talk[0].held_out.len(),
            Set::Own => self.talk[1].train.len(),
            Set::OwnHeldOut => self.talk[1].held_out.len(),
        }
    }

    /// Names of the drawable concepts.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.concepts.iter().map(|c| c.name.as_str())
    }

    /// Conversation number `index` of a set.
    ///
    /// # Errors
    /// If the lists are too small to hold out combinations.
    pub fn get(&self, set: Set, index: u64) -> Result<Asked, DataError> {
        let name = match set {
            Set::Train => "requests",
            Set::HeldOut => "requests held out",
            Set::Synonyms => "synonyms held out",
            Set::Changes => "changes held out",
            Set::Others => "others",
            Set::OthersHeldOut => "others held out",
            Set::Ordinary => "ordinary",
            Set::OrdinaryHeldOut => "ordinary held out",
            Set::Own => "own",
            Set::OwnHeldOut => "own held out",
        };
        let mut rng = Rng::new(self.seed, name, index);
        let rng = &mut rng;
        let turn = (index % self.once(set).max(1) as u64) as usize;
        match set {
            Set::Train => match rng.unit() {
                x if x < 0.62 => self.request(vec![], rng),
                x if x < 0.74 => self.request(self.chat(rng), rng),
                x if x < 0.84 => self.request(self.picture(rng)?.0, rng),
                _ => self.change(true, rng.below(usize::MAX >> 1), rng),
            },
            Set::HeldOut => {
                let shown = self.any(true, None, rng)?;
                let words: Vec<&str> = shown.names.iter().map(String::as_str).collect();
                let phrase = phrases::plain(&shown, &words, rng.chance(0.5));
                let text = self.lists.wordings.held_out[turn].replace(HOLE, &phrase);
                Ok(asked(vec![], text, Some(shown), turn))
            }
            Set::Synonyms => {
                let (concept, word) = &self.held_out[turn];
                let shown = self.any(false, Some(*concept), rng)?;
                let phrase = phrases::plain(&shown, &[word], false);
                let wording = rng.below(self.lists.wordings.train.len());
                let text = self.lists.wordings.train[wording].replace(HOLE, &phrase);
                Ok(asked(vec![], text, Some(shown), wording))
            }
            Set::Changes => self.change(false, turn, rng),
            Set::Others => {
                let which = rng.below(self.others.len());
                let before = match rng.unit() {
                    x if x < 0.65 => vec![],
                    x if x < 0.85 => self.picture(rng)?.0,
                    _ => self.chat(rng),
                };
                let phrase = self.phrase(&self.any(false, None, rng)?, rng);
                let text = phrases::typed(self.others[which].replace(HOLE, &phrase), rng);
                Ok(asked(before, text, None, which))
            }
            Set::OthersHeldOut => {
                let shown = self.any(false, None, rng)?;
                let text = &self.lists.wordings.other_held_out[turn];
                Ok(asked(
                    vec![],
                    text.replace(HOLE, &shown.description()),
                    None,
                    turn,
                ))
            }
            Set::Ordinary => self.talk(&self.talk[0].train, turn, rng),
            Set::Own => self.talk(&self.talk[1].train, turn, rng),
            Set::OrdinaryHeldOut => self.said(&self.talk[0].held_out, turn, rng),
            Set::OwnHeldOut => self.said(&self.talk[1].held_out, turn, rng),
        }
    }

    /// A training entry of a list, with natural capitalisation and punctuation, as the first turn or after other turns.
    fn talk(&self, list: &[String], turn: usize, rng: &mut Rng) -> Result<Asked, DataError> {
        let before = match rng.unit() {
            x if x < 0.7 => vec![],
            x if x < 0.85 => self.picture(rng)?.0,
            _ => self.chat(rng),
        };
        let Asked { messages, .. } = self.said(list, turn, rng)?;
        let text = messages.into_iter().map(|m| phrases::typed(m.text, rng));
        Ok(asked(before, text.collect(), None, turn))
    }

    /// An entry of a list without changes, about a random object.
    fn said(&self, list: &[String], turn: usize, rng: &mut Rng) -> Result<Asked, DataError> {
        let shown = self.any(false, None, rng)?;
        let thing = Shown {
            names: shown.names[..1].to_vec(),
            layout: Layout::Single,
            colour: None,
        };
        let entry = list.get(turn).map_or("", String::as_str);
        let text = entry.replace(HOLE, &thing.description());
        Ok(asked(vec![], text, None, turn))
    }

    /// A picture with held-out combinations (`unseen`) or without; of a single given concept, if there is one.
    fn any(&self, unseen: bool, concept: Option<usize>, rng: &mut Rng) -> Result<Shown, DataError> {
        for _ in 0..ATTEMPTS {
            let pick = |rng: &mut Rng| self.concepts[rng.below(self.concepts.len())].name.clone();
            let mut names = vec![match concept {
                Some(i) => self.concepts[i].name.clone(),
                None => pick(rng),
            }];
            let mut layout = Layout::Single;
            if concept.is_none() && rng.chance(0.4) {
                names.push(pick(rng));
                layout = match rng.chance(0.5) {
                    true => Layout::Row,
                    false => Layout::Column,
                };
            }
            let colour = rng
                .chance(0.65)
                .then(|| rng.choose(&self.colours))
                .flatten();
            let shown = Shown {
                names,
                layout,
                colour: colour.cloned(),
            };
            let twice = shown.names.len() == 2 && shown.names[0] == shown.names[1];
            if !twice && self.unseen(&shown) == unseen {
                return Ok(shown);
            }
        }
        Err(DataError::Impossible {
            what: "picture to ask for".into(),
            attempts: ATTEMPTS,
        })
    }

    /// Whether a picture has a held-out combination.
    fn unseen(&self, shown: &Shown) -> bool {
        let names: Vec<&str> = shown.names.iter().map(String::as_str).collect();
        let colour = shown.colour.as_deref();
        let found = self
            .holdout
            .unseen(&names, shown.layout, colour.unwrap_or_default());
        found
            .iter()
            .any(|what| colour.is_some() || *what != Unseen::Colour)
    }

    /// A random phrase for a picture, in training wordings and words.
    fn phrase(&self, shown: &Shown, rng: &mut Rng) -> String {
        let mut words = vec![];
        let mut several = vec![];
        for name in &shown.names {
            let synonyms = self.lists.synonyms.synonyms.get(name);
            let synonyms = synonyms.filter(|_| rng.chance(0.35));
            let word = synonyms.and_then(|words| rng.choose(&words.train));
            let concept = self.concepts.iter().find(|c| c.name == *name);
            several.push(word.is_none() && concept.is_some_and(|c| c.plural() == *name));
            words.push(word.unwrap_or(name).as_str());
        }
        phrases::any(shown, &words, &several, rng)
    }

    /// A request in a training wording, after the given turns.
    fn request(&self, before: Vec<Message>, rng: &mut Rng) -> Result<Asked, DataError> {
        let shown = self.any(false, None, rng)?;
        let wording = rng.below(self.lists.wordings.train.len());
        let phrase = self.phrase(&shown, rng);
        let text = self.lists.wordings.train[wording].replace(HOLE, &phrase);
        Ok(asked(
            before,
            phrases::typed(text, rng),
            Some(shown),
            wording,
        ))
    }

    /// A request and the answer with its picture.
    fn picture(&self, rng: &mut Rng) -> Result<(Vec<Message>, Shown), DataError> {
        let Asked {
            mut messages,
            shown,
            ..
        } = self.request(vec![], rng)?;
        let shown = shown.ok_or_else(|| DataError::Concepts("nothing is drawn".into()))?;
        messages.push(Message {
            speaker: Speaker::Assistant,
            text: drawn(&shown.description()),
        });
        Ok((messages, shown))
    }

    /// A question about the model, with its answer.
    fn chat(&self, rng: &mut Rng) -> Vec<Message> {
        let topic = rng.choose(&self.lists.persona.topic);
        let pair = topic.and_then(|t| Some((rng.choose(&t.train)?, rng.choose(&t.answers)?)));
        let (question, answer) = pair.map_or(("hi", "Hello!"), |(q, a)| (q, a));
        let turn = |speaker, text: &str| Message {
            speaker,
            text: text.to_owned(),
        };
        vec![
            turn(Speaker::User, question),
            turn(Speaker::Assistant, answer),
        ]
    }

    /// A drawn picture and a request to change it, in wording number `which` of the colour and object wordings
    /// together.
    fn change(&self, train: bool, which: usize, rng: &mut Rng) -> Result<Asked, DataError> {
        let Changes { colour, object } = &self.lists.changes;
        let side = |list: &'_ Parted| {
            if train {
                list.train.clone()
            } else {
                list.held_out.clone()
            }
        };
        let (colours, objects) = (side(colour), side(object));
        let which = which % (colours.len() + objects.len());
        let first = self.lists.wordings.train.len();
        for _ in 0..ATTEMPTS {
            let (before, old) = self.picture(rng)?;
            let mut new = old.clone();
            let text = if let Some(wording) = colours.get(which) {
                let Some(colour) = rng.choose(&self.colours) else {
                    break;
                };
                new.colour = Some(colour.clone());
                fill_colour(wording, colour)
            } else {
                new.names = vec![self.concepts[rng.below(self.concepts.len())].name.clone()];
                let alone = Shown {
                    colour: None,
                    ..new.clone()
                };
                let phrase = match train {
                    true => self.phrase(&alone, rng),
                    false => format!("{} {}", article(&new.names[0]), new.names[0]),
                };
                objects[which - colours.len()].replace(HOLE, &phrase)
            };
            let whole = new.names.len() == old.names.len();
            if new != old && whole && !self.unseen(&new) {
                let text = if train {
                    phrases::typed(text, rng)
                } else {
                    text
                };
                return Ok(asked(before, text, Some(new), first + which));
            }
        }
        Err(DataError::Impossible {
            what: "change of a picture".into(),
            attempts: ATTEMPTS,
        })
    }
}

/// The prompts of [`Set::Ordinary`] and [`Set::Own`]: those of the lists and the questions of the topics.
fn talk(lists: &Lists) -> [Parted; 2] {
    let none = Parted {
        train: vec![],
        held_out: vec![],
    };
    let mut both = match &lists.ordinary {
        Some(Ordinary { ordinary, own }) => [ordinary.clone(), own.clone()],
        None => [none.clone(), none],
    };
    for topic in &lists.persona.topic {
        let parted = &mut both[usize::from(!topic.ordinary)];
        parted.train.extend_from_slice(&topic.train);
        parted.held_out.extend_from_slice(&topic.held_out);
    }
    for Parted { train, held_out } in &mut both {
        let kept_out: Vec<String> = held_out.iter().map(|p| lists::plain(p)).collect();
        train.retain(|prompt| !kept_out.contains(&lists::plain(prompt)));
    }
    both
}

fn asked(mut messages: Vec<Message>, text: String, shown: Option<Shown>, wording: usize) -> Asked {
    messages.push(Message {
        speaker: Speaker::User,
        text,
    });
    Asked {
        messages,
        shown,
        wording,
    }
}

#[cfg(test)]
mod tests;
