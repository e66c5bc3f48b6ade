//! Stop strings: found in a stream of text pieces, across their borders, and never delivered, not even in part.

/// Text that can be delivered, with the notes of its tokens.
pub type Delivered<T> = (String, Vec<T>);

/// A text on its way to a reader: cut at the first stop string, text that may be the beginning of one held back. Each piece may
/// carry a note, such as the log-probabilities of its token, which is delivered with it.
///
/// Of the stop strings, the match that ends first wins; of those that end together, the longest. The result does not depend on
/// how the text is divided into pieces.
#[derive(Clone, Debug)]
pub struct StopStream<T> {
    matcher: StopMatcher,
    /// Bytes taken and bytes delivered.
    taken: usize,
    delivered: usize,
    /// Notes of pieces that have not been delivered: start and end of the piece, in bytes taken.
    waiting: Vec<(usize, usize, T)>,
}

impl<T> StopStream<T> {
    /// Empty stop strings are ignored.
    pub fn new(stops: &[String]) -> Self {
        Self {
            matcher: StopMatcher::new(stops.to_vec()),
            taken: 0,
            delivered: 0,
            waiting: vec![],
        }
    }

    /// Whether a stop string was found. Later pieces are dropped.
    pub fn stopped(&self) -> bool {
        self.matcher.stopped
    }

    /// Takes a piece. Returns what can be delivered, if there is anything.
    pub fn push(&mut self, piece: &str, note: Option<T>) -> Option<Delivered<T>> {
        if self.stopped() {
            return None;
        }
        let text = self.matcher.push(piece);
        let start = self.taken;
        self.taken += piece.len();
        if let Some(note) = note {
            self.waiting.push((start, self.taken, note));
        }
        self.deliver(text)
    }

    /// The end of the text, or of a part of it that no stop string extends beyond. Returns what was held back, if there is
    /// anything.
    pub fn finish(&mut self) -> Option<Delivered<T>> {
        let text = self.matcher.finish();
        self.deliver(text)
    }

    fn deliver(&mut self, text: String) -> Option<Delivered<T>> {
        self.delivered += text.len();
        let (delivered, stopped) = (self.delivered, self.stopped());
        let ready = self.waiting.iter().take_while(|(start, end, _)| {
            // Of a piece that a stop string cuts, the beginning was delivered.
            *end <= delivered || (stopped && *start < delivered)
        });
        let ready = ready.count();
        let notes: Vec<_> = self.waiting.drain(..ready).map(|(.., note)| note).collect();
        (!text.is_empty() || !notes.is_empty()).then_some((text, notes))
    }
}

#[derive(Clone, Debug)]
struct StopMatcher {
    stops: Vec<String>,
    /// Text that has not been delivered: a proper prefix of a stop string, or empty.
    held: String,
    stopped: bool,
}

