//! Every input that is kept, seeds and finds of former runs, once through its target.

use std::fs;
use std::path::Path;

#[test]
fn every_kept_input_is_survived() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in fuzz::TARGETS {
        let mut inputs = 0;
        for folder in ["seeds", "regressions"] {
            let Ok(entries) = fs::read_dir(corpus.join(name).join(folder)) else { continue };
            for path in entries.flatten().map(|entry| entry.path()) {
                println!("{}", path.display());
                target(&fs::read(&path).expect("a kept input can be read"));
                inputs += 1;
            }
        }
        assert!(inputs > 0, "{name} has no seeds");
    }
}
