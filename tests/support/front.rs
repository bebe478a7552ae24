//! What stands before the receivers, as an Ingress does: an address that stays while they come and go.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Passes connections on to the present receivers in turn; while there is none, closes them.
pub struct Front {
    address: SocketAddr,
    targets: Arc<Mutex<VecDeque<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Front {
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let targets = Arc::default();
        let task = tokio::spawn(serve(listener, Arc::clone(&targets)));
        Self { address, targets, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on connections go there, each to the next one that takes it, or nowhere.
    pub fn lead_to(&self, targets: impl IntoIterator<Item = SocketAddr>) {
        *self.targets.lock().expect("nobody panics with this lock") = targets.into_iter().collect();
    }
}

async fn serve(listener: TcpListener, targets: Arc<Mutex<VecDeque<SocketAddr>>>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let present = {
            let mut targets = targets.lock().expect("nobody panics with this lock");
            if !targets.is_empty() {
                targets.rotate_left(1);
            }
            targets.clone()
        };
        tokio::spawn(async move {
            for target in present {
                if let Ok(mut server) = TcpStream::connect(target).await {
                    // Ends with either side; what went wrong is seen there.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
            }
        });
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}
