//! Safetensors files written as they come: the header first, since all sizes are known, then
//! tensor by tensor.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// A tensor that is still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Its name.
    pub name: String,
    /// Type of its numbers.
    pub dtype: Dtype,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
}

impl Announced {
    /// Its size in a file.
    pub fn bytes(&self) -> u64 {
        let numbers: usize = self.shape.iter().product();
        numbers as u64 * self.dtype.bitsize() as u64 / 8
    }
}

/// A file whose tensors are written one after another, in pieces of any size.
pub struct TensorWriter {
    path: PathBuf,
    file: BufWriter<File>,
    /// Bytes still to come.
    left: u64,
}

impl TensorWriter {
    /// Begins a file that will hold `tensors` in this order. Types of more bytes should come first, so that
    /// all are aligned.
    pub fn create(path: &Path, tensors: &[Announced]) -> Result<Self> {
        let file = File::create(path).map_err(Error::io(path))?;
        let mut file = BufWriter::new(file);
        file.write_all(&header(tensors)).map_err(Error::io(path))?;
        let left = tensors.iter().map(Announced::bytes).sum();
        Ok(TensorWriter { path: path.into(), file, left })
    }

    /// The next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.left = self.left.checked_sub(bytes.len() as u64).expect("as many bytes as announced");
        self.file.write_all(bytes).map_err(Error::io(&self.path))
    }

    /// The next numbers, as f32.
    pub fn write_f32(&mut self, values: &[f32]) -> Result<()> {
        for values in values.chunks(1 << 16) {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            self.write(&bytes)?;
        }
        Ok(())
    }

    /// Makes sure that the file is on disk.
    ///
    /// # Panics
    /// Where fewer bytes came than were announced.
    pub fn finish(mut self) -> Result<()> {
        assert_eq!(self.left, 0, "as many bytes as announced");
        self.file.flush().map_err(Error::io(&self.path))?;
        self.file.get_ref().sync_all().map_err(Error::io(&self.path))
    }
}

/// The length of the JSON, then the JSON, padded to 8 bytes.
fn header(tensors: &[Announced]) -> Vec<u8> {
    let mut json = Map::new();
    json.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut end = 0;
    for tensor in tensors {
        let start = end;
        end += tensor.bytes();
        let dtype: Value = serde_json::to_value(tensor.dtype).expect("a type is JSON");
        let entry = json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end]});
        json.insert(tensor.name.clone(), entry);
    }
    let mut text = Value::Object(json).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend(text);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_by_the_library() {
        let announced =
            |name: &str, dtype, len| Announced { name: name.into(), dtype, shape: vec![len] };
        let tensors = [announced("full", Dtype::F32, 2), announced("half", Dtype::BF16, 3)];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some.safetensors");
        let mut writer = TensorWriter::create(&path, &tensors).unwrap();
        writer.write_f32(&[1.0, -2.0]).unwrap();
        writer.write(&[1; 4]).unwrap();
        writer.write(&[2; 2]).unwrap();
        writer.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let half = read.tensor("half").unwrap();
        assert_eq!(
            (half.dtype(), half.shape(), half.data()),
            (Dtype::BF16, &[3][..], &[1, 1, 1, 1, 2, 2][..])
        );
        let full = read.tensor("full").unwrap();
        assert_eq!(full.data(), [1.0_f32, -2.0].map(f32::to_le_bytes).as_flattened());
        assert_eq!(full.data().as_ptr().addr() % 4, bytes.as_ptr().addr() % 4);
    }
}
