//! What stands before the receiver, as an Ingress does: an address that stays while receivers come and go.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Passes connections on to the present receiver; while there is none, closes them.
pub struct Front {
    address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Front {
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let target = Arc::new(Mutex::new(None));
        let task = tokio::spawn(serve(listener, Arc::clone(&target)));
        Self { address, target, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on connections go there, or nowhere.
    pub fn lead_to(&self, target: Option<SocketAddr>) {
        *self.target.lock().expect("nobody panics with this lock") = target;
    }
}

async fn serve(listener: TcpListener, target: Arc<Mutex<Option<SocketAddr>>>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let Some(target) = *target.lock().expect("nobody panics with this lock") else { continue };
        tokio::spawn(async move {
            if let Ok(mut server) = TcpStream::connect(target).await {
                // Ends with either side; what went wrong is seen there.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}
