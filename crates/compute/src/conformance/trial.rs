//! What a row of the suite works with: a backend, seeded inputs, kept outputs.

use half::bf16;

use super::Tolerance;
use super::stored::stored;
use crate::optimizer::MOMENT_BLOCK;
use crate::random::{key, uniform};
use crate::{
    Backend, Buffer, DType, DynamicMap, LookupSource, Op, OptimizerKind, Parameter, Quantization,
    QuantizedSource, Shape, Storage, Weight, WeightSource,
};

/// An output of a row.
#[derive(Clone, Debug)]
pub struct Output {
    /// What it is, as the field of the operation is called.
    pub name: String,
    /// What came out.
    pub values: Values,
}

/// The values of an [`Output`].
#[derive(Clone, Debug)]
pub enum Values {
    /// Compared within a tolerance.
    Numbers(Vec<f32>),
    /// Compared exactly.
    Integers(Vec<u32>),
    /// Compared one by one: each may be the level next to the one expected.
    Levels {
        /// What the codes stand for.
        values: Vec<f32>,
        /// Distance from each value to the farther of its neighbours.
        gaps: Vec<f32>,
    },
}

impl Output {
    /// Says how it differs from what was expected, where it does.
    pub fn compare(&self, expected: &Output, tolerance: Tolerance) -> Result<(), String> {
        match (&self.values, &expected.values) {
            (Values::Integers(a), Values::Integers(b)) if a == b => Ok(()),
            (Values::Numbers(a), Values::Numbers(b)) => {
                let error = relative_error(a, b);
                // Not `error > tolerance`: NaN is an error too.
                if error <= tolerance.norm {
                    return compare_elements(a, b, tolerance.element);
                }
                Err(format!("relative error {error:.2e}"))
            }
            (Values::Integers(a), Values::Integers(b)) => {
                let first = a.iter().zip(b).position(|(a, b)| a != b);
                let at = first.unwrap_or(a.len().min(b.len()));
                Err(format!("integer {at} is {:?}, not {:?}", a.get(at), b.get(at)))
            }
            (Values::Levels { values: a, gaps }, Values::Levels { values: b, gaps: other }) => {
                assert_eq!(a.len(), b.len(), "outputs of one length");
                // Magnitudes of blocks differ by rounding, so the gap is a little wide.
                let near = |i: &usize| (a[*i] - b[*i]).abs() <= 1.001 * gaps[*i].max(other[*i]);
                match (0..a.len()).find(|i| !near(i)) {
                    None => Ok(()),
                    Some(at) => Err(format!("level {at} is {}, not {}", a[at], b[at])),
                }
            }
            _ => panic!("{} is numbers on one backend and integers on the other", self.name),
        }
    }

    /// The values bit by bit.
    pub fn bits(&self) -> Vec<u32> {
        match &self.values {
            Values::Integers(values) => values.clone(),
            Values::Numbers(values) | Values::Levels { values, .. } => {
                values.iter().map(|value| value.to_bits()).collect()
            }
        }
    }
}

/// `|a - b| / |b|`, or `|a|` where b is zero.
fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "outputs of one length");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let pairs = a.iter().zip(b).map(|(&a, &b)| (f64::from(a), f64::from(b)));
    let difference = norm(&mut pairs.clone().map(|(a, b)| a - b));
    let size = norm(&mut pairs.map(|(_, b)| b));
    if size == 0.0 { difference } else { difference / size }
}

/// Names the first element that is farther off than [`Tolerance::element`] allows. Zeros alone have the size 1, as in
/// [`relative_error`].
fn compare_elements(a: &[f32], b: &[f32], tolerance: f64) -> Result<(), String> {
    let squares: f64 = b.iter().map(|&b| f64::from(b).powi(2)).sum();
    let rms = if squares == 0.0 { 1.0 } else { (squares / b.len() as f64).sqrt() };
    let near = |(a, b): (&f32, &f32)| {
        let (a, b) = (f64::from(*a), f64::from(*b));
        (a - b).abs() <= tolerance * (b.abs() + rms)
    };
    match a.iter().zip(b).position(|pair| !near(pair)) {
        Some(at) => Err(format!("element {at} is {}, not {}", a[at], b[at])),
        None => Ok(()),
    }
}

/// A backend on which a row runs. Inputs are uniform in `[-1, 1)`, exact in
/// bfloat16, and the same on every backend; outputs start as NaN.
pub struct Trial<'a> {
    backend: &'a mut dyn Backend,
    seed: u64,
    weights: Vec<Weight>,
    parameters: Vec<Parameter>,
    outputs: Vec<Output>,
}

