//! Programs that others wrote, as processes that end with the test.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use uuid::Uuid;

use super::{PASSWORD, USER};

/// A process that is killed when dropped, with its folder.
pub struct Process {
    child: Child,
    pub folder: TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program that a variable names; none: it says that the test did not run.
pub fn named(variable: &str) -> Option<OsString> {
    let program = std::env::var_os(variable);
    if program.is_none() {
        println!("skipped: {variable} is not set; cargo xtask test hands installs what it names");
    }
    program
}

fn start(command: &mut Command, folder: TempDir) -> Process {
    let log = fs::File::create(folder.path().join("log")).expect("a log");
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
    let child = command.current_dir(folder.path()).spawn().expect("the program starts");
    Process { child, folder }
}

/// The Redfish emulator on a port of its own, with these systems (their power states); with TLS when a folder
/// of certificates is given.
pub async fn sushy(systems: &[(Uuid, &str)], certificates: Option<&Path>) -> Option<(Process, u16)> {
    let program = named("PALLIUM_SUSHY")?;
    let folder = tempfile::tempdir().expect("a folder");
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("a port").port();
    let systems: Vec<String> = systems
        .iter()
        .map(|(uuid, power)| format!("{{'uuid': '{uuid}', 'name': 's-{uuid}', 'power_state': '{power}', 'nics': []}}"))
        .collect();
    // bcrypt of the password.
    let user = "pallium:$2b$04$CLvrDM4iSziMz9hnfo6pZepK0Fd4BJy0CEahU.WFBnpRxFLdCwF2W\n";
    fs::write(folder.path().join("users"), user).expect("a file");
    let config = format!(
        "SUSHY_EMULATOR_FAKE_SYSTEMS = [{}]\nSUSHY_EMULATOR_AUTH_FILE = 'users'\nSUSHY_EMULATOR_STATE_DIR = '.'\n",
        systems.join(", ")
    );
    fs::write(folder.path().join("config"), config).expect("a file");
    let mut command = Command::new(program);
    command.args(["--fake", "-i", "127.0.0.1", "-p", &port.to_string()]);
    command.arg("--config").arg(folder.path().join("config"));
    if let Some(folder) = certificates {
        command.arg("--ssl-certificate").arg(folder.join("server.pem"));
        command.arg("--ssl-key").arg(folder.join("server-key.pem"));
    }
    let process = start(&mut command, folder);
    let mut every = tokio::time::interval(Duration::from_millis(50));
    let listens = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            every.tick().await;
        }
    };
    if tokio::time::timeout(Duration::from_mins(1), listens).await.is_err() {
        let log = fs::read_to_string(process.folder.path().join("log")).unwrap_or_default();
        panic!("sushy-emulator does not listen after a minute: {log}");
    }
    Some((process, port))
}

/// A BMC that speaks IPMI: its GUID, its FRU, and a chassis whose power is a file named `power`; what was done
/// to it is in a file named `done`.
pub fn ipmi_sim(guid: Uuid, fru: &[u8]) -> Option<(Process, u16)> {
    let program = named("PALLIUM_IPMI_SIM")?;
    let folder = tempfile::tempdir().expect("a folder");
    let port = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("a port").port();
    let write = |name: &str, text: &[u8]| fs::write(folder.path().join(name), text).expect("a file");
    // Without a GUID of the port there is no RMCP+.
    let hex = guid.simple();
    let lan = format!(
        "name \"bmc\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 {port}\n    priv_limit admin\n    \
         allowed_auths_operator md5\n    guid {hex}\n  endlan\n  chassis_control \"./control\"\n  \
         user 2 true \"{USER}\" \"{PASSWORD}\" operator 10 md5\n"
    );
    write("lan", lan.as_bytes());
    let commands = format!(
        "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
         sel_enable 0x20 1000 0x0a\nmc_add_fru_data 0x20 0 {} file 0 \"fru\"\nmc_set_guid 0x20 {hex}\n\
         mc_enable 0x20\n",
        fru.len()
    );
    write("commands", commands.as_bytes());
    write("fru", fru);
    write("power", b"1\n");
    let control = "#!/bin/sh\ncase \"$1 $2\" in\n'get power') echo \"power:$(cat power)\" ;;\n\
                   'set power') echo \"$3\" > power; echo \"$*\" >> done ;;\nesac\n";
    write("control", control.as_bytes());
    executable(&folder.path().join("control"));
    let mut command = Command::new(program);
    command.args(["-c", "lan", "-f", "commands", "-s", ".", "-n"]);
    Some((start(&mut command, folder), port))
}

/// Lets a script run.
pub fn executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a script");
}
