//! Exports a language model's vocabulary as the `tokenizer.json` of a pack.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::plain::{Merging, Role, Vocabulary};
use crate::special::Roles;
use crate::{MAX_FILE_BYTES, TokenizerError};

/// Number of control tokens that are replaced by Emu's.
const SPARE: usize = 4;

impl Vocabulary {
    /// The equivalent `tokenizer.json` with `[PAD] [IMG] [/IMG] <image>` in the places of unused control tokens: no id changes,
    /// and the embedding table stays as it is. A text has the same tokens as with a
    /// [`PlainTokenizer`](crate::PlainTokenizer) of this vocabulary.
    ///
    /// `used`: control tokens that keep their meaning.
    ///
    /// # Errors
    /// The tokenizer is not byte-level BPE, has too few unused control tokens, spells two tokens alike, or is too large.
    pub fn to_emu_json(&self, used: &[u32]) -> Result<String, TokenizerError> {
        let unsupported = |feature: &str| TokenizerError::Unsupported {
            feature: feature.to_owned(),
        };
        let Merging::Ranks { merges, splitting } = &self.merging else {
            return Err(unsupported("SentencePiece's merges without its model file"));
        };
        let role = |id: usize| self.roles.get(id).copied().unwrap_or(Role::Text);

        // 1. control tokens: Emu's replace the first unused ones
        let mut tokens: Vec<&str> = self.tokens.iter().map(String::as_str).collect();
        let spare = |id: &usize| {
            let wanted = u32::try_from(*id).is_ok_and(|id| used.contains(&id));
            role(*id) == Role::Mark && !wanted
        };
        let spare: Vec<usize> = (0..tokens.len()).filter(spare).take(SPARE).collect();
        if spare.len() < SPARE {
            return Err(unsupported("fewer than four marks to spare for pictures"));
        }
        for (&id, &name) in spare.iter().zip(Roles::Pretrain.added()) {
            if let Some(token) = tokens.get_mut(id) {
                *token = name;
            }
        }
        let mut spellings = HashSet::with_capacity(tokens.len());
        if let Some(twice) = tokens.iter().find(|token| !spellings.insert(**token)) {
            return Err(TokenizerError::Model {
                reason: format!("two tokens are spelled {twice:?}"),
            });
        }

        // 2. merges that produce control tokens are dropped, as in `PlainTokenizer`
        let marks: HashSet<&str> = { tokens.iter().zip(&self.tokens).enumerate() }
            .filter(|(id, _)| role(*id) == Role::Mark)
            .flat_map(|(_, (new, old))| [*new, old.as_str()])
            .collect();
        let makes_text = |merge: &&String| {
            merge.split_once(' ').is_none_or(|(left, right)| {
                let made = format!("{left}{right}");
                ![left, right, &made]
                    .iter()
                    .any(|piece| marks.contains(piece))
            })
        };
        let merges: Vec<&String> = merges.iter().filter(makes_text).collect();

        // 3. the JSON as the library writes it
        let added = tokens.iter().enumerate().filter_map(|(id, token)| {
            let special = match role(id) {
                Role::Text => return None,
                Role::Mark => true,
                Role::Whole => false,
            };
            let named = !token.is_empty();
            named.then(|| {
                json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                       "normalized": false, "special": special})
            })
        });
        let added: Vec<Value> = added.collect();
        let vocab: Map<String, Value> = { tokens.iter().enumerate() }
            .map(|(id, token)| ((*token).to_owned(), id.into()))
            .collect();
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
        let failed = |e: serde_json::Error| TokenizerError::Model {
            reason: e.to_string(),
        };
        let pre_tokenizer = serde_json::to_value(splitting.pre_tokenizer()?).map_err(failed)?;
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": splitting.takes_whole_words(), "vocab": vocab, "merges": merges,
            },
        });
        let text = serde_json::to_string(&tokenizer).map_err(failed)?;
        match text.len() > MAX_FILE_BYTES {
            true => Err(TokenizerError::FileTooLarge {
                bytes: text.len(),
                max_bytes: MAX_FILE_BYTES,
            }),
            false => Ok(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{EmuTokenizer, PlainTokenizer, PromptText, Splitting, names};

    const MARKS: [&str; 8] = [
        names::END_OF_TEXT,
        names::CHAT_START,
        names::CHAT_END,
        "<repo>",
        "<file>",
        "<code>",
        "<more>",
        "<rest>",
    ];

    /// Control tokens, the bytes, some words, and a user-defined token.
    fn vocabulary(splitting: Splitting) -> Vocabulary {
        let bytes = ('!'..='~').chain('\u{a1}'..='\u{ac}');
        let bytes = bytes
            .chain('\u{ae}'..='\u{ff}')
            .chain('\u{100}'..='\u{143}');
        let words = [
            "12", "\u{120}a", "an", "<r", "<re", "<rep", "o>", "<repo>x", "<whole>",
        ];
        let mut tokens: Vec<String> = MARKS.map(str::to_owned).to_vec();
        tokens.extend(bytes.map(String::from));
        tokens.extend(words.map(str::to_owned));
        let mut roles = vec![Role::Text; tokens.len()];
        roles[..MARKS.len()].fill(Role::Mark);
        roles[tokens.len() - 1] = Role::Whole;
        // The last two produce a control token and extend one: both are dropped.
        let merges = [
            "1 2",
            "\u{120} a",
            "a n",
            "< r",
            "<r e",
            "<re p",
            "o >",
            "<rep o>",
            "<repo> x",
        ];
        Vocabulary {
            tokens,
            roles,
            merging: Merging::Ranks {
                merges: merges.map(str::to_owned).to_vec(),
                splitting,
            },
        }
    }

    fn both(splitting: Splitting) -> (PlainTokenizer, EmuTokenizer) {
        let vocabulary = vocabulary(splitting);
        let json = vocabulary.to_emu_json(&[0, 1, 2]).expect("a file");
        let emu = EmuTokenizer::from_json_bytes(json.as_bytes()).expect("a tokenizer");
        (PlainTokenizer::new(vocabulary).expect("a tokenizer"), emu)
    }

    #[test]
    fn marks_that_nothing_needs_become_emus() {
        let (plain, emu) = both(Splitting::Digits);
        let specials = emu.specials();
        assert_eq!((specials.unk, specials.bos, specials.eos), (0, 1, 2));
        let pictures = [specials.pad, specials.img, specials.end_img, specials.image];
        assert_eq!(pictures, [3, 4, 5, 6]);
        assert_eq!(
            (specials.user, emu.vocab_size()),
            (None, plain.vocab_size())
        );
        assert_eq!(emu.token_to_id("<repo>"), None);
        assert_eq!(emu.token_to_id("<rest>"), Some(7));
    }

    #[test]
    fn prompts_begin_as_templates_write_them_and_keep_white_space() {
        let (plain, emu) = both(Splitting::Digits);
        let mut prompt = PromptText::default();
        prompt.template("<|im_start|>user\n");
        prompt.plain(" 12 <|im_end|>[IMG]\n");
        prompt.pictures(1);
        prompt.template(" a<|im_end|>\n<|im_start|>assistant\n");
        let ids = emu.encode_prompt(&prompt, 2, 1000).expect("ids");
        let text = |text: &str| plain.encode(text).expect("ids");
        let said = text("user\n 12 <|im_end|>[IMG]\n");
        let expected = [
            vec![1],
            said,
            vec![4, 6, 6, 5],
            text(" a"),
            vec![2],
            text("\n"),
            vec![1],
            text("assistant\n"),
        ];
        assert_eq!(ids, expected.concat());
        // With special tokens, and without.
        let decoded = emu.decode(&ids, false).expect("a text");
        assert!(decoded.starts_with("<|im_start|>user\n 12 <|im_end|>[IMG]\n[IMG]<image>"));
        let seen = emu.decode(&ids, true).expect("a text");
        assert_eq!(seen, "user\n 12 <|im_end|>[IMG]\n a\nassistant\n");
        // Other control tokens of the model decode to nothing.
        assert_eq!(emu.decode(&[7], true).expect("a text"), "");
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let error = |vocabulary: Vocabulary, used: &[u32]| {
            let refused = vocabulary.to_emu_json(used).expect_err("refused");
            (refused.code(), refused.to_string())
        };
        let used: Vec<u32> = (0..5).collect();
        let (code, words) = error(vocabulary(Splitting::Gpt2), &used);
        assert!(
            code == "tokenizer-unsupported" && words.contains("four"),
            "{words}"
        );
        let mut twice = vocabulary(Splitting::Gpt2);
        twice.tokens[20] = "[IMG]".into();
        let (code, words) = error(twice, &[0, 1, 2]);
        assert!(
            code == "tokenizer-failed" && words.contains("[IMG]"),
            "{words}"
        );
        let mut pieces = vocabulary(Splitting::Gpt2);
        pieces.merging = Merging::Scores {
            scores: vec![],
            space_first: true,
        };
        assert_eq!(error(pieces, &[]).0, "tokenizer-unsupported");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..Default::default() })]

        /// User text has the same tokens as with the language model's own tokenizer.
        #[test]
        fn texts_have_the_tokens_of_the_model_alone(
            text in r"(a|an| |12|7|<repo>x?|<rest>|<whole>|\[IMG\]|<image>|<\|im_(start|end)\|>|<\|endoftext\|>|\n|\PC){0,24}",
            kind in 0usize..4,
        ) {
            let splitting = [Splitting::Gpt2, Splitting::Digits, Splitting::Llama3, Splitting::Default][kind];
            let (plain, emu) = both(splitting);
            let ids = plain.encode(&text).expect("ids");
            prop_assert_eq!(&emu.encode_plain(&text).expect("ids"), &ids);
            prop_assert_eq!(emu.decode(&ids, true).expect("a text"), plain.decode(&ids).expect("a text"));
        }
    }
}
