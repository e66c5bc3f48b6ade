//! Runs a builder: candidates in, shards out.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use super::picture::Encoded;
use super::state::{Done, Index, State, write_json};
use super::{Output, Progress, Report, Skip, Tally, contact};
use crate::record::Record;
use crate::rng::{hash_texts, mix};
use crate::writer::sha256_hex;
use crate::{DataError, SampleFiles, ShardInfo, write_shard};

/// A builder of one kind of sample.
pub(crate) trait Build: Sync {
    /// What is read of a candidate: texts, and where its pictures lie. Its JSON form identifies it.
    type Item: Send + Sync + Serialize;
    /// Kind of the samples ("pairs").
    const KIND: &'static str;

    /// The source, for messages.
    fn source(&self) -> &Path;

    /// Yields all candidates in a fixed order.
    fn read(&self, feed: &mut Feed<Self::Item>) -> Result<(), Halt>;

    /// Makes the samples of a candidate: one, or one for each part of a long video.
    fn make(&self, source: &str, item: &Self::Item) -> Result<Vec<Made>, Skip>;

    /// Bytes of memory that a candidate holds.
    fn held(item: &Self::Item) -> usize;
}

/// A sample, ready to be written.
pub(crate) struct Made {
    pub record: Record,
    /// Pictures in the order of their numbers.
    pub pictures: Vec<Encoded>,
    /// Number of words of its texts.
    pub words: usize,
    /// Pictures that were left out.
    pub dropped: Vec<Skip>,
}

/// Why reading stops.
#[derive(Debug)]
pub(crate) enum Halt {
    /// Nobody wants further candidates.
    Enough,
    /// The source cannot be read further.
    Error(DataError),
}

impl From<DataError> for Halt {
    fn from(error: DataError) -> Self {
        Self::Error(error)
    }
}

enum Event<I> {
    Item(String, I),
    Skip(String, Skip),
}

/// Takes the candidates of a builder.
pub(crate) struct Feed<I>(SyncSender<Event<I>>);

impl<I> Feed<I> {
    /// A candidate, by its name in the source.
    pub fn item(&mut self, source: impl Into<String>, item: I) -> Result<(), Halt> {
        self.send(Event::Item(source.into(), item))
    }

    /// Something that is no candidate, and why.
    pub fn skip(&mut self, source: impl Into<String>, skip: Skip) -> Result<(), Halt> {
        self.send(Event::Skip(source.into(), skip))
    }

    /// A candidate, or why there is none.
    pub fn result(&mut self, source: impl Into<String>, item: Result<I, Skip>) -> Result<(), Halt> {
        match item {
            Ok(item) => self.item(source, item),
            Err(skip) => self.skip(source, skip),
        }
    }

    fn send(&mut self, event: Event<I>) -> Result<(), Halt> {
        self.0.send(event).map_err(|_| Halt::Enough)
    }
}

/// Candidates in memory between reader and shards.
const AHEAD: usize = 32;
/// A shard is closed when its candidates hold this many bytes.
const HELD: usize = 512 << 20;

/// Builds a data set.
pub(crate) fn run<B: Build>(
    builder: &B,
    out: &Output,
    options: &impl Serialize,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, DataError> {
    let options =
        serde_json::to_value(options).map_err(|error| DataError::Options(error.to_string()))?;
    out.validate()?;
    let source = builder.source();
    if !source.exists() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(DataError::io("read", source)(missing));
    }
    let state = State::open(out, B::KIND, &options)?;
    let mut shards = Shards {
        builder,
        out,
        state: &state,
        streams: BTreeMap::new(),
        seen: 0,
        tally: Tally::default(),
        infos: vec![],
    };
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(AHEAD);
        let reader = scope.spawn(move || builder.read(&mut Feed(sender)));
        for event in receiver {
            match event {
                Event::Skip(source, skip) => shards.tally.skip(&source, &skip),
                Event::Item(source, item) => shards.push(source, item, progress)?,
            }
            if out.limit.is_some_and(|limit| shards.seen >= limit) {
                break; // drops the receiver, which ends the reader
            }
        }
        match reader.join() {
            Ok(Ok(()) | Err(Halt::Enough)) => Ok(()),
            Ok(Err(Halt::Error(error))) => Err(error),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    shards.close(progress)?;

    let Shards { tally, infos, .. } = shards;
    if infos.is_empty() {
        return Err(nothing_kept(source, &tally));
    }
    let mut report = Report {
        kind: B::KIND.into(),
        tally,
        splits: BTreeMap::new(),
        shards: infos.len(),
        bytes: infos.iter().map(|shard| shard.bytes).sum(),
    };
    for shard in &infos {
        *report.splits.entry(shard.split.clone()).or_default() += shard.samples;
    }
    let index = Index {
        format: 1,
        kind: B::KIND.into(),
        samples: report.tally.kept,
        options,
        shards: infos,
    };
    contact::write(&out.folder, &index)?;
    write_json(&out.folder.join("report.json"), &report)?;
    state.finish(&index)?;
    Ok(report)
}

fn nothing_kept(source: &Path, tally: &Tally) -> DataError {
    let mut reasons: Vec<_> = tally.skipped.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(count.count));
    let reasons: Vec<String> = reasons
        .iter()
        .take(3)
        .map(|(reason, count)| {
            let example = count.examples.first().cloned().unwrap_or_default();
            format!("{} times \"{reason}\" ({example})", count.count)
        })
        .collect();
    DataError::NothingKept {
        source_path: source.to_path_buf(),
        reasons: match reasons.as_slice() {
            [] => "it has none".into(),
            reasons => reasons.join(", "),
        },
    }
}

/// The shard being filled of one split.
struct Stream<I> {
    items: Vec<(String, I)>,
    held: usize,
    shard: usize,
    first_key: usize,
}

