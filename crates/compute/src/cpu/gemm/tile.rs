//! Register tiles: a block of rows times a panel.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use super::{Packed, block_rows};
use crate::cpu::amx::{self, Tiles};
use crate::cpu::operand::{LANES, Operand};
use crate::cpu::panel::{Format, PANEL};
use crate::cpu::simd::{Kernel, Simd, dispatch};
use crate::cpu::weight::Matrix;
use crate::cpu::{Isa, Pool};
use crate::op::Linear;

/// The most rows of a tile on any instruction set.
const ROWS_MAX: usize = amx::ROWS;

/// The most pieces of one pass: a part of every term.
pub(crate) const PIECES: usize = Linear::TERMS_MAX;

/// A run of steps of one term, with the part of the panel that belongs to it.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub(crate) rows: Packed,
    /// First step within `rows`.
    pub(crate) start: usize,
    pub(crate) steps: usize,
    /// `[steps][PANEL]`.
    pub(crate) panel: *const u8,
    /// A matrix and the index of its panel, which is not unpacked: `panel` is not read then.
    pub(crate) stored: Option<(&'a Matrix, usize)>,
}

impl Piece<'_> {
    /// No steps of nothing.
    pub(crate) const NOTHING: Self = Piece {
        rows: Packed { words: std::ptr::null(), rows: 0, steps: 0, block: 1 },
        start: 0,
        steps: 0,
        panel: std::ptr::null(),
        stored: None,
    };
}

/// Where tiles go. Coordinates are (row, column) of the whole product.
#[derive(Clone, Copy)]
pub(crate) enum Output {
    /// `out = base + scale * (bias + sum)`, `stride` elements between rows; `out` in bf16 or f32.
    /// `bias` has one number a column; it and `base` may be null.
    Store {
        scale: f32,
        bias: *const f32,
        base: *const f32,
        out: *mut u8,
        bf16: bool,
        stride: usize,
    },
    /// `out += sum`: the chains go on from what `out` holds. `transposed`: element (row, column)
    /// lies at `column * stride + row`.
    Accumulate { out: *mut f32, stride: usize, transposed: bool },
    /// Chains that another pass goes on with: tiles side by side, block after block.
    Partial { tiles: *mut f32 },
}

/// The product of some blocks of rows with (part of the steps of) one panel.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub(crate) format: Format,
    /// At most [`PIECES`], all with the same rows and blocks.
    pub(crate) pieces: &'a [Piece<'a>],
    /// Blocks of rows.
    pub(crate) blocks: (usize, usize),
    /// First column of the panel in the product.
    pub(crate) column: usize,
    /// Columns of the product that the panel holds, at most [`PANEL`].
    pub(crate) columns: usize,
    /// Chains of an earlier pass to go on with, laid out as for [`Output::Partial`]; may be null.
    pub(crate) partial: *mut f32,
    pub(crate) output: Output,
    /// What the next pass will read from memory, and its bytes: fetched into the cache on the way.
    pub(crate) next: (*const u8, usize),
}

impl Pass<'_> {
    /// Runs the pass.
    ///
    /// # Safety
    /// The pointers are valid for what shapes and formats say, and nobody else
    /// uses what is written; `isa` is there.
    pub(crate) unsafe fn run(self, isa: Isa) {
        dispatch(isa, self);
    }
}

/// What a tile multiplies: its part of every piece.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    /// Where the block's steps begin.
    pub(crate) a: *const f32,
    /// `[steps][PANEL]`.
    pub(crate) b: *const u8,
    pub(crate) steps: usize,
}

const NO_SEGMENT: Segment = Segment { a: std::ptr::null(), b: std::ptr::null(), steps: 0 };

impl Kernel for Pass<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.format {
            Format::Pairs => self.blocks::<S, PairProducts>(simd),
            Format::Tiles => self.blocks::<S, Tiles>(simd),
            Format::Halves => self.blocks::<S, Widened<u16>>(simd),
            Format::Floats => self.blocks::<S, Widened<f32>>(simd),
        }
    }
}

#[repr(align(64))]
struct Tile([f32; ROWS_MAX * PANEL]);

