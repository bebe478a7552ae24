//! Deliveries at a steady rate while something happens to the operator, and an account of every one of them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, TryFutureExt};
use gemini_operator::api::{GeminiBatch, condition::batch_type};
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use crate::installation::TIMING_DIVISOR;
use crate::objects::tickets;
use crate::stay::Stay;
use crate::support::cluster::from_json;
use crate::support::{PATIENCE, batch_condition, poll};
use gemini_operator_checker::Bounds;

/// Deliveries a second.
pub const RATE: usize = 50;

/// Before the second, third, … attempt, as the emulator has it for its own events. Then a delivery is lost.
const PAUSES: [u64; 5] = [1, 2, 5, 10, 30];

/// Batches whose jobs end when all is over, so that there is always somebody to be told of.
const CARRIERS: usize = 3;

const ROWS: usize = 1;

/// How much there is to do.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Batches whose jobs end during the load, one after the other.
    pub batches: usize,
    /// At least so many deliveries.
    pub deliveries: usize,
}

impl Size {
    /// Small, or for a machine that has nothing else to do.
    pub fn chosen() -> Self {
        match std::env::var("NODE_LOAD").as_deref() {
            Err(_) | Ok("") => Self { batches: 20, deliveries: 10 * RATE },
            Ok("full") => Self { batches: 200, deliveries: 60 * RATE },
            Ok(other) => panic!("NODE_LOAD is {other:?}: it may be full, or nothing"),
        }
    }

    /// The emulator's plan for it: these jobs end when they are told to, later ones by themselves.
    pub fn faults(self) -> Value {
        let held: Vec<usize> = (1..=CARRIERS + self.batches).collect();
        json!({"jobs": [{"match": {"nth": held}, "do": {"hold": "running"}}]})
    }
}

/// A steady stream of deliveries that the emulator makes and signs as its own, and beside it the events of its jobs.
pub struct Load<'a> {
    stay: &'a Stay,
    size: Size,
    /// The webhook's id at the emulator.
    webhook: String,
    /// Jobs that the stream tells of.
    carriers: Vec<String>,
    /// Jobs that are to end.
    held: RefCell<VecDeque<String>>,
    sent: Cell<usize>,
    accepted: Cell<usize>,
    made: Cell<usize>,
    /// Attempts that came to nothing: the delivery, the attempt, and what was answered.
    failed: RefCell<Vec<(usize, usize, String)>>,
    lost: RefCell<Vec<usize>>,
}

