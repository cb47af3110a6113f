//! A TLS config that follows its files: all of them make sense together, or nothing changes.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::Error;
use crate::certificate::date;
use crate::files::{Contents, Loaded, Sources};

/// Time between two looks at the files.
const EVERY: Duration = Duration::from_secs(2);

type Make<C> = Box<dyn Fn(Loaded) -> Result<C, Error> + Send + Sync>;

/// The newest config that its files made.
pub(crate) struct Live<C> {
    sources: Sources,
    make: Make<C>,
    current: ArcSwap<C>,
    looks: Mutex<Looks>,
}

/// Fingerprints of what the files held. What is in them is compared, not their times: that also
/// tells apart two writes within one tick, and links that are turned to another file.
struct Looks {
    /// At the last look.
    last: u64,
    /// When a config was made of them, or could not be made.
    tried: u64,
}

impl<C: Send + Sync + 'static> Live<C> {
    pub(crate) fn open(
        sources: Sources,
        make: impl Fn(Loaded) -> Result<C, Error> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, Error> {
        let contents = sources.read()?;
        let tried = fingerprint(&Ok(&contents));
        let loaded = sources.load(&contents)?;
        let expires = loaded.validity.map(|validity| date(validity.not_after));
        let current = ArcSwap::from_pointee(make(loaded)?);
        let looks = Mutex::new(Looks { last: tried, tried });
        let live = Self { sources, make: Box::new(make), current, looks };
        tracing::info!(files = %live.files(), expires, "certificates read");
        Ok(Arc::new(live))
    }

    pub(crate) fn current(&self) -> Arc<C> {
        self.current.load_full()
    }

    /// Takes what is in the files now; an error leaves everything as it was. The log is told.
    pub(crate) fn reload(&self) -> Result<(), Error> {
        let read = self.sources.read();
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let tried = fingerprint(&read.as_ref());
        *looks = Looks { last: tried, tried };
        self.take(read)
    }

    /// Reloads when the files are not what they were, and have come to rest: a certificate and its
    /// key are two files, and are written one after the other.
    pub(crate) fn look(&self) {
        let read = self.sources.read();
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let now = fingerprint(&read.as_ref());
        let settled = std::mem::replace(&mut looks.last, now) == now;
        if settled && looks.tried != now {
            looks.tried = now;
            let _ = self.take(read);
        }
    }

    fn take(&self, read: Result<Contents, Error>) -> Result<(), Error> {
        let mut expires = None;
        let made = read.and_then(|contents| {
            let loaded = self.sources.load(&contents)?;
            expires = loaded.validity.map(|validity| date(validity.not_after));
            (self.make)(loaded)
        });
        match made {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!(files = %self.files(), expires, "certificates reloaded: new connections use them");
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "certificates not reloaded: the ones in use stay");
                Err(error)
            }
        }
    }

    fn files(&self) -> String {
        let identity = self.sources.identity.iter().flat_map(|(cert, key)| [cert, key]);
        let names: Vec<String> = identity.chain(&self.sources.ca).map(|file| file.display().to_string()).collect();
        names.join(", ")
    }

    /// Looks at the files for ever. Reading blocks, so it is done where that hurts nobody.
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(EVERY).await;
            let live = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || live.look()).await.is_err() {
                tracing::error!(files = %self.files(), "certificates are not watched any more");
                return;
            }
        }
    }
}

fn fingerprint(read: &Result<&Contents, &Error>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match read {
        Ok(contents) => contents.hash(&mut hasher),
        Err(error) => error.to_string().hash(&mut hasher),
    }
    hasher.finish()
}
