//! One shard: the rows of a run of lines, with an index behind them.
//!
//! ```text
//! magic | sequences | texts | side data | a line per sequence | a line per row | fingerprints | columns (JSON)
//!       | tail (JSON)
//!       | ends of the parts | their checksums | checksum of both | magic
//! ```
//!
//! Rows that were left out have no line.
//!
//! It is written whole and renamed into place, so a shard that is there is complete. All of its bytes are
//! checked when it is opened, and those that are read later once more: every part has a checksum, and so have
//! every sequence and every text, together with its line, and the side data of every row.
//!
//! Side data are what a row says beside tokens: a JSON object a row, shared by its sequences.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::bytes::{Put as _, Take};
use super::{Found, SequenceAt};
use crate::audit::quality::Tally;
use crate::audit::{AuditText, Sketch, preferences};
use crate::checksum::checksum;
use crate::{Error, Place, Result, RowError, Sequence};

const MAGIC: &[u8; 8] = b"tsmrows4";
const PARTS: usize = 8;
/// Ends of the parts, their checksums, that of both, and the magic again.
const TRAILER: usize = PARTS * 8 + PARTS * 4 + 4 + MAGIC.len();
/// Offset, row, tokens, supervised tokens, part, offset and bytes of the side data, checksum.
const SEQUENCE_LINE: usize = 7 * 4 + 4;
/// Row, hash of its text, line, element, offset and lengths of its texts, checksum.
const ROW_LINE: usize = 4 + 8 + 8 + 8 + 4 + 4 + 4 + 4;

/// Values of the columns that a split looks at, of one row: `[columns]`.
pub(crate) type Columns = Vec<Option<String>>;

/// A row that is not trained on, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    /// Where it stands.
    pub(crate) line: usize,
    /// Its index in an array.
    pub(crate) element: Option<usize>,
    /// What is wrong, in words.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
    /// Whether the row could not be read, and so stops a run unless it may be skipped.
    pub(crate) is_bad: bool,
}

impl LeftOut {
    /// As an error of the row.
    pub(crate) fn error(&self, file: &Arc<Path>) -> RowError {
        let place = Place { file: file.clone(), line: self.line, element: self.element };
        RowError { place, message: self.message.clone(), hint: self.hint.clone() }
    }
}

/// What is known of a shard besides its rows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tail {
    /// Rows, those that are left out among them.
    pub(crate) rows: usize,
    /// Rows that are left out.
    pub(crate) left_out: Vec<LeftOut>,
    /// The highest id, to be held against the model's vocabulary.
    pub(crate) highest_token: u32,
    /// What was found; places lie in the set's file.
    pub(crate) findings: Found,
    /// What is counted over the whole set.
    pub(crate) tally: Tally,
    /// The same of preferences.
    pub(crate) preferences: preferences::Tally,
}

/// A shard that is being written.
#[derive(Default)]
pub(crate) struct Draft {
    sequences: Vec<u8>,
    texts: Vec<u8>,
    side: Vec<u8>,
    sequence_lines: Vec<u8>,
    row_lines: Vec<u8>,
    sketches: Vec<u8>,
    columns: Vec<Columns>,
    pub(crate) tail: Tail,
}