impl<'a> Load<'a> {
    /// Makes the batches, and waits until only an event can tell of the end of their jobs. The stay has the size's plan.
    pub async fn prepare(stay: &'a Stay, size: Size) -> Self {
        let webhook = stay.make_webhook().await;
        let names = (0..CARRIERS).map(carrier).chain((0..size.batches).map(|n| format!("held-{n}")));
        let items: Vec<Value> = names.map(|name| batch(&name)).collect();
        stay.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).await;
        let looked_at = poll(PATIENCE, async || {
            let batches = batches(stay).await;
            let jobs = batches.iter().filter_map(|batch| Some((batch.name_any(), looked_at_job(batch)?)));
            let jobs: BTreeMap<String, String> = jobs.collect();
            if jobs.len() == items.len() { Ok(jobs) } else { Err(jobs.len()) }
        });
        let mut jobs = looked_at.await.unwrap_or_else(|count| {
            panic!("{count} of {} batches have a job that was looked at\n{}", items.len(), stay.log_tails())
        });
        let carriers = (0..CARRIERS).filter_map(|number| jobs.remove(&carrier(number))).collect();
        Self {
            stay,
            size,
            webhook: webhook.status.and_then(|status| status.id).expect("it is registered"),
            carriers,
            held: RefCell::new(jobs.into_values().collect()),
            sent: Cell::default(),
            accepted: Cell::default(),
            made: Cell::default(),
            failed: RefCell::default(),
            lost: RefCell::default(),
        }
    }

    /// Delivers while this happens, and until there was enough: returns when the last delivery has been accepted, or is
    /// lost. `new_batches`: one more each second, whose job ends by itself.
    pub async fn during<T>(&self, new_batches: bool, happens: impl Future<Output = T>) -> T {
        let begin = Instant::now();
        // A tick that comes late is made up for: the rate holds on a busy machine too.
        let mut tick = interval(Duration::from_secs(1) / u32::try_from(RATE).unwrap_or(u32::MAX));
        let mut open: FuturesUnordered<LocalBoxFuture<'_, ()>> = FuturesUnordered::new();
        let mut happens = pin!(happens);
        let mut result = None;
        // The first half of the time that there is at least.
        let every = (self.size.deliveries / 2 / self.size.batches).max(1);
        let mut ticks = begin.elapsed();
        loop {
            let more =
                result.is_none() || self.sent.get() < self.size.deliveries || !self.held.borrow().is_empty();
            if !more && open.is_empty() {
                break;
            }
            tokio::select! {
                _ = tick.tick(), if more => {
                    let number = self.sent.get();
                    self.sent.set(number + 1);
                    ticks = begin.elapsed();
                    open.push(self.deliver(number).boxed_local());
                    if number.is_multiple_of(every) && let Some(job) = self.held.borrow_mut().pop_front() {
                        open.push(async move { self.stay.emulator.release_job(&job).await }.boxed_local());
                    }
                    if new_batches && result.is_none() && number.is_multiple_of(RATE) {
                        open.push(self.make().boxed_local());
                    }
                }
                Some(()) = open.next(), if !open.is_empty() => {}
                value = &mut happens, if result.is_none() => result = Some(value),
            }
        }
        println!(
            "{} deliveries in {ticks:.1?}, {} batches made meanwhile, {} attempts failed: {:?}",
            self.sent.get(),
            self.made.get(),
            self.failed.borrow().len(),
            self.failures(),
        );
        result.expect("the loop ends after it")
    }

    /// Returns when so many more deliveries were accepted.
    pub async fn goes_on(&self, deliveries: usize) {
        let wanted = self.accepted.get() + deliveries;
        let seen = poll(PATIENCE, async || if self.accepted.get() >= wanted { Ok(()) } else { Err(()) });
        let went_on = seen.await.is_ok();
        assert!(
            went_on,
            "{} deliveries accepted, not {wanted}; {:?}\n{}",
            self.accepted.get(),
            self.failures(),
            self.stay.log_tails()
        );
    }

    /// What failed attempts were answered, and how often.
    pub fn failures(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (_, _, answer) in self.failed.borrow().iter() {
            *counts.entry(answer.clone()).or_default() += 1;
        }
        counts
    }

    async fn deliver(&self, number: usize) {
        let id = format!("msg_load-{number}");
        let job = &self.carriers[number % self.carriers.len()];
        let event = json!({"type": "batch.succeeded", "version": "v1", "data": {"id": job}});
        for (attempt, pause) in PAUSES.into_iter().map(Some).chain([None]).enumerate() {
            let problem = match self.stay.emulator.deliver(&self.webhook, &id, &event).await {
                Ok(200..=299) => return self.accepted.set(self.accepted.get() + 1),
                Ok(status) => status.to_string(),
                Err(problem) => problem,
            };
            self.failed.borrow_mut().push((number, attempt + 1, problem));
            if let Some(pause) = pause {
                tokio::time::sleep(Duration::from_secs(pause)).await;
            }
        }
        self.lost.borrow_mut().push(number);
    }

    /// As somebody who does not care that the operator is being upgraded.
    async fn make(&self) {
        let number = self.made.get();
        self.made.set(number + 1);
        let batch: GeminiBatch = from_json(batch(&format!("new-{number}")));
        let made = self.stay.batches().create(&PostParams::default(), &batch).map_ok(drop).await;
        made.expect("a batch can be made");
    }

    /// All is over: everything was delivered, every batch is complete, by an event where nothing else could tell, and
    /// paid for once.
    pub async fn assert_nothing_lost(&self) {
        let Self { stay, size, .. } = self;
        assert_eq!(*self.lost.borrow(), [0; 0], "deliveries that no receiver took: {:?}", self.failures());
        assert_eq!(self.accepted.get(), self.sent.get());
        assert!(self.sent.get() >= size.deliveries, "{} deliveries", self.sent.get());
        stay.emulator.release_jobs().await;

        let all = CARRIERS + size.batches + self.made.get();
        let finished = poll(PATIENCE, async || {
            let (done, open): (Vec<_>, Vec<_>) =
                batches(stay).await.into_iter().partition(GeminiBatch::is_finished);
            if done.len() == all { Ok(done) } else { Err(open) }
        });
        let finished = finished.await.unwrap_or_else(|open| {
            panic!("not finished, of {all}: {open:#?}\n{}", stay.log_tails());
        });
        // Where the sweep was before the event, that may still be on its way.
        let taken = poll(PATIENCE, async || match stay.ledger().await.delivered("batch.succeeded") {
            times if times == all => Ok(()),
            times => Err(times),
        });
        if let Err(times) = taken.await {
            let deliveries = &stay.ledger().await.0["deliveries"];
            panic!("{times} events of {all} jobs were taken: {deliveries:#}\n{}", stay.log_tails());
        }
        let told = batches(stay).await;
        for batch in finished {
            let name = batch.name_any();
            let complete = batch_condition(&batch, batch_type::COMPLETE).is_some_and(|c| c.status == "True");
            assert!(complete, "{batch:#?}");
            let told = told.iter().find(|batch| batch.name_any() == name).and_then(|b| b.status.as_ref());
            // A new one may be looked at for the first time when its job has ended.
            let by_event = told.is_some_and(|status| status.last_event.is_some());
            assert!(by_event || name.starts_with("new-"), "{name}: no event was stored\n{batch:#?}");
        }
        let ledger = stay.ledger().await;
        assert_eq!((ledger.jobs().len(), ledger.rows_paid()), (all, (all * ROWS) as u64));
        stay.assert_holds(&Bounds::divided(TIMING_DIVISOR)).await;
    }
}

fn carrier(number: usize) -> String {
    format!("carrier-{number}")
}

fn batch(name: &str) -> Value {
    serde_json::from_str(&tickets(name, ROWS, "Auto")).expect("an object is JSON")
}

/// The batch's job, when it was looked at after it had been recorded.
fn looked_at_job(batch: &GeminiBatch) -> Option<String> {
    let run = batch.status.as_ref()?.runs.last()?;
    run.state.as_ref().and(run.remote_name.clone())
}

async fn batches(stay: &Stay) -> Vec<GeminiBatch> {
    stay.batches().list(&ListParams::default()).await.expect("batches can be listed").items
}
