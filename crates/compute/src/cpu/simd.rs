//! Vectors of 16 f32 for every instruction set, and the kernels' way to them.
//!
//! Code written once over [`Simd`] has one order of operations on every machine; only the
//! fused multiply-add differs, which [`Isa::Portable`] rounds twice.

use std::f32::consts::LOG2_E;

use super::isa::Isa;
use super::math;
use super::operand::LANES;

/// A witness that an instruction set is there, and its operations on 16 lanes.
///
/// No closures over vectors (`map`, `from_fn`) but in [`Lanes`]: they need not be inlined.
/// Everything is inlined into a function that enables the instruction set ([`dispatch`]);
/// called from anywhere else it would be slow, not wrong.
pub(crate) trait Simd: Copy {
    /// 16 f32.
    type V: Copy;
    /// Rows and vectors of the largest block that the registers hold as sums of products.
    const BLOCK: (usize, usize);

    fn splat(self, x: f32) -> Self::V;
    fn load(self, x: &[f32; LANES]) -> Self::V;
    fn store(self, v: Self::V, out: &mut [f32; LANES]);
    fn load_bf16(self, x: &[u16; LANES]) -> Self::V;
    fn store_bf16(self, v: Self::V, out: &mut [u16; LANES]);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `yes` where `a < b`, else (also for NaN) `no`.
    fn if_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// `2^n` for `1.5 * 2^23 + n`, n whole in -126..=127.
    fn exp2_of_shifted(self, shifted: Self::V) -> Self::V;
    /// Swaps rows and columns.
    fn transpose(self, rows: &mut [Self::V; LANES]);

    /// Asks for memory that will be read soon.
    #[inline(always)]
    fn prefetch<T>(self, x: &[T]) {
        let _ = x;
    }

    /// All zeros.
    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }

    /// The lanes.
    #[inline(always)]
    fn lanes(self, v: Self::V) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        self.store(v, &mut out);
        out
    }

    /// `e^x` to about 2 units in the last place, with 0 below -87.3 and `e^88` above 88. NaN stays.
    #[inline(always)]
    fn exp(self, x: Self::V) -> Self::V {
        const SHIFT: f32 = 12_582_912.0;
        let low = self.splat(-87.3);
        let clamped = self.min(self.splat(88.0), self.max(low, x));
        let shifted = self.fma(clamped, self.splat(LOG2_E), self.splat(SHIFT));
        let n = self.sub(shifted, self.splat(SHIFT));
        // ln 2 in two parts: the first has few bits, so its product with n is exact.
        let r = self.fma(n, self.splat(-0.693_359_4), clamped);
        let r = self.fma(n, self.splat(2.121_944_4e-4), r);
        // Taylor's series: on |r| <= ln(2) / 2 the term after r^7 / 7! is below 6e-9.
        let mut sum = self.splat(1.0 / 5040.0);
        for term in [720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
            sum = self.fma(sum, r, self.splat(1.0 / term));
        }
        let value = self.mul(sum, self.exp2_of_shifted(shifted));
        self.if_less(x, low, self.zero(), value)
    }

    /// `1 / (1 + e^-x)`. NaN stays.
    #[inline(always)]
    fn sigmoid(self, x: Self::V) -> Self::V {
        let one = self.splat(1.0);
        self.div(one, self.add(one, self.exp(self.sub(self.zero(), x))))
    }

    /// [`math::tanh`] of every lane.
    #[inline(always)]
    fn tanh(self, x: Self::V) -> Self::V {
        let mut lanes = self.lanes(x);
        for lane in &mut lanes {
            *lane = math::tanh(*lane);
        }
        self.load(&lanes)
    }

    /// The sum of the lanes, as a tree of halves.
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        fold(self.lanes(v), |a, b| a + b)
    }

    /// The largest lane; a NaN may be lost.
    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        fold(self.lanes(v), |a, b| if a > b { a } else { b })
    }
}

