// beam_merge: the best of all beams in order, from the best of each: greater scores first, the lower index first among equals.
// Needs order.
// grid       one invocation per candidate; workgroups folded over (x, y) beyond 65535
// bindings   lists, best, sizes {beams, width, kept, best, changes}
// params     none
// shared     none
// reference  crates/emu-kernels/src/cpu/sampling/beam_merge.rs     test  crates/emu-kernels/tests/beams.rs
//
// An invocation computes the rank of its candidate, the number of candidates before it.

@group(0) @binding({{lists}}) var<storage, read_write> lists: array<vec2<u32>>;  // [B, KEPT]: flat index, bits of the score; in order
@group(0) @binding({{best}}) var<storage, read_write> best: array<vec2<u32>>;   // [BEST], likewise

struct Sizes {
    beams: u32,  // B
    width: u32,
    kept: u32,
    best: u32,
    changes: u32,
}
@group(0) @binding({{uniform}}) var<uniform> sizes: Sizes;

const INVOCATIONS = {{invocations}}u;

fn comes_before(a: vec2<u32>, b: vec2<u32>) -> bool {
    let left = key_of_bits(a.y);
    let right = key_of_bits(b.y);
    return left > right || (left == right && a.x < b.x);
}

@compute @workgroup_size({{invocations}}, 1, 1)
fn main(
    @builtin(local_invocation_index) local: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let index = (workgroup.x + workgroup.y * workgroups.x) * INVOCATIONS + local;
    if index >= sizes.beams * sizes.kept {
        return;
    }
    let own = lists[index];
    let beam = index / sizes.kept;
    var rank = index % sizes.kept;
    for (var other = 0u; other < sizes.beams && rank < sizes.best; other++) {
        if other != beam {
            // Binary search: candidates before `low` precede this one, those from `high` on do not.
            var low = 0u;
            var high = sizes.kept;
            while low < high {
                let middle = (low + high) / 2u;
                if comes_before(lists[other * sizes.kept + middle], own) {
                    low = middle + 1u;
                } else {
                    high = middle;
                }
            }
            rank += low;
        }
    }
    if rank < sizes.best {
        best[rank] = own;
    }
}
