//! The trace: creates and deletes in order (`events.csv`), or a list of shapes without time (`shapes.csv`).

use std::path::Path;

use hashbrown::HashMap;

use super::shape::Shape;
use super::table::{BadInput, Table, read};

/// A VM of the trace.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Its name in the trace.
    pub id: Box<str>,
    /// Place of its shape in [`Trace::shapes`].
    pub shape: u32,
    /// Group number, from 1; 0 = none.
    pub group: u32,
    /// When it is created, milliseconds.
    pub created: u64,
    /// How long it lives, milliseconds; `None` = no end in the trace. Knowledge of the future.
    pub lifetime: Option<u64>,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The VM is asked for.
    Create,
    /// It goes.
    Delete,
}

/// An event.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Milliseconds from the start of the window.
    pub time: u64,
    /// What.
    pub kind: Kind,
    /// Which VM, by its place in [`Trace::vms`].
    pub vm: u32,
}

/// A trace.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// VMs in order of their creates.
    pub vms: Vec<Vm>,
    /// Events in order.
    pub events: Vec<Event>,
    /// Distinct shapes in order of appearance.
    pub shapes: Vec<Shape>,
    /// Number of creates of each shape.
    pub counts: Vec<u64>,
    /// Number of groups.
    pub groups: u32,
    /// SHA-256 of the file, hex.
    pub sha256: String,
}

const COLUMNS: &[&str] =
    &["time_s", "event", "vm_id", "vcpus", "memory_mib", "gpus", "gpu_milli", "gpu_models", "lifetime_s", "group"];
const SHAPE_COLUMNS: &[&str] = &["vcpus", "memory_mib", "gpus", "gpu_milli", "gpu_models"];
/// Latest time, seconds: about 300 years.
pub(super) const LATEST: u64 = 10_000_000_000;
/// Most VMs of a trace.
const MOST_VMS: usize = 50_000_000;

/// Where a VM stands while the trace is read.
enum Life {
    Living(u32),
    Deleted,
}

#[derive(Default)]
struct Shapes(HashMap<Shape, u32>);

impl Shapes {
    fn count(&mut self, trace: &mut Trace, shape: &Shape) -> u32 {
        let next = trace.shapes.len() as u32;
        let at = *self.0.entry_ref(shape).or_insert_with(|| {
            trace.shapes.push(shape.clone());
            trace.counts.push(0);
            next
        });
        trace.counts[at as usize] += 1;
        at
    }
}

impl From<&Shape> for Shape {
    fn from(shape: &Shape) -> Self {
        shape.clone()
    }
}

impl Trace {
    /// Reads events.
    pub fn open(path: &Path) -> Result<Self, BadInput> {
        let (bytes, sha256) = read(path)?;
        Ok(Self { sha256, ..Self::read(&path.display().to_string(), bytes)? })
    }

    /// Reads events from bytes; `file` is for messages.
    pub fn read(file: &str, bytes: Vec<u8>) -> Result<Self, BadInput> {
        let mut table = Table::new(file, bytes, COLUMNS, 5)?;
        let mut trace = Self::default();
        let mut shapes = Shapes::default();
        let mut lives: HashMap<Box<str>, Life> = HashMap::new();
        let mut groups: HashMap<String, u32> = HashMap::new();
        let mut last = 0;
        while let Some(line) = table.next_line()? {
            let time = line.given(0, line.thousandths(0, LATEST)?)?;
            if time < last {
                let (given, before) = (time as f64 / 1000.0, last as f64 / 1000.0);
                return Err(
                    line.wrong_cell(0, format!("{given} given after {before}: events in order of time expected"))
                );
            }
            last = time;
            let id = line.name(2)?;
            let kind = line.text(1)?;
            match kind {
                "create" => {
                    if lives.contains_key(id) {
                        return Err(line.wrong_cell(2, format!("{id} is created a second time, once expected")));
                    }
                    if trace.vms.len() >= MOST_VMS {
                        return Err(
                            line.wrong(format!("more than {MOST_VMS} VMs, fewer expected: cut the trace into parts"))
                        );
                    }
                    let vm = trace.vms.len() as u32;
                    let shape = shapes.count(&mut trace, &Shape::read(line, 3)?);
                    let group = line.text(9)?;
                    let next = groups.len() as u32 + 1;
                    let group = if group.is_empty() { 0 } else { *groups.entry_ref(group).or_insert(next) };
                    let lifetime = line.thousandths(8, LATEST)?;
                    trace.vms.push(Vm { id: id.into(), shape, group, created: time, lifetime });
                    trace.events.push(Event { time, kind: Kind::Create, vm });
                    lives.insert(id.into(), Life::Living(vm));
                }
                "delete" => {
                    let Some(life) = lives.get_mut(id) else {
                        return Err(line.wrong_cell(2, format!("{id} is deleted before it is created")));
                    };
                    let Life::Living(vm) = *life else {
                        return Err(line.wrong_cell(2, format!("{id} is deleted a second time, once expected")));
                    };
                    *life = Life::Deleted;
                    trace.events.push(Event { time, kind: Kind::Delete, vm });
                }
                other => {
                    return Err(
                        line.wrong_cell(1, format!("'{}' given, create or delete expected", other.escape_debug()))
                    );
                }
            }
        }
        if trace.vms.is_empty() {
            return Err(BadInput::File {
                file: file.to_owned(),
                what: "no create given, at least one expected".to_owned(),
            });
        }
        trace.groups = groups.len() as u32;
        Ok(trace)
    }

