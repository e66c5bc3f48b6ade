// sample: processes a row of logits, samples a token (or takes the greatest), and appends it to the history. Needs reduce, order.
// grid       one workgroup
// bindings   logits, token, history, numbers with `draw`, `bias`, `penalty` or `counts`
// params     width: vocabulary; banned; end, min_length; ngram; bias: biased tokens; penalty: repetition penalty; counts:
//            presence or frequency penalty; draw: else greedy; top_k; top_p; min_p; numbers: whether bound, of which header
//            precede the biased tokens; subgroups: reduce by subgroups, else by trees
// shared     8 bytes per invocation and 20, and that of reduce
// reference  crates/emu-kernels/src/cpu/sampling/sample.rs     test  crates/emu-kernels/src/ops/tests.rs
//
// Candidates are the tokens above a threshold, which is found bit by bit, and the first few of those that equal it. The draw
// runs over them in vocabulary order, of which each invocation has a contiguous stretch.

@group(0) @binding({{logits}}) var<storage, read_write> logits: array<f32>;   // [WIDTH], overwritten
@group(0) @binding({{token}}) var<storage, read_write> token: array<i32>;    // [1]; -1 if a logit is NaN
@group(0) @binding({{history}}) var<storage, read_write> history: array<i32>;  // number of tokens, then the tokens
//@if numbers
@group(0) @binding({{numbers}}) var<storage, read_write> numbers: array<f32>;  // see below
//@end

const WIDTH = {{width}}u;
const INVOCATIONS = {{invocations}}u;
const STRETCH = (WIDTH + INVOCATIONS - 1u) / INVOCATIONS;
//@if banned
const BANNED = {{banned}}u;
//@end
//@if min_length
const END = {{end}}u;
const MIN_LENGTH = {{min_length}}u;
//@end
//@if ngram
const NGRAM = {{ngram}}u;
//@end
//@if top_k
const TOP_K = {{top_k}}u;
//@end
//@if numbers
// Temperature, top-p, repetition penalty, logarithm of min-p, presence penalty, frequency penalty, number of biased tokens;
// these tokens, each with its bias; uniform numbers.
const HEADER = {{header}}u;
//@end
const LEAST = -3.4028234e38;

var<workgroup> shared_count: u32;
var<workgroup> strange: atomic<u32>;
//@if !subgroups
var<workgroup> tally: atomic<u32>;
//@end
//@if subgroups
var<workgroup> shared_sum: f32;
//@end
var<workgroup> values: array<f32, INVOCATIONS>;
var<workgroup> indices: array<u32, INVOCATIONS>;
var<workgroup> chosen: u32;
var<workgroup> left: f32;

// Sum over all invocations, bit-for-bit the same for all of them.
fn agreed(local: u32, value: f32) -> f32 {
    var sum = total(local, value);
    //@if subgroups
    if local == 0u {
        shared_sum = sum;
    }
    sum = workgroupUniformLoad(&shared_sum);
    //@end
    return sum;
}

