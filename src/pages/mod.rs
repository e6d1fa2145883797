//! The status page and the pages of projects and people: what stands, what comes, what to look at. They read the record
//! and ask nobody.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use crate::chain;
use crate::clock::Clock;
use crate::commands::forecast::About;
use crate::http::Site;
use crate::ledger::LedgerError;
use crate::model::{Person, ProjectName};
use crate::text::clean;

mod about;
pub(crate) mod columns;
pub(crate) mod filters;
mod fresh;
mod hours;
mod now;
mod overview;
mod rows;
mod shelf;
mod words;

use fresh::{Fresh, Work};
use hours::{FourWeeks, Past};
use now::Now;
use shelf::Shelf;

/// How long what stands now is shown before it is read again, however many ask.
const NOW_LASTS: SignedDuration = SignedDuration::from_secs(2);
/// The same for access hours, which are costly to add up.
const HOURS_LAST: SignedDuration = SignedDuration::from_secs(60);
/// How long a page waits for what stands now where nothing older can be shown.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same where something older can be shown instead, with from when it is.
const PATIENCE_FOR_NEWER: Duration = Duration::from_secs(2);
/// Nothing older than this is shown in place of what stands now.
const OLDEST: SignedDuration = SignedDuration::from_mins(15);
/// How long a page waits for access hours; then it shows older ones, or none.
const PATIENCE_FOR_HOURS: Duration = Duration::from_secs(2);

/// What the pages are made from.
struct Pages {
    site: Arc<Site>,
    now: Shelf<Option<About>, Now>,
    hours: Arc<Fresh<FourWeeks>>,
    past: Mutex<Past>,
    /// What stands now is read for one page after the other, so that many pages take no more at once than one.
    turn: Mutex<()>,
}

/// The pages with their style, script and icon. Unknown paths get a page that says so.
pub(crate) fn router(site: Arc<Site>) -> Router {
    let pages = Arc::new(Pages {
        site,
        now: Shelf::of_what_lasts(NOW_LASTS),
        hours: Arc::new(Fresh::for_as_long_as(HOURS_LAST)),
        past: Mutex::default(),
        turn: Mutex::default(),
    });
    Router::new()
        .route("/", get(status))
        .route("/project/{name}", get(project))
        .route("/person/{email}", get(person))
        .route(
            "/style.css",
            get(|| asset("text/css; charset=utf-8", include_str!("style.css"))),
        )
        .route(
            "/app.js",
            get(|| asset("text/javascript; charset=utf-8", include_str!("app.js"))),
        )
        .route("/icon.svg", get(|| asset("image/svg+xml", include_str!("icon.svg"))))
        .fallback(|| async {
            missing("There is no such page: there are the status page, /metrics, /healthz and /readyz")
        })
        .with_state(pages)
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}

async fn status(State(pages): State<Arc<Pages>>) -> Response {
    let now = match pages.now(None).await {
        Ok(now) => now,
        Err(unreadable) => return unreadable,
    };
    let hours = pages.hours().await;
    drawn(move || page(&overview::overview(now, hours.as_deref()))).await
}

async fn project(State(pages): State<Arc<Pages>>, Path(name): Path<String>) -> Response {
    let unknown = "There is no such project in the policy in force";
    let project = ProjectName(name.as_str().into());
    if !pages.site.in_use.borrow().policy.projects.contains_key(&project) {
        return missing(unknown);
    }
    let now = match pages.now(Some(About::Project(name))).await {
        Ok(now) => now,
        Err(unreadable) => return unreadable,
    };
    let hours = pages.hours().await;
    drawn(move || match about::project(now, hours.as_deref(), &project) {
        Some(view) => page(&view),
        None => missing(unknown),
    })
    .await
}

async fn person(State(pages): State<Arc<Pages>>, Path(email): Path<String>) -> Response {
    let unknown =
        "Nobody of this address is in the policy, on a schedule ahead, or in the record of the last four weeks";
    let Ok(person) = Person::parse(&email) else {
        return missing(unknown);
    };
    let now = match pages.now(Some(About::Person(person.clone()))).await {
        Ok(now) => now,
        Err(unreadable) => return unreadable,
    };
    let hours = pages.hours_of(&person).await;
    drawn(move || match about::person(now, hours.as_ref(), &person) {
        Some(view) => page(&view),
        None => missing(unknown),
    })
    .await
}

/// Draws away from the daemon's work: of a large organisation a page takes a while.
async fn drawn(draw: impl FnOnce() -> Response + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(draw).await {
        Ok(response) => response,
        Err(error) => unwritten(&error),
    }
}

impl Pages {
    /// What stands now, of all or of what a page is about; or a page that says why it cannot be shown.
    async fn now(self: &Arc<Self>, about: Option<About>) -> Result<Arc<Now>, Response> {
        let kept = self.now.of(&about);
        let at = self.site.clock.now();
        let older = |fresh: &Fresh<Now>| {
            let (from, now) = fresh.last()?;
            (from.duration_until(at) <= OLDEST).then_some((from, now))
        };
        let patience = match older(&kept) {
            Some(_) => PATIENCE_FOR_NEWER,
            None => PATIENCE,
        };
        let pages = Arc::clone(self);
        let begin = |work| {
            tokio::spawn(pages.read_in_turn(about, work));
        };
        latest(&kept, at, patience, begin).await;
        let now = kept.current(self.site.clock.now()).or_else(|| {
            // What was asked for after this request began is an answer to it; what is older, while a newer one is on its way.
            let (from, now) = older(&kept)?;
            (at <= from || kept.is_at_work()).then_some(now)
        });
        now.ok_or_else(|| unreadable(kept.is_at_work()))
    }

