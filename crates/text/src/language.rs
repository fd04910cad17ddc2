//! Which script and which language a text is in, as far as letters and common words tell.
//!
//! Scripts tell most languages, common words the six large ones in Latin script. Nothing is learned from data: a short
//! text, a list of names or a language that is not listed is not told.

/// Common words from which a language is told.
const MIN_WORDS: usize = 3;

/// Languages in Latin script with words that are common there and rare in the others.
const WORDS: [(&str, [&str; 12]); 6] = [
    ("en", ["the", "and", "is", "of", "to", "that", "with", "this", "you", "are", "it", "for"]),
    ("de", ["der", "die", "und", "das", "ist", "nicht", "ein", "mit", "zu", "auf", "ich", "eine"]),
    ("fr", ["le", "les", "et", "est", "des", "une", "que", "pour", "dans", "du", "je", "pas"]),
    ("es", ["el", "los", "y", "es", "que", "una", "por", "para", "del", "las", "con", "como"]),
    ("it", ["il", "di", "che", "è", "per", "una", "della", "con", "sono", "gli", "non", "le"]),
    ("pt", ["o", "os", "e", "que", "um", "uma", "não", "para", "com", "do", "da", "em"]),
];

/// A script with the language that it is taken for, and its ranges of code points.
struct Script {
    name: &'static str,
    language: &'static str,
    ranges: &'static [(u32, u32)],
}

const NOT_LATIN: [Script; 9] = [
    Script { name: "cyrillic", language: "ru", ranges: &[(0x400, 0x52f)] },
    Script { name: "greek", language: "el", ranges: &[(0x370, 0x3ff)] },
    Script { name: "hebrew", language: "he", ranges: &[(0x590, 0x5ff)] },
    Script { name: "arabic", language: "ar", ranges: &[(0x600, 0x6ff)] },
    Script { name: "devanagari", language: "hi", ranges: &[(0x900, 0x97f)] },
    Script { name: "thai", language: "th", ranges: &[(0xe00, 0xe7f)] },
    Script { name: "kana", language: "ja", ranges: &[(0x3040, 0x30ff)] },
    Script { name: "hangul", language: "ko", ranges: &[(0xac00, 0xd7af)] },
    Script { name: "han", language: "zh", ranges: &[(0x4e00, 0x9fff)] },
];
const KANA: usize = 6;
const HAN: usize = 8;

/// Letters below are Latin, with those of phonetic alphabets.
const LATIN_END: u32 = 0x370;
/// Latin letters with marks above and below, as Vietnamese has them.
const LATIN_MORE: (u32, u32) = (0x1e00, 0x1eff);

/// The languages that [`told`] knows, as ISO 639-1 codes.
pub const LANGUAGES: [&str; 15] =
    ["en", "de", "fr", "es", "it", "pt", "ru", "el", "he", "ar", "hi", "th", "ja", "ko", "zh"];

/// The scripts that [`share_of_script`] knows.
pub const SCRIPTS: [&str; 10] = [
    "latin",
    "cyrillic",
    "greek",
    "hebrew",
    "arabic",
    "devanagari",
    "thai",
    "kana",
    "hangul",
    "han",
];

/// The language of a text as its ISO 639-1 code, if it shows. A script stands for its most common language: every
/// text in Cyrillic letters is `ru`.
pub fn told(text: &str) -> Option<&'static str> {
    if !text.is_ascii()
        && let Some(script) = by_script(text)
    {
        return Some(script);
    }
    let mut votes = [0; WORDS.len()];
    for word in text.split(|character: char| !character.is_alphabetic()) {
        // No common word is longer.
        if !(1..=5).contains(&word.len()) {
            continue;
        }
        for (vote, (_, words)) in votes.iter_mut().zip(&WORDS) {
            *vote += usize::from(words.iter().any(|common| word.eq_ignore_ascii_case(common)));
        }
    }
    let most = *votes.iter().max()?;
    let mut first = votes.iter().zip(&WORDS).filter(|(vote, _)| **vote == most);
    let (_, (name, _)) = first.next()?;
    (most >= MIN_WORDS && first.next().is_none()).then_some(name)
}

