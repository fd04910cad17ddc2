//! `out = base + scale * (bias + sum of products)`: what runs where.

use super::{Output, PASS_STEPS, PIECES, PackInput, Packed, Pass, Piece, block_rows, pack_blocks};
use crate::cpu::arena::Memory;
use crate::cpu::panel::{Format, Machine, PANEL};
use crate::cpu::pool::{Pointers, Scratch};
use crate::cpu::weight::{Matrix, TEMPORARY};

/// Steps are cut at multiples of it, so that every block type unpacks whole blocks.
const CUT: usize = 256;

/// Multiplies and additions that are worth a task of their own, some microseconds.
const TASK_FLOPS: usize = 1 << 20;

/// Weights that are worth a task of their own where there are few rows: what counts then is reading them.
const TASK_WEIGHTS: usize = 1 << 14;

/// Tasks for each thread where stored weights are multiplied as they are.
const FEW_TASKS: usize = 2;

/// One term: rows of operands times a matrix.
#[derive(Clone, Copy)]
pub(crate) struct ProductTerm<'a> {
    /// `[rows, K]`.
    pub(crate) input: *const u8,
    pub(crate) matrix: &'a Matrix,
    pub(crate) transposed: bool,
}

impl ProductTerm<'_> {
    fn k(&self) -> usize {
        if self.transposed { self.matrix.rows } else { self.matrix.cols }
    }
}

/// What `Op::Linear` asks for, with pointers in place of buffers.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) rows: usize,
    pub(crate) n: usize,
    pub(crate) terms: &'a [ProductTerm<'a>],
    pub(crate) output: Output,
}

/// Memory and lists that last from product to product.
pub(crate) struct Packing {
    words: Memory,
}

impl Packing {
    pub(crate) fn new() -> Self {
        Packing { words: Memory::new(0) }
    }

    /// Bytes that were taken from the system.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.words.bytes()
    }

    /// Room for `words` words; what was there before is lost where it has to grow.
    pub(crate) fn reserve(&mut self, words: usize) -> *mut f32 {
        if words * 4 > self.words.bytes() {
            self.words = Memory::new(0);
            self.words = Memory::new((words * 4).next_power_of_two());
        }
        self.words.as_ptr().cast()
    }
}

/// A product with what it needs to be cut into tasks.
struct Job<'a> {
    product: Product<'a>,
    packed: [Option<Packed>; PIECES],
    /// Panels that are unpacked together.
    width: usize,
    /// Panels of one task, a multiple of `width`.
    panels_per_task: usize,
    panel_tasks: usize,
    row_tasks: usize,
}

/// Runs products that do not depend on each other.
///
/// # Safety
/// Pointers are valid for the shapes, outputs overlap nothing but their own base.
pub(crate) unsafe fn linear(machine: Machine<'_>, packing: &mut Packing, products: &[Product<'_>]) {
    let inputs = place_inputs(machine, packing, products);
    // SAFETY: the caller's duty, and `place_inputs` has made room.
    unsafe { pack_blocks(machine.pool, machine.isa, machine.format, &inputs) };
    let jobs: Vec<Job<'_>> =
        products.iter().map(|product| Job::new(machine, *product, &inputs)).collect();
    let tasks = jobs.iter().map(Job::tasks).sum();
    let jobs = Pointers(jobs.as_slice());
    machine.pool.run(tasks, &|mut task, scratch| {
        let jobs = { &jobs }.0;
        for job in jobs {
            if task < job.tasks() {
                // SAFETY: the caller's duty; tasks write disjoint tiles.
                return unsafe { job.run(machine, task, scratch) };
            }
            task -= job.tasks();
        }
    });
}

