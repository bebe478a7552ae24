//! Everything that can happen, whoever does it, as the model checker wants it.

use stateright::{Model, Property};

use crate::control::Control;
use crate::protocol::{Look, Protocol};
use crate::world::{Budget, Change, Controller, End, Job, Key, Post, State, Status, World};

/// One thing that happens. Numbers are places in the world's lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    // A controller's own steps.
    Pass { controller: usize, look: Look },
    Write { controller: usize },
    Send { controller: usize },
    Prove { controller: usize },
    Conclude { controller: usize },
    // What befalls it.
    Crash { controller: usize },
    StopWaiting { controller: usize },
    // Gemini.
    FinishUpload { file: usize, project: u8 },
    Execute { post: usize, answer: bool },
    Refuse { post: usize },
    LoseRequest { post: usize },
    WaitAfterFence,
    // People.
    ChangeKey { to: Key },
    RevokeKey,
    WipeStatus,
    RollBack,
    Cancel,
}

impl Protocol {
    /// The request reaches Gemini, late or not. Nothing is known of a check that the file is of the key's project, so
    /// none is relied on.
    fn execute(world: &mut World, post: usize, answer: bool) -> Option<()> {
        let Post { n, nonce, file, key } = world.posts.remove(post);
        let end = if !world.accepts(key) {
            End::No
        } else if world.files[usize::from(file)].there.contains(&true) {
            let (project, lost_input) = (key.project(), false);
            world.jobs.push(Job { n, project, file, lost_input, before_fence: false, visible: false });
            End::Yes(u8::try_from(world.jobs.len() - 1).ok()?)
        } else {
            End::Forbidden
        };
        answered(world, nonce, if answer { end } else { End::Unknown });
        Some(())
    }

    fn happen(&self, world: &mut World, action: &Action) -> Option<()> {
        match *action {
            Action::Pass { controller, look } => {
                self.pass(world, controller, look)?;
            }
            Action::Write { controller } => self.write(world, controller)?,
            Action::Send { controller } => self.send(world, controller)?,
            Action::Prove { controller } => self.prove(world, controller)?,
            Action::Conclude { controller } => self.conclude(world, controller)?,
            Action::Crash { controller } => {
                world.left.crashes -= 1;
                world.controllers[controller] = Controller::Idle;
            }
            Action::StopWaiting { controller } => {
                world.left.losses -= 1;
                world.controllers[controller] = match world.controllers[controller] {
                    Controller::Waiting { nonce } => Controller::Concluding { nonce, end: End::Unknown },
                    _ => Controller::Idle,
                };
            }
            Action::FinishUpload { file, project } => {
                let (index, slot) = (u8::try_from(file).ok()?, usize::from(project - 1));
                world.files[file].uploading[slot] -= 1;
                world.files[file].there[slot] = true;
                let waiter = world.controllers.iter_mut().find(|c| {
                    matches!(c, Controller::Uploading { file, key, .. } if *file == index && key.project() == project)
                });
                if let Some(waiter) = waiter
                    && let Controller::Uploading { key, file } = waiter.clone()
                {
                    *waiter = Controller::Writing { key, change: Change::Staged { file } };
                }
            }
            Action::Execute { post, answer } => {
                world.left.losses -= u8::from(!answer);
                Self::execute(world, post, answer)?;
            }
            Action::Refuse { post } => {
                world.left.refusals -= 1;
                let nonce = world.posts.remove(post).nonce;
                answered(world, nonce, End::No);
            }
            Action::LoseRequest { post } => {
                world.left.losses -= 1;
                let nonce = world.posts.remove(post).nonce;
                answered(world, nonce, End::Unknown);
            }
            Action::WaitAfterFence => {
                world.waited = true;
                let bounded = !self.breaks(Control::UnboundedLag);
                world.jobs.iter_mut().for_each(|job| job.visible |= job.before_fence && bounded);
            }
            Action::ChangeKey { to } => {
                world.left.key_changes -= 1;
                world.secret = to;
            }
            Action::RevokeKey => {
                world.left.revocations -= 1;
                world.revoked = true;
            }
            Action::WipeStatus => {
                world.left.wipes -= 1;
                (world.object.status, world.waited) = (None, false);
                self.written(world);
            }
            Action::RollBack => {
                world.left.rollbacks -= 1;
                world.jobs.iter_mut().for_each(|job| job.visible = true);
                (world.object.status, world.waited) = (Some(Status::default()), false);
                world.object.rolled_back = true;
                self.written(world);
            }
            Action::Cancel => {
                world.left.cancellations -= 1;
                world.object.cancelled = true;
                self.written(world);
            }
        }
        Some(())
    }

