//! Literal markers that are read off a template's source.

/// Every literal `<|...|>` of a template (also with full-width bars), in order.
pub(super) fn markers(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (start, _) in source.match_indices('<') {
        let text = &source[start + 1..];
        for bar in ['|', '｜'] {
            let Some(body) = text.strip_prefix(bar) else { continue };
            let Some(end) = body.find('>') else { continue };
            let Some(name) = body[..end].strip_suffix(bar) else { continue };
            let is_word = |c: char| c.is_alphanumeric() || "_-.:/▁".contains(c);
            if !name.is_empty() && name.chars().all(is_word) {
                found.push(format!("<{bar}{name}{bar}>"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_literal() {
        let source = "'<|im_start|>' + role <|{{ x }}|> <| a |> a<b|>c <｜User｜><|end|";
        assert_eq!(markers(source), ["<|im_start|>", "<｜User｜>"]);
    }
}
