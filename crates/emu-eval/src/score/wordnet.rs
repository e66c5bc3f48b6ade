//! WordNet: the first meaning of a word, and how near two meanings are (Wu and Palmer 1994), with the rules of NLTK 3.10, with
//! whose predecessors published numbers are computed.
//!
//! Its database has for each part of speech an index (words, with their meanings by frequency), data (meanings, with the more
//! general ones) and exceptions of inflection.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

/// A part of speech.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pos {
    /// Noun.
    Noun,
    /// Verb.
    Verb,
    /// Adjective.
    Adjective,
    /// Adverb.
    Adverb,
}

impl Pos {
    /// In the order in which meanings are looked for.
    pub const ALL: [Self; 4] = [Self::Noun, Self::Verb, Self::Adjective, Self::Adverb];

    /// The ending of the files of the database, and the beginning of that of exceptions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Noun => "noun",
            Self::Verb => "verb",
            Self::Adjective => "adj",
            Self::Adverb => "adv",
        }
    }

    /// Endings of inflected words, and what stands in their place in the index.
    const fn endings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Noun => &[
                ("s", ""),
                ("ses", "s"),
                ("ves", "f"),
                ("xes", "x"),
                ("zes", "z"),
                ("ches", "ch"),
                ("shes", "sh"),
                ("men", "man"),
                ("ies", "y"),
            ],
            Self::Verb => &[
                ("s", ""),
                ("ies", "y"),
                ("es", "e"),
                ("es", ""),
                ("ed", "e"),
                ("ed", ""),
                ("ing", "e"),
                ("ing", ""),
            ],
            Self::Adjective => &[("er", ""), ("est", ""), ("er", "e"), ("est", "e")],
            Self::Adverb => &[],
        }
    }
}

/// The texts of the files of a part of speech.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// `index.noun` and so on.
    pub index: &'a str,
    /// `data.noun` and so on.
    pub data: &'a str,
    /// `noun.exc` and so on.
    pub exceptions: &'a str,
}

/// A meaning: the number of its line in the data, over all parts of speech.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Synset(usize);

struct Meaning {
    pos: Pos,
    /// More general meanings.
    above: Vec<Synset>,
    /// As NLTK names it: of several equally near general meanings the first by name is taken.
    name: String,
    /// The fewest steps to a root.
    least: usize,
    /// The most.
    most: usize,
}

/// The database.
pub struct WordNet {
    meanings: Vec<Meaning>,
    words: HashMap<(Pos, String), Vec<Synset>>,
    exceptions: HashMap<(Pos, String), Vec<String>>,
    /// Distances of meanings to more general ones, which are asked for again and again.
    distances: RefCell<HashMap<Synset, Vec<(Synset, usize)>>>,
}

impl WordNet {
    /// Reads the database from the texts of its files, in the order of [`Pos::ALL`].
    ///
    /// # Errors
    /// The file and line that is not in the layout.
    pub fn new(files: [Files; 4]) -> Result<Self, String> {
        let mut places = HashMap::new();
        let mut lines = vec![];
        for (pos, file) in Pos::ALL.into_iter().zip(&files) {
            // Lines of the licence begin with a space.
            for (n, line) in file
                .data
                .lines()
                .enumerate()
                .filter(|(_, line)| is_record(line))
            {
                let fault = || format!("data.{}, line {}", pos.name(), n + 1);
                let record = Record::parse(line).ok_or_else(fault)?;
                places.insert((pos, record.offset), Synset(lines.len()));
                lines.push((pos, record));
            }
        }
        let mut wordnet = Self {
            meanings: vec![],
            words: HashMap::new(),
            exceptions: HashMap::new(),
            distances: RefCell::default(),
        };
        for (pos, file) in Pos::ALL.into_iter().zip(&files) {
            for (n, line) in file
                .index
                .lines()
                .enumerate()
                .filter(|(_, line)| is_record(line))
            {
                let fault = || format!("index.{}, line {}", pos.name(), n + 1);
                let (word, offsets) = index_line(line).ok_or_else(fault)?;
                let meanings: Option<Vec<_>> = { offsets.iter() }
                    .map(|offset| places.get(&(pos, *offset)).copied())
                    .collect();
                wordnet
                    .words
                    .insert((pos, word), meanings.ok_or_else(fault)?);
            }
            for line in file.exceptions.lines() {
                let mut words = line.split_whitespace().map(str::to_owned);
                if let Some(word) = words.next() {
                    let forms = wordnet.exceptions.entry((pos, word)).or_default();
                    forms.extend(words);
                }
            }
        }
        for (at, (pos, record)) in lines.iter().enumerate() {
            let above = record.above.iter().filter_map(|place| places.get(place));
            let word = record.word.to_lowercase();
            let senses = wordnet.words.get(&(*pos, word.clone()));
            let sense = senses.and_then(|all| all.iter().position(|one| one.0 == at));
            let name = format!("{word}.{}.{:02}", record.letter, sense.map_or(0, |n| n + 1));
            let meaning = Meaning {
                pos: *pos,
                above: above.copied().collect(),
                name,
                least: 0,
                most: 0,
            };
            wordnet.meanings.push(meaning);
        }
        wordnet.measure_depths()?;
        Ok(wordnet)
    }

