//! `${NAME}` in texts.

use crate::{
    key::is_secret_name,
    yaml::{Content, Entry, Node},
};

/// A node with its variables replaced.
pub(crate) struct Expanded {
    pub(crate) node: Node,
    /// Whether the value of a secret variable stands in it.
    pub(crate) secret: bool,
}

/// Replaces `${NAME}` by what `lookup` says; `$${` stands for `${` itself.
///
/// Fails with the first name that `lookup` does not know and the node that it
/// stands in. What does not read as a name stays as it is.
pub(crate) fn expand<'a>(
    node: &'a Node,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Expanded, (String, &'a Node)> {
    let mut secret = false;
    let node = expand_node(node, lookup, &mut secret)?;
    Ok(Expanded { node, secret })
}

fn expand_node<'a>(
    node: &'a Node,
    lookup: &dyn Fn(&str) -> Option<String>,
    secret: &mut bool,
) -> Result<Node, (String, &'a Node)> {
    let content = match &node.content {
        Content::Scalar { text, quoted } => {
            let text = expand_text(text, lookup, secret).map_err(|name| (name, node))?;
            Content::Scalar { text, quoted: *quoted }
        }
        Content::List(items) => Content::List(
            items.iter().map(|item| expand_node(item, lookup, secret)).collect::<Result<_, _>>()?,
        ),
        Content::Map(entries) => {
            let mut expanded = Vec::with_capacity(entries.len());
            for Entry { name, place, node } in entries {
                let node = expand_node(node, lookup, secret)?;
                expanded.push(Entry { name: name.clone(), place: place.clone(), node });
            }
            Content::Map(expanded)
        }
    };
    Ok(Node { place: node.place.clone(), content })
}

fn expand_text(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    secret: &mut bool,
) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = &from[2..];
            continue;
        }
        expanded.push_str(before);
        match variable_name(from) {
            Some(name) => {
                expanded.push_str(&lookup(name).ok_or_else(|| name.to_owned())?);
                *secret |= is_secret_name(name);
                rest = &from[name.len() + 3..];
            }
            None => {
                expanded.push_str("${");
                rest = &from[2..];
            }
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// The name in a text that begins with `${NAME}`.
fn variable_name(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix("${")?.split_once('}')?;
    let fits =
        |(i, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || i > 0 && c.is_ascii_digit();
    (!name.is_empty() && name.char_indices().all(fits)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>, expected_secret: bool) {
        let lookup = |name: &str| match name {
            "HOME" => Some("/home/ada".to_owned()),
            "HF_TOKEN" => Some("hf_abc".to_owned()),
            _ => None,
        };
        let mut secret = false;
        let expanded = expand_text(text, &lookup, &mut secret);
        assert_eq!(expanded, expected.map(str::to_owned).map_err(str::to_owned));
        assert_eq!(secret, expected_secret, "{text}");
    }

    #[test]
    fn variables_are_replaced() {
        check("a", Ok("a"), false);
        check("${HOME}/x/${HOME}", Ok("/home/ada/x//home/ada"), false);
        check("${NOWHERE}", Err("NOWHERE"), false);
        check("$${HOME}", Ok("${HOME}"), false);
        check("$HOME ${} ${a b} ${HOME", Ok("$HOME ${} ${a b} ${HOME"), false);
        check("Bearer ${HF_TOKEN}", Ok("Bearer hf_abc"), true);
    }
}
