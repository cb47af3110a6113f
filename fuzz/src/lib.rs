//! What strangers send, as functions of bytes: each must return for every input, soon and without a
//! panic. `src/bin` hands them to libFuzzer, `tests/replay.rs` to the inputs that are kept.
//!
//! To add a target: a function here, its line in [`TARGETS`], a program in `src/bin` with its
//! `[[bin]]`, and seeds in `corpus/<target>/seeds`.

pub mod mutate;

/// A target and its name.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 3] = [("nova_hook", nova_hook), ("storage_hook", storage_hook), ("fleet_file", fleet_file)];

/// The body of a POST to the Nova hook.
pub fn nova_hook(data: &[u8]) {
    let _ = api::nova::translate(data);
}

/// The body of a POST to the hooks of Cinder and Manila.
pub fn storage_hook(data: &[u8]) {
    let _ = (api::storage::cinder(data), api::storage::manila(data));
}

/// A fleet file, as `pallium ctl import` reads it.
pub fn fleet_file(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = operators::import::read(text);
    }
}
