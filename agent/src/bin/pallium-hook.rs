//! libvirt's qemu hook: asks the agent of this host whether a guest may start here. Small, for libvirt waits for
//! it: `pallium-hook [--socket PATH] [--on-silence deny|allow] [--] NAME OPERATION SUB-OPERATION EXTRA`.
//!
//! `pallium-hook - compute` asks whether nova-compute may start (an ExecCondition of its unit).

use std::path::PathBuf;
use std::process::ExitCode;

use agent::hook::{self, OnSilence};

const USAGE: &str =
    "usage: pallium-hook [--socket PATH] [--on-silence deny|allow] [--] NAME OPERATION [SUB-OPERATION EXTRA]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // libvirt hands it on to whoever wanted the guest started.
            eprintln!("pallium: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let (mut socket, mut on_silence) = (PathBuf::from(hook::SOCKET), OnSilence::Deny);
    let mut arguments = std::env::args().skip(1).peekable();
    while let Some(flag) = arguments.next_if(|argument| argument.starts_with("--")) {
        match (flag.as_str(), arguments.next_if(|_| flag != "--")) {
            ("--", _) => break,
            ("--socket", Some(path)) => socket = path.into(),
            ("--on-silence", Some(what)) if what == "deny" => on_silence = OnSilence::Deny,
            ("--on-silence", Some(what)) if what == "allow" => on_silence = OnSilence::Allow,
            (_, value) => return Err(format!("{flag} {}: {USAGE}", value.unwrap_or_default())),
        }
    }
    let arguments: Vec<String> = arguments.collect();
    hook::ask(&socket, on_silence, &arguments, std::io::stdin().lock())
}