    /// A benign world from here on: nothing is lost, the right key is back, everything comes to its end.
    fn finds_a_way_out(&self, world: &World) -> bool {
        let mut world = world.clone();
        world.left = Budget { attempts: u8::MAX, uploads: u8::MAX, ..Budget::default() };
        for _ in 0..64 {
            if world.is_settled() {
                return true;
            }
            world.revoked = false;
            world.secret = world.attempt().map_or(world.object.claimed, |a| a.key);
            let mut actions = vec![];
            self.actions(&world, &mut actions);
            // The listing that is made last comes last: first everything under way ends.
            let Some(action) =
                actions.into_iter().find(|a| !matches!(a, Action::Pass { look: Look::None, .. }))
            else {
                return false;
            };
            if self.happen(&mut world, &action).is_none() {
                return false;
            }
        }
        world.is_settled()
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.controllers, self.budget)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let left = world.left;
        for (at, controller) in world.controllers.iter().enumerate() {
            // Two in the same place would do the same.
            if at > 0 && world.controllers[at - 1] == *controller {
                continue;
            }
            match controller {
                Controller::Idle | Controller::Uploading { .. } | Controller::Waiting { .. } => {}
                Controller::Writing { .. } => actions.push(Action::Write { controller: at }),
                Controller::Posting { .. } => actions.push(Action::Send { controller: at }),
                Controller::Concluding { .. } => actions.push(Action::Conclude { controller: at }),
                Controller::Proving { .. } => actions.push(Action::Prove { controller: at }),
            }
        }
        for (index, file) in world.files.iter().enumerate() {
            for project in [1, 2] {
                if file.uploading[usize::from(project - 1)] > 0 {
                    actions.push(Action::FinishUpload { file: index, project });
                }
            }
        }
        for post in 0..world.posts.len() {
            actions.push(Action::Execute { post, answer: true });
            if left.losses > 0 {
                actions.push(Action::Execute { post, answer: false });
                actions.push(Action::LoseRequest { post });
            }
            if left.refusals > 0 {
                actions.push(Action::Refuse { post });
            }
        }
        if world.attempt().is_some_and(|a| a.state == State::Fenced && a.proof.is_some()) && !world.waited {
            actions.push(Action::WaitAfterFence);
        }
        for (at, controller) in world.controllers.iter().enumerate() {
            if at > 0 && world.controllers[at - 1] == *controller {
                continue;
            }
            if *controller == Controller::Idle {
                if !world.jobs.is_empty() {
                    actions.push(Action::Pass { controller: at, look: Look::Most });
                }
                if world.jobs.iter().any(|job| world.may_lose_input(job)) {
                    actions.push(Action::Pass { controller: at, look: Look::InputLost });
                }
                actions.push(Action::Pass { controller: at, look: Look::Least });
                actions.push(Action::Pass { controller: at, look: Look::None });
                continue;
            }
            if left.crashes > 0 {
                actions.push(Action::Crash { controller: at });
            }
            if left.losses > 0
                && matches!(controller, Controller::Waiting { .. } | Controller::Uploading { .. })
            {
                actions.push(Action::StopWaiting { controller: at });
            }
        }
        if left.key_changes > 0 {
            let others = [Key::A, Key::B, Key::C].into_iter().filter(|key| *key != world.secret);
            actions.extend(others.map(|to| Action::ChangeKey { to }));
        }
        if left.revocations > 0 {
            actions.push(Action::RevokeKey);
        }
        if left.wipes > 0 && world.object.status.is_some() {
            actions.push(Action::WipeStatus);
        }
        if left.rollbacks > 0 && world.attempt().is_some() && world.is_quiet() {
            actions.push(Action::RollBack);
        }
        if left.cancellations > 0 {
            actions.push(Action::Cancel);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        self.happen(&mut next, &action)?;
        next.controllers.sort_unstable();
        next.posts.sort_unstable();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("at most one paid job", |_, world: &World| world.paid_jobs() <= 1),
            Property::always("no request without its durable intent, none twice", |_, world: &World| {
                !world.broken
            }),
            Property::always("a recorded job exists", |_, world: &World| {
                world.attempt().is_none_or(|a| {
                    (a.state != State::Recorded)
                        || a.job.is_some_and(|job| usize::from(job) < world.jobs.len())
                })
            }),
            Property::always("from everywhere a way to the end", Self::finds_a_way_out),
        ]
    }
}

fn answered(world: &mut World, nonce: u8, end: End) {
    let waiter = world.controllers.iter_mut().find(|c| **c == Controller::Waiting { nonce });
    if let Some(waiter) = waiter {
        *waiter = Controller::Concluding { nonce, end };
    }
}