    /// Sets the depths, from the roots down.
    fn measure_depths(&mut self) -> Result<(), String> {
        let mut below: Vec<Vec<usize>> = vec![vec![]; self.meanings.len()];
        let mut waiting: Vec<usize> = vec![];
        for (at, meaning) in self.meanings.iter_mut().enumerate() {
            waiting.push(meaning.above.len());
            if !meaning.above.is_empty() {
                meaning.least = usize::MAX;
            }
            for above in &meaning.above {
                if let Some(below) = below.get_mut(above.0) {
                    below.push(at);
                }
            }
        }
        let mut ready: Vec<usize> = (0..waiting.len()).filter(|at| waiting[*at] == 0).collect();
        let mut done = 0;
        while let Some(at) = ready.pop() {
            done += 1;
            let (least, most) = (self.meanings[at].least + 1, self.meanings[at].most + 1);
            for next in &below[at] {
                let meaning = &mut self.meanings[*next];
                meaning.least = meaning.least.min(least);
                meaning.most = meaning.most.max(most);
                waiting[*next] -= 1;
                if waiting[*next] == 0 {
                    ready.push(*next);
                }
            }
        }
        match done == self.meanings.len() {
            true => Ok(()),
            false => Err("a meaning is more general than itself".to_owned()),
        }
    }

    /// The base forms of a word in the index: the word itself, and what exceptions or endings make of it.
    pub fn forms(&self, word: &str, pos: Pos) -> Vec<String> {
        let own = word.to_owned();
        let others = match self.exceptions.get(&(pos, own.clone())) {
            Some(forms) => forms.clone(),
            None => {
                let cut = |(ending, base): &(&str, &str)| {
                    Some(format!("{}{base}", word.strip_suffix(ending)?))
                };
                pos.endings().iter().filter_map(cut).collect()
            }
        };
        let mut found: Vec<String> = vec![];
        for form in std::iter::once(own).chain(others) {
            let key = (pos, form);
            if self.words.contains_key(&key) && !found.contains(&key.1) {
                found.push(key.1);
            }
        }
        found
    }

    /// The most frequent meaning of a word: of the first part of speech that has it.
    pub fn first(&self, word: &str) -> Option<Synset> {
        let word = word.to_lowercase();
        Pos::ALL.into_iter().find_map(|pos| {
            let forms = self.forms(&word, pos).into_iter();
            let mut meanings =
                forms.filter_map(|form| self.words.get(&(pos, form))?.first().copied());
            meanings.next()
        })
    }

    /// How near two meanings are: twice the depth of the deepest general meaning of both, divided by the sum of their depths
    /// through it. `None` if they have none in common. Not always symmetric, as in NLTK.
    pub fn similarity(&self, a: Synset, b: Synset) -> Option<f64> {
        let (from_a, from_b) = (self.distances(a), self.distances(b));
        // Nouns have one root. For all others one is imagined above their many roots.
        let imagined = [a, b].map(|one| self.meaning(one).map(|meaning| meaning.pos));
        let imagined = imagined.iter().any(|pos| *pos != Some(Pos::Noun));
        let shared: Vec<Synset> = { from_a.iter() }
            .filter(|one| from_b.iter().any(|other| other.0 == one.0))
            .map(|one| one.0)
            .collect();
        let least = |one: &Synset| self.meaning(*one).map_or(0, |meaning| meaning.least);
        let deepest = shared.iter().map(least).max();
        let chosen = { shared.iter() }
            .filter(|one| Some(least(one)) == deepest)
            .min_by_key(|one| (**one != a, self.name(**one)));
        let (depth, far_a, far_b) = match (deepest, chosen) {
            // The imagined root is before every real one by name, but not before the meaning itself.
            (Some(deep), Some(chosen)) if deep > 0 || !imagined || *chosen == a => {
                let above = self.distances(*chosen);
                let far = |from: &[(Synset, usize)]| nearest(from, &above, imagined);
                let most = self.meaning(*chosen)?.most;
                (most + 1, far(&from_a)?, far(&from_b)?)
            }
            _ if imagined => (1, to_root(&from_a), to_root(&from_b)),
            _ => return None,
        };
        Some(2.0 * depth as f64 / (far_a + far_b + 2 * depth) as f64)
    }

