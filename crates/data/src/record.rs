//! Records as people have them become what methods learn from.
//!
//! One file a shape. A shape says by which columns it is known, and how one of
//! its rows reads; a new one is a file and a line in [`SHAPES`].

mod alpaca;
mod cell;
mod check;
mod columns;
mod conversation;
mod dataset_info;
mod detect;
mod feedback;
mod field;
mod kinds;
mod labelled;
mod literal;
mod messages;
mod nulls;
mod preference;
mod prompt;
mod prompt_completion;
mod ranked;
mod reader;
mod stepwise;
mod text_shape;
mod tokens;
mod transcript;
mod turn;

use serde_json::{Map, Value};

pub use conversation::Conversation;
pub(crate) use conversation::calls_tools;
pub use dataset_info::{Location, dataset_info};
pub use detect::detect;
use field::Fields;
pub use kinds::{
    Answer, Feedback, Labelled, LabelledInput, Preference, Prompt, Ranked, Record, Step, Stepwise,
    Text, Tokens, Wanted,
};
pub use reader::Reader;
pub use turn::Tags;

use crate::source::Row;
use crate::{Error, Findings, Result, RowError};

/// A way to write a record as a JSON object.
#[derive(Debug)]
pub struct Shape {
    /// Its name in `format:`.
    pub name: &'static str,
    /// Its columns, for messages.
    pub layout: &'static str,
    /// The columns that it reads, in groups that several shapes share.
    pub columns: &'static [&'static [&'static str]],
    /// What its rows are, for messages.
    pub holds: &'static str,
    /// What its rows are found by looking for.
    pub serves: &'static [Wanted],
    /// By which columns a row is known to be of this shape; rows of one file agree.
    signature: fn(&Map<String, Value>) -> Option<&'static str>,
    read: fn(&Fields<'_>) -> field::Result<Record>,
    /// The turns before the answers of a row, which may lack them.
    asked: fn(&Fields<'_>) -> field::Result<prompt::Asked>,
}

impl Shape {
    /// The columns that it reads, what means most to it first.
    fn columns(&self) -> impl Iterator<Item = &'static str> {
        self.columns.iter().copied().flatten().copied()
    }

    /// Whether it reads a column.
    fn reads(&self, name: &str) -> bool {
        self.columns().any(|column| column == name)
    }

    /// Whether a file of this shape gives what is wanted. Prompts can be taken
    /// out of every shape that has turns.
    fn fits(&self, wanted: Wanted) -> bool {
        self.serves.contains(&wanted) || (wanted == Wanted::Prompts && self.has_turns())
    }

    fn has_turns(&self) -> bool {
        !["text", "tokens", "labelled"].contains(&self.name)
    }
}

/// Every known shape. Where several fit a row, the first is meant.
pub const SHAPES: [&Shape; 12] = [
    &messages::MESSAGES,
    &messages::SHAREGPT,
    &alpaca::SHAPE,
    &prompt_completion::SHAPE,
    &text_shape::SHAPE,
    &tokens::SHAPE,
    &labelled::SHAPE,
    &preference::SHAPE,
    &feedback::SHAPE,
    &ranked::SHAPE,
    &stepwise::SHAPE,
    &prompt::SHAPE,
];

/// The shape of that name.
pub fn by_name(name: &str) -> Option<&'static Shape> {
    SHAPES.into_iter().find(|shape| shape.name == name)
}

/// What the recipe says about a file of records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The shape's name; found by looking where there is none.
    pub format: Option<String>,
    /// Pairs of a column as a shape calls it and as the file calls it.
    pub columns: Vec<(String, String)>,
    /// System message of conversations that bring none.
    pub system: Option<String>,
    /// The recipe key of this file, such as `data.train.0`, for messages.
    pub key: String,
    /// Names that the turns use.
    pub tags: Tags,
}

/// What every row of a file asks: a [`Record::Prompt`] with the turns that training shows before the answer,
/// and where a row has no turns a [`Record::Text`], or [`Record::Tokens`] up to what is learned.
///
/// Rows may be of several shapes, and need no answers. All rows that cannot be read are named in the error.
pub fn prompts(rows: Vec<Row>, reading: &Reading, findings: &mut Findings) -> Result<Vec<Record>> {
    columns::check(&rows, reading)?;
    let (mut prompts, mut bad) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        let reader = match Reader::asking(&row, reading) {
            Ok(reader) => reader,
            Err(Error::File { message, hint, .. }) => {
                bad.push(RowError { hint, ..RowError::new(&row.place, message) });
                continue;
            }
            Err(Error::Rows { rows, .. }) => {
                bad.extend(rows);
                continue;
            }
            Err(error) => return Err(error),
        };
        match reader.read(row, findings) {
            Ok(Record::Tokens(row)) => prompts.push(Record::Tokens(row.unlearned())),
            Ok(record) => prompts.push(record),
            Err(error) => bad.push(error),
        }
    }
    Error::from_rows(bad)?;
    Ok(prompts)
}

/// All rows of a file as records to be classified, with their labels where they have some.
///
/// All rows that cannot be read are named in the error.
pub fn to_classify(
    rows: Vec<Row>,
    reading: &Reading,
    findings: &mut Findings,
) -> Result<Vec<Record>> {
    let reader = Reader::to_classify(&rows, reading)?;
    read_all(&reader, rows, findings)
}

/// All rows of a file as records with answers to be judged: pairs, ranked answers or judged steps, else judged
/// answers, else conversations. One file has one kind.
///
/// All rows that cannot be read are named in the error.
pub fn answered(rows: Vec<Row>, reading: &Reading, findings: &mut Findings) -> Result<Vec<Record>> {
    let find = |wanted| Reader::find(&rows, reading, wanted);
    let reader = find(Wanted::Rewards).or_else(|error| {
        find(Wanted::Feedback).or_else(|_| find(Wanted::Conversations)).map_err(|_| error)
    })?;
    read_all(&reader, rows, findings)
}

fn read_all(reader: &Reader, rows: Vec<Row>, findings: &mut Findings) -> Result<Vec<Record>> {
    let (mut records, mut bad) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        match reader.read(row, findings) {
            Ok(record) => records.push(record),
            Err(error) => bad.push(error),
        }
    }
    Error::from_rows(bad)?;
    Ok(records)
}

/// Converts all rows of a file, which are conversations of one shape.
///
/// Every row that cannot be converted is named in the error. Rows are never
/// dropped; what is odd about them goes into `findings`.
pub fn conversations(
    rows: Vec<Row>,
    reading: &Reading,
    findings: &mut Findings,
) -> Result<(&'static Shape, Vec<Conversation>)> {
    let reader = Reader::find(&rows, reading, Wanted::Conversations)?;
    let (mut conversations, mut bad) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        match reader.read(row, findings) {
            Ok(Record::Conversation(conversation)) => conversations.push(conversation),
            Ok(other) => bad.push(RowError::new(other.place(), "row is not a conversation")),
            Err(error) => bad.push(error),
        }
    }
    Error::from_rows(bad)?;
    Ok((reader.found(), conversations))
}
