use std::fs;

use super::super::states::tests::tiny;
use super::*;
use crate::TrainEvent;

fn config(folder: &Path, out: &str, steps: u64, more: &str) -> TrainConfig {
    let persona = folder.join("persona.toml");
    let topics = "[[topic]]\ntrain=['who?','name?']\nheld_out=['you?']\nanswers=['I am Emu.','Emu.']\n\
        [[topic]]\ntrain=['draw?']\nheld_out=['paint?']\nanswers=['Yes.']\n";
    fs::write(&persona, topics).expect("writes");
    let text = format!(
        "stage='persona'\nout='{}'\nseed=3\nsteps={steps}\nbatch=4\n[optimiser]\nlr=2e-2\n[log]\neval_every=5\n\
         sample_every=10\n[options]\nlm='none'\npersona='{}'\nlength=6\nordinary_share=0.25\nanswer=4\n\
         repetition_penalty=1.1\npatience=100\njudged=1\nordinary=['hello','why?']\n{more}",
        folder.join(out).display(),
        persona.display()
    );
    TrainConfig::parse(&text, Path::new("persona.toml")).expect("a configuration")
}

fn stage(config: &TrainConfig, run: &RunOptions) -> PersonaStage {
    let options: Options = config.options().expect("options");
    let frozen = tiny().lm;
    let training = config.training_device(&Device::flex());
    let frozen = burn::module::Module::fork(frozen, &training);
    PersonaStage::over(options, tiny(), frozen, config, run).expect("a stage")
}

/// Figures of an evaluation, by name.
type Figures = Vec<(String, f32)>;

fn train(
    config: &TrainConfig,
    stop_at: Option<u64>,
    resume: bool,
) -> (crate::Outcome<SoftPrompt>, Vec<Figures>, bool) {
    let mut figures = vec![];
    let stop = StopFlag::new();
    let raised = stop.clone();
    let mut on_event = |event: TrainEvent| match event {
        TrainEvent::Step(metrics) if stop_at == Some(metrics.step + 1) => raised.stop(),
        TrainEvent::Evaluated { figures: found, .. } => figures.push(found.to_vec()),
        _ => {}
    };
    let options = RunOptions {
        resume,
        stop,
        on_event: Some(&mut on_event),
        ..RunOptions::default()
    };
    let mut stage = stage(config, &options);
    let model = stage.init(&Device::flex()).expect("a start");
    let device = config.training_device(&Device::flex());
    let outcome = crate::run(config, &mut stage, model, &device, options).expect("trains");
    let ended = stage.has_ended();
    (outcome, figures, ended)
}

fn numbers(model: &SoftPrompt) -> Vec<f32> {
    model.embeddings.val().into_data().iter::<f32>().collect()
}

#[test]
fn who_it_is_is_learnt_and_the_best_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path(), "run", 40, "");
    let (_, figures, ended) = train(&config, None, false);
    assert!(!ended && figures.len() == 8);
    let of = |figures: &[(String, f32)], name: &str| {
        let found = figures.iter().find(|(n, _)| n == name);
        found.unwrap_or_else(|| panic!("{name} of {figures:?}")).1
    };
    let losses: Vec<f32> = figures.iter().map(|f| of(f, "held_out")).collect();
    let best = losses.iter().copied().fold(f32::INFINITY, f32::min);
    assert!(best < 0.95 * losses[0], "{losses:?}");
    assert_eq!(of(&figures[0], "judged.of"), 1.0);

    let out = folder.path().join("run");
    let kept: Best =
        serde_json::from_slice(&fs::read(out.join(BEST)).expect("a file")).expect("JSON");
    assert_eq!(kept.loss, best);
    let file = emu_pack::SafetensorsFile::open(out.join(FILE)).expect("a file");
    let kept = emu_pack::TensorSource::read(&file, "embeddings").expect("there");
    assert_eq!(kept.info.shape, [6, 64]);
    let text = fs::read_to_string(out.join("samples/00000010/answers.txt")).expect("answers");
    assert!(
        text.starts_with("0 of 1 right") || text.starts_with("1 of 1 right"),
        "{text}"
    );
    assert!(text.contains("you? -> "), "{text}");
}

