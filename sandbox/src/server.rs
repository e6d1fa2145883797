//! The running sandbox: ports, the path of a request through faults and service, and the handle that tests hold.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State as Extract};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::control;
use crate::faults::{Effect, Fault, apply};
use crate::journal::{Call, Service};
use crate::request::{Answer, Incoming};
use crate::state::{Shared, State, TimedOut, View};
use crate::wire::{CuttableListener, Wire};
use crate::world::World;

/// The largest request body that is read, in bytes.
const BODY_LIMIT: usize = 4 * 1024 * 1024;

/// The ports to bind on 127.0.0.1; 0 lets the system choose.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ports {
    /// PagerDuty.
    pub pagerduty: u16,
    /// Opsgenie.
    pub opsgenie: u16,
    /// AWS, `sso-admin` and `identitystore` alike.
    pub aws: u16,
    /// Control: journal, faults, world and clock as JSON.
    pub control: u16,
}

/// The running simulated services. Dropping it closes the ports.
pub struct Sandbox {
    shared: Arc<Shared>,
    pagerduty: SocketAddr,
    opsgenie: SocketAddr,
    aws: SocketAddr,
    control: SocketAddr,
    // Receivers in the servers see the sender go, which is their signal to stop.
    _stop: watch::Sender<()>,
}

impl Sandbox {
    /// Starts all services on ports that the system chooses.
    ///
    /// # Errors
    /// A port that cannot be bound.
    pub async fn start(world: World) -> io::Result<Self> {
        Self::start_on(world, Ports::default()).await
    }

    /// Starts all services on the given ports.
    ///
    /// # Errors
    /// A port that cannot be bound.
    pub async fn start_on(world: World, ports: Ports) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(world));
        let (stop, stopped) = watch::channel(());
        let mut addresses = Vec::new();
        for (service, port) in [
            (Service::PagerDuty, ports.pagerduty),
            (Service::Opsgenie, ports.opsgenie),
            (Service::Aws, ports.aws),
        ] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
            addresses.push(listener.local_addr()?);
            let port = Port {
                service,
                shared: Arc::clone(&shared),
            };
            let app = Router::new().fallback(serve).with_state(port);
            let mut stopped = stopped.clone();
            tokio::spawn(async move {
                axum::serve(
                    CuttableListener(listener),
                    app.into_make_service_with_connect_info::<Wire>(),
                )
                .with_graceful_shutdown(async move { while stopped.changed().await.is_ok() {} })
                .await
            });
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports.control)).await?;
        let control = listener.local_addr()?;
        let app = control::router(Arc::clone(&shared));
        let mut stopped = stopped.clone();
        tokio::spawn(async move {
            axum::serve(listener, app)
                .with_graceful_shutdown(async move { while stopped.changed().await.is_ok() {} })
                .await
        });
        Ok(Self {
            shared,
            pagerduty: addresses[0],
            opsgenie: addresses[1],
            aws: addresses[2],
            control,
            _stop: stop,
        })
    }

    /// The base URL of PagerDuty, without a slash at the end; `POST /oauth/token` is served there too.
    pub fn pagerduty_url(&self) -> String {
        format!("http://{}", self.pagerduty)
    }

    /// The base URL of Opsgenie, without a slash at the end.
    pub fn opsgenie_url(&self) -> String {
        format!("http://{}", self.opsgenie)
    }

    /// The endpoint of both AWS services, without a slash at the end.
    pub fn aws_url(&self) -> String {
        format!("http://{}", self.aws)
    }

    /// The base URL of the control port, without a slash at the end.
    pub fn control_url(&self) -> String {
        format!("http://{}", self.control)
    }

    /// Changes the world and gives back what `edit` returns. It must not call the sandbox again: the lock is held.
    pub fn edit<R>(&self, edit: impl FnOnce(&mut World) -> R) -> R {
        self.shared.change(|state| {
            let now = state.now();
            state.world.aws.settle(now);
            edit(&mut state.world)
        })
    }

    /// Every call so far, in the order of arrival.
    pub fn journal(&self) -> Vec<Call> {
        self.shared.look(|state| state.journal.clone())
    }

    /// Forgets all calls.
    pub fn clear_journal(&self) {
        self.shared.change(|state| state.journal.clear());
    }

    /// Scripts a fault. Of several that meet the same call the oldest wins, while each counts the call.
    pub fn fault(&self, fault: Fault) {
        self.shared.change(|state| {
            let id = state.next();
            state.faults.push((id, fault));
        });
    }

    /// The scripted faults with their counts, so that a test can prove that its fault was met.
    pub fn faults(&self) -> Vec<Fault> {
        self.shared
            .look(|state| state.faults.iter().map(|(_, fault)| fault.clone()).collect())
    }

    /// Removes all faults and lets held calls go on.
    pub fn clear_faults(&self) {
        self.shared.change(|state| state.faults.clear());
    }

    /// Freezes the simulator's clock at an instant; `None` lets it follow the wall clock again. Under a frozen clock an
    /// assignment operation that takes time stays in progress until the clock is moved. Rate limits use real time.
    pub fn set_now(&self, now: Option<Timestamp>) {
        self.shared.change(|state| state.clock = now);
    }

    /// The simulator's clock.
    pub fn now(&self) -> Timestamp {
        self.shared.look(|state| state.now())
    }

    /// Waits until the predicate holds over world and journal. It runs on every change and never in between.
    ///
    /// # Errors
    /// [`TimedOut`] when it did not hold in time.
    pub async fn wait_for(
        &self,
        mut predicate: impl FnMut(View<'_>) -> bool,
        timeout: Duration,
    ) -> Result<(), TimedOut> {
        let holds = self.shared.until(|state| {
            let view = View {
                world: &state.world,
                journal: &state.journal,
                now: state.now(),
            };
            predicate(view).then_some(())
        });
        tokio::time::timeout(timeout, holds)
            .await
            .map_err(|_elapsed| TimedOut { after: timeout })
    }
}

