//! The messages of libvirt's RPC: frames, headers, errors, and the few procedures that are used here.
//! Numbers and shapes are those of libvirt's `virnetprotocol.x`, `virkeepaliveprotocol.x` and
//! `remote_protocol.x`; they never change once released.

use uuid::Uuid;

use super::xdr::{Malformed, Reader, Writer};
use crate::report::{DomainEvent, Event, Lifecycle, TEXT};

/// Longest message with its length, bytes (`VIR_NET_MESSAGE_MAX` and its length word).
pub const FRAME: u32 = (32 << 20) + 4;
/// Bytes of the length and the header.
pub const HEAD: u32 = 28;

/// `REMOTE_PROGRAM`.
pub const REMOTE: u32 = 0x2000_8086;
/// `KEEPALIVE_PROGRAM`.
pub const KEEPALIVE: u32 = 0x6b65_6570;
/// `KEEPALIVE_PROC_PING`.
pub const PING: i32 = 1;
/// `KEEPALIVE_PROC_PONG`.
pub const PONG: i32 = 2;

/// Most domains of a list (`REMOTE_DOMAIN_LIST_MAX`).
pub const DOMAINS: usize = 16_384;

/// Procedures of `remote_protocol.x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Procedure {
    Open = 1,
    Close = 2,
    Type = 3,
    DomainDestroy = 12,
    DomainXml = 14,
    AuthList = 66,
    AuthPolkit = 70,
    LibVersion = 157,
    DomainState = 212,
    ListAllDomains = 273,
    EventRegister = 316,
}

/// Kinds of messages (`virNetMessageType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a client.
    Call,
    /// To a call.
    Reply,
    /// Of its own accord.
    Message,
    /// Streams and file descriptors, which nobody asked for here.
    Other,
}

/// `virNetMessageHeader`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The program.
    pub program: u32,
    /// The procedure.
    pub procedure: i32,
    /// The kind.
    pub kind: Kind,
    /// The call that it belongs to.
    pub serial: u32,
    /// The call has failed: the payload is an error.
    pub failed: bool,
}

impl Header {
    /// Reads it, and leaves the payload.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (program, version, procedure) = (reader.u32()?, reader.u32()?, reader.i32()?);
        if version != 1 {
            return Err(Malformed("a protocol version other than 1"));
        }
        let kind = match reader.i32()? {
            0 => Kind::Call,
            1 => Kind::Reply,
            2 => Kind::Message,
            3..=5 => Kind::Other,
            _ => return Err(Malformed("an unknown kind of message")),
        };
        let serial = reader.u32()?;
        let failed = match reader.i32()? {
            0 => false,
            1 => true,
            2 if kind == Kind::Other => false,
            _ => return Err(Malformed("an unknown status")),
        };
        Ok(Self { program, procedure, kind, serial, failed })
    }
}

/// A whole frame: length, header, payload.
pub fn frame(program: u32, procedure: i32, kind: Kind, serial: u32, payload: &[u8]) -> Vec<u8> {
    let kind = match kind {
        Kind::Call => 0,
        Kind::Reply => 1,
        Kind::Message | Kind::Other => 2,
    };
    let length = HEAD + payload.len() as u32;
    let head = Writer::default().u32(length).u32(program).u32(1).i32(procedure).i32(kind).u32(serial).i32(0);
    let mut bytes = head.done();
    bytes.extend(payload);
    bytes
}

/// An error of libvirt's (`remote_error`): its number and its words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("libvirt: {message} (error {code})")]
pub struct Refused {
    /// `virErrorNumber`.
    pub code: i32,
    /// In words.
    pub message: String,
}

/// `VIR_ERR_NO_DOMAIN`.
pub const NO_DOMAIN: i32 = 42;
/// `VIR_ERR_OPERATION_INVALID`: of a domain that does not run, for one.
pub const NOT_NOW: i32 = 55;

impl Refused {
    /// Reads the parts that matter.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (code, _domain) = (reader.i32()?, reader.i32()?);
        let message = reader.optional_string()?.unwrap_or_else(|| "it gave no reason".to_owned());
        Ok(Self { code, message: short(message) })
    }
}

/// `remote_nonnull_domain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its uuid.
    pub uuid: Uuid,
    /// Its number; -1: it does not run.
    pub id: i32,
}

impl Domain {
    /// Reads it.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let name = reader.string()?;
        Ok(Self { name, uuid: reader.uuid()?, id: reader.i32()? })
    }

    /// Writes it.
    pub fn write(&self, writer: Writer) -> Writer {
        writer.string(&self.name).uuid(self.uuid).i32(self.id)
    }
}

