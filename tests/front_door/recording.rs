//! What a server decides is recorded, and decided again offline, byte for byte.

use std::fs;
use std::process::{Command, Stdio};

use scheduler::HostReport;
use serde_json::json;

use crate::command_line::{pallium, text};
use crate::server::{BINARY, Server, run};
use crate::spec::{create, host, uuid};

/// Requests that are made at most until the recording is whole.
const MOST: u64 = 4_000;

#[test]
fn a_recording_comes_out_the_same() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(&dir.path().join("data"));
        let names: Vec<String> = (0..12).map(|n| format!("h{n}")).collect();
        let fleet: Vec<HostReport> = names.iter().map(|name| host(name, 640, 1_000_000)).collect();
        server.apply(&fleet).await;
        // What was decided before counts, and is not recorded.
        for n in 0..20 {
            assert_eq!(server.hook(&create(&uuid(n), &names, 2, 1024)).await.status, 200);
        }
        let folder = dir.path().join("recording");
        let mut export = Command::new(BINARY)
            .args(["ctl", "--server", &server.url, "decisions", "export", "--count", "60"])
            .arg(&folder)
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        // Four at a time, so that some are decided while others are in flight; reports and releases between them.
        let mut next = 20;
        while export.try_wait().expect("a child").is_none() {
            assert!(next < MOST, "the recording does not end");
            let ask = async |n: u64| {
                let mut body = create(&uuid(n), &names, 1 + n % 3, 1024);
                for (at, name) in names.iter().enumerate() {
                    body["weights"][name] = json!((at as f64 + 0.1) / 3.0);
                }
                assert_eq!(server.hook(&body).await.status, 200);
            };
            tokio::join!(ask(next), ask(next + 1), ask(next + 2), ask(next + 3));
            let gone = server.send("DELETE", &format!("/v1/instances/{}", uuid(next)), "").await.expect("an answer");
            assert!(gone.status.is_success(), "{}", gone.text);
            let larger = host(&names[(next % 12) as usize], 640 + next % 5, 1_000_000);
            server.apply(&[HostReport { instances: None, ..larger }]).await;
            next += 4;
        }
        let ended = export.wait_with_output().expect("a child");
        assert!(ended.status.success(), "{}", text(&ended.stderr));

        let given = folder.display().to_string();
        let replay = || {
            let output = pallium(&["simulate", "--recording", &given]);
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        };
        let (code, told, complaint) = replay();
        assert_eq!(
            (code, told.trim_end()),
            (Some(0), "60 decisions came out as recorded, byte for byte"),
            "{complaint}"
        );

        // A simulation begins from what is free on the hosts of that moment.
        let events = dir.path().join("events.csv");
        let header = "time_s,event,vm_id,vcpus,memory_mib,gpus,gpu_milli,gpu_models";
        fs::write(&events, format!("{header}\n0,create,v,60,1024,0,0,\n0,create,w,700,1024,0,0,\n")).expect("written");
        let state = folder.join("state.backup").display().to_string();
        let events = events.display().to_string();
        let output = pallium(&["simulate", "--trace", &events, "--hosts", &state, "--policy", "best-fit", "--json"]);
        let result: serde_json::Value = serde_json::from_str(&text(&output.stdout)).expect("JSON");
        assert_eq!(result["inputs"]["hosts"]["count"], 12, "{}", text(&output.stderr));
        assert_eq!(result["policies"]["best-fit"]["replay"]["rejections"]["count"], 1);

        // One digit of one answer, a line too few, and another state are noticed.
        let lines = folder.join("decisions.jsonl");
        let whole = fs::read_to_string(&lines).expect("lines");
        let answer = whole.rfind("{\"answer\"").expect("an answer");
        let score = answer + whole[answer..].find("score").expect("a score") + "score\\\":".len();
        let mut bytes = whole.clone().into_bytes();
        bytes[score] = if bytes[score] == b'7' { b'8' } else { b'7' };
        fs::write(&lines, &bytes).expect("written");
        let (code, told, complaint) = replay();
        assert_eq!(code, Some(1), "{told}");
        assert!(complaint.contains("1 of 60 decisions came out otherwise"), "{complaint}");
        let begin = whole.find('\n').expect("lines") + 1;
        fs::write(&lines, &whole[begin..]).expect("written");
        assert!(replay().2.contains("line 1: no 'begin' in the first line"));
        fs::write(&lines, &whole[..whole.len() - 9]).expect("written");
        assert!(replay().2.contains("it has no end: a whole file expected"));
        let checksum = whole.find("checksum").expect("a checksum") + "checksum\":\"".len();
        let mut bytes = whole.into_bytes();
        bytes[checksum] = if bytes[checksum] == b'0' { b'1' } else { b'0' };
        fs::write(&lines, &bytes).expect("written");
        assert!(replay().2.contains("the backup that was written with it expected"));
    });
}