/// Products of pairs of bf16: a lane holds two, the first in its lower half.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only x86-64 multiplies pairs"))]
pub(crate) trait Dot: Simd {
    /// 32 bf16, in order.
    fn load_pairs(self, x: &[u16; 2 * LANES]) -> Self::V;
    /// 32 numbers rounded to bf16, in order.
    fn round_pairs(self, low: Self::V, high: Self::V) -> Self::V;
    /// The numbers of `a`, each with that of `b` in one lane.
    fn interleave(self, a: Self::V, b: Self::V) -> [Self::V; 2];
    /// `c`, and what the second and then the first numbers of `a` and `b` multiply to. Too small for a
    /// normal number counts as 0.
    fn dot(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
}

#[inline(always)]
fn fold(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = combine(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// What is compiled once for each instruction set. `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    /// Does the work.
    fn run<S: Simd>(self, simd: S);
}

/// Runs a kernel with an instruction set that the machine was found to have.
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => {
            // SAFETY: an `Isa` is only given out where the processor has it.
            unsafe { x86::avx512(kernel) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            // SAFETY: an `Isa` is only given out where the processor has it.
            unsafe { x86::avx2(kernel) }
        }
        // NEON is part of every aarch64 target: plain code is vectorised with it.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => kernel.run(Lanes::<true>),
        _ => kernel.run(Lanes::<false>),
    }
}

/// What is compiled for instruction sets that multiply pairs. `run_pairs` must be `#[inline(always)]`.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only x86-64 multiplies pairs"))]
pub(crate) trait DotKernel {
    /// Does the work.
    fn run_pairs<S: Dot>(self, simd: S);
}

/// Runs a kernel with the products of [`Isa::Avx512Bf16`], which the machine was found to have; in tests of this crate, on
/// plain arrays where it has not.
pub(crate) fn dispatch_pairs<K: DotKernel>(kernel: K) {
    #[cfg(test)]
    if !Isa::Avx512Bf16.is_available() {
        return kernel.run_pairs(Lanes::<false>);
    }
    // SAFETY: an `Isa` is only given out where the processor has it.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        x86::avx512_bf16(kernel);
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = kernel;
        unreachable!("only x86-64 has products of pairs");
    }
}

/// Plain arrays; `FUSED` where the target's baseline has a fused multiply-add.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<const FUSED: bool>;

impl<const FUSED: bool> Simd for Lanes<FUSED> {
    type V = [f32; LANES];
    const BLOCK: (usize, usize) = if FUSED { (6, 1) } else { (2, 1) };

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::V {
        *x
    }

    #[inline(always)]
    fn store(self, v: Self::V, out: &mut [f32; LANES]) {
        *out = v;
    }

    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> Self::V {
        std::array::from_fn(|i| super::operand::Operand::load(x[i]))
    }

