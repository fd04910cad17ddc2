//! Filters of lists, dictionaries and whatever can be iterated over.

use super::super::arithmetic::{MAX_LENGTH, binary};
use super::super::ast::Operator;
use super::super::call::{Args, whole};
use super::super::interpreter::Interpreter;
use super::super::repr::str;
use super::super::value::Value;
use super::super::{Failure, Result, compare};

/// What a filter compares values by: a path to an attribute, texts without regard to case unless asked.
struct Key {
    attribute: Option<Value>,
    case_sensitive: bool,
}

impl Key {
    fn new(attribute: Option<Value>, case_sensitive: Option<Value>) -> Self {
        Key {
            attribute: attribute.filter(|attribute| !attribute.is_none()),
            case_sensitive: case_sensitive.is_some_and(|value| value.is_true()),
        }
    }

    fn folded(&self, value: Value) -> Value {
        match value.as_str() {
            Some(text) if !self.case_sensitive => Value::text(text.to_lowercase()),
            _ => value,
        }
    }

    fn of(&self, interpreter: &mut Interpreter<'_>, item: &Value) -> Result<Value> {
        let value = match &self.attribute {
            Some(attribute) => interpreter.path(item, attribute)?,
            None => item.clone(),
        };
        Ok(self.folded(value))
    }

    /// The keys of `sort`, which takes several attributes behind commas.
    fn all(&self, interpreter: &mut Interpreter<'_>, item: &Value) -> Result<Value> {
        let Some(attributes) = self.attribute.as_ref().and_then(Value::as_str) else {
            return self.of(interpreter, item);
        };
        let keys = attributes.split(',').map(|attribute| {
            let value = interpreter.path(item, &Value::text(attribute))?;
            Ok(self.folded(value))
        });
        Ok(Value::list(keys.collect::<Result<_>>()?))
    }
}

/// Applies a function to items one by one. What fails, fails when the result is read up to there.
fn lazily(items: Vec<Value>, mut each: impl FnMut(Value) -> Result<Option<Value>>) -> Value {
    let mut found = Vec::new();
    for item in items {
        match each(item) {
            Ok(item) => found.extend(item),
            Err(failure) => return Value::generator(found, Some(failure)),
        }
    }
    Value::generator(found, None)
}

/// The items of a value for a filter that makes a generator: what cannot be iterated over fails once it is read.
fn items_of(value: &Value) -> std::result::Result<Vec<Value>, Value> {
    value.iterate().map_err(|failure| Value::generator(Vec::new(), Some(failure)))
}

