//! The known name that somebody probably meant.

/// The known name with the fewest edits to `given`, if it is close enough to be a slip.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_ascii_lowercase();
    let longest_slip = (given.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (edits(&given, &name.to_ascii_lowercase()), name))
        .filter(|&(edits, _)| edits <= longest_slip)
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, name)| name)
}

/// "did you mean …" or the list of what is known.
pub fn hint(given: &str, known: &[&str]) -> String {
    match nearest(given, known.iter().copied()) {
        Some(name) => format!("did you mean '{name}'?"),
        None if known.len() > 12 => "see 'pallium schema' for the known ones".to_owned(),
        None => format!("known are {}", known.join(", ")),
    }
}

/// Levenshtein distance in characters.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_slips_only() {
        let known = ["listen", "data_dir", "peer_listen"];
        for (given, want) in [
            ("lisen", Some("listen")),
            ("datadir", Some("data_dir")),
            ("Data-Dir", Some("data_dir")),
            ("colour", None),
            ("peerlisten", Some("peer_listen")),
        ] {
            assert_eq!(nearest(given, known), want, "{given}");
        }
    }
}
