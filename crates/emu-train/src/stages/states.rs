//! The states of a frozen language model after conversations: the attention values of the tokens that are read, and the
//! hidden state before the answer. They are computed once, exactly as at inference, and cached beside the run, so that
//! an interrupted pass can be resumed.

use std::path::Path;

use burn::tensor::{Int, Tensor, TensorData as BurnData};
use emu_model::TextModel;
use emu_model::text::{Message, Speaker};
use emu_pack::{Dtype, SafetensorsFile, TensorData, TensorSource, hex};
use half::f16;
use sha2::{Digest, Sha256};

use super::decoder::floats;
use crate::TrainError;
use crate::checkpoint::replace_tensors;

/// Number of conversations per file.
const CHUNK: usize = 128;
/// Maximum number of positions of a conversation, including its start.
const ROOM: usize = 1024;

/// States of some conversations.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct States {
    /// Number of values per token.
    pub inputs: usize,
    /// Number of tokens read per conversation.
    pub lengths: Vec<usize>,
    /// `[tokens, inputs]`, concatenated over the conversations.
    pub values: Vec<f16>,
    /// `[conversations, D]`
    pub hidden: Vec<f32>,
}

/// A frozen language model with the start of every conversation.
pub(super) struct Frozen<'a> {
    pub model: &'a TextModel,
    /// Embeddings of the system message, or of a soft prompt: `[1, N, D]`.
    pub start: Tensor<3>,
    /// Layers whose attention values are read.
    pub layers: &'a [usize],
    /// Maximum number of tokens read, counted from the end.
    pub window: usize,
}

fn wrong(error: impl std::fmt::Display) -> TrainError {
    TrainError::config("options.lm", error.to_string())
}

/// Tokens of a language model's default system message, and of anything else before the first turn.
///
/// # Errors
/// If the model has no chat template.
pub(super) fn system_turn(model: &TextModel) -> Result<Vec<u32>, TrainError> {
    opening(model, &[])
}

/// Tokens of a given system message, as in [`system_turn`].
///
/// # Errors
/// As [`system_turn`].
pub(super) fn system_message(model: &TextModel, text: &str) -> Result<Vec<u32>, TrainError> {
    opening(model, &[message(Speaker::System, text)])
}

/// Tokens before the first user turn of a conversation that begins with these messages.
fn opening(model: &TextModel, first: &[Message]) -> Result<Vec<u32>, TrainError> {
    let hello = message(Speaker::User, "hello");
    let all: Vec<Message> = first.iter().chain([&hello]).cloned().collect();
    let with = model.chat(&all).map_err(wrong)?.ids;
    let without = conversation(model, &[hello])?;
    let start = with.len().saturating_sub(without.len());
    Ok(with[..start].to_vec())
}

/// Tokens of a conversation without a system message, up to the start of its answer.
///
/// # Errors
/// If the language model has no chat template.
pub(super) fn conversation(
    model: &TextModel,
    messages: &[Message],
) -> Result<Vec<u32>, TrainError> {
    let mut all = vec![message(Speaker::System, "")];
    all.extend_from_slice(messages);
    let ids = model.chat(&all).map_err(wrong)?.ids;
    let bos = usize::from(model.config.bos_in_prompts);
    Ok(ids[bos..].to_vec())
}

pub(super) fn message(speaker: Speaker, text: &str) -> Message {
    Message {
        speaker,
        text: text.to_owned(),
    }
}

/// Token ids as a tensor `[1, T]`.
pub(super) fn sequence(model: &TextModel, ids: &[u32]) -> Tensor<2, Int> {
    let device = model.lm.embed_tokens.weight.lazy_device();
    let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let shape = [1, ids.len()];
    Tensor::from_data(BurnData::new(ids, shape), &device)
}

impl States {
    /// Number of conversations.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Width of a hidden state.
    pub fn width(&self) -> usize {
        self.hidden.len() / self.len().max(1)
    }

    /// Appends other states.
    pub fn extend(&mut self, other: Self) {
        self.inputs = other.inputs;
        self.lengths.extend(other.lengths);
        self.values.extend(other.values);
        self.hidden.extend(other.hidden);
    }

    /// Offset of each conversation in `values`.
    pub fn places(&self) -> Vec<usize> {
        let mut at = 0;
        let step = |&length: &usize| {
            let place = at;
            at += length * self.inputs;
            place
        };
        self.lengths.iter().map(step).collect()
    }
}