impl Interpreter<'_> {
    pub(super) fn sequence_filter(
        &mut self,
        name: &str,
        value: Value,
        args: Args,
    ) -> Result<Value> {
        match name {
            "list" => {
                args.none(name)?;
                Ok(Value::list(value.iterate()?))
            }
            "items" => {
                args.none(name)?;
                Ok(match &value {
                    Value::Dict(_) => {
                        let items = super::super::value::View::Items;
                        let Value::Dict(dict) = &value else { return Ok(value) };
                        Value::generator(Value::View(dict.clone(), items).iterate()?, None)
                    }
                    Value::Undefined(_) => Value::generator(Vec::new(), None),
                    _ => {
                        let failure = Failure::new("Can only get item pairs from a mapping.");
                        Value::generator(Vec::new(), Some(failure))
                    }
                })
            }
            "first" => {
                args.none(name)?;
                if let Value::Generator(generator) = &value {
                    let first = generator.items.borrow_mut().next();
                    let failed = generator.failure.borrow_mut().take().filter(|_| first.is_none());
                    return match failed {
                        Some(failure) => Err(failure),
                        None => Ok(first.unwrap_or_else(|| none_of("first"))),
                    };
                }
                Ok(value.iterate()?.into_iter().next().unwrap_or_else(|| none_of("first")))
            }
            "last" => {
                args.none(name)?;
                if matches!(value, Value::Generator(_)) {
                    let found = value.type_name();
                    return Err(Failure::new(format!("'{found}' object is not reversible")));
                }
                Ok(value.iterate()?.pop().unwrap_or_else(|| none_of("last")))
            }
            "reverse" => {
                args.none(name)?;
                if let Some(text) = value.as_str() {
                    return Ok(value.text_like(text.chars().rev().collect::<String>()));
                }
                let mut items = value.iterate()?;
                items.reverse();
                // A generator has no other end: its items are a list then.
                let is_list = matches!(value, Value::Generator(_));
                Ok(if is_list { Value::list(items) } else { Value::generator(items, None) })
            }
            "join" => {
                let [separator, attribute] = args.bind(name, ["d", "attribute"], 0)?;
                let separator = separator.as_ref().map(str).unwrap_or_default();
                let key =
                    Key { attribute: attribute.filter(|a| !a.is_none()), case_sensitive: true };
                let mut out = String::new();
                for (index, item) in value.iterate()?.iter().enumerate() {
                    if index > 0 {
                        out.push_str(&separator);
                    }
                    out.push_str(&str(&key.of(self, item)?));
                }
                Ok(Value::text(out))
            }
            "sort" => {
                let parameters = ["reverse", "case_sensitive", "attribute"];
                let [reverse, case, attribute] = args.bind(name, parameters, 0)?;
                let key = Key::new(attribute, case);
                let mut keyed = Vec::new();
                for item in value.iterate()? {
                    keyed.push((key.all(self, &item)?, item));
                }
                let reverse = reverse.is_some_and(|reverse| reverse.is_true());
                Ok(Value::list(compare::sort(keyed, reverse)?))
            }
            "dictsort" => self.dictsort(&value, args),
            "unique" => {
                let [case, attribute] = args.bind(name, ["case_sensitive", "attribute"], 0)?;
                let key = Key::new(attribute, case);
                let items = match items_of(&value) {
                    Ok(items) => items,
                    Err(failed) => return Ok(failed),
                };
                let mut seen: Vec<Value> = Vec::new();
                Ok(lazily(items, |item| {
                    let key = key.of(self, &item)?;
                    key.check_hashable()?;
                    let is_new = !seen.iter().any(|other| compare::equal(other, &key));
                    seen.push(key);
                    Ok(is_new.then_some(item))
                }))
            }
            "min" | "max" => {
                let [case, attribute] = args.bind(name, ["case_sensitive", "attribute"], 0)?;
                let key = Key::new(attribute, case);
                let mut best: Option<(Value, Value)> = None;
                for item in value.iterate()? {
                    let key = key.of(self, &item)?;
                    let is_better = match &best {
                        None => true,
                        Some((other, _)) if name == "min" => compare::less(&key, other)?,
                        Some((other, _)) => {
                            compare::order(&key, other, ">")? == Some(std::cmp::Ordering::Greater)
                        }
                    };
                    if is_better {
                        best = Some((key, item));
                    }
                }
                let empty = || Value::undefined("No aggregated item, sequence was empty.");
                Ok(best.map_or_else(empty, |(_, item)| item))
            }
            "sum" => {
                let [attribute, start] = args.bind(name, ["attribute", "start"], 0)?;
                let key =
                    Key { attribute: attribute.filter(|a| !a.is_none()), case_sensitive: true };
                let start = start.unwrap_or(Value::Int(0));
                if start.as_str().is_some() {
                    return Err(Failure::new("sum() can't sum strings [use ''.join(seq) instead]"));
                }
                value
                    .iterate()?
                    .iter()
                    .try_fold(start, |sum, item| binary(Operator::Add, &sum, &key.of(self, item)?))
            }
            "groupby" => self.groupby(&value, args),
            "batch" => batch(&value, args),
            "slice" => slice(&value, args),
            "map" => self.map(&value, args),
            "select" | "reject" | "selectattr" | "rejectattr" => self.select(name, &value, args),
            name => Err(Failure::new(format!("no filter named '{name}'"))),
        }
    }

    fn dictsort(&mut self, value: &Value, args: Args) -> Result<Value> {
        let parameters = ["case_sensitive", "by", "reverse"];
        let [case, by, reverse] = args.bind("dictsort", parameters, 0)?;
        let Value::Dict(dict) = value else {
            return Err(match value {
                Value::Undefined(missing) => Failure::new(missing.message()),
                other => {
                    Failure::new(format!("'{}' object has no attribute 'items'", other.type_name()))
                }
            });
        };
        let by_value = match by.as_ref().map(str).as_deref() {
            None | Some("key") => false,
            Some("value") => true,
            _ => return Err(Failure::new("You can only sort by either \"key\" or \"value\"")),
        };
        let key = Key::new(None, case);
        let keyed = dict.entries().iter().map(|(name, value)| {
            let by = if by_value { value } else { name };
            (key.folded(by.clone()), Value::tuple(vec![name.clone(), value.clone()]))
        });
        let reverse = reverse.is_some_and(|reverse| reverse.is_true());
        Ok(Value::list(compare::sort(keyed.collect(), reverse)?))
    }

    fn groupby(&mut self, value: &Value, args: Args) -> Result<Value> {
        let parameters = ["attribute", "default", "case_sensitive"];
        let [attribute, default, case] = args.bind("groupby", parameters, 1)?;
        let key = Key::new(attribute, case);
        let default = default.filter(|default| !default.is_none());
        let mut keyed = Vec::new();
        for item in value.iterate()? {
            let mut real = match &key.attribute {
                Some(attribute) => self.path(&item, attribute)?,
                None => item.clone(),
            };
            if let (Value::Undefined(_), Some(default)) = (&real, &default) {
                real = default.clone();
            }
            keyed.push((key.folded(real.clone()), Value::tuple(vec![real, item])));
        }
        let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
        for pair in compare::sort(keyed, false)? {
            let Some([real, item]) = pair.as_items() else { continue };
            let folded = key.folded(real.clone());
            match groups.last_mut() {
                Some((last, _, items)) if compare::equal(last, &folded) => items.push(item.clone()),
                _ => groups.push((folded, real.clone(), vec![item.clone()])),
            }
        }
        let group = |(_, real, items)| Value::Group(vec![real, Value::list(items)].into());
        Ok(Value::list(groups.into_iter().map(group).collect()))
    }

    fn map(&mut self, value: &Value, args: Args) -> Result<Value> {
        if !value.is_true() {
            return Ok(Value::generator(Vec::new(), None));
        }
        let items = match items_of(value) {
            Ok(items) => items,
            Err(failed) => return Ok(failed),
        };
        let Args { mut positional, mut named } = args;
        let failed =
            |message: String| Ok(Value::generator(Vec::new(), Some(Failure::new(message))));
        let mut take = |name: &str| {
            let at = named.iter().position(|(other, _)| &**other == name)?;
            Some(named.remove(at).1)
        };
        if positional.is_empty()
            && let Some(attribute) = take("attribute")
        {
            let default = take("default").filter(|default| !default.is_none());
            if let Some((name, _)) = named.first() {
                return failed(format!("Unexpected keyword argument '{name}'"));
            }
            return Ok(lazily(items, |item| {
                let found = self.path_or(&item, &attribute, default.as_ref())?;
                Ok(Some(found))
            }));
        }
        if positional.is_empty() {
            return failed("map requires a filter argument".into());
        }
        let filter = positional.remove(0);
        let Some(filter) = filter.as_str() else {
            return failed(format!("no filter named '{}'", str(&filter)));
        };
        Ok(lazily(items, |item| {
            let args = Args { positional: positional.clone(), named: named.clone() };
            self.filter(filter, item, args).map(Some)
        }))
    }

    /// A path whose parts fall back to a default one by one.
    fn path_or(&mut self, item: &Value, path: &Value, default: Option<&Value>) -> Result<Value> {
        let Some(default) = default else { return self.path(item, path) };
        let Some(text) = path.as_str() else {
            let found = self.path(item, path)?;
            return Ok(if found.is_undefined() { default.clone() } else { found });
        };
        text.split('.').try_fold(item.clone(), |item, part| {
            let found = self.path(&item, &Value::text(part))?;
            Ok(if found.is_undefined() { default.clone() } else { found })
        })
    }

    /// `select`, `reject` and those of an attribute.
    fn select(&mut self, name: &str, value: &Value, args: Args) -> Result<Value> {
        if !value.is_true() {
            return Ok(Value::generator(Vec::new(), None));
        }
        let items = match items_of(value) {
            Ok(items) => items,
            Err(failed) => return Ok(failed),
        };
        let Args { mut positional, named } = args;
        let mut attribute = None;
        if name.ends_with("attr") {
            if positional.is_empty() {
                let failure = Failure::new("Missing parameter for attribute name");
                return Ok(Value::generator(Vec::new(), Some(failure)));
            }
            attribute = Some(positional.remove(0));
        }
        let test = (!positional.is_empty()).then(|| positional.remove(0));
        let wanted = name.starts_with("select");
        Ok(lazily(items, |item| {
            let value = match &attribute {
                Some(attribute) => self.path(&item, attribute)?,
                None => item.clone(),
            };
            let holds = match &test {
                None => value.is_true(),
                Some(test) => {
                    let args = Args { positional: positional.clone(), named: named.clone() };
                    self.test(&str(test), &value, args)?
                }
            };
            Ok((holds == wanted).then_some(item))
        }))
    }
}

