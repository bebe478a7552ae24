//! Senders beside the API: programs of somebody's own that tell an endpoint of ended jobs in the words of a widely read
//! tutorial. The real API sends nothing of the kind, and no call of it knows of them.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::parse;
use crate::deliveries::Event;
use crate::state::App;

pub struct Beside {
    pub project: String,
    pub url: String,
    pub secret: String,
}

impl std::fmt::Debug for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Beside")
            .field("project", &self.project)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
enum Scheme {
    XGoogSignature,
}

pub fn add(app: &App, body: &[u8]) -> Result<Value, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wish {
        project: String,
        url: String,
        scheme: Scheme,
        secret: String,
    }
    let Wish { project, url, scheme: Scheme::XGoogSignature, secret } = parse(body)?;
    let mut state = app.state();
    let id = state.fresh(app.settings.seed, "sender", 12);
    state.senders.insert(id.clone(), Beside { project, url, secret });
    Ok(json!({ "id": id }))
}

/// Also for what is under way: the next attempt goes there, and is signed by that.
pub fn change(app: &App, id: &str, body: &[u8]) -> Result<Value, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wish {
        #[serde(default)]
        url: Option<String>,
        #[serde(default)]
        secret: Option<String>,
    }
    let wish: Wish = parse(body)?;
    let mut state = app.state();
    let sender = state.senders.get_mut(id).ok_or_else(|| format!("no sender {id}"))?;
    if let Some(url) = wish.url {
        sender.url = url;
    }
    if let Some(secret) = wish.secret {
        sender.secret = secret;
    }
    Ok(json!({ "id": id }))
}

pub fn remove(app: &App, id: &str) -> Result<Value, String> {
    app.state().senders.remove(id).map(|_| json!({})).ok_or_else(|| format!("no sender {id}"))
}

/// What the senders of a project make of an event, wherever Gemini itself may tell of it. The tutorial knows two, and
/// neither is an expiry.
pub fn tell(app: &App, project: &str, event: &Event) -> Vec<(String, Event)> {
    let event_type = match event.event_type.as_str() {
        "batch.succeeded" => "batch.completed",
        "batch.failed" => "batch.failed",
        _ => return Vec::new(),
    };
    let told = Event {
        event_type: event_type.into(),
        batch: event.batch.clone(),
        body: json!({"eventType": event_type, "operation": event.batch}).to_string(),
        dynamic: None,
    };
    let state = app.state();
    let senders = state.senders.iter().filter(|(_, sender)| sender.project == project);
    senders.map(|(id, _)| (id.clone(), told.clone())).collect()
}
