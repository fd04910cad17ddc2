//! Which device there is for a wish: the one place above the backends that names them.

use crate::cpu::{Cpu, CpuConfig, Isa};
use crate::{Backend, Precision, Result};

/// What is wished of a device.
#[derive(Clone, Copy, Debug)]
pub struct DeviceConfig<'a> {
    /// Compute threads of the CPU, at least one.
    pub threads: usize,
    /// Name of the instruction set; the best that the processor has where none is named.
    pub isa: Option<&'a str>,
    /// Type of operands.
    pub precision: Precision,
}

/// Bytes that may be taken, by the memory that they lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Of the host's memory.
    pub host: usize,
    /// Of the device's own; none where it works in the host's.
    pub device: Option<usize>,
}

impl MemoryLimits {
    /// The limit that so many bytes on host and device exceed; none where they fit.
    pub fn exceeded(&self, host: usize, device: usize) -> Option<usize> {
        match self.device {
            None => (host + device > self.host).then_some(self.host),
            Some(limit) if device > limit => Some(limit),
            Some(_) => (host > self.host).then_some(self.host),
        }
    }
}

/// Opens a device. A level of instructions that is unknown or missing here is an error.
pub fn open(config: DeviceConfig<'_>) -> Result<Box<dyn Backend>> {
    let DeviceConfig { threads, isa, precision } = config;
    let isa: Option<Isa> = isa.map(str::parse).transpose()?;
    Ok(Box::new(Cpu::new(CpuConfig { threads, isa, precision })?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn a_device_without_memory_of_its_own_shares_the_hosts() {
        let shared = MemoryLimits { host: 10, device: None };
        assert_eq!((shared.exceeded(4, 6), shared.exceeded(5, 6)), (None, Some(10)));
        let apart = MemoryLimits { host: 10, device: Some(6) };
        assert_eq!((apart.exceeded(10, 6), apart.exceeded(5, 7)), (None, Some(6)));
        assert_eq!(apart.exceeded(11, 6), Some(10));
    }

    #[test]
    fn a_device_is_what_was_wished_for() {
        let config = DeviceConfig { threads: 2, isa: Some("portable"), precision: Precision::F32 };
        let backend = open(config).unwrap();
        let device = backend.device();
        assert_eq!((device.kind, device.isa, device.threads), ("cpu", "portable", 2));
        assert_eq!(backend.operand(), DType::F32);
        let error = open(DeviceConfig { isa: Some("mmx"), ..config }).err().unwrap().to_string();
        assert!(error.contains("mmx"), "{error}");
        assert!(open(DeviceConfig { threads: 0, ..config }).is_err());
    }
}
