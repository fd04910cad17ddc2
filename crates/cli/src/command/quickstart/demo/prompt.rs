//! The task told to a model: in short, in full, and by examples.

use serde_json::{Map, Value, json};

use super::Example;
use super::ticket::{CATEGORIES, PRIORITIES, PRODUCTS, REPLIES, SENTIMENTS};

/// All that the tuned model is told; the rest it has learned.
pub(crate) const SYSTEM_SHORT: &str = "Turn the support message into one JSON ticket.";

/// What a ticket looks like, as JSON Schema.
pub(crate) fn schema() -> Value {
    let mut products: Vec<Value> = PRODUCTS.iter().map(|product| json!(product.name)).collect();
    products.push(Value::Null);
    let properties = json!({
        "category": {"enum": CATEGORIES},
        "product": {"enum": products},
        "order": {"type": ["string", "null"], "pattern": "^[A-Z]-[0-9]{5}$"},
        "date": {"description": "day of purchase", "type": ["string", "null"], "format": "date"},
        "priority": {"enum": PRIORITIES},
        "sentiment": {"enum": SENTIMENTS},
        "refund": {"description": "asks for the money back", "type": "boolean"},
        "reply": {"description": "how to answer", "enum": REPLIES},
    });
    let required: Vec<&String> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The whole task in words, every rule told: what a model without training needs.
pub(crate) fn schema_prompt() -> String {
    let products: Vec<String> =
        PRODUCTS.iter().map(|product| format!("{} ({})", product.name, product.brand)).collect();
    format!(
        r#"Turn the support message into one JSON object and answer with nothing else. It has exactly these eight keys, in this order:
"category": "delivery" (late, lost, not arrived), "damaged" (broken, scratched, not working), "wrong_item" (not what was ordered), "billing" (payment, invoice, discount), "account" (login, password, profile) or "question" (about a product).
"product": the product ordered or asked about, here with its brand: {}. null if none is named.
"order": the order number, like "X-00000", or null. Tracking, invoice, customer and serial numbers do not count.
"date": the day of purchase as "YYYY-MM-DD", or null. Other days do not count.
"priority": "urgent" (at once, today), "high" (within days), "low" (no hurry), else "normal".
"sentiment": "negative" or "positive" if the customer says so, else "neutral".
"refund": true if the customer asks for money back, else false.
"reply": "email" or "phone" if the customer asks for an answer that way, else "none"; a number in a signature does not count."#,
        products.join(", "),
    )
}

/// Four worked examples, written by hand before any row was drawn.
pub(crate) fn shots() -> [Example; 4] {
    [
        shot(
            "Good afternoon,\nmy Brisa was supposed to be here a fortnight ago, yet the postman \
             brought nothing. I shopped on April 2nd, 2024, and the confirmation mentions \
             D-40718. Every hour counts, please act at once! I am furious. Ring 555-0182.\nTom",
            json!({"category": "delivery", "product": "kettle", "order": "D-40718",
                "date": "2024-04-02", "priority": "urgent", "sentiment": "negative",
                "refund": false, "reply": "phone"}),
        ),
        shot(
            "the glass of the reading lamp has shattered. reimburse me please, at your leisure. \
             it got here on 9 May 2023, parcel code TRK 2210 0457",
            json!({"category": "damaged", "product": "lamp", "order": null, "date": null,
                "priority": "low", "sentiment": "neutral", "refund": true, "reply": "none"}),
        ),
        shot(
            "Two debits for one order (Q-15093)! It was made on 2025-11-17 and you are usually \
             superb, so I am sure you can settle it until Tuesday and pay back the second one. \
             Drop a line to maria@example.com.",
            json!({"category": "billing", "product": null, "order": "Q-15093",
                "date": "2025-11-17", "priority": "high", "sentiment": "positive",
                "refund": true, "reply": "email"}),
        ),
        shot(
            "Hi folks, could the Terra backpack hold a laptop of 17 inches? The toaster from you \
             is already in use. Mine is on its way, number H-88260. Sam, 555-7731",
            json!({"category": "question", "product": "backpack", "order": "H-88260",
                "date": null, "priority": "normal", "sentiment": "neutral", "refund": false,
                "reply": "none"}),
        ),
    ]
}

fn shot(message: &str, ticket: Value) -> Example {
    let Value::Object(ticket) = ticket else { unreachable!("a ticket is an object") };
    Example { message: message.to_owned(), ticket }
}