#[test]
fn twenty_steps_are_ten_and_ten_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, ..) = train(&config(folder.path(), "whole", 20, ""), None, false);
    let parts = config(folder.path(), "parts", 20, "");
    let (first, ..) = train(&parts, Some(10), false);
    let (second, ..) = train(&parts, None, true);
    assert_eq!(numbers(&second.model), numbers(&whole.model));
    assert_ne!(numbers(&second.model), numbers(&first.model));
    let best = |out: &str| fs::read(folder.path().join(out).join(FILE)).expect("a file");
    assert_eq!(best("parts"), best("whole"));
}

#[test]
fn a_run_ends_where_nothing_gets_better() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path(), "run", 100, "");
    config
        .options
        .insert("patience".into(), toml::Value::Integer(2));
    // With a learning rate of 0, no evaluation improves on the first.
    config.optimiser.lr = 0.0;
    let (outcome, figures, ended) = train(&config, None, false);
    assert!(ended && outcome.stopped);
    assert_eq!((outcome.step, figures.len()), (15, 3));
}

#[test]
fn losses_are_those_of_the_answers_alone() {
    let model = tiny();
    let ids = [5u32, 6, 7, 8];
    let turn = system_turn(&model).expect("a system message");
    let prompt = SoftPrompt::of_turn(&model.lm.embed_tokens, &turn, turn.len(), &Device::flex());
    let talk = |tokens: &[u32], answer: usize| Talk {
        tokens: tokens.to_vec(),
        answers: std::iter::once(answer..tokens.len()).collect(),
        ended: true,
    };
    let (short, long) = (talk(&ids, 2), talk(&[9, 9, 9, 9, 9, 9, 3], 6));
    let loss = |pairs: &[&Talk]| floats(answer_loss(&model.lm, &prompt, pairs)).expect("a loss")[0];
    // Reference: the system turn and the tokens as one sequence.
    let whole: Vec<u32> = turn.iter().chain(&ids).copied().collect();
    let x = model.lm.embed(sequence(&model, &whole));
    let positions = [(0..whole.len()).collect()];
    let hidden = model.lm.forward(x, &positions, &Visibility::All);
    let n = turn.len();
    let logits = floats(model.lm.logits(hidden.narrow(1, n + 1, 2))).expect("numbers");
    let vocab = model.config.lm.vocab;
    let nll = |row: &[f32], token: usize| {
        let mut row = row.to_vec();
        emu_kernels::sample::log_softmax(&mut row);
        -row[token]
    };
    let expected = (nll(&logits[..vocab], 7) + nll(&logits[vocab..], 8)) / 2.0;
    let found = loss(&[&short]);
    assert!((found - expected).abs() < 1e-3, "{found} {expected}");
    // Padding of the shorter one has no effect: all three tokens have equal weight.
    let both = loss(&[&short, &long]);
    let apart = (2.0 * found + loss(&[&long])) / 3.0;
    assert!((both - apart).abs() < 1e-3, "{both} {apart}");
}

#[test]
fn a_conversation_is_as_the_model_reads_it() {
    let model = tiny();
    let between = between(&model).expect("chats");
    let of = |question: &str, answer: &str| {
        let answer = model.tokenizer.encode(answer).expect("encodes");
        pair(&model, question, &answer, true).expect("a pair")
    };
    let (first, second) = (of("who?", "I am Emu."), of("draw?", "Yes."));
    let talk = first.then(&between, &second);
    let said = ["who?", "I am Emu.", "draw?"];
    let speakers = [Speaker::User, Speaker::Assistant, Speaker::User];
    let turns: Vec<_> = speakers
        .into_iter()
        .zip(said)
        .map(|(who, text)| message(who, text))
        .collect();
    let whole = conversation(&model, &turns).expect("chats");
    assert_eq!(talk.tokens[..whole.len()], whole);
    assert_eq!(talk.answers.len(), 2);
    let answer = |talk: &Talk, i: usize| talk.tokens[talk.answers[i].clone()].to_vec();
    assert_eq!(answer(&talk, 0), answer(&first, 0));
    assert_eq!(answer(&talk, 1), answer(&second, 0));
    // A truncated conversation cannot be continued.
    let cut = Talk {
        ended: false,
        ..first
    };
    assert_eq!(cut.then(&between, &second), second);
}

