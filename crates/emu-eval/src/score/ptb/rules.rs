//! The rules of the tokenizer, as a table: what a token looks like, and what it becomes.
//!
//! They were found by observing the original program: which strings stay together, and which are cut where.

/// What a token becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// Itself.
    Same,
    /// No token.
    Nothing,
    /// This text.
    Text(&'static str),
    /// Two tokens, cut in front of the last characters.
    Cut(usize),
    /// Itself without soft hyphens; a hyphen if nothing else is left.
    Word,
    /// Itself with no-break spaces for spaces, and names for round brackets.
    Joined,
    /// Itself with an ASCII apostrophe.
    Apostrophe,
    /// Typewriter quotes.
    Quotes,
    /// Itself with `&` for its entity.
    Ampersand,
    /// Two hyphens if there are three or four, else itself.
    Hyphens,
    /// The ASCII fraction.
    Fraction,
    /// The Penn Treebank's name of a currency.
    Currency,
}

/// What must follow a token without being part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Anything.
    Anything,
    /// So many characters of the match.
    Characters(usize),
    /// The match from its last apostrophe on, and so many characters in front of it.
    Apostrophe(usize),
    /// The match after its last period.
    AfterPeriod,
}

/// A rule. `pattern` includes what must follow.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// A regular expression, with names of [`PARTS`] in double braces.
    pub pattern: &'static str,
    /// The end of the pattern that stays in the text.
    pub then: Then,
    /// The token.
    pub make: Make,
}

const fn rule(pattern: &'static str, make: Make) -> Rule {
    let then = Then::Anything;
    Rule {
        pattern,
        then,
        make,
    }
}

const fn before(then: Then, pattern: &'static str, make: Make) -> Rule {
    Rule {
        pattern,
        then,
        make,
    }
}