impl Draft {
    /// Adds a row that is trained on.
    pub(crate) fn push(
        &mut self,
        row: u32,
        place: &Place,
        text: &AuditText,
        columns: Columns,
        side: &Map<String, Value>,
        sequences: &[Sequence],
    ) {
        let side_at = self.put_side(side);
        for sequence in sequences {
            let (line, begin) = (self.sequence_lines.len(), self.sequences.len());
            self.sequence_lines.put_u32(begin as u32);
            self.sequence_lines.put_u32(row);
            self.sequence_lines.put_u32(sequence.len() as u32);
            self.sequence_lines.put_u32(sequence.supervised() as u32);
            self.sequence_lines.put_u32(sequence.part);
            self.sequence_lines.put_u32(side_at.0);
            self.sequence_lines.put_u32(side_at.1);
            let highest = sequence.tokens.iter().copied().max().unwrap_or(0);
            self.tail.highest_token = self.tail.highest_token.max(highest);
            put_sequence(&mut self.sequences, sequence);
            let sum = joint_checksum(&self.sequence_lines[line..], &self.sequences[begin..]);
            self.sequence_lines.put_u32(sum);
        }
        let sketch = Sketch::of(text);
        let (line, begin) = (self.row_lines.len(), self.texts.len());
        self.row_lines.put_u32(row);
        self.row_lines.put_u64(sketch.row);
        put_place(&mut self.row_lines, place);
        self.row_lines.put_u32(begin as u32);
        self.row_lines.put_u32(text.prompt.len() as u32);
        self.row_lines.put_u32(text.answer.len() as u32);
        self.texts.extend(text.prompt.as_bytes());
        self.texts.extend(text.answer.as_bytes());
        let sum = joint_checksum(&self.row_lines[line..], &self.texts[begin..]);
        self.row_lines.put_u32(sum);
        self.sketches.extend(sketch.to_bytes());
        if !columns.is_empty() {
            self.columns.push(columns);
        }
    }

    /// Writes a row's side data with their checksum; where they lie, and their bytes.
    fn put_side(&mut self, side: &Map<String, Value>) -> (u32, u32) {
        if side.is_empty() {
            return (0, 0);
        }
        let begin = self.side.len();
        serde_json::to_writer(&mut self.side, side).expect("a map is JSON");
        let sum = checksum(&self.side[begin..]);
        self.side.put_u32(sum);
        (begin as u32, (self.side.len() - begin) as u32)
    }

    /// The shard's bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let tail = serde_json::to_vec(&self.tail).expect("a tail is JSON");
        let columns = match self.columns.is_empty() {
            true => Vec::new(),
            false => serde_json::to_vec(&self.columns).expect("columns are JSON"),
        };
        let (mut ends, mut sums) = (Vec::new(), Vec::new());
        for part in [
            self.sequences,
            self.texts,
            self.side,
            self.sequence_lines,
            self.row_lines,
            self.sketches,
            columns,
            tail,
        ] {
            sums.put_u32(checksum(&part));
            bytes.extend(part);
            ends.put_u64(bytes.len() as u64);
        }
        ends.extend(sums);
        let sum = checksum(&ends);
        ends.put_u32(sum);
        bytes.extend(ends);
        bytes.extend(MAGIC);
        bytes
    }
}

/// A shard that can be read.
pub(crate) struct Shard {
    bytes: Bytes,
    index: Index,
}

/// What stands behind the parts of a shard.
#[derive(Clone, Copy, Debug)]
struct Index {
    /// Where the parts end.
    ends: [usize; PARTS],
    checksums: [u32; PARTS],
}

enum Bytes {
    Memory(Vec<u8>),
    File(PathBuf),
}

/// The parts of a shard in order.
#[derive(Clone, Copy)]
enum Part {
    Sequences,
    Texts,
    Side,
    SequenceLines,
    RowLines,
    Sketches,
    Columns,
    Tail,
}

/// One row of a shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowLine {
    /// Its index in the shard, rows that were left out counted.
    pub(super) row: u32,
    /// Hash of its normalised text.
    pub(super) id: u64,
}

impl Shard {
    /// A shard that stays in memory.
    pub(crate) fn in_memory(bytes: Vec<u8>) -> Result<Shard> {
        let index = Index::of(&bytes).ok_or_else(|| damaged(Path::new("a shard in memory")))?;
        Ok(Shard { bytes: Bytes::Memory(bytes), index })
    }

    /// A shard in a file, all of which is as it was written.
    pub(crate) fn in_file(path: &Path) -> Result<Shard> {
        let bytes = std::fs::read(path);
        let bytes = bytes.map_err(|source| Error::Io { path: path.into(), source })?;
        let index = Index::of(&bytes).filter(|index| index.belongs_to(&bytes));
        let index = index.ok_or_else(|| damaged(path))?;
        Ok(Shard { bytes: Bytes::File(path.into()), index })
    }

    /// A shard in a file that has just been written.
    pub(crate) fn written(path: &Path, bytes: &[u8]) -> Result<Shard> {
        let index = Index::of(bytes).ok_or_else(|| damaged(path))?;
        Ok(Shard { bytes: Bytes::File(path.into()), index })
    }