impl<'a> Trial<'a> {
    pub(super) fn new(backend: &'a mut dyn Backend, name: &str) -> Self {
        let words: Vec<u64> = name.bytes().map(u64::from).collect();
        Trial {
            backend,
            seed: key(&words),
            weights: Vec::new(),
            parameters: Vec::new(),
            outputs: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Vec<Output> {
        self.backend.sync().expect("sync");
        self.weights.into_iter().for_each(|weight| self.backend.unload(weight));
        self.parameters.into_iter().for_each(|parameter| self.backend.unload_trained(parameter));
        self.outputs
    }

    /// The type that matrix products multiply in.
    pub fn operand(&self) -> DType {
        self.backend.operand()
    }

    /// New random numbers.
    pub fn random(&mut self, len: usize) -> Vec<f32> {
        self.seed = key(&[self.seed]);
        let number = |i| bf16::from_f32(2.0 * uniform(key(&[self.seed, i])) - 1.0).to_f32();
        (0..len as u64).map(number).collect()
    }

    /// New random numbers below `end`.
    pub fn random_below(&mut self, len: usize, end: u32) -> Vec<u32> {
        self.seed = key(&[self.seed]);
        (0..len as u64).map(|i| (key(&[self.seed, i]) % u64::from(end)) as u32).collect()
    }

    /// A buffer that holds `values`.
    pub fn upload(&mut self, values: &[f32], dtype: DType) -> Buffer {
        let buffer = self.backend.alloc(values.len(), dtype).expect("alloc");
        self.backend.upload(values, buffer).expect("upload");
        buffer
    }

    /// A random input in f32.
    pub fn f32(&mut self, len: usize) -> Buffer {
        let values = self.random(len);
        self.upload(&values, DType::F32)
    }

    /// A random input in the operand type.
    pub fn operands(&mut self, len: usize) -> Buffer {
        let values = self.random(len);
        self.upload(&values, self.operand())
    }

    /// An input of integers.
    pub fn integers(&mut self, values: &[u32]) -> Buffer {
        let buffer = self.backend.alloc(values.len(), DType::U32).expect("alloc");
        self.backend.upload_u32(values, buffer).expect("upload");
        buffer
    }

    /// A buffer to be overwritten.
    pub fn out(&mut self, len: usize, dtype: DType) -> Buffer {
        match dtype {
            DType::U32 => self.integers(&vec![u32::MAX; len]),
            _ => self.upload(&vec![f32::NAN; len], dtype),
        }
    }

    /// A frozen matrix of random values; the rows of block types are whole blocks.
    pub fn weight(&mut self, rows: usize, cols: usize, storage: Storage) -> Weight {
        self.weight_in_order(rows, cols, storage, None)
    }

    /// A frozen matrix whose rows are permuted.
    pub fn weight_in_order(
        &mut self,
        rows: usize,
        cols: usize,
        storage: Storage,
        row_order: Option<&[u32]>,
    ) -> Weight {
        let bytes = stored(storage, rows * cols, self.next_seed());
        self.load(WeightSource { rows, cols, storage, bytes: &bytes, row_order })
    }

    /// A seed that was not used before.
    pub(super) fn next_seed(&mut self) -> u64 {
        self.seed = key(&[self.seed]);
        self.seed
    }

    /// A frozen matrix.
    pub fn load(&mut self, source: WeightSource<'_>) -> Weight {
        let weight = self.backend.load(source).expect("load");
        self.weights.push(weight);
        weight
    }

    /// A frozen matrix that is quantised on the way.
    pub fn load_as(&mut self, source: WeightSource<'_>, to: Quantization) -> Weight {
        let weight = self.backend.load_as(source, to).expect("load");
        self.weights.push(weight);
        weight
    }

    /// A frozen matrix that is quantised already.
    pub fn load_quantized(&mut self, source: QuantizedSource<'_>) -> Weight {
        let weight = self.backend.load_quantized(source).expect("load");
        self.weights.push(weight);
        weight
    }

    /// A matrix that is only looked up.
    pub fn load_lookup(&mut self, source: LookupSource) -> Weight {
        let weight = self.backend.load_lookup(source).expect("load");
        self.weights.push(weight);
        weight
    }

    /// A trained matrix of random values.
    pub fn trained(&mut self, rows: usize, cols: usize) -> Parameter {
        self.parameter(Shape::Matrix(rows, cols), OptimizerKind::AdamW)
    }

    /// A parameter of random values.
    pub fn parameter(&mut self, shape: Shape, optimizer: OptimizerKind) -> Parameter {
        let values = self.random(shape.len());
        let parameter = self.backend.load_trained(shape, &values, optimizer).expect("load");
        self.parameters.push(parameter);
        parameter
    }

    /// A matrix of random values whose parts of so many rows are multiplied apart.
    pub fn parameter_of_parts(
        &mut self,
        shape: Shape,
        parts: &[usize],
        optimizer: OptimizerKind,
    ) -> Parameter {
        let values = self.random(shape.len());
        let parameter = self.backend.load_trained_parts(shape, parts, &values, optimizer);
        let parameter = parameter.expect("load");
        self.parameters.push(parameter);
        parameter
    }

    /// Writes bytes over a buffer.
    pub fn write_u8(&mut self, values: &[u8], out: Buffer) {
        self.backend.upload_u8(values, out).expect("upload");
    }

    /// Writes numbers over a buffer.
    pub fn write(&mut self, values: &[f32], out: Buffer) {
        self.backend.upload(values, out).expect("upload");
    }

    /// Runs an operation.
    pub fn run(&mut self, op: Op<'_>) {
        self.backend.run(op).expect("run");
    }

    /// Reads numbers.
    pub fn read(&mut self, buffer: Buffer) -> Vec<f32> {
        let mut values = vec![0.0; buffer.len];
        self.backend.read(buffer, &mut values).expect("read");
        values
    }

    /// Keeps which of a buffer's numbers are NaN.
    pub fn keep_nan(&mut self, name: impl Into<String>, buffer: Buffer) {
        let values = self.read(buffer).into_iter().map(|value| u32::from(value.is_nan())).collect();
        self.outputs.push(Output { name: name.into(), values: Values::Integers(values) });
    }

    /// Keeps what codes with their blocks' magnitudes stand for.
    pub fn keep_levels(
        &mut self,
        name: impl Into<String>,
        codes: Buffer,
        absmax: Buffer,
        map: &DynamicMap,
    ) {
        let mut read = vec![0; codes.len];
        self.backend.read_u8(codes, &mut read).expect("read");
        let absmax = self.read(absmax);
        let level = |code: u8| map.levels()[usize::from(code)];
        let gap = |code: u8| {
            let neighbours = [code.saturating_sub(1), code.saturating_add(1)].map(level);
            neighbours.map(|other| (other - level(code)).abs()).into_iter().fold(0.0, f32::max)
        };
        let scaled = |of: &dyn Fn(u8) -> f32| -> Vec<f32> {
            read.iter().enumerate().map(|(i, &code)| of(code) * absmax[i / MOMENT_BLOCK]).collect()
        };
        let values = Values::Levels { values: scaled(&level), gaps: scaled(&gap) };
        self.outputs.push(Output { name: name.into(), values });
    }

    /// Keeps what a buffer holds as an output of the row.
    pub fn keep(&mut self, name: impl Into<String>, buffer: Buffer) {
        let values = match buffer.dtype {
            DType::U8 => panic!("codes are kept with `keep_levels`"),
            DType::U32 => {
                let mut values = vec![0; buffer.len];
                self.backend.read_u32(buffer, &mut values).expect("read");
                Values::Integers(values)
            }
            _ => Values::Numbers(self.read(buffer)),
        };
        self.outputs.push(Output { name: name.into(), values });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(a: Values, b: Values, expected: Result<(), &str>) {
        let output = |values| Output { name: "out".into(), values };
        let result = output(a).compare(&output(b), Tolerance::of(DType::Bf16));
        assert_eq!(result, expected.map_err(String::from));
    }

    /// Among ten thousand elements, one may be as wrong as an element is large before the norm says so.
    #[test]
    fn a_wrong_element_among_many_is_found() {
        let right: Vec<f32> =
            (0..10_000).map(|i| ((i * 37 % 201) as f32 - 100.0) / 100.0).collect();
        let mut wrong = right.clone();
        wrong[4321] += 0.3;
        assert!(relative_error(&wrong, &right) < 6e-3);
        let message = format!("element 4321 is {}, not {}", wrong[4321], right[4321]);
        check(Values::Numbers(wrong), Values::Numbers(right.clone()), Err(&message));
        // Rounding to bfloat16 stays within.
        let rounded = right.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
        check(Values::Numbers(rounded), Values::Numbers(right), Ok(()));
    }

    #[test]
    fn outputs_are_compared_by_norm_or_exactly() {
        let numbers = |values: &[f32]| Values::Numbers(values.to_vec());
        let integers = |values: &[u32]| Values::Integers(values.to_vec());
        check(numbers(&[3.0, 4.0]), numbers(&[3.0, 4.0]), Ok(()));
        check(numbers(&[3.0, 4.04]), numbers(&[3.0, 4.0]), Ok(()));
        check(numbers(&[3.0, 4.5]), numbers(&[3.0, 4.0]), Err("relative error 1.00e-1"));
        check(numbers(&[0.5]), numbers(&[0.0]), Err("relative error 5.00e-1"));
        check(numbers(&[f32::NAN]), numbers(&[1.0]), Err("relative error NaN"));
        check(integers(&[1, 2]), integers(&[1, 2]), Ok(()));
        check(integers(&[1, 3]), integers(&[1, 2]), Err("integer 1 is Some(3), not Some(2)"));
        let levels =
            |values: &[f32]| Values::Levels { values: values.to_vec(), gaps: vec![0.5, 0.25] };
        check(levels(&[1.0, 1.0]), levels(&[1.5, 0.75]), Ok(()));
        check(levels(&[1.0, 1.0]), levels(&[1.5, 0.7]), Err("level 1 is 1, not 0.7"));
        check(levels(&[1.0, f32::NAN]), levels(&[1.5, 1.0]), Err("level 1 is NaN, not 1"));
    }
}
