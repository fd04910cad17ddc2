//! AMX: the processor multiplies 16 rows of 32 bf16 numbers by 32 rows of 16 in one instruction, with sums
//! in f32.
//!
//! The instructions are written out: the compiler has no stable names for them. It never uses tile
//! registers itself, so what one `asm!` leaves in them is there for the next.
//!
//! An instruction adds up the even and the odd numbers of its 16 pairs apart, each in order, then both,
//! then adds that to the tile (Intel's manual, `TDPBF16PS`). So bits depend on where sixteens begin.

use super::gemm::Work;
use super::panel::{Format, PANEL};

/// Rows of A whose products with a panel the tile registers hold: two tiles of 16.
pub(crate) const ROWS: usize = 32;

/// Rows of a tile.
const TILE_ROWS: usize = 16;

/// Bytes of a row of a tile.
const ROW_BYTES: usize = 64;

/// Bytes of a step of a panel.
const STEP_BYTES: usize = 4 * PANEL;

/// Whether the processor has the instructions and the system lets this process use them.
pub(crate) fn is_available() -> bool {
    use std::arch::x86_64::__cpuid_count;
    use std::sync::LazyLock;

    /// Of leaf 7 in EDX: AMX-BF16 and AMX-TILE.
    const FEATURES: u32 = 1 << 22 | 1 << 24;
    static IS_AVAILABLE: LazyLock<bool> = LazyLock::new(|| {
        // Where a processor has AVX-512 it has leaf 7.
        is_x86_feature_detected!("avx512bf16")
            && __cpuid_count(7, 0).edx & FEATURES == FEATURES
            && registers::request()
    });
    *IS_AVAILABLE
}

/// The tile registers of this thread, configured for some number of rows; released when dropped, so that
/// the system need not keep them.
#[derive(Default)]
pub(crate) struct Tiles {
    /// 0 where they are not configured.
    rows: usize,
}

