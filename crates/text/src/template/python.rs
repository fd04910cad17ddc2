//! Python's methods on strings, lists and dicts, and filters that follow from them.

use minijinja::value::{Kwargs, Rest, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

/// Calls a method that Jinja itself does not know on a value.
pub(super) fn method(
    state: &mut State,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => match string_method(value.as_str().unwrap_or_default(), name, args)? {
            Some(result) => Ok(result),
            None => pycompat::unknown_method_callback(state, value, name, args),
        },
        ValueKind::Seq if name == "index" => {
            let (wanted,): (Value,) = from_args(args)?;
            let position = value.try_iter()?.position(|item| item == wanted);
            position.map(Value::from).ok_or_else(|| invalid(format!("{wanted} is not in list")))
        }
        _ => pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// The filter `indent(width=4, first=False, blank=False)`. Unlike the engine's
/// own it keeps a line end at the end, as `str.splitlines` makes Jinja do.
pub(super) fn indent(text: &str, args: Rest<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let argument = |index: usize, name: &str| -> Result<Option<Value>, Error> {
        let named: Option<Value> = kwargs.get(name)?;
        Ok(named.or_else(|| args.get(index).cloned()))
    };
    let indent = match argument(0, "width")? {
        None => " ".repeat(4),
        Some(width) => match width.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(width.as_i64().unwrap_or(0).clamp(0, 4096) as usize),
        },
    };
    let first = argument(1, "first")?.is_some_and(|value| value.is_true());
    let blank = argument(2, "blank")?.is_some_and(|value| value.is_true());
    kwargs.assert_all_used()?;

    let mut out = String::new();
    for (index, line) in lines(text).into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if (index == 0 && first) || (index > 0 && (blank || !line.is_empty())) {
            out.push_str(&indent);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// The lines of a text as `str.splitlines` finds them, the empty one after a
/// last line end included.
fn lines(text: &str) -> Vec<&str> {
    let ends = [
        '\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}',
        '\u{2029}',
    ];
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(ends) {
        let (line, tail) = rest.split_at(end);
        lines.push(line);
        let skipped = if tail.starts_with("\r\n") {
            2
        } else {
            tail.chars().next().map_or(0, char::len_utf8)
        };
        rest = &tail[skipped..];
    }
    lines.push(rest);
    lines
}

fn string_method(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let result = match name {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (before, after) = text.split_once(separator).unwrap_or((text, ""));
            parts(before, separator, after, text.contains(separator))
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (before, after) = text.rsplit_once(separator).unwrap_or(("", text));
            parts(before, separator, after, text.contains(separator))
        }
        "rsplit" => {
            let (separator, limit): (&str, Option<i64>) = from_args(args)?;
            rsplit(text, separator, limit)
        }
        "index" => {
            let (wanted,): (&str,) = from_args(args)?;
            let bytes = text.find(wanted).ok_or_else(|| invalid("substring not found"))?;
            Value::from(text[..bytes].chars().count())
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            zfill(text, width.min(4096)).into()
        }
        "casefold" => {
            let () = from_args(args)?;
            text.to_lowercase().into()
        }
        _ => return Ok(None),
    };
    Ok(Some(result))
}

fn parts(before: &str, separator: &str, after: &str, found: bool) -> Value {
    let separator = if found { separator } else { "" };
    [before, separator, after].into_iter().map(str::to_owned).collect()
}

fn rsplit(text: &str, separator: &str, limit: Option<i64>) -> Value {
    let mut pieces: Vec<&str> = match limit.and_then(|limit| usize::try_from(limit).ok()) {
        Some(limit) => text.rsplitn(limit.saturating_add(1), separator).collect(),
        None => text.rsplit(separator).collect(),
    };
    pieces.reverse();
    pieces.into_iter().map(str::to_owned).collect()
}

fn zfill(text: &str, width: usize) -> String {
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => text.split_at(text.len() - digits.len()),
        None => ("", text),
    };
    let missing = width.saturating_sub(text.chars().count());
    format!("{sign}{}{digits}", "0".repeat(missing))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

#[cfg(test)]
mod tests {
    use minijinja::Environment;

    use super::*;

    #[track_caller]
    fn check(expression: &str, expected: &str) {
        let mut environment = Environment::new();
        environment.set_unknown_method_callback(method);
        environment.add_filter("indent", indent);
        let source = format!("{{{{ {expression} }}}}");
        assert_eq!(environment.render_str(&source, ()).unwrap(), expected);
    }

    #[test]
    fn indent_keeps_line_ends() {
        check(r"'a\nb\n\nc\n' | indent", "a\n    b\n\n    c\n");
        check(r"'a\n' | indent(2, first=true)", "  a\n");
        check(r"'a\r\n\nb' | indent('> ', true, true)", "> a\n> \n> b");
    }

    #[test]
    fn methods_do_what_python_does() {
        check("'abc'.removeprefix('a') ~ 'abc'.removesuffix('x')", "bcabc");
        check("'a=b=c'.partition('=') | join('|')", "a|=|b=c");
        check("'a=b=c'.rpartition('=') | join('|')", "a=b|=|c");
        check("'abc'.partition('=') | join('|')", "abc||");
        check("'a.b.c'.rsplit('.', 1) | join('|')", "a.b|c");
        check("'-5'.zfill(4) ~ '7'.zfill(3)", "-005007");
        check("'été x'.index('x')", "4");
        check("['a', 'b'].index('b')", "1");
        check("'A b'.upper() ~ ' x '.strip() ~ {'a': 1}.get('a')", "A Bx1");
    }
}
