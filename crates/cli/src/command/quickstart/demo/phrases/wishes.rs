//! How soon, in what mood, what for, and how to answer.

use super::{Pool, pool};

/// At once: today, within hours.
pub(in crate::command::quickstart::demo) const URGENT: Pool = pool(
    &[
        "This is urgent.",
        "Please answer immediately.",
        "I need a solution today.",
        "Please deal with this as soon as possible.",
        "It is an emergency for me.",
        "I need help right away.",
        "URGENT!",
        "This has to be solved within hours.",
        "Please reply ASAP.",
        "Please help me immediately, it cannot wait.",
        "I must have an answer today.",
        "Very urgent!",
        "As soon as possible, please.",
        "I need this fixed right now.",
    ],
    &[
        "It is really urgent, please answer today.",
        "Please help me right away.",
        "Can you sort this out immediately?",
        "Please look at it as soon as possible, it is an emergency.",
        "Urgent, I need help today.",
        "This cannot wait, please reply ASAP.",
    ],
);

/// Within days.
pub(in crate::command::quickstart::demo) const HIGH: Pool = pool(
    &[
        "I need this solved this week.",
        "Please answer within two days.",
        "I hope to have this settled by Friday.",
        "I would like an answer in the next few days.",
        "I need it by Monday.",
        "Please sort it out before the weekend.",
        "It would be good to have it settled this week.",
        "Could you manage this by Wednesday?",
        "Please take care of it within three days.",
        "I need an answer by Tuesday.",
        "Please do it this week.",
        "Within the next two days would be good.",
        "It has to be done before the weekend.",
        "Can you solve it by Saturday?",
        "Please reply within a few days.",
    ],
    &[
        "I need an answer by Thursday.",
        "Please solve this within the next few days.",
        "It should be settled before the weekend.",
        "Can this be done this week?",
        "Within three days would be fine.",
        "I hope you can do it by Sunday.",
    ],
);

pub(in crate::command::quickstart::demo) const LOW: Pool = pool(
    &[
        "There is no rush.",
        "Take your time.",
        "This is not urgent.",
        "Whenever you find the time.",
        "No hurry at all.",
        "It can wait.",
        "Have a look whenever it suits you.",
        "This is not pressing, any day will do.",
        "I am in no rush.",
        "Please take all the time you need.",
        "It is not urgent, next month is fine.",
        "There is no hurry with this.",
        "I can wait.",
    ],
    &[
        "No rush, it can wait.",
        "It is not urgent at all, take your time.",
        "I am in no hurry.",
        "Just look at it whenever you have time.",
        "There is no hurry, I can wait.",
        "Any time is fine, no rush.",
    ],
);

pub(in crate::command::quickstart::demo) const NEGATIVE: Pool = pool(
    &[
        "I am really disappointed.",
        "This is very frustrating.",
        "I am angry about this.",
        "What a terrible experience.",
        "I am fed up.",
        "This is unacceptable.",
        "I have never been so annoyed.",
        "Honestly, this is awful.",
        "I am not happy with you at all.",
        "I find this very annoying.",
        "I am upset about this.",
        "This makes me angry.",
        "You have let me down badly.",
        "Such bad service.",
        "I am very unhappy with this.",
        "That is really annoying and disappointing.",
    ],
    &[
        "I am very angry and disappointed.",
        "This is a frustrating experience.",
        "I find this unacceptable.",
        "It is terrible and I am annoyed.",
        "I am so upset and unhappy.",
        "Really bad and disappointing service.",
    ],
);

pub(in crate::command::quickstart::demo) const POSITIVE: Pool = pool(
    &[
        "I love your shop.",
        "Your service has always been great.",
        "Otherwise I am very happy with you.",
        "You do wonderful work.",
        "I am a big fan of your products.",
        "I have always been very satisfied with you.",
        "You are a fantastic team.",
        "So far I have had only good experiences with you.",
        "Your people are always so friendly and helpful.",
        "I really enjoy shopping with you.",
        "You are great.",
        "I like your shop very much.",
        "It is always a pleasure to buy from you.",
        "Your products are excellent.",
        "I am happy with everything else.",
        "You have a lovely shop with great people.",
    ],
    &[
        "I have always been happy with your great service.",
        "You have a wonderful shop.",
        "I am very satisfied with you in general.",
        "Your products are fantastic, I love them.",
        "Excellent products, I am a happy customer.",
        "It is a pleasure to shop with such friendly people.",
    ],
);

pub(in crate::command::quickstart::demo) const REFUND: Pool = pool(
    &[
        "I want my money back.",
        "Please refund the full amount.",
        "I would like a refund.",
        "Please send me my money back.",
        "I expect a refund.",
        "Kindly return the money to my card.",
        "Can I get a refund?",
        "Please transfer the money back to my bank.",
        "I ask you to refund me.",
        "A full refund, please.",
        "Please pay me back.",
        "I want the amount refunded to my card.",
        "I must ask for the money back.",
    ],
    &[
        "I ask for a full refund.",
        "Please give me my money back.",
        "I would like to get the amount refunded.",
        "Could you refund the money to my card?",
        "Please pay back the money.",
        "I want a refund.",
    ],
);

/// Said instead where no money is asked back.
pub(in crate::command::quickstart::demo) const NO_REFUND: Pool = pool(
    &[
        "I do not need a refund, just a solution.",
        "Please tell me what to do next.",
        "I don't want my money back, I want it sorted out.",
        "A short explanation is enough.",
        "Please let me know how we go on.",
        "No refund needed.",
        "Please look into it.",
        "I only want to know what you suggest.",
        "Please tell me what you can do.",
        "Please explain what happens now.",
        "I don't ask for money, only for help.",
        "There is no need to refund anything.",
        "What do you suggest?",
    ],
    &[
        "I don't need my money back, a solution is enough.",
        "No refund please, just tell me what happens next.",
        "Please check this and let me know.",
        "I only want to know how we go on.",
        "I do not ask for a refund, only for help.",
        "What should I do next?",
    ],
);

pub(in crate::command::quickstart::demo) const EMAILS: Pool = pool(
    &[
        "Please answer by email.",
        "Please write to {email}.",
        "Email is the best way to reach me.",
        "Send your answer to {email}.",
        "I prefer an email.",
        "Please reply by email to {email}.",
        "An email is enough.",
        "Contact me by email, please.",
        "My email is {email}, please use it for the answer.",
        "Email me at {email}.",
        "I can only be reached by email.",
    ],
    &[
        "Please send me an email.",
        "You can write to me at {email}.",
        "I would prefer an answer by email.",
        "You can reach me by email at {email}.",
        "Please answer to my email {email}.",
        "Just email me.",
    ],
);

pub(in crate::command::quickstart::demo) const CALLS: Pool = pool(
    &[
        "Please call me.",
        "Call me on {phone}.",
        "You can reach me by phone at {phone}.",
        "I prefer a phone call.",
        "Please ring me on {phone}.",
        "A call to {phone} would be best.",
        "Give me a call, please.",
        "Contact me by phone, please.",
        "My phone number is {phone}, please use it for the answer.",
        "Phone me at {phone}.",
        "I can only be reached by phone.",
        "Just call.",
    ],
    &[
        "Please phone me on {phone}.",
        "I would prefer a call, my number is {phone}.",
        "Best to call me at {phone}.",
        "I would like a phone call.",
        "Please give me a ring on {phone}.",
        "You can call me any time at {phone}.",
    ],
);
