//! What is read off a template's source: generation tags and literal markers.

/// Makes `{% generation %}` an ordinary scope. The tag only marks which text
/// the assistant wrote; it changes nothing of what is rendered.
pub(super) fn plain_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let name = tag[2..end].trim_matches(['-', '+']).trim();
        let (tag, after) = tag.split_at(end + 2);
        match name {
            "generation" => out.push_str(&tag.replacen("generation", "with", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endwith", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

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
    fn generation_tags_become_scopes() {
        let source = "{%- generation -%}a{% if x %}{% endif %}{% endgeneration %} {% generation";
        let expected = "{%- with -%}a{% if x %}{% endif %}{% endwith %} {% generation";
        assert_eq!(plain_generation(source), expected);
    }

    #[test]
    fn markers_are_literal() {
        let source = "'<|im_start|>' + role <|{{ x }}|> <| a |> a<b|>c <｜User｜><|end|";
        assert_eq!(markers(source), ["<|im_start|>", "<｜User｜>"]);
    }
}