impl StopMatcher {
    fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self {
            stops,
            held: String::new(),
            stopped: false,
        }
    }

    /// Takes a piece. Returns what can be delivered.
    fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        let mut text = std::mem::take(&mut self.held);
        text.push_str(piece);
        let matches = self.stops.iter().filter_map(|stop| {
            let start = text.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        if let Some((_, start)) = matches.min() {
            self.stopped = true;
            text.truncate(start);
            return text;
        }
        let keep = text
            .char_indices()
            .map(|(at, _)| at)
            .find(|&at| {
                let rest = text.get(at..).unwrap_or_default();
                self.stops.iter().any(|stop| stop.starts_with(rest))
            })
            .unwrap_or(text.len());
        self.held = text.split_off(keep);
        text
    }

    /// Returns what was held back.
    fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut matcher = StopMatcher::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut told: Vec<String> = pieces.iter().map(|piece| matcher.push(piece)).collect();
        told.push(matcher.finish());
        (told, matcher.stopped)
    }

    #[test]
    fn a_stop_string_across_tokens_is_found_and_nothing_of_it_is_told() {
        let (told, stopped) = run(&["END"], &["one E", "N", "D two"]);
        assert_eq!(told, ["one ", "", "", ""]);
        assert!(stopped);
        let (told, stopped) = run(&["</s>"], &["a<", "/", "b", "</s", ">c", "d"]);
        assert_eq!(told.concat(), "a</b");
        assert!(stopped);
    }

    #[test]
    fn what_only_looked_like_one_is_told_in_the_end() {
        let (told, stopped) = run(&["END"], &["one E", "N"]);
        assert_eq!(told, ["one ", "", "EN"]);
        assert!(!stopped);
        let (told, _) = run(&["aab"], &["a", "a", "a", "c"]);
        assert_eq!(told, ["", "", "a", "aac", ""]);
        let (told, stopped) = run(&["", "é!"], &["caf", "é", "?"]);
        assert_eq!(told, ["caf", "", "é?", ""]);
        assert!(!stopped);
    }

    #[test]
    fn the_match_that_ends_first_wins() {
        assert_eq!(run(&["abcd", "bc"], &["xabcd"]).0.concat(), "xa");
        assert_eq!(run(&["abcd", "bc"], &["xab", "cd"]).0.concat(), "xa");
        assert_eq!(run(&["bcd", "abcd"], &["xab", "cd"]).0.concat(), "x");
    }

    #[test]
    fn notes_are_delivered_with_the_text_of_their_pieces() {
        let mut stream = StopStream::new(&["END".to_owned()]);
        assert_eq!(stream.push("one", Some(1)), Some(("one".into(), vec![1])));
        // An incomplete character has no text.
        assert_eq!(stream.push("", Some(2)), Some((String::new(), vec![2])));
        assert_eq!(stream.push(" E", Some(3)), Some((" ".into(), vec![])));
        assert_eq!(stream.push("N", Some(4)), None);
        assert_eq!(
            stream.push("x", Some(5)),
            Some(("ENx".into(), vec![3, 4, 5]))
        );
        // A piece without a note, and one that the stop string cuts.
        assert_eq!(stream.push("y", None), Some(("y".into(), vec![])));
        assert_eq!(stream.push("zE", Some(6)), Some(("z".into(), vec![])));
        assert!(!stream.stopped());
        // Its beginning was delivered, so its note is due; the piece within the stop string was never seen.
        assert_eq!(stream.push("ND!", Some(7)), Some((String::new(), vec![6])));
        assert!(stream.stopped());
        assert_eq!(stream.push("later", Some(8)), None);
        assert_eq!(stream.finish(), None);
        // Before a picture, what was held back is delivered, and the text goes on.
        let mut stream = StopStream::new(&["END".to_owned()]);
        assert_eq!(stream.push("E", Some(1)), None);
        assert_eq!(stream.finish(), Some(("E".into(), vec![1])));
        assert_eq!(stream.push("ND", Some(2)), Some(("ND".into(), vec![2])));
    }

    /// Character by character: the text before the stop string that ends first, of those the longest.
    fn reference(stops: &[String], text: &str) -> String {
        let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
        for end in ends {
            let head = &text[..end];
            let ending = stops.iter().filter(|stop| head.ends_with(stop.as_str()));
            if let Some(longest) = ending.map(String::len).max() {
                return head[..end - longest].to_owned();
            }
        }
        text.to_owned()
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, cases: 2000, ..Default::default() })]

        #[test]
        fn the_division_into_pieces_does_not_matter(
            stops in proptest::collection::vec("[abé]{1,4}", 0..4),
            pieces in proptest::collection::vec("[abéc]{0,4}", 0..12),
        ) {
            let mut matcher = StopMatcher::new(stops.clone());
            let mut told = String::new();
            let expected = reference(&stops, &pieces.concat());
            for piece in &pieces {
                told += &matcher.push(piece);
                proptest::prop_assert!(expected.starts_with(&told), "{told:?} leaks beyond {expected:?}");
            }
            told += &matcher.finish();
            proptest::prop_assert_eq!(told, expected);
        }
    }
}
