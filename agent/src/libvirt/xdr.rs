//! XDR (RFC 4506), as far as libvirt's protocol needs it. Reading is bounded by the bytes that are there,
//! and never panics on any of them.

use uuid::Uuid;

/// Longest string that is read, bytes: libvirt's own bound (`REMOTE_STRING_MAX`).
pub const STRING: usize = 4 << 20;

/// What the bytes are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("libvirt sent what its protocol does not allow: {0}")]
pub struct Malformed(pub &'static str);

/// Reads values from the front of some bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Over these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed("it ends in the middle of a value"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed("it ends in the middle of a value"))
    }

    /// `unsigned int`.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// `int`, and an enum.
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// `unsigned hyper`.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// libvirt's `remote_uuid`.
    pub fn uuid(&mut self) -> Result<Uuid, Malformed> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    /// `string<>`. Paths need not be UTF-8: what is not is replaced.
    pub fn string(&mut self) -> Result<String, Malformed> {
        let length = self.u32()? as usize;
        if length > STRING {
            return Err(Malformed("a string longer than 4 MiB"));
        }
        let text = self.take(length)?;
        self.take(length.wrapping_neg() % 4)?;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// `string *`.
    pub fn optional_string(&mut self) -> Result<Option<String>, Malformed> {
        match self.u32()? {
            0 => Ok(None),
            1 => self.string().map(Some),
            _ => Err(Malformed("a pointer that is neither null nor set")),
        }
    }

    /// The length of an array whose elements take at least `least` bytes each: never more than can be there.
    pub fn length(&mut self, most: usize, least: usize) -> Result<usize, Malformed> {
        let length = self.u32()? as usize;
        if length > most || length.saturating_mul(least) > self.rest.len() {
            return Err(Malformed("a list longer than allowed, or than the message"));
        }
        Ok(length)
    }
}

/// Writes values one after the other.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// `unsigned int`.
    #[must_use]
    pub fn u32(mut self, value: u32) -> Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    /// `int`.
    #[must_use]
    pub fn i32(mut self, value: i32) -> Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    /// libvirt's `remote_uuid`.
    #[must_use]
    pub fn uuid(mut self, value: Uuid) -> Self {
        self.bytes.extend(value.into_bytes());
        self
    }

    /// `string<>`.
    #[must_use]
    pub fn string(mut self, value: &str) -> Self {
        self = self.u32(value.len() as u32);
        self.bytes.extend(value.as_bytes());
        self.bytes.extend(std::iter::repeat_n(0, value.len().wrapping_neg() % 4));
        self
    }

    /// What was written.
    pub fn done(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::{Reader, Writer};

    proptest! {
        #[test]
        fn what_is_written_is_read(a: u32, b: i32, c: u128, text in ".{0,40}") {
            let written = Writer::default().u32(a).i32(b).uuid(Uuid::from_u128(c)).u32(1).string(&text).done();
            prop_assert_eq!(written.len() % 4, 0);
            let mut reader = Reader::new(&written);
            prop_assert_eq!((reader.u32()?, reader.i32()?, reader.uuid()?), (a, b, Uuid::from_u128(c)));
            prop_assert_eq!(reader.optional_string()?, Some(text));
            prop_assert!(reader.u32().is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kinds in "[uiUhsol]{0,40}") {
            let mut reader = Reader::new(&bytes);
            for kind in kinds.chars() {
                let left = reader.rest.len();
                let read = match kind {
                    'u' => reader.u32().map(drop),
                    'i' => reader.i32().map(drop),
                    'U' => reader.uuid().map(drop),
                    'h' => reader.u64().map(drop),
                    's' => reader.string().map(drop),
                    'o' => reader.optional_string().map(drop),
                    _ => reader.length(1 << 20, 24).map(|length| assert!(length * 24 <= left)),
                };
                prop_assert!(reader.rest.len() <= left);
                if read.is_err() {
                    break;
                }
            }
        }
    }
}
