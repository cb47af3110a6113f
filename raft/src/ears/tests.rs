use scheduler::ha::order::Groups;

use super::*;

#[tokio::test(start_paused = true)]
async fn what_a_member_heard_grows_older_and_what_was_told_is_told_once() {
    let (member, leader) = (Ears::default(), Ears::default());
    let (host, boot, guest) = (HostId(Uuid::from_u128(1)), Uuid::from_u128(2), Uuid::from_u128(3));
    member.heard(host, boot, 9_000);
    member.listed(Domains { age: 3_000, made: 6_000, local: BTreeSet::from([guest]), ..domains(host, boot, 1, guest) });
    member.seen([Seen { by: HostId::default(), host, group: Groups::DATA, says: Says::Silent }]);
    tokio::time::advance(Duration::from_millis(400)).await;
    leader.take(2, member.overheard());
    tokio::time::advance(Duration::from_millis(100)).await;
    let all = leader.all(1);
    assert_eq!(all.members[0].1.heard, [Heard { host, age: 500, boot, away: 0 }]);
    assert_eq!(all.seen.len(), 1);
    let (age, guests) = leader.domains(host, boot).expect("it was told");
    assert_eq!((age.as_millis(), guests.listed.contains(&guest)), (3_500, true), "as old as libvirt's answer");
    assert_eq!(leader.domains(host, Uuid::nil()), None, "of another boot");
    assert!(leader.is_local(host, guest) && !leader.is_local(host, host.0));
    let again = member.overheard();
    assert!(again.seen.is_empty() && again.domains.is_empty() && again.heard[0].age == 500);

    // Another leader is told again what it cannot know: the host may be dead by then.
    for (leader, told) in [(1, 1), (1, 0), (3, 1)] {
        member.tells(leader);
        assert_eq!(member.overheard().domains.len(), told, "{leader}");
    }

    // One that fell silent is left out.
    tokio::time::advance(STALE).await;
    assert_eq!(leader.all(1).members.len(), 1, "its own");
}

/// The agent's first report that lists one guest, made just now.
fn domains(host: HostId, boot: Uuid, seq: u64, guest: Uuid) -> Domains {
    let (instances, order) = (BTreeSet::from([guest]), Order(2, seq));
    let (running, local, off) = Default::default();
    Domains { host, boot, age: 0, order, made: 0, instances, running, local, off }
}

/// A session stood still with a list in it, and the agent spoke to other members meanwhile: what is told late is not
/// the newest, and no younger than the host's clock says.
#[tokio::test(start_paused = true)]
async fn a_list_that_was_on_its_way_for_long_is_old() {
    let (slow, quick, leader) = (Ears::default(), Ears::default(), Ears::default());
    let (host, boot, other) = (HostId(Uuid::from_u128(1)), Uuid::from_u128(2), Uuid::from_u128(3));
    let list = |seq| domains(host, boot, seq, Uuid::from_u128(seq.into()));
    let known = |ears: &Ears, boot| {
        let (age, guests) = ears.domains(host, boot)?;
        Some((age.as_secs(), guests.listed.first()?.as_u128()))
    };
    quick.listed(list(7));
    leader.take(2, quick.overheard());
    tokio::time::advance(Duration::from_mins(1)).await;
    // The same agent's former report, and a former agent's.
    for order in [Order(2, 6), Order(1, 90)] {
        let old = Domains { order, ..list(6) };
        slow.listed(old.clone());
        leader.take(3, slow.overheard());
        quick.listed(old);
        assert!(quick.overheard().domains.is_empty(), "it is told nobody");
        assert_eq!([&quick, &leader].map(|ears| known(ears, boot)), [Some((60, 7)); 2], "{order:?}");
    }
    // The newest that there is, and the host's clock has gone on: the leader hears so from another member.
    slow.listed(Domains { made: 100_000, ..list(8) });
    leader.take(3, slow.overheard());
    assert_eq!(known(&leader, boot), Some((0, 8)));
    slow.listed(Domains { order: Order(1, 2), made: 100_000, ..list(6) });
    assert_eq!(known(&slow, boot), Some((0, 8)));
    slow.listed(Domains { order: Order(1, 2), made: 100_001, ..list(8) });
    leader.take(3, slow.overheard());
    quick.heard(host, boot, 130_000);
    quick.heard(host, boot, 110_000);
    leader.take(2, quick.overheard());
    assert_eq!(known(&leader, boot), Some((29, 8)));
    quick.heard(host, other, 900_000);
    leader.take(2, quick.overheard());
    assert_eq!(known(&leader, boot), Some((0, 8)), "of another boot");

    // An older node tells no numbers: the younger counts, as between two boots.
    let untold = |age| Domains { order: Order::default(), age, ..list(9) };
    let from = |domains| Overheard { domains: vec![domains], ..Overheard::default() };
    leader.take(4, from(untold(1)));
    assert_eq!(known(&leader, boot), Some((0, 8)));
    leader.take(4, from(untold(0)));
    assert_eq!(known(&leader, boot), Some((0, 9)));
    leader.take(3, from(Domains { boot: other, ..list(1) }));
    assert_eq!((known(&leader, boot), known(&leader, other)), (None, Some((0, 1))));
}

