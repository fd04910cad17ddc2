//! The divergence of two models' distributions over the vocabulary, and its derivative by the logits of one.

use super::{Cap, HeadJob, RUN, RowSums, Sums};
use crate::cpu::math;
use crate::cpu::operand::LANES;
use crate::cpu::panel::Machine;
use crate::cpu::pool::Pointers;
use crate::cpu::simd::{Kernel, Simd, dispatch};
use crate::cpu::weight::Matrix;

/// What `Op::HeadDivergence` says of the teacher and of the divergence.
#[derive(Clone, Copy)]
pub(crate) struct Teacher<'a> {
    /// `[R, C]`, operand.
    pub(crate) hidden: *const u8,
    pub(crate) matrix: &'a Matrix,
    pub(crate) scale: f32,
    pub(crate) softcap: Option<f32>,
    /// Share of the teacher in the mixture.
    pub(crate) mix: f32,
    /// `[R]`: d(loss)/d(divergence); empty where no gradient is wanted.
    pub(crate) gradient: &'a [f32],
    /// `[R]`
    pub(crate) divergence: *mut f32,
}

/// Divergences of a chunk's reads, `(first, count)`. Where a gradient is wanted, the student's logits become
/// d(loss)/d(product).
///
/// # Safety
/// Both logits have a row for every read of the chunk.
pub(super) unsafe fn divergences(
    machine: Machine<'_>,
    job: &HeadJob<'_>,
    teacher: &Teacher<'_>,
    (first, count): (usize, usize),
    logits: *mut f32,
    wanted: *mut f32,
) {
    let shared = Pointers((job, teacher, logits, wanted));
    machine.pool.run(count, &|row, _| {
        let (job, teacher, logits, wanted) = { &shared }.0;
        let sizes = [job.matrix.rows, teacher.matrix.rows];
        // SAFETY: each task has rows of its own.
        let [own, wanted] = unsafe {
            [(logits, sizes[0]), (wanted, sizes[1])]
                .map(|(start, size)| std::slice::from_raw_parts_mut(start.add(row * size), size))
        };
        let tokens = sizes[0].min(sizes[1]);
        let (own, beyond) = own.split_at_mut(tokens);
        let caps = [job.cap(), Cap::new(teacher.softcap, job.temperature)];
        let read = first + row;
        let weight = teacher.gradient.get(read).copied();
        let mut divergence = 0.0;
        let pair = Pair {
            own,
            wanted: &mut wanted[..tokens],
            caps,
            mix: teacher.mix,
            // Derivatives by products: those by `z` times this.
            weight: weight.map(|weight| weight * job.scale / job.temperature),
            divergence: &mut divergence,
        };
        dispatch(machine.isa, pair);
        // Tokens that the teacher does not know are no part of what is compared.
        if weight.is_some() {
            beyond.fill(0.0);
        }
        // SAFETY: the caller's duty: there is one for every read.
        unsafe { *teacher.divergence.add(read) = divergence as f32 };
    });
}

/// Two rows of logits.
struct Pair<'a> {
    /// Of the student.
    own: &'a mut [f32],
    /// Of the teacher.
    wanted: &'a mut [f32],
    caps: [Cap; 2],
    mix: f32,
    /// Factor of derivatives; none where none are wanted.
    weight: Option<f32>,
    divergence: &'a mut f64,
}

/// Which sum of terms a divergence is.
#[derive(Clone, Copy)]
enum Kind {
    /// `KL(q || p)`
    Forward,
    /// `KL(p || q)`
    Reverse,
    /// Of both from their mixture.
    Mixed(f32),
}

