// beam_best: log softmax of a beam's logits, processed, plus the beam's cumulative score; then the best continuations in order,
// greater scores first, the lower token first among equals. Needs order.
// grid       one workgroup per beam; folded over (x, y) beyond 65535
// bindings   logits, asked, best, sizes {beams, width, kept, best, changes}
// params     header: words of `asked` before the scores
// shared     16 bytes per invocation, and 4 for each 16 invocations
// reference  crates/emu-kernels/src/cpu/sampling/beam_best.rs     test  crates/emu-kernels/tests/beams.rs
//
// An invocation takes every INVOCATIONS-th token and finds its best two. From these, one invocation selects the best again and
// again, without a barrier; when both of an invocation are used, it searches two more.

@group(0) @binding({{logits}}) var<storage, read_write> logits: array<f32>;  // [B, WIDTH], overwritten if scores change
@group(0) @binding({{asked}}) var<storage, read_write> asked: array<i32>;   // see crates/emu-kernels/src/beams.rs
@group(0) @binding({{best}}) var<storage, read_write> best: array<u32>;    // [B, KEPT, 2]: flat index into the logits, bits of the score

struct Sizes {
    beams: u32,    // B
    width: u32,
    kept: u32,     // at most `width`
    best: u32,
    changes: u32,  // whether anything besides the beam's score changes scores
}
@group(0) @binding({{uniform}}) var<uniform> sizes: Sizes;

const INVOCATIONS = {{invocations}}u;
const GROUP = 16u;
const GROUPS = INVOCATIONS / GROUP;
const HEADER = {{header}}u;
// Replaces minus infinity, which is never computed with.
const LEAST = -3.4028234e38;
const KEY_OF_LEAST = 0x00800000u;
const MINUS_INFINITY = 0xff800000u;
// Keys of minus infinity and of infinity. NaN is outside.
const LOW = 0x007fffffu;
const HIGH = 0xff800000u;

// Per invocation: key and token of its best, key 0 if it has none left, and of its second best; before that, the range of
// its logits and their sum.
var<workgroup> firsts: array<vec2<u32>, INVOCATIONS>;
var<workgroup> seconds: array<vec2<u32>, INVOCATIONS>;
// Per group of invocations: the one with the best.
var<workgroup> leaders: array<u32, GROUPS>;

var<private> row: u32;
var<private> sum: f32;
var<private> greatest: f32;
var<private> log_sum: f32;

// Inverse of key_of_bits.
fn bits_of(key: u32) -> u32 {
    return select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u);
}

// Replaces minus infinity by LEAST.
fn bounded(value: f32) -> f32 {
    return select(value, LEAST, bitcast<u32>(value) == MINUS_INFINITY);
}

fn log_probability(token: u32) -> f32 {
    return max((bounded(logits[row + token]) - greatest) - log_sum, LEAST);
}

fn comes_before(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.x > b.x || (a.x == b.x && a.y < b.y);
}

// The best two of an invocation's tokens that are ordered after `last`.
fn find(invocation: u32, last: vec2<u32>) {
    var first = vec2<u32>(0u);
    var second = vec2<u32>(0u);
    for (var token = invocation; token < sizes.width; token += INVOCATIONS) {
        var score = 0.0;
        if sizes.changes == 0u {
            score = log_probability(token);
        } else {
            score = logits[row + token];
        }
        let found = vec2<u32>(key(max(score + sum, LEAST)), token);
        if found.x > second.x && comes_before(last, found) {
            if found.x > first.x {
                second = first;
                first = found;
            } else {
                second = found;
            }
        }
    }
    firsts[invocation] = first;
    seconds[invocation] = second;
}