/// Every distinct input once, with its place among the packed words.
fn place_inputs(
    machine: Machine<'_>,
    packing: &mut Packing,
    products: &[Product<'_>],
) -> Vec<PackInput> {
    let mut inputs: Vec<PackInput> = Vec::new();
    let mut offsets = Vec::new();
    let mut words = 0;
    for product in products {
        for term in product.terms {
            if find(&inputs, product.rows, term).is_some() {
                continue;
            }
            let steps = machine.format.steps(term.k());
            let into = Packed::new(machine, std::ptr::null(), product.rows, steps);
            inputs.push(PackInput { input: term.input, cols: term.k(), into });
            offsets.push(words);
            words += into.words().next_multiple_of(16);
        }
    }
    let start = packing.reserve(words);
    for (input, offset) in inputs.iter_mut().zip(offsets) {
        // SAFETY: `offset` lies inside what was reserved.
        input.into.words = unsafe { start.add(offset) };
    }
    inputs
}

fn find(inputs: &[PackInput], rows: usize, term: &ProductTerm<'_>) -> Option<Packed> {
    let same = |input: &&PackInput| {
        input.input == term.input && input.cols == term.k() && input.into.rows == rows
    };
    inputs.iter().find(same).map(|input| input.into)
}

impl<'a> Job<'a> {
    fn new(machine: Machine<'_>, product: Product<'a>, inputs: &[PackInput]) -> Self {
        let mut packed = [None; PIECES];
        for (packed, term) in packed.iter_mut().zip(product.terms) {
            *packed = find(inputs, product.rows, term);
        }
        let terms = product.terms.iter();
        let width = terms.clone().map(|t| t.matrix.width(t.transposed)).max().unwrap_or(1);
        let direct = terms.clone().all(|t| t.matrix.direct(t.transposed).is_some());
        let k: usize = terms.clone().map(ProductTerm::k).sum();

        let groups = product.n.div_ceil(PANEL * width);
        let blocks = product.rows.div_ceil(block_rows(machine.isa, machine.format));
        let flops = 2 * product.rows * product.n * k;
        let few =
            terms.clone().any(|t| t.matrix.multiplies_few(machine.isa, t.transposed, product.rows));

        // Small tasks even out the threads; but each unpacks its panels anew, and what is fetched ahead of few rows
        // helps the same task only.
        let wanted = machine.pool.threads()
            * if few {
                FEW_TASKS
            } else if direct {
                16
            } else {
                6
            };

        // Waking a thread costs some microseconds, so a task must be worth that.
        let worth = (flops / TASK_FLOPS).max(product.n * k / TASK_WEIGHTS);
        let wanted = wanted.min(worth).max(1);

        // Columns are cut first: a task that has all rows unpacks its panels once.
        let panels_per_task = (groups / wanted).max(1) * width;
        let panel_tasks = product.n.div_ceil(PANEL * panels_per_task);
        let row_tasks = (wanted / panel_tasks).clamp(1, blocks.div_ceil(4).max(1));
        Job { product, packed, width, panels_per_task, panel_tasks, row_tasks }
    }

    fn tasks(&self) -> usize {
        if self.product.rows == 0 { 0 } else { self.panel_tasks * self.row_tasks }
    }

    unsafe fn run(&self, machine: Machine<'_>, task: usize, scratch: &mut Scratch) {
        let (panel_task, row_task) = (task / self.row_tasks, task % self.row_tasks);
        let all = self.packed[0].map_or(0, |packed| packed.blocks());
        let blocks = (all * row_task / self.row_tasks, all * (row_task + 1) / self.row_tasks);
        let panels = self.product.n.div_ceil(PANEL);
        let last = ((panel_task + 1) * self.panels_per_task).min(panels);
        let mut panel = panel_task * self.panels_per_task;
        let mut list = [Piece::NOTHING; PIECES];
        while panel < last {
            let width = self.width.min(last - panel);
            // SAFETY: the caller's duty.
            unsafe { self.panels(machine, (panel, width), blocks, &mut list, scratch) };
            panel += width;
        }
    }

    /// All passes over some neighbouring panels.
    unsafe fn panels(
        &self,
        machine: Machine<'_>,
        (first, width): (usize, usize),
        blocks: (usize, usize),
        list: &mut [Piece<'a>; PIECES],
        scratch: &mut Scratch,
    ) {
        let Machine { isa, format, .. } = machine;
        let terms = self.product.terms;
        let total: usize = terms.iter().map(|term| format.steps(term.k())).sum();
        let mut cuts = Cuts { format, terms, term: 0, start: 0 };
        let block = self.packed[0].map_or(0, |packed| packed.block);

        // Scratch holds the panels of a pass, and sums that another pass goes on with.
        let tile_words = (blocks.1 - blocks.0) * block * PANEL;
        let stored = |term: &ProductTerm<'_>| {
            term.matrix.multiplies_few(isa, term.transposed, self.product.rows)
        };
        let unpacked_term =
            |term: &ProductTerm<'_>| term.matrix.direct(term.transposed).is_none() && !stored(term);
        let unpacks = terms.iter().any(unpacked_term);
        let words = format.step_bytes() / 4;
        let panel_words = if unpacks { total.min(PASS_STEPS) * width * words } else { 0 };
        let partial_words = if total > PASS_STEPS { tile_words * width } else { 0 };
        let [unpacked, partial, temporary] = scratch.split([panel_words, partial_words, TEMPORARY]);

        let mut begun = false;
        loop {
            let (pieces, count) = cuts.next_pass();
            let pieces = &pieces[..count];
            let finished = cuts.term == terms.len();

            // Stored weights become panels once for all neighbouring panels: their blocks span several.
            let mut offset = 0;
            for piece in pieces {
                let term = &terms[piece.term];
                if unpacked_term(term) {
                    let steps = (piece.start, piece.steps);
                    let out = &mut unpacked[offset..][..piece.steps * width * words];
                    term.matrix.unpack(isa, term.transposed, (first, width), steps, out, temporary);
                    offset += piece.steps * width * words;
                }
            }

            for panel in 0..width {
                // Where each piece's panel lies, and the largest of those that follow, to be fetched on the way.
                let mut offset = 0;
                let mut next = (std::ptr::null(), 0);
                for (piece, listed) in pieces.iter().zip(list.iter_mut()) {
                    let term = &terms[piece.term];
                    let source = match term.matrix.direct(term.transposed) {
                        Some(start) => {
                            let steps = (first + panel) * format.steps(term.k()) + piece.start;
                            let source = start.wrapping_add(steps * format.step_bytes());
                            let following = format.steps(term.k()) * format.step_bytes();
                            let bytes = piece.steps * format.step_bytes();
                            if bytes > next.1 {
                                next = (source.wrapping_add(following), bytes);
                            }
                            source
                        }
                        None if stored(term) => std::ptr::null(),
                        None => {
                            let at = offset + panel * piece.steps * words;
                            offset += piece.steps * width * words;
                            unpacked[at..].as_ptr().cast()
                        }
                    };
                    let rows = self.packed[piece.term].expect("every input is packed");
                    let stored = stored(term).then_some((term.matrix, first + panel));
                    let &Cut { start, steps, .. } = piece;
                    *listed = Piece { rows, start, steps, panel: source, stored };
                }

                let tiles = partial.as_mut_ptr().wrapping_add(partial_words / width * panel);
                let column = (first + panel) * PANEL;
                let pass = Pass {
                    format,
                    pieces: &list[..pieces.len()],
                    blocks,
                    column,
                    columns: PANEL.min(self.product.n - column),
                    partial: if begun { tiles } else { std::ptr::null_mut() },
                    output: if finished { self.product.output } else { Output::Partial { tiles } },
                    next,
                };
                // SAFETY: the caller's duty; panels and tiles were laid out above.
                unsafe { pass.run(isa) };
            }

            if finished {
                break;
            }
            begun = true;
        }
    }
}

/// Steps of one term.
#[derive(Clone, Copy)]
struct Cut {
    term: usize,
    start: usize,
    steps: usize,
}

/// Cuts the steps of all terms into passes.
struct Cuts<'a> {
    format: Format,
    terms: &'a [ProductTerm<'a>],
    term: usize,
    start: usize,
}

impl Cuts<'_> {
    fn next_pass(&mut self) -> ([Cut; PIECES], usize) {
        let mut cuts = [Cut { term: 0, start: 0, steps: 0 }; PIECES];
        let mut count = 0;
        let mut left = PASS_STEPS;
        while self.term < self.terms.len() {
            let remaining = self.format.steps(self.terms[self.term].k()) - self.start;
            let steps = if remaining <= left { remaining } else { left / CUT * CUT };
            if steps == 0 && remaining > 0 {
                break;
            }
            cuts[count] = Cut { term: self.term, start: self.start, steps };
            count += 1;
            left -= steps;
            self.start += steps;
            if steps == remaining {
                self.term += 1;
                self.start = 0;
            }
        }
        (cuts, count)
    }
}
