//! docs/plugins.md is generated from the steps: their constants, the comments of their files and of
//! their options. With `UPDATE_DOCS=1` the test writes the page, else it compares it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use scheduler::Domain;
use scheduler::pipeline::{FilterPlugin, WeigherPlugin};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::steps;

/// One step as the page shows it.
struct Entry {
    name: &'static str,
    domains: &'static [Domain],
    summary: &'static str,
    missing_data: &'static str,
    rebuild: bool,
    /// Options with their defaults; `None` for one that must be given.
    defaults: BTreeMap<String, Option<Value>>,
    source: &'static str,
}

/// The options of a step with their defaults, as serde knows them: what it misses must be given.
fn defaults<O: DeserializeOwned + Serialize>() -> BTreeMap<String, Option<Value>> {
    let mut given = Map::new();
    loop {
        let Err(error) = serde_json::from_value::<O>(Value::Object(given.clone())) else { break };
        let error = error.to_string();
        let missing = error.split('`').nth(1).expect("serde names the missing field").to_owned();
        // A list, or where that is no good an empty map or text, stands in for what must be given.
        for value in [json!([]), json!({}), json!("")] {
            given.insert(missing.clone(), value);
            match serde_json::from_value::<O>(Value::Object(given.clone())) {
                Err(error) if !error.to_string().starts_with("missing") => {}
                _ => break,
            }
        }
    }
    let options: O = serde_json::from_value(Value::Object(given.clone())).expect("the loop ends when it can be read");
    let Ok(Value::Object(all)) = serde_json::to_value(options) else { panic!("options are an object") };
    all.into_iter().map(|(name, value)| (name.clone(), (!given.contains_key(&name)).then_some(value))).collect()
}

fn filter<P: FilterPlugin>(source: &'static str) -> Entry {
    let made = serde_json::from_value(json!({})).ok().and_then(|options| P::new(options).ok());
    Entry {
        name: P::NAME,
        domains: P::DOMAINS,
        summary: P::SUMMARY,
        missing_data: P::MISSING_DATA,
        rebuild: made.is_some_and(|step| step.runs_on_rebuild()),
        defaults: defaults::<P::Options>(),
        source,
    }
}

fn weigher<W: WeigherPlugin>(source: &'static str) -> Entry {
    Entry {
        name: W::NAME,
        domains: W::DOMAINS,
        summary: W::SUMMARY,
        missing_data: W::MISSING_DATA,
        rebuild: false,
        defaults: defaults::<W::Options>(),
        source,
    }
}

macro_rules! entries {
    (
        filters: $($f_domain:ident::$f_file:ident::$filter:ident),+;
        weighers: $($w_domain:ident::$w_file:ident::$weigher:ident),+;
    ) => {
        (
            vec![$(filter::<crate::$f_domain::$f_file::$filter>(
                include_str!(concat!(stringify!($f_domain), "/", stringify!($f_file), ".rs"))
            )),+],
            vec![$(weigher::<crate::$w_domain::$w_file::$weigher>(
                include_str!(concat!(stringify!($w_domain), "/", stringify!($w_file), ".rs"))
            )),+],
        )
    };
}

/// The `//!` lines of a file, as Markdown; links into the code become their text.
fn comment(source: &str) -> String {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let text: Vec<&str> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    let text =
        text.join("\n").replace("[`extra_specs`](super::extra_specs)", "the operator grammar of Nova's extra specs");
    // A link to another step leads to its place on the page.
    let mut parts = text.split("](crate::");
    let mut out = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let name = out.rsplit_once("[`").map_or("", |(_, name)| name).trim_end_matches('`').to_owned();
        let rest = part.split_once(')').map_or("", |(_, rest)| rest);
        write!(out, "](#{name}){rest}").expect("a string takes every write");
    }
    out
}