impl Tiles {
    /// Adds the products of up to [`ROWS`] rows with a panel to a tile. Without `wide` its right half is left alone.
    ///
    /// # Safety
    /// The processor has AMX; segments are packed for [`Format::Tiles`](super::panel::Format::Tiles), and segments
    /// and tile hold the rows.
    pub(crate) unsafe fn multiply(&mut self, work: Work<'_>) {
        // SAFETY: the caller's duty.
        unsafe {
            if self.rows != work.rows {
                registers::configure(work.rows);
                self.rows = work.rows;
            }
            match (work.rows > TILE_ROWS, work.wide) {
                (true, true) => tall_wide::multiply(work),
                (true, false) => tall::multiply(work),
                (false, true) => wide::multiply(work),
                (false, false) => one::multiply(work),
            }
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        if self.rows > 0 {
            // SAFETY: they were configured, so the processor has them.
            unsafe { registers::release() };
        }
    }
}

/// Defines a module that multiplies into some of the registers: 0 to 3 are tiles of the result (upper left,
/// upper right, lower left, lower right), 4 and 5 are upper and lower rows of A, 6 and 7 the halves of a panel.
macro_rules! shape {
    ($name:ident, zero: [$($zero:literal),*], load: [$($load:literal),*], store: [$($store:literal),*],
     chain: [$($chain:literal),*]) => {
        mod $name {
            use std::arch::asm;

            use super::*;

            /// # Safety
            /// As [`Tiles::multiply`]; the registers are configured for the rows.
            pub(super) unsafe fn multiply(work: Work<'_>) {
                let Work { rows, few, segments, tile, load, .. } = work;
                let lower = tile.wrapping_add(TILE_ROWS * PANEL);
                // SAFETY: the caller's duty.
                unsafe {
                    if load {
                        asm!($($load,)* upper = in(reg) tile, lower = in(reg) lower,
                            stride = in(reg) STEP_BYTES, options(nostack, preserves_flags, readonly));
                    } else {
                        asm!($($zero),*, options(nostack, preserves_flags, nomem));
                    }
                    for segment in segments {
                        let whole = segment.steps / Format::CHAIN;
                        for index in 0..whole {
                            let a = segment.a.wrapping_add(index * rows * Format::CHAIN);
                            let b = segment.b.wrapping_add(index * Format::CHAIN * STEP_BYTES);
                            if few {
                                fetch_ahead(b);
                            }
                            chain(a, b);
                        }
                        let rest = segment.steps % Format::CHAIN;
                        if rest > 0 {
                            // The panel may end here: the rows of A are padded with zeros, and so must be this.
                            let mut last = Padded([0; Format::CHAIN * STEP_BYTES]);
                            let from = segment.b.wrapping_add(whole * Format::CHAIN * STEP_BYTES);
                            from.copy_to_nonoverlapping(last.0.as_mut_ptr(), rest * STEP_BYTES);
                            let a = segment.a.wrapping_add(whole * rows * Format::CHAIN);
                            chain(a, last.0.as_ptr());
                        }
                    }
                    asm!($($store,)* upper = in(reg) tile, lower = in(reg) lower,
                        stride = in(reg) STEP_BYTES, options(nostack, preserves_flags));
                }
            }

            /// Sixteen steps.
            #[inline(always)]
            unsafe fn chain(a: *const f32, b: *const u8) {
                let lower = a.wrapping_add(TILE_ROWS * Format::CHAIN);
                let right = b.wrapping_add(STEP_BYTES / 2);
                // SAFETY: the caller's duty.
                unsafe {
                    asm!($($chain,)* upper = in(reg) a, lower = in(reg) lower, left = in(reg) b,
                        right = in(reg) right, a_row = in(reg) ROW_BYTES, b_row = in(reg) STEP_BYTES,
                        options(nostack, preserves_flags, readonly));
                }
            }
        }
    };
}

shape! { tall_wide,
    zero: ["tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3"],
    load: ["tileloadd tmm0, [{upper} + {stride}]", "tileloadd tmm1, [{upper} + {stride} + 64]",
        "tileloadd tmm2, [{lower} + {stride}]", "tileloadd tmm3, [{lower} + {stride} + 64]"],
    store: ["tilestored [{upper} + {stride}], tmm0", "tilestored [{upper} + {stride} + 64], tmm1",
        "tilestored [{lower} + {stride}], tmm2", "tilestored [{lower} + {stride} + 64], tmm3"],
    chain: ["tileloadd tmm6, [{left} + {b_row}]", "tileloadd tmm4, [{upper} + {a_row}]",
        "tdpbf16ps tmm0, tmm4, tmm6", "tileloadd tmm7, [{right} + {b_row}]", "tdpbf16ps tmm1, tmm4, tmm7",
        "tileloadd tmm5, [{lower} + {a_row}]", "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7"]
}

shape! { tall,
    zero: ["tilezero tmm0", "tilezero tmm2"],
    load: ["tileloadd tmm0, [{upper} + {stride}]", "tileloadd tmm2, [{lower} + {stride}]"],
    store: ["tilestored [{upper} + {stride}], tmm0", "tilestored [{lower} + {stride}], tmm2"],
    chain: ["/* {right} */ tileloadd tmm6, [{left} + {b_row}]", "tileloadd tmm4, [{upper} + {a_row}]",
        "tdpbf16ps tmm0, tmm4, tmm6", "tileloadd tmm5, [{lower} + {a_row}]", "tdpbf16ps tmm2, tmm5, tmm6"]
}

shape! { wide,
    zero: ["tilezero tmm0", "tilezero tmm1"],
    load: ["/* {lower} */ tileloadd tmm0, [{upper} + {stride}]", "tileloadd tmm1, [{upper} + {stride} + 64]"],
    store: ["/* {lower} */ tilestored [{upper} + {stride}], tmm0",
        "tilestored [{upper} + {stride} + 64], tmm1"],
    chain: ["/* {lower} */ tileloadd tmm6, [{left} + {b_row}]", "tileloadd tmm4, [{upper} + {a_row}]",
        "tdpbf16ps tmm0, tmm4, tmm6", "tileloadd tmm7, [{right} + {b_row}]", "tdpbf16ps tmm1, tmm4, tmm7"]
}

shape! { one,
    zero: ["tilezero tmm0"],
    load: ["/* {lower} */ tileloadd tmm0, [{upper} + {stride}]"],
    store: ["/* {lower} */ tilestored [{upper} + {stride}], tmm0"],
    chain: ["/* {lower} {right} */ tileloadd tmm6, [{left} + {b_row}]",
        "tileloadd tmm4, [{upper} + {a_row}]", "tdpbf16ps tmm0, tmm4, tmm6"]
}

/// Brings the steps after the next ones into the first-level cache.
#[inline(always)]
fn fetch_ahead(b: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    let start = b.wrapping_add(2 * Format::CHAIN * STEP_BYTES);
    for line in (0..Format::CHAIN * STEP_BYTES).step_by(64) {
        // SAFETY: fetching reads nothing; any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line).cast()) };
    }
}

/// The last steps of a panel.
#[repr(align(64))]
struct Padded([u8; Format::CHAIN * STEP_BYTES]);

mod registers {
    use std::arch::asm;

    use super::{ROW_BYTES, TILE_ROWS};

