//! The replicated pipelines: named, in versions, with what is active since when.
//!
//! A pipeline is kept as the JSON text that was applied. What it means is the [engine]'s to say: apply
//! looks at nothing that could read otherwise in another build (which steps there are, which options
//! they take), so that replicas of neighbouring versions keep equal tables.
//!
//! Version 0 of a name stands for the pipeline that ships with the program, if it ships one of that
//! name; what nobody applied is in version 0.
//!
//! [engine]: crate::pipeline::engine::Engine

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcode::{Decode, Encode};

/// Names.
pub const PIPELINES: usize = 64;
/// Versions kept of a name, the active one, the one before and the candidate among them.
pub const VERSIONS: usize = 16;
/// Activations kept of a name.
pub const ACTIVATIONS: usize = 32;
/// Bytes of one version.
pub const LONGEST: usize = 64 << 10;
/// Bytes of all versions of all names.
pub const ALL: usize = 8 << 20;
/// Bytes of a name: they are labels of metrics, and parts of paths.
pub const LONGEST_NAME: usize = 63;
/// Bytes of a note.
pub const LONGEST_NOTE: usize = 512;

/// All pipelines.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Catalogue {
    named: BTreeMap<String, Arc<Versions>>,
    /// The highest version of a name that was deleted: one that comes again goes on from here, so that
    /// a version of a name never means two things.
    floor: u32,
}

/// One name.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Versions {
    /// What is kept, oldest first.
    pub versions: Vec<Version>,
    /// Which version was active since when, oldest first.
    pub activations: Vec<Activation>,
    /// The version that runs beside the active one without effect.
    pub candidate: Option<Candidate>,
    /// The highest number that was given.
    pub last: u32,
}

/// One version.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Version {
    /// Its number, from 1.
    pub number: u32,
    /// The resource, JSON.
    pub resource: Arc<str>,
    /// Who or why, in the words of who applied it.
    pub note: String,
    /// When it was applied.
    pub at: Moment,
}

/// A version became active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Activation {
    /// Its number; 0 = the one that ships with the program.
    pub version: u32,
    /// Since when.
    pub at: Moment,
}

/// A version that runs beside the active one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Candidate {
    /// Its number.
    pub version: u32,
    /// It runs for one of so many decisions.
    pub one_in: u32,
    /// Since when.
    pub at: Moment,
}

/// A place in the order of all changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Moment {
    /// Number of the command among all that were ever applied: the same on every replica.
    pub command: u64,
    /// Wall time of its batch, milliseconds since 1970.
    pub wall: u64,
}

/// A change of the pipelines.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Change {
    /// Adds a version, or nothing when the newest one has the same text.
    Apply {
        /// Name of the pipeline.
        name: String,
        /// The resource, JSON; the same text for the same content.
        resource: String,
        /// Who or why.
        note: String,
        /// Makes the version active.
        activate: bool,
        /// The newest version that its author had seen; refused when it is another by now.
        seen: Option<u32>,
    },
    /// Makes a version that is kept, or with 0 the shipped pipeline, active.
    Activate {
        /// Name of the pipeline.
        name: String,
        /// Number of the version.
        version: u32,
    },
    /// Makes active what was active before.
    Rollback {
        /// Name of the pipeline.
        name: String,
        /// The version that its author wants to leave; refused when it is another by now.
        from: Option<u32>,
    },
    /// Forgets the name with all its versions.
    Delete {
        /// Name of the pipeline.
        name: String,
    },
    /// Lets a version run beside the active one without effect, or ends that.
    Shadow {
        /// Name of the pipeline.
        name: String,
        /// The version, and that it runs for one of so many decisions.
        candidate: Option<(u32, u32)>,
    },
}

/// What a change came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Changed {
    /// The version that the change was about.
    pub version: u32,
    /// The version that is active now; 0 = the shipped one, or none.
    pub active: u32,
    /// Whether anything is different now.
    pub changed: bool,
}

