//! Secrets and personal data by their shapes.

/// How keys of services begin, with the number of characters that follow at least.
const KEYS: [(&str, usize); 12] = [
    ("AKIA", 16),
    ("ASIA", 16),
    ("AIza", 35),
    ("ghp_", 36),
    ("gho_", 36),
    ("ghs_", 36),
    ("github_pat_", 50),
    ("glpat-", 20),
    ("hf_", 30),
    ("sk-", 32),
    ("sk_live_", 20),
    ("xoxb-", 30),
];
/// How a private key in PEM form begins.
const PEM: &str = "-----BEGIN ";

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// Whether there is what looks like a key of a service, or a private key.
pub(super) fn has_secret(text: &str) -> bool {
    let tokens = text.as_bytes().split(|&byte| !is_key_byte(byte));
    let is_key = |token: &[u8]| {
        // Random characters hold digits; words with hyphens do not.
        token.len() >= 20
            && token.iter().any(u8::is_ascii_digit)
            && KEYS.iter().any(|(start, rest)| {
                token.starts_with(start.as_bytes()) && token.len() >= start.len() + rest
            })
    };
    tokens.into_iter().any(is_key) || has_private_key(text)
}

fn has_private_key(text: &str) -> bool {
    let mut headers = text.split(PEM).skip(1);
    headers.any(|rest| rest.split("-----").next().is_some_and(|kind| kind.ends_with("PRIVATE KEY")))
}

/// Whether there is an e-mail address.
pub(super) fn has_email(text: &str) -> bool {
    let bytes = text.as_bytes();
    let signs = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'@');
    signs.map(|(place, _)| place).any(|place| {
        let name = bytes[..place].last().is_some_and(u8::is_ascii_alphanumeric);
        let host = bytes[place + 1..].iter().copied();
        let host: Vec<u8> = host
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
            .collect();
        name && is_host(&host)
    })
}

/// `example.com`: parts between points, a top level of letters.
fn is_host(host: &[u8]) -> bool {
    let host = host.strip_suffix(b".").unwrap_or(host);
    let mut parts = host.rsplit(|&byte| byte == b'.');
    let top = parts.next().unwrap_or_default();
    let rest: Vec<&[u8]> = parts.collect();
    let is_top = top.len() >= 2 && top.iter().all(u8::is_ascii_alphabetic);
    is_top && !rest.is_empty() && rest.iter().all(|part| !part.is_empty())
}

/// Whether there is the number of a payment card or an IBAN, by their check digits.
pub(super) fn has_account(text: &str) -> bool {
    digit_groups(text).any(|(_, digits)| is_card(&digits)) || has_iban(text)
}

/// Whether there is a number of 9 to 15 digits that begins with `+`. Without it there is no
/// telling phones from other numbers.
pub(super) fn has_phone(text: &str) -> bool {
    digit_groups(text).any(|(start, digits)| {
        let before = text.as_bytes()[..start].last();
        before == Some(&b'+') && (9..=15).contains(&digits.len()) && digits[0] != b'0'
    })
}

/// Runs of digits in which single spaces and hyphens may stand, with the byte where they begin.
fn digit_groups(text: &str) -> impl Iterator<Item = (usize, Vec<u8>)> {
    let bytes = text.as_bytes();
    let mut place = 0;
    std::iter::from_fn(move || {
        place += bytes[place..].iter().position(u8::is_ascii_digit)?;
        let start = place;
        let mut digits = Vec::new();
        while place < bytes.len() {
            let next = bytes.get(place + 1).is_some_and(u8::is_ascii_digit);
            match bytes[place] {
                digit if digit.is_ascii_digit() => digits.push(digit),
                b' ' | b'-' if next => {}
                _ => break,
            }
            place += 1;
        }
        Some((start, digits))
    })
}

/// Thirteen to nineteen digits with a card's first digit and Luhn's check digit.
fn is_card(digits: &[u8]) -> bool {
    if !(13..=19).contains(&digits.len()) || !matches!(digits[0], b'3'..=b'6') {
        return false;
    }
    let sum: u32 = digits.iter().rev().enumerate().fold(0, |sum, (index, digit)| {
        let value = u32::from(digit - b'0') << (index % 2);
        sum + value / 10 + value % 10
    });
    // A run of one digit is a filler.
    sum.is_multiple_of(10) && digits.iter().any(|digit| *digit != digits[0])
}

