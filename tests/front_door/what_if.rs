//! `ctl what-if`, asked of a follower: what fits, what stops it, what could not be lost, which moves would help; and nothing is
//! touched.

use scheduler::{HostReport, InstanceReport};

use crate::server::{Server, run};
use crate::spec::{host, uuid};
use crate::support::nodes::{Node, ready, settled, three};

/// A host with so many VCPU, in a rack, with instances of so many each.
fn holding(name: &str, vcpus: u64, rack: &str, instances: &[(u64, u64)]) -> HostReport {
    let instance = |&(number, vcpus): &(u64, u64)| InstanceReport {
        uuid: uuid(number).parse().expect("a uuid"),
        resources: Some([("VCPU".to_owned(), vcpus), ("MEMORY_MB".to_owned(), 1024)].into()),
        ..InstanceReport::default()
    };
    HostReport {
        labels: Some([("rack".to_owned(), rack.to_owned())].into()),
        instances: Some(instances.iter().map(instance).collect()),
        ..host(name, vcpus, 1_000_000)
    }
}

#[test]
fn what_if_is_answered_by_a_follower_and_touches_nothing() {
    run(async {
        let nodes = three(None);
        let servers: Vec<Server> = nodes.iter().map(Node::start).collect();
        for server in &servers {
            ready(server).await;
        }
        // Free: 1, 7 and 4.
        let fleet =
            [holding("a", 12, "r1", &[(1, 6), (2, 5)]), holding("b", 8, "r1", &[(3, 1)]), holding("c", 4, "r2", &[])];
        servers[0].apply(&fleet).await;
        let leader = settled(&servers[0], 3).await as usize - 1;
        let follower = &servers[(leader + 1) % 3];
        let state = async || {
            let of = async |path: &str| follower.get(path).await.text;
            (of("/v1/hosts").await, of("/v1/decisions").await, of("/v1/instances").await)
        };
        let before = state().await;
        let ask = |arguments: &[&str]| follower.ctl(&[&["what-if"], arguments].concat());

        let two = ["fit", "--vcpus", "2", "--memory", "1Gi", "--count", "200"];
        let told = ask(&[&two[..], &["-o", "json"]].concat()).expect_err("not all fit");
        assert!(told.contains("not all fit"), "{told}");
        let few = ask(&["fit", "--vcpus", "2", "--memory", "1Gi", "--count", "5"]).expect("all fit");
        assert!(few.starts_with("5 of 5 fit, on 2 hosts"), "{few}");
        // Through REST, the whole answer: 3 on b, 2 on c, and what stops the next one.
        let asked = |ratios: &str, count: u64| {
            format!(
                r#"{{"request": {{"resources": {{"VCPU": 2, "MEMORY_MB": 1024}}}}, "count": {count}, "ratios": {ratios}}}"#
            )
        };
        let fit = async |ratios: &str, count: u64| {
            let answer = follower.send("POST", "/v1/what-if/fit", asked(ratios, count)).await.expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text);
            answer.json()
        };
        let full = fit("{}", 200).await;
        assert_eq!((&full["placed"], &full["hosts"]["b"], &full["hosts"]["c"]), (&5.into(), &3.into(), &2.into()));
        let steps = full["stopped"]["steps"].to_string();
        assert!(steps.contains("short of cpu"), "{steps}");
        // 36 − 11, 24 − 1 and 12 are free with three for each: 12, 11 and 6.
        let wide = fit(r#"{"VCPU": 3.0}"#, 200).await;
        assert_eq!((&wide["placed"], &wide["changed"]), (&29.into(), &3.into()));
        let packing = ask(&[&two[..5], &["--count", "5", "--pipeline", "nova-packing"]].concat()).expect("all fit");
        assert!(packing.starts_with("5 of 5 fit"), "{packing}");

        // 6 goes to b, and 5 finds only 4 on c.
        let told = ask(&["lose", "--each", "host"]).expect("an answer");
        assert!(told.contains("1 of these 2 could not be lost"), "{told}");
        assert!(told.contains(&format!("a: {} of a finds no place", uuid(2))), "{told}");
        let told = ask(&["lose", "--each", "host", "--ratio", "VCPU=2"]).expect("an answer");
        assert!(told.contains("any of these 2 could be lost"), "{told}");
        let racks = ask(&["lose", "--each", "label:rack", "-o", "json"]).expect("an answer");
        let racks: serde_json::Value = serde_json::from_str(&racks).expect("JSON");
        let loss = &racks["losses"][0];
        assert_eq!((&loss["name"], &loss["hosts"], &loss["instances"]), (&"r1".into(), &2.into(), &3.into()));
        assert_eq!((&loss["left"], &racks["losses"][1]), (&2.into(), &serde_json::Value::Null), "{racks}");
        let two = ask(&["lose", "a", "c"]).expect("an answer");
        assert!(two.contains("1 of these 1 could not be lost"), "{two}");

        // The one instance of b fits beside those of a.
        let told = ask(&["consolidate"]).expect("an answer");
        assert!(told.contains(&uuid(3)) && told.contains("its host is emptied by 1 move"), "{told}");
        assert!(told.contains("1 move and 1024 MiB moved; hosts in use: 2 of 3, then 1"), "{told}");
        // 5 of a's 11 VCPU go to b: 6/12, 6/8 and 0 are more even than 5/12, 7/8 and 0.
        let plan = ask(&["balance", "--moves", "5", "-o", "json"]).expect("an answer");
        let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
        let (whole, one) = (&plan["steps"][0], &plan["steps"][0]["moves"][0]);
        assert_eq!((&one["instance"], &one["from"], &one["to"]), (&uuid(2).into(), &"a".into(), &"b".into()), "{plan}");
        assert_eq!((&plan["moves"], &whole["memory_mib"]), (&1.into(), &1024.into()), "{plan}");
        let number = |value: &serde_json::Value| value.as_f64().expect("a number");
        let lowered = number(&plan["imbalance"]) - number(&plan["imbalance_after"]);
        assert!(lowered > 0.01 && (lowered - number(&whole["gain"])).abs() < 1e-9, "{plan}");

        let refused: [(&[&str], &str); 7] = [
            (&["consolidate", "--moves", "0"], "0 is not in 1..=1000"),
            (&["balance", "--pipeline", "nova-nowhere"], "pipeline 'nova-nowhere' is not known"),
            (&["lose", "nobody"], "host: 'nobody' is not known in domain nova"),
            (&["lose", "--each", "planet"], "each: 'planet' given, host, zone, aggregate or label:KEY expected"),
            (&["fit", "--vcpus", "1", "--ratio", "VCPU=0"], "ratio of VCPU: 0 given"),
            (&["fit", "--vcpus", "1", "--ratio", "PARSEC=2"], "ratio of PARSEC: no host of domain nova has any"),
            (&["fit", "--vcpus", "1", "--pipeline", "nova-nowhere"], "pipeline 'nova-nowhere' is not known"),
        ];
        for (arguments, wanted) in refused {
            let told = ask(arguments).expect_err("a refusal");
            assert!(told.contains(wanted), "{arguments:?}: {told}");
        }
        let asked = r#"{"objective": "shuffle"}"#.to_owned();
        let answer = follower.send("POST", "/v1/what-if/moves", asked).await.expect("an answer");
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.text.contains("'shuffle' given, consolidate or balance expected"), "{}", answer.text);
        assert_eq!(state().await, before, "nothing is touched");

        // What b offers and a does not, the instance may have asked for.
        servers[0]
            .apply(&[HostReport { traits: Some(vec!["CUSTOM_FAST".to_owned()]), ..holding("b", 8, "r1", &[(3, 1)]) }])
            .await;
        let told = ask(&["consolidate"]).expect("an answer");
        assert!(told.contains("no move would be of use"), "{told}");
    });
}
