//! `gradient += dy^T x`: products along rows instead of columns.

use super::linear::Packing;
use super::{Output, Packed, Pass, Piece};
use crate::cpu::operand::{LANES, Operand};
use crate::cpu::panel::{Format, Machine, PANEL};
use crate::cpu::pool::Pointers;
use crate::cpu::simd::{Kernel, Simd, dispatch};

/// Steps of a panel that are packed and multiplied at a time.
pub(crate) const STEPS: usize = 1024;

/// Two matrices of as many rows, with pointers in place of buffers.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    /// `[rows, n]`.
    pub(crate) dy: *const u8,
    /// `[rows, k]`.
    pub(crate) x: *const u8,
    /// `[groups + 1]`.
    pub(crate) groups: &'a [u32],
}

/// A matrix that products of all sources are added to: the first group of every source, in order, then
/// the second of every source, and so on.
pub(crate) struct Gradient<'a> {
    pub(crate) sources: Vec<Source<'a>>,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// `[n, k]`.
    pub(crate) out: *mut f32,
}

/// Rows of a source: a pair where the format has pairs, a single row (twice) elsewhere. The
/// second of a pair is `u32::MAX` where a group ends before it, and so are both where the format needs
/// further steps.
#[derive(Clone, Copy)]
struct Step {
    source: u32,
    rows: [u32; 2],
}

/// Columns of row-major operand matrices: one side of the product.
#[derive(Clone, Copy)]
struct Side<'a> {
    sources: &'a [Source<'a>],
    /// Whether it is the side of `dy`.
    dy: bool,
    cols: usize,
}

/// The smaller side is packed whole, the larger panel by panel.
struct Job<'a> {
    steps: &'a [Step],
    blocks: Packed,
    block_side: Side<'a>,
    panel_side: Side<'a>,
    output: Output,
}

