//! What lies in ../shared, for those who have it: the recorded requests there are the ones that
//! the tests and the demo use. Without the folder this says so and checks nothing.

use std::path::PathBuf;

fn folder() -> Option<PathBuf> {
    let named = std::env::var_os("PALLIUM_SHARED").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    folder.is_dir().then_some(folder)
}

#[test]
fn the_recorded_requests_are_the_shared_ones() {
    let Some(shared) = folder() else {
        println!("skipped: there is no folder ../shared");
        return;
    };
    let folder = shared.join("fixtures/nova-requests");
    let files = std::fs::read_dir(&folder).expect("the recorded requests");
    let mut names: Vec<String> =
        files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name != "index.md");
    names.sort();
    let ours: Vec<String> = simulation::fixtures::REQUESTS.iter().map(|(name, _)| format!("{name}.json")).collect();
    assert_eq!(ours, names);
    for (name, text) in simulation::fixtures::REQUESTS {
        let theirs = std::fs::read_to_string(folder.join(format!("{name}.json"))).expect("readable");
        assert_eq!(text.trim_end(), theirs.trim_end(), "{name}");
    }
}