impl Change {
    /// The pipeline's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Apply { name, .. }
            | Self::Activate { name, .. }
            | Self::Rollback { name, .. }
            | Self::Delete { name }
            | Self::Shadow { name, .. } => name,
        }
    }
}

impl Versions {
    /// The active version; 0 = the shipped one, or none.
    pub fn active(&self) -> u32 {
        self.activations.last().map_or(0, |activation| activation.version)
    }

    /// The version that a rollback makes active.
    pub fn before(&self) -> u32 {
        let active = self.active();
        let mut earlier = self.activations.iter().rev().map(|activation| activation.version);
        earlier.find(|&version| version != active && self.has(version)).unwrap_or(0)
    }

    /// A version that is kept.
    pub fn version(&self, number: u32) -> Option<&Version> {
        self.versions.iter().find(|version| version.number == number)
    }

    fn has(&self, number: u32) -> bool {
        number == 0 || self.version(number).is_some()
    }

    fn activate(&mut self, version: u32, at: Moment) -> bool {
        if self.active() == version {
            return false;
        }
        if self.activations.len() >= ACTIVATIONS {
            self.activations.remove(0);
        }
        self.activations.push(Activation { version, at });
        if self.candidate.is_some_and(|candidate| candidate.version == version) {
            self.candidate = None;
        }
        true
    }

    /// Lets go of the oldest version that nothing refers to.
    fn trim(&mut self) {
        let candidate = self.candidate.map_or(0, |candidate| candidate.version);
        let kept = [self.active(), self.before(), candidate, self.last];
        while self.versions.len() > VERSIONS {
            let Some(at) = self.versions.iter().position(|version| !kept.contains(&version.number)) else { break };
            self.versions.remove(at);
        }
    }
}

