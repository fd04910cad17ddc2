//! What a number of examples is good for.

use crate::Level;

/// What to expect of that many rows, with a level where it is worth a remark.
pub fn size_guide(rows: usize) -> (&'static str, Option<Level>) {
    match rows {
        0..100 => (
            "under 100 examples are likely learned by heart; a longer prompt may serve as well",
            Some(Level::Warning),
        ),
        100..500 => ("100 to 500 examples teach a style or a format", None),
        500..1_000 => ("500 to 1,000 examples teach a format well and little of a domain", None),
        1_000..10_000 => ("1,000 to 10,000 examples teach a domain", None),
        10_000..=100_000 => ("10,000 to 100,000 examples teach a whole task", None),
        _ => (
            "more than 100,000 examples are seldom needed; try a tenth of them first",
            Some(Level::Note),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_what_they_begin() {
        let cases = [
            (0, "under 100 ", Some(Level::Warning)),
            (99, "under 100 ", Some(Level::Warning)),
            (100, "100 to 500 ", None),
            (500, "500 to 1,000 ", None),
            (1_000, "1,000 to 10,000 ", None),
            (10_000, "10,000 to 100,000 ", None),
            (100_000, "10,000 to 100,000 ", None),
            (100_001, "more than 100,000 ", Some(Level::Note)),
        ];
        for (rows, start, level) in cases {
            let (text, found) = size_guide(rows);
            assert!(text.starts_with(start) && found == level, "{rows}: {text}");
        }
    }
}
