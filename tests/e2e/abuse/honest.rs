//! Honest senders, and what they see.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use reqwest::Client;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::sender::{Line, Sender, sign, succeeded};
use crate::support::Bed;
use crate::support::ingress::WayIn;

/// Senders of each kind: on a connection that is kept, as an Ingress keeps it; each time on a new one; through the Ingress.
const EACH: usize = 4;
/// Each of them delivers this often.
const EVERY: Duration = Duration::from_millis(40);

/// How long each delivery took, and each that was not accepted.
#[derive(Default)]
pub struct Seen {
    pub times: Vec<Duration>,
    pub failed: Vec<String>,
}

impl Seen {
    pub fn percentile(&self, percent: usize) -> Duration {
        let last = self.times.len().saturating_sub(1);
        self.times.get((self.times.len() * percent / 100).min(last)).copied().unwrap_or(Duration::MAX)
    }

    fn sum(all: Vec<Self>) -> Self {
        let mut sum = Self::default();
        for seen in all {
            sum.times.extend(seen.times);
            sum.failed.extend(seen.failed);
        }
        sum.times.sort_unstable();
        sum
    }
}

/// The jobs that are told of: one more in each part of the time. Those of the past are told of again, which is worth no
/// write.
#[derive(Clone)]
pub struct Course {
    pub jobs: Vec<String>,
    pub lasts: Duration,
}

impl Course {
    fn event(&self, since: Duration, number: usize) -> String {
        let parts = u32::try_from(self.jobs.len()).unwrap();
        let due = (0..parts).zip(&self.jobs).filter(|(part, _)| since >= self.lasts / parts * *part);
        let known: Vec<&String> = due.map(|(_, job)| job).collect();
        succeeded(known[number % known.len()])
    }
}

/// How one delivery is made.
enum Way {
    Kept(SocketAddr, Option<Line>),
    Fresh(SocketAddr),
    Ingress(Client, String),
}

impl Way {
    async fn deliver(&mut self, sender: &Sender, id: &str, body: String) -> Result<u16, String> {
        let over = async |mut line: Line| {
            let status = line.exchange(&sender.delivery(id, &body)).await?;
            Ok::<_, io::Error>((status, line))
        };
        let open = async |target: SocketAddr| over(Line::open(target).await?).await;
        let outcome = match self {
            Self::Fresh(target) => open(*target).await.map(|(status, _)| status),
            Self::Kept(target, line) => {
                let outcome = match line.take() {
                    Some(kept) => over(kept).await,
                    None => open(*target).await,
                };
                outcome.map(|(status, kept)| {
                    *line = Some(kept);
                    status
                })
            }
            Self::Ingress(client, url) => {
                let timestamp = jiff::Timestamp::now().as_second();
                let request = client.post(&*url).header("webhook-id", id);
                let request = request.header("webhook-timestamp", timestamp);
                let request = request.header("webhook-signature", sign(&sender.secret, id, timestamp, &body));
                let answer = request.body(body).send().await;
                return answer.map(|answer| answer.status().as_u16()).map_err(|error| format!("{error:?}"));
            }
        };
        outcome.map_err(|error| error.to_string())
    }
}

/// Delivers as long as the course lasts.
async fn deliver(mut way: Way, sender: Sender, course: Course, name: String) -> Seen {
    let (mut seen, begin) = (Seen::default(), Instant::now());
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while begin.elapsed() < course.lasts {
        tick.tick().await;
        let number = seen.times.len() + seen.failed.len();
        let event = course.event(begin.elapsed(), number);
        let (id, sent) = (format!("{name}-{number}"), Instant::now());
        match way.deliver(&sender, &id, event).await {
            Ok(204) => seen.times.push(sent.elapsed()),
            Ok(status) => seen.failed.push(format!("{id}: {status} after {:?}", sent.elapsed())),
            Err(error) => seen.failed.push(format!("{id}: {error} after {:?}", sent.elapsed())),
        }
    }
    seen
}

/// All honest senders: what those saw who came to the receiver itself, and those who came through the Ingress.
pub async fn all(
    target: SocketAddr,
    through: Option<(&Bed, &WayIn)>,
    sender: &Sender,
    course: &Course,
    who: &str,
) -> [Seen; 2] {
    let [mut beside, mut by_ingress] = [JoinSet::new(), JoinSet::new()];
    for number in 0..EACH {
        for (kind, way) in [("kept", Way::Kept(target, None)), ("fresh", Way::Fresh(target))] {
            let name = format!("{kind}-{who}-{number}");
            beside.spawn(deliver(way, sender.clone(), course.clone(), name));
        }
        if let Some((bed, way)) = through {
            let way = Way::Ingress(way.client(bed), way.url(&sender.path));
            let name = format!("ingress-{who}-{number}");
            by_ingress.spawn(deliver(way, sender.clone(), course.clone(), name));
        }
    }
    let (beside, by_ingress) = tokio::join!(beside.join_all(), by_ingress.join_all());
    [Seen::sum(beside), Seen::sum(by_ingress)]
}
