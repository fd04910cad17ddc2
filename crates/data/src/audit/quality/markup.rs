//! Rests of encodings and of HTML.

/// Tags that text from web pages keeps; in lower case.
const TAGS: [&str; 15] = [
    "a", "b", "br", "div", "em", "font", "img", "li", "p", "script", "span", "strong", "table",
    "td", "ul",
];
/// Entities that text from web pages keeps, without `&`.
const ENTITIES: [&str; 9] =
    ["amp;", "apos;", "gt;", "lt;", "nbsp;", "quot;", "#39;", "#x27;", "rsquo;"];

/// Whether UTF-8 was read as Windows-1252 or Latin-1, or bytes were lost.
pub(super) fn has_mojibake(text: &str) -> bool {
    if text.is_ascii() {
        return false;
    }
    let mut previous = ['\0'; 2];
    text.chars().any(|character| {
        let [before, last] = previous;
        previous = [last, character];
        character == '\u{fffd}' || is_misread(before, last, character)
    })
}

/// Whether the characters are what the bytes of one character of UTF-8 are in Windows-1252.
fn is_misread(before: char, last: char, character: char) -> bool {
    // What the bytes 80 to BF are there, letters aside.
    let continues = |character: char| {
        matches!(character, '\u{80}'..='\u{bf}' | '\u{2013}'..='\u{203a}' | '€' | '™' | '˜')
            || matches!(character, 'Œ' | 'œ' | 'Š' | 'š' | 'Ž' | 'ž' | 'Ÿ' | 'ƒ' | 'ˆ')
    };
    // Accents are C3 xx, quotes and dashes E2 80 xx; « Â » before a space is a lost C2 A0.
    (matches!(last, 'Ã' | 'Â') && continues(character) && character != '\u{2019}')
        || (before == 'â' && matches!(last, '€' | '\u{80}') && continues(character))
        || (before == 'ð' && matches!(last, 'Ÿ' | '\u{9f}') && continues(character))
}

/// Whether tags or entities of HTML are left in the text.
pub(super) fn has_html(text: &str) -> bool {
    let after = |sign: u8| {
        let places = text.bytes().enumerate().filter(move |(_, byte)| *byte == sign);
        places.map(|(place, _)| &text[place + 1..])
    };
    after(b'<').any(is_tag) || after(b'&').any(is_entity)
}

/// `br>`, `/div>`, `a href="..`.
fn is_tag(rest: &str) -> bool {
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    let end = rest.bytes().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    if !TAGS.iter().any(|tag| tag.eq_ignore_ascii_case(name)) {
        return false;
    }
    let attributes = rest.strip_prefix(' ').is_some_and(|rest| {
        let inside = rest.bytes().take(200).take_while(|&byte| byte != b'<');
        inside.clone().any(|byte| byte == b'=') && inside.clone().any(|byte| byte == b'>')
    });
    rest.starts_with('>') || rest.starts_with("/>") || rest.starts_with(" />") || attributes
}

fn is_entity(rest: &str) -> bool {
    ENTITIES.iter().any(|entity| rest.starts_with(entity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, mojibake: bool, html: bool) {
        assert_eq!((has_mojibake(text), has_html(text)), (mojibake, html), "{text}");
    }

    #[test]
    fn misread_characters_are_told_from_accents() {
        for text in ["cafÃ©", "itâ€™s", "âœ“ â€œquoteâ€", "10Â°C", "\u{fffd}", "ðŸ˜€"]
        {
            check(text, true, false);
        }
        for text in
            ["café", "it’s", "“quote”", "10°C", "São Paulo", "ÂNGELA", "Ãlvaro é", "â", "日本"]
        {
            check(text, false, false);
        }
    }

    #[test]
    fn tags_and_entities_are_told_from_signs() {
        for text in ["a<br>b", "<br />", "x</div>", "<P>", "<a href=\"x\">", "AT&amp;T", "&nbsp;"] {
            check(text, false, true);
        }
        for text in
            ["a < b > c", "if a<b and c>d", "AT&T", "&", "<", "Vec<u8>", "<think>", "R&D; x"]
        {
            check(text, false, false);
        }
    }
}