/// Two letters and two check digits, in all 15 to 34 signs whose remainder by 97 is 1 (ISO 13616).
fn has_iban(text: &str) -> bool {
    let bytes = text.as_bytes();
    let starts = bytes.windows(4).enumerate().filter(|(_, four)| {
        four[..2].iter().all(u8::is_ascii_uppercase) && four[2..].iter().all(u8::is_ascii_digit)
    });
    starts.map(|(start, _)| start).any(|start| {
        let begins = !bytes[..start].last().is_some_and(u8::is_ascii_alphanumeric);
        begins && is_iban(&bytes[start..])
    })
}

fn is_iban(bytes: &[u8]) -> bool {
    let signs = bytes.iter().take(42).filter(|byte| **byte != b' ');
    let signs: Vec<u8> = signs
        .copied()
        .take_while(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        .take(34)
        .collect();
    let remainder = |signs: &[u8]| {
        let moved = signs[4..].iter().chain(&signs[..4]);
        moved.fold(0, |rest: u32, sign| match sign {
            digit @ b'0'..=b'9' => (rest * 10 + u32::from(digit - b'0')) % 97,
            letter => (rest * 100 + u32::from(letter - b'A') + 10) % 97,
        })
    };
    // What follows may be read as part of it: every length is tried, of which 1 in 97 fits by
    // chance, so that the country's own length decides.
    COUNTRIES.iter().any(|(country, length)| {
        signs.starts_with(country.as_bytes())
            && signs.len() >= *length
            && remainder(&signs[..*length]) == 1
    })
}

/// The length of an IBAN in some countries.
const COUNTRIES: [(&str, usize); 16] = [
    ("AT", 20),
    ("BE", 16),
    ("CH", 21),
    ("CZ", 24),
    ("DE", 22),
    ("DK", 18),
    ("ES", 24),
    ("FI", 18),
    ("FR", 27),
    ("GB", 22),
    ("IE", 22),
    ("IT", 27),
    ("NL", 18),
    ("NO", 15),
    ("PL", 28),
    ("SE", 24),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(test: fn(&str) -> bool, yes: &[&str], no: &[&str]) {
        for text in yes {
            assert!(test(text), "{text}");
        }
        for text in no {
            assert!(!test(text), "{text}");
        }
    }

    #[test]
    fn keys_are_told_by_how_they_begin() {
        let yes = [
            "key=AKIAIOSFODNN7EXAMPLE",
            "'hf_abcdefghijABCDEFGHIJ0123456789abcd'",
            "ghp_0123456789abcdefghijABCDEFGHIJ012345",
            "OPENAI=sk-proj-abcdefghijklmnopqrstuvwxyz0123456789",
            "-----BEGIN RSA PRIVATE KEY-----\nMII",
            "-----BEGIN PRIVATE KEY-----",
        ];
        let no = [
            "AKIA",
            "hf_hub_download",
            "sk-learn is a library",
            "-----BEGIN CERTIFICATE-----",
            "ask-me-anything-about-the-weather-in-2024-please",
            "sk-this-is-a-long-name-with-hyphens-and-no-digit",
        ];
        check(has_secret, &yes, &no);
    }

    #[test]
    fn addresses_have_a_name_and_a_host() {
        let yes = ["bob@example.com", "<a.b+c@mail.example.co.uk>,", "at x@y.de."];
        let no = ["@user", "a @ b.com", "git@host", "x@y.1", "@", "a@.com", "v@1.2.3", "a@b."];
        check(has_email, &yes, &no);
    }

    #[test]
    fn cards_and_accounts_have_check_digits() {
        let yes = [
            "4111 1111 1111 1111",
            "pay 5500-0000-0000-0004!",
            "378282246310005",
            "IBAN DE89 3704 0044 0532 0130 00 please",
            "GB29NWBK60161331926819",
        ];
        let no = [
            "4111 1111 1111 1112",
            "0000000000000000",
            "4444444444444444",
            "1234567890123",
            "4111 1111",
            "DE89 3704 0044 0532 0130 01",
            "XX89370400440532013000",
        ];
        check(has_account, &yes, &no);
    }

    #[test]
    fn phones_have_a_country_code() {
        let yes = ["call +49 30 1234567", "+1-202-555-0143"];
        check(has_phone, &yes, &["555-0143", "2 + 3", "x+1", "+0123456789", "12+1234567"]);
    }
}
