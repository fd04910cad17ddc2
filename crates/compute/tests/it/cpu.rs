//! The CPU backend at every level of the instruction set that this machine has.

use std::panic::{AssertUnwindSafe, catch_unwind};

use compute::cpu::{Cpu, CpuConfig, Isa, Precision};
use compute::op::{Linear, Term};
use compute::{Backend, DType, Measure, Op, OptimizerKind, Reference, Shape, conformance};

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

/// One more is refused by name, on every device and in a plan.
#[test]
fn a_product_of_too_many_terms_says_so() {
    let config = CpuConfig { threads: 1, isa: None, precision: Precision::F32 };
    let mut cpu = Cpu::new(config).expect("a CPU");
    let mut measure = Measure::of(&cpu);
    let backends: [&mut dyn Backend; 3] = [&mut cpu, &mut measure, &mut Reference::new()];
    for backend in backends {
        backend.reserve(1 << 12).unwrap();
        let values = [0.0; 4];
        let parameter = backend.load_trained(Shape::Matrix(2, 2), &values, OptimizerKind::Sgd);
        let [x, out] = [(); 2].map(|()| backend.alloc(2, DType::F32).unwrap());
        backend.upload(&values[..2], x).unwrap();
        let term = Term { input: x, weight: parameter.unwrap().matrix(), transposed: false };
        let terms = [term; Linear::TERMS_MAX + 1];
        let linear = [Linear::product(1, &terms, out)];
        let run =
            AssertUnwindSafe(|| backend.run(Op::Linear(&linear)).and_then(|()| backend.sync()));
        let payload = catch_unwind(run).expect_err("too many terms");
        let message = payload.downcast_ref::<String>().expect("a message");
        assert_eq!(message, "linear: 17 terms, a product takes 1 to 16");
    }
}