/// Adds the gradients of some matrices to what they are.
///
/// # Safety
/// Pointers are valid for the shapes, gradients overlap nothing.
pub(crate) unsafe fn weight_gradient(
    machine: Machine<'_>,
    packing: &mut Packing,
    gradients: &[Gradient<'_>],
) {
    let lists: Vec<Vec<Step>> =
        gradients.iter().map(|gradient| steps_of(machine.format, &gradient.sources)).collect();
    let mut jobs: Vec<Job<'_>> = gradients
        .iter()
        .zip(&lists)
        .map(|(gradient, steps)| Job::new(machine, gradient, steps))
        .collect();
    let words = jobs.iter().map(|job| job.blocks.words()).sum();
    let mut words: *mut f32 = packing.reserve(words);
    for job in &mut jobs {
        job.blocks.words = words;
        words = words.wrapping_add(job.blocks.words());
    }
    let jobs = Pointers(jobs.as_slice());
    let blocks = jobs.0.iter().map(|job| job.blocks.blocks()).sum();
    machine.pool.run(blocks, &|task, _| {
        let jobs = { &jobs }.0;
        let (job, block) = find(jobs, task, |job| job.blocks.blocks());
        let (first, rows) = job.blocks.block_range(block);
        let (side, out) = (job.block_side, job.blocks.block(block).cast_mut());
        let format = machine.format;
        let columns = (first, rows);
        dispatch(machine.isa, PackColumns { format, side, steps: job.steps, columns, out });
    });
    let panels = jobs.0.iter().map(Job::panels).sum();
    machine.pool.run(panels, &|task, scratch| {
        let jobs = { &jobs }.0;
        let (job, panel) = find(jobs, task, Job::panels);
        // SAFETY: the caller's duty; tasks write disjoint tiles.
        unsafe { job.panel(machine, panel, scratch) };
    });
}

fn steps_of(format: Format, sources: &[Source<'_>]) -> Vec<Step> {
    let mut steps = Vec::new();
    let groups = sources.iter().map(|source| source.groups.len()).max().unwrap_or(0);
    for group in 0..groups {
        for (index, source) in (0..).zip(sources) {
            let Some(&[first, last]) = source.groups.get(group..group + 2) else { continue };
            let step = |rows: [u32; 2]| Step { source: index, rows };
            match format {
                Format::Pairs | Format::Tiles => {
                    let or_none = |row: u32| if row < last { row } else { u32::MAX };
                    let rows = (first..last).step_by(2);
                    steps.extend(rows.map(|row| step([row, or_none(row + 1)])));
                    let whole = steps.len().next_multiple_of(format.chain());
                    steps.resize(whole, step([u32::MAX; 2]));
                }
                Format::Halves | Format::Floats => {
                    steps.extend((first..last).map(|row| step([row, row])));
                }
            }
        }
    }
    steps
}

fn find<'a, 'b>(
    jobs: &'a [Job<'b>],
    mut task: usize,
    count: impl Fn(&Job<'b>) -> usize,
) -> (&'a Job<'b>, usize) {
    for job in jobs {
        if task < count(job) {
            return (job, task);
        }
        task -= count(job);
    }
    unreachable!("a task belongs to a job");
}

impl<'a> Job<'a> {
    fn new(machine: Machine<'_>, gradient: &'a Gradient<'a>, steps: &'a [Step]) -> Self {
        let &Gradient { ref sources, n, k, out } = gradient;
        let (dy, x) = (Side { sources, dy: true, cols: n }, Side { sources, dy: false, cols: k });
        let transposed = n > k;
        let (block_side, panel_side) = if transposed { (x, dy) } else { (dy, x) };
        Job {
            steps,
            blocks: Packed::new(machine, std::ptr::null(), block_side.cols, steps.len()),
            block_side,
            panel_side,
            output: Output::Accumulate { out, stride: k, transposed },
        }
    }

    fn panels(&self) -> usize {
        self.panel_side.cols.div_ceil(PANEL)
    }

    unsafe fn panel(
        &self,
        machine: Machine<'_>,
        panel: usize,
        scratch: &mut crate::cpu::pool::Scratch,
    ) {
        let format = machine.format;
        let column = panel * PANEL;
        let columns = PANEL.min(self.panel_side.cols - column);
        let most = self.steps.len().min(STEPS);
        let out = scratch.f32(most * format.step_bytes() / 4).as_mut_ptr();
        let mut start = 0;
        while start < self.steps.len() {
            let steps = (self.steps.len() - start).min(STEPS);
            let list = &self.steps[start..start + steps];
            let side = self.panel_side;
            dispatch(
                machine.isa,
                PackPanel { format, side, steps: list, columns: (column, columns), out },
            );
            let panel = out.cast();
            let piece = Piece { rows: self.blocks, start, steps, panel, stored: None };
            let pass = Pass {
                format,
                pieces: &[piece],
                blocks: (0, self.blocks.blocks()),
                column,
                columns,
                partial: std::ptr::null_mut(),
                next: (std::ptr::null(), 0),
                output: self.output,
            };
            // SAFETY: the caller's duty; the panel was packed above.
            unsafe { pass.run(machine.isa) };
            start += steps;
        }
    }
}

/// Packs columns as a block of [`Packed`].
struct PackColumns<'a> {
    format: Format,
    side: Side<'a>,
    steps: &'a [Step],
    /// First, and how many.
    columns: (usize, usize),
    out: *mut f32,
}

impl Kernel for PackColumns<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (first, count) = self.columns;
        if self.format == Format::Tiles {
            return self.tiles(simd);
        }
        for (step, &rows) in self.steps.iter().enumerate() {
            // SAFETY: rows and columns lie inside the side, the step inside the block.
            unsafe {
                let out = self.out.add(step * count);
                match self.format {
                    Format::Pairs | Format::Tiles => {
                        let [low, high] = self.side.rows::<u16>(rows);
                        let out = out.cast::<u32>();
                        for column in 0..count {
                            *out.add(column) = pair(low, high, first + column);
                        }
                    }
                    Format::Halves => {
                        let [row, _] = self.side.rows::<u16>(rows);
                        for column in 0..count {
                            *out.add(column) = (*row.add(first + column)).load();
                        }
                    }
                    Format::Floats => {
                        let [row, _] = self.side.rows::<f32>(rows);
                        std::ptr::copy_nonoverlapping(row.add(first), out, count);
                    }
                }
            }
        }
    }
}

