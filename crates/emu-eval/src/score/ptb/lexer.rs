//! Applies the rules to a text: the longest match at each position.

use regex_automata::hybrid::dfa::{Cache, DFA, OverlappingState};
use regex_automata::nfa::thompson;
use regex_automata::{Anchored, Input, MatchKind};

use super::rules::{Make, PARTS, RULES, Rule, Then};

/// Characters that Java takes for the end of a line.
const LINE_ENDS: [char; 6] = ['\n', '\r', '\u{b}', '\u{c}', '\u{2028}', '\u{2029}'];

/// Characters that are typed for an apostrophe.
const APOSTROPHES: [char; 7] = [
    '\'', '`', '\u{91}', '\u{92}', '\u{2018}', '\u{2019}', '\u{201b}',
];

/// All rules as one automaton, which is built as texts need it.
#[derive(Debug, Clone)]
pub struct Lexer {
    dfa: DFA,
    cache: Cache,
}

impl Lexer {
    pub fn new() -> Self {
        let patterns: Vec<String> = RULES.iter().map(|rule| expand(rule.pattern)).collect();
        let dfa = DFA::builder()
            .configure(
                DFA::config()
                    .match_kind(MatchKind::All)
                    .starts_for_each_pattern(false)
                    .skip_cache_capacity_check(true),
            )
            .thompson(thompson::Config::new().shrink(false))
            .build_many(&patterns)
            .expect("the table of rules is tested");
        let cache = dfa.create_cache();
        Self { dfa, cache }
    }

    /// The tokens of a text in lower case.
    pub fn tokens(&mut self, text: &str) -> Vec<String> {
        // The newline is what follows the last token.
        let mut line = text.replace(LINE_ENDS, " ");
        line.push('\n');
        let mut tokens = Vec::new();
        let mut at = 0;
        while at < line.len() {
            match self.longest(&line, at) {
                Some((rule, end)) => {
                    let token = &line[at..at + kept(rule.then, &line[at..end])];
                    at += token.len();
                    make(rule.make, token, &mut tokens);
                }
                // White space, and characters that are not part of any token.
                None => at += line[at..].chars().next().map_or(1, char::len_utf8),
            }
        }
        tokens
    }

    /// The rule with the longest match at a position, and the end of the match.
    fn longest(&mut self, line: &str, at: usize) -> Option<(&'static Rule, usize)> {
        let input = Input::new(line).range(at..).anchored(Anchored::Yes);
        let mut state = OverlappingState::start();
        let mut best: Option<(usize, usize)> = None;
        loop {
            // An automaton of these rules neither quits nor gives up, and starts anchored.
            self.dfa
                .try_search_overlapping_fwd(&mut self.cache, &input, &mut state)
                .ok()?;
            let Some(found) = state.get_match() else {
                break;
            };
            let (rule, end) = (found.pattern().as_usize(), found.offset());
            best = match best {
                Some((first, longest)) if (end, first) <= (longest, rule) => best,
                _ => Some((rule, end)),
            };
        }
        best.map(|(rule, end)| (&RULES[rule], end))
    }
}

/// Replaces the names of parts in a pattern.
fn expand(pattern: &str) -> String {
    let mut pattern = pattern.to_string();
    for (name, part) in PARTS.iter().rev() {
        pattern = pattern.replace(&format!("{{{{{name}}}}}"), part);
    }
    pattern
}

/// Bytes of the match in front of what must follow.
fn kept(then: Then, text: &str) -> usize {
    let back = |from: usize, count: usize| {
        let mut characters = text[..from].char_indices().rev();
        characters.nth(count - 1).map_or(from, |(at, _)| at)
    };
    match then {
        Then::Anything => text.len(),
        Then::Characters(count) => back(text.len(), count),
        Then::Apostrophe(more) => {
            let entity = text.to_ascii_lowercase().rfind("&apos;");
            let sign = text.rfind(APOSTROPHES);
            let from = entity.max(sign).unwrap_or(text.len());
            if more == 0 { from } else { back(from, more) }
        }
        Then::AfterPeriod => text.rfind('.').map_or(text.len(), |at| at + 1),
    }
}

/// Appends what a token becomes.
fn make(make: Make, token: &str, tokens: &mut Vec<String>) {
    let mut push = |token: &str| tokens.push(token.to_lowercase());
    match make {
        Make::Same => push(token),
        Make::Nothing => {}
        Make::Text(text) => push(text),
        Make::Cut(last) => {
            let (start, end) = token.split_at(token.len().saturating_sub(last));
            push(start);
            push(end);
        }
        Make::Word => {
            let word = token.replace('\u{ad}', "");
            push(if word.is_empty() { "-" } else { &word });
        }
        Make::Joined => push(
            &token
                .replace(' ', "\u{a0}")
                .replace('(', "-LRB-")
                .replace(')', "-RRB-"),
        ),
        Make::Apostrophe => {
            let token = token.replace("&apos;", "'");
            push(&token.chars().map(quote).collect::<String>());
        }
        Make::Ampersand => push(&token.to_lowercase().replace("&amp;", "&")),
        Make::Quotes => push(&token.chars().map(quote).collect::<String>()),
        Make::Hyphens => push(if (3..=4).contains(&token.len()) {
            "--"
        } else {
            token
        }),
        Make::Fraction => push(match token {
            "¼" => "1/4",
            "½" => "1/2",
            "¾" => "3/4",
            "⅓" => "1/3",
            "⅔" => "2/3",
            other => other,
        }),
        Make::Currency => push(match token {
            "¢" => "cents",
            "£" => "#",
            "\u{80}" | "¤" | "₠" | "€" => "$",
            other => other,
        }),
    }
}

/// A quotation mark as the Penn Treebank writes it.
fn quote(mark: char) -> String {
    match mark {
        '\u{91}' | '‘' | '‛' | '‹' => "`".into(),
        '\u{92}' | '’' | '›' => "'".into(),
        '\u{93}' | '“' | '«' => "``".into(),
        '\u{94}' | '”' | '»' => "''".into(),
        other => other.into(),
    }
}
