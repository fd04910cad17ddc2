//! A CPU that fails in the middle of its work.

use compute::cpu::{Cpu, CpuConfig, Isa, Precision};
use compute::{Backend, Error, Op, Result, Wrapper};

/// Runs so many operations, and then none.
pub(crate) struct Failing {
    cpu: Cpu,
    pub(crate) left: usize,
}

impl Failing {
    pub(crate) fn new(left: usize) -> Self {
        Failing { cpu: cpu(), left }
    }
}

pub(crate) fn cpu() -> Cpu {
    let (threads, isa, precision) = (1, Some(Isa::Portable), Precision::F32);
    Cpu::new(CpuConfig { threads, isa, precision }).unwrap()
}

impl Wrapper for Failing {
    fn inner(&self) -> &dyn Backend {
        &self.cpu
    }

    fn inner_mut(&mut self) -> &mut dyn Backend {
        &mut self.cpu
    }

    fn run_op(&mut self, op: Op<'_>) -> Result<()> {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return Err(Error::OutOfMemory { device: "failing", needed: 1, reserved: 0 }),
        }
        self.cpu.run(op)
    }
}
