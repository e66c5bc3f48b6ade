//! Best continuations of beams against a naive f64 reference: odd vocabularies, ties, bans, and rows without a distribution.

use emu_kernels::beams::{Continuation, Ranking, continuations};
use emu_kernels::burn::tensor::{Device, Tensor, TensorData, read_sync};
use emu_kernels::device::{self, DeviceChoice};
use emu_kernels::random::Philox;
use emu_kernels::sample::Processors;

const END: u32 = 2;

/// Beams before a search step.
struct Step {
    vocab: usize,
    /// `[B, V]`
    logits: Vec<f32>,
    histories: Vec<Vec<u32>>,
    sums: Vec<f32>,
}

impl Step {
    /// Logits with few levels, so that there are ties; a few tokens are favoured, so that histories matter.
    fn new(seed: u32, beams: usize, vocab: usize, made: usize) -> Self {
        let mut random = Philox::with_stream(19, seed, 0);
        let values = random.normals(beams * vocab);
        let mut logits: Vec<f32> = values.iter().map(|v| (v * 8.0).round() / 4.0).collect();
        let mut below = |n: usize| (random.uniform() * n as f32) as usize;
        let mut histories = vec![vec![1]; beams];
        for (history, row) in histories.iter_mut().zip(logits.chunks_mut(vocab)) {
            // Drawn from a few tokens, so that they repeat.
            let few: Vec<usize> = (0..3).map(|_| below(vocab)).collect();
            history.extend((1..made).map(|_| few[below(3)] as u32));
            few.iter().for_each(|token| row[*token] += 6.0);
        }
        let sums = (0..beams).map(|_| -(below(24) as f32) / 8.0).collect();
        Self {
            vocab,
            logits,
            histories,
            sums,
        }
    }

    fn row(&mut self, beam: usize) -> &mut [f32] {
        &mut self.logits[beam * self.vocab..][..self.vocab]
    }

    fn tensor(&self, device: &Device) -> Tensor<3> {
        let shape = [self.sums.len(), 1, self.vocab];
        Tensor::from_data(TensorData::new(self.logits.clone(), shape), device)
    }

    fn beams(&self) -> Vec<(&[u32], f32)> {
        { self.histories.iter().zip(&self.sums) }
            .map(|(history, sum)| (&history[..], *sum))
            .collect()
    }

    fn rank(&self, ranking: &Ranking, device: &Device) -> Option<Vec<Continuation>> {
        let numbers = ranking.rank(self.tensor(device), &self.beams()).into_data();
        let numbers: Vec<i32> = numbers.iter::<i32>().collect();
        continuations(&numbers, [self.sums.len(), self.vocab])
    }

    /// Reference: all continuations in order, with beam, token and score.
    fn want(&self, ranking: &Ranking) -> Vec<(usize, u32, f64)> {
        let p = &ranking.processors;
        let mut all = vec![];
        for (beam, history) in self.histories.iter().enumerate() {
            let row = &self.logits[beam * self.vocab..][..self.vocab];
            let sum: f64 = row.iter().map(|l| f64::from(*l).exp()).sum();
            for (token, logit) in row.iter().enumerate() {
                let token = token as u32;
                let mut score = f64::from(*logit) - sum.ln();
                if history.contains(&token) {
                    let penalty = f64::from(p.repetition_penalty);
                    score *= if score < 0.0 { penalty } else { 1.0 / penalty };
                }
                let longer = [&history[..], &[token]].concat();
                let repeats = |n: usize| {
                    let last = &longer[longer.len() - n..];
                    history.windows(n).any(|window| window == last)
                };
                let n = p.no_repeat_ngram;
                if (n > 0 && longer.len() >= n && repeats(n))
                    || (token == ranking.end && history.len() < p.min_length)
                    || ranking.banned == Some(token)
                {
                    score = f64::NEG_INFINITY;
                }
                // Rounded to f32, so that smaller differences are ties.
                let score = f64::from((score + f64::from(self.sums[beam])) as f32);
                all.push((beam, token, score));
            }
        }
        // Stable sort: ties stay in order of beam and token.
        all.sort_by(|a, b| b.2.total_cmp(&a.2));
        all
    }
}

