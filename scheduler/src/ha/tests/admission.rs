//! Which hosts could not be lost.

use uuid::Uuid;

use super::bench::{Bench, HOSTS, host};
use crate::ha::admission::{Loss, losses};
use crate::{Command, HostReport, InstanceReport, Inventory};

fn holds(bench: &mut Bench, n: u128, capacity: u64, sizes: &[u64]) {
    let instance = |(at, size): (usize, &u64)| InstanceReport {
        uuid: Uuid::from_u128(n << 32 | at as u128),
        resources: Some([("VCPU".to_owned(), *size)].into()),
        ..InstanceReport::default()
    };
    // No instance is larger than 4, which says nothing of their sum.
    let inventory = Inventory { max_unit: 4, ..Inventory::of(capacity) };
    bench.apply(Command::Report(Box::new(HostReport {
        name: format!("node-{n}"),
        inventories: Some([("VCPU".to_owned(), inventory)].into()),
        instances: Some(sizes.iter().enumerate().map(instance).collect()),
        ..HostReport::default()
    })));
}

#[test]
fn the_loss_of_a_host_is_what_finds_no_room_elsewhere() {
    let mut bench = Bench::new();
    for n in 1..=HOSTS {
        holds(&mut bench, n, 1, &[]);
    }
    // Of 4 + 3 + 3 the second host takes 4 and 3, which is more than its largest unit, and the third nothing.
    holds(&mut bench, 1, 10, &[3, 3, 4]);
    holds(&mut bench, 2, 9, &[2]);
    holds(&mut bench, 3, 3, &[1]);
    let loss = |n, instances, left| Loss { host: host(n), instances, left };
    let found = losses(bench.core.state().tables(), 10);
    assert_eq!(found, [loss(1, 3, 1), loss(2, 1, 0), loss(3, 1, 0)]);
    assert_eq!(losses(bench.core.state().tables(), 1).len(), 1, "the largest");
}
