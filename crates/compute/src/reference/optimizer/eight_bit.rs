//! Moments in blocks of bytes.

use super::super::memory::Memory;
use crate::optimizer::{DynamicMap, MOMENT_BLOCK};
use crate::{Buffer, Parameter};

/// Codes and largest magnitudes of a parameter's two moments.
fn moments(parameter: Parameter) -> [(Buffer, Buffer, &'static DynamicMap); 2] {
    let kept = parameter.state.map(|buffer| buffer.expect("8-bit moments and their magnitudes"));
    [(kept[0], kept[1], DynamicMap::signed()), (kept[2], kept[3], DynamicMap::unsigned())]
}

/// What the codes stand for.
pub(super) fn decode(memory: &Memory, parameter: Parameter) -> Vec<Vec<f64>> {
    let moments = moments(parameter).into_iter().map(|(codes, absmax, map)| {
        let absmax = memory.present(absmax, absmax.len);
        let codes = memory.present_integers(codes, codes.len);
        let level = |code: &u32| f64::from(map.levels()[*code as usize]);
        codes.iter().enumerate().map(|(i, code)| level(code) * absmax[i / MOMENT_BLOCK]).collect()
    });
    moments.collect()
}

/// Rounds each number to the nearest level of its block.
pub(super) fn encode(memory: &mut Memory, parameter: Parameter, values: &[Vec<f64>]) {
    for ((codes, absmax, map), values) in moments(parameter).into_iter().zip(values) {
        let blocks = values.chunks(MOMENT_BLOCK);
        let most = |block: &[f64]| block.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        let magnitudes: Vec<f64> = blocks.clone().map(most).collect();
        let scaled = |(block, most): (&[f64], &f64)| {
            let nearest = |x: &f64| if *most == 0.0 { 0 } else { nearest(map, x / most) };
            block.iter().map(nearest).collect::<Vec<u32>>()
        };
        let all: Vec<u32> = blocks.zip(&magnitudes).flat_map(scaled).collect();
        memory.write_integers(codes, &all);
        memory.write(absmax, &magnitudes);
    }
}

/// The code of the nearest level, the lower of two.
fn nearest(map: &DynamicMap, x: f64) -> u32 {
    let levels = map.levels().map(f64::from);
    let below = |pair: &[f64]| (pair[0] + pair[1]) / 2.0 < x;
    levels.windows(2).take_while(|pair| below(pair)).count() as u32
}
