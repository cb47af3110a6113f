//! IPMI over LAN+ (RMCP+), by driving `ipmitool`.
//!
//! A process, because no library does it: the one Rust crate that speaks RMCP+ (`ipmi-rs` 0.6) has no
//! HMAC-SHA256, thus no cipher suite 17, and blocks. The password goes by its file; the process is killed
//! when its caller gives up.
//!
//! IPMI binds nothing to a connection, so the identity is read in a session in front of the one that
//! switches off, in the same call, and once more in that one together with the state.

use std::process::Stdio;

use scheduler::ha::proof::{Power, PowerRead};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use uuid::Uuid;

use super::Known;
use super::config::{self, Privilege};
use super::http::Place;
use super::power::{Switch, Why, read};

/// Bytes of output that are looked at.
const MOST: u64 = 64 << 10;
const PORT: u16 = 623;

pub(super) struct Ipmi {
    config: config::Ipmi,
}

impl Ipmi {
    pub(super) fn new(config: config::Ipmi) -> Self {
        Self { config }
    }

    pub(super) async fn read(&self, bmc: &str, known: &Known) -> Result<PowerRead, Why> {
        self.session(bmc, known, "").await
    }

    pub(super) async fn switch<P: Future<Output = bool>>(
        &self,
        bmc: &str,
        known: &Known,
        to: Switch,
        passes: impl FnOnce() -> P,
    ) -> Result<PowerRead, Why> {
        let before = self.session(bmc, known, "").await?;
        if to.is_done(before.power) || !known.machine.is(&before.machine) {
            return Ok(before);
        }
        if !passes().await {
            return Err("not sent: the barrier does not hold".to_owned());
        }
        let kind = match to {
            Switch::Off => "chassis power off\n",
            Switch::On => "chassis power on\n",
        };
        tracing::info!(host = %known.nova_host, kind = kind.trim(), "power switched by IPMI");
        self.session(bmc, known, kind).await
    }

    /// Does `first`, and reads, in one session.
    async fn session(&self, bmc: &str, known: &Known, first: &str) -> Result<PowerRead, Why> {
        let login = self.config.hosts.get(&known.nova_host);
        let (user, file, address) = match login {
            Some(login) => (&login.user, &login.password_file, login.address.as_deref()),
            None => (&self.config.user, &self.config.password_file, None),
        };
        let (host, port) = address_of(address, bmc)?;
        let privilege = match self.config.privilege {
            Privilege::Operator => "OPERATOR",
            Privilege::Administrator => "ADMINISTRATOR",
        };
        let mut child = Command::new(&self.config.ipmitool)
            .args(["-I", "lanplus", "-H", &host, "-p", &port.to_string(), "-U", user, "-f"])
            .arg(file)
            .args(["-C", &self.config.cipher_suite.to_string(), "-L", privilege, "-N", "1", "-R", "3"])
            .args(["exec", "/dev/stdin"])
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                let program = self.config.ipmitool.display();
                format!("cannot run '{program}': {error}; install ipmitool, or name it in 'ipmi.ipmitool'")
            })?;
        // The FRU takes many round trips: it is read only for a host that is known by its serial number.
        let serial = if known.machine.serial.is_some() { "fru print 0\n" } else { "" };
        let commands = format!("{first}chassis power status\nraw 0x06 0x37\n{serial}");
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // One that ended early says why.
                let _ = stdin.write_all(commands.as_bytes()).await;
            }
        };
        let ((), said, errors) = tokio::join!(write, text(stdout), text(stderr));
        let _ = child.wait().await;
        parse(&said, known).ok_or_else(|| {
            let error = errors.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it said nothing");
            format!("ipmitool for {host}:{port} read no power state: {error}")
        })
    }
}