impl Pass<'_> {
    #[inline(always)]
    fn blocks<S: Simd, T: Multiply>(self, simd: S) {
        // Whatever is read of it has been written.
        let mut own = MaybeUninit::<Tile>::uninit();
        let mut segments = [NO_SEGMENT; PIECES];
        let mut way = T::default();
        let (wide, few) = (self.columns > LANES, self.has_few());
        let stored = self.pieces.iter().any(|piece| piece.stored.is_some());
        for block in self.blocks.0..self.blocks.1 {
            let (row, rows) = self.pieces[0].rows.block_range(block);
            for (segment, piece) in segments.iter_mut().zip(self.pieces) {
                // SAFETY: the piece's steps lie inside the packed block.
                let a = unsafe { piece.rows.block(block).add(piece.start * rows) };
                *segment = Segment { a, b: piece.panel, steps: piece.steps };
            }
            let at = (block - self.blocks.0) * self.pieces[0].rows.block * PANEL;
            let mut tile = own.as_mut_ptr().cast::<f32>();
            let mut load = false;
            if !self.partial.is_null() {
                // SAFETY: partial chains hold a tile for every block.
                tile = unsafe { self.partial.add(at) };
                load = true;
            } else if let Output::Partial { tiles } = self.output {
                // SAFETY: as above.
                tile = unsafe { tiles.add(at) };
            }
            if let Output::Accumulate { out, stride, transposed } = self.output {
                let place = Place { row, rows, column: self.column, columns: self.columns };
                // SAFETY: the place lies inside the output.
                unsafe { place.load(out, stride, transposed, tile) };
                load = true;
            }
            self.fetch_next(block - self.blocks.0);
            self.fetch_output(row, rows);
            let segments = &segments[..self.pieces.len()];
            let work = Work { rows, wide, few, segments, tile, load };
            // SAFETY: segments and tile are valid, and so is what the witness stands for.
            unsafe {
                if stored {
                    self.one_by_one(&mut way, simd, work);
                } else {
                    way.multiply(simd, work);
                }
            }
            let place = Place { row, rows, column: self.column, columns: self.columns };
            // SAFETY: the place lies inside the output.
            unsafe { place.store(simd, self.output, tile) };
        }
    }
}