/// `remote_connect_list_all_domains_ret`.
pub fn domains(payload: &[u8]) -> Result<Vec<Domain>, Malformed> {
    let mut reader = Reader::new(payload);
    let length = reader.length(DOMAINS, 24)?;
    (0..length).map(|_| Domain::read(&mut reader)).collect()
}

/// The events that are asked for, by `virDomainEventID`: lifecycle, reboot, watchdog, I/O error with its reason,
/// control error, guest agent, memory failure.
pub const EVENTS: [i32; 7] = [0, 1, 3, 6, 7, 18, 25];
/// The one of them that libvirt knows since 6.9 only.
pub const MEMORY_FAILURE: i32 = 25;

/// Reads an event that was asked for. `None`: another one.
pub fn event(procedure: i32, payload: &[u8], boot_ns: u64) -> Result<Option<DomainEvent>, Malformed> {
    let mut reader = Reader::new(payload);
    if !matches!(procedure, 318 | 319 | 321 | 324 | 325 | 348 | 423) {
        return Ok(None);
    }
    let _callback = reader.i32()?;
    let domain = Domain::read(&mut reader)?;
    let event = match procedure {
        318 => Event::Lifecycle { event: lifecycle(reader.i32()?), detail: reader.i32()? },
        319 => Event::Reboot,
        321 => Event::Watchdog { action: reader.i32()? },
        324 => {
            let (path, device) = (short(reader.string()?), short(reader.string()?));
            Event::IoError { path, device, action: reader.i32()?, reason: short(reader.string()?) }
        }
        325 => Event::ControlError,
        348 => Event::GuestAgent { connected: reader.i32()? == 1, reason: reader.i32()? },
        _ => Event::MemoryFailure { recipient: reader.i32()?, action: reader.i32()?, flags: reader.u32()? },
    };
    Ok(Some(DomainEvent { instance: domain.uuid, name: short(domain.name), boot_ns, event }))
}

fn lifecycle(code: i32) -> Lifecycle {
    match code {
        0 => Lifecycle::Defined,
        1 => Lifecycle::Undefined,
        2 => Lifecycle::Started,
        3 => Lifecycle::Suspended,
        4 => Lifecycle::Resumed,
        5 => Lifecycle::Stopped,
        6 => Lifecycle::Shutdown,
        7 => Lifecycle::PmSuspended,
        8 => Lifecycle::Crashed,
        other => Lifecycle::Other(other),
    }
}

/// At most [`TEXT`] bytes of it.
pub fn short(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Domain, Header, Refused, TEXT, domains, event, frame};
    use crate::libvirt::wire::Kind;
    use crate::libvirt::xdr::{Reader, Writer};
    use crate::report::Event;

    const PROCEDURES: [i32; 9] = [318, 319, 321, 322, 324, 325, 348, 423, 0];

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), which in 0..9_usize) {
            let _ = Header::read(&mut Reader::new(&bytes));
            let _ = Refused::read(&mut Reader::new(&bytes));
            let _ = event(PROCEDURES[which], &bytes, 0);
            if let Ok(list) = domains(&bytes) {
                prop_assert!(list.len() * 24 <= bytes.len());
            }
        }

        /// A good event whose bytes were cut or turned over: read or refused, never a panic, never a long text.
        #[test]
        fn damaged_events_are_read_or_refused(cut in 0..200_usize, at in 0..200_usize, bit in 0..8_u32, which in 0..8_usize) {
            let domain = Domain { name: "instance-00000001".into(), uuid: uuid::Uuid::from_u128(7), id: 3 };
            let path = "x".repeat(60);
            let event_ = domain.write(Writer::default().i32(1)).string(&path).string("virtio-disk0").i32(1).string("enospc");
            let mut bytes = event_.done();
            bytes.truncate(bytes.len().saturating_sub(cut));
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1_u8 << bit;
            }
            if let Ok(Some(read)) = event(PROCEDURES[which], &bytes, 0) {
                prop_assert!(read.name.len() <= TEXT);
                if let Event::IoError { path, reason, .. } = read.event {
                    prop_assert!(path.len() <= TEXT && reason.len() <= TEXT);
                }
            }
        }

        #[test]
        fn a_frame_has_its_length_and_header(serial: u32, payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let bytes = frame(super::REMOTE, 273, Kind::Call, serial, &payload);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.u32()? as usize, bytes.len());
            let header = Header::read(&mut reader)?;
            prop_assert_eq!((header.program, header.procedure, header.serial), (super::REMOTE, 273, serial));
        }
    }
}