    #[inline(always)]
    fn store_bf16(self, v: Self::V, out: &mut [u16; LANES]) {
        for lane in 0..LANES {
            out[lane] = super::operand::Operand::store(v[lane]);
        }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| if FUSED { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] })
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn if_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }

    #[inline(always)]
    fn exp2_of_shifted(self, shifted: Self::V) -> Self::V {
        std::array::from_fn(|i| {
            f32::from_bits((shifted[i].to_bits() << 23).wrapping_add(0x3F80_0000))
        })
    }

    #[inline(always)]
    fn transpose(self, rows: &mut [Self::V; LANES]) {
        let from = *rows;
        for (column, row) in rows.iter_mut().enumerate() {
            *row = std::array::from_fn(|i| from[i][column]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Dot, DotKernel, Kernel, LANES, Simd};

    /// # Safety
    /// The processor has these instructions.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
    pub(super) unsafe fn avx512<K: Kernel>(kernel: K) {
        kernel.run(Avx512::<false>(()));
    }

    /// # Safety
    /// The processor has these instructions.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
    pub(super) unsafe fn avx512_bf16<K: DotKernel>(kernel: K) {
        kernel.run_pairs(Avx512::<true>(()));
    }

    /// # Safety
    /// The processor has these instructions.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2<K: Kernel>(kernel: K) {
        kernel.run(Avx2(()));
    }

    /// Made only by [`avx512`], and with `PAIRS` only by [`avx512_bf16`].
    #[derive(Clone, Copy)]
    pub(super) struct Avx512<const PAIRS: bool>(());

    /// Made only by [`avx2`].
    #[derive(Clone, Copy)]
    pub(super) struct Avx2(());

    macro_rules! operations {
        ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {$(
            #[inline(always)]
            fn $name(self, $($arg: $ty),*) -> $out {
                // SAFETY: the witness is made only where the processor has the instructions,
                // and references to 16 elements are valid for 16 elements.
                unsafe { $body }
            }
        )*};
    }

    impl<const PAIRS: bool> Simd for Avx512<PAIRS> {
        type V = __m512;
        const BLOCK: (usize, usize) = (12, 2);

        operations! {
            splat(x: f32) -> __m512 = _mm512_set1_ps(x);
            load(x: &[f32; LANES]) -> __m512 = _mm512_loadu_ps(x.as_ptr());
            store(v: __m512, out: &mut [f32; LANES]) -> () =
                _mm512_storeu_ps(out.as_mut_ptr(), v);
            load_bf16(x: &[u16; LANES]) -> __m512 = {
                let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
            };
            store_bf16(v: __m512, out: &mut [u16; LANES]) -> () = {
                let bits = _mm512_castps_si512(v);
                let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
                let bias = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF));
                let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
                let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40_0000));
                let rounded = _mm512_mask_mov_epi32(_mm512_add_epi32(bits, bias), nan, quiet);
                let half = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded));
                _mm256_storeu_si256(out.as_mut_ptr().cast(), half);
            };
            add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
            sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
            mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
            div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
            fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
            max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
            min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
            if_less(a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 =
                _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), yes);
            exp2_of_shifted(shifted: __m512) -> __m512 = {
                let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
                _mm512_castsi512_ps(_mm512_add_epi32(n, _mm512_set1_epi32(0x3F80_0000)))
            };
            transpose(rows: &mut [__m512; LANES]) -> () = transpose16(rows);
        }

        #[inline(always)]
        fn prefetch<T>(self, x: &[T]) {
            prefetch(x);
        }
    }

    impl Dot for Avx512<true> {
        operations! {
            load_pairs(x: &[u16; 2 * LANES]) -> __m512 =
                _mm512_castsi512_ps(_mm512_loadu_si512(x.as_ptr().cast()));
            round_pairs(low: __m512, high: __m512) -> __m512 =
                std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low));
            interleave(a: __m512, b: __m512) -> [__m512; 2] = interleave(a, b);
            dot(a: __m512, b: __m512, c: __m512) -> __m512 = {
                let a = std::mem::transmute::<__m512, __m512bh>(a);
                let b = std::mem::transmute::<__m512, __m512bh>(b);
                _mm512_dpbf16_ps(c, a, b)
            };
        }
    }

    /// Interleaves within quarters, then puts the quarters in order.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn interleave(a: __m512, b: __m512) -> [__m512; 2] {
        let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
        let (even, odd) = (_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b));
        let low = _mm512_permutex2var_epi64(even, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), odd);
        let high =
            _mm512_permutex2var_epi64(even, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), odd);
        [_mm512_castsi512_ps(low), _mm512_castsi512_ps(high)]
    }

    /// Transposes 4 x 4 within quarters, then the quarters.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn transpose16(rows: &mut [__m512; LANES]) {
        let mut quads = *rows;
        for quad in 0..4 {
            let at = 4 * quad;
            let (a, b, c, d) = (rows[at], rows[at + 1], rows[at + 2], rows[at + 3]);
            let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            quads[4 * quad] = _mm512_shuffle_ps::<0x44>(ab_low, cd_low);
            quads[4 * quad + 1] = _mm512_shuffle_ps::<0xEE>(ab_low, cd_low);
            quads[4 * quad + 2] = _mm512_shuffle_ps::<0x44>(ab_high, cd_high);
            quads[4 * quad + 3] = _mm512_shuffle_ps::<0xEE>(ab_high, cd_high);
        }
        // Quarter j of quads[4 * i + c] holds column 4 * j + c of rows 4 * i..4 * i + 4.
        for c in 0..4 {
            let (a, b, x, y) = (quads[c], quads[4 + c], quads[8 + c], quads[12 + c]);
            let (ab_low, ab_high) =
                (_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xEE>(a, b));
            let (xy_low, xy_high) =
                (_mm512_shuffle_f32x4::<0x44>(x, y), _mm512_shuffle_f32x4::<0xEE>(x, y));
            rows[c] = _mm512_shuffle_f32x4::<0x88>(ab_low, xy_low);
            rows[4 + c] = _mm512_shuffle_f32x4::<0xDD>(ab_low, xy_low);
            rows[8 + c] = _mm512_shuffle_f32x4::<0x88>(ab_high, xy_high);
            rows[12 + c] = _mm512_shuffle_f32x4::<0xDD>(ab_high, xy_high);
        }
    }

    type Pair = [__m256; 2];

    impl Simd for Avx2 {
        type V = Pair;
        const BLOCK: (usize, usize) = (6, 1);

        operations! {
            splat(x: f32) -> Pair = [_mm256_set1_ps(x); 2];
            load(x: &[f32; LANES]) -> Pair =
                [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))];
            store(v: Pair, out: &mut [f32; LANES]) -> () = {
                _mm256_storeu_ps(out.as_mut_ptr(), v[0]);
                _mm256_storeu_ps(out.as_mut_ptr().add(8), v[1]);
            };
            load_bf16(x: &[u16; LANES]) -> Pair = [bf16_load(x.as_ptr()), bf16_load(x.as_ptr().add(8))];
            store_bf16(v: Pair, out: &mut [u16; LANES]) -> () = {
                let [low, high] = [bf16_bits(v[0]), bf16_bits(v[1])];
                // Packing works within 128-bit halves; the permutation puts quarters in order.
                let packed = _mm256_permute4x64_epi64::<0xD8>(_mm256_packus_epi32(low, high));
                _mm256_storeu_si256(out.as_mut_ptr().cast(), packed);
            };
            add(a: Pair, b: Pair) -> Pair = [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])];
            sub(a: Pair, b: Pair) -> Pair = [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])];
            mul(a: Pair, b: Pair) -> Pair = [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])];
            div(a: Pair, b: Pair) -> Pair = [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])];
            fma(a: Pair, b: Pair, c: Pair) -> Pair =
                [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])];
            max(a: Pair, b: Pair) -> Pair = [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])];
            min(a: Pair, b: Pair) -> Pair = [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])];
            if_less(a: Pair, b: Pair, yes: Pair, no: Pair) -> Pair = [
                _mm256_blendv_ps(no[0], yes[0], _mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0])),
                _mm256_blendv_ps(no[1], yes[1], _mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1])),
            ];
            exp2_of_shifted(shifted: Pair) -> Pair =
                [exp2_of_shifted(shifted[0]), exp2_of_shifted(shifted[1])];
            transpose(rows: &mut [Pair; LANES]) -> () = transpose_pairs(rows);
        }

        #[inline(always)]
        fn prefetch<T>(self, x: &[T]) {
            prefetch(x);
        }
    }

    #[inline(always)]
    fn prefetch<T>(x: &[T]) {
        for line in (0..size_of_val(x)).step_by(64) {
            // SAFETY: SSE is part of every x86-64, and prefetching reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().cast::<i8>().add(line)) }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn exp2_of_shifted(shifted: __m256) -> __m256 {
        let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
        _mm256_castsi256_ps(_mm256_add_epi32(n, _mm256_set1_epi32(0x3F80_0000)))
    }

    /// # Safety
    /// `x` is valid for 8 numbers.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn bf16_load(x: *const u16) -> __m256 {
        // SAFETY: the caller's promise.
        let bits = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(x.cast()) });
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
    }

    /// The bits of 8 bf16 in the low halves of 8 lanes.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn bf16_bits(v: __m256) -> __m256i {
        let bits = _mm256_castps_si256(v);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
        let rounded = _mm256_blendv_epi8(_mm256_add_epi32(bits, bias), quiet, nan);
        _mm256_srli_epi32::<16>(rounded)
    }

    /// Transposes 8 x 8 in each quarter, and swaps two of the quarters.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn transpose_pairs(rows: &mut [Pair; LANES]) {
        for half in [0, 1] {
            for first in [0, 8] {
                let mut quarter = [_mm256_setzero_ps(); 8];
                for (i, row) in quarter.iter_mut().enumerate() {
                    *row = rows[first + i][half];
                }
                for (i, row) in transpose8(quarter).into_iter().enumerate() {
                    rows[first + i][half] = row;
                }
            }
        }
        for i in 0..8 {
            (rows[i][1], rows[8 + i][0]) = (rows[8 + i][0], rows[i][1]);
        }
    }

    /// Transposes 4 x 4 within halves, then the halves.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn transpose8(rows: [__m256; 8]) -> [__m256; 8] {
        let mut quads = rows;
        for quad in [0, 4] {
            let (a, b, c, d) = (rows[quad], rows[quad + 1], rows[quad + 2], rows[quad + 3]);
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            quads[quad] = _mm256_shuffle_ps::<0x44>(ab_low, cd_low);
            quads[quad + 1] = _mm256_shuffle_ps::<0xEE>(ab_low, cd_low);
            quads[quad + 2] = _mm256_shuffle_ps::<0x44>(ab_high, cd_high);
            quads[quad + 3] = _mm256_shuffle_ps::<0xEE>(ab_high, cd_high);
        }
        let mut out = quads;
        for c in 0..4 {
            out[c] = _mm256_permute2f128_ps::<0x20>(quads[c], quads[4 + c]);
            out[4 + c] = _mm256_permute2f128_ps::<0x31>(quads[c], quads[4 + c]);
        }
        out
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{bf16_bits, transpose8};