//@if subgroups
// Integers are exact in f32 up to 2^24.
fn count(local: u32, value: u32) -> u32 {
    return u32(total(local, f32(value)));
}
//@else
fn count(local: u32, value: u32) -> u32 {
    if local == 0u {
        atomicStore(&tally, 0u);
    }
    workgroupBarrier();
    atomicAdd(&tally, value);
    workgroupBarrier();
    if local == 0u {
        shared_count = atomicLoad(&tally);
    }
    let sum = workgroupUniformLoad(&shared_count);
    return sum;
}
//@end

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(@builtin(local_invocation_index) local: u32) {
    //@if subgroups
    find_lanes();
    //@end
    let capacity = arrayLength(&history) - 1u;
    if local == 0u {
        shared_count = min(u32(max(history[0], 0)), capacity);
        atomicStore(&strange, 0u);
    }
    let made = workgroupUniformLoad(&shared_count);
    for (var i = local; i < WIDTH; i += INVOCATIONS) {
        // NaN test by bits: compilers may assume that comparisons see no NaN.
        if (bitcast<u32>(logits[i]) & 0x7fffffffu) > 0x7f800000u {
            atomicStore(&strange, 1u);
        }
    }

    //@if bias
    for (var i = local; i < u32(numbers[HEADER - 1u]); i += INVOCATIONS) {
        let biased = u32(numbers[HEADER + 2u * i]);
        if biased < WIDTH {
            logits[biased] += numbers[HEADER + 2u * i + 1u];
        }
    }
    storageBarrier();
    workgroupBarrier();
    //@end
    //@if penalty
    for (var i = local; i < made; i += INVOCATIONS) {
        let seen = history[1u + i];
        var first = seen >= 0 && u32(seen) < WIDTH;
        for (var j = 0u; j < i; j++) {
            first = first && history[1u + j] != seen;
        }
        if first {
            let logit = logits[seen];
            logits[seen] = logit * select(1.0 / numbers[2], numbers[2], logit < 0.0);
        }
    }
    storageBarrier();
    workgroupBarrier();
    //@end
    //@if counts
    // From 1: the first token of the history was not generated.
    for (var i = 1u + local; i < made; i += INVOCATIONS) {
        let seen = history[1u + i];
        var first = seen >= 0 && u32(seen) < WIDTH;
        var occurrences = 0u;
        for (var j = 1u; j < made; j++) {
            if history[1u + j] == seen {
                first = first && j >= i;
                occurrences++;
            }
        }
        if first {
            logits[seen] -= numbers[4] + f32(occurrences) * numbers[5];
        }
    }
    storageBarrier();
    workgroupBarrier();
    //@end
    //@if ngram
    if made >= NGRAM {
        for (var i = local; i + NGRAM <= made; i += INVOCATIONS) {
            var same = true;
            for (var j = 0u; j + 1u < NGRAM; j++) {
                same = same && history[1u + i + j] == history[1u + made + 1u - NGRAM + j];
            }
            let last = history[i + NGRAM];
            if same && last >= 0 && u32(last) < WIDTH {
                logits[last] = LEAST;
            }
        }
    }
    storageBarrier();
    workgroupBarrier();
    //@end
    //@if min_length
    if local == 0u && made < MIN_LENGTH {
        logits[END] = LEAST;
    }
    //@end
    //@if banned
    if local == 0u {
        logits[BANNED] = LEAST;
    }
    //@end
    storageBarrier();
    workgroupBarrier();

    // Argmax, the lowest of equals.
    var greatest = LEAST;
    var best = WIDTH;
    for (var i = local; i < WIDTH; i += INVOCATIONS) {
        if logits[i] > greatest || best == WIDTH {
            greatest = logits[i];
            best = i;
        }
    }
    //@if subgroups
    let own = greatest;
    greatest = most(local, own);
    // Exact up to 2^24.
    let found = most(local, select(-f32(WIDTH), -f32(best), own == greatest));
    if local == 0u {
        // Arbitrary if no logit is finite.
        chosen = u32(-found) % WIDTH;
    }
    //@else
    values[local] = greatest;
    indices[local] = best;
    workgroupBarrier();
    for (var step = INVOCATIONS / 2u; step > 0u; step /= 2u) {
        if local < step {
            let other = local + step;
            let better = values[other] > values[local]
                || (values[other] == values[local] && indices[other] < indices[local]);
            if indices[local] == WIDTH || (better && indices[other] < WIDTH) {
                values[local] = values[other];
                indices[local] = indices[other];
            }
        }
        workgroupBarrier();
    }
    greatest = workgroupUniformLoad(&values[0]);
    if local == 0u {
        chosen = indices[0];
    }
    //@end

    //@if draw
    let heat = 1.0 / numbers[0];
    // Candidates have a greater key, or are among the first `ties` with this key.
    var threshold = 0u;
    var ties = WIDTH;
    //@if top_k
    for (var bit = 32u; bit > 0u; bit--) {
        let candidate = threshold | (1u << (bit - 1u));
        var above = 0u;
        for (var i = local; i < WIDTH; i += INVOCATIONS) {
            above += select(0u, 1u, key(logits[i]) >= candidate);
        }
        if count(local, above) >= TOP_K {
            threshold = candidate;
        }
    }
    {
        var above = 0u;
        for (var i = local; i < WIDTH; i += INVOCATIONS) {
            above += select(0u, 1u, key(logits[i]) > threshold);
        }
        ties = TOP_K - min(count(local, above), TOP_K);
    }
    //@end
    //@if top_p
    {
        let least = threshold;
        // Mass of all candidates so far.
        var above = 0.0;
        var equal = 0u;
        var weight = 0.0;
        for (var i = local; i < WIDTH; i += INVOCATIONS) {
            let k = key(logits[i]);
            let w = exp((logits[i] - greatest) * heat);
            above += select(0.0, w, k > least);
            if k == least {
                equal += 1u;
                weight = max(weight, w);
            }
        }
        let tied = min(count(local, equal), ties);
        let wanted = numbers[1] * (agreed(local, above) + f32(tied) * most(local, weight));
        // Starts from zero: bits of the top-k threshold would block greater ones.
        threshold = 0u;
        for (var bit = 32u; bit > 0u; bit--) {
            let candidate = threshold | (1u << (bit - 1u));
            var mass = 0.0;
            for (var i = local; i < WIDTH; i += INVOCATIONS) {
                mass += select(0.0, exp((logits[i] - greatest) * heat), key(logits[i]) >= candidate);
            }
            if agreed(local, mass) >= wanted {
                threshold = candidate;
            }
        }
        threshold = max(threshold, least);
        // As many of the equals as needed.
        var more = 0.0;
        weight = 0.0;
        for (var i = local; i < WIDTH; i += INVOCATIONS) {
            let k = key(logits[i]);
            let w = exp((logits[i] - greatest) * heat);
            more += select(0.0, w, k > threshold);
            weight = select(weight, w, k == threshold);
        }
        let missing = wanted - agreed(local, more);
        let one = most(local, weight);
        let few = max(u32(ceil(missing / max(one, 1e-37))), 1u);
        ties = select(few, min(few, ties), threshold == least);
    }
    //@end
    // Per stretch: number of equals, then mass.
    let start = min(local * STRETCH, WIDTH);
    let end = min(start + STRETCH, WIDTH);
    var equals = 0u;
    for (var i = start; i < end; i++) {
        equals += select(0u, 1u, key(logits[i]) == threshold);
    }
    indices[local] = equals;
    workgroupBarrier();
    var before = 0u;
    for (var i = 0u; i < local; i++) {
        before += indices[i];
    }
    var mass = 0.0;
    var rank = before;
    for (var i = start; i < end; i++) {
        let k = key(logits[i]);
        let scaled = (logits[i] - greatest) * heat;
        var candidate = k > threshold || (k == threshold && rank < ties);
        //@if min_p
        candidate = candidate && scaled >= numbers[3];
        //@end
        if candidate {
            mass += exp(scaled);
        }
        rank += select(0u, 1u, k == threshold);
    }
    workgroupBarrier();
    values[local] = mass;
    workgroupBarrier();
    if local == 0u {
        var sum = 0.0;
        for (var i = 0u; i < INVOCATIONS; i++) {
            sum += values[i];
        }
        // The stretch that contains the draw; if rounding exceeds the total, the last with any mass.
        let uniforms = HEADER + 2u * u32(numbers[HEADER - 1u]);
        left = numbers[min(uniforms + max(made, 1u) - 1u, arrayLength(&numbers) - 1u)] * sum;
        var stretch = 0u;
        for (var i = 0u; i < INVOCATIONS; i++) {
            if values[i] > 0.0 {
                stretch = i;
                if left < values[i] {
                    break;
                }
                left -= values[i];
            }
        }
        shared_count = stretch;
    }
    let stretch = workgroupUniformLoad(&shared_count);
    if local == stretch {
        var rest = left;
        rank = before;
        for (var i = start; i < end; i++) {
            let k = key(logits[i]);
            let scaled = (logits[i] - greatest) * heat;
            var candidate = k > threshold || (k == threshold && rank < ties);
            //@if min_p
            candidate = candidate && scaled >= numbers[3];
            //@end
            if candidate {
                chosen = i;
                rest -= exp(scaled);
                if rest < 0.0 {
                    break;
                }
            }
            rank += select(0u, 1u, k == threshold);
        }
    }
    //@end
    workgroupBarrier();
    if local == 0u {
        token[0] = select(i32(chosen), -1, atomicLoad(&strange) == 1u);
        if made < capacity {
            history[1u + made] = i32(chosen);
            history[0] = i32(made + 1u);
        }
    }
}
