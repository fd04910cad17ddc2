//! What holds between this crate and the demo that it measures.

mod demo;
