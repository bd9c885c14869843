// subgroup.wgsl: finds out which threads are a subgroup.
// Out: OUT [256]: the size of each thread's subgroup, if it consists of neighbours that begin at a
//      multiple of it; 0 otherwise.

@group(0) @binding(1) var<storage, read_write> OUT: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(subgroup_size) size: u32) {
    var are_neighbours = true;
    for (var i = 1u; i < 64u; i *= 2u) {
        let other = subgroupShuffleXor(thread, i);
        are_neighbours = are_neighbours && (i >= size || other == (thread ^ i));
    }
    OUT[thread] = select(0u, size, are_neighbours);
}
