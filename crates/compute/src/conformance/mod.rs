//! One suite for every backend: the same rows, compared with the f64 reference.
//!
//! A [`Row`] builds seeded inputs, runs operations and keeps outputs. [`check`] runs all rows on a backend
//! and on [`Reference`]; [`invariance`] asks a backend whether a result depends on its company, and
//! [`differences`] compares the derivatives of the reference with its own finite differences.
//!
//! ```
//! # use compute::conformance;
//! // The oracle agrees with itself; a device goes in its place.
//! let mut backend = compute::Reference::new();
//! conformance::check(&mut backend);
//! conformance::invariance::check(&mut backend);
//! ```

mod attention;
mod batch;
mod columns;
pub mod differences;
mod elementwise;
mod head;
pub mod invariance;
mod layout;
mod linear;
mod moves;
mod nan;
mod quantized;
mod stored;
mod training;
mod trial;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use crate::{Backend, DType, Reference};
pub use trial::{Output, Trial, Values};

/// Bytes of stack that a backend is given for the suite.
pub const STACK_BYTES: usize = 64 << 20;

/// Something to run on a backend.
pub struct Row {
    /// What it does, in a few words.
    pub name: String,
    body: Box<dyn Fn(&mut Trial<'_>)>,
}

impl Row {
    /// A row; its inputs are drawn by its name.
    pub fn new(name: impl Into<String>, body: impl Fn(&mut Trial<'_>) + 'static) -> Self {
        Row { name: name.into(), body: Box::new(body) }
    }

    /// Runs it and gives back everything that it took.
    ///
    /// # Panics
    /// Where the backend fails or panics.
    pub fn run(&self, backend: &mut dyn Backend) -> Vec<Output> {
        let mark = backend.mark();
        let mut trial = Trial::new(backend, &self.name);
        // The message of a kernel does not say on which row it came.
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.body)(&mut trial)));
        assert!(outcome.is_ok(), "`{}` panicked", self.name);
        let outputs = trial.finish();
        backend.release(mark);
        outputs
    }
}

/// All rows: every operation and variant.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    moves::add(&mut rows);
    elementwise::add(&mut rows);
    columns::add(&mut rows);
    linear::add(&mut rows);
    quantized::add(&mut rows);
    attention::add(&mut rows);
    head::add(&mut rows);
    training::add(&mut rows);
    nan::add(&mut rows);
    rows
}

/// How far an output may be from the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Most relative error of the output as a whole, as norms: `|a - b| / |b|`.
    pub norm: f64,
    /// Most error of a single element, as a share of its size and the output's root mean square together:
    /// `|a_i - b_i| / (|b_i| + rms(b))`.
    ///
    /// The norm alone lets an element among ten thousand be wrong by as much as an element is large. Beside its own
    /// size counts that of the others, for sums that cancel keep the rounding of their terms.
    pub element: f64,
}

impl Tolerance {
    /// Of results with operands of this type. Inputs are exact in bfloat16, so what differs is the rounding of outputs
    /// and of what lies between. Where kernels multiply pairs of bf16, a gradient of attention is off by up to 6 % of
    /// its size in one element of ten thousand: the softmax's weights were rounded.
    pub fn of(operand: DType) -> Self {
        match operand {
            DType::Bf16 => Tolerance { norm: 1e-2, element: 8e-2 },
            _ => Tolerance { norm: 1e-4, element: 4e-4 },
        }
    }
}

/// What the reference makes of every row, computed once.
static EXPECTED: LazyLock<Vec<Vec<Output>>> = LazyLock::new(|| {
    let mut reference = Reference::new();
    reference.reserve(STACK_BYTES).expect("a stack for the suite");
    rows().iter().map(|row| row.run(&mut reference)).collect()
});

/// Runs every row on the backend, whose stack is empty, and names the outputs that differ from the reference.
pub fn failures(backend: &mut dyn Backend) -> Vec<String> {
    let tolerance = Tolerance::of(backend.operand());
    backend.reserve(STACK_BYTES).expect("a stack for the suite");
    let mut failures = Vec::new();
    for (row, expected) in rows().iter().zip(EXPECTED.iter()) {
        let outputs = row.run(backend);
        assert_eq!(outputs.len(), expected.len(), "outputs of {}", row.name);
        for (output, expected) in outputs.iter().zip(expected) {
            if let Err(problem) = output.compare(expected, tolerance) {
                failures.push(format!("{}: {}: {problem}", row.name, output.name));
            }
        }
    }
    failures
}

/// Panics with the list of [`failures`] where there are any.
#[track_caller]
pub fn check(backend: &mut dyn Backend) {
    let failures = failures(backend);
    let device = backend.device();
    assert!(failures.is_empty(), "{device:?} differs from the reference:\n{}", failures.join("\n"));
}

/// Runs every row on all backends and panics where one differs from the first in a bit.
#[track_caller]
pub fn assert_same_bits<B: Backend>(backends: &mut [B]) {
    for backend in &mut *backends {
        backend.reserve(STACK_BYTES).expect("a stack for the suite");
    }
    for row in rows() {
        let mut all = backends.iter_mut().map(|backend| (backend.device(), row.run(backend)));
        let Some((first_device, first)) = all.next() else { return };
        for (device, outputs) in all {
            for (a, b) in first.iter().zip(outputs) {
                let (name, output) = (&row.name, &a.name);
                assert_eq!(a.bits(), b.bits(), "{name}: {output}: {first_device:?} and {device:?}");
            }
        }
    }
}
