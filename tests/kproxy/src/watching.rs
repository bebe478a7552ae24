//! Watches: passed on event by event, as the rules at that moment say.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, Stream, StreamExt};
use serde_json::{Value, json};

use crate::log::{Event, Logbook};
use crate::request::Target;
use crate::rules::{Fault, Rules, Stage};
use crate::status;

/// The end of a watch that is not orderly.
#[derive(Debug)]
pub(crate) struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the watch was cut")
    }
}

impl std::error::Error for Cut {}

struct Watch {
    target: Target,
    rules: Arc<Rules>,
    log: Arc<Logbook>,
    upstream: BoxStream<'static, reqwest::Result<Bytes>>,
    /// What has come of a line that is not whole.
    rest: BytesMut,
    has_ended: bool,
}

/// The events of `upstream`, each a line.
pub(crate) fn pass_on(
    target: Target,
    rules: Arc<Rules>,
    log: Arc<Logbook>,
    upstream: impl Stream<Item = reqwest::Result<Bytes>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Cut>> + Send {
    let upstream = upstream.boxed();
    let watch = Watch { target, rules, log, upstream, rest: BytesMut::new(), has_ended: false };
    futures::stream::unfold(watch, |mut watch| async {
        if watch.has_ended {
            return None;
        }
        let next = watch.next().await?;
        Some((next, watch))
    })
}

impl Watch {
    /// The next line that the client gets; `None` at an orderly end.
    async fn next(&mut self) -> Option<Result<Bytes, Cut>> {
        loop {
            let line = match self.line().await? {
                Ok(line) => line,
                Err(cut) => return Some(Err(cut)),
            };
            let event: Value = serde_json::from_slice(&line).unwrap_or_default();
            let mut about = self.about(&event);
            self.thawed(&about).await;
            // Bookmarks and errors are not what happened to an object.
            let happened = matches!(event["type"].as_str(), Some("ADDED" | "MODIFIED" | "DELETED"));
            let fault = if happened { self.rules.fault(&about, &line, Stage::Event) } else { None };
            let passed_on = !matches!(fault, Some(Fault::DropEvent | Fault::EndWatch));
            self.log.event(Event {
                resource: std::mem::take(&mut about.resource),
                type_: event["type"].as_str().unwrap_or_default().to_owned(),
                namespace: about.namespace,
                name: about.name,
                passed_on,
            });
            match fault {
                Some(Fault::DropEvent) => {}
                Some(Fault::EndWatch) => {
                    self.has_ended = true;
                    let gone = json!({"type": "ERROR", "object": status::body(410, None)});
                    return Some(Ok(Bytes::from(format!("{gone}\n"))));
                }
                _ => return Some(Ok(line)),
            }
        }
    }

    /// The watch, as a target whose name is that of the object in hand.
    fn about(&self, event: &Value) -> Target {
        let metadata = &event["object"]["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Target {
            name: text(&metadata["name"]),
            namespace: text(&metadata["namespace"]),
            ..self.target.clone()
        }
    }

    /// Returns when nothing holds this watch.
    async fn thawed(&mut self, about: &Target) {
        let mut changes = self.rules.changes();
        while self.rules.is_frozen(about) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// The next whole line, with its end.
    async fn line(&mut self) -> Option<Result<Bytes, Cut>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                return Some(Ok(self.rest.split_to(end + 1).freeze()));
            }
            match self.upstream.next().await {
                Some(Ok(more)) => self.rest.extend_from_slice(&more),
                Some(Err(_)) => return Some(Err(Cut)),
                None => return None,
            }
        }
    }
}
