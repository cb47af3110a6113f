//! Where tasks run: on tokio, and in a simulation on its one thread, where nothing may depend on
//! which thread is faster.

use std::future::Future;
use std::io;

use openraft::async_runtime::AsyncRuntime;

/// What openraft runs on.
#[cfg(not(feature = "simulation"))]
pub type Runtime = openraft::impls::TokioRuntime;
#[cfg(feature = "simulation")]
pub type Runtime = crate::simulation::runtime::Hosted;

/// Runs a future as a task of its own. Every task that speaks to openraft is started here.
pub fn spawn<F>(future: F) -> <Runtime as AsyncRuntime>::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Runtime::spawn(future)
}

/// Does work that may wait for the disk on a thread that may.
#[cfg(not(feature = "simulation"))]
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// Does work at once: the disk of a simulation takes no time.
#[cfg(feature = "simulation")]
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    std::future::ready(Ok(work())).await
}
