//! The keys of a method in a new recipe: the first of its loss with its default, the others as comments to take up.

use keys::{Document, Key, Settings as _};
use train::method::Method;

use super::draft::line;

/// Docs longer than this are cut to what the key is.
const LONGEST_DOC: usize = 90;

/// The section `objective`, and what the policy is compared with; empty for methods without keys of their own.
pub(super) fn objective(method: &Method, document: &Document) -> String {
    let own =
        method.keys.iter().filter_map(|key| Some((key.name().strip_prefix("objective.")?, key)));
    let own: Vec<(&str, &Key)> = own.collect();
    // A setting that is written has an effect, whatever the others are.
    let Some(first) = own.iter().position(|(_, key)| key.default_text().is_some()) else {
        return String::new();
    };
    let mut text = "objective:\n".to_owned();
    let (name, key) = own[first];
    text += &line(2, name, key.default_text().unwrap_or_default(), &why(key));
    for (_, (name, key)) in own.iter().enumerate().filter(|(index, _)| *index != first) {
        let name = format!("# {name}");
        text += &line(2, &name, key.default_text().unwrap_or_default(), &why(key));
    }
    if document.value("reference.from").is_some() {
        let why = "what the policy is compared with; also base, or the folder of an adapter";
        text += &line(0, "# reference", "start", why);
    }
    text + "\n"
}

/// The method's own keys of the section `train`, as comments.
pub(super) fn of_training(method: &Method) -> String {
    let own = method.keys.iter();
    let own = own.filter_map(|key| Some((key.name().strip_prefix("train.")?, key)));
    let comment = |(name, key): (&str, &Key)| {
        line(2, &format!("# {name}"), key.default_text().unwrap_or_default(), &why(key))
    };
    own.map(comment).collect()
}

/// What a key is, in a few words.
fn why(key: &Key) -> String {
    let doc = key.doc_text();
    let sentence = doc.split(". ").next().unwrap_or(doc).trim_end_matches('.');
    let begin = LONGEST_DOC / 6;
    let cut = [": ", ", "].iter().filter_map(|end| sentence.get(begin..)?.find(end)).min();
    let mut why = match cut.filter(|_| sentence.len() > LONGEST_DOC) {
        Some(end) => sentence[..begin + end].to_owned(),
        None => sentence.to_owned(),
    };
    if !why[1..].starts_with(|next: char| next.is_uppercase()) {
        why[..1].make_ascii_lowercase();
    }
    if let Some(by) = key.chosen_by() {
        why += &format!(" (by {by})");
    }
    let words = key.words().join(", ");
    let are_told = key.words().iter().all(|word| why.contains(word));
    if are_told || words.len() > LONGEST_DOC { why } else { format!("{why}: {words}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_in_a_few_words() {
        let key = |doc| Key::float("objective.x", 0.0, 1.0).doc(doc);
        assert_eq!(why(&key("Strength of the pull. Larger is stronger.")), "strength of the pull");
        assert_eq!(why(&key("LD-DPO: weight of the tail.")), "LD-DPO: weight of the tail");
        let long = "Several losses and their weights, such as {sigmoid: 0.8, bco_pair: 0.2}, instead of `objective.loss`.";
        assert_eq!(why(&key(long)), "several losses and their weights");
        let choice = Key::choice("objective.loss", &["hinge", "ipo"]).doc("Loss over a pair.");
        assert_eq!(why(&choice.default_by("rows")), "loss over a pair (by rows): hinge, ipo");
        let told = Key::choice("objective.loss", &["hinge", "ipo"]).doc("Loss: hinge, or ipo.");
        assert_eq!(why(&told), "loss: hinge, or ipo");
    }
}