/// Describes the first difference between result and reference.
fn difference(
    got: Option<Vec<Continuation>>,
    want: &[(usize, u32, f64)],
    best: usize,
) -> Result<(), String> {
    let got = got.ok_or("not a number")?;
    if got.len() != best.min(want.len()) {
        return Err(format!("{} continuations", got.len()));
    }
    for (rank, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got.sum) - want.2).abs();
        let near = f64::from(got.sum) == want.2 || error < 4e-6 * (1.0 + want.2.abs());
        if (got.beam, got.token) != (want.0, want.1) || !near {
            return Err(format!("rank {rank}: {got:?} instead of {want:?}"));
        }
    }
    Ok(())
}

fn plain(best: usize) -> Ranking {
    Ranking {
        processors: Processors::default(),
        end: END,
        banned: None,
        best,
    }
}

fn strict(best: usize, penalty: f32, ngram: usize, min_length: usize) -> Ranking {
    Ranking {
        processors: Processors {
            repetition_penalty: penalty,
            no_repeat_ngram: ngram,
            min_length,
            ..Processors::default()
        },
        banned: Some(1),
        ..plain(best)
    }
}

fn check(what: &str, step: &Step, ranking: &Ranking, device: &Device) {
    let want = step.want(ranking);
    // Where scores differ only by rounding the order is undefined; no case contains such scores.
    let compared = &want[..want.len().min(ranking.best + 1)];
    for pair in compared.windows(2) {
        let gap = pair[0].2 - pair[1].2;
        assert!(
            !(gap > 0.0 && gap < 4e-5),
            "{what}: {pair:?} decides nothing"
        );
    }
    let found = difference(step.rank(ranking, device), &want, ranking.best);
    assert_eq!(found, Ok(()), "{what}, {ranking:?}");
}

fn everything(device: &Device) {
    // 1. sizes: fewer tokens than invocations, one more, many; up to all continuations
    for (seed, beams, vocab, best) in [
        (1, 1, 3, 3),
        (2, 2, 3, 6),
        (3, 1, 1, 1),
        (4, 2, 5, 4),
        (5, 1, 257, 257),
        (6, 3, 255, 200),
        (7, 1, 1009, 2),
        (8, 2, 1009, 4),
        (9, 5, 1009, 10),
        (10, 7, 1009, 14),
        (11, 5, 40_001, 10),
        (12, 7, 40_001, 14),
        (13, 2, 1009, 700),
    ] {
        let what = format!("{beams} beams, {vocab} tokens");
        check(
            &what,
            &Step::new(seed, beams, vocab, 1),
            &plain(best),
            device,
        );
        let step = Step::new(seed + 50, beams, vocab, 9);
        for ranking in [
            strict(best, 1.0, 0, 10),
            strict(best, 1.3, 0, 9),
            strict(best, 0.8, 1, 0),
            strict(best, 1.0, 2, 10),
            strict(best, 1.7, 3, 3),
            strict(best, 1.0, 12, 0),
        ] {
            check(&what, &step, &ranking, device);
        }
    }

    // 2. ties between identical beams, and between all tokens
    let mut step = Step::new(100, 3, 300, 4);
    let row = step.row(2).to_vec();
    step.row(0).copy_from_slice(&row);
    step.histories[0] = step.histories[2].clone();
    step.sums = vec![-1.5, -1.25, -1.5];
    check("beams alike", &step, &plain(12), device);
    check("beams alike", &step, &strict(12, 1.2, 2, 0), device);
    step.logits.fill(0.25);
    step.sums.fill(0.0);
    check("everything alike", &step, &plain(301), device);

    // 3. start of a search: only the first beam counts, unless it has too few continuations
    let mut step = Step::new(101, 3, 6, 1);
    step.sums = vec![0.0, -1e9, -1e9];
    check("a start", &step, &plain(6), device);
    check("a start with a ban", &step, &strict(6, 1.0, 0, 0), device);

    // 4. impossible continuations come last, in order
    let mut step = Step::new(102, 2, 7, 2);
    step.row(0)[1..5].fill(f32::NEG_INFINITY);
    step.row(1)[2..].fill(f32::NEG_INFINITY);
    check("impossible tokens", &step, &plain(14), device);
    check("impossible tokens", &step, &strict(14, 1.4, 2, 9), device);
    step.sums[0] = f32::NEG_INFINITY;
    check("an impossible beam", &step, &plain(14), device);
    let mut far = Step::new(103, 2, 700, 1);
    far.logits.iter_mut().for_each(|logit| *logit += 80.0);
    far.row(1)[600] = f32::MIN;
    check("large logits", &far, &plain(9), device);

    // 5. rows without a distribution are reported, wherever they are
    for strange in [f32::NAN, -f32::NAN, f32::INFINITY] {
        for (beam, token) in [(0, 0), (1, 299), (2, 256)] {
            for ranking in [plain(6), strict(6, 1.2, 2, 9)] {
                let mut step = Step::new(104, 3, 300, 4);
                assert!(step.rank(&ranking, device).is_some());
                step.row(beam)[token] = strange;
                assert_eq!(step.rank(&ranking, device), None, "{strange} in {beam}");
            }
        }
    }
    let mut step = Step::new(105, 2, 30, 1);
    step.row(1).fill(f32::NEG_INFINITY);
    assert_eq!(step.rank(&plain(4), device), None);
}

