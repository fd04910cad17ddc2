//! The levels of 8-bit moments.

use std::sync::LazyLock;

/// The dynamic data type, Dettmers 2015: 256 levels in `[-1, 1]` or `[0, 1]` in seven decades, each
/// with twice as many as the one below.
///
/// Bit for bit the levels of `bitsandbytes.functional.create_dynamic_map`.
pub struct DynamicMap {
    levels: [f32; 256],
    middles: [f32; 256],
}

static SIGNED: LazyLock<DynamicMap> = LazyLock::new(|| DynamicMap::new(true));
static UNSIGNED: LazyLock<DynamicMap> = LazyLock::new(|| DynamicMap::new(false));

impl DynamicMap {
    /// From -0.993 to 1: for first moments.
    pub fn signed() -> &'static Self {
        &SIGNED
    }

    /// From 0 to 1, one bit finer: for second moments.
    pub fn unsigned() -> &'static Self {
        &UNSIGNED
    }

    /// What the codes stand for, ascending.
    pub fn levels(&self) -> &[f32; 256] {
        &self.levels
    }

    /// For each number the code whose level is nearest, the lower of two; 0 for NaN.
    #[inline(always)]
    pub fn nearest<const N: usize>(&self, numbers: &[f32; N]) -> [u8; N] {
        // The code is the number of middles below, found bit by bit, all numbers at once: vector code.
        let mut codes = [0_u32; N];
        for half in [128, 64, 32, 16, 8, 4, 2, 1] {
            for (code, &number) in codes.iter_mut().zip(numbers) {
                // No index passes 254; the mask says so.
                let middle = self.middles[(*code + half - 1) as usize & 255];
                *code += if middle < number { half } else { 0 };
            }
        }
        codes.map(|code| code as u8)
    }

    /// In decade d from 1e-6 up to 1, the middles of `2^d` (unsigned: `2^(d+1)`) even parts of 0.1 to 1,
    /// with both signs; and 0 and 1.
    fn new(signed: bool) -> Self {
        let mut all = vec![0.0, 1.0];
        for (decade, size) in [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0].into_iter().enumerate() {
            let parts = 1 << (decade + usize::from(!signed));
            for part in 0..parts {
                let level = size * ((boundary(part, parts) + boundary(part + 1, parts)) / 2.0);
                all.push(level);
                if signed {
                    all.push(-level);
                }
            }
        }
        all.sort_by(f32::total_cmp);
        let levels: [f32; 256] = all.try_into().expect("256 levels");
        let middle = |code: usize| {
            let next = levels.get(code + 1);
            next.map_or(f32::INFINITY, |next| (levels[code] + next) / 2.0)
        };
        DynamicMap { levels, middles: std::array::from_fn(middle) }
    }
}

/// `torch.linspace(0.1, 1, parts + 1)[index]`: from the nearer end, rounded once.
fn boundary(index: usize, parts: usize) -> f32 {
    let step = (1.0 - 0.1) / parts as f32;
    if index < parts.div_ceil(2) {
        step.mul_add(index as f32, 0.1)
    } else {
        (-step).mul_add((parts - index) as f32, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The obvious search, code by code.
    fn search(map: &DynamicMap, x: f32) -> u8 {
        let distance = |code: &u8| (map.levels[usize::from(*code)] - x).abs();
        (0..=255).min_by(|a, b| distance(a).total_cmp(&distance(b))).expect("256 codes")
    }

    #[test]
    fn the_nearest_level_is_found() {
        for map in [DynamicMap::signed(), DynamicMap::unsigned()] {
            let codes: Vec<u8> = (0..=255).collect();
            assert_eq!(map.nearest(map.levels())[..], codes);
            for i in -1100..1100 {
                let x = i as f32 * 1.001e-3;
                assert_eq!(map.nearest(&[x]), [search(map, x)], "{x}");
            }
            assert_eq!(map.nearest(&[f32::NAN, -f32::NAN]), [0, 0]);
        }
    }
}