fn none_of(which: &str) -> Value {
    Value::undefined(format!("No {which} item, sequence was empty."))
}

fn count(value: Option<Value>, filter: &str) -> Result<usize> {
    let count = whole(&value.unwrap_or(Value::None))?;
    usize::try_from(count)
        .ok()
        .filter(|count| (1..=MAX_LENGTH).contains(count))
        .ok_or_else(|| Failure::new(format!("`{filter}` needs a positive number")))
}

fn batch(value: &Value, args: Args) -> Result<Value> {
    let [size, fill] = args.bind("batch", ["linecount", "fill_with"], 1)?;
    let size = count(size, "batch")?;
    let items = match items_of(value) {
        Ok(items) => items,
        Err(failed) => return Ok(failed),
    };
    let fill = fill.filter(|fill| !fill.is_none());
    let batch = |items: &[Value]| {
        let mut items = items.to_vec();
        if let Some(fill) = &fill {
            items.resize(size, fill.clone());
        }
        Value::list(items)
    };
    Ok(Value::generator(items.chunks(size).map(batch).collect(), None))
}

fn slice(value: &Value, args: Args) -> Result<Value> {
    let [slices, fill] = args.bind("slice", ["slices", "fill_with"], 1)?;
    let slices = count(slices, "slice")?;
    let items = match items_of(value) {
        Ok(items) => items,
        Err(failed) => return Ok(failed),
    };
    let fill = fill.filter(|fill| !fill.is_none());
    let (each, extra) = (items.len() / slices, items.len() % slices);
    let mut rest = items.into_iter();
    let slices = (0..slices).map(|number| {
        let length = each + usize::from(number < extra);
        let mut slice: Vec<Value> = rest.by_ref().take(length).collect();
        if number >= extra {
            slice.extend(fill.clone());
        }
        Value::list(slice)
    });
    Ok(Value::generator(slices.collect(), None))
}
