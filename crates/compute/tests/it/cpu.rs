//! The CPU backend at every level of the instruction set that this machine has.

use compute::conformance;
use compute::cpu::{Cpu, CpuConfig, Isa, Precision};

/// A test at every level and in both precisions, with these numbers of threads.
fn on_every_cpu<const N: usize>(threads: [usize; N], test: impl Fn([Cpu; N])) {
    for isa in Isa::available() {
        for precision in [Precision::Bf16, Precision::F32] {
            let config = |threads| CpuConfig { threads, isa: Some(isa), precision };
            test(threads.map(|threads| Cpu::new(config(threads)).expect("an available level")));
        }
    }
}

/// On two threads; that one and three make no difference is a test of its own.
#[test]
fn every_row_equals_the_reference() {
    on_every_cpu([2], |[mut cpu]| conformance::check(&mut cpu));
}

#[test]
fn results_do_not_depend_on_threads() {
    on_every_cpu([2, 1, 3], |mut cpus| conformance::assert_same_bits(&mut cpus));
}

#[test]
fn results_do_not_depend_on_company() {
    on_every_cpu([1, 2], |cpus| {
        for mut cpu in cpus {
            conformance::invariance::check(&mut cpu);
        }
    });
}
