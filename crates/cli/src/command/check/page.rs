//! The report as a page that needs nothing beside itself.

mod parts;

use std::fmt::Write as _;

use data::report::{Report, Sample};
use data::{Finding, Level};

use super::chart::histogram;
use super::sample::{Run, runs, visible, visible_line};
use super::text::sides;
use super::{Checked, LEVELS};
use crate::terminal::style::{count, duration};
use parts::{Cell, escape, table, tile};

const STYLE: &str = include_str!("page.css");

/// The page.
pub(super) fn page(checked: &Checked<'_>) -> String {
    let report = checked.report;
    let recipe = escape(&visible_line(checked.recipe));
    let verdict = parts::prose(&checked.verdict());
    let class = if checked.passes() { "" } else { " error" };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>Data of {recipe}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>Data of <code>{recipe}</code></h1>\n\
         <p class=\"verdict{class}\">{verdict}</p>\n</header>\n<main>\n"
    );
    page += &tiles(report);
    page += &findings(checked);
    page += &samples(report);
    page += &lengths(report);
    page += &rows(report);
    _ = write!(
        page,
        "</main>\n<footer>Checked in {} by <code>tunesmith check</code>.</footer>\n</body>\n</html>\n",
        duration(report.seconds)
    );
    page
}

fn number(number: usize) -> String {
    count(number as u64)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn tiles(report: &Report) -> String {
    let packing = &report.packing;
    let supervised = match report.tokens {
        0 => 0.0,
        tokens => report.tokens_supervised as f64 / tokens as f64,
    };
    let mut tiles = vec![
        tile(&number(report.rows_trained), "rows trained", &report.size_guide),
        tile(
            &percent(supervised),
            "of the tokens trained",
            &format!("{} of {}", number(report.tokens_supervised), number(report.tokens)),
        ),
        tile(
            &percent(packing.fill),
            "of micro-batches filled",
            &format!(
                "{} of {} tokens; shared prefixes save {}",
                number(packing.micro_batches),
                number(packing.micro_batch_tokens),
                percent(packing.shared)
            ),
        ),
    ];
    let sequences = format!("{} sequences", number(report.sequences));
    tiles.push(match report.steps_per_epoch {
        Some(steps) => tile(&number(steps), "steps an epoch", &sequences),
        None => tile(&number(report.sequences), "sequences an epoch", ""),
    });
    if let Some(pairs) = &report.pairs {
        let longer = pairs.chosen_longer as f64 / pairs.count as f64;
        tiles.push(tile(&percent(longer), "of chosen answers longer", &sides(pairs)));
    }
    format!("<ul class=\"tiles\">\n{}</ul>\n", tiles.concat())
}

/// Findings by level, errors first.
fn findings(checked: &Checked<'_>) -> String {
    let mut html = String::from("<section aria-labelledby=\"findings\">\n");
    html += "<h2 id=\"findings\">Findings</h2>\n";
    if checked.report.findings.is_empty() {
        html += "<p>Nothing was found.</p>\n";
    }
    for level in LEVELS {
        let of_level: Vec<&Finding> = checked.findings(level).collect();
        if of_level.is_empty() {
            continue;
        }
        let (class, sign, name) = words(level);
        _ = writeln!(
            html,
            "<h3 class=\"level {class}\"><span aria-hidden=\"true\">{sign}</span> {name} ({})</h3>",
            of_level.len()
        );
        of_level.iter().for_each(|finding| html += &found(checked, finding));
    }
    html + "</section>\n"
}

/// Class, sign and name of a level: colour is never the only one to tell.
fn words(level: Level) -> (&'static str, &'static str, &'static str) {
    match level {
        Level::Error => ("error", "✖", "Errors"),
        Level::Warning => ("warning", "▲", "Warnings"),
        Level::Note => ("note", "●", "Notes"),
    }
}

fn found(checked: &Checked<'_>, finding: &Finding) -> String {
    let (class, ..) = words(finding.level);
    let accepted = checked.is_accepted(finding);
    let mut html = format!(
        "<article class=\"finding {class}\">\n<h4>{}, {} × <span class=\"id\"><code>{}</code>{}\
         </span></h4>\n",
        parts::prose(&visible_line(&finding.message)),
        number(finding.count),
        escape(&finding.id),
        if accepted { ", accepted" } else { "" }
    );
    if !finding.places.is_empty() {
        let place = |place: &data::Place| {
            format!("<code>{}</code>", escape(&visible_line(&place.to_string())))
        };
        let places: Vec<String> = finding.places.iter().map(place).collect();
        let more = if finding.places.len() < finding.count { ", …" } else { "" };
        _ = writeln!(html, "<p>At {}{more}</p>", places.join(", "));
    }
    if !finding.hint.is_empty() {
        _ = writeln!(html, "<p>Cure: {}</p>", parts::prose(&visible_line(&finding.hint)));
    }
    if finding.level == Level::Error && !accepted {
        let line = escape(&checked.accept_line(finding));
        _ = writeln!(html, "<p>Or accept it in the recipe: <code>{line}</code></p>");
    }
    html + "</article>\n"
}

fn samples(report: &Report) -> String {
    if report.samples.is_empty() {
        return String::new();
    }
    let mut html = String::from(
        "<section aria-labelledby=\"samples\">\n<h2 id=\"samples\">Rows as the model sees them</h2>\n\
         <p><mark>Marked text</mark> is trained; a dashed line and a number below show a weight other \
         than 1. <span class=\"sample\" style=\"padding:0;border:0\"><i>Framed text</i></span> is a \
         token of control. Every token shows its number and weight when pointed at.</p>\n",
    );
    report.samples.iter().for_each(|sample| html += &shown(sample));
    html + "</section>\n"
}

fn shown(sample: &Sample) -> String {
    let trained = sample.tokens.iter().filter(|token| token.weight != 0.0).count();
    let (role, place) = (escape(&sample.role), escape(&visible_line(&sample.place)));
    let body: String = runs(&sample.tokens).map(|run| of_run(&run)).collect();
    format!(
        "<h3>{role} <code>{place}</code>, {} tokens, {trained} trained</h3>\n\
         <div class=\"sample\">{body}</div>\n",
        number(sample.tokens.len())
    )
}

fn of_run(run: &Run<'_>) -> String {
    let mut tokens = String::new();
    for token in run.tokens {
        let text = escape(&visible(&token.text));
        let text = if token.special { format!("<i>{text}</i>") } else { text };
        _ = write!(
            tokens,
            "<span title=\"token {}, weight {}\">{text}</span>",
            token.id, token.weight
        );
    }
    match run.odd_weight() {
        _ if !run.is_trained() => tokens,
        None => format!("<mark>{tokens}</mark>"),
        Some(weight) => format!("<mark class=\"part\">{tokens}</mark><sub>×{weight}</sub>"),
    }
}

fn lengths(report: &Report) -> String {
    let lengths = &report.lengths;
    let Some(drawing) = histogram(lengths) else { return String::new() };
    let bins = lengths.bins.iter().map(|bin| {
        let to = number(bin.to.saturating_sub(1));
        vec![Cell::Text(format!("{} to {to}", number(bin.from))), Cell::Number(bin.count)]
    });
    let cuts = lengths
        .cuts
        .iter()
        .map(|cut| [cut.max_seq_len, cut.sequences, cut.tokens].map(Cell::Number).into());
    let mut html = format!(
        "<section aria-labelledby=\"lengths\">\n<h2 id=\"lengths\">Lengths</h2>\n\
         <p>Half of the sequences have at most {} tokens, 95 of 100 at most {}, the longest {}.</p>\n\
         <figure>\n{drawing}<figcaption><details><summary>The numbers of the drawing</summary>\n{}\
         </details></figcaption>\n</figure>\n",
        number(lengths.median),
        number(lengths.p95),
        number(lengths.longest),
        table("Sequences by length", &["tokens", "sequences"], bins)
    );
    if !lengths.cuts.is_empty() {
        let head = ["max_seq_len", "longer sequences", "tokens beyond it"];
        html += "<h3>What limits would cut</h3>\n";
        html += &table("", &head, cuts);
    }
    html + "</section>\n"
}

/// Files, and where their rows went.
fn rows(report: &Report) -> String {
    let files = report.files.iter().map(|file| {
        vec![
            Cell::Code(visible_line(&file.path.display().to_string())),
            Cell::Text(file.purpose.to_owned()),
            Cell::Number(file.rows),
            Cell::Text(file.format.clone()),
            Cell::Text(visible_line(&file.why)),
        ]
    });
    let mut went = vec![
        ("read".to_owned(), report.rows_in),
        ("trained".to_owned(), report.rows_trained),
        ("for validation".to_owned(), report.rows_validation),
    ];
    let left_out = report.rows_left_out.iter();
    went.extend(left_out.map(|(why, rows)| (format!("left out: {why}"), *rows)));
    let went = went.into_iter().map(|(what, rows)| vec![Cell::Text(what), Cell::Number(rows)]);
    let mut html = String::from("<section aria-labelledby=\"rows\">\n<h2 id=\"rows\">Rows</h2>\n");
    html += &table("Files", &["file", "for", "rows", "format", "since"], files);
    html += "<h3>Where the rows went</h3>\n";
    html += &table("", &["rows", "number"], went);
    if let Some(split) = &report.split {
        let of = match split.parts {
            parts if parts == split.rows => String::new(),
            parts => format!(" out of {} parts", number(parts)),
        };
        _ = writeln!(
            html,
            "<p>Kept back by <code>{}</code>: {} rows{of}.</p>",
            escape(&split.by),
            number(split.rows)
        );
    }
    html + "</section>\n"
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    fn example() -> String {
        let report = example::report();
        page(&Checked { recipe: "<r>.yaml", report: &report, accepted: &[] })
    }

    #[test]
    fn a_page_needs_nothing_beside_itself() {
        let page = example();
        for outside in ["http:", "https:", "src=", "<script", "<link", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn text_of_the_user_is_text() {
        let page = example();
        assert!(page.contains("<h1>Data of <code>&lt;r&gt;.yaml</code></h1>"));
        assert!(page.contains("<i>&lt;|user|&gt;</i>"));
        assert!(page.contains("take <code>&lt;s&gt;</code> out of the rows &amp; the template"));
    }

    #[test]
    fn what_is_trained_is_marked_and_every_token_has_its_number() {
        let page = example();
        let run = "<mark><span title=\"token 7, weight 1\">Yes</span>\
                   <span title=\"token 8, weight 1\">,↵\n</span>\
                   <span title=\"token 9, weight 1\">it is.</span>\
                   <span title=\"token 10, weight 1\"><i>&lt;|end|&gt;</i></span></mark>";
        assert!(page.contains(run), "{page}");
        let half = "<mark class=\"part\"><span title=\"token 3, weight 0.5\">half</span></mark>\
                    <sub>×0.5</sub>";
        assert!(page.contains(half), "{page}");
    }

    #[test]
    fn every_tag_is_closed() {
        let page = example();
        for name in
            ["section", "article", "table", "tr", "td", "th", "ul", "li", "span", "mark", "i"]
        {
            let opened = page.matches(&format!("<{name}>")).count()
                + page.matches(&format!("<{name} ")).count();
            assert_eq!(opened, page.matches(&format!("</{name}>")).count(), "{name}");
        }
    }

    #[test]
    fn errors_come_first_with_the_line_to_paste() {
        let page = example();
        let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text}"));
        assert!(at("Errors (2)") < at("Warnings (1)") && at("Warnings (1)") < at("Notes (1)"));
        assert!(page.contains("<code>data.accept: [double-bos]</code>"));
    }
}
