//! What stands around the matter and decides no field.

use super::{Pool, pool};

pub(in crate::command::quickstart::demo) const GREETINGS: Pool = pool(
    &[
        "Hello,",
        "Hi,",
        "Dear support team,",
        "Good morning,",
        "Hey there,",
        "To whom it may concern,",
        "Hello support,",
        "Hi team,",
        "Dear Sir or Madam,",
        "Hi there!",
    ],
    &["Good evening,", "Dear customer service,", "Hello everyone,", "Hey,", "Good day,"],
);

pub(in crate::command::quickstart::demo) const INTROS: Pool = pool(
    &[
        "I am writing about an order.",
        "I have something to report.",
        "There is something I need help with.",
        "It is about my last purchase.",
        "I hope this reaches the right person.",
        "Here is the situation.",
    ],
    &[
        "I am contacting you about a purchase.",
        "Let me explain the situation.",
        "I hope you can help me with this.",
    ],
);

pub(in crate::command::quickstart::demo) const CLOSINGS: Pool = pool(
    &[
        "Best regards, {name}",
        "Thanks, {name}",
        "Kind regards\n{name}",
        "{name}",
        "Regards, {name}",
        "Yours sincerely, {name}",
        "Cheers, {name}",
        "Thank you.\n{name}",
        "Best, {name}",
        "Thanks!",
    ],
    &["Many thanks, {name}", "With kind regards, {name}", "Yours, {name}", "Greetings, {name}"],
);

/// A number in a signature is no wish to be called.
pub(in crate::command::quickstart::demo) const SIGNATURES: Pool = pool(
    &["{name}\nTel. {phone}", "Regards, {name}, tel. {phone}", "{name} ({phone})"],
    &["Best wishes, {name}\nTel. {phone}", "{name}, {phone}"],
);

pub(in crate::command::quickstart::demo) const FILLERS: Pool = pool(
    &[
        "It was meant as a present for my {person}.",
        "I live on the third floor.",
        "I use such things in the office.",
        "I have been a customer since {year}.",
        "My old {other} was from another brand.",
        "My neighbour told me about your shop.",
        "I also own a {other} from you.",
        "I read the instructions twice.",
        "We are a household of four.",
        "I moved house in {year}.",
        "I first saw it in your catalogue.",
        "My {person} has a {other} from your shop.",
        "I compared it with a {other} before.",
        "I already looked at the help pages.",
    ],
    &[
        "A friend of mine has the same one.",
        "It was a gift for my {person}.",
        "I also looked at a {other} back then.",
        "We wanted it for our holiday flat.",
        "I have shopped with you since {year}.",
        "My last {other} came from another shop.",
        "My {person} already owns a {other}.",
    ],
);
