//! What a customer has in mind: the eight fields of a ticket.

use serde_json::{Map, Value, json};

use super::calendar::Day;
use super::draw::Draw;

/// What a message is about.
pub(super) const CATEGORIES: [&str; 6] =
    ["delivery", "damaged", "wrong_item", "billing", "account", "question"];
pub(super) const PRIORITIES: [&str; 4] = ["low", "normal", "high", "urgent"];
pub(super) const SENTIMENTS: [&str; 3] = ["negative", "neutral", "positive"];
pub(super) const REPLIES: [&str; 3] = ["email", "phone", "none"];

/// Something that the shop sells.
#[derive(Debug, PartialEq)]
pub(super) struct Product {
    /// As the ticket names it.
    pub(super) name: &'static str,
    /// The shop's own name for it.
    pub(super) brand: &'static str,
    /// What customers call it, the plain word first.
    pub(super) kinds: &'static [&'static str],
}

const fn product(
    name: &'static str,
    brand: &'static str,
    kinds: &'static [&'static str],
) -> Product {
    Product { name, brand, kinds }
}

pub(super) const PRODUCTS: [Product; 10] = [
    product("kettle", "Brisa", &["kettle", "electric kettle", "water kettle"]),
    product("toaster", "Crumb", &["toaster", "two-slice toaster"]),
    product("blender", "Vortex", &["blender", "stand blender"]),
    product("lamp", "Nimbus", &["lamp", "desk lamp", "reading lamp"]),
    product("speaker", "Pico", &["speaker", "Bluetooth speaker"]),
    product("keyboard", "Tacto", &["keyboard", "wireless keyboard"]),
    product("backpack", "Terra", &["backpack", "hiking backpack"]),
    product("watch", "Orbit", &["watch", "smart watch"]),
    product("camera", "Lumo", &["camera", "compact camera"]),
    product("headset", "Aria", &["headset", "gaming headset"]),
];

/// The truth behind a message.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ticket {
    pub(super) category: &'static str,
    pub(super) product: Option<&'static Product>,
    pub(super) order: Option<String>,
    /// When it was bought or ordered.
    pub(super) date: Option<Day>,
    pub(super) priority: &'static str,
    pub(super) sentiment: &'static str,
    pub(super) refund: bool,
    pub(super) reply: &'static str,
}

impl Ticket {
    /// Draws a ticket. The shares keep every field hard to guess: the commonest
    /// value of a field is seldom right.
    pub(super) fn draw(draw: &mut Draw) -> Self {
        let category = *draw.pick(&CATEGORIES);
        let no_product = match category {
            "account" => 50,
            "billing" => 15,
            _ => 4,
        };
        let wants_money = match category {
            "account" | "question" => 25,
            _ => 60,
        };
        Self {
            category,
            product: (!draw.chance(no_product)).then(|| draw.pick(&PRODUCTS)),
            order: (!draw.chance(22)).then(|| order_number(draw)),
            date: (!draw.chance(27)).then(|| Day::draw(draw)),
            priority: draw.weighted(&[("urgent", 25), ("high", 23), ("low", 23), ("normal", 29)]),
            sentiment: draw.weighted(&[("negative", 36), ("neutral", 34), ("positive", 30)]),
            refund: draw.chance(wants_money),
            reply: draw.weighted(&[("email", 33), ("phone", 33), ("none", 34)]),
        }
    }

    /// The fields in the order of the schema.
    pub(super) fn to_map(&self) -> Map<String, Value> {
        let fields = [
            ("category", json!(self.category)),
            ("product", json!(self.product.map(|product| product.name))),
            ("order", json!(self.order)),
            ("date", json!(self.date.map(Day::iso))),
            ("priority", json!(self.priority)),
            ("sentiment", json!(self.sentiment)),
            ("refund", json!(self.refund)),
            ("reply", json!(self.reply)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// `A-12345`.
fn order_number(draw: &mut Draw) -> String {
    let letter = char::from(b'A' + draw.below(26) as u8);
    format!("{letter}-{:05}", draw.below(100_000))
}