impl Catalogue {
    /// All names with their versions.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Versions)> {
        self.named.iter().map(|(name, versions)| (name.as_str(), &**versions))
    }

    /// The versions of a name.
    pub fn get(&self, name: &str) -> Option<&Versions> {
        self.named.get(name).map(|versions| &**versions)
    }

    /// The active version of a name; 0 = the shipped one, or none.
    pub fn active(&self, name: &str) -> u32 {
        self.named.get(name).map_or(0, |versions| versions.active())
    }

    fn bytes(&self) -> usize {
        self.named.values().flat_map(|versions| &versions.versions).map(|version| version.resource.len()).sum()
    }

    /// A name as a snapshot gives it back.
    pub(crate) fn put(&mut self, name: String, versions: Arc<Versions>) {
        self.named.insert(name, versions);
    }

    /// The names as a snapshot takes them.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&String, &Arc<Versions>)> {
        self.named.iter()
    }

    pub(crate) fn floor(&self) -> u32 {
        self.floor
    }

    pub(crate) fn set_floor(&mut self, floor: u32) {
        self.floor = floor;
    }

    /// Makes a change, or says why not and makes none.
    pub(crate) fn change(&mut self, change: &Change, at: Moment) -> Result<Changed, String> {
        let name = change.name();
        match change {
            Change::Apply { resource, note, activate, seen, .. } => {
                named_well(name).map_err(|why| format!("metadata.name: {why}"))?;
                let bound = |what: &str, given: usize, most: usize| {
                    Err(format!("{what}: {given} bytes given, at most {most} expected"))
                };
                if resource.len() > LONGEST {
                    return bound("the pipeline", resource.len(), LONGEST);
                }
                if note.len() > LONGEST_NOTE {
                    return bound("note", note.len(), LONGEST_NOTE);
                }
                let known = self.named.get(name);
                let newest = known.map_or(0, |versions| versions.last);
                if let Some(seen) = seen.filter(|&seen| seen != newest) {
                    return Err(format!(
                        "pipeline '{name}' is in version {newest} by now, and you have seen {seen}: look at the new one first"
                    ));
                }
                if known.is_none() && self.named.len() >= PIPELINES {
                    return Err(format!("there are {PIPELINES} pipelines, which is the limit: delete one first"));
                }
                let same = known
                    .and_then(|versions| versions.versions.last())
                    .is_some_and(|version| *version.resource == **resource);
                if !same && self.bytes() + resource.len() > ALL {
                    return Err(format!("all versions together may have {ALL} bytes: delete a pipeline first"));
                }
                let floor = self.floor;
                let versions = Arc::make_mut(self.named.entry(name.to_owned()).or_default());
                if !same {
                    versions.last = versions.last.max(floor) + 1;
                    let resource = resource.as_str().into();
                    versions.versions.push(Version { number: versions.last, resource, note: note.clone(), at });
                }
                let number = versions.last;
                let switched = *activate && versions.activate(number, at);
                versions.trim();
                Ok(Changed { version: number, active: versions.active(), changed: !same || switched })
            }
            Change::Activate { version, .. } => {
                let versions = self.known(name)?;
                if !versions.has(*version) {
                    return Err(unkept(name, *version, versions));
                }
                let changed = versions.activate(*version, at);
                Ok(Changed { version: *version, active: versions.active(), changed })
            }
            Change::Rollback { from, .. } => {
                let versions = self.known(name)?;
                let active = versions.active();
                if let Some(from) = from.filter(|&from| from != active) {
                    return Err(format!("pipeline '{name}' is in version {active} by now, not in {from}: look again"));
                }
                let before = versions.before();
                let changed = versions.activate(before, at);
                Ok(Changed { version: before, active: before, changed })
            }
            Change::Delete { .. } => {
                let last = self.known(name)?.last;
                self.floor = self.floor.max(last);
                self.named.remove(name);
                Ok(Changed { version: 0, active: 0, changed: true })
            }
            Change::Shadow { candidate, .. } => {
                let versions = self.known(name)?;
                let active = versions.active();
                let before = versions.candidate;
                versions.candidate = match *candidate {
                    None => None,
                    Some((version, _)) if version == active => {
                        return Err(format!(
                            "version {version} of pipeline '{name}' is the active one: it would run twice"
                        ));
                    }
                    Some((_, 0)) => return Err("one_in: 0 given, at least 1 expected".to_owned()),
                    Some((version, _)) if versions.version(version).is_none() => {
                        return Err(unkept(name, version, versions));
                    }
                    Some((version, one_in)) => Some(Candidate { version, one_in, at }),
                };
                let version = candidate.map_or(0, |(version, _)| version);
                Ok(Changed { version, active, changed: before != versions.candidate })
            }
        }
    }

    fn known(&mut self, name: &str) -> Result<&mut Versions, String> {
        match self.named.get_mut(name) {
            Some(versions) => Ok(Arc::make_mut(versions)),
            None => Err(format!("no version of a pipeline '{}' was ever applied", name.escape_debug())),
        }
    }
}

fn unkept(name: &str, version: u32, versions: &Versions) -> String {
    let kept: Vec<String> = versions.versions.iter().map(|version| version.number.to_string()).collect();
    format!("version {version} of pipeline '{name}' is not kept: {} expected", kept.join(", "))
}