    /// Asks the system for tile registers, for all threads of this process (Linux, `arch_prctl`).
    pub(super) fn request() -> bool {
        const ARCH_PRCTL: usize = 158;
        const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
        const TILE_DATA: usize = 18;
        let mut status = ARCH_PRCTL;
        // SAFETY: the call changes nothing but the permission; registers are named as the system's
        // calling convention has them.
        unsafe {
            asm!("syscall", inlateout("rax") status, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") TILE_DATA,
                out("rcx") _, out("r11") _, options(nostack));
        }
        status == 0
    }

    /// What `ldtilecfg` reads.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    /// Registers for a block of so many rows: of the result, of A, and of a panel.
    ///
    /// # Safety
    /// The processor has AMX, and the system has been asked.
    pub(super) unsafe fn configure(rows: usize) {
        let upper = rows.min(TILE_ROWS) as u8;
        // A register with no rows is not allowed; what is never used may have any.
        let lower = rows.saturating_sub(TILE_ROWS).max(1) as u8;
        let mut made = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        let whole = TILE_ROWS as u8;
        made.rows[..8].copy_from_slice(&[upper, upper, lower, lower, upper, lower, whole, whole]);
        made.row_bytes[..8].fill(ROW_BYTES as u16);
        // SAFETY: the caller's duty; every register has 1 to 16 rows of 64 bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const made, options(nostack, preserves_flags, readonly));
        }
    }

    /// Back to what a thread has that never used them.
    ///
    /// # Safety
    /// The processor has AMX.
    pub(super) unsafe fn release() {
        // SAFETY: the caller's duty.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::gemm::Segment;
    use crate::cpu::operand::Operand as _;
    use crate::cpu::testing::normal;

    /// Blocks of any number of rows, halves of panels, segments that end anywhere, sums that go on.
    #[test]
    #[allow(clippy::print_stderr, reason = "who runs the test must hear that it did not")]
    fn tiles_hold_the_products() {
        if !crate::cpu::Isa::Amx.is_available() {
            return eprintln!("skipped: this processor has no AMX, or the system keeps it back");
        }
        let mut tiles = Tiles::default();
        for (rows, wide, counts) in [
            (1, true, vec![16]),
            (3, false, vec![5]),
            (16, true, vec![40, 8]),
            (17, false, vec![33]),
            (29, true, vec![8, 16, 1]),
            (32, true, vec![288, 8]),
        ] {
            let columns = if wide { PANEL } else { PANEL / 2 };
            let mut expected = vec![0.0_f64; rows * PANEL];
            let mut packed = Vec::new();
            for (index, &steps) in (0..).zip(&counts) {
                let a = normal(2 * index, 2 * steps * rows);
                let b = normal(2 * index + 1, 2 * steps * PANEL);
                let chains = steps.div_ceil(Format::CHAIN);
                let mut a_words = vec![0_u16; chains * rows * 2 * Format::CHAIN];
                let mut b_words = vec![0_u16; 2 * steps * PANEL];
                for k in 0..2 * steps {
                    let (step, half) = (k / 2, k % 2);
                    for row in 0..rows {
                        let word = (step / Format::CHAIN * rows + row) * Format::CHAIN
                            + step % Format::CHAIN;
                        a_words[2 * word + half] = u16::store(a[k * rows + row]);
                    }
                    for column in 0..PANEL {
                        b_words[2 * (step * PANEL + column) + half] =
                            u16::store(b[k * PANEL + column]);
                        for row in 0..rows {
                            let (a, b) = (a[k * rows + row], b[k * PANEL + column]);
                            let [a, b] = [a, b].map(|x| f64::from(u16::store(x).load()));
                            expected[row * PANEL + column] += a * b;
                        }
                    }
                }
                packed.push((a_words, b_words, steps));
            }
            let segments: Vec<Segment> = packed
                .iter()
                .map(|(a, b, steps)| Segment {
                    a: a.as_ptr().cast(),
                    b: b.as_ptr().cast(),
                    steps: *steps,
                })
                .collect();
            let mut tile = vec![f32::NAN; rows * PANEL];
            let out = tile.as_mut_ptr();
            let work = Work { rows, wide, few: false, segments: &segments, tile: out, load: false };
            // SAFETY: rows, steps and the tile are as long as the lists were made above.
            unsafe {
                tiles.multiply(work);
                tiles.multiply(Work { few: true, load: true, ..work });
            }
            for row in 0..rows {
                for column in 0..columns {
                    let (is, should) = (
                        f64::from(tile[row * PANEL + column]),
                        2.0 * expected[row * PANEL + column],
                    );
                    assert!(
                        (is - should).abs() < 1e-4,
                        "{rows} rows, {row}, {column}: {is} {should}"
                    );
                }
                assert!(
                    wide || tile[row * PANEL + PANEL / 2].is_nan(),
                    "the right half is left alone"
                );
            }
        }
    }
}
