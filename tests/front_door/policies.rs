//! Policies of failover through the front door: written, checked, shown, held to, and taken away.

use serde_json::{Value, json};

use crate::command_line::{pallium, text};
use crate::server::{Server, run};
use crate::spec::host;
use crate::support;
use crate::support::agents::{Agent, hello, id, watch, watched};
use crate::support::nodes::until;

const TRIAL: &str = "\
apiVersion: pallium.dev/v1alpha1
kind: FailoverPolicy
metadata: {name: trial}
spec:
  selector: {hosts: [a]}
  mode: dry-run
---
apiVersion: pallium.dev/v1alpha1
kind: FailoverPolicy
metadata: {name: all}
spec:
  selector: {domain: region}
  fencing: {autoPowerOn: true}
  isolationResponse: fence_after 90s
";

#[test]
fn a_policy_is_checked_applied_shown_held_to_and_taken_away() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| support::file(dir.path(), name, text);
        let config = file("server.yaml", "ha: {mode: enforce}\n");
        let server = Server::start_with(&dir.path().join("data"), &["--config", &config]);
        server.apply(&["a", "b", "c"].map(|name| host(name, 8, 8192))).await;
        watch(&server, dir.path(), &watched(&["a", "b", "c"])).await;
        let policy = |arguments: &[&str]| server.ctl(&[&["ha", "policy"], arguments].concat());
        assert!(policy(&["show"]).expect("none").starts_with("no policy"));

        // What is wrong is told at once, with its line, and nothing is taken in.
        let trial = file("trial.yaml", TRIAL);
        let bad = TRIAL.replace("dry-run", "observe").replace("autoPowerOn", "topology").replace("90s", "9s");
        let bad = file("bad.yaml", &bad);
        let lint = pallium(&["ctl", "ha", "policy", "lint", &bad]);
        let applied = policy(&["apply", &bad, "--reason", "a trial"]).expect_err("refused");
        for told in [text(&lint.stderr), applied] {
            for part in [
                "line 6: spec.mode: 'observe' given, enforce, dry-run or off expected",
                "line 13: spec.fencing.topology: planned, and does nothing in this version",
                "line 14: spec.isolationResponse: 'fence_after 9s' given, 60s to 24h expected",
            ] {
                assert!(told.contains(part), "{part}: {told}");
            }
        }
        let lint = pallium(&["ctl", "ha", "policy", "lint", &trial]);
        assert!(lint.status.success() && text(&lint.stdout).contains("all: nothing to say against it"));
        assert!(policy(&["apply", &trial]).expect_err("why?").contains("--reason"));
        assert!(policy(&["show"]).expect("none").starts_with("no policy"));

        let diff = policy(&["diff", &trial]).expect("a difference");
        assert!(diff.contains("+  mode: dry-run") && diff.contains("a: mode enforce -> dry-run"), "{diff}");
        assert!(diff.contains("all: it selects 3 hosts; for 3 something would change"), "{diff}");
        let applied = policy(&["apply", &trial, "--reason", "a trial", "--as", "jo"]).expect("applied");
        assert!(applied.contains("trial, revision 1: it selects 1 hosts"), "{applied}");
        let shown = policy(&["show"]).expect("two");
        assert!(shown.contains("host a") && shown.contains("dry-run") && shown.contains("jo"), "{shown}");
        // What is shown is what is applied.
        let shown = policy(&["show", "trial"]).expect("one");
        assert!(shown.starts_with("# revision 1, ") && shown.contains(" by jo: a trial\n"), "{shown}");
        let again = policy(&["apply", &file("again.yaml", &shown), "--reason", "again"]).expect("the same");
        assert_eq!(again.trim(), "trial: it is so already, revision 1");
        let under = policy(&["show", "--host", "a", "-o", "json"]).expect("rules");
        let under: Value = serde_json::from_str(&under).expect("JSON");
        let rule = |key: &str| under.as_array().and_then(|rules| rules.iter().find(|rule| rule["key"] == key)).cloned();
        assert_eq!(rule("mode"), Some(json!({"key": "mode", "value": "dry-run", "policy": "trial"})));
        assert_eq!(rule("isolationResponse").map(|rule| rule["value"].clone()), Some(json!("fence_after 90s")));
        assert_eq!(rule("errorInstances"), Some(json!({"key": "errorInstances", "value": "skip"})));
        let status = server.ctl(&["ha"]).expect("status");
        assert!(
            status.contains("trial over all: dry-run, 1 hosts") && status.contains("all: enforce, 2 hosts"),
            "{status}"
        );

        // REST: the last valid revision stays in force.
        let send = async |path: &str, body: Value| {
            let answer = server.send("POST", path, body.to_string()).await.expect("an answer");
            (answer.status.as_u16(), answer.json())
        };
        let listed = server.get("/v1/ha/policies?name=trial&host=b").await.json();
        let mut document = listed["policies"][0]["document"].clone();
        assert_eq!(
            (&document["spec"]["mode"], listed["rules"].as_array().map(Vec::len)),
            (&json!("dry-run"), Some(13))
        );
        document["spec"]["mode"] = json!("on");
        document["spec"]["nova"] = json!({});
        let order = |document: &Value| json!({"document": document, "actor": "jo", "reason": "a slip"});
        let (status, told) = send("/v1/ha/policies", order(&document)).await;
        let told = told["error"]["message"].as_str().expect("a message").to_owned();
        assert!(
            status == 400 && told.contains("document.spec.mode: 'on' given") && told.contains("document.spec.nova"),
            "{told}"
        );
        let unreasoned = json!({"document": listed["policies"][0]["document"], "actor": "jo"});
        assert_eq!(send("/v1/ha/policies", unreasoned).await.0, 409);
        assert!(policy(&["show", "trial"]).expect("as before").starts_with("# revision 1, "));
        let (status, told) = send("/v1/ha/check-policy", json!({"document": listed["policies"][0]["document"]})).await;
        assert_eq!((status, &told["changed"]), (200, &json!(false)));
        assert_eq!(send("/v1/ha/delete-policy", json!({"name": "nobody", "reason": "x"})).await.0, 404);

        // It is held to: a dead host is not marked in Nova.
        let a = Agent::begin(&server, hello(1)).await.expect("it is known").beat(None);
        let b = Agent::begin(&server, hello(2)).await.expect("it is known").beat(Some(id(1)));
        let c = Agent::begin(&server, hello(3)).await.expect("it is known").beat(Some(id(1)));
        until("three hosts that are heard", async || {
            let hosts: Value = serde_json::from_str(&server.ctl(&["ha", "hosts", "-o", "json"]).ok()?).ok()?;
            hosts["hosts"].as_array()?.iter().all(|host| host["detection"] == "alive").then_some(())
        })
        .await;
        a.abort();
        let confirm = ["ha", "confirm-dead", "a", "--reason", "its plug is in my hand", "--yes"];
        until("the operator's word", async || server.ctl(&confirm).ok()).await;
        let cases = until("what would be done", async || {
            let cases = server.ctl(&["ha", "cases"]).ok()?;
            cases.contains("dry run: it would be marked as down in Nova").then_some(cases)
        })
        .await;
        assert!(cases.contains("nova down"), "{cases}");
        let gone = policy(&["delete", "trial", "--reason", "the trial is over"]).expect("taken away");
        assert!(gone.contains("a: mode dry-run -> enforce"), "{gone}");
        until("nothing that is withheld", async || {
            let case: Value = serde_json::from_str(&server.ctl(&["ha", "case", "a", "-o", "json"]).ok()?).ok()?;
            case["would"].is_null().then_some(())
        })
        .await;
        b.abort();
        c.abort();
    });
}