    /// The file that it lies in.
    pub(super) fn path(&self) -> Option<&Path> {
        match &self.bytes {
            Bytes::Memory(_) => None,
            Bytes::File(path) => Some(path),
        }
    }

    /// How many sequences it has.
    pub(super) fn sequences(&self) -> usize {
        self.len(Part::SequenceLines) / SEQUENCE_LINE
    }

    /// How many rows it has, without those that were left out.
    pub(super) fn kept(&self) -> usize {
        self.len(Part::RowLines) / ROW_LINE
    }

    /// What is known besides its rows.
    pub(super) fn tail(&self, file: Option<&File>) -> Result<Tail> {
        serde_json::from_slice(&self.part(file, Part::Tail)?).map_err(|_| self.damaged())
    }

    /// Where its sequences lie; rows are counted from `first_row`.
    pub(super) fn sequence_lines(
        &self,
        file: Option<&File>,
        first_row: u32,
    ) -> Result<Vec<SequenceAt>> {
        let lines = self.part(file, Part::SequenceLines)?;
        Ok(lines.as_chunks().0.iter().map(|line| sequence_at(line, first_row)).collect())
    }

    /// Where one of its sequences lies.
    pub(super) fn sequence_line(
        &self,
        file: Option<&File>,
        index: usize,
        first_row: u32,
    ) -> Result<SequenceAt> {
        let from = self.start(Part::SequenceLines) + index * SEQUENCE_LINE;
        let line = self.read(file, from, from + SEQUENCE_LINE)?;
        let line = line.first_chunk().ok_or_else(|| self.damaged())?;
        Ok(sequence_at(line, first_row))
    }

    /// Its rows.
    pub(super) fn row_lines(&self, file: Option<&File>) -> Result<Vec<RowLine>> {
        let lines = self.part(file, Part::RowLines)?;
        let line = |line: &[u8; ROW_LINE]| {
            let mut take = Take(line);
            RowLine { row: take.u32().unwrap_or(0), id: take.u64().unwrap_or(0) }
        };
        Ok(lines.as_chunks().0.iter().map(line).collect())
    }

    /// Columns of its rows, where a split looks at some.
    pub(super) fn columns(&self, file: Option<&File>) -> Result<Vec<Columns>> {
        if self.len(Part::Columns) == 0 {
            return Ok(Vec::new());
        }
        serde_json::from_slice(&self.part(file, Part::Columns)?).map_err(|_| self.damaged())
    }

    pub(super) fn sequence(
        &self,
        file: Option<&File>,
        at: SequenceAt,
        first_row: u32,
        name: &Arc<Path>,
    ) -> Result<Sequence> {
        // Header, tokens, and at most a run of weights per token.
        let most = 40 + 12 * at.len as usize;
        let from = self.start(Part::Sequences) + at.offset as usize;
        let to = (from + most).min(self.end(Part::Sequences));
        let bytes = self.read(file, from, to)?;
        let mut take = Take(&bytes);
        let sequence = take_sequence(&mut take, at, name);
        let mut line = Vec::with_capacity(SEQUENCE_LINE);
        let row = at.row.wrapping_sub(first_row);
        let numbers = [at.offset, row, at.len, at.supervised, at.part, at.side.0, at.side.1];
        for number in numbers {
            line.put_u32(number);
        }
        let used = &bytes[..bytes.len() - take.0.len()];
        let is_whole = joint_checksum(&line, used) == at.checksum;
        sequence.filter(|_| is_whole).ok_or_else(|| self.damaged())
    }

    /// What the row of a sequence says beside tokens.
    pub(super) fn side(&self, file: Option<&File>, at: SequenceAt) -> Result<Map<String, Value>> {
        let (offset, len) = (at.side.0 as usize, at.side.1 as usize);
        if len == 0 {
            return Ok(Map::new());
        }
        let from = self.start(Part::Side) + offset;
        let bytes = self.read(file, from, (from + len).min(self.end(Part::Side)))?;
        let (json, sum) = bytes.split_last_chunk().ok_or_else(|| self.damaged())?;
        if checksum(json) != u32::from_le_bytes(*sum) {
            return Err(self.damaged());
        }
        serde_json::from_slice(json).map_err(|_| self.damaged())
    }

