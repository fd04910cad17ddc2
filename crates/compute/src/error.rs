//! What can go wrong on a device that is not a bug.

/// An error of a backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The stack is smaller than the step needs.
    #[error("out of {device} memory: {needed} bytes needed, {reserved} reserved")]
    OutOfMemory {
        /// Kind of device.
        device: &'static str,
        /// Height the stack would have reached.
        needed: usize,
        /// Its size.
        reserved: usize,
    },
    /// The bytes of a weight do not fit its shape.
    #[error("a {storage:?} matrix of {rows} x {cols} has {expected} bytes, not {actual}")]
    WeightBytes {
        /// How it is stored.
        storage: crate::Storage,
        /// Outputs.
        rows: usize,
        /// Inputs.
        cols: usize,
        /// What the shape asks for; 0 where a row does not fill whole blocks.
        expected: usize,
        /// What there is.
        actual: usize,
    },
    /// The parts of a quantised matrix do not fit its shape.
    #[error("a quantised matrix of {rows} x {cols} has {expected} {part}, not {actual}")]
    QuantizedParts {
        /// Which.
        part: &'static str,
        /// Outputs.
        rows: usize,
        /// Inputs.
        cols: usize,
        /// What the shape asks for.
        expected: usize,
        /// What there is.
        actual: usize,
    },
    /// A weight is broken.
    #[error("row {row} of a matrix of {rows} x {cols} holds NaN or infinity")]
    NotFinite {
        /// The row.
        row: usize,
        /// Outputs.
        rows: usize,
        /// Inputs.
        cols: usize,
    },
    /// What all codes of a quantised matrix are multiplied by is broken.
    #[error("the {part} of a quantised matrix holds NaN or infinity")]
    NotFinitePart {
        /// Which.
        part: &'static str,
    },
    /// The device failed.
    #[error("{device}: {message}")]
    Device {
        /// Kind of device.
        device: &'static str,
        /// What it said.
        message: String,
    },
}

/// The result of a backend's call.
pub type Result<T> = std::result::Result<T, Error>;
