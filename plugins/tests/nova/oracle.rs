//! The real Nova: a process of the driver, one line for a case and one for its answer.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;

use crate::cases::Case;

pub struct Oracle {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// What Nova says of a case.
#[derive(Deserialize)]
pub struct Answer {
    /// For each filter and host: `keep`, `drop` or what was raised.
    pub filters: Vec<Vec<String>>,
    pub weighers: Vec<Weights>,
    /// Hosts that are left with their weights; `None` when it raised.
    #[serde(deserialize_with = "or_none")]
    pub ranking: Option<Vec<(String, f64)>>,
}

/// What Nova says of a weigher.
#[derive(Deserialize)]
pub struct Weights {
    pub raw: Vec<Value>,
    /// What it adds to the weight of each host; `None` when it raised.
    #[serde(deserialize_with = "or_none")]
    pub scores: Option<Vec<f64>>,
}

/// A number, or what was raised.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Value {
    Number(f64),
    Raised(#[expect(dead_code, reason = "read to tell it from a number")] String),
}

fn or_none<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Option<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either<T> {
        Good(T),
        Raised(#[expect(dead_code, reason = "read to tell it from an answer")] String),
    }
    Ok(match Either::deserialize(input)? {
        Either::Good(good) => Some(good),
        Either::Raised(_) => None,
    })
}

impl Oracle {
    /// Starts the driver; `None` where no Python has Nova.
    pub fn start() -> Option<Self> {
        let python = std::env::var_os("PALLIUM_NOVA_PYTHON")?;
        let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/nova/driver.py");
        let mut command = Command::new(python);
        command.args(["-W", "ignore", driver]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("PALLIUM_NOVA_PYTHON names a Python");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Some(Self { child, input, output })
    }

    pub fn ask(&mut self, case: &Case) -> Answer {
        let input = self.input.as_mut().expect("it is open until the oracle ends");
        writeln!(input, "{}", case.question()).expect("the driver reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the driver answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("the driver says {line}: {error}"))
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // Without input the driver ends.
        self.input = None;
        let _ = self.child.wait();
    }
}
