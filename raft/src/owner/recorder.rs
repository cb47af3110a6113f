//! Tells one reader what the owner decides and applies, in order. A reader that is too slow loses the recording, not the
//! owner's time.

use scheduler::recording::Event;
use tokio::sync::mpsc;

/// Events that wait for the reader.
const WAITING: usize = 16_384;

/// The owner's end.
pub struct Recorder {
    events: mpsc::Sender<Event>,
    /// Decisions whose answer is still to be recorded.
    left: u64,
    made: u64,
}

impl Recorder {
    /// A recorder of so many decisions, and its reader's end.
    pub fn new(decisions: u64) -> (Self, mpsc::Receiver<Event>) {
        let (events, reader) = mpsc::channel(WAITING);
        (Self { events, left: decisions, made: 0 }, reader)
    }

    /// The number of the decision that is made next.
    pub fn next(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// Whether a decision was made since the recording began.
    pub fn knows(&self, number: u64) -> bool {
        number > 0 && number <= self.made
    }

    /// Whether the reader still reads.
    pub fn is_read(&self) -> bool {
        !self.events.is_closed()
    }

    /// Tells an event; false: the recording is over.
    pub fn tell(&mut self, event: Event) -> bool {
        if matches!(event, Event::Answer { .. }) {
            self.left = self.left.saturating_sub(1);
        }
        self.events.try_send(event).is_ok() && self.left > 0
    }
}
