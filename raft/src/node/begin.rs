//! The beginning of a cluster, and the caution of a node that comes back to one.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::join_all;

use super::OpenError;
use crate::local::Local;
use crate::members::hello;
use crate::peer::message::{Ask, Hello};
use crate::types::{Member, Vote};

/// Time between two tries to reach every voter.
const PAUSE: Duration = Duration::from_millis(200);
/// Time for peers to say what they remember. One that is away cannot.
const REMEMBER: Duration = Duration::from_secs(2);

/// Asks every voter who it is, makes each a member, and begins. A voter that belongs to another
/// cluster ends it: `failed` says why, and the node stops.
pub async fn bootstrap(local: Local, voters: BTreeMap<u64, String>, failed: Arc<OnceLock<String>>) {
    let me = local.peers.me.get();
    let mut waited_for = Vec::new();
    let stores = loop {
        let others = voters.iter().filter(|(node, _)| **node != me.node);
        let greeted = join_all(others.map(async |(node, addr)| (*node, hello(&local, *node, addr, Ask::Hello).await)));
        let greeted = greeted.await;
        for (node, hello) in greeted.iter().filter_map(|(node, hello)| Some((node, hello.as_ref().ok()?))) {
            if let Some(why) = foreign(hello, me.cluster, local.peers.me.level()) {
                let why = format!("bootstrap refused: node {node} {why}");
                let _ = failed.set(why.clone());
                return local.owner.stop(why);
            }
        }
        let missing: Vec<u64> = greeted.iter().filter(|(_, hello)| hello.is_err()).map(|(node, _)| *node).collect();
        if missing.is_empty() {
            break greeted.into_iter().filter_map(|(node, hello)| Some((node, hello.ok()?.store))).collect();
        }
        if missing != waited_for {
            let why = greeted.iter().find_map(|(_, hello)| hello.as_ref().err()).cloned().unwrap_or_default();
            tracing::info!(nodes = ?missing, why, "waiting for voters of the new cluster");
            waited_for = missing;
        }
        tokio::time::sleep(PAUSE).await;
    };
    let stores: BTreeMap<u64, uuid::Uuid> = stores;
    for (node, addr) in voters.iter().filter(|(node, _)| **node != me.node) {
        while let Err(why) = hello(&local, *node, addr, Ask::Adopt).await {
            tracing::warn!(node, why, "a voter does not join the new cluster");
            tokio::time::sleep(PAUSE).await;
        }
    }
    let member = |(node, addr): (u64, String)| {
        let store = stores.get(&node).copied().unwrap_or(me.store);
        (node, Member { addr, store })
    };
    let members: BTreeMap<u64, Member> = voters.into_iter().map(member).collect();
    match local.raft.initialize(members).await {
        Ok(()) => tracing::info!(cluster = %me.cluster, "a new cluster begins"),
        Err(error) => tracing::warn!(%error, "the cluster had begun already"),
    }
}

/// Why a node cannot be a voter of a new cluster.
fn foreign(hello: &Hello, cluster: uuid::Uuid, level: u8) -> Option<String> {
    if hello.levels.check(level).is_err() {
        let levels = hello.levels;
        return Some(format!("supports feature {levels}, and this node begins at {level}: give all the same version"));
    }
    if !hello.cluster.is_nil() && hello.cluster != cluster {
        return Some(format!(
            "is a member of cluster {} already; to join that one, start this node without bootstrap and add it there \
             (pallium ctl cluster add)",
            hello.cluster
        ));
    }
    hello.has_log.then(|| "has a log already: begin with empty data folders".to_owned())
}

/// Compares the disk with what peers remember of it, before this node votes: a voter whose disk was
/// put back to an older state could undo what was committed. One that its own disk knows as a learner
/// may have been promoted since, and is asked about as well. A peer that is away, or has been
/// restarted since, cannot tell; nor can anybody tell a node that is alone.
pub async fn check_memory(local: &Local) -> Result<(), OpenError> {
    let me = local.peers.me.get().node;
    // Asked of openraft itself: its metrics are empty until it has published some.
    let known = local.raft.with_raft_state(|state| (*state.vote_ref(), state.membership_state.effective().clone()));
    let (vote, membership): (Vote, _) = known.await.map_err(|fatal| OpenError::Raft(fatal.to_string()))?;
    let peers: Vec<_> = membership.nodes().filter(|(node, _)| **node != me).collect();
    let remembered = join_all(peers.iter().map(async |(node, member)| {
        let asked = tokio::time::timeout(REMEMBER, hello(local, **node, &member.addr, Ask::Hello)).await;
        Some((**node, asked.ok()?.ok()?.acknowledged))
    }));
    let last = local.wal.ends().1.map(crate::store::log_id);
    for (peer, known) in remembered.await.into_iter().flatten() {
        // A later vote than the acknowledged one: the disk is newer than what was acknowledged.
        let forgot_vote = known.vote.is_some_and(|known| vote < known);
        let forgot_entry = known.vote.is_none_or(|known| vote <= known) && known.last > last;
        let acknowledged = match (forgot_vote, known.vote, forgot_entry, known.last) {
            (true, Some(vote), ..) => format!("the vote of term {}", vote.leader_id.term),
            (_, _, true, Some(last)) => format!("entry {} of term {}", last.index, last.leader_id.term),
            _ => continue,
        };
        return Err(OpenError::Forgotten { folder: local.data_dir.clone(), node: me, peer, acknowledged });
    }
    Ok(())
}
