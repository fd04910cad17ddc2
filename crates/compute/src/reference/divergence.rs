//! How far two distributions over the vocabulary are apart, and the gradient.

use super::head::{DWeight, distribution};
use super::memory::Memory;
use crate::op::{HeadDivergence, Logits};

pub(super) fn run(memory: &mut Memory, op: &HeadDivergence) {
    let (reads, cols) = (op.reads, op.student.weight.cols);
    let tokens = op.student.weight.rows.min(op.teacher.weight.rows);
    let given = op.gradient.map(|gradient| memory.numbers(gradient, reads));
    assert_eq!(given.is_some(), op.d_hidden.is_some(), "a gradient wants `d_hidden`");
    let mut d_weight =
        op.d_weight.map(|given| DWeight::new(memory, reads, op.student.weight, &given));
    let hidden =
        |memory: &mut Memory, of: &Logits| memory.numbers(of.hidden, reads * of.weight.cols);
    let (student, teacher) = (hidden(memory, &op.student), hidden(memory, &op.teacher));
    let mut divergences = Vec::with_capacity(reads);
    let mut d_hidden = vec![0.0; reads * cols];
    for read in 0..reads {
        let row = |of: &Logits, hidden: &[f64]| {
            let cols = of.weight.cols;
            distribution(memory, of, op.temperature, tokens, &hidden[read * cols..][..cols])
        };
        let (own, wanted) = (row(&op.student, &student), row(&op.teacher, &teacher));
        let (divergence, slopes) = divergence(&own.logprobs, &wanted.logprobs, f64::from(op.mix));
        divergences.push(divergence);
        let Some(given) = &given else { continue };
        for (token, slope) in slopes.into_iter().enumerate() {
            let factor = given[read] * slope * own.slopes[token];
            let row = memory.factor(op.student.weight).row(token);
            let d_hidden = d_hidden[read * cols..][..cols].iter_mut();
            d_hidden.zip(row).for_each(|(d_hidden, w)| *d_hidden += factor * w);
            if let Some(d_weight) = &mut d_weight {
                d_weight.add(token, factor, &student[read * cols..][..cols]);
            }
        }
    }
    memory.write(op.divergence, &divergences);
    if let Some(out) = op.d_hidden {
        memory.write(out, &d_hidden);
    }
    if let Some(d_weight) = d_weight {
        memory.write(d_weight.buffer, &d_weight.gradient);
    }
}

/// The divergence, and its derivative by each of the student's logits.
fn divergence(p: &[f64], q: &[f64], mix: f64) -> (f64, Vec<f64>) {
    let pairs = || p.iter().zip(q);
    if mix == 0.0 {
        let kl = pairs().map(|(p, q)| q.exp() * (q - p)).sum();
        return (kl, pairs().map(|(p, q)| p.exp() - q.exp()).collect());
    }
    // Of the student from the mixture; from the teacher itself where nothing else is mixed in.
    let apart = |p: f64, q: f64| match mix == 1.0 {
        true => p - q,
        false => p - (mix * q.exp() + (1.0 - mix) * p.exp()).ln(),
    };
    let of_student: f64 = pairs().map(|(&p, &q)| p.exp() * apart(p, q)).sum();
    let (share, of_teacher) = match mix == 1.0 {
        true => (1.0, 0.0),
        false => {
            let of_teacher: f64 = pairs().map(|(&p, &q)| q.exp() * (q - p + apart(p, q))).sum();
            (1.0 - mix, mix * of_teacher)
        }
    };
    let slopes = pairs().map(|(&p, &q)| share * p.exp() * (apart(p, q) - of_student));
    (share * of_student + of_teacher, slopes.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::divergence;

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    }

    #[track_caller]
    fn check_close(own: f64, expected: f64) {
        assert!((own - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{own} {expected}");
    }

    #[test]
    fn divergences_and_slopes_equal_those_of_trl() {
        let golden = include_str!("../../tests/golden/divergences.json");
        let golden: Value = serde_json::from_str(golden).unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let [mix, temperature] =
                ["mix", "temperature"].map(|name| case[name].as_f64().unwrap());
            let logprobs = |logits: &Value| {
                let z: Vec<f64> = numbers(logits).iter().map(|logit| logit / temperature).collect();
                let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
                z.into_iter().map(|z| z - lse).collect::<Vec<f64>>()
            };
            for read in 0..golden["reads"].as_u64().unwrap() as usize {
                let [p, q] = ["student", "teacher"].map(|name| logprobs(&golden[name][read]));
                let (own, slopes) = divergence(&p, &q, mix);
                check_close(own, case["divergences"][read].as_f64().unwrap());
                for (slope, expected) in slopes.iter().zip(numbers(&case["gradients"][read])) {
                    check_close(slope / temperature, expected);
                }
            }
        }
    }
}
