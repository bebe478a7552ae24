//! Two controllers without a leader, and two receivers: struck, and started again at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::plan::{CONTROLLERS, RECEIVERS};
use crate::support::bed::listen_address;
use crate::support::process::Process;
use crate::support::{Bed, PATIENCE, poll};

const NAMES: [&str; 4] = ["controller-a", "controller-b", "receiver-a", "receiver-b"];

pub struct Fleet {
    members: BTreeMap<usize, Member>,
    /// Of every controller.
    environment: Vec<(&'static str, &'static str)>,
    /// Processes that ended without having been struck.
    pub fallen: Vec<String>,
    /// Where the front leads to.
    led: Vec<SocketAddr>,
    /// When receivers were killed.
    pub receivers_lost: Vec<jiff::Timestamp>,
    /// From when until when receivers were stopped.
    pub receivers_stopped: Vec<(jiff::Timestamp, jiff::Timestamp)>,
    pub kills: usize,
    pub stops: usize,
    /// How long the last start of two processes took.
    pub start_time: Duration,
}

struct Member {
    process: Process,
    is_up: bool,
    /// Where a receiver listens, once it says so.
    address: Option<SocketAddr>,
    stopped_until: Option<Instant>,
}

impl Fleet {
    /// The first of each kind, ready.
    pub async fn start(bed: &Bed, fence: bool) -> Self {
        let environment = if fence { vec![] } else { vec![("GEMINI_OPERATOR_BREAK", "fence")] };
        let mut fleet = Self {
            members: BTreeMap::new(),
            environment,
            fallen: vec![],
            led: vec![],
            receivers_lost: vec![],
            receivers_stopped: vec![],
            kills: 0,
            stops: 0,
            start_time: Duration::ZERO,
        };
        fleet.join(bed, [CONTROLLERS[0], RECEIVERS[0]]).await;
        fleet
    }

    /// Those too, ready.
    pub async fn join(&mut self, bed: &Bed, numbers: [usize; 2]) {
        let began = Instant::now();
        for number in numbers {
            self.restart(bed, number);
        }
        let all_up = poll(PATIENCE, async || {
            self.tend(bed);
            let up = self.members.values().filter(|member| member.is_up).count();
            if up == self.members.len() { Ok(()) } else { Err(up) }
        });
        let up = all_up.await;
        assert!(up.is_ok(), "{up:?} of {} processes are up", self.members.len());
        self.start_time = began.elapsed();
    }

    fn launch(&self, bed: &Bed, number: usize) -> Process {
        if CONTROLLERS.contains(&number) {
            bed.launch_controller(NAMES[number], &self.environment)
        } else {
            bed.launch_receiver(NAMES[number])
        }
    }

    /// SIGKILL, and another one at once. One that is stopped is spared: it is to go on, and its twin is struck.
    pub fn kill(&mut self, bed: &Bed, number: usize) {
        let number = if self.member(number).stopped_until.is_some() { twin(number) } else { number };
        if RECEIVERS.contains(&number) {
            self.receivers_lost.push(jiff::Timestamp::now());
        }
        self.member(number).process.kill();
        self.restart(bed, number);
        self.kills += 1;
    }

    /// SIGSTOP for this long, unless one of its kind is stopped.
    pub fn stop(&mut self, number: usize, lasts: Duration) {
        if [number, twin(number)].iter().any(|it| self.member(*it).stopped_until.is_some()) {
            return;
        }
        self.member(number).process.signal("STOP");
        self.member(number).stopped_until = Some(Instant::now() + lasts);
        if RECEIVERS.contains(&number) {
            let now = jiff::Timestamp::now();
            self.receivers_stopped.push((now, now));
        }
        self.stops += 1;
    }

    /// What time brings: who was stopped goes on, and the front learns of new receivers.
    pub fn tend(&mut self, bed: &Bed) {
        self.go_on(|until| until <= Instant::now());
        for number in self.members.keys().copied().collect::<Vec<_>>() {
            let process = &mut self.member(number).process;
            if let Some(status) = process.ended() {
                let end = process.tail(5);
                self.fallen.push(format!("{} ended by itself, {status}:\n{end}", NAMES[number]));
                self.restart(bed, number);
            }
        }
        for (number, member) in self.members.iter_mut().filter(|(_, member)| !member.is_up) {
            let Some(hello) = member.process.greeting() else { continue };
            member.is_up = true;
            if RECEIVERS.contains(number) {
                member.address = Some(listen_address(&hello));
            }
        }
        self.lead(bed);
    }

    /// Whether there is a controller that can do something.
    pub fn works(&self) -> bool {
        let works = |member: &Member| member.is_up && member.stopped_until.is_none();
        CONTROLLERS.iter().filter_map(|number| self.members.get(number)).any(works)
    }

    /// Nobody is stopped any more.
    pub fn release(&mut self) {
        self.go_on(|_| true);
    }

    fn go_on(&mut self, is_over: impl Fn(Instant) -> bool) {
        for (number, member) in &mut self.members {
            if !member.stopped_until.is_some_and(&is_over) {
                continue;
            }
            member.process.signal("CONT");
            member.stopped_until = None;
            // One receiver is stopped at a time.
            if RECEIVERS.contains(number)
                && let Some((_, to)) = self.receivers_stopped.last_mut()
            {
                *to = jiff::Timestamp::now();
            }
        }
    }

    fn restart(&mut self, bed: &Bed, number: usize) {
        let process = self.launch(bed, number);
        self.members.insert(number, Member { process, is_up: false, address: None, stopped_until: None });
        self.lead(bed);
    }

    fn member(&mut self, number: usize) -> &mut Member {
        self.members.get_mut(&number).expect("who is struck has joined")
    }

    /// Only what is new, so that the front takes them in turn.
    fn lead(&mut self, bed: &Bed) {
        let now: Vec<SocketAddr> = self.members.values().filter_map(|member| member.address).collect();
        if now != self.led {
            bed.front.lead_to(now.clone());
            self.led = now;
        }
    }
}

/// The other one of its kind.
fn twin(number: usize) -> usize {
    let kind = if CONTROLLERS.contains(&number) { CONTROLLERS } else { RECEIVERS };
    if kind[0] == number { kind[1] } else { kind[0] }
}
