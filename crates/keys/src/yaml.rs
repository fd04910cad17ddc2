//! YAML into a tree that knows where everything stands.
//!
//! A plain scalar keeps its text: what it means is decided by the key that it
//! is given to, so `2e-4` is a number, `1e10` may be a revision and `no` is
//! never a boolean by surprise.

use crate::{
    error::{Fault, Place, Problem},
    value::Value,
};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use std::{borrow::Cow, collections::BTreeMap};

/// Nodes of one document with its aliases written out: far more than a recipe has.
const NODES_MAX: usize = 100_000;
/// Levels of nesting: far more than a recipe has.
const DEPTH_MAX: usize = 64;

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) content: Content,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Scalar { text: String, quoted: bool },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a mapping with its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) node: Node,
}

impl Node {
    /// Whether the value is left out, or `null` or `~`.
    pub(crate) fn is_null(&self) -> bool {
        let Content::Scalar { text, quoted: false } = &self.content else { return false };
        matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// The value as one line of YAML, for messages.
    pub(crate) fn show(&self) -> String {
        match &self.content {
            Content::Scalar { text, .. } => text.clone(),
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a mapping".to_owned(),
        }
    }

    /// The value by YAML's core schema, for keys that take anything.
    pub(crate) fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar { text, quoted: true } => Value::Text(text.clone()),
            Content::Scalar { .. } if self.is_null() => Value::Null,
            Content::Scalar { text, .. } => plain(text),
            Content::List(items) => Value::List(items.iter().map(Node::to_value).collect()),
            Content::Map(entries) => {
                Value::Map(entries.iter().map(|e| (e.name.clone(), e.node.to_value())).collect())
            }
        }
    }
}

fn plain(text: &str) -> Value {
    match text {
        "true" => return Value::Bool(true),
        "false" => return Value::Bool(false),
        _ => {}
    }
    if let Some(int) = whole_number(text) {
        return Value::Int(int);
    }
    match number(text) {
        Some(float) => Value::Float(float),
        None => Value::Text(text.to_owned()),
    }
}

/// A number as people write it: `16`, `1_000`, `2e-4`, `.5`; neither `inf` nor `nan`.
pub(crate) fn number(text: &str) -> Option<f64> {
    let digits = without_separators(text)?;
    let first = digits.trim_start_matches(['+', '-']).chars().next()?;
    if !(first.is_ascii_digit() || first == '.') {
        return None;
    }
    digits.parse().ok().filter(|number: &f64| number.is_finite())
}

/// A number without a fraction's point or an exponent.
pub(crate) fn whole_number(text: &str) -> Option<i64> {
    without_separators(text)?.parse().ok()
}

