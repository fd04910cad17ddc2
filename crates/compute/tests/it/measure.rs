//! What is measured is what the CPU backend takes.

use compute::cpu::{Cpu, CpuConfig, Precision};
use compute::{Backend, DType, Measure, conformance};

#[test]
fn every_operation_can_be_measured() {
    let mut measure = Measure::new(DType::Bf16);
    for row in conformance::rows() {
        row.run(&mut measure);
    }
    let report = measure.report();
    assert!(report.flops_linear > 0 && report.flops_weight_gradient > 0, "{report:?}");
    assert!(report.flops_attention > 0 && report.flops_head > 0, "{report:?}");
}

#[test]
fn the_stack_grows_as_on_the_cpu() {
    let config = CpuConfig { threads: 1, isa: None, precision: Precision::Bf16 };
    let mut cpu = Cpu::new(config).expect("a CPU");
    let mut measure = Measure::new(cpu.operand());
    let backends: [&mut dyn Backend; 2] = [&mut cpu, &mut measure];
    let heights = backends.map(|backend| {
        backend.reserve(1 << 16).expect("a stack");
        let sizes = [(1, DType::F32), (33, DType::Bf16), (0, DType::F32), (16, DType::U32)];
        sizes.map(|(len, dtype)| {
            backend.alloc(len, dtype).expect("alloc");
            backend.mark()
        })
    });
    assert_eq!(heights[0], heights[1]);
}
