//! The judge, METEOR and WordNet that the options of `emu eval` name.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use emu_eval::tasks::{Address, Judge, JudgePrompt, Meteor, Script, Secret, Who};

use crate::args::EvalArgs;

/// Holds the key for `--judge-url`. It is no option, because options are seen by everybody on the machine.
const KEY: &str = "EMU_JUDGE_KEY";
/// Names the jar of METEOR, as `--meteor-jar` does.
const METEOR_JAR: &str = "EMU_METEOR_JAR";
/// Names the folder of WordNet's database, as `--wordnet` does.
const WORDNET: &str = "EMU_WORDNET";
/// Names the program `java`, if it is not on the PATH.
const JAVA: &str = "EMU_JAVA";

/// Who grades the answers to MM-Vet; `None` if no option names a judge.
///
/// # Errors
/// If an option cannot be used.
pub fn judge(args: &EvalArgs) -> Result<Option<Judge>> {
    let options = &args.judged;
    let limit = Duration::from_secs(options.judge_seconds);
    let who = match (&options.judge_command, &options.judge_url) {
        (Some(command), _) => {
            Who::Script(Script::new(command, limit).map_err(|error| anyhow!(error))?)
        }
        (None, Some(url)) => {
            let prompt = match &options.judge_prompt {
                None => JudgePrompt::default(),
                Some(path) => {
                    let text = std::fs::read_to_string(path).with_context(|| {
                        format!("{} cannot be read. Check the path", path.display())
                    })?;
                    JudgePrompt::new(&text).map_err(|error| anyhow!(error))?
                }
            };
            let key = std::env::var(KEY).ok().filter(|key| !key.trim().is_empty());
            Who::Address(Address {
                key: key.map(Secret::new),
                prompt,
                max_tokens: options.judge_tokens,
                limit,
                ..Address::new(url, &options.judge_model)
            })
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(Judge {
        who,
        runs: options.judge_runs,
    }))
}

/// METEOR, if an option or the environment names its jar.
pub fn meteor(args: &EvalArgs) -> Option<Meteor> {
    let jar = args.meteor_jar.clone().or_else(|| named(METEOR_JAR))?;
    let java = named(JAVA).unwrap_or_else(|| PathBuf::from("java"));
    Some(Meteor { jar, java })
}

/// The folder of WordNet's database, if an option or the environment names it.
pub fn wordnet(args: &EvalArgs) -> Option<PathBuf> {
    args.wordnet.clone().or_else(|| named(WORDNET))
}

/// A path in the environment.
fn named(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty());
    value.map(PathBuf::from)
}
