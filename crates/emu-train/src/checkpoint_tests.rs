use super::*;

fn tensors(value: f32) -> Tensors {
    let tensor = |name: &str| TensorData::from_f32(name, vec![2, 3], &[value; 6]).unwrap();
    Tensors {
        model: vec![tensor("a.weight"), tensor("b")],
        optimiser: vec![tensor("a.weight.m")],
        average: None,
    }
}

fn state(step: u64) -> RunState {
    RunState::new(
        step,
        7,
        "toy",
        BTreeMap::from([("batch".into(), "4".into())]),
    )
}

fn save(out: &Path, step: u64) -> PathBuf {
    write(out, state(step), &tensors(step as f32), &create_file).unwrap()
}

#[test]
fn what_is_written_is_read() {
    let out = tempfile::tempdir().unwrap();
    let path = save(out.path(), 12);
    assert!(path.ends_with("step-00000012"));
    assert_eq!(
        fs::read_to_string(out.path().join("latest")).unwrap(),
        "step-00000012"
    );
    let (found, skipped) = Checkpoint::newest(out.path()).unwrap();
    let found = found.unwrap();
    assert!(skipped.is_empty());
    assert_eq!((found.state.step, found.state.seed), (12, 7));
    assert_eq!(found.tensors().unwrap().model, tensors(12.0).model);
    assert_eq!(
        found.weights().unwrap().read("b").unwrap(),
        tensors(12.0).model[1]
    );
    assert_eq!(Checkpoint::find(out.path()).unwrap().path, path);
    assert_eq!(Checkpoint::find(&path).unwrap().path, path);
}

#[test]
fn an_average_takes_the_place_of_the_weights() {
    let out = tempfile::tempdir().unwrap();
    let average = vec![TensorData::from_f32("b", vec![6], &[9.0; 6]).unwrap()];
    let path = write(
        out.path(),
        state(1),
        &Tensors {
            average: Some(average),
            ..tensors(1.0)
        },
        &create_file,
    )
    .unwrap();
    let weights = Checkpoint::open(&path).unwrap().weights().unwrap();
    assert_eq!(
        weights.read("b").unwrap(),
        TensorData::from_f32("b", vec![2, 3], &[9.0; 6]).unwrap()
    );
    assert_eq!(weights.read("a.weight").unwrap(), tensors(1.0).model[0]);
}

#[test]
fn damage_is_seen_and_passed_over() {
    let out = tempfile::tempdir().unwrap();
    save(out.path(), 1);
    type Damage = fn(&Path);
    let damages: [(Damage, &str); 6] = [
        (
            |p| fs::remove_file(p.join(STATE)).unwrap(),
            "state.json cannot be read",
        ),
        (
            |p| fs::write(p.join(STATE), "{").unwrap(),
            "state.json is damaged",
        ),
        (
            |p| fs::remove_file(p.join(OPTIMISER)).unwrap(),
            "optimiser.safetensors cannot be read",
        ),
        (
            |p| fs::write(p.join(MODEL), "short").unwrap(),
            "model.safetensors is 5 bytes long",
        ),
        (
            |p| {
                let mut bytes = fs::read(p.join(MODEL)).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(p.join(MODEL), bytes).unwrap();
            },
            "SHA-256",
        ),
        (
            |p| {
                let text = fs::read_to_string(p.join(STATE)).unwrap();
                fs::write(
                    p.join(STATE),
                    text.replace("\"format\": 1", "\"format\": 9"),
                )
                .unwrap();
            },
            "format 9",
        ),
    ];
    for (damage, reason) in damages {
        let path = save(out.path(), 2);
        damage(&path);
        let (found, skipped) = Checkpoint::newest(out.path()).unwrap();
        assert_eq!(found.unwrap().state.step, 1);
        assert_eq!(skipped.len(), 1);
        assert_eq!(skipped[0].path, path);
        assert!(skipped[0].reason.contains(reason), "{}", skipped[0].reason);
    }
    let error = Checkpoint::find(&out.path().join("nothing")).unwrap_err();
    assert!(error.to_string().contains("no checkpoint"), "{error}");
}

#[test]
fn only_the_last_are_kept() {
    let out = tempfile::tempdir().unwrap();
    for step in [1, 2, 30, 4] {
        save(out.path(), step);
    }
    prune(out.path(), 2, None).unwrap();
    let steps: Vec<u64> = folders(out.path())
        .unwrap()
        .into_iter()
        .map(|(step, _)| step)
        .collect();
    assert_eq!(steps, [4, 30]);
    prune(out.path(), 0, None).unwrap();
    assert_eq!(folders(out.path()).unwrap().len(), 1);
}

/// A file on a disk with `limit` bytes left.
struct Full {
    file: File,
    left: std::rc::Rc<std::cell::Cell<usize>>,
}

impl Write for Full {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        let n = self.file.write(&buffer[..buffer.len().min(left)])?;
        self.left.set(left - n);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Sink for Full {
    fn sync(&mut self) -> std::io::Result<()> {
        self.file.sync()
    }
}

#[test]
fn a_full_disk_leaves_the_previous_checkpoint() {
    let out = tempfile::tempdir().unwrap();
    save(out.path(), 1);
    let whole = {
        let left = std::rc::Rc::new(std::cell::Cell::new(usize::MAX));
        let counter = left.clone();
        let create = move |path: &Path| {
            File::create(path).map(|file| {
                Box::new(Full {
                    file,
                    left: counter.clone(),
                }) as Box<dyn Sink>
            })
        };
        write(out.path(), state(2), &tensors(2.0), &create).unwrap();
        usize::MAX - left.get()
    };
    // The disk fills up at every position of a checkpoint, including the `latest` pointer.
    for limit in (0..whole).step_by(37) {
        let left = std::rc::Rc::new(std::cell::Cell::new(limit));
        let create = move |path: &Path| {
            File::create(path).map(|file| {
                Box::new(Full {
                    file,
                    left: left.clone(),
                }) as Box<dyn Sink>
            })
        };
        let error = write(out.path(), state(3), &tensors(3.0), &create).unwrap_err();
        assert_eq!(error.code(), "disk-full", "{error}");
        let (found, skipped) = Checkpoint::newest(out.path()).unwrap();
        // If only the pointer did not fit, the checkpoint itself is complete.
        assert!([2, 3].contains(&found.unwrap().state.step));
        assert!(skipped.is_empty());
    }
    sweep(out.path()).unwrap();
    assert!(
        fs::read_dir(out.path()).unwrap().all(|e| !e
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with('.'))
    );
}

#[test]
fn the_best_checkpoint_is_found_by_its_mark() {
    let out = tempfile::tempdir().unwrap();
    save(out.path(), 3);
    save(out.path(), 5);
    let error = Checkpoint::best(out.path()).unwrap_err().to_string();
    assert!(error.contains("no best checkpoint"), "{error}");
    mark_best(out.path(), 3).unwrap();
    assert_eq!(Checkpoint::best(out.path()).unwrap().state.step, 3);
    assert_eq!(Checkpoint::find(out.path()).unwrap().state.step, 5);
}