async fn text(from: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        let _ = from.take(MOST).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A port in the inventory's address is Redfish's; one in an address for IPMI alone is IPMI's.
fn address_of(own: Option<&str>, bmc: &str) -> Result<(String, u16), Why> {
    let place = Place::of(own.unwrap_or(bmc))?;
    let port = if own.is_some() && place.port != 443 { place.port } else { PORT };
    Ok((place.bare().to_owned(), port))
}

/// What a session printed; none: it has no power state.
fn parse(said: &str, known: &Known) -> Option<PowerRead> {
    let raw = said.lines().find_map(|line| line.trim().strip_prefix("Chassis Power is "))?;
    let power = match raw {
        "off" => Power::Off,
        "on" => Power::On,
        _ => Power::Unknown,
    };
    let guid = said.lines().find_map(guid);
    // BMCs send the GUID in three byte orders (SMBIOS, RFC 4122, and IPMI's own, which is backwards). One of
    // another machine is equal in none of them.
    let uuid = guid.map(|bytes| {
        let mut back = bytes;
        back.reverse();
        let all = [Uuid::from_bytes_le(bytes), Uuid::from_bytes(bytes), Uuid::from_bytes(back)];
        all.into_iter().find(|uuid| known.machine.uuid == Some(*uuid)).unwrap_or(all[0])
    });
    // Makers differ in which of these is the system's.
    let field = |name: &str| {
        let mut fields = said.lines().filter_map(|line| line.split_once(':'));
        fields.find_map(|(key, value)| (key.trim() == name).then_some(value.trim()))
    };
    let serials = ["Product Serial", "Chassis Serial", "Board Serial"].map(field);
    let wanted = known.machine.serial.as_deref();
    let serial = serials.into_iter().flatten().find(|serial| Some(*serial) == wanted);
    Some(read(power, raw, uuid, serial.or(serials[0]).or(serials[1])))
}

/// The line of a raw answer with 16 bytes.
fn guid(line: &str) -> Option<[u8; 16]> {
    let bytes: Option<Vec<u8>> = line
        .split_whitespace()
        .map(|byte| (byte.len() == 2).then(|| u8::from_str_radix(byte, 16).ok()).flatten())
        .collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use scheduler::ha::host::Machine;
    use scheduler::ha::proof::Power;
    use uuid::Uuid;

    use super::{Known, address_of, parse};

    #[test]
    fn a_machine_is_known_by_its_guid_in_any_order_and_by_any_of_its_serials() {
        let uuid = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        let known = Known { machine: Machine { uuid: Some(uuid), serial: Some("S1".into()) }, ..Known::default() };
        let fru = "FRU Device Description : Builtin FRU Device (ID 0)\n Board Serial          : B7\n";
        for guid in [
            "33 22 11 00 55 44 77 66 88 99 aa bb cc dd ee ff",
            "00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff",
            "ff ee dd cc bb aa 99 88 77 66 55 44 33 22 11 00",
        ] {
            let said = format!("Chassis Power is off\n {guid}\n{fru} Product Serial        : S1\n");
            let read = parse(&said, &known).expect("a state");
            assert_eq!((read.power, read.raw.as_str()), (Power::Off, "off"));
            assert!(known.machine.is_surely(&read.machine), "{guid}: {}", read.machine);
        }
        let other = parse(&format!("Chassis Power is on\n{fru} Chassis Serial : S2\n"), &known).expect("a state");
        assert!(
            !known.machine.is(&other.machine) && other.machine.serial.as_deref() == Some("S2"),
            "{}",
            other.machine
        );
        let board = Known { machine: Machine { uuid: None, serial: Some("B7".into()) }, ..Known::default() };
        let read = parse(&format!("Chassis Power is on\n{fru}"), &board).expect("a state");
        assert!(board.machine.is(&read.machine), "{}", read.machine);
        assert_eq!(parse("Chassis Power Control: Down/Off\n", &known), None, "what was done is no state");
    }

    #[test]
    fn an_address_of_the_inventory_gives_its_host() {
        let cases = [
            (None, "10.1.1.1", "10.1.1.1", 623),
            (None, "bmc-7:8443", "bmc-7", 623),
            (None, "https://[fd00::1]/redfish/v1/Systems/1", "fd00::1", 623),
            (Some("bmc-7:9623"), "10.1.1.1", "bmc-7", 9623),
        ];
        for (own, bmc, host, port) in cases {
            assert_eq!(address_of(own, bmc), Ok((host.to_owned(), port)));
        }
    }
}