#[test]
fn beams_on_flex() {
    everything(&Device::flex());
}

#[test]
fn beams_on_wgpu() {
    if std::env::var("EMU_TEST_GPU").as_deref() != Ok("1") {
        println!("SKIP beams-wgpu: EMU_TEST_GPU is not 1");
        return;
    }
    let opened = device::open(DeviceChoice::Gpu).expect("EMU_TEST_GPU asks for an adapter");
    everything(&opened.device);
}

#[test]
fn the_comparison_sees_a_wrong_result() {
    let (step, ranking) = (Step::new(110, 5, 60, 6), strict(10, 1.3, 2, 9));
    let want = step.want(&ranking);
    let right = step.rank(&ranking, &Device::flex()).expect("numbers");
    let wrong = |change: &dyn Fn(&mut Vec<Continuation>)| {
        let mut got = right.clone();
        change(&mut got);
        difference(Some(got), &want, 10)
    };
    assert_eq!(wrong(&|_| ()), Ok(()));
    assert!(difference(None, &want, 10).is_err());
    assert!(wrong(&|got| got.truncate(9)).is_err());
    assert!(wrong(&|got| got.swap(3, 4)).is_err());
    assert!(wrong(&|got| got[9].token += 1).is_err());
    assert!(wrong(&|got| got[0].beam ^= 1).is_err());
    assert!(wrong(&|got| got[5].sum += 1e-4).is_err());
    assert!(wrong(&|got| got[5].sum = f32::NEG_INFINITY).is_err());
    // An out-of-range index from a device is no continuation.
    assert!(continuations(&[59, 0], [1, 60]).is_some());
    assert!(continuations(&[60, 0], [1, 60]).is_none());
    assert!(continuations(&[-1, 0], [1, 60]).is_none());
}

/// Times of a step without processors and with all of them: `--ignored --nocapture`.
#[test]
#[ignore = "takes seconds, for people"]
fn costs_on_wgpu() {
    let device = device::open(DeviceChoice::Gpu).expect("an adapter").device;
    for (beams, vocab) in [
        (1, 3),
        (5, 3),
        (5, 1009),
        (5, 32_000),
        (5, 49_152),
        (16, 32_000),
    ] {
        let step = Step::new(120, beams, vocab, 20);
        for ranking in [plain(2 * beams), strict(2 * beams, 1.3, 3, 30)] {
            let (logits, beams) = (step.tensor(&device), step.beams());
            let runs = 32;
            let mut times: Vec<f64> = (0..7)
                .map(|_| {
                    let batch =
                        || (0..runs).for_each(|_| drop(ranking.rank(logits.clone(), &beams)));
                    let ((), time) = device.profile(batch).expect("a device that works");
                    let ticks = read_sync(time.resolve()).expect("a clock");
                    ticks.duration().as_secs_f64() / f64::from(runs)
                })
                .collect();
            times.sort_by(f64::total_cmp);
            let changes = if ranking.banned.is_some() {
                "all"
            } else {
                "none"
            };
            println!(
                "{} beams of {vocab}, {changes} changed: {:.0} µs",
                beams.len(),
                times[0] * 1e6
            );
        }
    }
}