    /// Fingerprints of its rows.
    pub(super) fn sketches(&self, file: Option<&File>) -> Result<Vec<Sketch>> {
        let sketches = self.part(file, Part::Sketches)?;
        Ok(sketches.as_chunks().0.iter().map(Sketch::from_bytes).collect())
    }

    /// The text of its row `index`, rows that were left out not counted, and where it stands.
    pub(super) fn text(
        &self,
        file: Option<&File>,
        index: usize,
        name: &Arc<Path>,
    ) -> Result<(AuditText, Place)> {
        let from = self.start(Part::RowLines) + index * ROW_LINE;
        let line = self.read(file, from, from + ROW_LINE)?;
        let mut take = Take(line.get(12..).unwrap_or_default());
        let parts = (|| {
            let place = take_place(&mut take, name)?;
            let numbers = [take.u32()?, take.u32()?, take.u32()?].map(|number| number as usize);
            Some((place, numbers, take.u32()?))
        })();
        let (place, [offset, prompt, answer], sum) = parts.ok_or_else(|| self.damaged())?;
        let from = self.start(Part::Texts) + offset;
        let to = (from + prompt + answer).min(self.end(Part::Texts));
        let bytes = self.read(file, from, to)?;
        if joint_checksum(&line[..ROW_LINE - 4], &bytes) != sum {
            return Err(self.damaged());
        }
        let text = String::from_utf8(bytes.into_owned()).map_err(|_| self.damaged())?;
        if !text.is_char_boundary(prompt) {
            return Err(self.damaged());
        }
        let answer = text[prompt..].to_owned();
        let mut prompt_text = text;
        prompt_text.truncate(prompt);
        Ok((AuditText { prompt: prompt_text, answer }, place))
    }

    fn start(&self, part: Part) -> usize {
        match part as usize {
            0 => MAGIC.len(),
            index => self.index.ends[index - 1],
        }
    }

    fn end(&self, part: Part) -> usize {
        self.index.ends[part as usize]
    }

    fn len(&self, part: Part) -> usize {
        self.end(part) - self.start(part)
    }

    fn part(&self, file: Option<&File>, part: Part) -> Result<std::borrow::Cow<'_, [u8]>> {
        let bytes = self.read(file, self.start(part), self.end(part))?;
        let is_on_disk = matches!(self.bytes, Bytes::File(_));
        if is_on_disk && checksum(&bytes) != self.index.checksums[part as usize] {
            return Err(self.damaged());
        }
        Ok(bytes)
    }

    fn read(
        &self,
        file: Option<&File>,
        from: usize,
        to: usize,
    ) -> Result<std::borrow::Cow<'_, [u8]>> {
        match (&self.bytes, file) {
            (Bytes::Memory(bytes), _) => {
                bytes.get(from..to).map(Into::into).ok_or_else(|| self.damaged())
            }
            (Bytes::File(path), Some(file)) => {
                let mut bytes = vec![0; to.saturating_sub(from)];
                let read = file.read_exact_at(&mut bytes, from as u64);
                read.map_err(|source| Error::Io { path: path.clone(), source })?;
                Ok(bytes.into())
            }
            (Bytes::File(_), None) => unreachable!("a shard in a file is read with its file"),
        }
    }

    fn damaged(&self) -> Error {
        damaged(self.path().unwrap_or(Path::new("a shard in memory")))
    }
}

fn damaged(path: &Path) -> Error {
    Error::File {
        place: path.display().to_string(),
        message: "prepared rows are damaged".into(),
        hint: Some("remove the file: it is made again".into()),
    }
}

