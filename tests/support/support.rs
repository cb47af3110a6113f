//! What the front-door tests and the fault tests share: a server process and recorded requests.
//! Each of them uses a part of it.
#![allow(dead_code)]

pub mod agents;
pub mod network;
pub mod nodes;
pub mod server;
pub mod spec;

/// Writes a file of that name; its path, as an argument.
pub fn file(folder: &std::path::Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}