#[test]
fn conversations_of_several_turns_are_learnt_bit_for_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    let more = "turns=3\n";
    let (whole, figures, _) = train(&config(folder.path(), "whole", 20, more), None, false);
    let parts = config(folder.path(), "parts", 20, more);
    train(&parts, Some(10), false);
    let (second, ..) = train(&parts, None, true);
    assert_eq!(numbers(&second.model), numbers(&whole.model));
    assert!(figures[0].iter().any(|(name, _)| name == "followed"));
    let single = train(&config(folder.path(), "single", 20, ""), None, false).0;
    assert_ne!(numbers(&single.model), numbers(&whole.model));
}

#[test]
fn answers_belong_to_the_topic_that_they_are_most_like() {
    let topic = |answers: &[&str]| Topic {
        ordinary: false,
        train: vec![],
        held_out: vec![],
        answers: answers.iter().map(|a| a.to_string()).collect(),
    };
    let topics = [
        topic(&["I am Emu, a very small model.", "My name is Emu."]),
        topic(&["Yes, I can see pictures."]),
    ];
    assert_eq!(topic_of("I am Emu, a small model!", &topics), Some(0));
    assert_eq!(topic_of("yes, i can see", &topics), Some(1));
    assert_eq!(topic_of("The weather is fine.", &topics), None);
    assert_eq!(topic_of("", &topics), None);
    assert!((likeness("a a b", "a b b") - 2.0 / 3.0).abs() < 1e-9);
}

#[test]
fn what_the_model_says_itself_is_asked_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path(), "run", 1, "");
    let first = stage(&config, &RunOptions::default());
    assert_eq!(first.ordinary.len(), 2);
    let path = folder.path().join("run").join(ORDINARY);
    let pair = &first.ordinary[0];
    let answer = &pair.answers[0];
    assert!(!answer.is_empty() && answer.len() <= 5 && answer.end == pair.tokens.len());
    // The cached answers are used as long as the questions are the same.
    let text = fs::read_to_string(&path).expect("a file");
    let changed = text.replacen("\"tokens\":[", "\"tokens\":[7,", 1);
    fs::write(&path, changed).expect("writes");
    assert_ne!(
        stage(&config, &RunOptions::default()).ordinary,
        first.ordinary
    );
    let mut other = config.clone();
    other
        .options
        .insert("ordinary".into(), toml::Value::Array(vec!["oh".into()]));
    assert_eq!(stage(&other, &RunOptions::default()).ordinary.len(), 1);
}

#[test]
fn what_cannot_be_learnt_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path(), "run", 1, "");
    let refused = |config: &TrainConfig| {
        let options: Options = config.options().expect("options");
        let stage = PersonaStage::over(options, tiny(), tiny().lm, config, &RunOptions::default());
        stage.err().map_or(String::new(), |e| e.to_string())
    };
    config
        .options
        .insert("ordinary".into(), toml::Value::Array(vec![]));
    assert!(refused(&config).contains("options.ordinary"));
    config
        .options
        .insert("length".into(), toml::Value::Integer(0));
    assert!(refused(&config).contains("options.length"));
}

#[test]
fn ordinary_topics_may_be_left_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path(), "run", 1, "alone=true\n");
    assert_eq!(stage(&config, &RunOptions::default()).own.len(), 5);
    let path = folder.path().join("persona.toml");
    let topics = fs::read_to_string(&path).expect("a list");
    let mark = |topics: &str, times| topics.replacen("train=", "ordinary=true\ntrain=", times);
    fs::write(&path, mark(&topics, 1)).expect("writes");
    let left = stage(&config, &RunOptions::default());
    assert_eq!((left.own.len(), left.held_out.len()), (1, 1));
    fs::write(&path, mark(&topics, 2)).expect("writes");
    let options: Options = config.options().expect("options");
    let run = RunOptions::default();
    let refused = PersonaStage::over(options, tiny(), tiny().lm, &config, &run);
    let error = refused.err().map_or(String::new(), |e| e.to_string());
    assert!(error.contains("all of its topics"), "{error}");
}
