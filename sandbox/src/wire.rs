//! Connections that can be cut in the middle of an answer, as a failing network does.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Where to stop writing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Cut {
    #[default]
    Never,
    /// After the head of the answer and this many bytes of its body.
    InBody(usize),
    Now,
}

/// The handle by which a handler cuts the connection it answers on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire(Arc<Mutex<Cut>>);

impl Wire {
    /// Nothing of the answer reaches the caller.
    pub(crate) fn cut(&self) {
        self.set(Cut::Now);
    }

    /// The head and `bytes` of the body reach the caller.
    pub(crate) fn cut_in_body(&self, bytes: usize) {
        self.set(Cut::InBody(bytes));
    }

    fn set(&self, cut: Cut) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = cut;
    }

    fn get(&self) -> Cut {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for Wire {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        stream.io().wire.clone()
    }
}

/// Accepts [`CuttableStream`]s.
pub(crate) struct CuttableListener(pub(crate) TcpListener);

impl Listener for CuttableListener {
    type Io = CuttableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (tcp, address) = Listener::accept(&mut self.0).await;
        // Without it a small answer waits for an acknowledgement; failing to set it costs only time.
        let _nodelay = tcp.set_nodelay(true);
        (
            CuttableStream {
                tcp,
                wire: Wire::default(),
            },
            address,
        )
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A TCP stream that obeys its [`Wire`].
pub(crate) struct CuttableStream {
    tcp: TcpStream,
    wire: Wire,
}

fn broken() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionReset)
}

impl AsyncRead for CuttableStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.wire.get() == Cut::Now {
            return Poll::Ready(Err(broken()));
        }
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.wire.get() {
            Cut::Never => Pin::new(&mut self.tcp).poll_write(cx, buf),
            Cut::Now => Poll::Ready(Err(broken())),
            Cut::InBody(bytes) => {
                // Vectored writes are off, so hyper hands over the head in one piece.
                let head = buf
                    .windows(4)
                    .position(|window| window == b"\r\n\r\n")
                    .map_or(0, |at| at + 4);
                let allowed = (head + bytes).min(buf.len());
                let written = Pin::new(&mut self.tcp).poll_write(cx, &buf[..allowed]);
                if let Poll::Ready(Ok(count)) = written {
                    let body = count.saturating_sub(head);
                    let left = bytes.saturating_sub(body);
                    self.wire.set(if left == 0 { Cut::Now } else { Cut::InBody(left) });
                }
                written
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