impl Frozen<'_> {
    /// The states of these conversations, which are tokenized by [`conversation`]. They are read from cache files in
    /// `folder`, or computed and cached.
    ///
    /// # Errors
    /// If a conversation is too long, or a file cannot be written.
    pub fn states(
        &self,
        prompts: &[Vec<u32>],
        folder: &Path,
        name: &str,
    ) -> Result<States, TrainError> {
        std::fs::create_dir_all(folder).map_err(TrainError::io("create", folder))?;
        let begins = floats(self.start.clone())?;
        let mut all = States::default();
        for (i, chunk) in prompts.chunks(CHUNK).enumerate() {
            let key = self.key(&begins, chunk);
            let path = folder.join(format!("{name}-{i:04}-{key}.safetensors"));
            let states = match kept(&path, chunk.len()) {
                Some(states) => states,
                None => {
                    let states = self.compute(chunk)?;
                    write(&path, &states)?;
                    tracing::info!("{name}: {} of {}", i * CHUNK + chunk.len(), prompts.len());
                    states
                }
            };
            all.extend(states);
        }
        Ok(all)
    }

    /// Cache key: a hash of everything that determines the states of some conversations.
    fn key(&self, begins: &[f32], prompts: &[Vec<u32>]) -> String {
        let mut hash = Sha256::new();
        // The norm weights of the first layer identify the model.
        let norm = &self.model.lm.layers.first();
        let weights = norm.map(|layer| layer.input_layernorm.weight.val().into_data());
        hash.update(weights.as_ref().map_or(&[][..], |data| data.bytes()));
        begins.iter().for_each(|v| hash.update(v.to_le_bytes()));
        // A constant for files with values, which all have.
        hash.update(format!("{:?} {} true", self.layers, self.window));
        for prompt in prompts {
            hash.update(format!("{prompt:?}"));
        }
        hex(&hash.finalize()[..8])
    }

    fn compute(&self, prompts: &[Vec<u32>]) -> Result<States, TrainError> {
        let full = |e| TrainError::other("prompt-too-long", e);
        let lm = &self.model.lm;
        let mut cache = lm.cache(1, ROOM.min(self.model.config.lm.context));
        let [_, start, _] = self.start.dims();
        if start > 0 {
            lm.step(self.start.clone(), &mut cache).map_err(full)?;
        }
        let mut states = States::default();
        for prompt in prompts {
            // The start is processed only once.
            cache.truncate(start);
            let t = prompt.len();
            let hidden = lm
                .step_tokens(sequence(self.model, prompt), &mut cache)
                .map_err(full)?;
            states.hidden.extend(floats(hidden.narrow(1, t - 1, 1))?);
            let (read, end) = (t.min(self.window), start + t);
            let found = lm.values(&cache, self.layers, end - read..end);
            [_, _, states.inputs] = found.dims();
            states.lengths.push(read);
            let found = floats(found)?.into_iter();
            states.values.extend(found.map(f16::from_f32));
        }
        Ok(states)
    }
}

/// Reads the states of `count` conversations, if the file is complete.
fn kept(path: &Path, count: usize) -> Option<States> {
    let file = SafetensorsFile::open(path).ok()?;
    let lengths = file.read("lengths").ok()?.to_u32().ok()?;
    let lengths: Vec<usize> = lengths.into_iter().map(|n| n as usize).collect();
    let hidden = file.read("hidden").ok()?.to_f32().ok()?;
    let values = file.read("values").ok()?;
    let inputs = *values.info.shape.get(1)?;
    let (pairs, _) = values.bytes.as_chunks::<2>();
    let values: Vec<f16> = pairs.iter().map(|&pair| f16::from_le_bytes(pair)).collect();
    let whole = lengths.len() == count && lengths.iter().sum::<usize>() * inputs == values.len();
    whole.then_some(States {
        inputs,
        lengths,
        values,
        hidden,
    })
}

/// Writes a file atomically.
fn write(path: &Path, states: &States) -> Result<(), TrainError> {
    let lengths = states
        .lengths
        .iter()
        .flat_map(|&n| (n as u32).to_le_bytes());
    let values = states.values.iter().flat_map(|v| v.to_le_bytes());
    let tokens = states.lengths.iter().sum();
    let (n, width) = (states.len(), states.width());
    let tensors = [
        TensorData::new("lengths", Dtype::U32, vec![n], lengths.collect())?,
        TensorData::from_f32("hidden", vec![n, width], &states.hidden)?,
        TensorData::new(
            "values",
            Dtype::F16,
            vec![tokens, states.inputs],
            values.collect(),
        )?,
    ];
    replace_tensors(path, &tensors)
}

#[cfg(test)]
pub(super) mod tests {
    use burn::tensor::Device;
    use emu_kernels::init;
    use emu_model::EmuConfig;
    use emu_model::config::LmConfig;
    use emu_model::text::{ChatMl, TextConfig};
    use emu_tokenizer::{Merging, PlainTokenizer, Role, Splitting, Vocabulary};

    use super::*;