    /// Reads shapes, one for each VM, all asked for at time 0.
    pub fn open_shapes(path: &Path) -> Result<Self, BadInput> {
        let (bytes, sha256) = read(path)?;
        Ok(Self { sha256, ..Self::read_shapes(&path.display().to_string(), bytes)? })
    }

    /// Reads shapes from bytes; `file` is for messages.
    pub fn read_shapes(file: &str, bytes: Vec<u8>) -> Result<Self, BadInput> {
        let mut table = Table::new(file, bytes, SHAPE_COLUMNS, 0)?;
        let mut trace = Self::default();
        let mut shapes = Shapes::default();
        while let Some(line) = table.next_line()? {
            let vm = trace.vms.len() as u32;
            let shape = shapes.count(&mut trace, &Shape::read(line, 0)?);
            trace.vms.push(Vm { id: vm.to_string().into(), shape, group: 0, created: 0, lifetime: None });
            trace.events.push(Event { time: 0, kind: Kind::Create, vm });
        }
        if trace.vms.is_empty() {
            return Err(BadInput::File {
                file: file.to_owned(),
                what: "no shape given, at least one expected".to_owned(),
            });
        }
        Ok(trace)
    }

    /// Shape of a VM.
    pub fn shape(&self, vm: u32) -> &Shape {
        &self.shapes[self.vms[vm as usize].shape as usize]
    }

    /// End of the window, milliseconds.
    pub fn end(&self) -> u64 {
        self.events.last().map_or(0, |event| event.time)
    }

    /// A part of the trace's time, from one share of it to another. What lives when it begins is created then, in the order
    /// of the trace.
    #[must_use]
    pub fn part(mut self, from: f64, until: f64) -> Self {
        let begin = self.events.first().map_or(0, |event| event.time);
        let span = (self.end() - begin) as f64;
        let [first, last] = [from, until].map(|share| begin + (span * share) as u64);
        self.events.truncate(self.events.partition_point(|event| event.time <= last));
        let later = self.events.split_off(self.events.partition_point(|event| event.time < first));
        let mut gone = vec![false; self.vms.len()];
        for event in self.events.drain(..) {
            gone[event.vm as usize] = event.kind == Kind::Delete;
        }
        let mut numbers = vec![0; gone.len()];
        let mut vms = Vec::new();
        for (at, mut vm) in self.vms.into_iter().enumerate().filter(|(at, vm)| !gone[*at] && vm.created <= last) {
            numbers[at] = vms.len() as u32;
            if vm.created < first {
                vm.lifetime = vm.lifetime.map(|lifetime| lifetime.saturating_sub(first - vm.created));
                vm.created = first;
                self.events.push(Event { time: first, kind: Kind::Create, vm: numbers[at] });
            }
            vms.push(vm);
        }
        self.events.extend(later.into_iter().map(|event| Event { vm: numbers[event.vm as usize], ..event }));
        self.vms = vms;
        self.counts.fill(0);
        for vm in &self.vms {
            self.counts[vm.shape as usize] += 1;
        }
        self
    }

    /// The trace `copies` times at once: ids with a suffix, the k-th shifted by k seconds modulo 300.
    #[must_use]
    pub fn scaled(&self, copies: u32) -> Self {
        if copies <= 1 {
            return self.clone();
        }
        let each = self.vms.len() as u32;
        let mut out = Self { vms: Vec::with_capacity(self.vms.len() * copies as usize), ..self.clone() };
        out.vms.clear();
        out.events.clear();
        out.counts.iter_mut().for_each(|count| *count *= u64::from(copies));
        out.groups *= copies;
        for copy in 0..copies {
            let shift = u64::from(copy % 300) * 1000;
            let named = |id: &str| if copy == 0 { id.into() } else { format!("{id}-{copy}").into_boxed_str() };
            out.vms.extend(self.vms.iter().map(|vm| Vm {
                id: named(&vm.id),
                created: vm.created + shift,
                group: if vm.group == 0 { 0 } else { vm.group + copy * self.groups },
                ..vm.clone()
            }));
            out.events.extend(self.events.iter().map(|event| Event {
                time: event.time + shift,
                vm: event.vm + copy * each,
                ..*event
            }));
        }
        // Stable: within one time a delete stays before the creates that followed it.
        out.events.sort_by_key(|event| (event.time, event.kind == Kind::Create));
        out
    }
}
