//! The control port: journal, faults, world and clock as JSON, for other processes.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::faults::Fault;
use crate::journal::Call;
use crate::state::Shared;
use crate::world::World;

#[derive(Serialize, Deserialize)]
struct Now {
    now: Option<Timestamp>,
}

/// One fault or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Faults {
    Many(Vec<Fault>),
    One(Box<Fault>),
}

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/journal", get(journal).delete(clear_journal))
        .route("/faults", get(faults).post(add_faults).delete(clear_faults))
        .route("/world", get(world).put(put_world))
        .route("/now", get(now).post(set_now))
        .with_state(shared)
}

async fn journal(State(shared): State<Arc<Shared>>) -> Json<Vec<Call>> {
    Json(shared.look(|state| state.journal.clone()))
}

async fn clear_journal(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.change(|state| state.journal.clear());
    StatusCode::NO_CONTENT
}

async fn faults(State(shared): State<Arc<Shared>>) -> Json<Vec<Fault>> {
    Json(shared.look(|state| state.faults.iter().map(|(_, fault)| fault.clone()).collect()))
}

async fn add_faults(State(shared): State<Arc<Shared>>, Json(faults): Json<Faults>) -> StatusCode {
    let faults = match faults {
        Faults::Many(faults) => faults,
        Faults::One(fault) => vec![*fault],
    };
    shared.change(|state| {
        for fault in faults {
            let id = state.next();
            state.faults.push((id, fault));
        }
    });
    StatusCode::NO_CONTENT
}

async fn clear_faults(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.change(|state| state.faults.clear());
    StatusCode::NO_CONTENT
}

async fn world(State(shared): State<Arc<Shared>>) -> Json<World> {
    Json(shared.change(|state| {
        let now = state.now();
        state.world.aws.settle(now);
        state.world.clone()
    }))
}

async fn put_world(State(shared): State<Arc<Shared>>, Json(world): Json<World>) -> StatusCode {
    shared.change(|state| state.world = world);
    StatusCode::NO_CONTENT
}

async fn now(State(shared): State<Arc<Shared>>) -> Json<Now> {
    Json(Now {
        now: Some(shared.look(|state| state.now())),
    })
}

async fn set_now(State(shared): State<Arc<Shared>>, Json(Now { now }): Json<Now>) -> StatusCode {
    shared.change(|state| state.clock = now);
    StatusCode::NO_CONTENT
}
