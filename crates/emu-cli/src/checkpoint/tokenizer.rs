//! A SentencePiece model with a given number of pieces. The pieces are meaningless, like the random weights.

/// `ModelProto.SentencePiece.Type`
const UNKNOWN: u8 = 2;
const CONTROL: u8 = 3;
const BYTE: u8 = 6;
const NORMAL: u8 = 1;

/// Bytes of a `tokenizer.model`: `<unk>`, `<s>`, `</s>`, 256 byte tokens, the word mark, and made-up words.
pub fn model(pieces: usize) -> Vec<u8> {
    let mut out = vec![];
    let special = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)];
    for (text, kind) in special {
        piece(&mut out, text, 0.0, kind);
    }
    for byte in 0..256 {
        piece(&mut out, &format!("<0x{byte:02X}>"), 0.0, BYTE);
    }
    let letters = ('a'..='z').map(String::from);
    let words = (0..).map(|n| format!("\u{2581}w{n}"));
    let all = std::iter::once("\u{2581}".to_owned())
        .chain(letters)
        .chain(words);
    for (rank, text) in all.take(pieces.saturating_sub(259)).enumerate() {
        piece(&mut out, &text, -(rank as f32), NORMAL);
    }
    // TrainerSpec: model_type BPE, byte_fallback.
    field(&mut out, 2, &[3 << 3, 2, 0x98, 0x02, 1]);
    // NormalizerSpec: LLaMA's identity normalizer: no rules, no removal of extra white space.
    field(&mut out, 3, b"\x0a\x08identity\x20\x00");
    out
}

fn piece(out: &mut Vec<u8>, text: &str, score: f32, kind: u8) {
    let mut message = vec![];
    field(&mut message, 1, text.as_bytes());
    message.push(2 << 3 | 5);
    message.extend(score.to_le_bytes());
    message.extend([3 << 3, kind]);
    field(out, 1, &message);
}

/// A length-delimited protobuf field.
fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend(bytes);
}

#[cfg(test)]
mod tests {
    use emu_tokenizer::{EmuTokenizer, Roles};

    use super::*;

    #[test]
    fn it_has_as_many_pieces_as_asked_for() {
        for pieces in [300, 32_000] {
            let tokenizer = EmuTokenizer::from_sentencepiece_bytes(&model(pieces), Roles::Pretrain);
            let tokenizer = tokenizer.expect("a tokenizer");
            assert_eq!(tokenizer.specials().image as usize, pieces + 3);
        }
    }
}
