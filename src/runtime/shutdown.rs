//! One token for the whole process: SIGTERM or SIGINT cancels it, every task watches it.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The shutdown of this process.
pub struct Shutdown {
    token: CancellationToken,
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    /// Takes over SIGTERM and SIGINT for good.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            token: CancellationToken::new(),
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// What tasks watch.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Cancels the token at the first signal and resolves at the second. Main races it with the work: whoever asks
    /// twice does not want to wait, and only main may end the process.
    pub async fn second_signal(mut self) {
        self.next().await;
        tracing::info!("shutting down; a second signal ends the process at once");
        self.token.cancel();
        self.next().await;
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
