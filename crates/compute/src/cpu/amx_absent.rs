//! Where there is no AMX: targets that are not Linux on x86-64.

use super::gemm::Work;

pub(crate) const ROWS: usize = 32;

pub(crate) fn is_available() -> bool {
    false
}

/// Never made.
#[derive(Default)]
pub(crate) struct Tiles;

impl Tiles {
    /// # Safety
    /// Never called: [`is_available`] says no.
    pub(crate) unsafe fn multiply(&mut self, _: Work<'_>) {
        unreachable!("there is no AMX here")
    }
}
