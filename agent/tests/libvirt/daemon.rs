//! A libvirtd of its own: the real one, with its own `/run`, `/var`, `/etc/libvirt` and users in a mount namespace,
//! so that the machine's own state is untouched. Guests are QEMU without KVM, and boot into firmware that finds
//! no system.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What anything here may take.
pub const LIMIT: Duration = Duration::from_mins(1);

const QEMU: &str = "user = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\nremember_owner = 0\n\
    security_driver = \"none\"\ncgroup_controllers = [ ]\nnamespaces = [ ]\nstdio_handler = \"file\"\n";
const DAEMON: &str = "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\nlog_outputs = \"3:stderr\"\n";

/// Binds the folder's parts over the machine's, then becomes libvirtd.
const BOOT: &str = "set -e
mount --bind \"$1/passwd\" /etc/passwd
mount --bind \"$1/group\" /etc/group
mount --bind \"$1/etc\" /etc/libvirt
mount --bind \"$1/run\" /run
mkdir -p \"$1/var/cache/libvirt\"
mount --bind \"$2\" \"$1/var/cache/libvirt\"
mount --rbind \"$1/var\" /var
exec libvirtd --config /etc/libvirt/libvirtd.conf";

/// The daemon, and the folder it lives in.
pub struct Daemon {
    folder: TempDir,
    libvirtd: Child,
}

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Daemon {
    /// Starts one whose qemu hook is `pallium-hook` with these flags.
    pub fn start(hook: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("pallium").tempdir_in("/tmp").expect("a folder");
        let at = |path: &str| folder.path().join(path);
        for path in ["etc/hooks", "run", "var", "disks", "root/proc/sys/kernel/random", "state"] {
            fs::create_dir_all(at(path)).expect("a folder");
        }
        fs::write(at("etc/qemu.conf"), QEMU).expect("a file");
        // Two of them are two hosts: libvirt moves no guest to the host it is on.
        let host = format!("{DAEMON}host_uuid = \"{}\"\n", uuid::Uuid::now_v7());
        fs::write(at("etc/libvirtd.conf"), host).expect("a file");
        // libvirtd wants this user even when it is told another one.
        let with = |file: &str, line: &str| fs::read_to_string(file).expect("a file") + line;
        fs::write(at("passwd"), with("/etc/passwd", "\nlibvirt-qemu:x:64055:64055::/:/bin/false\n")).expect("a file");
        fs::write(at("group"), with("/etc/group", "\nlibvirt-qemu:x:64055:\n")).expect("a file");
        fs::copy(env!("CARGO_BIN_EXE_pallium-hook"), at("etc/pallium-hook")).expect("the hook");
        // As an operator would write it; here and there it finds program and socket by the folder's own path.
        let (program, socket) = (at("etc/pallium-hook"), at("run/pallium/agent.sock"));
        let script = format!("#!/bin/sh\nexec {} --socket {} {hook} -- \"$@\"\n", program.display(), socket.display());
        fs::write(at("etc/hooks/qemu"), script).expect("a file");
        fs::set_permissions(at("etc/hooks/qemu"), fs::Permissions::from_mode(0o755)).expect("executable");
        let libvirtd = Self::run(folder.path());
        let daemon = Self { folder, libvirtd };
        daemon.boot(1);
        daemon.wait();
        daemon
    }

    fn run(folder: &Path) -> Child {
        // What libvirtd found out about QEMU is kept for the next time: it takes it some seconds.
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libvirt");
        fs::create_dir_all(&cache).expect("a folder");
        let log = fs::File::options().create(true).append(true).open(folder.join("libvirtd.log")).expect("a file");
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", BOOT, "sh"]).arg(folder).arg(cache);
        unshare.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log).spawn().expect("unshare")
    }

    fn wait(&self) {
        until("libvirtd answers", || self.virsh(&["version"]).status.success().then_some(()));
    }

    /// A path in its folder.
    pub fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// The host is in this boot from now on.
    pub fn boot(&self, number: u128) {
        let boot = uuid::Uuid::from_u128(number << 64 | 0xb007);
        fs::write(self.at("root/proc/sys/kernel/random/boot_id"), boot.to_string()).expect("a file");
    }

    /// How virsh reaches it.
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.at("run/libvirt/libvirt-sock").display())
    }

    /// virsh, as an operator or Nova would do it.
    pub fn virsh(&self, arguments: &[&str]) -> Output {
        let uri = self.uri();
        let mut virsh = Command::new("virsh");
        virsh.args(["--connect", &uri]).args(arguments).stdin(Stdio::null()).output().expect("virsh")
    }

    /// virsh that must do it.
    pub fn must(&self, arguments: &[&str]) {
        let done = self.virsh(arguments);
        assert!(done.status.success(), "{arguments:?}: {}\n{}", String::from_utf8_lossy(&done.stderr), self.log());
    }

    /// Writes a guest's description; the file's path.
    pub fn guest(&self, number: u32, devices: &str) -> String {
        let uuid = uuid_of(number);
        let xml = format!(
            "<domain type='qemu'><name>instance-{number:08x}</name><uuid>{uuid}</uuid><memory unit='MiB'>16</memory>
            <vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os><devices>
            <controller type='usb' model='none'/><memballoon model='none'/>{devices}</devices></domain>"
        );
        let path = self.at(&format!("{number}.xml"));
        fs::File::create(&path).and_then(|mut file| file.write_all(xml.as_bytes())).expect("a file");
        path.display().to_string()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let process = rustix::process::Pid::from_child(&self.libvirtd);
        rustix::process::kill_process(process, signal).expect("a signal");
    }

    /// Kills it; guests live on.
    pub fn kill(&mut self) {
        self.libvirtd.kill().expect("killed");
        self.libvirtd.wait().expect("ended");
    }

    /// Starts it anew.
    pub fn restart(&mut self) {
        self.libvirtd = Self::run(self.folder.path());
        self.wait();
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.at("libvirtd.log")).unwrap_or_default()
    }
}

/// A guest's uuid.
pub fn uuid_of(number: u32) -> uuid::Uuid {
    uuid::Uuid::from_u128(0x6f00_0000_0000_4000_8000_0000_0000_0000 | u128::from(number))
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let _ = self.libvirtd.kill();
        let _ = self.libvirtd.wait();
        // Guests outlive it: they are this test's own, named in its own folder.
        for entry in fs::read_dir(self.at("run/libvirt/qemu")).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let pid = name.to_string_lossy().starts_with("instance-").then(|| fs::read_to_string(entry.path()).ok());
            let pid = pid.flatten().and_then(|text| text.trim().parse().ok()).and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}
