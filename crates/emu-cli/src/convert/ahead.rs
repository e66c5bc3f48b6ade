//! Reads the next tensor while the previous one is processed.

use std::sync::mpsc::sync_channel;

use anyhow::Result;
use emu_pack::{PackError, TensorData};

/// Reads tensors by name on a separate thread and passes them to `take` in order. Reads one tensor ahead.
///
/// # Errors
/// The first error of `read` or `take`; nothing is read after it.
pub fn each<N: AsRef<str> + Send>(
    names: impl IntoIterator<Item = N, IntoIter: Send>,
    read: impl Fn(&str) -> Result<TensorData, PackError> + Send,
    mut take: impl FnMut(N, TensorData) -> Result<()>,
) -> Result<()> {
    let names = names.into_iter();
    std::thread::scope(|scope| {
        // The channel has no capacity, so the reader holds one tensor and blocks.
        let (send, receive) = sync_channel(0);
        scope.spawn(move || {
            for name in names {
                let tensor = read(name.as_ref());
                let last = tensor.is_err();
                if send.send((name, tensor)).is_err() || last {
                    break;
                }
            }
        });
        for (name, tensor) in receive {
            take(name, tensor?)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use anyhow::bail;

    use super::*;

    fn scalar(name: &str) -> Result<TensorData, PackError> {
        match name {
            "gone" => Err(PackError::BadName { name: name.into() }),
            _ => TensorData::from_f32(name, vec![], &[1.0]),
        }
    }

    #[test]
    fn order_is_kept_and_the_first_error_ends_it() {
        let mut seen = vec![];
        each(["a", "b", "c"], scalar, |name, tensor| {
            assert_eq!(tensor.info.name, name);
            seen.push(name);
            Ok(())
        })
        .expect("all read");
        assert_eq!(seen, ["a", "b", "c"]);

        let mut taken = 0;
        let error = each(["a", "gone", "b"], scalar, |_, _| {
            taken += 1;
            Ok(())
        });
        assert!(error.is_err() && taken == 1);

        let reads = AtomicUsize::new(0);
        let read = |name: &str| {
            reads.fetch_add(1, Ordering::Relaxed);
            scalar(name)
        };
        let names = vec!["a"; 100];
        assert!(each(names, read, |_, _| bail!("full")).is_err());
        assert!(reads.load(Ordering::Relaxed) <= 3);
    }
}
