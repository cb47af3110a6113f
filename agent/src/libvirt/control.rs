//! Stops guests that have no right to run here. The connection that can is opened for it, and closed after it.

use std::collections::BTreeSet;
use std::time::Duration;

use uuid::Uuid;

use super::client::Client;
use super::watch::{Libvirt, there};

/// What an answer may take: libvirt waits half a minute for a process that does not end.
const DEADLINE: Duration = Duration::from_mins(1);
/// `VIR_CONNECT_LIST_DOMAINS_ACTIVE`.
const ACTIVE: u32 = 1;

/// Stops those of these guests that run. Why some may run still, if they may.
pub async fn stop(libvirt: &Libvirt, guests: &BTreeSet<Uuid>) -> Result<(), String> {
    let Some(socket) = there(&libvirt.control) else {
        return Err("this agent stops no guests: `libvirt.control` is empty in its configuration".to_owned());
    };
    let client = Client::control(socket, &libvirt.uri, DEADLINE).await;
    let mut client = client.map_err(|error| error.to_string())?;
    let mut failed = Vec::new();
    let active = client.domains(ACTIVE).await.map_err(|error| error.to_string())?;
    for domain in active.iter().filter(|domain| guests.contains(&domain.uuid)) {
        match client.destroy(domain).await {
            Ok(()) => tracing::warn!(name = domain.name, instance = %domain.uuid, "stopped: it may not run here"),
            Err(error) => failed.push(format!("{}: {error}", domain.name)),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}
