//! Parquet and Arrow: record batches, one in memory at a time.
//!
//! The readers of damaged files panic in places. That is the user's file and
//! no bug of ours, so such a panic becomes an error that names the file.

use std::fmt;
use std::io::SeekFrom;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::reader::{FileReader, StreamReader, read_footer_length};
use arrow_ipc::root_as_footer;
use arrow_schema::{ArrowError, Schema};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::reader::ChunkReader;
use serde_json::{Map, Value};

use super::input::{Input, Seekable, Stream, cut_off};
use super::{Item, Row, Rows, Trouble, file_error, value};
use crate::{Error, Place, Result};

/// Rows of a Parquet file that are decoded at once: long documents stay cheap.
const BATCH_ROWS: usize = 256;
/// Rows for each byte of a batch beyond which a file is damaged: a batch may say that it has billions of rows
/// and hold nothing, and reading would not end.
const ROWS_PER_BYTE: usize = 64;

/// The rows of a Parquet file.
pub(super) fn parquet(file: &Arc<Path>, input: Input) -> Result<Rows> {
    fn open(
        input: impl ChunkReader + 'static,
    ) -> std::result::Result<ParquetRecordBatchReader, ParquetError> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(input)?;
        builder.with_batch_size(BATCH_ROWS).build()
    }
    let batches = guarded(file, "Parquet", || match input {
        Input::File(file) => open(file),
        Input::Memory(bytes) => open(bytes.into_inner()),
    })?;
    let schema = arrow_array::RecordBatchReader::schema(&batches);
    rows(file, "Parquet", &schema, batches)
}

/// The rows of an Arrow IPC file, Feather 2 included.
pub(super) fn arrow_file(file: &Arc<Path>, input: Input) -> Result<Rows> {
    let mut input = input.seekable();
    let batches = guarded(file, "Arrow", || {
        check_blocks(&mut input)?;
        FileReader::try_new(input, None)
    })?;
    rows(file, "Arrow", &batches.schema(), batches)
}

/// Checks that all record batches that the footer names lie within the file: the reader takes as much memory
/// as a footer asks for, a damaged one too.
fn check_blocks(input: &mut dyn Seekable) -> std::result::Result<(), ArrowError> {
    let len = input.seek(SeekFrom::End(0))?;
    let mut trailer = [0; 10];
    input.seek(SeekFrom::End(-10))?;
    input.read_exact(&mut trailer)?;
    let footer_len = read_footer_length(trailer)?;
    // Fails where the footer is longer than the file, before there is memory for it.
    input.seek(SeekFrom::End(-10 - footer_len as i64))?;
    let mut footer = vec![0; footer_len];
    input.read_exact(&mut footer)?;
    let footer =
        root_as_footer(&footer).map_err(|error| ArrowError::ParseError(error.to_string()))?;
    let batches = footer.recordBatches().into_iter().flatten();
    for block in batches.chain(footer.dictionaries().into_iter().flatten()) {
        let sizes = [block.offset(), block.metaDataLength().into(), block.bodyLength()];
        let sizes = sizes.map(|size| u64::try_from(size).ok());
        let end = sizes.into_iter().try_fold(0_u64, |end, size| end.checked_add(size?));
        if end.is_none_or(|end| end > len) {
            let message = "a record batch lies beyond the end of the file";
            return Err(ArrowError::ParseError(message.to_owned()));
        }
    }
    input.rewind()?;
    Ok(())
}

/// The rows of an Arrow IPC stream, which Hugging Face `datasets` writes.
pub(super) fn arrow_stream(file: &Arc<Path>, stream: Stream) -> Result<Rows> {
    let batches = guarded(file, "Arrow", || StreamReader::try_new(stream, None))?;
    rows(file, "Arrow", &batches.schema(), batches)
}

fn rows<B>(file: &Arc<Path>, format: &'static str, schema: &Schema, batches: B) -> Result<Rows>
where
    B: Iterator<Item = std::result::Result<RecordBatch, ArrowError>> + Send + 'static,
{
    if schema.fields().is_empty() {
        return Err(file_error(file.display(), "file has no columns"));
    }
    let mut names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
    names.sort();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let message = format!("column `{}` stands twice", pair[0]);
        return Err(file_error(file.display(), message).hinting("rename or remove one of them"));
    }
    let file = file.clone();
    Ok(Box::new(Batches { file, format, batches, batch: None, count: 0 }))
}

struct Batches<B> {
    file: Arc<Path>,
    format: &'static str,
    batches: B,
    /// What is being read, and its next row.
    batch: Option<(RecordBatch, usize)>,
    /// Rows so far.
    count: usize,
}

impl<B> Iterator for Batches<B>
where
    B: Iterator<Item = std::result::Result<RecordBatch, ArrowError>>,
{
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            if let Some((batch, next)) = &mut self.batch
                && *next < batch.num_rows()
            {
                let index = self.count;
                let place =
                    Place { file: self.file.clone(), line: index + 1, element: Some(index) };
                let item = row(place, batch, *next);
                (*next, self.count) = (*next + 1, index + 1);
                return Some(Ok(Ok(item)));
            }
            match guarded(&self.file, self.format, || self.batches.next().transpose()) {
                Ok(None) => return None,
                Ok(Some(batch)) => {
                    let (rows, bytes) = (batch.num_rows(), batch.get_array_memory_size());
                    if rows / ROWS_PER_BYTE > bytes {
                        let message = format!("a batch of {rows} rows holds {bytes} bytes");
                        return Some(Err(damaged(&self.file, self.format, &message)));
                    }
                    self.batch = Some((batch, 0));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// One row. A value that has no form in JSON is null with a trouble: the column may be one that nobody reads.
fn row(place: Place, batch: &RecordBatch, index: usize) -> Row {
    let (mut value, mut troubles) = (Map::new(), Vec::new());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let name = field.name().clone();
        let found = value::of(column, index).unwrap_or_else(|fault| {
            let hint = fault.hint.to_owned();
            troubles.push(Trouble { column: name.clone(), message: fault.message, hint });
            Value::Null
        });
        value.insert(name, found);
    }
    Row { place, value, troubles }
}

/// Runs a reader, whose panic is as good as its error.
fn guarded<T, E: fmt::Display>(
    file: &Path,
    format: &str,
    read: impl FnOnce() -> std::result::Result<T, E>,
) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|error| damaged(file, format, &error)),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or(panic.downcast_ref::<String>().map(String::as_str));
            Err(damaged(file, format, &text.unwrap_or("its content is not consistent")))
        }
    }
}

fn damaged(file: &Path, format: &str, error: &dyn fmt::Display) -> Error {
    let message = format!("{format} cannot be read: {error}");
    if message.contains("Disabled feature") || message.contains("not yet implemented") {
        return file_error(file.display(), message)
            .hinting("write it without compression, or with snappy, gzip, lz4 or zstd");
    }
    cut_off(file, message)
}
