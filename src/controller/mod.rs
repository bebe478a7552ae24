//! What both kinds share: context, errors, credentials, the status writer, Events. And the process that runs both.

mod context;
mod credentials;
mod error;
mod finalizer;
mod gate;
mod guard;
mod identity;
mod listings;
pub mod malformed;
mod metrics;
mod next;
mod notes;
pub mod orphans;
pub mod points;
mod report;
mod rescues;
mod run;
mod status;
mod turns;
mod unreadable;
mod wakes;

pub use context::{Context, Memories};
pub use credentials::{Credentials, Found, KeyCache};
pub use error::{Error, cas, is_forbidden, is_not_found};
pub use finalizer::{claim, is_claimed, release};
pub use gate::Gates;
pub use guard::{Bounded, bounded, guarded};
pub use listings::{Listing, Listings};
pub use metrics::{Metrics, OutcomeLabels};
pub use next::{Next, after, until};
pub use notes::{Note, notes};
pub use report::publish;
pub use rescues::Rescues;
pub use run::{RunError, Settings, gemini, run};
pub use status::{is_kept, replace};
pub use unreadable::{Guarded, Unreadable};
