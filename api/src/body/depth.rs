//! How deep a body may nest.

use std::ops::Range;

/// Deepest nesting of arrays and objects in a body.
pub const DEEPEST: usize = 64;

/// Byte at which the nesting gets deeper than [`DEEPEST`]. Behind ranges of `flat` it is as deep as in front of them.
pub fn too_deep(body: &[u8], mut flat: &[Range<usize>]) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = body.get(at) {
        if let [next, others @ ..] = flat
            && at == next.start.wrapping_sub(body.as_ptr().addr())
        {
            at = next.end.wrapping_sub(body.as_ptr().addr());
            flat = others;
            continue;
        }
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > DEEPEST {
                    return Some(at);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                // To the quote that ends the string; one without an end is for the parser to tell.
                at += 1;
                loop {
                    at += memchr::memchr2(b'"', b'\\', body.get(at..)?)?;
                    if body[at] == b'"' {
                        break;
                    }
                    at += 2;
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}
