//! How answers begin.

/// Openings that say nothing; each in lower case, up to where a word ends.
const BOILERPLATE: [&str; 14] = [
    "absolutely!",
    "as a language model",
    "as a large language model",
    "as an ai",
    "as an artificial intelligence",
    "certainly",
    "great question",
    "here is the answer",
    "i'd be happy to",
    "i'm an ai",
    "of course!",
    "sure!",
    "sure,",
    "sure thing",
];

/// Ways to decline, in lower case.
const REFUSALS: [&str; 16] = [
    "i am not able to assist",
    "i am not able to help",
    "i am unable to",
    "i can't assist",
    "i can't fulfill",
    "i can't help",
    "i cannot assist",
    "i cannot fulfill",
    "i cannot help",
    "i cannot provide",
    "i can't provide",
    "i won't be able to",
    "i'm not able to",
    "i'm sorry, but i can",
    "i'm sorry, but as an ai",
    "i'm unable to",
];

/// Bytes of an answer within which it declines.
const START: usize = 160;

/// The beginning in lower case, with straight apostrophes.
fn start(answer: &str) -> String {
    let answer = answer.trim_start();
    let start = &answer[..answer.floor_char_boundary(START)];
    start.to_lowercase().replace('\u{2019}', "'")
}

/// Whether the answer opens with a phrase that says nothing.
pub(super) fn is_boilerplate(answer: &str) -> bool {
    let start = start(answer);
    BOILERPLATE.iter().any(|opening| {
        let rest = start.strip_prefix(opening);
        rest.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
    })
}

/// Whether the answer declines.
pub(super) fn is_refusal(answer: &str) -> bool {
    let start = start(answer);
    REFUSALS.iter().any(|refusal| start.contains(refusal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(answer: &str, boilerplate: bool, refusal: bool) {
        assert_eq!((is_boilerplate(answer), is_refusal(answer)), (boilerplate, refusal));
    }

    #[test]
    fn openings_are_told() {
        check("Sure! Here is a list:", true, false);
        check(" sure, it is 4", true, false);
        check("Certainly. The answer is 4.", true, false);
        check("As an AI language model, I have no feelings.", true, false);
        check("Surely it is 4.", false, false);
        check("as an aide to the king, he", false, false);
        check("It is certainly 4.", false, false);
        check("I\u{2019}m sorry, but I can\u{2019}t do that.", false, true);
        check("As an AI, I cannot help with that.", true, true);
        check("I cannot tell you how happy I am.", false, false);
        // Late in a long answer somebody else declines.
        check(&format!("{} I can't help", "A story. ".repeat(30)), false, false);
        // The cut falls within a character.
        check(&"\u{e9}".repeat(200), false, false);
    }
}