#[derive(Clone)]
struct Port {
    service: Service,
    shared: Arc<Shared>,
}

async fn serve(Extract(port): Extract<Port>, ConnectInfo(wire): ConnectInfo<Wire>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let request = Incoming::new(port.service, &parts, body.into());
    let (seq, fault) = port.shared.change(|state| state.arrive(&request));
    let released = async |id: u64| {
        let held = |state: &State| state.faults.iter().any(|(other, _)| *other == id);
        port.shared.until(|state| (!held(state)).then_some(())).await;
    };
    if let Some((id, fault)) = &fault {
        if fault.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
        }
        if fault.hold {
            released(*id).await;
        }
    }
    let effect = fault.as_ref().map_or(Effect::Pass, |(_, fault)| fault.effect.clone());
    let (answer, performed, now) = port.shared.change(|state| {
        let (answer, performed) = apply(&effect, &wire, || state.perform(&request));
        state.mark(seq, performed);
        (answer, performed, state.now())
    });
    if let Some((id, _)) = fault.filter(|(_, fault)| fault.hold_reply && performed) {
        released(id).await;
    }
    let answer = answer.map(Answer::rendered);
    port.shared.change(|state| state.leave(seq, answer.as_ref()));
    // A cut connection still needs something to hand to hyper, whose attempt to write it then fails.
    let answer = answer.unwrap_or_else(|| Answer::bytes(200, "", Vec::new()));
    into_response(answer, now)
}

fn into_response(answer: Answer, now: Timestamp) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = answer.headers.clone();
    let content_type = answer.content_type.clone();
    let mut response = Response::new(Body::from(answer.into_bytes()));
    *response.status_mut() = status;
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now);
    let all = [("content-type".to_owned(), content_type)]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .chain(headers);
    for (name, value) in all {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
            response.headers_mut().insert(name, value);
        }
    }
    if let Some(value) = date.ok().and_then(|date| HeaderValue::from_str(&date).ok()) {
        response.headers_mut().entry(header::DATE).or_insert(value);
    }
    response
}