struct Shards<'a, B: Build> {
    builder: &'a B,
    out: &'a Output,
    state: &'a State,
    streams: BTreeMap<&'static str, Stream<B::Item>>,
    seen: usize,
    tally: Tally,
    infos: Vec<ShardInfo>,
}

impl<B: Build> Shards<'_, B> {
    fn push(
        &mut self,
        source: String,
        item: B::Item,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), DataError> {
        self.seen += 1;
        // Captions of one picture and parts of one video stay together.
        let group = source.split(" #").next().unwrap_or_default();
        let share = hash_texts(self.out.seed, &["held-out", group]) >> 11;
        let held_out = (share as f64) < self.out.held_out * (1u64 << 53) as f64;
        let split = if held_out { "val" } else { "train" };
        let stream = self.streams.entry(split).or_insert_with(|| Stream {
            items: vec![],
            held: 0,
            shard: 0,
            first_key: 0,
        });
        stream.held += B::held(&item);
        stream.items.push((source, item));
        if stream.items.len() >= self.out.shard_samples || stream.held >= HELD {
            self.flush(split, progress)?;
        }
        Ok(())
    }

    fn close(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<(), DataError> {
        let splits: Vec<&'static str> = self.streams.keys().copied().collect();
        for split in splits {
            self.flush(split, progress)?;
        }
        self.infos.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(())
    }

    /// Writes the candidates of a split as a shard, or takes the shard that an earlier run has written of them.
    fn flush(
        &mut self,
        split: &'static str,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), DataError> {
        let Some(stream) = self.streams.get_mut(split) else {
            return Ok(());
        };
        let items = std::mem::take(&mut stream.items);
        if items.is_empty() {
            return Ok(());
        }
        let (number, first_key) = (stream.shard, stream.first_key);
        stream.held = 0;
        stream.shard += 1;
        stream.first_key += items.len();

        let file = format!("{split}/{}-{number:05}.tar", B::KIND);
        let digest = digest(&items)?;
        let earlier = self.state.done(&file);
        let resumed = earlier.is_some();
        let done = match earlier {
            Some(done) if done.digest == digest => done,
            Some(_) => {
                return Err(DataError::Changed {
                    folder: self.out.folder.clone(),
                    what: format!("the source is not the one that {file} was made of"),
                });
            }
            None => {
                let done = self.make(split, &file, first_key, &items, digest)?;
                self.state.finish_shard(&file, &done)?;
                done
            }
        };
        self.tally.merge(&done.tally);
        self.infos.extend(done.shard);
        progress(Progress {
            shard: file,
            resumed,
            seen: self.seen,
            kept: self.tally.kept,
            skipped: self.tally.skipped_total(),
        });
        Ok(())
    }

    fn make(
        &self,
        split: &str,
        file: &str,
        first_key: usize,
        items: &[(String, B::Item)],
        digest: String,
    ) -> Result<Done, DataError> {
        let made: Vec<Result<Vec<Made>, Skip>> = items
            .par_iter()
            .map(|(source, item)| self.builder.make(source, item))
            .collect();
        let mut tally = Tally::default();
        let mut samples = vec![];
        for (i, ((source, _), made)) in items.iter().zip(made).enumerate() {
            let made = match made {
                Ok(made) => made,
                Err(skip) => {
                    tally.skip(source, &skip);
                    continue;
                }
            };
            let (key, several) = (format!("{:09}", first_key + i), made.len() > 1);
            for (part, made) in made.into_iter().enumerate() {
                tally.kept += 1;
                tally.pictures += made.pictures.len();
                *tally.words.entry(made.words).or_default() += 1;
                for skip in &made.dropped {
                    tally.drop_picture(source, skip);
                }
                samples.push(match several {
                    true => files(
                        format!("{key}-{part:04}"),
                        &format!("{source} #{part}"),
                        made,
                    )?,
                    false => files(key.clone(), source, made)?,
                });
            }
        }
        let shard = match samples.len() {
            0 => None,
            count => {
                let (bytes, sha256) = write_shard(&self.out.folder.join(file), &samples)?;
                Some(ShardInfo {
                    file: file.into(),
                    split: split.into(),
                    kind: B::KIND.into(),
                    samples: count,
                    bytes,
                    sha256,
                })
            }
        };
        Ok(Done {
            digest,
            shard,
            tally,
        })
    }
}

/// The members of a sample. The JSON is the record with the name of the candidate in its source.
fn files(key: String, source: &str, made: Made) -> Result<SampleFiles, DataError> {
    let wrong = |error: serde_json::Error| DataError::malformed(source, error);
    let alone = matches!(made.record, Record::Pair(_));
    let mut json = serde_json::to_value(&made.record).map_err(wrong)?;
    if let Value::Object(object) = &mut json {
        object.insert("source".into(), source.into());
    }
    let mut members = vec![("json".into(), serde_json::to_vec(&json).map_err(wrong)?)];
    for (number, picture) in made.pictures.into_iter().enumerate() {
        let extension = match alone {
            true => picture.extension.into(),
            false => format!("{number}.{}", picture.extension),
        };
        members.push((extension, picture.bytes));
    }
    Ok(SampleFiles { key, members })
}

/// SHA-256 of the candidates of a shard.
fn digest<I: Serialize>(items: &[(String, I)]) -> Result<String, DataError> {
    let json = serde_json::to_vec(items);
    let json = json.map_err(|error| DataError::Options(error.to_string()))?;
    Ok(sha256_hex(&json))
}

/// A random stream for a candidate: depends on the seed and its name only.
pub(crate) fn random(seed: u64, stream: &str, source: &str) -> crate::rng::Rng {
    crate::rng::Rng::new(seed, stream, mix(hash_texts(seed, &[source])))
}