/// Pairs in plain arrays: what kernels do with them can be tested on any machine.
#[cfg(test)]
impl Dot for Lanes<false> {
    fn load_pairs(self, x: &[u16; 2 * LANES]) -> Self::V {
        let word = |i: usize| u32::from(x[2 * i]) | u32::from(x[2 * i + 1]) << 16;
        std::array::from_fn(|i| f32::from_bits(word(i)))
    }

    fn round_pairs(self, low: Self::V, high: Self::V) -> Self::V {
        let numbers = [low, high].concat();
        let halves = std::array::from_fn(|i| super::operand::Operand::store(numbers[i]));
        self.load_pairs(&halves)
    }

    fn interleave(self, a: Self::V, b: Self::V) -> [Self::V; 2] {
        let half = |v: &Self::V, i: usize| (v[i / 2].to_bits() >> (16 * (i % 2))) & 0xFFFF;
        let word = |i: usize| f32::from_bits(half(&a, i) | half(&b, i) << 16);
        [0, LANES].map(|first| std::array::from_fn(|i| word(first + i)))
    }

    fn dot(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        let second = |x: f32| f32::from_bits(x.to_bits() & 0xFFFF_0000);
        let first = |x: f32| f32::from_bits(x.to_bits() << 16);
        let sum = |i: usize| second(a[i]).mul_add(second(b[i]), c[i]);
        std::array::from_fn(|i| first(a[i]).mul_add(first(b[i]), sum(i)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::operand::Operand;

    /// Runs a closure's worth of checks with every instruction set.
    struct Check;

    impl Kernel for Check {
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            exp_is_close(simd);
            transpose_swaps(simd);
            bf16_goes_both_ways(simd);
        }
    }

    fn exp_is_close<S: Simd>(simd: S) {
        for start in -8700..8800 {
            let x: [f32; LANES] = std::array::from_fn(|i| start as f32 / 100.0 + i as f32 / 1600.0);
            for (x, got) in x.into_iter().zip(simd.lanes(simd.exp(simd.load(&x)))) {
                let expected = f64::from(x).exp();
                assert!((f64::from(got) - expected).abs() < 2.5e-7 * expected, "exp({x}) = {got}");
            }
        }
        let exp = |x| simd.lanes(simd.exp(simd.splat(x)))[0];
        assert_eq!([exp(0.0), exp(f32::NEG_INFINITY)], [1.0, 0.0]);
        assert!(exp(f32::NAN).is_nan());
        assert!(simd.lanes(simd.tanh(simd.splat(f32::NAN)))[0].is_nan());
    }

    fn transpose_swaps<S: Simd>(simd: S) {
        let at = |row, column| (row * LANES + column) as f32;
        let mut rows = std::array::from_fn(|r| simd.load(&std::array::from_fn(|c| at(r, c))));
        simd.transpose(&mut rows);
        for (r, row) in rows.into_iter().enumerate() {
            assert_eq!(simd.lanes(row), std::array::from_fn(|c| at(c, r)));
        }
    }

    fn bf16_goes_both_ways<S: Simd>(simd: S) {
        for start in (0..u32::MAX - 16 * 65_537).step_by(1_000_003) {
            let x: [f32; LANES] =
                std::array::from_fn(|i| f32::from_bits(start + i as u32 * 65_537));
            let mut bits = [0; LANES];
            simd.store_bf16(simd.load(&x), &mut bits);
            assert_eq!(bits, x.map(<u16 as Operand>::store));
            let back = simd.lanes(simd.load_bf16(&bits)).map(f32::to_bits);
            assert_eq!(back, bits.map(|bits| u32::from(bits) << 16));
        }
    }

    impl DotKernel for Check {
        #[inline(always)]
        fn run_pairs<S: Dot>(self, simd: S) {
            pairs_are_joined_and_multiplied(simd);
        }
    }

    fn pairs_are_joined_and_multiplied<S: Dot>(simd: S) {
        let halves =
            |first: usize| std::array::from_fn(|i| <u16 as Operand>::store((first + i) as f32));
        let (a, b) = (simd.load_pairs(&halves(0)), simd.load_pairs(&halves(100)));
        let numbers = |first: usize| simd.load(&std::array::from_fn(|i| (first + i) as f32));
        let rounded = simd.round_pairs(numbers(0), numbers(LANES));
        assert_eq!(simd.lanes(rounded).map(f32::to_bits), simd.lanes(a).map(f32::to_bits));
        let products = simd.lanes(simd.dot(a, b, simd.splat(1.0)));
        let product = |i: usize| i * (100 + i);
        assert_eq!(
            products,
            std::array::from_fn(|i| (1 + product(2 * i) + product(2 * i + 1)) as f32)
        );
        // Squares of what was joined: those of `a` and of `b`.
        for (half, joined) in simd.interleave(a, b).into_iter().enumerate() {
            let squares = simd.lanes(simd.dot(joined, joined, simd.zero()));
            let square = |i: usize| i * i + (100 + i) * (100 + i);
            assert_eq!(squares, std::array::from_fn(|i| square(half * LANES + i) as f32));
        }
    }

    #[test]
    fn every_instruction_set_computes_the_same() {
        for isa in Isa::available() {
            dispatch(isa, Check);
        }
        Check.run_pairs(Lanes::<false>);
        dispatch_pairs(Check);
    }
}