/// The text without the underscores between its digits; none where one stands elsewhere.
fn without_separators(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('_') {
        return Some(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let digit =
        |index: Option<usize>| index.and_then(|i| bytes.get(i)).is_some_and(u8::is_ascii_digit);
    let fine = |(i, _): (usize, _)| digit(i.checked_sub(1)) && digit(i.checked_add(1));
    text.match_indices('_').all(fine).then(|| Cow::Owned(text.replace('_', "")))
}

/// What became of a text.
pub(crate) struct Parsed {
    /// The document; an empty one is an empty mapping. None where the text breaks off as YAML.
    pub(crate) root: Option<Node>,
    /// Mistakes of form. With a root they are keys that stand twice, of which the first counts.
    pub(crate) problems: Vec<Problem>,
}

/// Reads the one document in `text`.
///
/// `place` makes the place of a line and a column, both counted from 1.
pub(crate) fn parse(text: &str, place: &dyn Fn(usize, usize) -> Place) -> Parsed {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        place,
        open: Vec::new(),
        root: None,
        anchors: BTreeMap::new(),
        nodes: 0,
        problems: Vec::new(),
    };
    for event in Parser::new_from_str(text) {
        let step = match event {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => Err(builder.scan_error(&error)),
        };
        if let Err(problem) = step {
            builder.problems.push(problem);
            return Parsed { root: None, problems: builder.problems };
        }
    }
    let empty = || Node { place: place(1, 1), content: Content::Map(Vec::new()) };
    Parsed { root: Some(builder.root.unwrap_or_else(empty)), problems: builder.problems }
}

/// Reads a value that the program holds.
pub(crate) fn parse_own(text: &str) -> Option<Node> {
    let parsed = parse(text, &|_, _| Place::Program);
    parsed.root.filter(|_| parsed.problems.is_empty())
}

/// A list or mapping whose end has not been seen.
struct Open {
    place: Place,
    anchor: usize,
    content: Content,
    /// The key that waits for its value, in a mapping.
    key: Option<(String, Place)>,
}

struct Builder<'a> {
    place: &'a dyn Fn(usize, usize) -> Place,
    open: Vec<Open>,
    root: Option<Node>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    problems: Vec<Problem>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let place = (self.place)(span.start.line(), span.start.col() + 1);
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(syntax(place, "a recipe is one YAML document", "remove the second `---`"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = style != ScalarStyle::Plain || is_text_tag(tag.as_deref(), &place)?;
                let content = Content::Scalar { text: text.into_owned(), quoted };
                self.count(1, &place)?;
                self.close(Node { place, content }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(place, anchor, Content::List(Vec::new()), tag)
            }
            Event::MappingStart(anchor, tag) => {
                self.open(place, anchor, Content::Map(Vec::new()), tag)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop().expect("the parser's starts and ends match");
                let content = match open.content {
                    Content::Map(entries) => Content::Map(merge(entries)?),
                    content => content,
                };
                self.close(Node { place: open.place, content }, open.anchor)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => {
                    let (node, nodes) = (node.clone(), size(node));
                    self.count(nodes, &place)?;
                    self.close(node, 0)
                }
                None => Err(syntax(place, "an alias cannot stand within its own anchor", "")),
            },
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(
        &mut self,
        place: Place,
        anchor: usize,
        content: Content,
        tag: Option<Cow<'_, Tag>>,
    ) -> Result<(), Problem> {
        if let Some(tag) = tag {
            return Err(unknown_tag(&tag, place));
        }
        if self.open.len() == DEPTH_MAX {
            return Err(syntax(place, &format!("nested deeper than {DEPTH_MAX} levels"), ""));
        }
        self.count(1, &place)?;
        self.open.push(Open { place, anchor, content, key: None });
        Ok(())
    }

    /// Keeps aliases of aliases from growing without bound.
    fn count(&mut self, nodes: usize, place: &Place) -> Result<(), Problem> {
        self.nodes += nodes;
        if self.nodes <= NODES_MAX {
            return Ok(());
        }
        let message = format!("more than {NODES_MAX} values with aliases written out");
        Err(syntax(place.clone(), &message, ""))
    }

    /// Puts a finished node where it belongs.
    fn close(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut parent.content, parent.key.take()) {
            (Content::List(items), _) => items.push(node),
            (Content::Map(entries), Some((name, place))) => {
                match entries.iter().find(|entry| entry.name == name && name != "<<") {
                    Some(first) => self.problems.push(duplicate(&name, place, &first.place)),
                    None => entries.push(Entry { name, place, node }),
                }
            }
            (Content::Map(_), None) => match node.content {
                Content::Scalar { text, .. } => parent.key = Some((text, node.place)),
                _ => return Err(syntax(node.place, "a key must be plain text", "")),
            },
            (Content::Scalar { .. }, _) => unreachable!("only lists and mappings are opened"),
        }
        Ok(())
    }

    fn scan_error(&self, error: &ScanError) -> Problem {
        let place = (self.place)(error.marker().line().max(1), error.marker().col() + 1);
        syntax(place, &format!("not valid YAML: {}", error.info()), "")
    }
}

fn size(node: &Node) -> usize {
    match &node.content {
        Content::Scalar { .. } => 1,
        Content::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Content::Map(entries) => 1 + entries.iter().map(|entry| size(&entry.node)).sum::<usize>(),
    }
}

/// Puts the entries of `<<: *base` behind the mapping's own, which win.
fn merge(entries: Vec<Entry>) -> Result<Vec<Entry>, Problem> {
    let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|e| e.name == "<<");
    for entry in merges {
        let sources = match entry.node.content {
            Content::List(items) => items,
            content => vec![Node { place: entry.node.place, content }],
        };
        for source in sources {
            let Content::Map(inherited) = source.content else {
                let message = "`<<` takes a mapping or a list of mappings";
                return Err(syntax(entry.place, message, "write `<<: *name` with `&name` above"));
            };
            for entry in inherited {
                if own.iter().all(|mine| mine.name != entry.name) {
                    own.push(entry);
                }
            }
        }
    }
    Ok(own)
}

/// Whether a tag says that the scalar is text; any other tag is refused.
fn is_text_tag(tag: Option<&Tag>, place: &Place) -> Result<bool, Problem> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(true),
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Ok(true),
        Some(tag) => Err(unknown_tag(tag, place.clone())),
    }
}

fn unknown_tag(tag: &Tag, place: Place) -> Problem {
    let name = match tag.is_yaml_core_schema() {
        true => format!("!!{}", tag.suffix),
        false => format!("{}{}", tag.handle, tag.suffix),
    };
    syntax(place, &format!("the tag `{name}` means nothing in a recipe"), "write the value alone")
}

fn duplicate(name: &str, place: Place, first: &Place) -> Problem {
    let message = match first.line() {
        Some(line) => format!("`{name}` stands twice, first on line {line}"),
        None => format!("`{name}` stands twice"),
    };
    let hint = Some("keep one of the two".to_owned());
    Problem { fault: Fault::DuplicateKey, place, key: Some(name.to_owned()), message, hint }
}

fn syntax(place: Place, message: &str, hint: &str) -> Problem {
    let hint = (!hint.is_empty()).then(|| hint.to_owned());
    Problem { fault: Fault::Syntax, place, key: None, message: message.to_owned(), hint }
}