/// Name and comment of each field of `pub struct Options`, as serde spells them.
fn options(source: &str) -> Vec<(String, String)> {
    let Some((_, body)) = source.split_once("pub struct Options {\n") else { return Vec::new() };
    let mut out = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    let mut renamed = None;
    for line in body.lines().map(str::trim).take_while(|line| *line != "}") {
        if let Some(text) = line.strip_prefix("///") {
            words.push(text.trim());
        } else if let Some(name) = line.strip_prefix("#[serde(rename = \"") {
            renamed = name.strip_suffix("\")]");
        } else if let Some((name, _)) = line.strip_prefix("pub ").and_then(|field| field.split_once(':')) {
            let name = match renamed.take() {
                Some(name) => name.to_owned(),
                None if source.contains("rename_all = \"camelCase\"") => camel(name),
                None => name.to_owned(),
            };
            out.push((name, words.join(" ")));
            words.clear();
        }
    }
    out
}

fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut out = parts.next().unwrap_or("").to_owned();
    for part in parts {
        out.push_str(&part[..1].to_uppercase());
        out.push_str(&part[1..]);
    }
    out
}

fn write_entry(page: &mut String, entry: &Entry) {
    let domains: Vec<&str> = entry.domains.iter().map(|domain| domain.as_str()).collect();
    write!(page, "\n### `{}`\n\n{}\n\n", entry.name, entry.summary).expect("a string takes every write");
    writeln!(page, "- Domains: {}", domains.join(", ")).expect("a string takes every write");
    writeln!(page, "- Missing data: {}", entry.missing_data).expect("a string takes every write");
    if entry.rebuild {
        writeln!(page, "- Runs on rebuilds too.").expect("a string takes every write");
    }
    let listed = options(entry.source);
    if listed.is_empty() {
        writeln!(page, "- Options: none").expect("a string takes every write");
    } else {
        writeln!(page, "\n| option | default | meaning |\n| --- | --- | --- |").expect("a string takes every write");
        for (name, meaning) in listed {
            let default = entry.defaults.get(&name).and_then(Option::as_ref);
            let default = default.map_or_else(|| "required".to_owned(), |value| format!("`{value}`"));
            writeln!(page, "| `{name}` | {default} | {meaning} |").expect("a string takes every write");
        }
    }
    write!(page, "\n{}\n", comment(entry.source)).expect("a string takes every write");
}

fn page() -> String {
    let (filters, weighers): (Vec<Entry>, Vec<Entry>) = steps!(entries);
    let mut page = "<!-- Generated from the steps by a test of the crate `plugins`: UPDATE_DOCS=1 cargo test -p plugins document -->\n\
        # Filters and weighers\n\n\
        What a pipeline may be made of. Filters run in the order of the pipeline and drop hosts; weighers score\n\
        those that are left. How scores add up, and what ties do, is in the pipeline's own page.\n\n\
        | step | what it does |\n| --- | --- |\n"
        .to_owned();
    for entry in filters.iter().chain(&weighers) {
        let anchor = entry.name.to_lowercase();
        writeln!(page, "| [`{}`](#{anchor}) | {} |", entry.name, entry.summary).expect("a string takes every write");
    }
    page.push_str("\n## Filters\n");
    for entry in &filters {
        write_entry(&mut page, entry);
    }
    page.push_str("\n## Weighers\n");
    for entry in &weighers {
        write_entry(&mut page, entry);
    }
    write!(page, "\n## Rules in CEL\n\n{}\n", comment(include_str!("rules.rs"))).expect("a string takes every write");
    page
}

#[test]
fn the_page_documents_every_step() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/plugins.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).expect("docs/ can be written");
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page, "docs/plugins.md is not what the steps say: run UPDATE_DOCS=1 cargo test -p plugins");
    let registry = crate::registry();
    let names = registry.filters().map(|kind| kind.name).chain(registry.weighers().map(|kind| kind.name));
    for name in names {
        assert!(page.contains(&format!("\n### `{name}`\n")), "{name} is not documented");
    }
}

#[test]
fn every_option_has_a_comment_and_a_default() {
    let (filters, weighers): (Vec<Entry>, Vec<Entry>) = steps!(entries);
    for entry in filters.iter().chain(&weighers) {
        let listed = options(entry.source);
        for (name, meaning) in &listed {
            assert!(!meaning.is_empty(), "{}: option {name} has no comment", entry.name);
        }
        let mut found: Vec<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
        let mut real: Vec<&str> = entry.defaults.keys().map(String::as_str).collect();
        found.sort_unstable();
        real.sort_unstable();
        assert_eq!(found, real, "{}", entry.name);
    }
}