/// Named parts of patterns. A part may use those above it.
pub const PARTS: &[(&str, &str)] = &[
    // Letters and digits: those of Unicode 6.3 in the basic plane. Some characters were no letters then, or still were.
    (
        "letter",
        r"(?x:[
        [[\p{L}&&\p{Age=6.3}&&[\x00-\x{FFFF}]] -- [\x{19B0}-\x{19C0}\x{19C8}\x{19C9}\x{1CF2}\x{1CF3}]]
        \x{1885}\x{1886}])",
    ),
    ("digit", r"[\p{Nd}&&\p{Age=6.3}&&[\x00-\x{FFFF}]]"),
    ("alnum", "(?:{{letter}}|{{digit}})"),
    // What words contain besides letters: the soft hyphen, signs and marks, mostly of scripts that combine them.
    (
        "mark",
        r"(?x:[\xAD
        \x{2C2}-\x{2C5}\x{2D2}-\x{2DF}\x{2E5}-\x{2EB}\x{2ED}\x{2EF}-\x{36F}\x{375}\x{378}-\x{379}\x{384}-\x{385}
        \x{3F6}\x{483}-\x{487}\x{55A}-\x{55F}\x{591}-\x{5BD}\x{5BF}\x{5C1}-\x{5C2}\x{5C4}-\x{5C5}\x{5C7}
        \x{615}-\x{61A}\x{64B}-\x{65E}\x{670}\x{6D6}-\x{6E4}\x{6E7}-\x{6ED}\x{6FD}-\x{6FE}\x{70F}\x{711}
        \x{730}-\x{74C}\x{7A6}-\x{7B0}\x{7EB}-\x{7F3}\x{900}-\x{903}\x{93C}\x{93E}-\x{94E}\x{951}-\x{955}
        \x{962}-\x{963}\x{981}-\x{983}\x{9BC}\x{9BE}-\x{9C4}\x{9C7}-\x{9C8}\x{9CB}-\x{9CD}\x{9D7}\x{9E2}-\x{9E3}
        \x{A01}-\x{A03}\x{A3C}\x{A3E}-\x{A4F}\x{A81}-\x{A83}\x{ABC}\x{ABE}-\x{ACF}\x{B82}\x{BBE}-\x{BC2}
        \x{BC6}-\x{BC8}\x{BCA}-\x{BCD}\x{C01}-\x{C03}\x{C3E}-\x{C56}\x{D3E}-\x{D44}\x{D46}-\x{D48}\x{E31}
        \x{E34}-\x{E3A}\x{E47}-\x{E4E}\x{EB1}\x{EB4}-\x{EBC}\x{EC8}-\x{ECD}
        ])",
    ),
    ("entity", "&[aeiouAEIOU](?:acute|grave|uml);"),
    ("wordletter", "(?:{{letter}}|{{mark}}|{{entity}})"),
    ("wordchar", "(?:{{alnum}}|{{mark}}|{{entity}})"),
    ("blank", r"[\ \t\xA0\x{2000}-\x{200A}\x{3000}]"),
    ("apos", r"(?:['\x92\x{2019}]|(?i-u:&apos;))"),
    ("anyapos", r"(?:{{apos}}|[`\x91\x{2018}\x{201B}])"),
    ("hyphen", r"[-_\x{58A}\x{2010}\x{2011}]"),
    // Parts that are split off: 's, 'm, 'd, 're, 've, 'll; n't.
    ("auxiliary", "{{apos}}(?:[msdMSD]|(?i-u:re|ve|ll))"),
    ("not", "[nN]{{anyapos}}[tT]"),
    (
        "word",
        "{{wordletter}}{{wordchar}}*(?:[.!?]{{wordletter}}{{wordchar}}*)*",
    ),
    // well-known, U.S.-based, 1,000-year
    (
        "ascii_compound",
        r"[A-Za-z0-9][A-Za-z0-9.,\xAD]*(?:-(?:[A-Za-z0-9\xAD]+|[A-Za-z](?:\.[A-Za-z])+\.))+",
    ),
    // d'Artagnan, 2x4, co-op, x_y
    (
        "compound_part",
        "(?:[dDoOlL]{{anyapos}}{{alnum}})?{{alnum}}+",
    ),
    (
        "compound",
        "{{compound_part}}(?:{{hyphen}}{{compound_part}})*",
    ),
    (
        "number",
        r"(?:{{digit}}+|{{digit}}*(?:[.:,\xAD\x{66B}\x{66C}]{{digit}}+)+)",
    ),
    ("tag_name", "[A-Za-z][A-Za-z0-9_:.-]*"),
    (
        "tag_attribute",
        r#"{{tag_name}}(?:\ *=\ *(?:'[^'\n]*'|"[^"\n]*"))?"#,
    ),
    // Words that keep the period after them.
    (
        "abbreviation",
        "(?i-u:\
        jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tues?|wed|thu|thurs|fri|\
        ala|ariz|calif|colo|conn|ct|dak|fla|ga|ind|kans?|ky|md|mich|minn|mo|mont|neb|nev|okla|penn|tenn|va|vt|wisc?|wyo|\
        assn|bancorp|bhd|bldg|blvd|bros|cie|cos?|corp|dept|elec|inc|intl|invt|ltd|natl|plc|sys|univ|\
        adj|adm|asst|atty|brig|capt|cmdr|col|comdr|cpl|det|drs?|ens|esq|gen|govs?|hon|insp|jr|lieut|lt|maj|messrs|mlle|mme|\
        mrs?|ms|msgr|pfc|ph|pres|profs?|pvt|reps?|rev|sens?|sfc|sgt|spc|sr|ste?|supts?|treas|\
        adv|al|alex|ave|cf|est|etc|ext|ft|jos|mt|rd|rt|seq|sq|tel|vs|wm)",
    ),
    (
        "cased_abbreviation",
        "(?:A[zZ]|L[aA]|P[aA]|A(?:rk|RK)|D(?:el|EL)|I(?:ll|LL)|M(?:ass|ASS|iss|ISS)|O(?:re|RE)|T(?:ex|EX)|W(?:ash|ASH)|\
        [mM](?:fg|tg)|[pP]p?t[ey]s?)",
    ),
    (
        "abbreviation_of_numbers",
        "(?i-u:art|ca|figs?|nos?|op|pp|prop)",
    ),
];

