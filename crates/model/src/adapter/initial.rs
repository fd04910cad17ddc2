//! How matrices begin.

/// Keeps initial values apart from every other use of the seed.
pub(super) const PURPOSE_INIT: u64 = 0x6c6f_7261;

/// Keeps the directions that a sketch begins with apart from every other use of the hash.
pub(super) const PURPOSE_SKETCH: u64 = 0x736b_6574;