/// What a person confirms is refused while anything was seen of the host lately, or may have been before this node led.
#[tokio::test(start_paused = true)]
async fn the_youngest_sign_of_life_is_of_any_kind_and_no_older_than_the_leadership() {
    let (ears, host) = (Ears::default(), HostId(Uuid::from_u128(1)));
    let leader = Leader { term: 1, node: 1 };
    let youngest = async |wait: u64| {
        tokio::time::advance(Duration::from_secs(wait)).await;
        ears.youngest(host).as_secs()
    };
    assert_eq!(youngest(60).await, 0, "it does not lead");
    ears.leads(Some(leader));
    ears.leads(Some(leader));
    assert_eq!(youngest(9).await, 9, "it led for so long, and heard nothing");
    ears.heard(host, Uuid::nil(), 0);
    assert_eq!(youngest(7).await, 7);
    let sight = |says| Seen { by: HostId::default(), host, group: Groups::STORAGE, says };
    ears.seen([sight(Says::Silent)]);
    assert_eq!(youngest(4).await, 11);
    ears.seen([sight(Says::Runs)]);
    assert_eq!(youngest(2).await, 2);
    ears.leads(Some(Leader { term: 2, ..leader }));
    assert_eq!(youngest(1).await, 1, "another leadership");
}

/// An ask goes up once and its grant down once, by way of the member that has the session; so does a permit
/// that was taken in. A member that lost most of its sessions says so.
#[tokio::test(start_paused = true)]
async fn what_is_told_of_a_host_reaches_the_leader_and_its_lease_the_host() {
    let (member, leader) = (Ears::default(), Ears::default());
    let hosts: Vec<_> = (1..=4).map(|n| HostId(Uuid::from_u128(n))).collect();
    let (boot, guest) = (Uuid::from_u128(9), Uuid::from_u128(8));
    for host in &hosts {
        member.heard(*host, boot, 0);
    }
    let ask = Ask { host: hosts[0], boot, seq: 7 };
    member.ask(ask);
    member.crashed(hosts[1], BTreeSet::from([guest]));
    member.strangers(hosts[1], BTreeSet::from([boot]));
    let kinds = trouble::Kind::ALL;
    let until = |seconds| Some(clock::now() + Duration::from_secs(seconds));
    member.troubles(hosts[1], vec![(guest, kinds[0], until(0)), (guest, kinds[0], until(9)), (boot, kinds[1], None)]);
    member.holds(vec![Held { host: hosts[2], boot, instance: guest }]);
    member.health(hosts[3], Degraded::LIBVIRT);
    leader.take(2, member.overheard());
    let all = leader.all(1);
    assert_eq!((&all.asks[..], &all.members[0].1.crashed[..]), (&[(2, ask)][..], &[(hosts[1], guest)][..]));
    assert_eq!(all.members[0].1.strangers, [(hosts[1], boot)]);
    assert_eq!(all.members[0].1.troubles, [(hosts[1], guest, kinds[0]), (hosts[1], boot, kinds[1])]);
    assert!(leader.is_held(hosts[2], boot, guest) && !leader.is_held(hosts[2], guest, guest));
    let ill: Vec<_> = all.members[0].1.health().filter(|(_, ill)| !ill.is_empty()).collect();
    assert_eq!(ill, [(hosts[3], Degraded::LIBVIRT)]);
    assert!(!all.members[0].1.blind);

    leader.give(1, 2, hosts[0], Grant { lease: 1, seq: 7, ttl: 20_000 });
    leader.list_anew(hosts[3]);
    leader.list_anew(HostId::default());
    let relayed = leader.relay(2);
    assert!(relayed.lists.contains(&hosts[3]) && leader.relay(2) == Relayed::default());
    member.relayed(relayed);
    let wants = |host| (member.wants_list(host), member.wants_list(host));
    assert_eq!((wants(hosts[3]), wants(HostId::default())), ((true, false), (false, false)), "once, and of its own");
    assert_eq!(member.grant(hosts[0]).map(|grant| grant.seq), Some(7));
    assert_eq!(member.grant(hosts[0]), None);

    tokio::time::advance(FRESH).await;
    member.heard(hosts[0], boot, 0);
    let told = member.overheard();
    assert!(told.strangers.is_empty(), "their host is silent");
    assert!(told.blind && told.ill.is_empty() && told.asks.is_empty() && told.held.is_empty());
    tokio::time::advance(SWEEP).await;
    assert!(!member.overheard().blind, "they are not its any more");
}