/// The rules. The longest match counts, with what must follow; of two equally long ones the first.
pub const RULES: &[Rule] = &[
    // Words that are two.
    rule("(?i-u:cannot)", Make::Cut(3)),
    rule("(?i-u:gonna|gotta|lemme|gimme|wanna)", Make::Cut(2)),
    before(Then::Characters(2), "{{apos}}[tT](?i-u:is)", Make::Same),
    before(Then::Characters(3), "{{apos}}[tT](?i-u:was)", Make::Same),
    // Markup.
    rule(
        r"<(?:[!?][A-Za-z-][^>\n]*|/{{tag_name}}\ *|{{tag_name}}(?:\ +{{tag_attribute}})*\ */?\ *)>",
        Make::Joined,
    ),
    rule(
        r"(?i-u:&(?:md|mdash|ndash);)|[\x96\x97\x{2013}-\x{2015}]",
        Make::Text("--"),
    ),
    rule("(?i-u:&amp;)", Make::Text("&")),
    rule("(?i-u:&nbsp;)", Make::Nothing),
    rule("&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);", Make::Same),
    // Words.
    before(Then::Apostrophe(0), "{{word}}{{auxiliary}}", Make::Word),
    before(
        Then::Apostrophe(1),
        r"[A-Za-z\xAD]*[A-MO-Za-mo-z]\xAD*{{not}}",
        Make::Word,
    ),
    rule("{{word}}", Make::Word),
    rule(
        "{{apos}}[nN]{{apos}}?|[lLdDjJ]{{apos}}|[dD]unkin{{apos}}|[sS]omethin{{apos}}|[oO]l{{apos}}|{{apos}}[eE][mM]|\
        [A-HJ-XZn]{{anyapos}}{{letter}}{2,}|{{apos}}[2-9]0s|{{apos}}till?|\
        {{letter}}+[aeiouyAEIOUY]{{anyapos}}[aeiouA-Z]{{letter}}*|\
        {{apos}}[cC]ause|cont'd\\.?|nor'easter|[cC]'mon|e'er|s'mores|ev'ry|li'l|nat'l",
        Make::Same,
    ),
    before(Then::Characters(1), "[yY]{{apos}}{{letter}}", Make::Same),
    // Addresses.
    rule(
        r#"(?i-u:https?)://[^\ \t\n\r"<>|(){}]+[^\ \t\n\r"'<>|.!?(){},-]"#,
        Make::Same,
    ),
    rule(
        r#"(?:www\.(?:[^\ \t\n\r"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}|(?:[^\ \t\n\r"`'<>|.!?(){},-_$]+\.)+(?:com|net|org|edu))(?:/[^\ \t\n\r"<>|()]+[^\ \t\n\r"<>|.!?(){},-])?"#,
        Make::Same,
    ),
    rule(
        r#"(?:&lt;|<)?(?:mailto:)?[a-zA-Z0-9][^\ \t\n\r"<>|(){}\xA0]*@(?:[^\ \t\n\r"<>|(){}.\xA0]+\.)*[^\ \t\n\r"<>|(){}.\xA0]+(?:&gt;|>)?"#,
        Make::Same,
    ),
    rule("@[a-zA-Z_][a-zA-Z_0-9]*|#{{wordletter}}+", Make::Same),
    // Split-off parts alone.
    before(
        Then::Characters(1),
        "{{auxiliary}}[^A-Za-z]",
        Make::Apostrophe,
    ),
    before(Then::Characters(1), "{{not}}[^A-Za-z]", Make::Apostrophe),
    // Numbers.
    rule(
        "{{digit}}{1,2}[-/]{{digit}}{1,2}[-/]{{digit}}{2,4}",
        Make::Same,
    ),
    rule(r"[-+]?{{number}}", Make::Word),
    before(Then::Characters(1), r"[0-9]+\.[xX][^A-Za-z0-9]", Make::Same),
    rule(
        r"[\x{207A}\x{207B}\x{208A}\x{208B}]?(?:[\x{2070}\xB9\xB2\xB3\x{2074}-\x{2079}]+|[\x{2080}-\x{2089}]+)",
        Make::Same,
    ),
    rule(
        r"(?:{{digit}}{1,4}[-\ \xA0])?{{digit}}{1,4}(?:\\?/|\x{2044}){{digit}}{1,4}",
        Make::Joined,
    ),
    rule(r"[\xBC-\xBE\x{2153}-\x{215E}]", Make::Fraction),
    rule(
        r"(?:\([0-9]{2,3}\)[\ \xA0]?|(?:\+\+?)?(?:[0-9]{2,4}[-\ \xA0])?[0-9]{2,4}[-\ \xA0])[0-9]{3,4}[-\ \xA0]?[0-9]{3,5}|(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}",
        Make::Joined,
    ),
    before(
        Then::Characters(1),
        r"{{apos}}[0-9]{2}(?:{{blank}}|\n)",
        Make::Same,
    ),
    rule(r"[A-Z]*\$", Make::Same),
    rule(
        r"[\x80\xA2-\xA5\x{60B}\x{E3F}\x{20A0}\x{20A4}\x{20AC}\x{FFE0}\x{FFE1}\x{FFE5}\x{FFE6}]",
        Make::Currency,
    ),
    // Compounds.
    rule(
        r"-(?:[LR][RCS]B)-|C\.D\.s|pro-|anti-|S(?:&|(?i-u:&amp;))(?:P-500|Ls)|Cap'n|c'est",
        Make::Ampersand,
    ),
    rule(
        r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}",
        Make::Same,
    ),
    before(
        Then::Apostrophe(0),
        "{{ascii_compound}}{{auxiliary}}",
        Make::Word,
    ),
    rule("{{ascii_compound}}", Make::Word),
    rule("[A-Z]+(?:(?:[+&]|(?i-u:&amp;))[A-Z]+)+", Make::Ampersand),
    before(Then::Apostrophe(0), "{{compound}}{{auxiliary}}", Make::Same),
    rule("{{compound}}", Make::Same),
    // A period between a word and another mark is part of the word.
    before(
        Then::Characters(1),
        r"{{compound}}\.[,;:\x{3001}]",
        Make::Same,
    ),
    // Abbreviations.
    rule(r"(?:[A-Za-z]\.)+", Make::Same),
    rule(r"(?:{{abbreviation}}|{{cased_abbreviation}})\.", Make::Same),
    before(
        Then::AfterPeriod,
        r"{{abbreviation_of_numbers}}\.(?:{{blank}}|\n)?{{digit}}",
        Make::Same,
    ),
    rule(r"[cC]\+\+|[cCfF]\#", Make::Same),
    // Faces.
    before(
        Then::Characters(1),
        r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]][^A-Za-z0-9]",
        Make::Joined,
    ),
    rule(
        r"[-\^x=~<>']_[-\^x=~<>']|\([-\^x=~<>'][_.]?[-\^x=~<>']\)",
        Make::Joined,
    ),
    // Brackets and quotes.
    rule("<<|>>", Make::Same),
    rule("<|(?i-u:&lt;)", Make::Text("<")),
    rule(">|(?i-u:&gt;)", Make::Text(">")),
    rule(r"\(", Make::Text("-LRB-")),
    rule(r"\)", Make::Text("-RRB-")),
    rule(r"\[", Make::Text("-LSB-")),
    rule(r"\]", Make::Text("-RSB-")),
    rule(r"\{", Make::Text("-LCB-")),
    rule(r"\}", Make::Text("-RCB-")),
    before(
        Then::Characters(2),
        r"'[A-Za-z][^\ \t\n\r\xA0]",
        Make::Text("`"),
    ),
    rule("{{auxiliary}}", Make::Apostrophe),
    rule("''|\"|&quot;", Make::Text("''")),
    rule("(?i-u:&quot;)", Make::Same),
    rule("{{apos}}", Make::Apostrophe),
    rule(
        r"[`\x91-\x94\xAB\xBB\x{2018}-\x{201F}\x{2039}\x{203A}]{1,2}",
        Make::Quotes,
    ),
    // Other marks.
    rule("-+", Make::Hyphens),
    rule(
        r"\.{3,}|(?:\.[\ \xA0]){2,}\.|[\x85\x{2026}]",
        Make::Text("..."),
    ),
    rule(r"[?!]+", Make::Same),
    rule(r"\*+|(?:\\\*){1,3}", Make::Same),
    rule(r"\#+|@+|_+", Make::Same),
    rule(
        r"(?x:[.,;:=/%&+~^|\\
        \x{A1}\x{A5}-\x{A9}\x{AC}\x{AE}-\x{B1}\x{B4}\x{B6}-\x{B8}\x{BF}\x{D7}\x{F7}\x{37E}\x{387}\x{589}\x{5BE}
        \x{5C0}\x{5C3}\x{5C6}\x{5F3}-\x{5F4}\x{600}-\x{603}\x{606}-\x{60C}\x{614}\x{61B}\x{61E}-\x{61F}\x{66A}
        \x{66D}\x{6D4}\x{700}-\x{70D}\x{7F6}-\x{7F8}\x{964}-\x{965}\x{E3F}\x{E4F}\x{1FBD}\x{2016}-\x{2017}
        \x{2020}-\x{2023}\x{2030}-\x{2038}\x{203B}\x{203E}-\x{2042}\x{2044}\x{207A}-\x{207E}\x{208A}-\x{208E}
        \x{20A4}\x{2100}-\x{2101}\x{2103}-\x{2106}\x{2108}-\x{2109}\x{2114}\x{2116}-\x{2118}\x{211E}-\x{2123}
        \x{2125}\x{2127}\x{2129}\x{212E}\x{213A}-\x{213B}\x{2140}-\x{2144}\x{214A}-\x{214D}\x{214F}\x{2155}-\x{215E}
        \x{2190}-\x{2BFF}\x{3001}-\x{3002}\x{3012}\x{30FB}\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF20}\x{FF3B}-\x{FF40}
        \x{FF5B}-\x{FF65}\x{FFE0}-\x{FFE1}\x{FFE5}-\x{FFE6}
        ])",
        Make::Same,
    ),
];
