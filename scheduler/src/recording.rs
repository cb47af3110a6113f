//! What the owner of a core decided and applied, in order, as lines that a copy of the core can be led through again: given the
//! state of the moment at which the recording began, the same requests at the same times between the same batches must give
//! the same decisions, byte for byte.
//!
//! ```text
//! begin   the settings, and the checksum of the state
//! decide  a request was decided: a number, the replicated time, the request
//! apply   a batch was applied, and which decisions its commands settled
//! drop    a decision was given up
//! answer  what the caller was told
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::command::{Batch, Outcome};
use crate::core::{Core, Proposal, Settled};
use crate::decision::Decision;
use crate::level::Levels;
use crate::pipeline::engine::Engine;
use crate::request::{Candidates, Request};
use crate::settings::Settings;

/// Most decisions of a recording that may wait for their outcome at once.
const MOST_OPEN: usize = 100_000;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The first line.
    Begin {
        /// Version of the program.
        version: String,
        /// Settings of the decision path.
        settings: Box<Settings>,
        /// Checksum of the state, 16 hex digits.
        checksum: String,
    },
    /// A request was decided.
    Decide {
        /// Counts decisions from 1; one that is decided again gets a new number.
        number: u64,
        /// Replicated milliseconds.
        now: u64,
        /// The request.
        request: Box<Request>,
        /// Bits of the weights of the hosts sent: JSON may round them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        weights: Vec<u64>,
    },
    /// A batch was applied.
    Apply {
        /// As it lies in the log, hex.
        batch: String,
        /// Decisions that it settled: number, and place of the command in the batch.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        settles: Vec<(u64, usize)>,
    },
    /// A decision was given up.
    Drop {
        /// Its number.
        number: u64,
    },
    /// What the caller was told.
    Answer {
        /// Number of the decision.
        number: u64,
        /// The decision as JSON, or why there is none.
        text: String,
    },
}

impl Event {
    /// The first line of a recording.
    pub fn begin(core: &Core, engine: &Engine) -> Self {
        Self::Begin {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            settings: Box::new(engine.settings.clone()),
            checksum: format!("{:016x}", core.state().checksum()),
        }
    }

    /// A request that is decided at this time.
    pub fn decide(number: u64, now: u64, request: &Request) -> Self {
        let weights = match &request.candidates {
            Candidates::Sent(sent) => sent.iter().map(|candidate| candidate.weight.to_bits()).collect(),
            Candidates::All => Vec::new(),
        };
        Self::Decide { number, now, request: Box::new(request.clone()), weights }
    }

    /// A batch that was applied.
    pub fn apply(batch: &Batch, level: u8, settles: Vec<(u64, usize)>) -> Self {
        let hex = batch.encode(level).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        Self::Apply { batch: hex, settles }
    }

    /// What a caller is told of a decision.
    pub fn answer(number: u64, decision: Result<&Decision, String>) -> Self {
        Self::Answer { number, text: told(decision) }
    }
}

fn told(decision: Result<&Decision, String>) -> String {
    match decision {
        Ok(decision) => serde_json::to_string(decision).unwrap_or_else(|error| error.to_string()),
        Err(refused) => refused,
    }
}

/// A decision that came out otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its number.
    pub number: u64,
    /// As it was recorded.
    pub recorded: String,
    /// As it came out.
    pub replayed: String,
}

/// A core that is led through a recording.
pub struct Replay {
    core: Core,
    engine: Engine,
    open: BTreeMap<u64, Proposal>,
    answers: BTreeMap<u64, String>,
    /// Decisions whose answer was compared.
    pub compared: u64,
    /// The first of those that came out otherwise.
    pub differences: Vec<Difference>,
    /// How many did.
    pub differing: u64,
}

/// Differences that are kept.
const KEPT: usize = 10;