impl Index {
    /// The index of a shard, where it is one.
    fn of(bytes: &[u8]) -> Option<Index> {
        let (_, trailer) = bytes.split_at_checked(bytes.len().checked_sub(TRAILER)?)?;
        let mut take = Take(trailer.strip_suffix(MAGIC)?);
        let is_whole = checksum(&take.0[..12 * PARTS]) == u32::from_le_bytes(*take.0.last_chunk()?);
        let mut index = Index { ends: [0; PARTS], checksums: [0; PARTS] };
        for end in &mut index.ends {
            *end = take.u64()? as usize;
        }
        for sum in &mut index.checksums {
            *sum = take.u32()?;
        }
        let ends = &index.ends;
        let is_complete = ends.is_sorted()
            && ends[0] >= MAGIC.len()
            && ends[PARTS - 1].checked_add(TRAILER) == Some(bytes.len());
        (is_whole && is_complete).then_some(index)
    }

    /// Whether the parts are as they were written.
    fn belongs_to(&self, bytes: &[u8]) -> bool {
        let starts = std::iter::once(MAGIC.len()).chain(self.ends);
        let mut parts = starts.zip(self.ends).zip(self.checksums);
        bytes.starts_with(MAGIC)
            && parts.all(|((start, end), sum)| checksum(&bytes[start..end]) == sum)
    }
}

/// The checksum of a line without its own, and of what it tells of.
fn joint_checksum(line: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(line);
    hasher.update(rest);
    hasher.finalize()
}

fn sequence_at(line: &[u8; SEQUENCE_LINE], first_row: u32) -> SequenceAt {
    let number = |index: usize| u32::from_le_bytes(line.as_chunks().0[index]);
    SequenceAt {
        offset: number(0),
        row: first_row.wrapping_add(number(1)),
        len: number(2),
        supervised: number(3),
        part: number(4),
        side: (number(5), number(6)),
        checksum: number(7),
    }
}

fn put_place(bytes: &mut Vec<u8>, place: &Place) {
    bytes.put_u64(place.line as u64);
    bytes.put_u64(place.element.map_or(0, |element| element as u64 + 1));
}

fn take_place(take: &mut Take<'_>, file: &Arc<Path>) -> Option<Place> {
    let (line, element) = (take.u64()? as usize, take.u64()?);
    Some(Place { file: file.clone(), line, element: element.checked_sub(1).map(|e| e as usize) })
}

fn put_sequence(bytes: &mut Vec<u8>, sequence: &Sequence) {
    put_place(bytes, &sequence.place);
    bytes.push(sequence.role);
    sequence.tokens.iter().for_each(|&token| bytes.put_u32(token));
    // Weights come in long runs.
    for run in sequence.weights.chunk_by(|a, b| a.to_bits() == b.to_bits()) {
        bytes.put_u32(run.len() as u32);
        bytes.put_f32(run[0]);
    }
}

fn take_sequence(take: &mut Take<'_>, at: SequenceAt, file: &Arc<Path>) -> Option<Sequence> {
    let place = take_place(take, file)?;
    let role = take.u8()?;
    let len = at.len as usize;
    let tokens = take.bytes(4 * len)?.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes));
    let tokens: Vec<u32> = tokens.collect();
    let mut weights = Vec::with_capacity(len);
    while weights.len() < len {
        let (count, weight) = (take.u32()? as usize, take.f32()?);
        weights.resize((weights.len() + count.max(1)).min(len), weight);
    }
    Some(Sequence { row: at.row.into(), part: at.part, role, tokens, weights, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bit_can_flip_unnoticed() {
        let place = Place { file: Path::new("a.jsonl").into(), line: 3, element: None };
        let text = AuditText { prompt: "a question".into(), answer: "an answer".into() };
        let (tokens, weights) = (vec![5, 6, 7], vec![0.0, 1.0, 1.0]);
        let row = Sequence { row: 0, part: 0, role: 0, tokens, weights, place: place.clone() };
        let mut draft = Draft::default();
        let side = Map::from_iter([("margin".to_owned(), Value::from(0.5))]);
        draft.push(0, &place, &text, vec![Some("x".into())], &side, &[row]);
        let whole = draft.into_bytes();
        let is_good = |bytes: &[u8]| Index::of(bytes).is_some_and(|index| index.belongs_to(bytes));
        assert!(is_good(&whole));
        for bit in 0..8 * whole.len() {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_good(&flipped), "bit {bit}");
        }
        for len in 0..whole.len() {
            assert!(!is_good(&whole[..len]), "cut after {len} bytes");
        }
    }
}
