//! Numbers and days: those that a ticket asks for and those that distract.

use super::{Pool, pool};

/// Names the product where the problem does not.
pub(in crate::command::quickstart::demo) const ABOUT: Pool = pool(
    &[
        "This is about {it}.",
        "The product in question is {it}.",
        "I bought {it} from you.",
        "My purchase was {it}.",
        "It concerns {it}.",
        "I am talking about {it}.",
    ],
    &["The item I mean is {it}.", "This concerns {it}.", "What I bought is {it}."],
);

pub(in crate::command::quickstart::demo) const ORDERS: Pool = pool(
    &[
        "My order number is {order}.",
        "Order {order}.",
        "It is about order {order}.",
        "The order is {order}.",
        "(order {order})",
        "Order no. {order}.",
        "You will find it under order {order}.",
        "Reference: order {order}.",
        "order number: {order}",
        "I ordered under {order}.",
        "See order {order}.",
        "The order number is {order}.",
        "Order ID: {order}.",
        "I mean the order {order}.",
        "It was order number {order}.",
    ],
    &[
        "The number of my order is {order}.",
        "This concerns order {order}.",
        "My order: {order}.",
        "Please look at order {order}.",
        "Order ID {order}.",
        "Here is the order number: {order}.",
        "I mean order number {order}.",
    ],
);

pub(in crate::command::quickstart::demo) const DATES: Pool = pool(
    &[
        "I bought it on {date}.",
        "I ordered on {date}.",
        "Date of purchase: {date}.",
        "The purchase was on {date}.",
        "It was ordered on {date}.",
        "I made the purchase on {date}.",
        "Purchased {date}.",
        "The order was placed on {date}.",
        "I bought it in your shop on {date}.",
        "order date: {date}",
        "I placed the order on {date}.",
        "I got it from your shop on {date}, that was the day of purchase.",
        "Bought {date}.",
        "The day of purchase was {date}.",
        "I have ordered it on {date}.",
        "My order is from {date}.",
    ],
    &[
        "My purchase was on {date}.",
        "I had ordered it on {date}.",
        "The date of the order is {date}.",
        "Bought on {date}.",
        "I purchased it on {date}.",
        "The purchase date is {date}.",
        "I ordered it from you on {date}.",
    ],
);

pub(in crate::command::quickstart::demo) const ORDERS_AND_DATES: Pool = pool(
    &[
        "I placed order {order} on {date}.",
        "Order {order} from {date}.",
        "I ordered it on {date} under the number {order}.",
        "Order {order}, bought on {date}.",
        "On {date} I placed the order {order}.",
    ],
    &[
        "My order {order} was placed on {date}.",
        "Purchased on {date}, order {order}.",
        "It is order {order}, which I made on {date}.",
    ],
);

pub(in crate::command::quickstart::demo) const NO_ORDER: Pool = pool(
    &[
        "I cannot find the order number.",
        "I do not have the order number here.",
        "I lost the slip with the order number.",
    ],
    &["I no longer have the order number.", "Sadly the order number is not at hand."],
);

/// Numbers that are no order numbers.
pub(in crate::command::quickstart::demo) const NUMBERS: Pool = pool(
    &[
        "The tracking number is {tracking}.",
        "Invoice number {invoice}.",
        "My customer number is {customer}.",
        "The serial number reads {serial}.",
        "Tracking: {tracking}.",
        "It says {serial} on the back.",
        "The number on the invoice is {invoice}.",
        "My customer ID: {customer}.",
        "Serial {serial}.",
        "The parcel has the tracking number {tracking}.",
        "Invoice: {invoice}.",
    ],
    &[
        "Tracking number {tracking}.",
        "On the invoice it says {invoice}.",
        "My customer ID is {customer}.",
        "Serial number: {serial}.",
        "The invoice has the number {invoice}.",
    ],
);

pub(in crate::command::quickstart::demo) const ARRIVED: Pool = pool(
    &[
        "It arrived on {when}.",
        "The parcel came on {when}.",
        "I opened the box on {when}.",
        "The parcel reached me on {when}.",
    ],
    &["It was delivered on {when}.", "I received the parcel on {when}."],
);

pub(in crate::command::quickstart::demo) const PROMISED: Pool = pool(
    &[
        "Delivery was promised for {when}.",
        "It should have come on {when}.",
        "The tracking page said it would arrive on {when}.",
        "It was sent out on {when}.",
    ],
    &["You promised to deliver it on {when}.", "It was due to arrive on {when}."],
);

pub(in crate::command::quickstart::demo) const INVOICED: Pool = pool(
    &[
        "The invoice is dated {when}.",
        "The money left my bank on {when}.",
        "Date of the invoice: {when}.",
    ],
    &["The invoice carries the date {when}.", "My bank booked it on {when}."],
);

pub(in crate::command::quickstart::demo) const LOGINS: Pool = pool(
    &[
        "The login last worked on {when}.",
        "I noticed it on {when}.",
        "My last visit to the site was on {when}.",
    ],
    &["It has been like this since {when}.", "I last logged in on {when}."],
);

pub(in crate::command::quickstart::demo) const PLANNED: Pool = pool(
    &["I will be on holiday from {when}.", "My birthday is on {when}.", "We move house on {when}."],
    &["I will be away from {when}.", "The party is on {when}."],
);
