//! The oracle itself.

use compute::{Reference, conformance};

#[test]
fn derivatives_equal_finite_differences() {
    conformance::differences::check();
}

#[test]
fn the_reference_is_invariant() {
    conformance::invariance::check(&mut Reference::new());
}

/// Nothing is read before it is written, after it was released, or over an output.
#[test]
fn the_reference_runs_every_row() {
    conformance::check(&mut Reference::new());
}
