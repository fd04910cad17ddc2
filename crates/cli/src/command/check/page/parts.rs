//! Pieces of a page.

use crate::terminal::style::count;

/// Text as HTML.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A sentence whose values in backticks become code.
pub(super) fn prose(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    // A backtick without a fellow is one of the text.
    if parts.len().is_multiple_of(2) {
        return escape(text);
    }
    let part = |(index, part): (usize, &&str)| match index % 2 {
        0 => escape(part),
        _ => format!("<code>{}</code>", escape(part)),
    };
    parts.iter().enumerate().map(part).collect()
}

/// A figure with its name and a remark.
pub(super) fn tile(figure: &str, name: &str, remark: &str) -> String {
    let remark = match remark {
        "" => String::new(),
        remark => format!("<small>{}</small>", prose(remark)),
    };
    format!("<li><strong>{figure}</strong> {name}{remark}</li>\n")
}

/// A cell of a table.
pub(super) enum Cell {
    Text(String),
    Code(String),
    Number(usize),
}

impl Cell {
    fn html(&self) -> String {
        match self {
            Cell::Text(text) => format!("<td>{}</td>", prose(text)),
            Cell::Code(text) => format!("<td><code>{}</code></td>", escape(text)),
            Cell::Number(number) => format!("<td class=\"number\">{}</td>", count(*number as u64)),
        }
    }
}

/// A table with a head; columns of numbers are told by the first row.
pub(super) fn table(caption: &str, head: &[&str], rows: impl Iterator<Item = Vec<Cell>>) -> String {
    let rows: Vec<Vec<Cell>> = rows.collect();
    let is_number = |column: usize| {
        rows.first().is_some_and(|row| matches!(row.get(column), Some(Cell::Number(_))))
    };
    let name = |(column, name): (usize, &&str)| {
        let class = if is_number(column) { " class=\"number\"" } else { "" };
        format!("<th scope=\"col\"{class}>{}</th>", escape(name))
    };
    let caption = match caption {
        "" => String::new(),
        caption => format!("<caption>{}</caption>\n", escape(caption)),
    };
    let head: String = head.iter().enumerate().map(name).collect();
    let body: String = rows
        .iter()
        .map(|row| format!("<tr>{}</tr>\n", row.iter().map(Cell::html).collect::<String>()))
        .collect();
    format!("<div class=\"wide\"><table>\n{caption}<tr>{head}</tr>\n{body}</table></div>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_backticks_are_code() {
        for (text, expected) in [
            ("a < b", "a &lt; b"),
            ("no `<s>` here", "no <code>&lt;s&gt;</code> here"),
            ("a ` alone & so", "a ` alone &amp; so"),
            ("it's \"x\"", "it&#39;s &quot;x&quot;"),
        ] {
            assert_eq!(prose(text), expected);
        }
    }

    #[test]
    fn numbers_stand_under_their_heads() {
        let rows = [vec![Cell::Code("<a>".to_owned()), Cell::Number(1234)]];
        let html = table("", &["name", "rows"], rows.into_iter());
        let expected = "<div class=\"wide\"><table>\n<tr><th scope=\"col\">name</th>\
                        <th scope=\"col\" class=\"number\">rows</th></tr>\n\
                        <tr><td><code>&lt;a&gt;</code></td><td class=\"number\">1,234</td></tr>\n\
                        </table></div>\n";
        assert_eq!(html, expected);
    }
}
