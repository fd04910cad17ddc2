//! AdamW with moments in blocks of bytes.

use super::adamw::{AdamStep, update_body};
use super::{CHUNK, State};
use crate::cpu::operand::Shared;
use crate::cpu::{Isa, Pool, versions};
use crate::optimizer::{DynamicMap, MOMENT_BLOCK};

/// Blocks of a task.
const BLOCKS: usize = CHUNK / MOMENT_BLOCK;

pub(super) fn step(pool: &Pool, isa: Isa, step: AdamStep, state: State<'_>) {
    let State { master, gradient, floats, codes, .. } = state;
    let len = master.len();
    let blocks = len.div_ceil(MOMENT_BLOCK);
    let equal = [gradient.len(), codes[0].len(), codes[1].len()] == [len; 3];
    let one_each = [floats[0].len(), floats[1].len()] == [blocks; 2];
    assert!(equal && one_each, "all of a parameter has one length, and a magnitude each block");
    let [p, g] = [master, gradient].map(Shared::new);
    let (codes, absmax) = (codes.map(Shared::new), floats.map(Shared::new));
    pool.run(len.div_ceil(CHUNK), &|chunk, _| {
        let range = chunk * CHUNK..len.min((chunk + 1) * CHUNK);
        let own = chunk * BLOCKS..blocks.min((chunk + 1) * BLOCKS);
        // SAFETY: chunks are disjoint, and so are their blocks.
        let [p, g] = [&p, &g].map(|slice| unsafe { slice.part(range.clone()) });
        // SAFETY: as above.
        let codes = codes.each_ref().map(|codes| unsafe { codes.part(range.clone()) });
        // SAFETY: as above.
        let absmax = absmax.each_ref().map(|absmax| unsafe { absmax.part(own.clone()) });
        update(isa, step, p, g, codes, absmax);
    });
}

versions! {
    fn update(step: AdamStep, p: &mut [f32], g: &mut [f32], codes: [&mut [u8]; 2], absmax: [&mut [f32]; 2]) =
        blocks_body;
}

#[inline(always)]
fn blocks_body(
    step: AdamStep,
    p: &mut [f32],
    g: &mut [f32],
    codes: [&mut [u8]; 2],
    absmax: [&mut [f32]; 2],
) {
    let maps = [DynamicMap::signed(), DynamicMap::unsigned()];
    let parts = p.chunks_mut(MOMENT_BLOCK).zip(g.chunks_mut(MOMENT_BLOCK));
    let [first, second] = codes.map(|codes| codes.chunks_mut(MOMENT_BLOCK));
    let [first_absmax, second_absmax] = absmax;
    let moments = first.zip(first_absmax).zip(second.zip(second_absmax));
    for ((p, g), (first, second)) in parts.zip(moments) {
        let (mut m, mut v) = ([0.0; MOMENT_BLOCK], [0.0; MOMENT_BLOCK]);
        let (m, v) = (&mut m[..p.len()], &mut v[..p.len()]);
        decode(maps[0], first.0, *first.1, m);
        decode(maps[1], second.0, *second.1, v);
        update_body(step, p, g, m, v);
        *first.1 = encode(maps[0], m, first.0);
        *second.1 = encode(maps[1], v, second.0);
    }
}

#[inline(always)]
fn decode(map: &DynamicMap, codes: &[u8], absmax: f32, out: &mut [f32]) {
    for (out, &code) in out.iter_mut().zip(codes) {
        *out = map.levels()[usize::from(code)] * absmax;
    }
}

/// Writes the codes and gives the largest magnitude. A block of zeros has codes 0.
#[inline(always)]
fn encode(map: &DynamicMap, values: &[f32], codes: &mut [u8]) -> f32 {
    let absmax = values.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let mut scaled = [0.0; MOMENT_BLOCK];
    // Of 0 / 0, which is NaN, the code is 0.
    scaled.iter_mut().zip(values).for_each(|(scaled, x)| *scaled = x / absmax);
    codes.copy_from_slice(&map.nearest(&scaled)[..codes.len()]);
    absmax
}