    /// The wait for the turn counts as work, so that all pages together take no more than a fifth of the time.
    async fn read_in_turn(self: Arc<Self>, about: Option<About>, work: Work<Now>) {
        let Ok(_turn) = tokio::time::timeout(PATIENCE * 2, self.turn.lock()).await else {
            return tracing::warn!("too many pages are asked for at once, so that one of them was not read");
        };
        let (pages, clock) = (Arc::clone(&self), Arc::clone(&self.site.clock));
        let read = async move |at| now::read(&pages.site, about.as_ref(), at).await;
        work_out(work, clock, read).await;
    }

    /// One person's access hours, worked out at once: it is little. `None` where they cannot be read.
    async fn hours_of(&self, person: &Person) -> Option<FourWeeks> {
        let in_use = Arc::clone(&self.site.in_use.borrow());
        let snapshots = self.site.snapshots.lock().await.newest(&in_use.policy.schedules());
        let now = self.site.clock.now();
        let read = hours::read_of(&self.site.ledger, &in_use, &snapshots, person, now).await;
        let told =
            |error: LedgerError| tracing::warn!(error = %clean(&chain(&error)), "a page could not read the record");
        read.map_err(told).ok()
    }

    /// Access hours, as new as could be had in a moment. `None` where none were ever added up.
    async fn hours(self: &Arc<Self>) -> Option<Arc<FourWeeks>> {
        let (pages, clock) = (Arc::clone(self), Arc::clone(&self.site.clock));
        let read = async move |at| {
            let in_use = Arc::clone(&pages.site.in_use.borrow());
            let snapshots = pages.site.snapshots.lock().await.newest(&in_use.policy.schedules());
            let mut past = pages.past.lock().await;
            hours::read(&pages.site.ledger, &in_use, &snapshots, &mut past, at).await
        };
        let begin = |work| {
            tokio::spawn(work_out(work, clock, read));
        };
        latest(&self.hours, self.site.clock.now(), PATIENCE_FOR_HOURS, begin).await;
        self.hours.last().map(|(_, hours)| hours)
    }
}

/// Says that what stands now cannot be shown: not yet, or because of a failure.
fn unreadable(is_at_work: bool) -> Response {
    let (title, text) = if is_at_work {
        (
            "Still being read",
            "The record is large, and what stands now is not put together yet. Look again in a moment.",
        )
    } else {
        (
            "The record cannot be read",
            "What stands now is not known to this page; the log says why. The daemon goes on as far as it can: /healthz \
             and the metrics tell.",
        )
    };
    (StatusCode::SERVICE_UNAVAILABLE, page(&Plain { title, text })).into_response()
}

/// Waits until `fresh` holds a value that is fresh at `at`, a read of it failed, or patience is over. Where nobody works on
/// one, `begin` takes that up.
async fn latest<T>(fresh: &Arc<Fresh<T>>, at: Timestamp, patience: Duration, begin: impl FnOnce(Work<T>)) {
    let mut next = fresh.next();
    if fresh.current(at).is_some() {
        return;
    }
    if let Some(work) = fresh.begin(at) {
        begin(work);
    }
    // Whether it came, failed or takes too long, the caller looks at what is there.
    drop(tokio::time::timeout(patience, next.changed()).await);
}

/// Reads on a thread of its own, away from the daemon's work, and to the end, whether or not somebody still waits.
async fn work_out<T, R>(work: Work<T>, clock: Arc<dyn Clock>, read: R)
where
    T: Send + Sync + 'static,
    R: AsyncFnOnce(Timestamp) -> Result<T, LedgerError> + Send + 'static,
{
    let runtime = tokio::runtime::Handle::current();
    let reading = tokio::task::spawn_blocking(move || match runtime.block_on(read(clock.now())) {
        Ok(value) => work.done(value, clock.now()),
        Err(error) => tracing::warn!(error = %clean(&chain(&error)), "a page could not read the record"),
    });
    if let Err(error) = reading.await {
        tracing::error!(%error, "a page could not read the record");
    }
}

fn page(view: &impl Template) -> Response {
    match view.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => unwritten(&error),
    }
}

fn unwritten(error: &dyn std::error::Error) -> Response {
    tracing::error!(%error, "a page could not be written");
    let text = "the page could not be written; see the log\n";
    (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
}

#[derive(Template)]
#[template(path = "plain.html", config = "src/pages/askama.toml")]
struct Plain {
    title: &'static str,
    text: &'static str,
}

fn missing(text: &'static str) -> Response {
    let title = "Not found";
    (StatusCode::NOT_FOUND, page(&Plain { title, text })).into_response()
}

#[cfg(test)]
mod tests;