impl PackColumns<'_> {
    /// Sixteen steps of each column together: `[steps / 16][columns][16]`.
    #[inline(always)]
    fn tiles<S: Simd>(&self, simd: S) {
        let (first, count) = self.columns;
        for (chain, steps) in self.steps.chunks_exact(LANES).enumerate() {
            let out = self.out.wrapping_add(chain * count * LANES);
            for start in (0..count).step_by(LANES) {
                let columns = LANES.min(count - start);
                let mut square = [simd.zero(); LANES];
                for (vector, &rows) in square.iter_mut().zip(steps) {
                    let mut words = [0.0; LANES];
                    // SAFETY: rows and columns lie inside the side.
                    unsafe {
                        let [low, high] = self.side.rows::<u16>(rows);
                        for (column, word) in words.iter_mut().enumerate().take(columns) {
                            *word = f32::from_bits(pair(low, high, first + start + column));
                        }
                    }
                    *vector = simd.load(&words);
                }
                simd.transpose(&mut square);
                for (column, &vector) in square.iter().enumerate().take(columns) {
                    let at = (start + column) * LANES;
                    // SAFETY: the column lies inside the block.
                    unsafe { simd.store(vector, &mut *out.add(at).cast()) };
                }
            }
        }
    }
}

/// Packs columns as a panel.
struct PackPanel<'a> {
    format: Format,
    side: Side<'a>,
    steps: &'a [Step],
    /// First, and how many.
    columns: (usize, usize),
    out: *mut f32,
}

impl Kernel for PackPanel<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        // A constant count becomes vector code.
        if self.columns.1 == PANEL { self.pack(PANEL) } else { self.pack(self.columns.1) }
    }
}

impl PackPanel<'_> {
    #[inline(always)]
    fn pack(&self, count: usize) {
        let first = self.columns.0;
        for (step, &rows) in self.steps.iter().enumerate() {
            // SAFETY: rows and columns lie inside the side, the step inside the panel.
            unsafe {
                match self.format {
                    Format::Pairs | Format::Tiles => {
                        let [low, high] = self.side.rows::<u16>(rows);
                        let out = &mut *self.out.cast::<[u32; PANEL]>().add(step);
                        let mut words = [0; PANEL];
                        if low.is_null() {
                            // A step of padding.
                        } else if high.is_null() {
                            for (column, word) in words.iter_mut().enumerate().take(count) {
                                *word = u32::from(*low.add(first + column));
                            }
                        } else {
                            for (column, word) in words.iter_mut().enumerate().take(count) {
                                *word = pair(low, high, first + column);
                            }
                        }
                        *out = words;
                    }
                    Format::Halves => {
                        let [row, _] = self.side.rows::<u16>(rows);
                        let out = self.out.cast::<u16>().add(step * PANEL);
                        out.write_bytes(0, PANEL);
                        std::ptr::copy_nonoverlapping(row.add(first), out, count);
                    }
                    Format::Floats => {
                        let [row, _] = self.side.rows::<f32>(rows);
                        let out = self.out.add(step * PANEL);
                        out.write_bytes(0, PANEL);
                        std::ptr::copy_nonoverlapping(row.add(first), out, count);
                    }
                }
            }
        }
    }
}

impl Side<'_> {
    /// The starts of a step's rows; null where there is no second.
    #[inline(always)]
    unsafe fn rows<E: Operand>(&self, step: Step) -> [*const E; 2] {
        let source = &self.sources[step.source as usize];
        let start = if self.dy { source.dy } else { source.x }.cast::<E>();
        step.rows.map(|row| match row {
            u32::MAX => std::ptr::null(),
            row => start.wrapping_add(row as usize * self.cols),
        })
    }
}

#[inline(always)]
unsafe fn pair(low: *const u16, high: *const u16, column: usize) -> u32 {
    // SAFETY: the caller's duty.
    unsafe {
        let low = if low.is_null() { 0 } else { u32::from(*low.add(column)) };
        let high = if high.is_null() { 0 } else { u32::from(*high.add(column)) };
        low | high << 16
    }
}
