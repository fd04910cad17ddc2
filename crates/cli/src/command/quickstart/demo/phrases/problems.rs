//! What went wrong: decides the category.

use super::{Pool, pool};

pub(in crate::command::quickstart::demo) const DELIVERY: Pool = pool(
    &[
        "I am still waiting for {it}, the parcel never arrived.",
        "{it} has not been delivered yet.",
        "My parcel with {it} seems to be lost.",
        "The tracking page has not moved for a week and {it} is nowhere to be seen.",
        "Where is {it}? It should have been here days ago.",
        "The courier says {it} was delivered, but nothing ever reached me.",
        "The shipment of {it} is late.",
        "I have not received {it} so far.",
        "The driver left a note and took the package with {it} back to the depot.",
        "{it} is stuck in transit.",
        "There is no trace of the package with {it}.",
        "My package is late and {it} has still not come.",
        "I have been waiting for {it} for two weeks.",
        "When will {it} arrive?",
    ],
    &[
        "Nothing has arrived so far, the package with {it} must have got lost.",
        "{it} still has not been delivered to my address.",
        "According to the tracking page {it} has been in transit for ages.",
        "The courier never showed up with {it}.",
        "When will {it} be delivered? I am still waiting.",
    ],
);

pub(in crate::command::quickstart::demo) const DAMAGED: Pool = pool(
    &[
        "{it} arrived broken.",
        "When I opened the box, {it} was cracked.",
        "{it} stopped working after a short while.",
        "There is a big scratch on {it}.",
        "The box was crushed and {it} is dented.",
        "{it} came with a broken part.",
        "A piece of {it} fell off on the first day.",
        "{it} is defective.",
        "{it} was damaged in the box, one side is bent.",
        "{it} no longer works.",
        "I found a crack in {it}.",
        "{it} broke on the first day.",
        "{it} does not work.",
        "One side of {it} is cracked.",
    ],
    &[
        "{it} came out of the box cracked and dented.",
        "One part of {it} is broken.",
        "After one evening {it} stopped working.",
        "{it} has a deep scratch and looks damaged.",
        "{it} is cracked on one side and does not work.",
    ],
);

pub(in crate::command::quickstart::demo) const WRONG_ITEM: Pool = pool(
    &[
        "I ordered {it} in {colour} but got a {shade} one.",
        "You sent the wrong colour of {it}.",
        "Instead of {it} there was a {other} in the parcel.",
        "The wrong product came: I ordered {it} and got a {other}.",
        "{it} is the wrong size.",
        "I received a different model instead of {it}.",
        "This is not what I ordered, I chose {it} in {colour}.",
        "There must have been a mix-up, {it} is not the version that I picked.",
        "Someone packed the wrong article, I was expecting {it}.",
        "I got a {other} although I ordered {it}.",
        "I was sent a {other}, not {it}.",
        "{it} is the wrong model.",
        "You delivered a different colour of {it} than I ordered.",
    ],
    &[
        "The parcel held a {other}, but I had ordered {it}.",
        "{it} came in {shade}, although I ordered {colour}.",
        "You mixed something up and sent a different item instead of {it}.",
        "The wrong model was in the parcel, not {it}.",
        "You sent me the wrong size of {it}.",
        "I ordered {it} and was sent a {other}.",
    ],
);

pub(in crate::command::quickstart::demo) const BILLING: Pool = pool(
    &[
        "I was charged twice for {it}.",
        "The invoice for {it} shows the wrong amount.",
        "My discount code was not applied to {it}.",
        "You took {amount} euros from my card, but {it} costs less.",
        "The payment for {it} was booked two times.",
        "There is a mistake on the bill for {it}.",
        "I paid for {it} by card and was then billed again.",
        "The price on the invoice for {it} is higher than in the shop.",
        "I never got an invoice for {it}.",
        "My card was debited twice.",
        "You charged me {amount} euros too much.",
        "I was billed the wrong price for {it}.",
        "My bank shows that I paid twice for {it}.",
        "The voucher was not taken off the bill for {it}.",
    ],
    &[
        "My bank statement shows two payments for {it}.",
        "The bill for {it} is wrong, I was charged {amount} euros too much.",
        "The discount is missing on the invoice for {it}.",
        "I have been billed twice for {it}.",
        "The price on the bill for {it} is wrong.",
    ],
);

pub(in crate::command::quickstart::demo) const ACCOUNT: Pool = pool(
    &[
        "I cannot log in to my account.",
        "The password reset link does not work.",
        "Your site says my account is locked.",
        "Please change the name in my customer profile.",
        "My login stopped working, so I cannot see my orders.",
        "Please delete my customer account.",
        "The website does not accept my password any more.",
        "I need to change the address in my profile.",
        "I forgot my password and the reset code never comes.",
        "Someone else seems to use my account.",
        "Logging in to my account fails every time.",
        "I am locked out of my profile.",
        "My password was reset, but the login page rejects it.",
    ],
    &[
        "My account is locked and I cannot log in any more.",
        "The login page keeps rejecting my password.",
        "I would like to change the address in my customer account.",
        "The link to reset my password has expired.",
        "Logging in does not work, my password is rejected.",
    ],
);

pub(in crate::command::quickstart::demo) const QUESTION: Pool = pool(
    &[
        "Is {it} waterproof?",
        "How do I clean {it}?",
        "Does {it} come with a manual in Spanish?",
        "I would like to know whether {it} is fit for travel.",
        "Do you have {it} in other colours?",
        "How long is the warranty on {it}?",
        "Can you tell me how heavy {it} is?",
        "Where can I find the manual for {it}?",
        "Which accessories fit {it}?",
        "What is {it} made of?",
        "I have a question about {it}: is there a newer model?",
        "How large is {it}?",
        "Is {it} safe for the dishwasher?",
        "Which colours does {it} come in?",
        "Do you sell spare parts for {it}?",
    ],
    &[
        "I have a question: is {it} safe for children?",
        "Do you sell accessories for {it}?",
        "Can you tell me how large {it} is?",
        "How many years of warranty does {it} have?",
        "Which accessories are there for {it}?",
        "What is the weight of {it}?",
    ],
);