impl Pass<'_> {
    /// Multiplies segments of which some are as they are stored.
    #[inline(always)]
    unsafe fn one_by_one<S: Simd>(&self, way: &mut impl Multiply, simd: S, work: Work<'_>) {
        let Work { rows, tile, mut load, .. } = work;
        for (piece, segment) in self.pieces.iter().zip(work.segments) {
            // SAFETY: the caller's duty.
            unsafe {
                match piece.stored {
                    Some((matrix, panel)) => {
                        let steps = (piece.start, segment.steps);
                        matrix.multiply_few(panel, steps, (segment.a, rows), tile, load);
                    }
                    None => way.multiply(simd, Work { segments: &[*segment], load, ..work }),
                }
            }
            load = true;
        }
    }

    /// Whether blocks are so few that they wait for memory.
    #[inline(always)]
    fn has_few(&self) -> bool {
        self.blocks.1 - self.blocks.0 <= FEW_BLOCKS
    }

    /// Fetches one block's share of what comes next.
    #[inline(always)]
    fn fetch_next(&self, block: usize) {
        let (start, mut bytes) = self.next;
        if !self.format.has_pairs() && self.has_few() {
            bytes = 0;
        }
        let share = bytes.div_ceil(self.blocks.1 - self.blocks.0).next_multiple_of(LINE);
        for offset in (block * share..bytes.min((block + 1) * share)).step_by(LINE) {
            fetch(start.wrapping_add(offset));
        }
    }

    /// Fetches where the tile will go, so that its stores need not wait for memory.
    #[inline(always)]
    fn fetch_output(&self, row: usize, rows: usize) {
        let Output::Store { base, out, bf16, stride, .. } = self.output else { return };
        for row in row..row + rows {
            let at = row * stride + self.column;
            if !base.is_null() {
                fetch(base.wrapping_add(at).cast());
                fetch(base.wrapping_add(at + LANES).cast());
            }
            if bf16 {
                fetch_to_write(out.wrapping_add(2 * at));
            } else {
                fetch_to_write(out.wrapping_add(4 * at));
                fetch_to_write(out.wrapping_add(4 * (at + LANES)));
            }
        }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Brings a line into the second-level cache.
#[inline(always)]
fn fetch(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: fetching reads nothing; any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Brings a line into the first-level cache.
#[inline(always)]
fn fetch_near(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: fetching reads nothing; any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Brings a line into the cache for this core alone.
#[inline(always)]
fn fetch_to_write(line: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: fetching changes nothing; any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(line.cast_const().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// The products of a block of rows with (parts of) a panel.
#[derive(Clone, Copy)]
pub(crate) struct Work<'a> {
    /// Rows of the block.
    pub(crate) rows: usize,
    /// Whether all 32 columns are wanted, or the first 16.
    pub(crate) wide: bool,
    /// Whether the panel comes from memory.
    pub(crate) few: bool,
    pub(crate) segments: &'a [Segment],
    /// `[rows][PANEL]`.
    pub(crate) tile: *mut f32,
    /// Whether the chains go on from what the tile holds.
    pub(crate) load: bool,
}

/// A way to multiply steps.
trait Multiply: Default {
    /// # Safety
    /// Segments and tile are valid for the rows.
    unsafe fn multiply<S: Simd>(&mut self, simd: S, work: Work<'_>);
}

/// A way to multiply steps in vector registers, which is compiled for every number of rows.
trait RegisterTile: Default {
    /// # Safety
    /// Segments and tile are valid for `ROWS` rows.
    unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(simd: S, work: Work<'_>);
}

impl<T: RegisterTile> Multiply for T {
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&mut self, simd: S, work: Work<'_>) {
        macro_rules! by_rows {
            ($($count:literal)*) => {
                // SAFETY: the caller's duty.
                unsafe {
                    match work.rows {
                        $($count if work.wide => sized::<S, T, $count, 2>(simd, work),
                          $count => sized::<S, T, $count, 1>(simd, work),)*
                        _ => unreachable!("a block has at most 12 rows"),
                    }
                }
            };
        }
        by_rows!(1 2 3 4 5 6 7 8 9 10 11 12);
    }
}

/// In tile registers.
impl Multiply for Tiles {
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&mut self, _: S, work: Work<'_>) {
        // SAFETY: the caller's duty; this is the format of processors that have AMX.
        unsafe { Tiles::multiply(self, work) };
    }
}

#[inline(always)]
unsafe fn sized<S: Simd, T: RegisterTile, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    work: Work<'_>,
) {
    // A constant, so that no code is made for blocks that there are not.
    if const { ROWS > S::BLOCK.0 } {
        unreachable!("a block has at most as many rows as registers hold");
    }
    // SAFETY: the caller's duty.
    unsafe { T::tile::<S, ROWS, VECTORS>(simd, work) };
}

/// Products of f32, with the panel widened on the way where it is bf16.
#[derive(Default)]
struct Widened<E>(std::marker::PhantomData<E>);

impl<E: Operand> RegisterTile for Widened<E> {
    #[inline(always)]
    unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
        simd: S,
        Work { segments, tile, load, few, .. }: Work<'_>,
    ) {
        if const { S::BLOCK.1 >= VECTORS || ROWS <= FEW } {
            // SAFETY: the caller's duty.
            return unsafe {
                match few {
                    true => widened::<S, E, ROWS, VECTORS, true>(simd, segments, tile, 0, load),
                    false => widened::<S, E, ROWS, VECTORS, false>(simd, segments, tile, 0, load),
                }
            };
        }
        // Halves take turns, so that what both read is still in the first-level cache for the second.
        let mut load = load;
        for segment in segments {
            for start in (0..segment.steps.max(1)).step_by(TURN) {
                let turn = segment.part::<E>(start, TURN.min(segment.steps - start), ROWS);
                // SAFETY: the caller's duty; a turn lies inside its segment.
                unsafe {
                    match few {
                        true => widened::<S, E, ROWS, 1, true>(simd, &[turn], tile, 0, load),
                        false => widened::<S, E, ROWS, 1, false>(simd, &[turn], tile, 0, load),
                    }
                    for vector in 1..VECTORS {
                        let column = vector * LANES;
                        widened::<S, E, ROWS, 1, false>(simd, &[turn], tile, column, load);
                    }
                }
                load = true;
            }
        }
    }
}

/// So few rows leave registers for a whole panel, whatever the instruction set.
const FEW: usize = 2;

/// Bytes of a panel that are fetched ahead of what is multiplied.
const AHEAD: usize = 4096;

/// So few blocks wait for memory: what they multiply is fetched just before, not what the next pass multiplies.
const FEW_BLOCKS: usize = 4;

/// Steps after which the halves of a tile take turns.
const TURN: usize = 192;

impl Segment {
    /// Some of its steps, in a format with one number a step.
    #[inline(always)]
    fn part<E>(self, start: usize, steps: usize, rows: usize) -> Segment {
        Segment {
            a: self.a.wrapping_add(start * rows),
            b: self.b.wrapping_add(start * PANEL * size_of::<E>()),
            steps,
        }
    }
}

#[inline(always)]
unsafe fn widened<
    S: Simd,
    E: Operand,
    const ROWS: usize,
    const VECTORS: usize,
    const FETCH: bool,
>(
    simd: S,
    segments: &[Segment],
    tile: *mut f32,
    column: usize,
    load: bool,
) {
    // SAFETY: the caller's duty: segments are valid for their steps, the tile for its rows.
    unsafe {
        let mut sums = [[simd.zero(); VECTORS]; ROWS];
        if load {
            for (row, sums) in sums.iter_mut().enumerate() {
                for (vector, sum) in sums.iter_mut().enumerate() {
                    *sum = simd.load(&*tile.add(row * PANEL + column + vector * LANES).cast());
                }
            }
        }
        for segment in segments {
            let mut a = segment.a;
            let mut b = segment.b.cast::<E>().add(column);
            for _ in 0..segment.steps {
                if FETCH {
                    for line in (0..PANEL * size_of::<E>()).step_by(LINE) {
                        fetch_near(b.cast::<u8>().wrapping_add(AHEAD + line));
                    }
                }
                let mut columns = [simd.zero(); VECTORS];
                for (vector, columns) in columns.iter_mut().enumerate() {
                    *columns = E::load16(simd, &*b.add(vector * LANES).cast());
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = simd.splat(*a.add(row));
                    for (sum, &columns) in sums.iter_mut().zip(&columns) {
                        *sum = simd.fma(x, columns, *sum);
                    }
                }
                a = a.add(ROWS);
                b = b.add(PANEL);
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (vector, &sum) in sums.iter().enumerate() {
                simd.store(sum, &mut *tile.add(row * PANEL + column + vector * LANES).cast());
            }
        }
    }
}

/// Products of bf16 pairs.
#[derive(Default)]
struct PairProducts;

impl RegisterTile for PairProducts {
    #[inline(always)]
    unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
        _: S,
        Work { segments, tile, load, .. }: Work<'_>,
    ) {
        // SAFETY: the caller's duty; pairs are the format of processors that have the product.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            dot::tile::<ROWS, VECTORS>(segments, tile, load);
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (segments, tile, load);
            unreachable!("only x86-64 has products of pairs");
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod dot {
    use std::arch::x86_64::*;

    use super::{PANEL, Segment};

    /// How many steps ahead the panel is fetched: it lies in the second-level cache or in memory.
    const AHEAD: usize = 16;

    /// # Safety
    /// As for `RegisterTile::tile`; the processor has the instructions.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn tile<const ROWS: usize, const VECTORS: usize>(
        segments: &[Segment],
        tile: *mut f32,
        load: bool,
    ) {
        // SAFETY: the caller's duty.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
            if load {
                for (row, sums) in sums.iter_mut().enumerate() {
                    for (vector, sum) in sums.iter_mut().enumerate() {
                        *sum = _mm512_loadu_ps(tile.add(row * PANEL + 16 * vector));
                    }
                }
            }
            for segment in segments {
                let mut a = segment.a.cast::<i32>();
                let mut b = segment.b.cast::<i32>();
                for _ in 0..segment.steps {
                    _mm_prefetch::<_MM_HINT_T0>(a.wrapping_add(2 * AHEAD * ROWS).cast());
                    let mut pairs = [_mm512_setzero_si512(); VECTORS];
                    for (vector, pairs) in pairs.iter_mut().enumerate() {
                        *pairs = _mm512_loadu_si512(b.add(16 * vector).cast());
                        let next = b.wrapping_add(AHEAD * PANEL + 16 * vector);
                        _mm_prefetch::<_MM_HINT_T0>(next.cast());
                    }
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let x = bf16(_mm512_set1_epi32(a.add(row).read()));
                        for (sum, &pairs) in sums.iter_mut().zip(&pairs) {
                            *sum = _mm512_dpbf16_ps(*sum, x, bf16(pairs));
                        }
                    }
                    a = a.add(ROWS);
                    b = b.add(PANEL);
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                for (vector, &sum) in sums.iter().enumerate() {
                    _mm512_storeu_ps(tile.add(row * PANEL + 16 * vector), sum);
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn bf16(words: __m512i) -> __m512bh {
        // SAFETY: both types are 512 plain bits.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(words) }
    }
}

/// Where a tile lies in the product.
struct Place {
    row: usize,
    rows: usize,
    column: usize,
    columns: usize,
}

impl Place {
    /// Reads the tile from the output of [`Output::Accumulate`].
    #[inline(always)]
    unsafe fn load(&self, out: *const f32, stride: usize, transposed: bool, tile: *mut f32) {
        for row in 0..self.rows {
            for column in 0..self.columns {
                let at = self.index(row, column, stride, transposed);
                // SAFETY: the caller's duty.
                unsafe { *tile.add(row * PANEL + column) = *out.add(at) };
            }
        }
    }

    #[inline(always)]
    fn index(&self, row: usize, column: usize, stride: usize, transposed: bool) -> usize {
        let (row, column) = (self.row + row, self.column + column);
        if transposed { column * stride + row } else { row * stride + column }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(&self, simd: S, output: Output, tile: *const f32) {
        // SAFETY: the caller's duty.
        unsafe {
            match output {
                Output::Partial { .. } => {}
                Output::Accumulate { out, stride, transposed } => {
                    for row in 0..self.rows {
                        for column in 0..self.columns {
                            let at = self.index(row, column, stride, transposed);
                            *out.add(at) = *tile.add(row * PANEL + column);
                        }
                    }
                }
                Output::Store { scale, bias, base, out, bf16: true, stride } => {
                    self.finish::<S, u16>(simd, scale, [bias, base], out.cast(), stride, tile);
                }
                Output::Store { scale, bias, base, out, bf16: false, stride } => {
                    self.finish::<S, f32>(simd, scale, [bias, base], out.cast(), stride, tile);
                }
            }
        }
    }

    /// `out = base + scale * (bias + tile)`.
    #[inline(always)]
    unsafe fn finish<S: Simd, E: Operand>(
        &self,
        simd: S,
        scale: f32,
        [bias, base]: [*const f32; 2],
        out: *mut E,
        stride: usize,
        tile: *const f32,
    ) {
        let scales = simd.splat(scale);
        for row in 0..self.rows {
            let at = (self.row + row) * stride + self.column;
            let mut column = 0;
            // SAFETY: the caller's duty: columns of the product lie inside `bias`, `base` and `out`.
            unsafe {
                while column + LANES <= self.columns {
                    let mut sum = simd.load(&*tile.add(row * PANEL + column).cast());
                    if !bias.is_null() {
                        sum = simd.add(simd.load(&*bias.add(self.column + column).cast()), sum);
                    }
                    let mut value = simd.mul(scales, sum);
                    if !base.is_null() {
                        value = simd.add(simd.load(&*base.add(at + column).cast()), value);
                    }
                    E::store16(simd, value, &mut *out.add(at + column).cast());
                    column += LANES;
                }
                while column < self.columns {
                    let mut sum = *tile.add(row * PANEL + column);
                    if !bias.is_null() {
                        sum += *bias.add(self.column + column);
                    }
                    let mut value = scale * sum;
                    if !base.is_null() {
                        value += *base.add(at + column);
                    }
                    *out.add(at + column) = E::store(value);
                    column += 1;
                }
            }
        }
    }
}

/// Multiplies and additions that all threads together do in a second with operands in the
/// first-level cache: what a product could reach at best.
pub(crate) fn peak_flops(pool: &Pool, isa: Isa, format: Format) -> f64 {
    const STEPS: usize = 96;
    let rows = block_rows(isa, format);
    let flops = (2 * rows * PANEL * STEPS * format.step_len()) as f64;
    let deadline = Instant::now() + Duration::from_millis(200);
    let rates = std::sync::Mutex::new(vec![0.0_f64; pool.threads()]);
    pool.run(pool.threads(), &|task, scratch| {
        let [a, panel] = scratch.split([STEPS * rows, STEPS * PANEL]);
        a.fill(0.0);
        panel.fill(0.0);
        let packed = Packed { words: a.as_ptr(), rows, steps: STEPS, block: rows };
        let panel = panel.as_ptr().cast();
        let piece = Piece { rows: packed, start: 0, steps: STEPS, panel, stored: None };
        let mut tile = Tile([0.0; ROWS_MAX * PANEL]);
        let pass = Pass {
            format,
            pieces: &[piece; 8],
            blocks: (0, 1),
            column: 0,
            columns: PANEL,
            partial: std::ptr::null_mut(),
            output: Output::Partial { tiles: tile.0.as_mut_ptr() },
            next: (std::ptr::null(), 0),
        };
        let mut best: f64 = 0.0;
        while Instant::now() < deadline {
            let start = Instant::now();
            let repeats = 100;
            for _ in 0..repeats {
                // SAFETY: block, panel and tile are as large as the pass says.
                unsafe { pass.run(isa) };
            }
            let rate = flops * 8.0 * f64::from(repeats) / start.elapsed().as_secs_f64();
            best = best.max(rate);
        }
        rates.lock().unwrap_or_else(|e| e.into_inner())[task] = best;
    });
    let rates = rates.into_inner().unwrap_or_else(|e| e.into_inner());
    rates.iter().sum()
}
