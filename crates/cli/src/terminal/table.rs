//! Columns of text.

/// Lines up the cells of every row; columns are two spaces apart.
///
/// Numbers stand to the right, words to the left; the first row is the head.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let width =
        |column| rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
    let is_number = |column| {
        let body = rows.iter().skip(1).map(|row| cell(row, column));
        body.filter(|text| !text.is_empty())
            .all(|text| text.starts_with(|c: char| c.is_ascii_digit() || c == '-'))
    };
    let columns: Vec<(usize, bool)> = (0..columns).map(|c| (width(c), is_number(c))).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (index, &(width, right)) in columns.iter().enumerate() {
            let text = cell(row, index);
            let text = if right { format!("{text:>width$}") } else { format!("{text:<width$}") };
            line.push_str(if index == 0 { "" } else { "  " });
            line.push_str(&text);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Text on one line and no longer than `width` characters; what is cut is marked.
pub(crate) fn one_line(text: &str, width: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= width {
        return line;
    }
    let kept: String = line.chars().take(width.saturating_sub(1)).collect();
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let rows = [["name", "rows"], ["a", "7"], ["longer", "12"]];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect();
        assert_eq!(table(&rows), "name    rows\na          7\nlonger    12\n");
    }

    #[test]
    fn long_text_is_cut_with_a_mark() {
        assert_eq!(one_line("a\n b", 10), "a b");
        assert_eq!(one_line("abcdef", 4), "abc…");
    }
}