    /// A language model with random weights, a byte-level vocabulary and the ChatML template.
    pub fn tiny() -> TextModel {
        let bytes = ('!'..='~')
            .chain('\u{a1}'..='\u{ac}')
            .chain('\u{ae}'..='\u{ff}');
        let bytes = bytes.chain('\u{100}'..='\u{143}').map(String::from);
        let marks = ["<|im_start|>", "<|im_end|>"];
        let tokens: Vec<String> = bytes.chain(marks.map(str::to_owned)).collect();
        let id = |spelling: &str| {
            let found = tokens.iter().position(|token| token == spelling);
            found.and_then(|id| u32::try_from(id).ok())
        };
        let template = "{% if x %}{{ '<|im_start|>system\nBe brief<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}";
        let mut roles = vec![Role::Text; tokens.len()];
        roles[tokens.len() - 2..].fill(Role::Mark);
        let lm = LmConfig {
            vocab: tokens.len(),
            kv_heads: 2,
            tied: true,
            ..EmuConfig::tiny().lm
        };
        let _sequence = init::seed(9);
        let config = TextConfig {
            lm: lm.clone(),
            bos: None,
            bos_in_prompts: false,
            position_factor: 1.0,
            ends: id("<|im_end|>").into_iter().collect(),
            chat: ChatMl::from_template(template, id),
        };
        let vocabulary = Vocabulary {
            tokens: tokens.clone(),
            roles,
            merging: Merging::Ranks {
                merges: vec![],
                splitting: Splitting::Gpt2,
            },
        };
        TextModel {
            config,
            lm: lm.init(None, &Device::flex()).alone(),
            tokenizer: PlainTokenizer::new(vocabulary).expect("a tokenizer"),
        }
    }

    fn frozen(model: &TextModel) -> Frozen<'_> {
        let turn = system_turn(model).expect("a system message");
        Frozen {
            model,
            start: model.lm.embed(sequence(model, &turn)),
            layers: &[0, 1],
            window: 12,
        }
    }

    fn prompts(model: &TextModel) -> Vec<Vec<u32>> {
        let say = |text: &str| conversation(model, &[message(Speaker::User, text)]);
        ["hi", "draw a dog", ""]
            .map(|text| say(text).expect("ids"))
            .into()
    }

    #[test]
    fn states_are_those_of_the_whole_prompt() {
        let model = tiny();
        let prompts = prompts(&model);
        let folder = tempfile::tempdir().expect("a folder");
        let all = frozen(&model)
            .states(&prompts, folder.path(), "a")
            .expect("states");
        assert_eq!((all.len(), all.inputs, all.width()), (3, 64, 64));
        assert!(all.lengths.iter().all(|&n| n == 12), "{:?}", all.lengths);
        // Reference: the second conversation in a single pass.
        let whole = model
            .chat(&[message(Speaker::User, "draw a dog")])
            .expect("ids")
            .ids;
        let mut cache = model.lm.cache(1, whole.len());
        let hidden = model
            .lm
            .step_tokens(sequence(&model, &whole), &mut cache)
            .expect("room");
        let hidden = floats(hidden.narrow(1, whole.len() - 1, 1)).expect("numbers");
        let near = |a: &[f32], b: &[f32]| {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|(a, b)| (a - b).abs() < 2e-3 * a.abs().max(1.0))
        };
        assert!(near(&hidden, &all.hidden[64..128]));
        let values = model
            .lm
            .values(&cache, &[0, 1], whole.len() - 12..whole.len());
        let place = all.places()[1];
        let kept: Vec<f32> = all.values[place..place + 12 * 64]
            .iter()
            .map(|v| v.to_f32())
            .collect();
        assert!(near(&floats(values).expect("numbers"), &kept));
    }

    #[test]
    fn kept_states_are_read_and_no_others() {
        let model = tiny();
        let prompts = prompts(&model);
        let folder = tempfile::tempdir().expect("a folder");
        let read = |frozen: &Frozen<'_>, prompts: &[Vec<u32>]| {
            let states = frozen.states(prompts, folder.path(), "a");
            let files = std::fs::read_dir(folder.path()).expect("a folder").count();
            (states.expect("states"), files)
        };
        let (first, files) = read(&frozen(&model), &prompts);
        assert_eq!(files, 1);
        assert_eq!(read(&frozen(&model), &prompts), (first.clone(), 1));
        // The cache file is used: it returns a modified hidden state.
        let path = std::fs::read_dir(folder.path()).expect("a folder").next();
        let path = path.expect("a file").expect("a file").path();
        let mut changed = first.clone();
        changed.hidden[0] += 1.0;
        write(&path, &changed).expect("writes");
        assert_eq!(read(&frozen(&model), &prompts).0, changed);
        // Another start, other prompts or a damaged file are computed again.
        let bare = Frozen {
            start: frozen(&model).start.narrow(1, 0, 2),
            ..frozen(&model)
        };
        assert_eq!(read(&bare, &prompts).1, 2);
        assert_eq!(read(&frozen(&model), &prompts[1..]).1, 3);
        std::fs::write(&path, b"cut").expect("writes");
        assert_eq!(read(&frozen(&model), &prompts).0, first);
    }
}
