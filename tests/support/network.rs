//! The network between the nodes: a namespace and an address for each, on one bridge, and rules of
//! nftables in each namespace that lose what comes from others. Where namespaces are not allowed:
//! loopback addresses, and no rules. Clients reach every node at any time.

use std::fmt::Write;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

/// Port for clients.
pub const CLIENTS: u16 = 8080;
/// Port for the other nodes.
pub const PEERS: u16 = 8081;

/// The rules that stay, and the chains that faults fill.
const TABLES: &str = "
table inet chaos {
    chain in { type filter hook input priority 0; }
    chain out { type filter hook output priority 0; }
}
table ip chaos_nat {
    chain out { type nat hook output priority -100; }
}
";

/// Loss of what a node receives or sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `at` receives nothing from `from`.
    Deaf { at: u64, from: u64 },
    /// `at` loses so many of a hundred packets of `from`.
    Loss { at: u64, from: u64, percent: u32 },
    /// What `at` sends to `to` goes to a port of the test first.
    Detour { at: u64, to: u64, port: u16 },
}

/// The network of one cluster. Dropping it takes it away.
pub struct Network {
    /// Random name of this one.
    tag: String,
    /// The first three bytes of the addresses.
    net: [u8; 3],
    nodes: Vec<u64>,
    separate: bool,
}

/// Runs a command that must succeed.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let done = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let done = done.map_err(|error| format!("{program}: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr).trim()))
}

fn ip(arguments: &str) -> Result<(), String> {
    run("ip", &arguments.split(' ').collect::<Vec<_>>())
}

impl Network {
    /// Makes it for these nodes; the reason is printed when there are no namespaces.
    pub fn new(nodes: &[u64]) -> Self {
        let number = RandomState::new().build_hasher().finish() as u16;
        let [high, low] = number.to_be_bytes();
        let mut network =
            Self { tag: format!("{number:04x}"), net: [10, 160 + high % 64, low], nodes: Vec::new(), separate: true };
        if let Err(why) = network.build(nodes) {
            println!("no partitions, no slow links: {why}");
            network.take_down();
            network.separate = false;
            network.net = [127, 160 + high % 64, low];
        }
        network
    }

    fn build(&mut self, nodes: &[u64]) -> Result<(), String> {
        let [a, b, c] = self.net;
        let route = Command::new("ip").args(["-4", "route", "show", &format!("{a}.{b}.{c}.0/24")]).output();
        if route.is_ok_and(|route| !route.stdout.is_empty()) {
            return Err(format!("the network {a}.{b}.{c}.0/24 is in use"));
        }
        let bridge = format!("pallium{}", self.tag);
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {}/24 dev {bridge}", self.outside()))?;
        ip(&format!("link set {bridge} up"))?;
        nodes.iter().try_for_each(|node| self.add(*node))
    }

    /// Gives one more node its place.
    pub fn add(&mut self, node: u64) -> Result<(), String> {
        self.nodes.push(node);
        if !self.separate {
            return Ok(());
        }
        let (space, link) = (self.space(node), format!("pal{}n{node}", self.tag));
        ip(&format!("netns add {space}"))?;
        ip(&format!("link add {link} type veth peer name eth0 netns {space}"))?;
        ip(&format!("link set {link} master pallium{} up", self.tag))?;
        ip(&format!("-n {space} addr add {}/24 dev eth0", self.addr(node)))?;
        ip(&format!("-n {space} link set eth0 up"))?;
        ip(&format!("-n {space} link set lo up"))?;
        self.nft(node, TABLES)
    }

    /// Whether there are partitions.
    pub fn separate(&self) -> bool {
        self.separate
    }

    fn space(&self, node: u64) -> String {
        format!("pallium-{}-{node}", self.tag)
    }

    /// The address of a node.
    pub fn addr(&self, node: u64) -> IpAddr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, node as u8).into()
    }

    /// The address of this process, as the nodes reach it.
    pub fn outside(&self) -> IpAddr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, 254).into()
    }

    /// A command that runs where a node is.
    pub fn inside(&self, node: u64, program: &str) -> Command {
        if !self.separate {
            return Command::new(program);
        }
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(node), program]);
        command
    }

    fn nft(&self, node: u64, text: &str) -> Result<(), String> {
        let mut child = self
            .inside(node, "nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("nft: {error}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(text.as_bytes());
        }
        let done = child.wait_with_output().map_err(|error| format!("nft: {error}"))?;
        if done.status.success() { Ok(()) } else { Err(format!("nft: {}", String::from_utf8_lossy(&done.stderr))) }
    }

    /// From now on these rules hold, and no others.
    pub fn set(&self, rules: &[Rule]) {
        if !self.separate {
            return;
        }
        for &node in &self.nodes {
            let mut text =
                "flush chain inet chaos in\nflush chain inet chaos out\nflush chain ip chaos_nat out\n".to_owned();
            for rule in rules {
                // Writing to a string cannot fail.
                let _ = match *rule {
                    Rule::Deaf { at, from } if at == node => {
                        writeln!(text, "add rule inet chaos in ip saddr {} drop", self.addr(from))
                    }
                    Rule::Loss { at, from, percent } if at == node => writeln!(
                        text,
                        "add rule inet chaos in ip saddr {} numgen random mod 100 < {percent} drop",
                        self.addr(from)
                    ),
                    // What was connected before goes nowhere, so that it is connected anew.
                    Rule::Detour { at, to, port } if at == node => writeln!(
                        text,
                        "add rule ip chaos_nat out ip daddr {to} tcp dport {PEERS} dnat to {}:{port}\n\
                         add rule inet chaos out ip daddr {to} tcp dport {PEERS} drop",
                        self.outside(),
                        to = self.addr(to),
                    ),
                    _ => Ok(()),
                };
            }
            self.nft(node, &text).expect("rules are set in a namespace of the test");
        }
    }

    fn take_down(&self) {
        for &node in &self.nodes {
            let _ = ip(&format!("netns del {}", self.space(node)));
            // Ends with its namespace, but not at once.
            let _ = ip(&format!("link del pal{}n{node}", self.tag));
        }
        let _ = ip(&format!("link del pallium{}", self.tag));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if self.separate {
            self.take_down();
        }
    }
}
