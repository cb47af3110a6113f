//! The queue in front of a thread: the owner's and the log writer's.
//!
//! A channel of the standard library. In a simulation there are no threads, and the same loops run as
//! tasks: there a sender also wakes the task. Bounds are the senders' business.

use std::sync::mpsc;

#[cfg(feature = "simulation")]
use std::sync::Arc;
#[cfg(feature = "simulation")]
use tokio::sync::Notify;

/// Where messages are put in.
pub struct Sender<T> {
    queue: mpsc::Sender<T>,
    #[cfg(feature = "simulation")]
    woken: Arc<Notify>,
}

/// Where they come out.
pub struct Receiver<T> {
    queue: mpsc::Receiver<T>,
    #[cfg(feature = "simulation")]
    woken: Arc<Notify>,
}

/// A queue.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    #[cfg(feature = "simulation")]
    let woken = Arc::new(Notify::new());
    (
        Sender {
            queue: sender,
            #[cfg(feature = "simulation")]
            woken: Arc::clone(&woken),
        },
        Receiver {
            queue: receiver,
            #[cfg(feature = "simulation")]
            woken,
        },
    )
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender {
            queue: self.queue.clone(),
            #[cfg(feature = "simulation")]
            woken: Arc::clone(&self.woken),
        }
    }
}

impl<T> Sender<T> {
    /// Puts a message in, or gives it back when nobody takes any more.
    pub fn send(&self, message: T) -> Result<(), T> {
        self.queue.send(message).map_err(|unsent| unsent.0)?;
        #[cfg(feature = "simulation")]
        self.woken.notify_one();
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// Waits for a message; none when no sender is left.
    pub fn recv(&self) -> Option<T> {
        self.queue.recv().ok()
    }

    /// A message, if one waits.
    pub fn try_recv(&self) -> Option<T> {
        self.queue.try_recv().ok()
    }

    /// As [`Receiver::recv`], for a task. Without a message it waits for ever: a task of a
    /// simulation is ended from outside.
    #[cfg(feature = "simulation")]
    pub async fn next(&mut self) -> T {
        loop {
            if let Some(message) = self.try_recv() {
                return message;
            }
            self.woken.notified().await;
        }
    }
}