/// The share of a text's letters that are of a script, one of [`SCRIPTS`]; nothing where there are no letters.
pub fn share_of_script(text: &str, script: &str) -> Option<f64> {
    let (mut letters, mut own) = (0_usize, 0_usize);
    for character in text.chars().filter(|character| character.is_alphabetic()) {
        letters += 1;
        own += usize::from(script_of(character) == Some(script));
    }
    (letters > 0).then(|| own as f64 / letters as f64)
}

fn script_of(letter: char) -> Option<&'static str> {
    let code = u32::from(letter);
    match code < LATIN_END || (LATIN_MORE.0..=LATIN_MORE.1).contains(&code) {
        true => Some("latin"),
        false => not_latin(code).map(|index| NOT_LATIN[index].name),
    }
}

fn not_latin(code: u32) -> Option<usize> {
    let within = |script: &Script| script.ranges.iter().any(|&(a, b)| (a..=b).contains(&code));
    NOT_LATIN.iter().position(within)
}

/// What the script tells where a quarter of the letters are not Latin. Kana make Japanese of
/// Chinese characters.
fn by_script(text: &str) -> Option<&'static str> {
    let mut counts = [0_usize; NOT_LATIN.len()];
    let mut letters = 0;
    for character in text.chars().filter(|character| character.is_alphabetic()) {
        letters += 1;
        let code = u32::from(character);
        if code < LATIN_END {
            continue;
        }
        if let Some(index) = not_latin(code) {
            counts[index] += 1;
        }
    }
    let all: usize = counts.iter().sum();
    if all == 0 || all * 4 < letters {
        return None;
    }
    let most = (0..NOT_LATIN.len()).max_by_key(|&index| counts[index])?;
    let is_japanese = most == HAN && counts[KANA] * 10 >= counts[most];
    Some(NOT_LATIN[if is_japanese { KANA } else { most }].language)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(told(text), expected, "{text}");
    }

    #[test]
    fn languages_are_told_by_script_and_words() {
        check("The fox is in the garden and it sleeps.", Some("en"));
        check("Der Fuchs ist im Garten und das ist nicht gut.", Some("de"));
        check("Le renard est dans le jardin et je ne le vois pas.", Some("fr"));
        check("El zorro está en el jardín y los perros duermen por la noche.", Some("es"));
        check("Il gatto che è nella casa non è mio, ma sono amici.", Some("it"));
        check("O gato não está em casa e os cães dormem com uma bola.", Some("pt"));
        check("Лиса спит в саду.", Some("ru"));
        check("狐狸在花园里睡觉。", Some("zh"));
        check("狐は庭で寝ています。", Some("ja"));
        check("여우가 정원에서 잔다.", Some("ko"));
        check("42", None);
        check("ok", None);
        check("", None);
    }

    #[test]
    fn every_language_and_script_is_listed() {
        let words = WORDS.iter().map(|(name, _)| *name);
        let all: Vec<_> = words.chain(NOT_LATIN.iter().map(|script| script.language)).collect();
        assert_eq!(all, LANGUAGES);
        let names = NOT_LATIN.iter().map(|script| script.name);
        let all: Vec<_> = std::iter::once("latin").chain(names).collect();
        assert_eq!(all, SCRIPTS);
        assert_eq!((NOT_LATIN[KANA].name, NOT_LATIN[HAN].name), ("kana", "han"));
    }

    #[test]
    fn letters_belong_to_scripts() {
        assert_eq!(share_of_script("Größe Việt", "latin"), Some(1.0));
        assert_eq!(share_of_script("狐は", "kana"), Some(0.5));
        assert_eq!(share_of_script("12 !", "latin"), None);
    }
}
