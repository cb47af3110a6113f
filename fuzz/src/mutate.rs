//! Mutations that keep a document a document: bytes flipped in JSON mostly end in the parser, so a
//! node is changed instead and everything else stays.

use serde_json::{Map, Value};

/// Words that are worth meeting anywhere.
const TEXTS: [&str; 12] = [
    "",
    "-1",
    "0",
    "1e999",
    "nan",
    "null",
    "1d30dab6-de95-4b2d-83de-04c6d01a6975",
    "required",
    "forbidden",
    "MEMORY_MB",
    "\u{0}",
    "é\u{202e}",
];
/// Numbers at the edges of what is read into integers and floats.
const NUMBERS: [f64; 8] = [0.0, -1.0, 1.5, 1e308, 4_294_967_296.0, 9_007_199_254_740_993.0, 1.8e19, -9.3e18];
/// Nodes copied or nested at once: enough to meet a bound, not to fill the memory.
const MANY: u64 = 300;

/// A document with one to four of its nodes changed, as JSON or, `yaml` given, as either. `None`: the
/// bytes are no document, or the result is longer than `most` bytes.
pub fn document(bytes: &[u8], most: usize, seed: u64, yaml: bool) -> Option<Vec<u8>> {
    let mut dice = Dice(seed | 1);
    let mut root: Value =
        if yaml { serde_norway::from_slice(bytes).ok()? } else { serde_json::from_slice(bytes).ok()? };
    for _ in 0..=dice.below(4) {
        let nodes = count(&root);
        let donor = nth(&mut root, &mut dice.below(nodes)).cloned().unwrap_or_default();
        let node = nth(&mut root, &mut dice.below(nodes)).expect("its number is below the number of nodes");
        change(node, donor, &mut dice);
    }
    let text = if yaml && dice.below(2) == 0 {
        serde_norway::to_string(&root).ok()?.into_bytes()
    } else {
        serde_json::to_vec(&root).ok()?
    };
    (text.len() <= most).then_some(text)
}

/// A mutator for `fuzz_mutator!`: three times of four a document's node, else libFuzzer's own on the
/// bytes, which is also what becomes of bytes that are no document.
#[cfg(feature = "libfuzzer")]
pub fn with_libfuzzer(data: &mut [u8], size: usize, most: usize, seed: u32, yaml: bool) -> usize {
    let changed = (!seed.is_multiple_of(4)).then(|| document(&data[..size], most, u64::from(seed), yaml)).flatten();
    match changed {
        Some(changed) => {
            data[..changed.len()].copy_from_slice(&changed);
            changed.len()
        }
        None => libfuzzer_sys::fuzzer_mutate(data, size, most),
    }
}

fn change(node: &mut Value, donor: Value, dice: &mut Dice) {
    match (dice.below(10), node) {
        (0, Value::Object(map)) => drop(remove(map, dice)),
        (0, Value::Array(list)) if !list.is_empty() => drop(list.remove(dice.below(list.len() as u64) as usize)),
        (1, Value::Object(map)) => {
            // One value under another's name.
            if let (Some((_, value)), Some(name)) = (remove(map, dice), remove(map, dice).map(|(name, _)| name)) {
                map.insert(name, value);
            }
        }
        (1, Value::Array(list)) if !list.is_empty() => {
            let item = list[dice.below(list.len() as u64) as usize].clone();
            list.extend(std::iter::repeat_n(item, dice.below(MANY) as usize));
        }
        (2, Value::Object(map)) => drop(map.insert(dice.text(), donor)),
        (2, Value::Array(list)) => list.push(donor),
        (3, node) => *node = Value::Array(vec![std::mem::take(node)]),
        (4, node) => {
            for _ in 0..dice.below(MANY) {
                *node = Value::Array(vec![std::mem::take(node)]);
            }
        }
        (5, node) => *node = Value::Null,
        (6, node) => *node = Value::Bool(dice.below(2) == 0),
        (7, node) => *node = Value::from(NUMBERS[dice.below(NUMBERS.len() as u64) as usize]),
        (8, node) => *node = Value::String(dice.text()),
        (_, node) => *node = donor,
    }
}

fn remove(map: &mut Map<String, Value>, dice: &mut Dice) -> Option<(String, Value)> {
    let name = map.keys().nth(dice.below(map.len().max(1) as u64) as usize)?.clone();
    map.remove_entry(&name)
}

fn count(value: &Value) -> u64 {
    1 + match value {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

/// The node of number `left`, counted from the root downwards.
fn nth<'a>(value: &'a mut Value, left: &mut u64) -> Option<&'a mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(list) => list.iter_mut().find_map(|item| nth(item, left)),
        Value::Object(map) => map.values_mut().find_map(|item| nth(item, left)),
        _ => None,
    }
}

/// xorshift64: the fuzzer gives the seed, so a run repeats.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }

    fn text(&mut self) -> String {
        TEXTS[self.below(TEXTS.len() as u64) as usize].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::document;

    #[test]
    fn a_mutation_is_a_document_again_and_repeats() {
        let seed =
            br#"{"spec":{"flavor":{"vcpus":4,"extra":[1,2,3]},"name":"a"},"hosts":[{"host":"n1"},{"host":"n2"}]}"#;
        let mut changed = 0;
        for number in 1..2000 {
            let Some(out) = document(seed, 4096, number, false) else { continue };
            assert_eq!(Some(&out), document(seed, 4096, number, false).as_ref());
            // Deep nesting is refused by the parser itself.
            let nested = String::from_utf8_lossy(&out).contains(&"[".repeat(100));
            assert!(nested || serde_json::from_slice::<serde_json::Value>(&out).is_ok(), "{number}");
            changed += usize::from(out != seed);
        }
        assert!(changed > 1000, "{changed}");
        assert_eq!(document(b"{", 4096, 1, false), None);
    }
}