/// Names are those that Kubernetes takes for an object.
pub(crate) fn named_well(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    if bytes.len() <= LONGEST_NAME && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().copied().all(fits) {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(format!(
        "'{}' given, at most {LONGEST_NAME} lower-case letters, digits, '-' and '.' expected, a letter or \
         digit first and last",
        shown.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use super::{ACTIVATIONS, Catalogue, Change, Changed, Moment, VERSIONS};

    fn apply(text: &str, activate: bool, seen: Option<u32>) -> Change {
        let (name, resource) = ("p".to_owned(), text.to_owned());
        Change::Apply { name, resource, note: String::new(), activate, seen }
    }

    fn activate(version: u32) -> Change {
        Change::Activate { name: "p".to_owned(), version }
    }

    fn rollback(from: Option<u32>) -> Change {
        Change::Rollback { name: "p".to_owned(), from }
    }

    fn shadow(candidate: Option<(u32, u32)>) -> Change {
        Change::Shadow { name: "p".to_owned(), candidate }
    }

    /// Changes, and what they come to: version, active, changed; or the start of the refusal.
    #[test]
    fn a_table_of_changes() {
        type Expected = Result<(u32, u32, bool), &'static str>;
        let rows: Vec<(Change, Expected)> = vec![
            (activate(1), Err("no version of a pipeline 'p'")),
            (apply("a", true, None), Ok((1, 1, true))),
            (apply("a", true, None), Ok((1, 1, false))),
            (rollback(None), Ok((0, 0, true))),
            (apply("a", true, Some(1)), Ok((1, 1, true))),
            (apply("b", false, Some(0)), Err("pipeline 'p' is in version 1 by now")),
            (apply("b", false, Some(1)), Ok((2, 1, true))),
            (shadow(Some((1, 1))), Err("version 1 of pipeline 'p' is the active one")),
            (shadow(Some((3, 1))), Err("version 3 of pipeline 'p' is not kept: 1, 2 expected")),
            (shadow(Some((2, 0))), Err("one_in")),
            (shadow(Some((2, 8))), Ok((2, 1, true))),
            (activate(2), Ok((2, 2, true))),
            (activate(2), Ok((2, 2, false))),
            (rollback(Some(1)), Err("pipeline 'p' is in version 2 by now, not in 1")),
            (rollback(Some(2)), Ok((1, 1, true))),
            (rollback(None), Ok((2, 2, true))),
            (activate(0), Ok((0, 0, true))),
            (Change::Delete { name: "p".to_owned() }, Ok((0, 0, true))),
            (rollback(None), Err("no version of a pipeline 'p'")),
            (apply("c", true, None), Ok((3, 3, true))),
            (
                Change::Apply {
                    name: "P".into(),
                    resource: "c".into(),
                    note: String::new(),
                    activate: true,
                    seen: None,
                },
                Err("metadata.name: 'P' given"),
            ),
            (apply(&"x".repeat(super::LONGEST + 1), true, None), Err("the pipeline: 65537 bytes given")),
        ];
        let mut catalogue = Catalogue::default();
        for (at, (change, expected)) in rows.into_iter().enumerate() {
            let before = catalogue.clone();
            let moment = Moment { command: at as u64 + 1, wall: 0 };
            let outcome = catalogue.change(&change, moment);
            match (&outcome, expected) {
                (Ok(changed), Ok((version, active, is))) => {
                    assert_eq!(*changed, Changed { version, active, changed: is }, "row {at}: {change:?}");
                    assert_eq!(catalogue != before, is, "row {at}: what it says of itself");
                }
                (Err(why), Err(start)) if why.starts_with(start) => assert_eq!(catalogue, before, "row {at}"),
                other => panic!("row {at}: {change:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_referred_to_is_kept() {
        let mut catalogue = Catalogue::default();
        let mut change = |change: Change| catalogue.change(&change, Moment::default()).map(|changed| changed.version);
        assert_eq!(change(apply("first", true, None)), Ok(1));
        assert_eq!(change(apply("second", true, None)), Ok(2));
        assert_eq!(change(apply("third", false, None)), Ok(3));
        assert_eq!(change(shadow(Some((3, 1)))), Ok(3));
        for number in 4..40 {
            assert_eq!(change(apply(&format!("text {number}"), false, None)), Ok(number));
        }
        let gone = change(activate(4)).expect_err("it was let go");
        assert_eq!(gone.split(", ").count(), VERSIONS, "{gone}");
        for _ in 0..ACTIVATIONS {
            assert_eq!((change(rollback(None)), change(rollback(None))), (Ok(1), Ok(2)));
        }
        let versions = catalogue.get("p").expect("it is there");
        assert_eq!((versions.versions.len(), versions.activations.len()), (VERSIONS, ACTIVATIONS));
        assert!([1, 2, 3, 39].iter().all(|&number| versions.version(number).is_some()));
        assert_eq!((versions.active(), versions.before()), (2, 1));
    }
}
