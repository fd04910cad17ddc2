//! The model card as the hub takes it.

use crate::id::HubId;

/// The card with a `base_model` in its front matter that the hub knows: it refuses a card that
/// names a path or a file there. None where nothing has to change.
pub(super) fn for_hub(card: &str) -> Option<String> {
    let front = card.strip_prefix("---\n")?;
    let end = front.find("\n---")?;
    let (front, rest) = front.split_at(end);
    let mut changed = false;
    let lines = front.lines().filter_map(|line| {
        let Some(base) = line.strip_prefix("base_model:") else { return Some(line.to_owned()) };
        let base = base.trim().trim_matches(['"', '\'']);
        // A list follows on lines of its own.
        let is_fine = base.is_empty() || base.starts_with('[');
        let name = HubId::parse(base).map(|id| id.name);
        if is_fine || name.as_deref() == Some(base) {
            return Some(line.to_owned());
        }
        changed = true;
        name.map(|name| format!("base_model: {name}"))
    });
    let front = lines.collect::<Vec<_>>().join("\n");
    changed.then(|| format!("---\n{front}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hub_ids_stay() {
        let check = |base: &str, expected: Option<&str>| {
            let card = format!("---\n{base}tags: [lora]\n---\n\nbase_model: /stays\n");
            let expected = expected
                .map(|base| format!("---\n{base}tags: [lora]\n---\n\nbase_model: /stays\n"));
            assert_eq!(for_hub(&card), expected, "{base}");
        };
        check("base_model: o/n\n", None);
        check("base_model:\n- o/n\n", None);
        check("", None);
        check("base_model: /home/me/models/n\n", Some(""));
        check("base_model: \"o/n:n-Q4_K_M.gguf\"\n", Some("base_model: o/n\n"));
        assert_eq!(for_hub("# A card\nbase_model: /x\n"), None);
    }
}
