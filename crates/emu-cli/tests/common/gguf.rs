//! A small language model with random weights, written as GGUF.

/// Width of the model.
pub const WIDTH: usize = 32;
const FFN: usize = 48;
/// ChatML chat template.
pub const TEMPLATE: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}";

/// A GGUF file under construction: header and data are filled in parallel.
#[derive(Default)]
pub struct Gguf {
    values: (u64, Vec<u8>),
    tensors: (u64, Vec<u8>),
    data: Vec<u8>,
    state: u32,
}

impl Gguf {
    fn text(bytes: &mut Vec<u8>, text: &str) {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    }

    pub fn key(&mut self, key: &str, kind: u32) -> &mut Vec<u8> {
        self.values.0 += 1;
        Self::text(&mut self.values.1, key);
        self.values.1.extend(kind.to_le_bytes());
        &mut self.values.1
    }

    fn number(&mut self, key: &str, value: u32) {
        self.key(key, 4).extend(value.to_le_bytes());
    }

    fn word(&mut self, key: &str, value: &str) {
        Self::text(self.key(key, 8), value);
    }

    fn words(&mut self, key: &str, values: &[String]) {
        let bytes = self.key(key, 9);
        bytes.extend(8u32.to_le_bytes());
        bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| Self::text(bytes, value));
    }

    /// Adds a tensor of noise around `middle`; outermost dimension first.
    fn tensor(&mut self, name: &str, shape: &[usize], middle: f32) {
        self.tensors.0 += 1;
        let bytes = &mut self.tensors.1;
        Self::text(bytes, name);
        bytes.extend((shape.len() as u32).to_le_bytes());
        for &size in shape.iter().rev() {
            bytes.extend((size as u64).to_le_bytes());
        }
        bytes.extend(0u32.to_le_bytes());
        bytes.extend((self.data.len() as u64).to_le_bytes());
        for _ in 0..shape.iter().product() {
            self.state = self
                .state
                .wrapping_mul(1_664_525)
                .wrapping_add(1_013_904_223);
            let noise = (self.state >> 8) as f32 / (1 << 23) as f32 - 1.0;
            self.data.extend((middle + 0.3 * noise).to_le_bytes());
        }
        self.data.resize(self.data.len().next_multiple_of(32), 0);
    }

    pub fn bytes(self) -> Vec<u8> {
        let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes()].concat();
        bytes.extend(self.tensors.0.to_le_bytes());
        bytes.extend(self.values.0.to_le_bytes());
        bytes.extend(self.values.1);
        bytes.extend(self.tensors.1);
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(self.data);
        bytes
    }
}

/// Two layers, four query heads over two KV heads, a vocabulary of the 256 bytes and three marks.
pub fn model(template: Option<&str>) -> Vec<u8> {
    model_with(template, 96, &[])
}

/// The same model with another context length and additional marks.
pub fn model_with(template: Option<&str>, context: u32, more: &[&str]) -> Vec<u8> {
    let mut file = Gguf::default();
    let bytes = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ');
    let bytes = bytes.chain('\u{100}'..='\u{143}').map(String::from);
    let marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned);
    let more = more.iter().map(|mark| (*mark).to_owned());
    let marks: Vec<String> = marks.into_iter().chain(more).collect();
    let first = marks.len();
    let tokens: Vec<String> = marks.into_iter().chain(bytes).collect();
    file.word("general.architecture", "llama");
    for (key, value) in [
        ("block_count", 2),
        ("context_length", context),
        ("embedding_length", WIDTH as u32),
        ("feed_forward_length", FFN as u32),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
    ] {
        file.number(&format!("llama.{key}"), value);
    }
    let eps = file.key("llama.attention.layer_norm_rms_epsilon", 6);
    eps.extend(1e-5f32.to_le_bytes());
    file.word("tokenizer.ggml.model", "gpt2");
    file.word("tokenizer.ggml.pre", "smollm");
    file.words("tokenizer.ggml.tokens", &tokens);
    let types = file.key("tokenizer.ggml.token_type", 9);
    types.extend(5u32.to_le_bytes());
    types.extend((tokens.len() as u64).to_le_bytes());
    for id in 0..tokens.len() {
        types.extend(if id < first { 3i32 } else { 1 }.to_le_bytes());
    }
    file.words("tokenizer.ggml.merges", &["a b".to_owned()][..0]);
    file.number("tokenizer.ggml.bos_token_id", 1);
    file.number("tokenizer.ggml.eos_token_id", 2);
    if let Some(template) = template {
        file.word("tokenizer.chat_template", template);
    }

    file.tensor("token_embd.weight", &[tokens.len(), WIDTH], 0.0);
    for i in 0..2 {
        let name = |part: &str| format!("blk.{i}.{part}.weight");
        file.tensor(&name("attn_norm"), &[WIDTH], 1.0);
        file.tensor(&name("attn_q"), &[WIDTH, WIDTH], 0.0);
        file.tensor(&name("attn_k"), &[WIDTH / 2, WIDTH], 0.0);
        file.tensor(&name("attn_v"), &[WIDTH / 2, WIDTH], 0.0);
        file.tensor(&name("attn_output"), &[WIDTH, WIDTH], 0.0);
        file.tensor(&name("ffn_norm"), &[WIDTH], 1.0);
        file.tensor(&name("ffn_gate"), &[FFN, WIDTH], 0.0);
        file.tensor(&name("ffn_up"), &[FFN, WIDTH], 0.0);
        file.tensor(&name("ffn_down"), &[WIDTH, FFN], 0.0);
    }
    file.tensor("output_norm.weight", &[WIDTH], 1.0);
    file.bytes()
}