fn lead(group: u32) {
    var leader = group * GROUP;
    for (var i = 1u; i < GROUP; i++) {
        let other = group * GROUP + i;
        if comes_before(firsts[other], firsts[leader]) {
            leader = other;
        }
    }
    leaders[group] = leader;
}

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(
    @builtin(local_invocation_index) local: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let beam = workgroup.x + workgroup.y * workgroups.x;
    // Uniform across the workgroup.
    if beam >= sizes.beams {
        return;
    }
    row = beam * sizes.width;

    // 1. range of the logits
    var lowest = 0xffffffffu;
    var highest = 0u;
    for (var token = local; token < sizes.width; token += INVOCATIONS) {
        let k = key(logits[row + token]);
        lowest = min(lowest, k);
        highest = max(highest, k);
    }
    firsts[local] = vec2<u32>(lowest, highest);
    workgroupBarrier();
    for (var i = 0u; i < INVOCATIONS; i++) {
        lowest = min(lowest, firsts[i].x);
        highest = max(highest, firsts[i].y);
    }
    // No distribution: NaN scores, which sort before all others.
    let strange = lowest < LOW || highest <= LOW || highest >= HIGH;
    greatest = bitcast<f32>(bits_of(select(highest, KEY_OF_LEAST, strange)));

    // 2. logarithm of the sum of exponentials
    var part = 0.0;
    for (var token = local; token < sizes.width; token += INVOCATIONS) {
        part += exp(bounded(logits[row + token]) - greatest);
    }
    seconds[local].x = bitcast<u32>(part);
    workgroupBarrier();
    var whole = 0.0;
    for (var i = 0u; i < INVOCATIONS; i++) {
        whole += bitcast<f32>(seconds[i].x);
    }
    log_sum = log(whole);

    // 3. logit processors
    if sizes.changes != 0u {
        for (var token = local; token < sizes.width; token += INVOCATIONS) {
            logits[row + token] = log_probability(token);
        }
        storageBarrier();
        let penalty = bitcast<f32>(asked[0]);
        let ngram = u32(max(asked[1], 0));
        let made = u32(max(asked[2], 0));
        let history = HEADER + sizes.beams + beam * made;
        for (var i = local; i < made; i += INVOCATIONS) {
            let seen = asked[history + i];
            var fresh = seen >= 0 && u32(seen) < sizes.width;
            for (var j = 0u; j < i; j++) {
                fresh = fresh && asked[history + j] != seen;
            }
            if fresh {
                let score = logits[row + u32(seen)];
                let changed = score * select(1.0 / penalty, penalty, score < 0.0);
                logits[row + u32(seen)] = select(changed, LEAST, score <= LEAST);
            }
        }
        storageBarrier();
        if ngram > 0u && made >= ngram {
            for (var i = local; i + ngram <= made; i += INVOCATIONS) {
                var same = true;
                for (var j = 0u; j + 1u < ngram; j++) {
                    same = same && asked[history + i + j] == asked[history + made + 1u - ngram + j];
                }
                let last = asked[history + i + ngram - 1u];
                if same && last >= 0 && u32(last) < sizes.width {
                    logits[row + u32(last)] = LEAST;
                }
            }
        }
        if local < 2u {
            let banned = asked[3u + local];
            if banned >= 0 && u32(banned) < sizes.width {
                logits[row + u32(banned)] = LEAST;
            }
        }
        storageBarrier();
    }
    workgroupBarrier();

    // 4. the best in order
    sum = bounded(bitcast<f32>(asked[HEADER + beam]));
    find(local, vec2<u32>(0xffffffffu, 0u));
    workgroupBarrier();
    if local < GROUPS {
        lead(local);
    }
    workgroupBarrier();
    if local == 0u {
        for (var i = 0u; i < sizes.kept; i++) {
            var winner = leaders[0];
            for (var group = 1u; group < GROUPS; group++) {
                let other = leaders[group];
                if comes_before(firsts[other], firsts[winner]) {
                    winner = other;
                }
            }
            let won = firsts[winner];
            let bits = select(bits_of(won.x), MINUS_INFINITY, won.x == KEY_OF_LEAST);
            let at = 2u * (beam * sizes.kept + i);
            best[at] = row + won.y;
            best[at + 1u] = select(bits, 0x7fc00000u, strange);
            if seconds[winner].x > 0u {
                firsts[winner] = seconds[winner];
                seconds[winner].x = 0u;
            } else {
                find(winner, won);
            }
            lead(winner / GROUP);
        }
    }
}
