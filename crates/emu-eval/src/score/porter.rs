//! Porter's stemmer (Porter 1980) with the extensions that NLTK enables by default, which OK-VQA's evaluation uses.
//!
//! The published crates implement the original algorithm or its successor (Snowball), whose stems differ. A stem is not a
//! word: `hydrant` becomes `hydr`.

/// Words with a stem of their own.
const IRREGULAR: &[(&str, &str)] = &[
    ("skies", "sky"),
    ("sky", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// Double suffixes and what is left of them, if the stem has a vowel and a consonant after it.
const STEP_2: &[(&str, &str)] = &[
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
];

const STEP_3: &[(&str, &str)] = &[
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

/// Suffixes that long stems lose. Of two that fit the first counts, even if its stem is too short.
const STEP_4: &[&str] = &[
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
    "ism", "ate", "iti", "ous", "ive", "ize",
];

/// The stem of a word, in lower case. A phrase is treated as one word: only its end changes.
pub fn stem(word: &str) -> String {
    let lower = word.to_lowercase();
    if let Some((_, stem)) = IRREGULAR.iter().find(|(word, _)| *word == lower) {
        return stem.to_string();
    }
    if word.chars().count() <= 2 {
        return lower;
    }
    let stem = step_1a(lower);
    let stem = step_1b(stem);
    let stem = step_1c(stem);
    let stem = step_2(stem);
    let stem = replace_first(stem, STEP_3);
    let stem = step_4(stem);
    step_5(stem)
}

/// Plurals.
fn step_1a(word: String) -> String {
    if let Some(stem) = word.strip_suffix("ies") {
        let short = word.chars().count() == 4;
        return format!("{stem}{}", if short { "ie" } else { "i" });
    }
    if let Some(stem) = word.strip_suffix("sses") {
        return format!("{stem}ss");
    }
    match word.strip_suffix('s') {
        Some(stem) if !stem.ends_with('s') => stem.to_string(),
        _ => word,
    }
}

/// Past tenses and participles.
fn step_1b(word: String) -> String {
    if let Some(stem) = word.strip_suffix("ied") {
        let short = word.chars().count() == 4;
        return format!("{stem}{}", if short { "ie" } else { "i" });
    }
    if let Some(stem) = word.strip_suffix("eed") {
        return if measure(stem) > 0 {
            format!("{stem}ee")
        } else {
            word
        };
    }
    let cut = ["ed", "ing"]
        .iter()
        .filter_map(|suffix| word.strip_suffix(suffix))
        .find(|stem| consonants(stem).contains(&false));
    let Some(stem) = cut else { return word };
    if ["at", "bl", "iz"].iter().any(|end| stem.ends_with(end)) {
        return format!("{stem}e");
    }
    if let Some(last) = doubled_consonant(stem) {
        let single = &stem[..stem.len() - last.len_utf8()];
        return if "lsz".contains(last) { stem } else { single }.to_string();
    }
    if measure(stem) == 1 && is_short(stem) {
        return format!("{stem}e");
    }
    stem.to_string()
}

/// A final `y` after a consonant that is not the only letter before it.
fn step_1c(word: String) -> String {
    match word.strip_suffix('y') {
        Some(stem) if stem.chars().count() > 1 && consonants(stem).last() == Some(&true) => {
            format!("{stem}i")
        }
        _ => word,
    }
}

fn step_2(word: String) -> String {
    if let Some(stem) = word.strip_suffix("alli")
        && measure(stem) > 0
    {
        // The step is applied again to what is left.
        return step_2(format!("{stem}al"));
    }
    if let Some(stem) = word.strip_suffix("logi") {
        // The l counts as part of the stem: geology and archaeology are treated alike.
        return if measure(&format!("{stem}l")) > 0 {
            format!("{stem}log")
        } else {
            word
        };
    }
    replace_first(word, STEP_2)
}

fn step_4(word: String) -> String {
    let Some((suffix, stem)) = STEP_4
        .iter()
        .find_map(|suffix| Some((*suffix, word.strip_suffix(suffix)?)))
    else {
        return word;
    };
    let fits = measure(stem) > 1 && (suffix != "ion" || stem.ends_with(['s', 't']));
    if fits { stem.to_string() } else { word }
}

/// A final `e`, and one of two final `l`.
fn step_5(word: String) -> String {
    let word = match word.strip_suffix('e') {
        Some(stem) if measure(stem) > 1 || (measure(stem) == 1 && !is_short(stem)) => {
            stem.to_string()
        }
        _ => word,
    };
    match word.strip_suffix('l') {
        Some(stem) if stem.ends_with('l') && measure(stem) > 1 => stem.to_string(),
        _ => word,
    }
}

/// Replaces the first suffix of the list that fits, if the stem has a vowel and a consonant after it.
fn replace_first(word: String, rules: &[(&str, &str)]) -> String {
    let fitting = rules
        .iter()
        .find_map(|(suffix, replacement)| Some((word.strip_suffix(suffix)?, replacement)));
    match fitting {
        Some((stem, replacement)) if measure(stem) > 0 => format!("{stem}{replacement}"),
        _ => word,
    }
}

/// Which characters are consonants: all but `a e i o u` and a `y` after a consonant.
fn consonants(word: &str) -> Vec<bool> {
    let mut flags: Vec<bool> = Vec::with_capacity(word.len());
    for c in word.chars() {
        let flag = match c {
            'a' | 'e' | 'i' | 'o' | 'u' => false,
            'y' => flags.last() != Some(&true),
            _ => true,
        };
        flags.push(flag);
    }
    flags
}

/// Porter's measure: how often a consonant follows a vowel.
fn measure(word: &str) -> usize {
    consonants(word)
        .windows(2)
        .filter(|pair| !pair[0] && pair[1])
        .count()
}

/// The last two characters, if they are the same consonant.
fn doubled_consonant(word: &str) -> Option<char> {
    let mut last = word.chars().rev();
    let (a, b) = (last.next()?, last.next()?);
    (a == b && consonants(word).last() == Some(&true)).then_some(a)
}

/// Whether a word ends with consonant, vowel and a consonant other than w, x, y, or is a vowel and a consonant.
fn is_short(word: &str) -> bool {
    match consonants(word)[..] {
        [false, true] => true,
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Words, and their stems by NLTK 3.10.4.
    const STEMS: &[(&str, &str)] = &[
        ("racing", "race"),
        ("dogs", "dog"),
        ("puppies", "puppi"),
        ("hydrants", "hydrant"),
        ("shoes", "shoe"),
        ("germany", "germani"),
        ("skies", "sky"),
        ("dying", "die"),
        ("news", "news"),
        ("Innings", "inning"),
        ("proceed", "proceed"),
        ("ties", "tie"),
        ("dies", "die"),
        ("died", "die"),
        ("tied", "tie"),
        ("flies", "fli"),
        ("spied", "spi"),
        ("agreed", "agre"),
        ("feed", "feed"),
        ("bleed", "bleed"),
        ("plastered", "plaster"),
        ("sing", "sing"),
        ("motoring", "motor"),
        ("conflated", "conflat"),
        ("troubled", "troubl"),
        ("sized", "size"),
        ("hopping", "hop"),
        ("tanned", "tan"),
        ("falling", "fall"),
        ("hissing", "hiss"),
        ("fizzed", "fizz"),
        ("failing", "fail"),
        ("filing", "file"),
        ("happy", "happi"),
        ("sky", "sky"),
        ("enjoy", "enjoy"),
        ("spy", "spi"),
        ("by", "by"),
        ("say", "say"),
        ("relational", "relat"),
        ("conditional", "condit"),
        ("rational", "ration"),
        ("valency", "valenc"),
        ("hesitancy", "hesit"),
        ("digitizer", "digit"),
        ("conformably", "conform"),
        ("radically", "radic"),
        ("differently", "differ"),
        ("vilely", "vile"),
        ("analogously", "analog"),
        ("vietnamization", "vietnam"),
        ("predication", "predic"),
        ("operator", "oper"),
        ("feudalism", "feudal"),
        ("decisiveness", "decis"),
        ("hopefulness", "hope"),
        ("callousness", "callous"),
        ("formality", "formal"),
        ("sensitivity", "sensit"),
        ("sensibility", "sensibl"),
        ("hopefully", "hope"),
        ("geology", "geolog"),
        ("archaeology", "archaeolog"),
        ("logy", "logi"),
        ("triplicate", "triplic"),
        ("formative", "form"),
        ("formalize", "formal"),
        ("electricity", "electr"),
        ("electrical", "electr"),
        ("hopeful", "hope"),
        ("goodness", "good"),
        ("revival", "reviv"),
        ("allowance", "allow"),
        ("inference", "infer"),
        ("airliner", "airlin"),
        ("gyroscopic", "gyroscop"),
        ("adjustable", "adjust"),
        ("defensible", "defens"),
        ("irritant", "irrit"),
        ("replacement", "replac"),
        ("adjustment", "adjust"),
        ("dependent", "depend"),
        ("adoption", "adopt"),
        ("religion", "religion"),
        ("homologou", "homolog"),
        ("communism", "commun"),
        ("activate", "activ"),
        ("angularity", "angular"),
        ("homologous", "homolog"),
        ("effective", "effect"),
        ("bowdlerize", "bowdler"),
        ("probate", "probat"),
        ("rate", "rate"),
        ("cease", "ceas"),
        ("controlling", "control"),
        ("roll", "roll"),
        ("rolled", "roll"),
        ("skiing", "ski"),
        ("tennis", "tenni"),
        ("glasses", "glass"),
        ("bus", "bu"),
        ("buses", "buse"),
        ("grass", "grass"),
        ("kissed", "kiss"),
        ("Christmas", "christma"),
        ("children's", "children'"),
        ("yyyy", "yyyi"),
        ("syzygy", "syzygi"),
        ("toy", "toy"),
        ("toys", "toy"),
        ("yes", "ye"),
        ("ies", "i"),
        ("eed", "eed"),
        ("ing", "ing"),
        ("ed", "ed"),
        ("owed", "owe"),
        ("oed", "o"),
        ("aed", "a"),
        ("being", "be"),
        ("used", "use"),
        ("using", "use"),
        ("cried", "cri"),
        ("lies", "lie"),
        ("pies", "pie"),
        ("oxen", "oxen"),
        ("Oranges", "orang"),
        ("carrots", "carrot"),
        ("frisbee", "frisbe"),
        ("skateboarding", "skateboard"),
        ("teddy-bears", "teddy-bear"),
        ("café", "café"),
        ("naïve", "naïv"),
        ("fire-hydrants", "fire-hydr"),
        ("grapes", "grape"),
        ("wheels", "wheel"),
        ("umbrellas", "umbrella"),
        ("generally", "gener"),
        ("occasionally", "occasion"),
        ("totally", "total"),
        ("finally", "final"),
        ("usually", "usual"),
        ("apologize", "apolog"),
        ("lapis", "lapi"),
        ("ass", "ass"),
        ("as", "as"),
        ("is", "is"),
        ("us", "us"),
        ("The fire hydrants", "the fire hydr"),
        ("running shoes", "running sho"),
        ("ice cream", "ice cream"),
        ("stop signs", "stop sign"),
        ("to be happy", "to be happi"),
        ("Blue and Yellow", "blue and yellow"),
    ];

    #[test]
    fn stems_are_those_of_nltk() {
        for (word, expected) in STEMS {
            assert_eq!(stem(word), *expected, "{word}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_stem(text in "\\PC{0,12}", end in "(ies|sses|eed|ed|ing|y|alli|logi|ization|ion|e|ll|s|)") {
            stem(&format!("{text}{end}"));
        }
    }
}
