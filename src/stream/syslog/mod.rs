//! Sends to receivers of syslog.
//!
//! Over TCP a batch is one connection: once all is written, our side is closed, and the receiver's closing in turn says
//! that it read everything. A datagram is confirmed by nobody; handing it to the network or to the local daemon has to
//! do.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, lookup_host};
use tokio::time::timeout;

use super::batch::Batch;
use super::sink::{Refusal, Sink};
use crate::config::SyslogAddress;

mod message;

pub(super) use message::Header;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a whole batch.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// So many datagrams are sent at once, and then a breath is taken, so that a receiver's buffer need not hold all.
const BURST: usize = 32;
const BREATH: Duration = Duration::from_millis(5);
/// How long a host may take to refuse what came too late.
const LINGER: Duration = Duration::from_millis(50);

pub(super) struct Syslog(pub(super) SyslogAddress);

#[async_trait]
impl Sink for Syslog {
    async fn send(&mut self, batch: &Batch) -> Result<(), Refusal> {
        let (place, sent) = match &self.0 {
            SyslogAddress::Tcp(to) => (to.clone(), timeout(SEND_TIMEOUT, tcp(to, batch)).await),
            SyslogAddress::Udp(to) => (to.clone(), timeout(SEND_TIMEOUT, udp(to, batch)).await),
            SyslogAddress::Unix(to) => (to.display().to_string(), timeout(SEND_TIMEOUT, unix(to, batch)).await),
        };
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Refusal::soon(format!("cannot send to {place}: {error}"))),
            Err(_) => Err(Refusal::soon(format!(
                "{place} did not take all within {} s",
                SEND_TIMEOUT.as_secs()
            ))),
        }
    }
}

async fn tcp(to: &str, batch: &Batch) -> io::Result<()> {
    let began = Instant::now();
    let mut stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(to)).await??;
    let round_trip = began.elapsed();
    let mut bytes = Vec::with_capacity(batch.size());
    for line in &batch.lines {
        // Octet counting, RFC 6587, section 3.4.1.
        bytes.extend_from_slice(format!("{} ", line.text.len()).as_bytes());
        bytes.extend_from_slice(line.text.as_bytes());
    }
    stream.write_all(&bytes).await?;
    stream.shutdown().await?;
    // Nobody answers syslog: what comes here is the end.
    let mut ignored = [0; 512];
    while 0 < stream.read(&mut ignored).await? {}
    // Where the receiver closed before all of it had arrived, its host says so a round trip after the last byte.
    tokio::time::sleep(LINGER + round_trip * 2).await;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

async fn udp(to: &str, batch: &Batch) -> io::Result<()> {
    let addresses: Vec<_> = lookup_host(to).await?.collect();
    let first = addresses.first().ok_or(io::ErrorKind::NotFound)?;
    let any = if first.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(first).await?;
    for (number, line) in batch.lines.iter().enumerate() {
        breathe(number).await;
        socket.send(line.text.as_bytes()).await?;
    }
    // The host may have said by now that nobody listens.
    match socket.take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

async fn unix(to: &Path, batch: &Batch) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(to)?;
    for line in &batch.lines {
        // Waits where the receiver's queue is full.
        socket.send(line.text.as_bytes()).await?;
    }
    Ok(())
}

async fn breathe(number: usize) {
    if number % BURST == BURST - 1 {
        tokio::time::sleep(BREATH).await;
    }
}
