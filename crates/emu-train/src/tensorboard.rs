//! TensorBoard event files: the figures of `metrics.jsonl` as scalars.
//!
//! A file is a sequence of records, each `length: u64, mask(crc32c(length)): u32, data, mask(crc32c(data)): u32`, little
//! endian (`tensorflow/core/lib/io/record_writer.cc`). The data is an `Event` (`tensorflow/core/util/event.proto`), in
//! protocol buffers.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::TrainError;
use crate::metrics::StepMetrics;

/// An event file of one process. A resumed run writes another file; its first record makes TensorBoard drop the later
/// steps of earlier files.
#[derive(Debug)]
pub(crate) struct EventFile {
    path: PathBuf,
    out: BufWriter<File>,
}

impl EventFile {
    /// Creates a file in `folder`, for steps from `step` on.
    ///
    /// # Errors
    /// [`TrainError::Io`], [`TrainError::DiskFull`].
    pub fn create(folder: &Path, step: u64) -> Result<Self, TrainError> {
        let now = now();
        let name =
            |i: u32| folder.join(format!("events.out.tfevents.{:010}.{step}.{i}", now as u64));
        // Two processes of a run may start within one second.
        let (path, file) = (0..)
            .map(|i| {
                let path = name(i);
                let file = OpenOptions::new().write(true).create_new(true).open(&path);
                (path, file)
            })
            .find(|(_, file)| {
                !matches!(file, Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists)
            })
            .unwrap_or_else(|| unreachable!("the range has no end"));
        let file = file.map_err(TrainError::io("create", &path))?;
        let mut events = Self {
            path,
            out: BufWriter::new(file),
        };
        let mut version = Message::event(now, 0);
        version.bytes(3, b"brain.Event:2");
        events.record(&version.0)?;
        if step > 0 {
            // SessionLog { status: START }
            let mut session = Message::default();
            session.varint(1, 1);
            let mut start = Message::event(now, step);
            start.bytes(7, &session.0);
            events.record(&start.0)?;
        }
        Ok(events)
    }

    /// Appends the figures of a step.
    ///
    /// # Errors
    /// [`TrainError::Io`], [`TrainError::DiskFull`].
    pub fn write(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        let mut summary = Message::default();
        let mut scalar = |tag: &str, value: f32| {
            let mut message = Message::default();
            message.bytes(1, tag.as_bytes());
            message.float(2, value);
            summary.bytes(1, &message.0);
        };
        scalar("train/loss", metrics.loss);
        for (name, value) in &metrics.terms {
            scalar(&format!("train/{name}"), *value);
        }
        scalar("train/grad_norm", metrics.grad_norm);
        for (part, rate) in &metrics.lr {
            let tag = match part.as_str() {
                "" => "lr/rest".to_string(),
                part => format!("lr/{part}"),
            };
            scalar(&tag, *rate as f32);
        }
        scalar("speed/samples_per_s", metrics.samples_per_s);
        for (name, value) in &metrics.eval {
            scalar(&format!("eval/{name}"), *value);
        }
        let mut event = Message::event(now(), metrics.step);
        event.bytes(5, &summary.0);
        self.record(&event.0)
    }

    fn record(&mut self, data: &[u8]) -> Result<(), TrainError> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(data);
        record.extend(masked_crc(data).to_le_bytes());
        self.out
            .write_all(&record)
            .and_then(|()| self.out.flush())
            .map_err(TrainError::io("write", &self.path))
    }
}

/// `((crc >> 15) | (crc << 17)) + 0xa282ead8` (`tensorflow/core/lib/hash/crc32c.h`).
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// Seconds since 1970; 0 if the clock is before that.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64())
}

/// A protocol buffer message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// An `Event` with wall time and step.
    fn event(wall_time: f64, step: u64) -> Self {
        let mut event = Self::default();
        event.key(1, 1);
        event.0.extend(wall_time.to_le_bytes());
        event.varint(2, step);
        event
    }

    /// The key of a field. Wire types: 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes.
    fn key(&mut self, field: u64, wire: u64) {
        self.number(field << 3 | wire);
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.number(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.number(value.len() as u64);
        self.0.extend(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of the records, with both checksums verified by a bitwise CRC-32C.
    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let crc = |bytes: &[u8]| {
            let mut crc = !0u32;
            for byte in bytes {
                crc ^= u32::from(*byte);
                for _ in 0..8 {
                    crc = (crc >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1));
                }
            }
            let crc = !crc;
            crc.rotate_right(15).wrapping_add(0xa282_ead8)
        };
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
        let mut found = vec![];
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
            assert_eq!(word(&bytes[8..]), crc(&bytes[..8]));
            let data = &bytes[12..12 + length];
            assert_eq!(word(&bytes[12 + length..]), crc(data));
            found.push(data.to_vec());
            bytes = &bytes[16 + length..];
        }
        found
    }

    #[test]
    fn a_checksum_is_that_of_tensorflow() {
        // The first record of every event file written by TensorFlow has a length of 24 bytes and this checksum.
        assert_eq!(masked_crc(&24u64.to_le_bytes()), 0x224b_7fa3);
    }

    #[test]
    fn figures_are_scalars_of_their_step() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = EventFile::create(folder.path(), 300).expect("a file");
        let metrics = StepMetrics {
            step: 300,
            loss: 0.5,
            terms: vec![("text".into(), 0.25)],
            grad_norm: 1.5,
            lr: vec![(String::new(), 1e-3)],
            samples_per_s: 70.0,
            seconds: 3.0,
            bad_samples: 0,
            warning: None,
            eval: vec![("val.loss".into(), 2.0)],
        };
        file.write(&metrics).expect("a record");
        let bytes = std::fs::read(&file.path).expect("a file");
        let records = records(&bytes);
        assert_eq!(records.len(), 3);
        let ends = |record: &[u8], end: &[u8]| record.ends_with(end);
        assert!(ends(&records[0], b"\x1a\x0dbrain.Event:2"));
        // Step 300 is the varint ac 02; the session starts there.
        assert!(ends(&records[1], b"\x10\xac\x02\x3a\x02\x08\x01"));
        let holds = |part: &[u8]| records[2].windows(part.len()).any(|w| w == part);
        assert!(holds(b"\x0a\x0atrain/loss\x15\x00\x00\x00\x3f"));
        assert!(holds(b"\x0a\x0atrain/text\x15\x00\x00\x80\x3e"));
        assert!(holds(b"\x0a\x07lr/rest"));
        assert!(holds(b"\x0a\x0deval/val.loss\x15\x00\x00\x00\x40"));
    }

    #[test]
    fn files_of_one_second_have_different_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths: Vec<PathBuf> = (0..3)
            .map(|_| EventFile::create(folder.path(), 0).expect("a file").path)
            .collect();
        assert!(paths[0] != paths[1] && paths[1] != paths[2]);
    }
}