    fn meaning(&self, synset: Synset) -> Option<&Meaning> {
        self.meanings.get(synset.0)
    }

    fn name(&self, synset: Synset) -> &str {
        self.meaning(synset).map_or("", |meaning| &meaning.name)
    }

    /// A meaning and all more general ones, with the fewest steps to each.
    fn distances(&self, from: Synset) -> Vec<(Synset, usize)> {
        if let Some(known) = self.distances.borrow().get(&from) {
            return known.clone();
        }
        let mut found: Vec<(Synset, usize)> = vec![];
        let mut queue = VecDeque::from([(from, 0)]);
        while let Some((next, far)) = queue.pop_front() {
            if found.iter().any(|(known, _)| *known == next) {
                continue;
            }
            found.push((next, far));
            let above = self.meaning(next).map_or(&[][..], |meaning| &meaning.above);
            queue.extend(above.iter().map(|one| (*one, far + 1)));
        }
        self.distances.borrow_mut().insert(from, found.clone());
        found
    }
}

/// The steps between two meanings, given the distances from each: up to a meaning that both lead to, and down.
fn nearest(from: &[(Synset, usize)], to: &[(Synset, usize)], imagined: bool) -> Option<usize> {
    let over = |one: &(Synset, usize)| {
        let same = to.iter().find(|other| other.0 == one.0)?;
        Some(one.1 + same.1)
    };
    let root = imagined.then(|| to_root(from) + to_root(to));
    from.iter().filter_map(over).chain(root).min()
}

/// The steps to the imagined root, as NLTK counts them: one more than to the farthest general meaning.
fn to_root(from: &[(Synset, usize)]) -> usize {
    1 + from.iter().map(|one| one.1).max().unwrap_or(0)
}

/// A line of a data file.
struct Record {
    offset: usize,
    letter: char,
    word: String,
    /// Hypernyms and instance hypernyms.
    above: Vec<(Pos, usize)>,
}

impl Record {
    fn parse(line: &str) -> Option<Self> {
        let line = line.split_once('|').map_or(line, |(fields, _)| fields);
        let mut fields = line.split_whitespace();
        let offset = fields.next()?.parse().ok()?;
        let letter = fields.nth(1)?.chars().next()?;
        let words = usize::from_str_radix(fields.next()?, 16).ok()?;
        // A mark such as (p) tells where an adjective may stand.
        let word = fields.next()?.split('(').next()?.to_owned();
        // The rest of the words, each with a number, and the number of the first.
        for _ in 0..words.checked_mul(2)?.checked_sub(1)? {
            fields.next()?;
        }
        let pointers: usize = fields.next()?.parse().ok()?;
        let mut above = vec![];
        for _ in 0..pointers {
            let (symbol, offset) = (fields.next()?, fields.next()?.parse().ok()?);
            let pos = match fields.next()? {
                "n" => Pos::Noun,
                "v" => Pos::Verb,
                "a" | "s" => Pos::Adjective,
                "r" => Pos::Adverb,
                _ => return None,
            };
            fields.next()?;
            if matches!(symbol, "@" | "@i") {
                above.push((pos, offset));
            }
        }
        Some(Self {
            offset,
            letter,
            word,
            above,
        })
    }
}

/// A word and the offsets of its meanings.
fn index_line(line: &str) -> Option<(String, Vec<usize>)> {
    let mut fields = line.split_whitespace();
    let word = fields.next()?.to_owned();
    let meanings: usize = fields.nth(1)?.parse().ok()?;
    let pointers: usize = fields.next()?.parse().ok()?;
    // Symbols of the pointers, the number of meanings again, and that of meanings with a frequency.
    for _ in 0..pointers.checked_add(2)? {
        fields.next()?;
    }
    let offsets: Vec<usize> = fields
        .map(|field| field.parse().ok())
        .collect::<Option<_>>()?;
    (offsets.len() == meanings).then_some((word, offsets))
}

fn is_record(line: &str) -> bool {
    !line.starts_with(' ') && !line.trim().is_empty()
}

#[cfg(test)]
#[path = "wordnet_tests.rs"]
pub(crate) mod tests;