impl Replay {
    /// Begins from the state of the moment; `begin` is the recording's first line. The engine has the pipelines that ship with
    /// the program.
    pub fn begin(core: Core, mut engine: Engine, begin: &Event) -> Result<Self, String> {
        let Event::Begin { settings, checksum, .. } = begin else {
            return Err(
                "no 'begin' in the first line: a recording of `pallium ctl decisions export` expected".to_owned()
            );
        };
        let here = format!("{:016x}", core.state().checksum());
        if *checksum != here {
            return Err(format!(
                "the state has checksum {here}, and the recording began at one with {checksum}: the backup that was written \
                 with it expected"
            ));
        }
        engine.settings = (**settings).clone();
        engine.follow(core.state().tables().catalogue());
        Ok(Self {
            core,
            engine,
            open: BTreeMap::new(),
            answers: BTreeMap::new(),
            compared: 0,
            differences: Vec::new(),
            differing: 0,
        })
    }

    /// The core as it stands.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Plays one line; errors say what is wrong with it.
    pub fn play(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Begin { .. } => return Err("a second 'begin': one recording expected".to_owned()),
            Event::Decide { number, now, mut request, weights } => {
                weigh(&mut request, &weights)?;
                self.decide(number, now, &request)?;
            }
            Event::Apply { batch, settles } => {
                let batch = Batch::decode(&bytes(&batch)?, Levels::PROGRAM).map_err(|error| error.to_string())?;
                let outcomes = self.core.apply(&batch);
                self.engine.follow(self.core.state().tables().catalogue());
                for (number, place) in settles {
                    let outcome = outcomes.get(place).cloned().ok_or_else(|| {
                        format!(
                            "apply: command {place} given, the batch has {}: a whole recording expected",
                            outcomes.len()
                        )
                    })?;
                    let proposal = self.open.remove(&number).ok_or_else(|| unknown(number))?;
                    self.settle(number, proposal, Some(outcome));
                }
            }
            Event::Drop { number } => {
                let proposal = self.open.remove(&number).ok_or_else(|| unknown(number))?;
                let _ = self.core.settle(proposal, None);
            }
            Event::Answer { number, text } => {
                let replayed =
                    self.answers.remove(&number).unwrap_or_else(|| "no answer: to be decided again".to_owned());
                self.compared += 1;
                if replayed != text {
                    self.differing += 1;
                    if self.differences.len() < KEPT {
                        self.differences.push(Difference { number, recorded: text, replayed });
                    }
                }
            }
        }
        Ok(())
    }

    fn decide(&mut self, number: u64, now: u64, request: &Request) -> Result<(), String> {
        if self.open.len() + self.answers.len() >= MOST_OPEN {
            return Err(format!("more than {MOST_OPEN} decisions wait for their outcome: a whole recording expected"));
        }
        self.core.set_clock(now);
        match self.core.decide(&self.engine, request) {
            Err(refusal) => drop(self.answers.insert(number, told(Err(refusal.to_string())))),
            Ok(mut proposal) => match proposal.take_command() {
                Some(_) => drop(self.open.insert(number, proposal)),
                None => self.settle(number, proposal, None),
            },
        }
        Ok(())
    }

    fn settle(&mut self, number: u64, proposal: Proposal, outcome: Option<Outcome>) {
        let text = match self.core.settle(proposal, outcome) {
            Settled::Done(decision) => told(Ok(&decision)),
            Settled::Refused(refusal) => told(Err(refusal.to_string())),
            Settled::Again => return,
        };
        self.answers.insert(number, text);
    }
}

fn unknown(number: u64) -> String {
    format!("decision {number} is settled and was never made: a whole recording expected")
}

/// Gives hosts sent the weights that they were sent with.
fn weigh(request: &mut Request, weights: &[u64]) -> Result<(), String> {
    let Candidates::Sent(sent) = &mut request.candidates else { return Ok(()) };
    if sent.len() != weights.len() {
        return Err(format!("weights: {} given, one for each of {} hosts expected", weights.len(), sent.len()));
    }
    for (candidate, weight) in sent.iter_mut().zip(weights) {
        candidate.weight = f64::from_bits(*weight);
    }
    Ok(())
}

fn bytes(hex: &str) -> Result<Vec<u8>, String> {
    let digits = hex.as_bytes();
    let digit = |at: usize| (digits[at] as char).to_digit(16);
    (0..digits.len() / 2)
        .map(|at| Some((digit(2 * at)? << 4 | digit(2 * at + 1)?) as u8))
        .collect::<Option<Vec<u8>>>()
        .filter(|_| digits.len().is_multiple_of(2))
        .ok_or_else(|| "batch: an even number of hex digits expected".to_owned())
}