impl Kernel for Pair<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Pair { own, wanted, caps, mix, weight, divergence } = self;
        let lse = [(&mut *own, caps[0]), (&mut *wanted, caps[1])].map(|(logits, cap)| {
            let mut sums = Sums::default();
            RowSums { logits, cap, extra: false, top1: false, sums: &mut sums }.run(simd);
            sums.lse() as f32
        });
        let terms = Terms {
            factors: caps.map(|cap| simd.splat(cap.factor)),
            lse: lse.map(|lse| simd.splat(lse)),
            kind: match mix {
                0.0 => Kind::Forward,
                1.0 => Kind::Reverse,
                mix => Kind::Mixed(mix),
            },
        };
        // Of the student from the mixture, of the teacher from it.
        let mut sums = [0.0_f64; 2];
        let (own_whole, own_rest) = own.as_chunks::<LANES>();
        let (wanted_whole, wanted_rest) = wanted.as_chunks::<LANES>();
        let runs = own_whole.chunks(RUN / LANES).zip(wanted_whole.chunks(RUN / LANES));
        let last = [padded(own_rest), padded(wanted_rest)];
        for (own, wanted) in runs.chain([(&last[..1], &last[1..])]) {
            let mut totals = [simd.zero(); 2];
            for (own, wanted) in own.iter().zip(wanted) {
                let [of_student, of_teacher] = terms.of(simd, simd.load(own), simd.load(wanted));
                totals[0] = simd.add(totals[0], of_student);
                totals[1] = simd.add(totals[1], of_teacher);
            }
            sums[0] += f64::from(simd.sum(totals[0]));
            sums[1] += f64::from(simd.sum(totals[1]));
        }
        let mix = f64::from(mix);
        let sum = match terms.kind {
            Kind::Forward => sums[1],
            Kind::Reverse => sums[0],
            Kind::Mixed(_) => (1.0 - mix) * sums[0] + mix * sums[1],
        };
        // Terms of both signs may end a little under 0. NaN stays.
        *divergence = if sum < 0.0 { 0.0 } else { sum };
        let Some(weight) = weight else { return };
        let slopes = Slopes {
            terms: &terms,
            of_student: simd.splat(sums[0] as f32),
            weight: simd.splat(match terms.kind {
                Kind::Mixed(mix) => weight * (1.0 - mix),
                _ => weight,
            }),
            is_capped: caps[0].inverse.is_some(),
        };
        let (own_whole, own_rest) = own.as_chunks_mut::<LANES>();
        for (own, wanted) in own_whole.iter_mut().zip(wanted_whole) {
            let slope = slopes.of(simd, simd.load(own), simd.load(wanted));
            simd.store(slope, own);
        }
        let slope = slopes.of(simd, simd.load(&last[0]), simd.load(&last[1]));
        own_rest.copy_from_slice(&simd.lanes(slope)[..own_rest.len()]);
    }
}

/// The last logits of a row, filled up with such that have no probability.
fn padded(rest: &[f32]) -> [f32; LANES] {
    let mut last = [-1e30; LANES];
    last[..rest.len()].copy_from_slice(rest);
    last
}

/// What stored logits become log-probabilities by.
struct Terms<S: Simd> {
    factors: [S::V; 2],
    lse: [S::V; 2],
    kind: Kind,
}

impl<S: Simd> Terms<S> {
    /// `log p` and `log q` of stored logits.
    #[inline(always)]
    fn logprobs(&self, simd: S, own: S::V, wanted: S::V) -> [S::V; 2] {
        [
            simd.sub(simd.mul(own, self.factors[0]), self.lse[0]),
            simd.sub(simd.mul(wanted, self.factors[1]), self.lse[1]),
        ]
    }

    /// `log p - log m`.
    #[inline(always)]
    fn apart(&self, simd: S, [p, q]: [S::V; 2]) -> S::V {
        let Kind::Mixed(mix) = self.kind else { return simd.sub(p, q) };
        // Where one of them is this much less likely, the other is all of the mixture.
        let ratio = simd.exp(simd.min(simd.splat(80.0), simd.sub(q, p)));
        let mut lanes = simd.lanes(simd.fma(ratio, simd.splat(mix), simd.splat(1.0 - mix)));
        for lane in &mut lanes {
            *lane = -math::ln(*lane);
        }
        simd.load(&lanes)
    }

    /// `p (log p - log m)` and `q (log q - log m)`.
    #[inline(always)]
    fn of(&self, simd: S, own: S::V, wanted: S::V) -> [S::V; 2] {
        let logprobs @ [p, q] = self.logprobs(simd, own, wanted);
        let apart = self.apart(simd, logprobs);
        let of_student = || simd.mul(simd.exp(p), apart);
        // log q - log m = (log q - log p) + (log p - log m)
        let of_teacher = |apart| simd.mul(simd.exp(q), simd.add(simd.sub(q, p), apart));
        match self.kind {
            Kind::Forward => [simd.zero(), of_teacher(simd.zero())],
            Kind::Reverse => [of_student(), simd.zero()],
            Kind::Mixed(_) => [of_student(), of_teacher(apart)],
        }
    }
}

/// What derivatives take beside.
struct Slopes<'a, S: Simd> {
    terms: &'a Terms<S>,
    of_student: S::V,
    weight: S::V,
    is_capped: bool,
}

impl<S: Simd> Slopes<'_, S> {
    /// d(loss)/d(product) of stored logits.
    #[inline(always)]
    fn of(&self, simd: S, own: S::V, wanted: S::V) -> S::V {
        let logprobs = self.terms.logprobs(simd, own, wanted);
        let [p, q] = logprobs.map(|logprob| simd.exp(logprob));
        let dz = match self.terms.kind {
            Kind::Forward => simd.sub(p, q),
            Kind::Reverse | Kind::Mixed(_) => {
                let apart = self.terms.apart(simd, logprobs);
                simd.mul(p, simd.sub(apart, self.of_student))
            }
        };
        let one = simd.splat(1.0);
        let bend = if self.is_capped { simd.sub(one, simd.mul(own, own)) } else { one };
        simd.mul(simd.mul(dz, bend), self.weight)
    }
}
